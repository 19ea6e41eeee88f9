//! What strangers cause as often as they like is said in the log now and then: they would fill the disk.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When to say something, and how often it happened since it was said last.
pub(crate) struct Seldom {
    every: Duration,
    state: Mutex<(u64, Option<Instant>)>,
}

impl Seldom {
    /// At most once in `every`.
    pub(crate) fn new(every: Duration) -> Self {
        Self { every, state: Mutex::default() }
    }

    /// It happened. How many times it did since this last said so, when it is to be said now.
    pub(crate) fn now(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        let now = Instant::now();
        if state.1.is_some_and(|said| now - said < self.every) {
            return None;
        }
        let (many, _) = std::mem::replace(&mut *state, (0, Some(now)));
        Some(many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Virtual time.
    #[tokio::test(start_paused = true)]
    async fn it_is_counted_and_said_now_and_then() {
        let seldom = Seldom::new(Duration::from_secs(1));
        assert_eq!(seldom.now(), Some(1), "at once");
        assert_eq!((seldom.now(), seldom.now()), (None, None));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(seldom.now(), Some(3));
    }
}
