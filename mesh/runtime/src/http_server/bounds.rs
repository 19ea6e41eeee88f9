//! How much of what clients send is held.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a server holds of its clients' bodies. Clones share it.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub(super) body: usize,
    all: Arc<Semaphore>,
    pub(super) keep_alive: bool,
}

impl Bounds {
    /// A body has at most `body` bytes. All that are being read or answered have at most `all` together; who comes then waits.
    pub fn new(body: usize, all: usize) -> Self {
        // What is asked for at once must fit into what there is.
        let all = all.max(body).min(Semaphore::MAX_PERMITS);
        Self { body, all: Arc::new(Semaphore::new(all)), keep_alive: true }
    }

    /// A connection ends with its first response: who asks seldom then meets no connection that has just been given up.
    #[must_use]
    pub fn one_request(mut self) -> Self {
        self.keep_alive = false;
        self
    }

    /// Room for a body that has `declared` bytes, as its head says; of one that does not say, for the longest. None: it is too long.
    pub(super) async fn room(&self, declared: Option<u64>) -> Option<OwnedSemaphorePermit> {
        let bytes = declared.map_or(Some(self.body), |bytes| usize::try_from(bytes).ok())?;
        let bytes = u32::try_from(bytes).ok().filter(|_| bytes <= self.body)?;
        // It is never closed.
        self.all.clone().acquire_many_owned(bytes).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[tokio::test]
    async fn all_bodies_together_are_bounded() {
        let bounds = Bounds::new(6, 10);
        assert!(bounds.room(Some(7)).await.is_none(), "longer than one may be");
        let held = bounds.room(None).await.unwrap();
        let _small = bounds.room(Some(4)).await.unwrap();
        let mut waits = pin!(bounds.room(Some(1)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending(), "nothing is left");
        drop(held);
        assert!(matches!(waits.as_mut().poll(&mut cx), Poll::Ready(Some(_))));
    }
}
