//! Counters under names that Istio's control plane gave them, which do not end in `_total`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A counter that is written under exactly the name it was registered with. OpenMetrics knows no such counter, so its type
/// is `unknown`, and `untyped` in Prometheus' text; `rate()` and `increase()` do not mind. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct BareCounter(Arc<AtomicU64>);

impl BareCounter {
    /// Counts one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl TypedMetric for BareCounter {
    const TYPE: MetricType = MetricType::Unknown;
}

impl EncodeMetric for BareCounter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.get())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metrics, TextFormat};

    #[test]
    fn its_name_stays_as_it_is() {
        let mut metrics = Metrics::new("test", "0");
        let counter = BareCounter::default();
        metrics.registry_mut().register("citadel_server_csr_count", "CSRs", counter.clone());
        counter.inc();
        let text = metrics.encode(TextFormat::Prometheus).unwrap();
        assert!(text.contains("# TYPE citadel_server_csr_count untyped\n"), "{text}");
        assert!(text.contains("\ncitadel_server_csr_count 1\n"), "{text}");
    }
}
