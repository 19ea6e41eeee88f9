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
