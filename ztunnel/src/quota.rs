//! How much of ztunnel each pod may hold, so that none starves the others.
//!
//! A pod may hold as much as is left for everybody: one greedy pod gets at most half of the bound, *n* of them one part
//! in *n* + 1 each, and whoever comes next always finds room. So a bound that no honest node meets needs no other for
//! its pods; an operator may set one all the same.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mesh_runtime::access_log::Direction;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;

use crate::report::Report;
use crate::shared::Shared;

/// Descriptors that one connection of an application takes: its own, and that of the application or of its share of a
/// pooled connection. The rest is for listeners, pools, the control plane and files.
const DESCRIPTORS_EACH: u64 = 3;
/// TLS handshakes under way at once: a core does some thousand a second.
const HANDSHAKES: usize = 8_192;

/// What an operator set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// `ZTUNNEL_MAX_CONNECTIONS`: connections and tunnels open at once. `None` is what the open files allow.
    pub connections: Option<usize>,
    /// `ZTUNNEL_MAX_CONNECTIONS_PER_POD`: of one pod. `None` is its share.
    pub per_pod: Option<usize>,
    /// `ZTUNNEL_MAX_HANDSHAKES`: TLS handshakes of callers under way at once.
    pub handshakes: Option<usize>,
}

/// What is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("ztunnel holds as many {0}")]
    Node(&'static str),
    #[error("this pod holds as much as one may while others may want some: as many {0}")]
    Pod(&'static str),
}

impl Full {
    /// The stable code; documented in `docs/reasons.md`.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Node(_) => "NODE_OVERLOADED",
            Self::Pod(_) => "POD_OVERLOADED",
        }
    }
}

/// May a pod that holds `pod` take one more, when all together hold `all` of `bound`?
fn room(bound: usize, per_pod: Option<usize>, all: usize, pod: usize) -> Result<(), Who> {
    let free = bound.saturating_sub(all);
    if free == 0 {
        Err(Who::Node)
    } else if pod >= free || per_pod.is_some_and(|most| pod >= most) {
        Err(Who::Pod)
    } else {
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Node,
    Pod,
}

/// One bound, and who holds how much of it.
struct Bound {
    /// For the text of a refusal.
    what: &'static str,
    most: usize,
    per_pod: Option<usize>,
    held: Gauge,
}

impl Bound {
    fn enter(self: &Arc<Self>, pod: &Arc<AtomicUsize>) -> Result<Place, Full> {
        // Counted before it is asked: two that ask at once see each other, and the bound holds.
        let all = usize::try_from(self.held.inc()).unwrap_or(0);
        let place = Place { bound: self.clone(), pod: pod.clone() };
        match room(self.most, self.per_pod, all, pod.fetch_add(1, Relaxed)) {
            Ok(()) => Ok(place),
            Err(Who::Node) => Err(Full::Node(self.what)),
            Err(Who::Pod) => Err(Full::Pod(self.what)),
        }
    }
}

/// What is held; given back when dropped.
pub(crate) struct Place {
    bound: Arc<Bound>,
    pod: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.bound.held.dec();
        self.pod.fetch_sub(1, Relaxed);
    }
}

/// The bounds of the node.
pub(crate) struct Quota {
    connections: Arc<Bound>,
    handshakes: Arc<Bound>,
    pods: Mutex<HashMap<Arc<str>, Weak<Held>>>,
}

/// What one pod holds, on all workers.
#[derive(Default)]
struct Held {
    connections: Arc<AtomicUsize>,
    handshakes: Arc<AtomicUsize>,
}

/// One pod's part of the bounds.
pub(crate) struct PodQuota {
    connections: Arc<Bound>,
    handshakes: Arc<Bound>,
    held: Arc<Held>,
}

impl Quota {
    /// With `files` open files allowed; the gauges tell how much is held.
    pub(crate) fn new(limits: &Limits, files: u64, connections: Gauge, handshakes: Gauge) -> Self {
        let allowed = usize::try_from(files / DESCRIPTORS_EACH).unwrap_or(usize::MAX).max(1);
        Self {
            connections: Arc::new(Bound {
                what: "connections and tunnels as ZTUNNEL_MAX_CONNECTIONS allows",
                most: limits.connections.unwrap_or(allowed),
                per_pod: limits.per_pod,
                held: connections,
            }),
            handshakes: Arc::new(Bound {
                what: "TLS handshakes under way as ZTUNNEL_MAX_HANDSHAKES allows",
                most: limits.handshakes.unwrap_or(HANDSHAKES),
                per_pod: None,
                held: handshakes,
            }),
            pods: Mutex::default(),
        }
    }

    /// A pod's part, the same for each of its workers.
    pub(crate) fn pod(&self, uid: &Arc<str>) -> PodQuota {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.retain(|_, held| held.strong_count() > 0);
        let held = pods.get(uid).and_then(Weak::upgrade).unwrap_or_default();
        pods.insert(uid.clone(), Arc::downgrade(&held));
        PodQuota { connections: self.connections.clone(), handshakes: self.handshakes.clone(), held }
    }
}

impl PodQuota {
    /// A place for one more connection or tunnel.
    pub(crate) fn connection(&self) -> Result<Place, Full> {
        self.connections.enter(&self.held.connections)
    }

    /// A place for one more TLS handshake.
    pub(crate) fn handshake(&self) -> Result<Place, Full> {
        self.handshakes.enter(&self.held.handshakes)
    }
}

/// A place for the connection `tcp`, from `from` to `to`. `None` when there is none: then this has been told, and the
/// connection will end with a reset, so that nobody takes its end for an answer.
pub(crate) fn admit(
    shared: &Arc<Shared>,
    quota: &PodQuota,
    direction: Direction,
    tcp: &TcpStream,
    (from, to): (SocketAddr, SocketAddr),
) -> Option<Place> {
    match quota.connection() {
        Ok(place) => Some(place),
        Err(full) => {
            shed(shared, direction, tcp, (from, to), full);
            None
        }
    }
}

/// Tells of a connection for which there is no room, and has it end with a reset.
pub(crate) fn shed(
    shared: &Arc<Shared>,
    direction: Direction,
    tcp: &TcpStream,
    (from, to): (SocketAddr, SocketAddr),
    full: Full,
) {
    Report::early(shared, direction, from, to).failed(full.code(), &full);
    // Fails only on a socket that is gone already.
    let _ = socket2::SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO));
}

/// Raises the limit of open files as far as this process may; returns what it is then.
pub(crate) fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // None is no limit.
    let most = limit.maximum.unwrap_or(u64::MAX);
    let now = limit.current.unwrap_or(u64::MAX);
    if now < most {
        match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
            Ok(()) => return most,
            Err(error) => tracing::warn!(%error, now, most, "cannot raise the limit of open files"),
        }
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_may_hold_as_much_as_is_left() {
        for (bound, per_pod, all, pod, expected) in [
            (100, None, 0, 0, Ok(())),
            // Alone, it gets half.
            (100, None, 49, 49, Ok(())),
            (100, None, 50, 50, Err(Who::Pod)),
            // Beside one that has its half, the next gets a part and the first no more.
            (100, None, 50, 0, Ok(())),
            (100, None, 74, 24, Ok(())),
            (100, None, 75, 25, Err(Who::Pod)),
            (100, None, 51, 50, Err(Who::Pod)),
            // The last place is for whoever has none.
            (100, None, 99, 0, Ok(())),
            (100, None, 99, 1, Err(Who::Pod)),
            (100, None, 100, 0, Err(Who::Node)),
            (100, None, 120, 0, Err(Who::Node)),
            // An operator's own bound.
            (100, Some(10), 9, 9, Ok(())),
            (100, Some(10), 10, 10, Err(Who::Pod)),
            (100, Some(80), 50, 50, Err(Who::Pod)),
        ] {
            assert_eq!(room(bound, per_pod, all, pod), expected, "{pod} of {all} of {bound}, {per_pod:?} at most");
        }
    }

    fn quota(limits: Limits) -> (Quota, Gauge) {
        let held = Gauge::default();
        (Quota::new(&limits, 30_000, held.clone(), Gauge::default()), held)
    }

    #[test]
    fn a_greedy_pod_leaves_room_on_every_worker_and_gives_back() {
        let (quota, held) = quota(Limits { connections: Some(1_000), ..Limits::default() });
        let (greedy, modest): (Arc<str>, Arc<str>) = ("greedy".into(), "modest".into());
        // Two workers of the same pod hold from the same part.
        let workers = [quota.pod(&greedy), quota.pod(&greedy)];
        let mut places = Vec::new();
        let full = loop {
            match workers[places.len() % 2].connection() {
                Ok(place) => places.push(place),
                Err(full) => break full,
            }
        };
        assert_eq!((places.len(), held.get()), (500, 500));
        assert!(full.to_string().contains("ZTUNNEL_MAX_CONNECTIONS"), "{full}");
        let modest = quota.pod(&modest);
        let others: Vec<Place> = (0..250).map(|_| modest.connection().expect("room for others")).collect();
        // Handshakes are counted by themselves.
        assert!(workers[0].handshake().is_ok());
        drop((places, others));
        assert_eq!(held.get(), 0);
        assert!(workers[0].connection().is_ok());
    }

    #[test]
    fn defaults_come_from_the_open_files() {
        let (quota, _) = quota(Limits::default());
        assert_eq!((quota.connections.most, quota.handshakes.most), (10_000, HANDSHAKES));
    }

    #[test]
    fn pods_that_are_gone_are_forgotten() {
        let (quota, _) = quota(Limits::default());
        for number in 0..100 {
            drop(quota.pod(&format!("pod-{number}").into()));
        }
        assert!(quota.pods.lock().unwrap().len() <= 1);
    }

    #[test]
    fn the_limit_of_open_files_is_raised_to_the_hard_one() {
        use rustix::process::{Resource, getrlimit};
        let files = raise_open_files();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!((limit.current, limit.maximum.unwrap_or(u64::MAX)), (limit.maximum, files));
    }
}
