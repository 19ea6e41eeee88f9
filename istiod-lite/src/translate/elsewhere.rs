//! Who answers for a service on other networks. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::identity::SpiffeId;
use mesh_model::shared::text;

use super::context::Context;
use crate::resources::workload_entry::{EndpointAddress, WorkloadEntrySpec};

/// Who may answer for a service on other networks: those that it selects among the WorkloadEntries of its namespace, and its own
/// endpoints. A gateway chooses between them, so that callers have to know all.
pub(super) fn identities(
    namespace: &str,
    selects: impl Fn(&ObjectMeta) -> bool,
    endpoints: &[WorkloadEntrySpec],
    context: &Context<'_>,
) -> Vec<Arc<str>> {
    let selected = context.cluster.workload_entries_in(namespace);
    let selected = selected.filter(|(_, object)| context.networks.is_other(&object.spec.network));
    let selected = selected.filter(|(_, object)| selects(&object.metadata)).map(|(_, object)| &object.spec);
    let own = endpoints.iter().filter(|own| context.networks.is_other(&own.network));
    let all = selected.chain(own).filter(|own| own.endpoint() != EndpointAddress::Unix);
    let all = all.filter_map(|own| SpiffeId::new(&context.mesh.trust_domain, namespace, own.account()).ok());
    let all: BTreeSet<SpiffeId> = all.collect();
    all.into_iter().map(|id| text(&id.to_string())).collect()
}
