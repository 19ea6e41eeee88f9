//! What users are told of routes, parent by parent. Pure.

use mesh_model::address::NamespacedName;

use super::condition::{Condition, ParentStatus};
use super::service_spec::has_port;
use super::world::World;
use super::{backend_ref, waypoint};
use crate::cluster::Kept;
use crate::cluster::attachments::{of_grpc, of_http, parent};
use crate::resources::Key;
use crate::resources::gateway_api::backend_ref::BackendRef;
use crate::resources::gateway_api::common::ParentRef;

/// What is told of a route: of each parent that is a Service, in order.
pub(super) fn of(key: &Key, object: &Kept, world: &World<'_>) -> Vec<ParentStatus> {
    let (parents, backends, hostnames) = match object {
        Kept::HttpRoute(route) => (&route.spec.parent_refs, of_http(route), &route.spec.hostnames),
        Kept::GrpcRoute(route) => (&route.spec.parent_refs, of_grpc(route), &route.spec.hostnames),
        _ => return Vec::new(),
    };
    let resolved = resolved(&backends, &key.namespace, world);
    let one = |reference: &ParentRef| {
        let service = parent(reference, &key.namespace)?;
        let (accepted, way) = accepted(reference, &service, !hostnames.is_empty(), world);
        let conditions = [Some(accepted), Some(resolved.clone()), way].into_iter().flatten().collect();
        Some(ParentStatus { parent: reference.clone(), conditions })
    };
    parents.iter().filter_map(one).collect()
}

/// What a person is told of all of it: what is wrong, else that it is right.
pub(super) fn summary(parents: &[ParentStatus], object: &Kept) -> Vec<Condition> {
    let all = || parents.iter().flat_map(|of| &of.conditions);
    let wrong: Vec<Condition> = all().filter(|condition| !condition.status).cloned().collect();
    if !wrong.is_empty() {
        let mut told: Vec<Condition> = Vec::new();
        for condition in wrong {
            if !told.contains(&condition) {
                told.push(condition);
            }
        }
        return told;
    }
    if parents.is_empty() {
        let none = match object {
            Kept::HttpRoute(route) => route.spec.parent_refs.is_empty(),
            Kept::GrpcRoute(route) => route.spec.parent_refs.is_empty(),
            _ => true,
        };
        let message = if none {
            "it has no parentRefs, and so does nothing: name the Service that it is for"
        } else {
            "its parents are no Services: no waypoint follows it, and another controller has to"
        };
        return vec![condition("Accepted", false, "NoMatchingParent", message.to_owned())];
    }
    all().find(|condition| condition.kind == "Accepted").cloned().into_iter().collect()
}

fn condition(kind: &'static str, status: bool, reason: &'static str, message: String) -> Condition {
    Condition { kind: kind.into(), status, reason: reason.into(), message }
}

/// Whether a parent takes the route, and whether there is a waypoint to follow it.
fn accepted(
    reference: &ParentRef,
    service: &NamespacedName,
    hostnames: bool,
    world: &World<'_>,
) -> (Condition, Option<Condition>) {
    let refuse = |message| (condition("Accepted", false, "NoMatchingParent", message), None);
    let Some(object) = world.cluster.service(service) else {
        return refuse(format!("there is no Service {service}"));
    };
    if let Some(port) = reference.port.filter(|port| !u16::try_from(*port).is_ok_and(|port| has_port(object, port))) {
        return refuse(format!("the Service {service} has no TCP port {port}"));
    }
    let note = if hostnames { ". Its hostnames are not asked: the Service says what it is for" } else { "" };
    let accepted = condition("Accepted", true, "Accepted", format!("Route was valid{note}"));
    let way = match waypoint::of_service(object, world) {
        Some(verdict) if verdict.unbound.is_none() => (true, "ResolvedWaypoints", "All waypoints resolved".to_owned()),
        Some(verdict) => {
            let effect = if verdict.address.is_some() { "connections are refused" } else { "connections go around it" };
            (
                false,
                "WaypointIsNotReady",
                format!("the Service {service} asks for {}, which is not ready: {effect}", verdict.asked),
            )
        }
        None => {
            let message = format!(
                "the Service {service} has no waypoint, so nobody follows the route: label it, or its namespace, with \
                 istio.io/use-waypoint"
            );
            (false, "NoWaypoint", message)
        }
    };
    (accepted, Some(condition("ResolvedWaypoints", way.0, way.1, way.2)))
}

/// Whether its backends are there.
fn resolved(backends: &[BackendRef], namespace: &str, world: &World<'_>) -> Condition {
    let mut wrong = backends.iter().filter_map(|backend| backend_ref::resolve(backend, namespace, world).err());
    match wrong.next() {
        None => condition("ResolvedRefs", true, "ResolvedRefs", "All references resolved".to_owned()),
        Some((reason, why)) => {
            condition("ResolvedRefs", false, reason, format!("{why}: its share of the requests is answered with 500"))
        }
    }
}
