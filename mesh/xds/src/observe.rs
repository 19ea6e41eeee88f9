//! What is counted about a client's streams, without knowing how.

pub use mesh_runtime::metrics::XdsEnd as End;
use mesh_runtime::metrics::XdsMetrics;

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
