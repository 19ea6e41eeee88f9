//! `istio.io/dry-run` on an AuthorizationPolicy.

use mesh_model::labels;

use crate::resources::AuthorizationPolicy;

/// Decided and logged, not enforced.
pub(super) fn is_dry_run(object: &AuthorizationPolicy) -> bool {
    let value = object.metadata.annotations.as_ref().and_then(|all| all.get(labels::DRY_RUN));
    value.and_then(|value| labels::parse_bool(value)).unwrap_or(false)
}
