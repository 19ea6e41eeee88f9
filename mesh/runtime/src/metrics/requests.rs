//! Istio's HTTP metrics, counted per request: how many, how long, how large.
//!
//! Label sets are bounded, as those of connections are (`sets`). A thread that counts often keeps what [`RequestMetrics::known`] gives.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

use super::Metrics;
use super::labels::TrafficLabels;
use super::sets::{self, Labels, Sets};

/// The most label sets.
const LIMIT: usize = 10_000;
/// Upper bounds of durations in milliseconds, as Istio's.
const MILLISECONDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];
/// Upper bounds of sizes in bytes.
const BYTES: [f64; 9] = [64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 16_777_216.0];

/// The metrics of requests. Clones share them.
#[derive(Clone, Debug)]
pub struct RequestMetrics(Arc<Inner>);

#[derive(Debug)]
struct Inner(Sets<RequestLabels, Counters>);

/// The label set of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestLabels {
    /// Who asks whom.
    pub traffic: TrafficLabels,
    /// It is a gRPC call.
    pub grpc: bool,
    /// The status that was answered.
    pub code: u16,
    /// gRPC's status of a gRPC call, if it was told.
    pub grpc_status: Option<u8>,
    /// Envoy's word for why it did not end well; `-` if it did.
    pub flags: &'static str,
}

impl Labels for RequestLabels {
    fn collapsed(&self) -> Self {
        Self { traffic: self.traffic.collapsed(), grpc_status: None, ..self.clone() }
    }
}

/// The counters of a label set.
#[derive(Clone, Debug)]
pub struct KnownRequests(Arc<sets::Series<Counters>>);

/// What one request was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// From its first byte to the last of its answer.
    pub duration: Duration,
    /// Bytes of its body.
    pub request_bytes: u64,
    /// Bytes of the answer's.
    pub response_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    duration: Buckets<{ MILLISECONDS.len() }>,
    request_bytes: Buckets<{ BYTES.len() }>,
    response_bytes: Buckets<{ BYTES.len() }>,
}

/// A histogram without locks. Sums are kept in thousandths.
#[derive(Debug)]
struct Buckets<const N: usize> {
    /// How many were at most each bound and above the one before; the last one is above all.
    counts: [AtomicU64; N],
    above: AtomicU64,
    thousandths: AtomicU64,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            thousandths: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Buckets<N> {
    fn observe(&self, value: f64, bounds: &[f64; N]) {
        let bucket = bounds.iter().position(|bound| value <= *bound).map_or(&self.above, |n| &self.counts[n]);
        bucket.fetch_add(1, Ordering::Relaxed);
        self.thousandths.fetch_add((value * 1_000.0) as u64, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        let all = self.counts.iter().chain([&self.above]);
        all.map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The sum, the count, and the count of each bucket with its bound.
    fn read(&self, bounds: &[f64; N]) -> (f64, u64, Vec<(f64, u64)>) {
        let counts = self.counts.iter().chain([&self.above]).map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds.iter().copied().chain([f64::INFINITY]).zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        (self.thousandths.load(Ordering::Relaxed) as f64 / 1_000.0, count, buckets)
    }
}

impl RequestMetrics {
    /// Registers the metrics of requests, for at most 10,000 label sets.
    pub fn register(metrics: &mut Metrics) -> Self {
        let inner = Arc::new(Inner(Sets::new(LIMIT)));
        metrics.registry_mut().register_collector(Box::new(inner.clone()));
        Self(inner)
    }

    /// The counters of a label set.
    pub fn known(&self, labels: &RequestLabels) -> KnownRequests {
        KnownRequests(self.0.0.series(labels).0)
    }

    /// The label sets that nobody has used for some minutes, by the second call in these at the earliest.
    pub fn idle(&self) -> Vec<Arc<RequestLabels>> {
        self.0.0.idle(self.0.0.now())
    }

    /// Forgets label sets, unless they have been used since they were found [idle](RequestMetrics::idle).
    pub fn forget(&self, sets: &[Arc<RequestLabels>]) {
        self.0.0.forget(sets);
    }
}

impl KnownRequests {
    /// Counts a request.
    pub fn count(&self, measured: &Measured) {
        self.0.used();
        self.0.duration.observe(measured.duration.as_secs_f64() * 1_000.0, &MILLISECONDS);
        self.0.request_bytes.observe(measured.request_bytes as f64, &BYTES);
        self.0.response_bytes.observe(measured.response_bytes as f64, &BYTES);
    }
}

impl EncodeLabelSet for RequestLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let code = self.code.to_string();
        let status = self.grpc_status.map(|status| status.to_string()).unwrap_or_default();
        let mut more = vec![("response_code", &*code)];
        if self.grpc {
            more.push(("grpc_response_status", &*status));
        }
        more.push(("response_flags", self.flags));
        self.traffic.encode(encoder, if self.grpc { "grpc" } else { "http" }, &more)
    }
}

impl Collector for Inner {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.0.snapshot();
        {
            let help = "The total number of requests";
            let mut metric = encoder.encode_descriptor("istio_requests", help, None, MetricType::Counter)?;
            for (labels, series) in &all {
                metric.encode_family(&**labels)?.encode_counter(&series.duration.count(), NO_EXEMPLAR)?;
            }
        }
        histogram(&mut encoder, &all, "istio_request_duration_milliseconds", "How long requests took", |c| {
            c.duration.read(&MILLISECONDS)
        })?;
        histogram(&mut encoder, &all, "istio_request_bytes", "Bytes of requests' bodies", |c| {
            c.request_bytes.read(&BYTES)
        })?;
        histogram(&mut encoder, &all, "istio_response_bytes", "Bytes of answers' bodies", |c| {
            c.response_bytes.read(&BYTES)
        })?;
        let help = "Requests counted under other, because there were too many label sets";
        let name = "ambit_request_metrics_label_sets_dropped";
        encoder.encode_descriptor(name, help, None, MetricType::Counter)?.encode_counter(&self.0.dropped(), NO_EXEMPLAR)
    }
}

type All = [(Arc<RequestLabels>, Arc<sets::Series<Counters>>)];

fn histogram(
    encoder: &mut DescriptorEncoder<'_>,
    all: &All,
    name: &str,
    help: &str,
    read: impl Fn(&Counters) -> (f64, u64, Vec<(f64, u64)>),
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, series) in all {
        let (sum, count, buckets) = read(series);
        metric.encode_family(&**labels)?.encode_histogram::<Vec<(String, String)>>(sum, count, &buckets, None)?;
    }
    Ok(())
}

/// The types are those of an exemplar that is never there.
const NO_EXEMPLAR: Option<&Exemplar<Vec<(String, String)>, u64>> = None;

#[cfg(test)]
mod tests {
    use super::super::{ConnectionSecurity, Reporter, TextFormat};
    use super::*;

    #[test]
    fn requests_come_out_as_istio_has_them() {
        let mut metrics = Metrics::new("waypoint", "test");
        let requests = RequestMetrics::register(&mut metrics);
        let traffic = TrafficLabels {
            reporter: Reporter::Waypoint,
            source: Arc::default(),
            source_principal: "spiffe://cluster.local/ns/shop/sa/web".into(),
            service: Arc::default(),
            destination: Arc::default(),
            destination_principal: "".into(),
            security: ConnectionSecurity::MutualTls,
        };
        let http = RequestLabels { traffic, grpc: false, code: 200, grpc_status: None, flags: "-" };
        let measured = Measured { duration: Duration::from_millis(3), request_bytes: 10, response_bytes: 70_000 };
        let known = requests.known(&http);
        known.count(&measured);
        known.count(&Measured { duration: Duration::from_secs(7_200), ..measured });
        requests.known(&RequestLabels { grpc: true, grpc_status: Some(14), flags: "UH", ..http }).count(&measured);
        let text = metrics.encode(TextFormat::Prometheus).unwrap();
        let line = |name: &str, words: &[&str]| {
            let mut lines = text.lines().filter(|line| line.starts_with(name));
            let found = lines.find(|line| words.iter().all(|word| line.contains(word)));
            let found = found.unwrap_or_else(|| panic!("{name} {words:?} is not in\n{text}"));
            found.rsplit_once(' ').unwrap().1.to_owned()
        };
        let http = ["reporter=\"waypoint\"", "request_protocol=\"http\"", "response_code=\"200\""];
        assert_eq!(line("istio_requests_total{", &http), "2");
        let grpc = ["request_protocol=\"grpc\"", "grpc_response_status=\"14\"", "response_flags=\"UH\""];
        assert_eq!(line("istio_requests_total{", &grpc), "1");
        let bucket = |le: &'static str| [http[1], le];
        let duration = "istio_request_duration_milliseconds_bucket{";
        for (le, count) in [("le=\"1.0\"", "0"), ("le=\"5.0\"", "1"), ("le=\"3600000.0\"", "1"), ("le=\"+Inf\"", "2")] {
            assert_eq!(line(duration, &bucket(le)), count, "{le}");
        }
        assert_eq!(line("istio_request_duration_milliseconds_sum{", &http[1..2]), "7200003.0");
        assert_eq!(line("istio_response_bytes_bucket{", &bucket("le=\"65536.0\"")), "0");
        assert_eq!(line("istio_response_bytes_count{", &http[1..2]), "2");
    }
}
