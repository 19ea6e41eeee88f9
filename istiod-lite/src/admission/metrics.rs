//! What the webhook counts. Names are istiod's.

use mesh_runtime::metrics::{BareCounter, Metrics};
use prometheus_client::metrics::family::Family;

use super::is_validated;
use crate::resources::Kind;
use crate::source::kubernetes::kinds;

/// Handles into the registry; clones share them.
#[derive(Clone, Debug, Default)]
pub struct AdmissionMetrics {
    passed: Family<[(&'static str, &'static str); 2], BareCounter>,
    failed: Family<[(&'static str, &'static str); 2], BareCounter>,
    /// What was no review.
    pub malformed: BareCounter,
}

impl AdmissionMetrics {
    /// Registers them.
    pub fn register(&self, metrics: &mut Metrics) {
        // Each is there from the start, at 0.
        for kind in kinds::ALL.into_iter().filter(|kind| is_validated(kinds::resource(*kind).group)) {
            drop(self.passed.get_or_create(&labels(kind)));
            drop(self.failed.get_or_create(&labels(kind)));
        }
        let registry = metrics.registry_mut();
        let help = "Objects that the admission webhook let in, of kinds that are read";
        registry.register("galley_validation_passed", help, self.passed.clone());
        let help = "Objects that the admission webhook refused";
        registry.register("galley_validation_failed", help, self.failed.clone());
        let help = "Requests to the admission webhook that were no review";
        registry.register("galley_validation_http_error", help, self.malformed.clone());
    }

    pub(super) fn passed(&self, kind: Kind) {
        self.passed.get_or_create(&labels(kind)).inc();
    }

    pub(super) fn failed(&self, kind: Kind) {
        self.failed.get_or_create(&labels(kind)).inc();
    }
}

/// Of kinds that we read, so that there is an end to them.
fn labels(kind: Kind) -> [(&'static str, &'static str); 2] {
    let resource = kinds::resource(kind);
    [("group", resource.group), ("resource", resource.plural)]
}
