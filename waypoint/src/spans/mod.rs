//! Spans of requests, on their way from data threads to their collectors.
//!
//! A data thread hands the spans of a request over and goes on; everything else happens on a thread of its own, which reaches collectors
//! as data threads reach endpoints. Nothing waits for a collector: where there is no room, spans are dropped and counted.
//!
//! | file | holds |
//! |---|---|
//! | here | what data threads see: a queue |
//! | `exporter` | the thread, which begins with the first span |
//! | `collector` | the spans for one collector: batches, tries |
//! | `export` | one call |
//! | `metrics` | what was sent, and what was not and why |
//!
//! Bounds: [`MOST_WAITING`] requests' spans in the queue, [`collector::MOST_WAITING`] for each collector. There are as many collectors as
//! users have named.

use mesh_model::address::NamespacedName;
use mesh_model::trace::span::Span;
use tokio::sync::mpsc;

mod collector;
mod export;
pub(crate) mod exporter;
mod metrics;

pub(crate) use metrics::{Dropped, SpanMetrics};

/// Requests whose spans no collector has been found for yet. It takes microseconds.
const MOST_WAITING: usize = 1024;

/// A service's port that takes spans.
pub(crate) type Collector = (NamespacedName, u16);

/// The spans of a request.
pub(crate) struct Finished {
    /// Who takes them.
    pub(crate) collector: Collector,
    /// All of them.
    pub(crate) spans: Vec<Span>,
}

/// Where they come out.
pub(crate) type Queue = mpsc::Receiver<Finished>;

/// Where data threads hand spans over.
pub(crate) struct Spans {
    queue: mpsc::Sender<Finished>,
    metrics: SpanMetrics,
}

impl Spans {
    /// An empty queue, and its other end.
    pub(crate) fn new(metrics: SpanMetrics) -> (Self, Queue) {
        let (queue, other) = mpsc::channel(MOST_WAITING);
        (Self { queue, metrics }, other)
    }

    /// Hands the spans of a request over. Never waits.
    pub(crate) fn hand_over(&self, finished: Finished) {
        if let Err(full) = self.queue.try_send(finished) {
            self.metrics.dropped(Dropped::QueueFull, full.into_inner().spans.len());
        }
    }

    /// Counters.
    pub(crate) fn metrics(&self) -> &SpanMetrics {
        &self.metrics
    }
}
