//! Endpoints that are no pods → Workload.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use mesh_model::workload::{Locality, Workload};

use super::context::Context;
use super::endpoints::{Endpoint, Outside, Owner};
use super::service_spec::{namespace, publishes_not_ready};
use super::{locality, names, workload};

/// An endpoint that is no pod, by what services say of it, in their order. It is on no network of pods, takes no tunnel,
/// no policy covers it, and nobody knows what runs there: names of applications stay empty, as istiod leaves them.
pub(super) fn translate(uid: &str, said: &[(&Service, &Endpoint)], context: &Context<'_>) -> Option<Workload> {
    let mut found: Option<Workload> = None;
    for (object, endpoint) in said {
        let Owner::Outside(outside) = &endpoint.owner else { continue };
        // Proxies take all endpoints of such a service; what a slice says about others than the service's own pods
        // counts all the same.
        if publishes_not_ready(object) && !endpoint.in_use {
            continue;
        }
        let namespace = namespace(object);
        let address = endpoint.addresses[0];
        let workload =
            found.get_or_insert_with(|| outsider(uid.to_owned(), namespace, outside, address, endpoint, context));
        workload.services.insert(names::service(object, context.mesh), workload::mappings(object, endpoint));
    }
    found
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
    let locality = locality::of_node(node, context.cluster);
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
