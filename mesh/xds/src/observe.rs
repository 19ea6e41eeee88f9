//! What is counted about a client's streams, without knowing how; and the words under which a server's are counted.

use mesh_model::resource::Kind;
pub use mesh_runtime::metrics::XdsEnd as End;
use mesh_runtime::metrics::{Metrics, XdsMetrics, XdsServerMetrics};

use crate::audience::Role;

/// Registers what a server counts.
pub fn register(xds: &XdsServerMetrics, metrics: &mut Metrics) {
    xds.register(metrics, &Kind::ALL.map(word), &["ztunnel", "waypoint"]);
}

/// A kind, as the metrics of a control plane call it: istiod's words where it has one.
pub(crate) fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => "wds",
        Kind::Authorization => "wads",
        Kind::Routes => "routes",
    }
}

/// What a subscriber is, in one of few words.
pub(crate) fn role(role: &Role) -> &'static str {
    match role {
        Role::Ztunnel => "ztunnel",
        Role::Waypoint(_) => "waypoint",
    }
}

/// Counts.
pub trait Observer: Send + Sync + 'static {
    /// A response came, with so many bytes of resources.
    fn message(&self, type_url: &str, bytes: u64);
    /// A stream ended.
    fn ended(&self, end: End);
}

/// Counts nothing.
impl Observer for () {
    fn message(&self, _: &str, _: u64) {}
    fn ended(&self, _: End) {}
}

/// Counts in the process's metrics.
impl Observer for XdsMetrics {
    fn message(&self, type_url: &str, bytes: u64) {
        Self::message(self, type_url, bytes);
    }

    fn ended(&self, end: End) {
        Self::ended(self, end);
    }
}
