//! The time by which endpoints are judged. Tests move it by hand, so that how long something takes does not depend on the machine.

use std::time::{Duration, Instant};

/// The time since one moment.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    started: Instant,
    #[cfg(test)]
    by_hand: Option<std::sync::Arc<std::sync::atomic::AtomicU64>>,
}

impl Clock {
    /// From now on.
    pub(crate) fn started() -> Self {
        Self {
            started: Instant::now(),
            #[cfg(test)]
            by_hand: None,
        }
    }

    /// One that shows so many milliseconds, and no others.
    #[cfg(test)]
    pub(crate) fn by_hand(milliseconds: std::sync::Arc<std::sync::atomic::AtomicU64>) -> Self {
        Self { by_hand: Some(milliseconds), ..Self::started() }
    }

    /// So long ago it began.
    pub(crate) fn now(&self) -> Duration {
        #[cfg(test)]
        if let Some(milliseconds) = &self.by_hand {
            return Duration::from_millis(milliseconds.load(std::sync::atomic::Ordering::Relaxed));
        }
        self.started.elapsed()
    }
}
