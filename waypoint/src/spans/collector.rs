//! The spans for one collector: gathered for a moment, sent together, tried again where that may help.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use mesh_model::trace::otlp;
use mesh_model::trace::span::Span;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::export::{Failed, export};
use super::{Collector, Dropped};
use crate::serving::Worker;

/// Requests whose spans wait for a collector: some megabytes at most.
pub(super) const MOST_WAITING: usize = 2048;
/// Spans that are sent in one call; those of one request stay together.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take for a call.
const CALL: Duration = Duration::from_secs(10);
/// How often a call is made whose failure may pass.
const TRIES: u32 = 3;
/// Before the second call; twice as long before the third.
const PAUSE: Duration = Duration::from_secs(1);

/// Sends what comes, until nothing can come any more. `held` counts what has come and is neither taken nor dropped.
pub(super) async fn serve(
    worker: Rc<Worker>,
    to: Collector,
    mut spans: mpsc::Receiver<Vec<Span>>,
    held: Rc<Cell<usize>>,
) {
    let resource = resource(&worker);
    let mut works = true;
    while let Some(mut batch) = spans.recv().await {
        let until = Instant::now() + GATHER;
        while batch.len() < BATCH {
            // Nothing more can come, or nothing more has: either way it is sent.
            let Ok(Some(more)) = timeout_at(until, spans.recv()).await else { break };
            batch.extend(more);
        }
        let count = batch.len();
        let message = otlp::request(&resource, ("ambit", env!("CARGO_PKG_VERSION")), batch);
        let mut tries = 0;
        let sent = loop {
            tries += 1;
            let sent = timeout(CALL, export(&worker, &to, message.clone())).await;
            let sent = sent.unwrap_or_else(|_| Err(Failed { why: format!("no answer in {CALL:?}"), passes: true }));
            match sent {
                // Who is about to end has no time for another.
                Err(failed) if failed.passes && tries < TRIES && !spans.is_closed() => sleep(PAUSE * tries).await,
                sent => break sent,
            }
        };
        let metrics = worker.context.spans.metrics();
        held.set(held.get() - count);
        let ((service, port), worked) = (&to, works);
        works = sent.is_ok();
        match sent {
            Ok(rejected) => {
                let (left, why) = rejected.unwrap_or_default();
                let left = usize::try_from(left).unwrap_or(count).min(count);
                metrics.exported((count - left) as u64);
                metrics.dropped(Dropped::CollectorRejected, left);
                if left > 0 {
                    tracing::warn!(%service, port, spans = left, why, "the collector does not take all spans");
                } else if !worked {
                    tracing::info!(%service, port, "the collector takes spans again");
                }
            }
            Err(Failed { why, .. }) => {
                metrics.dropped(Dropped::CollectorUnavailable, count);
                // Said once; how many more there are, the metric says.
                if worked {
                    tracing::warn!(%service, port, spans = count, why, "spans are dropped: the collector does not take them");
                }
            }
        }
    }
}

/// Whose spans they are: Istio's name for a waypoint.
fn resource(worker: &Worker) -> Vec<(&'static str, String)> {
    let config = &worker.context.config;
    let namespace = &config.pod.namespace;
    vec![
        ("service.name", format!("{}.{namespace}", config.gateway)),
        ("k8s.namespace.name", namespace.to_string()),
        ("k8s.pod.name", config.pod.name.to_string()),
        ("telemetry.sdk.name", "ambit".to_owned()),
        ("telemetry.sdk.language", "rust".to_owned()),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION").to_owned()),
    ]
}
