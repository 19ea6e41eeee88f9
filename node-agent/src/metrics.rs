//! What the agent counts. Not the traffic: ztunnel counts that.

use mesh_runtime::metrics::{Metrics, PodsInTrouble};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// What can fail of an enrolment, or of a release.
pub(crate) const STEPS: [&str; 4] = ["netns", "rules", "handoff", "probes"];

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
        for step in STEPS {
            // To be seen as 0, by who writes alerts.
            drop(this.failures.get_or_create(&vec![("step", step)]));
        }
        this
    }

    /// Counts a failure of one of the [`STEPS`].
    pub(crate) fn failure(&self, step: &'static str) {
        self.failures.get_or_create(&vec![("step", step)]).inc();
    }
}

#[cfg(test)]
mod tests {
    use mesh_runtime::metrics::TextFormat;

    use super::*;

    #[test]
    fn failures_that_have_not_happened_are_counted_as_none() {
        let mut metrics = Metrics::new("node-agent", "test");
        AgentMetrics::register(&mut metrics).failure("rules");
        let text = metrics.encode(TextFormat::Prometheus).unwrap();
        for step in STEPS {
            let line = format!("ambit_enrolment_failures_total{{step=\"{step}\"}} {}", u8::from(step == "rules"));
            assert!(text.lines().any(|have| have == line), "{line} in {text}");
        }
    }
}
