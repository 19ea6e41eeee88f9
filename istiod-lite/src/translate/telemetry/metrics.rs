//! What is counted: everything, for Prometheus, whoever says so. What a Telemetry would change of it is told.

use super::layers::{UNSUPPORTED, config};
use crate::resources::Telemetry;
use crate::resources::mesh_config::Provider;
use crate::translate::world::World;

/// The provider that is there without being defined, as in Istio.
const BUILT_IN: &str = "prometheus";

/// What of it is not followed; nothing of what is as it is in any case.
pub(super) fn fault(object: &Telemetry, world: &World<'_>) -> Option<(&'static str, String)> {
    let config = config(world);
    let takes = |name: &str| match config.and_then(|config| config.extension_providers.get(name)) {
        Some(provider) => *provider == Provider::Prometheus,
        None => name == BUILT_IN,
    };
    object.spec.metrics.iter().enumerate().find_map(|(i, entry)| {
        if entry.changes() {
            let message = format!("metrics[{i}].overrides is not followed: metrics are as docs/operations.md says");
            return Some((UNSUPPORTED, message));
        }
        let other = entry.providers.iter().find(|provider| !takes(&provider.name))?;
        let message = format!(
            "metrics[{i}] is not followed: the provider {} takes no metrics: name {BUILT_IN}, or one of kind prometheus",
            other.name
        );
        Some(("InvalidProvider", message))
    })
}
