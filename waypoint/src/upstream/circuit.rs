//! How much there may be at once of a service's port: exact for all data threads together, by counters that they share.

use std::sync::atomic::{AtomicU32, Ordering};

use mesh_model::traffic::Limits;
use tokio::sync::Notify;

/// What is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Limit {
    /// Connections to endpoints.
    Connections,
    /// Requests that wait for one.
    Pending,
    /// Requests under way.
    Requests,
    /// Requests that are tried again.
    Retries,
}

impl Limit {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Connections, Self::Pending, Self::Requests, Self::Retries];

    /// As users write it.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Self::Connections => "maxConnections",
            Self::Pending => "http1MaxPendingRequests",
            Self::Requests => "http2MaxRequests",
            Self::Retries => "maxRetries",
        }
    }

    /// What was written.
    pub(super) fn of(self, limits: &Limits) -> Option<u32> {
        match self {
            Self::Connections => limits.connections,
            Self::Pending => limits.pending,
            Self::Requests => limits.requests,
            Self::Retries => limits.retries,
        }
    }
}

/// The counters of one port of a service.
#[derive(Default)]
pub(super) struct Circuit {
    counts: [AtomicU32; 4],
    /// Told when a connection ends or has room, while somebody waits for one.
    pub(super) freed: Notify,
}

impl Circuit {
    fn counter(&self, limit: Limit) -> &AtomicU32 {
        match (limit, &self.counts) {
            (Limit::Connections, [counter, ..])
            | (Limit::Pending, [_, counter, ..])
            | (Limit::Requests, [_, _, counter, _])
            | (Limit::Retries, [.., counter]) => counter,
        }
    }

    /// How many there are.
    pub(super) fn count(&self, limit: Limit) -> u32 {
        self.counter(limit).load(Ordering::SeqCst)
    }

    /// One less.
    pub(super) fn give_back(&self, limit: Limit) {
        self.counter(limit).fetch_sub(1, Ordering::SeqCst);
        if limit == Limit::Connections {
            self.free();
        }
    }

    /// One more, if there may be. In one order for all: who gives a connection back sees who waits, or who is about to wait sees it.
    pub(super) fn take(&self, limit: Limit, most: Option<u32>) -> bool {
        let counter = self.counter(limit);
        match most {
            None => {
                counter.fetch_add(1, Ordering::SeqCst);
                true
            }
            Some(most) => {
                let more = |now: u32| (now < most).then(|| now + 1);
                counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
            }
        }
    }

    /// Tells who waits for a connection that there may be one.
    pub(super) fn free(&self) {
        if self.count(Limit::Pending) > 0 {
            self.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_there_may_be_and_each_is_given_back() {
        let circuit = Circuit::default();
        for limit in Limit::ALL {
            assert!(circuit.take(limit, Some(2)) && circuit.take(limit, Some(2)) && !circuit.take(limit, Some(2)));
            assert!(!circuit.take(limit, Some(0)), "a limit that was lowered");
            assert!(circuit.take(limit, None), "one that was taken away");
            assert_eq!(circuit.count(limit), 3);
        }
    }

    /// Exact, whoever asks: as many threads as try, as many succeed as may.
    #[test]
    fn threads_share_the_bound() {
        let circuit = Circuit::default();
        let taken: usize = std::thread::scope(|scope| {
            let one = || (0..1000).filter(|_| circuit.take(Limit::Requests, Some(1500))).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1500);
    }
}
