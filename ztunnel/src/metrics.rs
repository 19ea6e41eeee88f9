//! ztunnel's own metrics, beside the traffic metrics that all programs share. Names are upstream's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_model::reason::ReasonCode;
use mesh_model::workload::Workload;
use mesh_runtime::access_log::Direction;
use mesh_runtime::metrics::{Metrics, PodsInTrouble, Reporter};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// How many pods are served.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodMetrics {
    pub(crate) active: Gauge,
    pub(crate) pending: Gauge,
    pub(crate) not_served: PodsInTrouble,
    pub(crate) pooled: Gauge,
    pub(crate) started: Counter,
    pub(crate) stopped: Counter,
}

impl PodMetrics {
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let help = "1 for each pod that was handed over and is not served";
        let not_served = PodsInTrouble::register(metrics, "ambit_pod_not_served", help);
        let this = Self { not_served, ..Self::default() };
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

/// What is kept of messages that are not whole ([`mesh_hbone::unfinished`]).
#[derive(Clone, Debug, Default)]
pub(crate) struct UnfinishedMetrics {
    pub(crate) held: Gauge,
    pub(crate) shed: Counter,
}

impl UnfinishedMetrics {
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let registry = metrics.registry_mut();
        let help = "Bytes kept of handshake messages and header blocks that are not whole, as of the last few seconds";
        registry.register("ambit_unfinished_bytes_held", help, this.held.clone());
        let help = "Connections ended because others needed the memory of what they left unfinished";
        registry.register("ambit_unfinished_shed", help, this.shed.clone());
        this
    }
}

/// The reason codes of connections.
fn connection_reasons() -> impl Iterator<Item = ReasonCode> {
    ReasonCode::ALL.iter().copied().filter(|code| !code.is_of_dns())
}

/// Connections that did not end well, by reason code: those of `docs/reasons.md`, so there are few.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReasonMetrics(Family<[(&'static str, &'static str); 2], Counter>);

impl ReasonMetrics {
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let help = "Connections refused, failed or cut, by reason code";
        metrics.registry_mut().register("ambit_connections_not_served", help, this.0.clone());
        for direction in ["inbound", "outbound"] {
            for reason in connection_reasons() {
                // To be seen as 0, by who writes alerts.
                drop(this.0.get_or_create(&[("direction", direction), ("reason", reason.as_str())]));
            }
        }
        this
    }

    /// One more.
    pub(crate) fn count(&self, direction: Direction, reason: ReasonCode) {
        let direction = match direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        };
        self.0.get_or_create(&[("direction", direction), ("reason", reason.as_str())]).inc();
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
        let help = "Connections that stay when the peer's certificate is revoked later: none";
        registry.register("istio_crl_untracked_connections", help, this.untracked.clone());
        for reporter in [Reporter::Source, Reporter::Destination] {
            // To be seen as 0.
            drop(this.untracked.get_or_create(&[("reporter", reporter.as_str())]));
            drop(this.rejections.get_or_create(&[("reporter", reporter.as_str())]));
        }
        this
    }

    /// A revoked peer was refused, or cut.
    pub(crate) fn rejected(&self, reporter: Reporter) {
        self.rejections.get_or_create(&[("reporter", reporter.as_str())]).inc();
    }
}

/// Names of workloads that were looked up because somebody wanted to go there, from where to which.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameMetrics {
    asked: Family<NameLabels, Counter>,
    sets: Arc<AtomicUsize>,
}

/// The most label sets told apart: names come from the control plane, and so do those who go there.
const NAME_SETS: usize = 10_000;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabels {
    source_workload: Arc<str>,
    source_canonical_service: Arc<str>,
    source_canonical_revision: Arc<str>,
    source_workload_namespace: Arc<str>,
    source_principal: Arc<str>,
    source_app: Arc<str>,
    source_version: Arc<str>,
    source_cluster: Arc<str>,
    hostname: Arc<str>,
}

impl NameMetrics {
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let this = Self::default();
        let help = "Connections to workloads that are known by hostname only";
        metrics.registry_mut().register("istio_on_demand_dns", help, this.asked.clone());
        this
    }

    /// `client` goes to `hostname`.
    pub(crate) fn count(&self, client: &Workload, hostname: &Arc<str>) {
        let known = |text: &Arc<str>| if text.is_empty() { "unknown".into() } else { text.clone() };
        let identity = client.identity().map(|id| id.to_string().into());
        let labels = NameLabels {
            source_workload: known(&client.workload_name),
            source_canonical_service: known(&client.canonical_name),
            source_canonical_revision: known(&client.canonical_revision),
            source_workload_namespace: known(&client.namespace),
            source_principal: identity.unwrap_or_else(|_| "unknown".into()),
            source_app: known(&client.canonical_name),
            source_version: known(&client.canonical_revision),
            source_cluster: known(&client.cluster),
            hostname: known(hostname),
        };
        self.count_up_to(NAME_SETS, labels);
    }

    fn count_up_to(&self, most: usize, labels: NameLabels) {
        if let Some(counter) = self.asked.get(&labels) {
            counter.inc();
            return;
        }
        // Two that come at once may count one set twice: the bound holds.
        if self.sets.fetch_add(1, Relaxed) < most {
            self.asked.get_or_create(&labels).inc();
            return;
        }
        self.sets.store(most, Relaxed);
        let other = || Arc::<str>::from("other");
        let other = NameLabels {
            source_workload: other(),
            source_canonical_service: other(),
            source_canonical_revision: other(),
            source_workload_namespace: other(),
            source_principal: other(),
            source_app: other(),
            source_version: other(),
            source_cluster: other(),
            hostname: other(),
        };
        self.asked.get_or_create(&other).inc();
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

#[cfg(test)]
mod tests;
