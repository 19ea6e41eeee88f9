//! How a waypoint treats the endpoints of a service: what Istio's DestinationRule says in `trafficPolicy`. Pure.
//!
//! | file | holds |
//! |---|---|
//! | this one | what was written, ready to be followed |
//! | [`outlier`] | which endpoints get no requests for a while, because of what they answered |
//! | `wire` | the same ↔ `ambit.v1.TrafficPolicy` |

pub mod outlier;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use crate::address::NamespacedName;
use crate::balance::ewma::PeakEwma;
use crate::balance::warmup::Warmup;

pub use outlier::Detection;
pub use wire::InvalidTraffic;

/// The largest ring that is made, in points of 16 bytes: one ring for each port of a service, made again whenever its endpoints change.
pub const MOST_RING: u32 = 1 << 17;
/// The largest Maglev table, in entries of 4 bytes: the larger one of the two that its inventors use.
pub const MOST_MAGLEV: u32 = 655_373;

/// What holds for a port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTraffic {
    /// The service's port; `None` is every port that has no entry of its own.
    pub port: Option<u16>,
    /// The DestinationRule that says it: what logs and refusals name. `None`: none does, and a TrafficPolicy says how endpoints are chosen.
    pub rule: Option<NamespacedName>,
    /// What it says.
    pub policy: Arc<TrafficPolicy>,
}

/// Some of the endpoints of a service, which have a name: a subset of a DestinationRule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subset {
    /// Its name. Never empty.
    pub name: Arc<str>,
    /// Uids of workloads, in order. Of those that are no endpoints of the service nothing follows.
    pub workloads: Vec<Arc<str>>,
    /// What holds for its endpoints, instead of what holds for all of the service.
    pub traffic: Vec<PortTraffic>,
}

impl Subset {
    /// Whether a workload is one of them.
    pub fn holds(&self, uid: &str) -> bool {
        self.workloads.binary_search_by(|known| (**known).cmp(uid)).is_ok()
    }
}

/// What is done with requests and connections to endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct TrafficPolicy {
    /// `connectionPool`.
    pub limits: Limits,
    /// `outlierDetection`; `None`: no endpoint is ejected.
    pub outliers: Option<Detection>,
    /// `loadBalancer`.
    pub balancing: Balancing,
    /// `loadBalancer.warmup`: new endpoints get less at first. Hashes and chance do without.
    pub warmup: Option<Warmup>,
}

/// How much there may be at once, by one waypoint. `None` is without limit.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Limits {
    /// `tcp.maxConnections`: connections open to all endpoints together.
    pub connections: Option<u32>,
    /// `http.http1MaxPendingRequests`: requests that wait for a connection.
    pub pending: Option<u32>,
    /// `http.http2MaxRequests`: requests under way, in whichever version of HTTP.
    pub requests: Option<u32>,
    /// `http.maxRetries`: requests that are tried again.
    pub retries: Option<u32>,
    /// `http.maxRequestsPerConnection`. Never 0.
    pub requests_per_connection: Option<u32>,
    /// `tcp.connectTimeout`: for TCP and all handshakes together. `None`: the waypoint's own.
    pub connect_timeout: Option<Duration>,
    /// `http.idleTimeout`: how long a connection without requests is kept. `None`: the waypoint's own.
    pub idle_timeout: Option<Duration>,
}

/// Which endpoint is chosen, of those that are healthy, near enough and not ejected.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Balancing {
    /// Of two that chance names, the one with fewer requests under way.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
    /// Of two that chance names, the one at which a request costs less, by how long others took.
    PeakEwma(PeakEwma),
    /// By something about the request: the same again, for as long as the endpoint takes traffic.
    Hash(HashBy, HashTable),
}

/// What is hashed. A request that does not have it goes by chance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// A header's value. The name is in lower case.
    Header(Arc<str>),
    /// A cookie.
    Cookie(Cookie),
    /// The caller's address, as its tunnel has proven it.
    SourceIp,
    /// A parameter of the query.
    Query(Arc<str>),
}

/// A cookie that names an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: Arc<str>,
    /// For which paths a client shall send it; `None` leaves it to the client.
    pub path: Option<Arc<str>>,
    /// Who sends none is given one, for so long; zero: until the client ends. `None`: nobody is given one.
    pub ttl: Option<Duration>,
}

/// How a hash finds an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashTable {
    /// Points on a ring, at least so many in all: at most [`MOST_RING`].
    Ring(u32),
    /// Maglev, with a table of this size: a prime, at most [`MOST_MAGLEV`].
    Maglev(u32),
}

impl Default for HashTable {
    /// Envoy's.
    fn default() -> Self {
        Self::Ring(1024)
    }
}

/// What holds for a port, of what is said for a service.
pub fn of_port(all: &[PortTraffic], port: u16) -> Option<&PortTraffic> {
    let own = all.iter().find(|one| one.port == Some(port));
    own.or_else(|| all.iter().find(|one| one.port.is_none()))
}

/// Whether Maglev's table can have this size.
pub fn is_prime(number: u32) -> bool {
    let number = u64::from(number);
    number > 1 && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| number % divisor != 0)
}
