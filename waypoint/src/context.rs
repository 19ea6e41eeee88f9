//! What data threads read.

use mesh_model::address::NamespacedName;
use mesh_proxy::context::ProxyContext;
use mesh_proxy::hostnames::Hostnames;
use mesh_runtime::metrics::RequestMetrics;

use crate::config::Config;
use crate::limits::LEAST_UNDER_WAY;
use crate::rate_limit::RateLimits;
use crate::spans::Spans;
use crate::upstream::ServicePorts;

/// What data threads read.
pub(crate) struct WaypointContext {
    /// What every HBONE proxy has.
    pub(crate) proxy: ProxyContext,
    /// Counters of requests.
    pub(crate) requests: RequestMetrics,
    /// What all threads share of services' ports.
    pub(crate) ports: ServicePorts,
    /// Addresses of endpoints that have only a name.
    pub(crate) hostnames: Hostnames,
    /// Endpoints may be on this pod's own loopback, where its admin port is: never, but in tests, which have theirs there.
    pub(crate) endpoints_on_loopback: bool,
    /// What all threads share of rate limits.
    pub(crate) rate_limits: RateLimits,
    /// Where spans are handed over.
    pub(crate) spans: Spans,
    /// The Gateway's namespace and name.
    pub(crate) gateway: NamespacedName,
    /// What was set.
    pub(crate) config: Config,
}

impl WaypointContext {
    /// Requests and connections that a data thread may have under way to endpoints at once, each in a tunnel of its own: all threads
    /// together as many as an endpoint's ztunnel grants one waypoint, if it may open as many files.
    pub(crate) fn under_way(&self) -> usize {
        let all = self.config.under_way.unwrap_or((self.proxy.quota.most_connections() / 4).max(LEAST_UNDER_WAY));
        all.div_ceil(self.config.workers)
    }
}
