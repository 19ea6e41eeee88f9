//! `istio.io/use-waypoint`: the waypoint in the way to a service or workload.
//!
//! This control plane runs no waypoints and reads no Gateways. A waypoint that is named is still told to the proxies, by
//! the hostname its Service would have: where there is none they refuse, and never go around it. (Istio's control plane
//! leaves the name out then, so that connections go straight.)

use std::sync::Arc;

use mesh_model::address::{GatewayAddress, GatewayDestination, NamespacedName};
use mesh_model::labels;

use super::condition::{Condition, WAYPOINT_BOUND};
use super::mesh::Mesh;
use crate::cluster::Cluster;
use crate::cluster::relations::{Asked, label, waypoint as asked};
use crate::resources::labels::Labelled;
use crate::resources::{Key, Kind};

/// Where waypoints speak HBONE.
const HBONE_PORT: u16 = 15008;

/// The waypoint of a Service: its own, else its namespace's.
pub(super) fn of_service(
    object: &dyn Labelled,
    namespace: &str,
    cluster: &Cluster,
    mesh: &Mesh,
) -> Option<Arc<GatewayAddress>> {
    // What belongs to a waypoint is not behind one.
    if is_gateway(object) {
        return None;
    }
    let asked = match asked(object, namespace) {
        Asked::Nothing => asked(&cluster.namespace(namespace)?.metadata, namespace),
        own => own,
    };
    address(asked, mesh)
}

/// The waypoint of a Pod: its own only. A namespace's is for services, unless its Gateway says otherwise.
pub(super) fn of_pod(object: &dyn Labelled, namespace: &str, mesh: &Mesh) -> Option<Arc<GatewayAddress>> {
    if is_gateway(object) {
        return None;
    }
    address(asked(object, namespace), mesh)
}

fn is_gateway(object: &dyn Labelled) -> bool {
    label(object, labels::GATEWAY_NAME).is_some()
}

fn address(asked: Asked, mesh: &Mesh) -> Option<Arc<GatewayAddress>> {
    let Asked::Waypoint(NamespacedName { namespace, name }) = asked else { return None };
    let hostname = format!("{name}.{namespace}.svc.{}", mesh.domain);
    let destination = GatewayDestination::Hostname(NamespacedName::new(namespace, hostname));
    Some(GatewayAddress { destination, hbone_mtls_port: HBONE_PORT }.shared())
}

/// Says of a namespace, service or pod which waypoint that it names nobody knows, and which other labels about the way to
/// it are not followed.
pub(super) fn unfollowed(key: &Key, object: &dyn Labelled, cluster: &Cluster, mesh: &Mesh) -> Vec<Condition> {
    let namespace = if key.kind == Kind::Namespace { &key.name } else { &key.namespace };
    let mut conditions = Vec::new();
    if let Asked::Waypoint(waypoint) = asked(object, namespace)
        && !is_gateway(object)
        && cluster.service(&waypoint).is_none()
    {
        conditions.push(not_there(&waypoint, key.kind));
    }
    if let Some(network) = label(object, labels::TOPOLOGY_NETWORK)
        && (key.kind, &*key.name) != (Kind::Namespace, &*mesh.root_namespace)
    {
        conditions.push(network_is_not_read(network, &mesh.root_namespace));
    }
    conditions
}

fn not_there(waypoint: &NamespacedName, kind: Kind) -> Condition {
    let whose = match kind {
        Kind::Namespace => "to its services (those without a label of their own)",
        _ => "to it",
    };
    let message = format!(
        "the label istio.io/use-waypoint names {waypoint}, and there is no Service of that name: connections {whose} are \
         refused (UNKNOWN_WAYPOINT), so that what the waypoint is to decide is not gone around. Start the waypoint, or \
         take the label off"
    );
    Condition { kind: WAYPOINT_BOUND.into(), status: false, reason: "WaypointIsNotReady".into(), message }
}

fn network_is_not_read(network: &str, root_namespace: &str) -> Condition {
    let message = format!(
        "the label topology.istio.io/network: {network} is not followed here: it is taken for a part of this network, and \
         reached straight. As in Istio, a cluster's network is the label of the namespace {root_namespace}"
    );
    Condition { kind: "istio.io/NetworkApplied".into(), status: false, reason: "NotRead".into(), message }
}
