//! The end of a proxy: it takes nothing new, and what is open may finish.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use mesh_runtime::drain::{Trigger, Watch};
use mesh_runtime::readiness::Part;
use mesh_runtime::timestamp::Timestamp;

use crate::metrics::DrainMetrics;

/// Drains, because of `reason`, until what is open has ended by itself or `limit` has passed, and says so in the log, in
/// metrics, and by `life`, the part of readiness that is ready while the proxy serves. What is left is for the caller to
/// cut.
pub async fn drain(
    trigger: Trigger,
    watch: &Watch,
    reason: &impl Display,
    limit: Duration,
    metrics: &DrainMetrics,
    life: &Part,
) {
    let deadline = SystemTime::now() + limit;
    metrics.began(deadline);
    let until = Timestamp::from(deadline);
    life.not_ready(format!("draining until {until}"));
    tracing::info!(%reason, deadline = ?limit, %until, open = watch.open(), "draining");
    match trigger.drain(limit).await.left {
        0 => tracing::info!("drained: every connection finished"),
        left => tracing::warn!(left, "the drain deadline has passed: cutting what is left"),
    }
}
