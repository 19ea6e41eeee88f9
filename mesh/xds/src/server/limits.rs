//! How much a caller may hold, and all of them.
//!
//! A caller is whom a token proves: one pod. What it may hold is shared by all of its streams, however many connections
//! they come on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::Status;

use crate::budget::{Budget, Full, Reservation};

/// Streams of one caller: a proxy has one, and another while its successor takes over or a connection that broke is not
/// yet known to have.
const STREAMS_EACH: usize = 8;
/// Streams of all callers.
const STREAMS: usize = 16_384;
/// Large requests that are read or looked at at one time; one of each caller.
const LARGE: usize = 8;
/// What a name takes at least, before it is known how long it is.
pub(super) const NAME_AT_LEAST: usize = 64;

/// The age of a stream as Istio's charts set it: `keepaliveMaxServerConnectionAge`.
const AGE: Duration = Duration::from_secs(30 * 60);

/// What may be set.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest request, in bytes (`ISTIO_GPRC_MAXRECVMSGSIZE`). A proxy that connects again declares all that it holds: of
    /// 100,000 workloads with names of 110 bytes (`Kubernetes//Pod/NAMESPACE/NAME`), each 32 of version and 8 of
    /// protobuf, it is 15 MB.
    pub request: usize,
    /// What the names may take that one caller asks for or declares, in bytes (`XDS_NAMES_PER_CALLER`): 100,000 such names
    /// with what a table needs for each, twice, for a proxy and its successor. Of addresses that come on demand it is
    /// 200,000.
    pub names_each: usize,
    /// And those of all callers (`XDS_NAMES`); a caller may hold as much of it as is left for the others.
    pub names: usize,
    /// The age at which a stream ends, some more and some less (`KEEPALIVE_MAX_SERVER_CONNECTION_AGE`): the subscriber
    /// begins the next at once, and proves anew who it is. None: a stream lasts as long as its connection.
    pub age: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { request: 16 << 20, names_each: 48 << 20, names: 512 << 20, age: Some(AGE) }
    }
}

/// What a stream holds.
pub(super) struct Holds {
    pub(super) stream: Reservation<Arc<str>>,
    pub(super) names: Reservation<Arc<str>>,
    pub(super) large: LargeTurns,
}

/// Turns at large requests.
#[derive(Clone)]
pub(super) struct LargeTurns {
    pub(super) own: Arc<Semaphore>,
    pub(super) all: Arc<Semaphore>,
}

/// Who is there, and what they hold.
pub(super) struct Callers {
    pub(super) limits: Limits,
    streams: Arc<Budget<Arc<str>>>,
    names: Arc<Budget<Arc<str>>>,
    large: Arc<Semaphore>,
    own: Mutex<HashMap<Arc<str>, Weak<Semaphore>>>,
}

impl Callers {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            streams: Budget::new(STREAMS, STREAMS_EACH),
            names: Budget::new(limits.names, limits.names_each),
            large: Arc::new(Semaphore::new(LARGE)),
            own: Mutex::default(),
        })
    }

    /// One more stream of a caller.
    #[allow(clippy::result_large_err, reason = "tonic's own error")]
    pub(super) fn stream(&self, caller: &str) -> Result<Holds, Status> {
        let caller: Arc<str> = caller.into();
        let stream = self.streams.take(caller.clone(), 1).map_err(|full| {
            tracing::warn!(%caller, ?full, "one stream more than there may be");
            Status::resource_exhausted(match full {
                Full::Own => format!("{STREAMS_EACH} streams of this caller are open, and no more may be"),
                Full::All => format!("{STREAMS} streams are open, and no more may be"),
            })
        })?;
        let names = self.names.take(caller.clone(), 0).map_err(too_many_names)?;
        let large = LargeTurns { own: self.own(caller), all: self.large.clone() };
        Ok(Holds { stream, names, large })
    }

    fn own(&self, caller: Arc<str>) -> Arc<Semaphore> {
        let mut all = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = all.get(&caller).and_then(Weak::upgrade) {
            return own;
        }
        // Those who have left.
        all.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(1));
        all.insert(caller, Arc::downgrade(&own));
        own
    }
}

/// An age within a tenth of `age`, as gRPC does it: streams that began together do not all end together.
pub(super) fn about(age: Duration, random: u16) -> Duration {
    age.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u16::MAX))
}

pub(super) fn too_many_names(full: Full) -> Status {
    Status::resource_exhausted(match full {
        Full::Own => {
            "the names that this caller asks for and declares take more than it may hold (XDS_NAMES_PER_CALLER)"
        }
        Full::All => "the names that all callers ask for and declare take as much as there is for them (XDS_NAMES)",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_lie_within_a_tenth() {
        let seconds = |random| about(Duration::from_secs(1800), random).as_secs();
        assert_eq!([0, u16::MAX / 2, u16::MAX].map(seconds), [1620, 1799, 1980]);
    }

    #[test]
    fn a_caller_has_so_many_streams_and_others_have_theirs() {
        let callers = Callers::new(Limits::default());
        let held: Vec<_> = (0..STREAMS_EACH).map(|_| callers.stream("shop/greedy").unwrap()).collect();
        let refused = callers.stream("shop/greedy").err().unwrap();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("8 streams of this caller"), "{refused}");
        let other = callers.stream("shop/good").unwrap();
        assert!(
            Arc::ptr_eq(&held[0].large.own, &held[1].large.own),
            "however many streams, one turn at large requests"
        );
        assert!(!Arc::ptr_eq(&held[0].large.own, &other.large.own));
        drop(held);
        callers.stream("shop/greedy").unwrap();
        assert_eq!(callers.streams.held(), 1);
    }
}
