//! Istio's TCP metrics, counted per connection without locks and without allocating.
//!
//! Opening a connection finds the counters of its label set once; from then on the connection adds to those counters directly. Who opens
//! many connections with the same labels keeps what [`TrafficMetrics::remember`] gives, and need not even make the labels again. Label sets
//! are bounded (`sets`): those that nobody will use again are to be [forgotten](TrafficMetrics::forget).

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::MetricType;

use super::Metrics;
use super::labels::{Flagged, Reporter, ResponseFlags, TrafficLabels, put};
use super::sets::{self, Sets};

/// The traffic metrics of one program. Clones share them.
#[derive(Clone, Debug)]
pub struct TrafficMetrics {
    inner: Arc<Inner>,
}

/// The counters of one open connection. If it is dropped without [`ConnectionMetrics::closed`], because its task was cancelled, it counts
/// as failed with `CONNECT`, so that what was opened is always closed.
#[derive(Debug)]
pub struct ConnectionMetrics {
    series: Arc<Series>,
    /// Counted under `other`.
    other: bool,
    ended: bool,
}

/// The counters of a label set, as long as they are kept: a connection opened with it costs no look at the labels.
#[derive(Clone, Debug, Default)]
pub struct KnownLabels {
    /// Whose: a number that is only compared.
    owner: Weak<Inner>,
    series: Weak<Series>,
}

/// One open socket in `istio_tcp_sockets_open`, until it is dropped.
#[derive(Debug)]
pub struct OpenSocket {
    inner: Arc<Inner>,
    reporter: Reporter,
}

#[derive(Debug)]
struct Inner {
    sets: Sets<TrafficLabels, Counters>,
    sockets: [AtomicI64; REPORTERS.len()],
}

/// The counters of one label set.
#[derive(Debug, Default)]
struct Counters {
    opened: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    closed: [AtomicU64; FLAGS],
    failed: [AtomicU64; FLAGS],
}

type Series = sets::Series<Counters>;

/// The most label sets, if nothing else is said.
const DEFAULT_LIMIT: usize = 10_000;

const FLAGS: usize = ResponseFlags::ALL.len();
const REPORTERS: [Reporter; 3] = [Reporter::Source, Reporter::Destination, Reporter::Waypoint];

impl TrafficMetrics {
    /// Registers the traffic metrics, for at most 10,000 label sets.
    pub fn register(metrics: &mut Metrics) -> Self {
        Self::register_with_limit(metrics, DEFAULT_LIMIT)
    }

    /// The same, for at most `limit` label sets (and a handful of `other` ones).
    pub fn register_with_limit(metrics: &mut Metrics, limit: usize) -> Self {
        let inner = Arc::new(Inner { sets: Sets::new(limit), sockets: Default::default() });
        metrics.registry_mut().register_collector(Box::new(inner.clone()));
        Self { inner }
    }

    /// Counts an opened connection and gives the handle that counts the rest of it.
    pub fn open(&self, labels: &TrafficLabels) -> ConnectionMetrics {
        let (series, other) = self.inner.sets.series(labels);
        series.opened.fetch_add(1, Ordering::Relaxed);
        ConnectionMetrics { series, other, ended: false }
    }

    /// What opens the next connection with the labels of this one. Nothing is remembered of a connection that is counted under `other`:
    /// the next may find room.
    pub fn remember(&self, connection: &ConnectionMetrics) -> KnownLabels {
        match connection.other {
            true => KnownLabels::default(),
            false => KnownLabels { owner: Arc::downgrade(&self.inner), series: Arc::downgrade(&connection.series) },
        }
    }

    /// Counts an opened connection with labels that were seen before. `None` if they have been forgotten since, or are another's: then
    /// [`TrafficMetrics::open`] it.
    pub fn open_known(&self, known: &KnownLabels) -> Option<ConnectionMetrics> {
        if !std::ptr::eq(known.owner.as_ptr(), Arc::as_ptr(&self.inner)) {
            return None;
        }
        // Under the table's lock, as every handle is made: a sweep must not forget what is being taken.
        let _table = self.inner.sets.read();
        let series = known.series.upgrade()?;
        series.used();
        series.opened.fetch_add(1, Ordering::Relaxed);
        Some(ConnectionMetrics { series, other: false, ended: false })
    }

    /// The label sets that nobody has used for some minutes, by the second call in these at the earliest. Call it every minute, and
    /// [`TrafficMetrics::forget`] those that will not be used again.
    pub fn idle(&self) -> Vec<Arc<TrafficLabels>> {
        self.inner.sets.idle(self.inner.sets.now())
    }

    /// Forgets label sets, unless they have been used since they were found [idle](TrafficMetrics::idle). Used once more they count
    /// from nothing.
    pub fn forget(&self, sets: &[Arc<TrafficLabels>]) {
        self.inner.sets.forget(sets);
    }

    /// Counts an open socket.
    pub fn socket(&self, reporter: Reporter) -> OpenSocket {
        self.inner.sockets[index_of(reporter)].fetch_add(1, Ordering::Relaxed);
        OpenSocket { inner: self.inner.clone(), reporter }
    }
}

impl ConnectionMetrics {
    /// `bytes` came from the client's side.
    pub fn received(&self, bytes: u64) {
        self.series.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// `bytes` went to the client's side.
    pub fn sent(&self, bytes: u64) {
        self.series.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The connection ended; with any flag but [`ResponseFlags::None`] it also counts as failed.
    pub fn closed(mut self, flags: ResponseFlags) {
        self.end(flags);
    }

    fn end(&mut self, flags: ResponseFlags) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.series.used();
        self.series.closed[flags as usize].fetch_add(1, Ordering::Relaxed);
        if flags != ResponseFlags::None {
            self.series.failed[flags as usize].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ConnectionMetrics {
    fn drop(&mut self) {
        self.end(ResponseFlags::Connect);
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.inner.sockets[index_of(self.reporter)].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Collector for Inner {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let series = self.sets.snapshot();
        let by_flag = |name, help, pick: fn(&Series) -> &[AtomicU64; FLAGS], encoder: &mut DescriptorEncoder<'_>| {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, series) in &series {
                for (flags, count) in ResponseFlags::ALL.iter().zip(pick(series)) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 {
                        metric.encode_family(&Flagged(labels, *flags))?.encode_counter(&count, NO_EXEMPLAR)?;
                    }
                }
            }
            Ok::<(), fmt::Error>(())
        };
        let plain = |name, help, pick: fn(&Series) -> &AtomicU64, encoder: &mut DescriptorEncoder<'_>| {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (labels, series) in &series {
                let flagged = Flagged(labels, ResponseFlags::None);
                let count = pick(series).load(Ordering::Relaxed);
                metric.encode_family(&flagged)?.encode_counter(&count, NO_EXEMPLAR)?;
            }
            Ok::<(), fmt::Error>(())
        };
        plain(
            "istio_tcp_connections_opened",
            "The total number of TCP connections opened",
            |s| &s.opened,
            &mut encoder,
        )?;
        by_flag(
            "istio_tcp_connections_closed",
            "The total number of TCP connections closed",
            |s| &s.closed,
            &mut encoder,
        )?;
        plain(
            "istio_tcp_received_bytes",
            "The size of total bytes received from the client",
            |s| &s.received,
            &mut encoder,
        )?;
        plain("istio_tcp_sent_bytes", "The size of total bytes sent to the client", |s| &s.sent, &mut encoder)?;
        by_flag(
            "istio_tcp_connections_failed",
            "The total number of TCP connections that failed",
            |s| &s.failed,
            &mut encoder,
        )?;
        {
            let help = "The number of TCP sockets open now";
            let mut metric = encoder.encode_descriptor("istio_tcp_sockets_open", help, None, MetricType::Gauge)?;
            for (reporter, sockets) in REPORTERS.into_iter().zip(&self.sockets) {
                let sockets = sockets.load(Ordering::Relaxed);
                // A ztunnel is none, and Istio's has no such line.
                if reporter != Reporter::Waypoint || sockets > 0 {
                    metric.encode_family(&ReporterLabel(reporter))?.encode_gauge(&sockets)?;
                }
            }
        }
        let help = "Connections counted under other, because there were too many label sets";
        let mut metric =
            encoder.encode_descriptor("ambit_metrics_label_sets_dropped", help, None, MetricType::Counter)?;
        metric.encode_counter(&self.sets.dropped(), NO_EXEMPLAR)
    }
}

/// The types are those of an exemplar that is never there.
const NO_EXEMPLAR: Option<&prometheus_client::metrics::exemplar::Exemplar<Vec<(String, String)>, u64>> = None;

struct ReporterLabel(Reporter);

impl EncodeLabelSet for ReporterLabel {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        put(encoder, "reporter", self.0.as_str())
    }
}

fn index_of(reporter: Reporter) -> usize {
    match reporter {
        Reporter::Source => 0,
        Reporter::Destination => 1,
        Reporter::Waypoint => 2,
    }
}

#[cfg(test)]
mod tests;
