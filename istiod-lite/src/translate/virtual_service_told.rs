//! What users are told of virtual services. Pure.

use mesh_model::address::NamespacedName;

use super::condition::Condition;
use super::service_spec::{is_external_name, tcp_ports};
use super::virtual_service::{counts, other_route, resolve, service_named};
use super::world::World;
use super::{ports, waypoint};
use crate::resources::VirtualService;

/// Destinations of which something is told; of more it would be no message.
const MOST_TOLD: usize = 3;

/// What becomes of one.
pub(super) fn of(key: &NamespacedName, object: &VirtualService, world: &World<'_>) -> Condition {
    let spec = &object.spec;
    if !spec.is_for_mesh() {
        let message = format!(
            "it is for the gateways {}, and waypoints stand for the gateway mesh: leave gateways out, or add mesh",
            spec.gateways.join(", ")
        );
        return Condition::waypoint(false, "NotForMesh", message);
    }
    let (mut followed, mut wrong, mut first) = (Vec::new(), Vec::new(), None);
    for host in &spec.hosts {
        match host_told(key, host, world) {
            Ok(way) => followed.push(way),
            Err((reason, message)) => {
                first.get_or_insert(reason);
                wrong.push(message);
            }
        }
    }
    if followed.is_empty() {
        return Condition::waypoint(false, first.unwrap_or("NoSuchHost"), wrong.join(". "));
    }
    let services: Vec<NamespacedName> = followed.iter().map(|(service, _)| service.clone()).collect();
    wrong.extend(unresolved(key, object, &services, world));
    let callers = match services.iter().any(|service| service.namespace != key.namespace) {
        true => format!(", for callers of the namespace {}", key.namespace),
        false => String::new(),
    };
    let mut ways: Vec<String> = followed.iter().map(|(_, way)| way.to_string()).collect();
    ways.dedup();
    let message = format!("followed by waypoint {}{callers}", ways.join(", "));
    if wrong.is_empty() {
        return Condition::waypoint(true, "Accepted", message);
    }
    Condition::waypoint(true, "PartiallyInvalid", format!("{message}. {}", wrong.join(". ")))
}

type Told = Result<(NamespacedName, NamespacedName), (&'static str, String)>;

/// The Service that a host is, and its waypoint.
fn host_told(key: &NamespacedName, host: &str, world: &World<'_>) -> Told {
    let Some(service) = service_named(host, &key.namespace, world) else {
        let message = format!(
            "no waypoint knows a host {host}: write the Service's name, or NAME.NAMESPACE.svc.{}; wildcards and hosts of \
             ServiceEntries are not followed",
            world.mesh.domain
        );
        return Err(("NoSuchHost", message));
    };
    let Some(object) = world.cluster.service(&service) else {
        return Err(("NoSuchHost", format!("there is no Service {service}")));
    };
    if let Some(route) = other_route(&service, &key.namespace, world) {
        let message = format!(
            "{route} is for the Service {service}, too, and routes of Gateway API count before VirtualServices: keep one of them"
        );
        return Err(("Conflicted", message));
    }
    if let Some((other, _)) = counts(&service, &key.namespace, world).filter(|(other, _)| other != key) {
        let message = format!("VirtualService {other} is for the Service {service}, too: the oldest counts");
        return Err(("Conflicted", message));
    }
    let Some(verdict) = waypoint::of_service(object, world).filter(|_| !is_external_name(object)) else {
        let message = format!(
            "the Service {service} has no waypoint, so nobody follows it: label it, or its namespace, with istio.io/use-waypoint"
        );
        return Err(("NoWaypoint", message));
    };
    match verdict.is_served {
        true => Ok((service, verdict.asked)),
        false => {
            let message =
                format!("the Service {service} asks for {}, which does not take it: nobody follows it", verdict.asked);
            Err(("WaypointIsNotReady", message))
        }
    }
}

/// What is wrong with its destinations, at any of the services' ports.
fn unresolved(
    key: &NamespacedName,
    object: &VirtualService,
    services: &[NamespacedName],
    world: &World<'_>,
) -> Option<String> {
    let mut wrong: Vec<String> = Vec::new();
    for service in services {
        let Some(of) = world.cluster.service(service) else { continue };
        for (_, port) in tcp_ports(of) {
            let at = (service, ports::number(port.port));
            for to in object.spec.http.iter().flat_map(|rule| rule.destinations()) {
                let why = resolve(to, at, &key.namespace, world).err();
                wrong.extend(why.filter(|why| !wrong.contains(why)));
            }
        }
    }
    wrong.truncate(MOST_TOLD);
    (!wrong.is_empty()).then(|| format!("{}: its share of the requests is answered with 503", wrong.join("; ")))
}
