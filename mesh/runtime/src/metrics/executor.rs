//! What tokio says about a runtime, read at each scrape.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use tokio::runtime::Handle;

#[derive(Debug)]
pub(super) struct RuntimeMetrics(pub(super) Handle);

impl Collector for RuntimeMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let metrics = self.0.metrics();
        for (name, help, value) in [
            ("tokio_num_workers", "Threads of the control runtime", metrics.num_workers()),
            ("tokio_num_alive_tasks", "Tasks alive on the control runtime", metrics.num_alive_tasks()),
            ("tokio_global_queue_depth", "Tasks waiting for a thread of it", metrics.global_queue_depth()),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&(value as u64))?;
        }
        Ok(())
    }
}
