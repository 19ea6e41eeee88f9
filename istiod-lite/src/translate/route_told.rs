//! What users are told of routes, parent by parent. Pure.

use k8s_openapi::api::core::v1::Service;
use mesh_model::address::NamespacedName;

use super::backend_ref;
use super::condition::{Condition, ParentStatus};
use super::route::{self, Route};
use super::service_spec::has_port;
use super::stream_route;
use super::waypoint::{self, Verdict};
use super::world::World;
use crate::cluster::attachments::{entry_parent, of_grpc, of_http, of_stream, parent};
use crate::resources::gateway_api::backend_ref::BackendRef;
use crate::resources::gateway_api::common::ParentRef;
use crate::resources::host;

/// What is told of a route: of each parent that is a Service or ServiceEntry, in order.
pub(super) fn of(route: &Route, world: &World<'_>) -> Vec<ParentStatus> {
    let (backends, hostnames) = match route {
        Route::Http(route) => (of_http(route), !route.spec.hostnames.is_empty()),
        Route::Grpc(route) => (of_grpc(route), !route.spec.hostnames.is_empty()),
        Route::Tcp(route) => (of_stream(&route.spec.rules), false),
        Route::Tls(route) => (of_stream(&route.spec.rules), false),
    };
    let namespace = route.name().namespace;
    let resolved = resolved(&backends, &namespace, is_stream(route), world);
    let one = |reference: &ParentRef| {
        let parent = match parent(reference, &namespace) {
            Some(service) => Parent::service(service, world),
            None => Parent::entry(entry_parent(reference, &namespace)?, route, world),
        };
        // Of what is behind another control plane's waypoint, or behind none, that one has to tell.
        let way = parent.way.as_ref().map(|way| &way.asked);
        if !waypoint::is_ours(way, world) {
            return None;
        }
        let (accepted, way) = accepted(route, reference, parent, hostnames, world);
        let conditions = [Some(accepted), Some(resolved.clone()), way].into_iter().flatten().collect();
        Some(ParentStatus { parent: reference.clone(), conditions })
    };
    route.parents().iter().filter_map(one).collect()
}

/// Whether it is of connections.
fn is_stream(route: &Route) -> bool {
    matches!(route, Route::Tcp(_) | Route::Tls(_))
}

/// What a person is told of all of it: what is wrong, else that it is right.
pub(super) fn summary(parents: &[ParentStatus], route: &Route) -> Vec<Condition> {
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
        let message = if route.parents().is_empty() {
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
    /// A Service, and its name.
    service: Option<(&'a Service, NamespacedName)>,
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
        let object = world.cluster.service(&name).map(|object| &**object);
        Self {
            name: format!("Service {name}"),
            service: object.map(|object| (object, name)),
            has_port: object.map(|object| Box::new(move |port| has_port(object, port)) as _),
            way: object.and_then(|object| waypoint::of_service(object, world)),
            unfit: None,
        }
    }

    fn entry(name: NamespacedName, route: &Route, world: &World<'a>) -> Self {
        let object = world.cluster.service_entry(&name);
        let only_wildcards = object.is_some_and(|object| object.spec.hosts.iter().all(|one| host::is_wildcard(one)));
        Self {
            name: format!("ServiceEntry {name}"),
            has_port: object.map(|object| Box::new(move |port| object.has_port(port)) as _),
            way: object.and_then(|object| waypoint::of_entry(&object.metadata, world)),
            service: None,
            unfit: match is_stream(route) {
                true => Some("takes HTTPRoutes and GRPCRoutes: connections to its hosts follow no other routes"),
                false => only_wildcards.then_some("has no host but wildcards, which no waypoint serves"),
            },
        }
    }
}

/// Whether a parent takes the route, and whether there is a waypoint to follow it.
fn accepted(
    route: &Route,
    reference: &ParentRef,
    parent: Parent<'_>,
    hostnames: bool,
    world: &World<'_>,
) -> (Condition, Option<Condition>) {
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
    let taken = parent
        .service
        .map_or(Ok(String::new()), |(object, service)| stream_ports(route, reference, &service, (object, world)));
    let taken = match taken {
        Ok(note) => note,
        Err((reason, message)) => return (condition("Accepted", false, reason, message), None),
    };
    let accepted = condition("Accepted", true, "Accepted", format!("Route was valid{note}{taken}"));
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

/// At which ports of its parent a route of connections counts: a note on those where it does not.
///
/// # Errors
/// Where it counts at none: the reason.
fn stream_ports(
    route: &Route,
    reference: &ParentRef,
    service: &NamespacedName,
    (object, world): (&Service, &World<'_>),
) -> Result<String, (&'static str, String)> {
    if !is_stream(route) {
        return Ok(String::new());
    }
    let ports = stream_route::attached_at(reference, object);
    if ports.is_empty() {
        let message = format!(
            "what it is for at the Service {service} is declared as HTTP by appProtocol or the port's name: write an HTTPRoute, or \
             declare it tcp or tls"
        );
        return Err(("UnsupportedValue", message));
    }
    let taken = stream_route::taken(route, reference, object, &route::of_service(service, world));
    let said =
        |(port, (kind, name)): (&u16, &(&str, NamespacedName))| format!("at port {port} the {kind} {name} counts");
    let all: Vec<String> = taken.iter().map(said).collect();
    match all.len() {
        0 => Ok(String::new()),
        some if some == ports.len() => Err(("Conflicted", format!("it is not followed: {}", all.join(", ")))),
        _ => Ok(format!(". But {}", all.join(", "))),
    }
}

/// Whether its backends are there.
fn resolved(backends: &[BackendRef], namespace: &str, is_stream: bool, world: &World<'_>) -> Condition {
    let mut wrong = backends.iter().filter_map(|backend| backend_ref::resolve(backend, namespace, world).err());
    match wrong.next() {
        None => condition("ResolvedRefs", true, "ResolvedRefs", "All references resolved".to_owned()),
        Some((reason, why)) => {
            let share = match is_stream {
                true => "its share of the connections is refused",
                false => "its share of the requests is answered with 500",
            };
            condition("ResolvedRefs", false, reason, format!("{why}: {share}"))
        }
    }
}
