//! What data threads read.

use mesh_proxy::context::ProxyContext;
use mesh_runtime::metrics::RequestMetrics;

use crate::config::Config;

/// What data threads read.
pub(crate) struct WaypointContext {
    /// What every HBONE proxy has.
    pub(crate) proxy: ProxyContext,
    /// Counters of requests.
    pub(crate) requests: RequestMetrics,
    /// What was set.
    pub(crate) config: Config,
}
