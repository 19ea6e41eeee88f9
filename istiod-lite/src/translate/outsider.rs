//! Endpoints that are no pods → Workload.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_model::workload::{Locality, Workload};

use super::endpoints::{self, Endpoint, Outside, Owner, publishes_not_ready};
use super::{Context, service, workload};

/// The endpoints that are no pods. They are on no network of pods, take no tunnel, no policy covers them, and nobody
/// knows what runs there: names of applications stay empty, as istiod leaves them.
pub(super) fn translate(context: &Context<'_>) -> Vec<Workload> {
    let mut workloads: BTreeMap<String, Workload> = BTreeMap::new();
    for (object, found) in context.resolved() {
        for endpoint in &found.endpoints {
            let Owner::Outside(outside) = &endpoint.owner else { continue };
            // Proxies take all endpoints of such a service; what a slice says about others than the service's own pods
            // counts all the same.
            if publishes_not_ready(object) && !endpoint.in_use {
                continue;
            }
            let namespace = service::namespace(object);
            let address = endpoint.addresses[0];
            let uid = endpoints::uid(context.inputs, object, endpoint, &context.mesh.cluster_id);
            let workload = workloads
                .entry(uid.clone())
                .or_insert_with(|| outsider(uid, namespace, outside, address, endpoint, context));
            workload.services.insert(service::key(object, context), workload::mappings(object, endpoint));
        }
    }
    workloads.into_values().collect()
}

fn outsider(
    uid: String,
    namespace: &str,
    outside: &Outside,
    address: IpAddr,
    endpoint: &Endpoint,
    context: &Context<'_>,
) -> Workload {
    let node = outside.node.as_deref().unwrap_or("");
    let zone = outside.zone.as_deref().map(Arc::from);
    let locality = workload::locality(node, context);
    Workload {
        name: outside.slice.as_str().into(),
        namespace: namespace.into(),
        addresses: vec![address],
        network: context.network.clone(),
        trust_domain: context.mesh.trust_domain.clone(),
        node: node.into(),
        healthy: endpoint.in_use,
        cluster: context.mesh.cluster_id.clone(),
        locality: Locality { zone: zone.unwrap_or_else(|| locality.zone.clone()), ..locality },
        host_network: true,
        ..Workload::empty(uid)
    }
}
