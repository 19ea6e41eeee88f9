//! ztunnel's own metrics, beside the traffic metrics that all programs share. Names are upstream's.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_runtime::access_log::Direction;
use mesh_runtime::metrics::{Metrics, Reporter, XdsEnd, XdsMetrics};
use mesh_xds::observe::{End, Observer};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// How many pods are served.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodMetrics {
    pub(crate) active: Gauge,
    pub(crate) pending: Gauge,
    pub(crate) pooled: Gauge,
    pub(crate) started: Counter,
    pub(crate) stopped: Counter,
}

impl PodMetrics {
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let registry = metrics.registry_mut();
        let prefix = |name: &str| format!("workload_manager_{name}");
        registry.register(prefix("active_proxy_count"), "Pods served now", this.active.clone());
        registry.register(prefix("pending_proxy_count"), "Pods handed over and not served", this.pending.clone());
        let help = "HBONE connections kept for reuse, as of the last few seconds";
        registry.register("ambit_hbone_pooled_connections", help, this.pooled.clone());
        registry.register(prefix("proxies_started"), "Pods whose serving began", this.started.clone());
        registry.register(prefix("proxies_stopped"), "Pods whose serving ended", this.stopped.clone());
        this
    }
}

/// How much is held of what is bounded ([`crate::quota`]).
#[derive(Clone, Debug, Default)]
pub(crate) struct QuotaMetrics {
    pub(crate) connections: Gauge,
    pub(crate) handshakes: Gauge,
}

impl QuotaMetrics {
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let registry = metrics.registry_mut();
        let help = "Connections and tunnels open now, of those that ZTUNNEL_MAX_CONNECTIONS allows";
        registry.register("ambit_connections_held", help, this.connections.clone());
        let help = "TLS handshakes of callers under way, of those that ZTUNNEL_MAX_HANDSHAKES allows";
        registry.register("ambit_handshakes_held", help, this.handshakes.clone());
        this
    }
}

/// Connections that did not end well, by reason code: those of `docs/reasons.md`, so there are few.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReasonMetrics(Family<[(&'static str, &'static str); 2], Counter>);

impl ReasonMetrics {
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let help = "Connections refused, failed or cut, by reason code";
        metrics.registry_mut().register("ambit_connections_not_served", help, this.0.clone());
        this
    }

    /// One more.
    pub(crate) fn count(&self, direction: Direction, reason: &'static str) {
        let direction = match direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        self.0.get_or_create(&[("direction", direction), ("reason", reason)]).inc();
    }
}

/// What certificate revocation lists did. The label is the reporter's, as Istio's traffic metrics have it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RevocationMetrics {
    rejections: Family<[(&'static str, &'static str); 1], Counter>,
    untracked: Family<[(&'static str, &'static str); 1], Counter>,
}

impl RevocationMetrics {
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let registry = metrics.registry_mut();
        let help = "Connections refused or cut because the peer's certificate is revoked";
        registry.register("istio_crl_policy_rejections", help, this.rejections.clone());
        let help = "Connections that stay when the peer's certificate is revoked later";
        registry.register("istio_crl_untracked_connections", help, this.untracked.clone());
        this
    }

    /// A revoked peer was refused, or cut.
    pub(crate) fn rejected(&self, reporter: Reporter) {
        self.rejections.get_or_create(&[("reporter", reporter.as_str())]).inc();
    }

    /// A connection was made that will not be asked about again.
    pub(crate) fn untracked(&self, reporter: Reporter) {
        self.untracked.get_or_create(&[("reporter", reporter.as_str())]).inc();
    }
}

/// Until when connections may go on.
#[derive(Clone, Debug, Default)]
pub(crate) struct DrainMetrics {
    deadline: Gauge<f64, AtomicU64>,
}

impl DrainMetrics {
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        metrics.registry_mut().register(
            "ambit_drain_deadline_timestamp_seconds",
            "When the connections of a ztunnel that drains are cut, in seconds since 1970; 0 while it serves",
            this.deadline.clone(),
        );
        this
    }

    /// The drain has begun.
    pub(crate) fn began(&self, deadline: SystemTime) {
        self.deadline.set(deadline.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
    }
}

/// Counts what the stream to the control plane does.
pub(crate) struct XdsCounters(pub(crate) XdsMetrics);

impl Observer for XdsCounters {
    fn message(&self, type_url: &str, bytes: u64) {
        self.0.message(type_url, bytes);
    }

    fn ended(&self, end: End) {
        self.0.ended(match end {
            End::ConnectionError => XdsEnd::ConnectionError,
            End::Error => XdsEnd::Error,
            End::Reconnect => XdsEnd::Reconnect,
            End::Complete => XdsEnd::Complete,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mesh_runtime::metrics::{ConnectionSecurity, ResponseFlags, TextFormat, TrafficLabels, TrafficMetrics};

    use super::*;
    use crate::dns::metrics::{DnsMetrics, Labels};

    /// Contract 11.1, by name and type. Missing on purpose: `istio_on_demand_dns`, which nothing counts yet.
    const CONTRACT: &str = "
        istio_tcp_connections_opened_total counter
        istio_tcp_connections_closed_total counter
        istio_tcp_received_bytes_total counter
        istio_tcp_sent_bytes_total counter
        istio_tcp_connections_failed_total counter
        istio_tcp_sockets_open gauge
        istio_crl_policy_rejections_total counter
        istio_crl_untracked_connections_total counter
        istio_dns_requests_total counter
        istio_dns_upstream_requests_total counter
        istio_dns_upstream_failures_total counter
        istio_dns_upstream_request_duration_seconds histogram
        istio_xds_connection_terminations_total counter
        istio_xds_message_total counter
        istio_xds_message_bytes_total counter
        istio_build gauge
        workload_manager_active_proxy_count gauge
        workload_manager_pending_proxy_count gauge
        workload_manager_proxies_started_total counter
        workload_manager_proxies_stopped_total counter
        process_open_fds gauge
        process_max_fds gauge
    ";

    /// Everything has been counted once.
    #[tokio::test]
    async fn names_and_types_are_the_contracts() {
        let mut metrics = Metrics::new("ztunnel", "test");
        metrics.watch_runtime(tokio::runtime::Handle::current());
        let traffic = TrafficMetrics::register(&mut metrics);
        let reasons = ReasonMetrics::register(&mut metrics);
        let revocation = RevocationMetrics::register(&mut metrics);
        let _pods = PodMetrics::register(&mut metrics);
        let xds = XdsMetrics::register(&mut metrics);
        let dns = DnsMetrics::register(&mut metrics);
        let labels = TrafficLabels {
            reporter: Reporter::Source,
            source: Default::default(),
            source_principal: "".into(),
            service: Default::default(),
            destination: Default::default(),
            destination_principal: "".into(),
            security: ConnectionSecurity::Unknown,
        };
        traffic.open(&labels).closed(ResponseFlags::Connect);
        reasons.count(Direction::Inbound, "BAD_REQUEST");
        revocation.rejected(Reporter::Source);
        revocation.untracked(Reporter::Source);
        xds.message("type.googleapis.com/istio.workload.Address", 1);
        xds.ended(XdsEnd::Error);
        let query = Labels::new(Some(1), false, None);
        dns.request(&query);
        dns.forwarded(&query, false, std::time::Duration::from_millis(1));

        let text = metrics.encode(TextFormat::Prometheus).unwrap();
        let types: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let contract: BTreeSet<&str> = CONTRACT.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(contract.difference(&types).collect::<Vec<_>>(), Vec::<&&str>::new(), "missing");
        // What is not in the contract is recognisably ours, the process's or the runtime's.
        let more: Vec<_> = types
            .difference(&contract)
            .filter(|name| !["ambit_", "process_", "tokio_"].iter().any(|prefix| name.starts_with(prefix)))
            .collect();
        assert!(more.is_empty(), "{more:?}");
        assert!(types.iter().any(|name| name.starts_with("tokio_")));
        // Trap 53: a ztunnel reports as source or destination, never as a waypoint.
        assert!(text.contains("reporter=\"source\"") && !text.contains("reporter=\"waypoint\""));
        let dns = "istio_dns_requests_total{request_query_type=\"A\",request_protocol=\"udp\",\
            source_canonical_service=\"unknown\",source_canonical_revision=\"unknown\"} 1";
        assert!(text.contains(dns), "{text}");
    }
}
