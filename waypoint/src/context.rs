//! What data threads read.

use mesh_proxy::context::ProxyContext;
use mesh_runtime::metrics::RequestMetrics;

use crate::config::Config;
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
    /// Where spans are handed over.
    pub(crate) spans: Spans,
    /// What was set.
    pub(crate) config: Config,
}
