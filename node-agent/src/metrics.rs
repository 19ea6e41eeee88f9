//! What the agent counts. Not the traffic: ztunnel counts that.

use mesh_runtime::metrics::{Metrics, PodsInTrouble};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// Handles into the registry; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct AgentMetrics {
    pub(crate) enrolled: Gauge,
    pub(crate) pending: Gauge,
    pub(crate) not_captured: Gauge,
    pub(crate) outside: PodsInTrouble,
    pub(crate) ztunnels: Gauge,
    pub(crate) repaired: Counter,
    failures: Family<Vec<(&'static str, &'static str)>, Counter>,
}

impl AgentMetrics {
    pub(crate) fn register(metrics: &mut Metrics) -> Self {
        let help = "1 for each pod that should be in the mesh and is not, or not for certain";
        let outside = PodsInTrouble::register(metrics, "ambit_pod_not_captured", help);
        let this = Self { outside, ..Self::default() };
        let registry = metrics.registry_mut();
        registry.register("ambit_enrolled", "Pods captured and served by ztunnel", this.enrolled.clone());
        registry.register(
            "ambit_enrolment_pending",
            "Pods that should be enrolled and are not yet",
            this.pending.clone(),
        );
        registry.register(
            "ambit_enrolled_not_captured",
            "Pods that should be in the mesh and are not, or not for certain",
            this.not_captured.clone(),
        );
        registry.register("ambit_ztunnels_connected", "ztunnels connected to this agent", this.ztunnels.clone());
        registry.register(
            "ambit_redirection_repaired",
            "Times the rules of an enrolled pod were changed by someone else and restored",
            this.repaired.clone(),
        );
        registry.register(
            "ambit_enrolment_failures",
            "Steps of an enrolment or release that failed and were tried again",
            this.failures.clone(),
        );
        this
    }

    /// Counts a failure of a step: `netns`, `rules`, `handoff` or `probes`.
    pub(crate) fn failure(&self, step: &'static str) {
        self.failures.get_or_create(&vec![("step", step)]).inc();
    }
}
