//! Spans, counted: each that was made is in one of these, or under way.

use mesh_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Why a span was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The waypoint makes more than it can pass on.
    QueueFull,
    /// The collector takes fewer than there are.
    CollectorSlow,
    /// The collector could not be reached, or has failed, so often as it was tried.
    CollectorUnavailable,
    /// The collector has said that it does not take it.
    CollectorRejected,
    /// The waypoint has ended before the collector took it.
    Shutdown,
}

impl Dropped {
    fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::CollectorSlow => "collector_slow",
            Self::CollectorUnavailable => "collector_unavailable",
            Self::CollectorRejected => "collector_rejected",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Spans, counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpanMetrics {
    exported: Counter,
    dropped: Family<Reason, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

impl SpanMetrics {
    /// Registers them, with nothing counted yet.
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let registry = metrics.registry_mut();
        registry.register("ambit_spans_exported", "Spans that a collector has taken", this.exported.clone());
        let help = "Spans that no collector has got, by the reason";
        registry.register("ambit_spans_dropped", help, this.dropped.clone());
        this
    }

    /// So many were taken.
    pub(crate) fn exported(&self, count: u64) {
        self.exported.inc_by(count);
    }

    /// So many were dropped.
    pub(crate) fn dropped(&self, why: Dropped, count: usize) {
        if count > 0 {
            self.dropped.get_or_create(&Reason { reason: why.as_str() }).inc_by(count as u64);
        }
    }
}
