//! What users are told of routes, parent by parent. Pure.

use mesh_model::address::NamespacedName;

use super::backend_ref;
use super::condition::{Condition, ParentStatus};
use super::service_spec::has_port;
use super::waypoint::{self, Verdict};
use super::world::World;
use crate::cluster::Kept;
use crate::cluster::attachments::{entry_parent, of_grpc, of_http, parent};
use crate::resources::gateway_api::backend_ref::BackendRef;
use crate::resources::gateway_api::common::ParentRef;
use crate::resources::{Key, host};

/// What is told of a route: of each parent that is a Service or ServiceEntry, in order.
pub(super) fn of(key: &Key, object: &Kept, world: &World<'_>) -> Vec<ParentStatus> {
    let (parents, backends, hostnames) = match object {
        Kept::HttpRoute(route) => (&route.spec.parent_refs, of_http(route), &route.spec.hostnames),
        Kept::GrpcRoute(route) => (&route.spec.parent_refs, of_grpc(route), &route.spec.hostnames),
        _ => return Vec::new(),
    };
    let resolved = resolved(&backends, &key.namespace, world);
    let one = |reference: &ParentRef| {
        let parent = match parent(reference, &key.namespace) {
            Some(service) => Parent::service(service, world),
            None => Parent::entry(entry_parent(reference, &key.namespace)?, world),
        };
        let (accepted, way) = accepted(reference, parent, !hostnames.is_empty());
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
            "it has no parentRefs, and so does nothing: name the Service or ServiceEntry that it is for"
        } else {
            "its parents are no Services and no ServiceEntries: no waypoint follows it, and another controller has to"
        };
        return vec![condition("Accepted", false, "NoMatchingParent", message.to_owned())];
    }
    all().find(|condition| condition.kind == "Accepted").cloned().into_iter().collect()
}

fn condition(kind: &'static str, status: bool, reason: &'static str, message: String) -> Condition {
    Condition { kind: kind.into(), status, reason: reason.into(), message }
}

/// A Service or ServiceEntry that a route names.
struct Parent<'a> {
    /// Its kind and name.
    name: String,
    /// Whether it has a TCP port; None: it is not there.
    has_port: Option<Box<dyn Fn(u16) -> bool + 'a>>,
    /// The verdict on its waypoint.
    way: Option<Verdict>,
    /// Why no route can be for it.
    unfit: Option<&'static str>,
}

impl<'a> Parent<'a> {
    fn service(name: NamespacedName, world: &World<'a>) -> Self {
        let object = world.cluster.service(&name);
        Self {
            name: format!("Service {name}"),
            has_port: object.map(|object| Box::new(move |port| has_port(object, port)) as _),
            way: object.and_then(|object| waypoint::of_service(object, world)),
            unfit: None,
        }
    }

    fn entry(name: NamespacedName, world: &World<'a>) -> Self {
        let object = world.cluster.service_entry(&name);
        let only_wildcards = object.is_some_and(|object| object.spec.hosts.iter().all(|one| host::is_wildcard(one)));
        Self {
            name: format!("ServiceEntry {name}"),
            has_port: object.map(|object| Box::new(move |port| object.has_port(port)) as _),
            way: object.and_then(|object| waypoint::of_entry(&object.metadata, world)),
            unfit: only_wildcards.then_some("has no host but wildcards, which no waypoint serves"),
        }
    }
}

/// Whether a parent takes the route, and whether there is a waypoint to follow it.
fn accepted(reference: &ParentRef, parent: Parent<'_>, hostnames: bool) -> (Condition, Option<Condition>) {
    let refuse = |message| (condition("Accepted", false, "NoMatchingParent", message), None);
    let name = parent.name;
    let Some(has_port) = parent.has_port else {
        return refuse(format!("there is no {name}"));
    };
    if let Some(why) = parent.unfit {
        return refuse(format!("the {name} {why}"));
    }
    if let Some(port) = reference.port.filter(|port| !u16::try_from(*port).is_ok_and(&has_port)) {
        return refuse(format!("the {name} has no TCP port {port}"));
    }
    let kind = reference.kind();
    let note = if hostnames {
        format!(". Its hostnames are not asked: the {kind} says what it is for")
    } else {
        String::new()
    };
    let accepted = condition("Accepted", true, "Accepted", format!("Route was valid{note}"));
    let way = match parent.way {
        Some(verdict) if verdict.unbound.is_none() => (true, "ResolvedWaypoints", "All waypoints resolved".to_owned()),
        Some(verdict) => {
            let effect = if verdict.address.is_some() { "connections are refused" } else { "connections go around it" };
            let message = format!("the {name} asks for {}, which is not ready: {effect}", verdict.asked);
            (false, "WaypointIsNotReady", message)
        }
        None => {
            let message = format!(
                "the {name} has no waypoint, so nobody follows the route: label it, or its namespace, with \
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
