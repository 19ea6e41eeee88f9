//! What is counted about DNS. Names and labels are upstream's. Label sets are bounded: those of clients that are gone are
//! forgotten, and beyond [`MOST`] clients are counted as `other`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_model::reason::ReasonCode;
use mesh_model::workload::Workload;
use mesh_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// The client of which nothing is known.
pub(crate) const UNKNOWN: &str = "unknown";
/// Most label sets. Each takes up to a dozen lines of a scrape.
const MOST: usize = 2_000;
/// Looks at which a client was gone before its sets are forgotten: last values are to be read.
const LOOKS: u8 = 3;

/// The counters.
#[derive(Clone)]
pub(crate) struct DnsMetrics {
    requests: Family<Labels, Counter>,
    upstream: Family<Labels, Counter>,
    failures: Family<Labels, Counter>,
    reasons: Family<[(&'static str, &'static str); 1], Counter>,
    duration: Family<Labels, Histogram, fn() -> Histogram>,
    /// The sets that are counted, and at how many looks their clients were gone.
    sets: Arc<Mutex<HashMap<Labels, u8>>>,
}

/// What each counter is told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Labels {
    request_query_type: &'static str,
    request_protocol: &'static str,
    source_canonical_service: Arc<str>,
    source_canonical_revision: Arc<str>,
}

impl Labels {
    /// Of a query of this record type by a client, as far as it is known.
    pub(crate) fn new(kind: Option<u16>, tcp: bool, client: Option<&Workload>) -> Self {
        let known = |text: Option<&Arc<str>>| text.filter(|t| !t.is_empty()).cloned().unwrap_or_else(|| UNKNOWN.into());
        Self {
            request_query_type: kind.map_or("unknown", type_name),
            request_protocol: if tcp { "tcp" } else { "udp" },
            source_canonical_service: known(client.map(|c| &c.canonical_name)),
            source_canonical_revision: known(client.map(|c| &c.canonical_revision)),
        }
    }

    fn client(&self) -> (Arc<str>, Arc<str>) {
        (self.source_canonical_service.clone(), self.source_canonical_revision.clone())
    }

    /// The record type's name.
    pub(crate) fn query_type(&self) -> &'static str {
        self.request_query_type
    }
}

/// The reason codes of queries.
fn reasons() -> impl Iterator<Item = ReasonCode> {
    ReasonCode::ALL.iter().copied().filter(|code| code.is_of_dns() || *code == ReasonCode::UnknownWorkload)
}

impl DnsMetrics {
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new([0.0005, 0.001, 0.01, 0.1, 1.0, 5.0]);
        let this = Self {
            requests: Family::default(),
            upstream: Family::default(),
            failures: Family::default(),
            reasons: Family::default(),
            duration: Family::new_with_constructor(histogram),
            sets: Arc::default(),
        };
        let registry = metrics.registry_mut();
        let name = |name: &str| format!("istio_dns_{name}");
        registry.register(name("requests"), "DNS queries captured", this.requests.clone());
        registry.register(name("upstream_requests"), "DNS queries forwarded", this.upstream.clone());
        registry.register(name("upstream_failures"), "Forwarded DNS queries without answer", this.failures.clone());
        let duration = "upstream_request_duration_seconds";
        registry.register(name(duration), "Time until a forwarded DNS query was answered", this.duration.clone());
        let help = "DNS queries and connections not served, by reason code";
        registry.register("ambit_dns_not_served", help, this.reasons.clone());
        for reason in reasons() {
            // To be seen as 0, by who writes alerts.
            drop(this.reasons.get_or_create(&[("reason", reason.as_str())]));
        }
        this
    }

    /// A query was not served, for this reason of `docs/reasons.md`.
    pub(crate) fn not_served(&self, reason: ReasonCode) {
        self.reasons.get_or_create(&[("reason", reason.as_str())]).inc();
    }

    /// A query came.
    pub(crate) fn request(&self, labels: &Labels) {
        self.requests.get_or_create(&self.bounded(labels)).inc();
    }

    /// It was forwarded, and answered or not after this time.
    pub(crate) fn forwarded(&self, labels: &Labels, answered: bool, took: Duration) {
        let labels = &self.bounded(labels);
        self.upstream.get_or_create(labels).inc();
        if !answered {
            self.failures.get_or_create(labels).inc();
        }
        self.duration.get_or_create(labels).observe(took.as_secs_f64());
    }

    /// The set to count under: this one, if there is room for it.
    fn bounded(&self, labels: &Labels) -> Labels {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.len() >= MOST && !sets.contains_key(labels) {
            let other: Arc<str> = "other".into();
            return Labels {
                source_canonical_service: other.clone(),
                source_canonical_revision: other,
                ..labels.clone()
            };
        }
        sets.entry(labels.clone()).or_default();
        labels.clone()
    }

    /// The clients that there are sets of: canonical service and revision.
    pub(crate) fn clients(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.keys().map(Labels::client).collect()
    }

    /// Forgets the sets of clients that are `gone`, when they are so for the third time in a row.
    pub(crate) fn forget(&self, gone: impl Fn(&(Arc<str>, Arc<str>)) -> bool) {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.retain(|labels, looks| {
            *looks = if gone(&labels.client()) { *looks + 1 } else { 0 };
            let stays = *looks < LOOKS;
            if !stays {
                self.requests.remove(labels);
                self.upstream.remove(labels);
                self.failures.remove(labels);
                self.duration.remove(labels);
            }
            stays
        });
    }
}

/// Names for the types that are asked for in earnest; a label must not hold whatever a pod can think of.
fn type_name(kind: u16) -> &'static str {
    match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        43 => "DS",
        48 => "DNSKEY",
        52 => "TLSA",
        64 => "SVCB",
        65 => "HTTPS",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        257 => "CAA",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use mesh_runtime::metrics::TextFormat;

    use super::*;

    fn labels(client: &str) -> Labels {
        Labels::new(Some(1), false, Some(&Workload { canonical_name: client.into(), ..Workload::empty("w") }))
    }

    fn registered() -> (Metrics, DnsMetrics) {
        let mut metrics = Metrics::new("ztunnel", "test");
        let dns = DnsMetrics::register(&mut metrics);
        (metrics, dns)
    }

    fn lines(metrics: &Metrics, word: &str) -> usize {
        let text = metrics.encode(TextFormat::Prometheus).unwrap();
        text.lines().filter(|line| line.contains(word)).count()
    }

    #[test]
    fn clients_that_are_gone_are_forgotten_after_a_while() {
        let (metrics, dns) = registered();
        for client in ["stays", "goes"] {
            dns.request(&labels(client));
            dns.forwarded(&labels(client), false, Duration::from_millis(1));
        }
        let before = lines(&metrics, "\"stays\"");
        let look = |gone: &str| dns.forget(|(client, _)| **client == *gone);
        look("goes");
        look("goes");
        look("nobody");
        look("goes");
        look("goes");
        assert_eq!(
            (lines(&metrics, "\"stays\""), lines(&metrics, "\"goes\"")),
            (before, before),
            "not for long enough"
        );
        look("goes");
        assert_eq!((lines(&metrics, "\"stays\""), lines(&metrics, "\"goes\"")), (before, 0));
        assert_eq!(dns.clients().len(), 1);
        dns.request(&labels("goes"));
        assert_eq!(lines(&metrics, "\"goes\""), 1, "it counts from nothing");
    }

    #[test]
    fn clients_are_bounded() {
        let (metrics, dns) = registered();
        for client in 0..MOST + 5 {
            dns.request(&labels(&format!("client-{client}")));
        }
        dns.request(&labels("client-0"));
        assert_eq!((lines(&metrics, "client-"), dns.clients().len()), (MOST, MOST));
        let text = metrics.encode(TextFormat::Prometheus).unwrap();
        let other = text.lines().find(|line| line.contains("\"other\"")).unwrap();
        assert!(other.ends_with(" 5"), "{other}");
    }
}
