//! What is counted about DNS. Names and labels are upstream's.

use std::sync::Arc;
use std::time::Duration;

use mesh_model::workload::Workload;
use mesh_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;

/// The counters.
#[derive(Clone)]
pub(crate) struct DnsMetrics {
    requests: Family<Labels, Counter>,
    upstream: Family<Labels, Counter>,
    failures: Family<Labels, Counter>,
    reasons: Family<[(&'static str, &'static str); 1], Counter>,
    duration: Family<Labels, Histogram, fn() -> Histogram>,
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
        let known =
            |text: Option<&Arc<str>>| text.filter(|t| !t.is_empty()).cloned().unwrap_or_else(|| "unknown".into());
        Self {
            request_query_type: kind.map_or("unknown", type_name),
            request_protocol: if tcp { "tcp" } else { "udp" },
            source_canonical_service: known(client.map(|c| &c.canonical_name)),
            source_canonical_revision: known(client.map(|c| &c.canonical_revision)),
        }
    }

    /// The record type's name.
    pub(crate) fn query_type(&self) -> &'static str {
        self.request_query_type
    }
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
        this
    }

    /// A query was not served, for this reason of `docs/reasons.md`.
    pub(crate) fn not_served(&self, reason: &'static str) {
        self.reasons.get_or_create(&[("reason", reason)]).inc();
    }

    /// A query came.
    pub(crate) fn request(&self, labels: &Labels) {
        self.requests.get_or_create(labels).inc();
    }

    /// It was forwarded, and answered or not after this time.
    pub(crate) fn forwarded(&self, labels: &Labels, answered: bool, took: Duration) {
        self.upstream.get_or_create(labels).inc();
        if !answered {
            self.failures.get_or_create(labels).inc();
        }
        self.duration.get_or_create(labels).observe(took.as_secs_f64());
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
