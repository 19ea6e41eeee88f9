//! What every worker reads: what every data thread of a proxy does, and what only ztunnel has.

use std::sync::Arc;

use mesh_proxy::context::ProxyContext;
use mesh_proxy::hostnames::Hostnames;

use crate::config::Config;
use crate::dns::Dns;
use crate::metrics::HostnameMetrics;

/// What every worker reads.
pub(crate) struct WorkerContext {
    pub(crate) proxy: ProxyContext,
    pub(crate) config: Config,
    /// Addresses of workloads that have only a hostname.
    pub(crate) hostnames: Hostnames,
    pub(crate) hostname_metrics: HostnameMetrics,
    /// None when it is turned off.
    pub(crate) dns: Option<Arc<Dns>>,
}
