//! ztunnel's own metrics: of its pods, and of names that it looks up. Names are upstream's. Those of connections are in
//! [`mesh_proxy::metrics`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use mesh_model::workload::Workload;
use mesh_runtime::metrics::{Metrics, PodsInTrouble};
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
        registry.register(prefix("proxies_started"), "Pods whose serving began", this.started.clone());
        registry.register(prefix("proxies_stopped"), "Pods whose serving ended", this.stopped.clone());
        this
    }
}

/// Names of workloads that were looked up because somebody wanted to go there, from where to which.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostnameMetrics {
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

impl HostnameMetrics {
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

#[cfg(test)]
mod tests;
