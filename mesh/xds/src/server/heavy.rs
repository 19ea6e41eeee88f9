//! Where is worked on what is large.
//!
//! The threads that serve everybody are few. What would keep one of them for longer than a moment is done on others, and
//! by few at a time: they take turns, so that one subscriber's work waits for a piece of another's and not for all of
//! it.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::Status;

/// Up to so many names or resources are looked at at once, on the thread that serves: some tenths of a millisecond.
pub(super) const LIGHT: usize = 1024;

/// Does the work. Cheap to clone.
#[derive(Clone)]
pub(super) struct Heavy {
    turns: Arc<Semaphore>,
}

impl Heavy {
    /// Half of the cores, at least one: certificates and everybody else need some, too.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { turns: Arc::new(Semaphore::new((cores / 2).max(1))) }
    }

    /// Does `what`, which looks at about `work` names.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: usize,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        if work < LIGHT {
            return Ok(what());
        }
        let turn = self.turns.acquire().await;
        let done = tokio::task::spawn_blocking(what).await;
        drop(turn);
        done.map_err(|error| Status::internal(format!("the work for a subscriber failed: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// On a runtime of one thread: work that would take for ever without somebody else being served.
    #[tokio::test]
    async fn others_are_served_while_somebody_works() {
        let heavy = Heavy { turns: Arc::new(Semaphore::new(1)) };
        let (served, waits) = mpsc::channel();
        let work = heavy.run(LIGHT, move || waits.recv_timeout(Duration::from_secs(20)).is_ok());
        let light = async {
            heavy.run(LIGHT - 1, || ()).await.unwrap();
            served.send(()).unwrap();
        };
        let (worked, ()) = tokio::join!(work, light);
        assert!(worked.unwrap(), "the light work was done while the heavy one waited for it");
        // Turns: the second begins when the first has ended.
        let (first, second) = (heavy.clone(), heavy.clone());
        let (done, seen) = mpsc::channel();
        let one = first.run(LIGHT, {
            let done = done.clone();
            move || done.send(1)
        });
        let two = second.run(LIGHT, move || done.send(2));
        let (one, two) = tokio::join!(one, two);
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(seen.iter().collect::<Vec<_>>(), [1, 2]);
    }
}
