//! What users are told of destination rules. Pure.

use mesh_model::address::NamespacedName;

use super::condition::Condition;
use super::service_spec::{has_port, is_external_name};
use super::traffic::{balancing, is_of_domain, rule_for};
use super::world::World;
use super::{load_balancer, names, waypoint};
use crate::cluster::relations::{Named, has_selector, named_by};
use crate::resources::DestinationRule;

/// What becomes of a rule.
pub(super) fn of(key: &NamespacedName, rule: &DestinationRule, world: &World<'_>) -> Condition {
    let root = &world.mesh.root_namespace;
    let refuse = |reason, message| Condition::waypoint(false, reason, message);
    let host = &rule.spec.host;
    let service = match named_by(rule) {
        Named::Service(service) if is_of_domain(rule, &service, world) => service,
        Named::Below(domain) => return below(key, &domain, world),
        Named::Service(_) | Named::Other => {
            let message = format!(
                "no waypoint knows a host {host}: write the Service's name, or NAME.NAMESPACE.svc.{}; what is said of a \
                 ServiceEntry's host is not followed",
                world.mesh.domain
            );
            return refuse("NoSuchHost", message);
        }
    };
    if key.namespace != service.namespace && *key.namespace != **root {
        let message = format!(
            "it counts only in the Service's own namespace, {}, or in {root}: a waypoint treats a service's endpoints in one \
             way for all callers",
            service.namespace
        );
        return refuse("OtherNamespace", message);
    }
    let Some(object) = world.cluster.service(&service) else {
        return refuse("NoSuchHost", format!("there is no Service {service}"));
    };
    if let Some((other, _)) = rule_for(&service, world).filter(|(other, _)| *other != key) {
        let why = match other.namespace == key.namespace {
            true => "the oldest that has a trafficPolicy or subsets counts",
            false => "one of the Service's own namespace counts before one for the whole mesh",
        };
        return refuse("Conflicted", format!("DestinationRule {other} is for the Service {service}, too: {why}"));
    }
    let Some(verdict) = waypoint::of_service(object, world).filter(|_| !is_external_name(object)) else {
        let message = format!(
            "the Service {service} has no waypoint, so nobody follows the rule: label it, or its namespace, with \
             istio.io/use-waypoint"
        );
        return refuse("NoWaypoint", message);
    };
    if !verdict.is_served {
        let message = format!(
            "the Service {service} asks for {}, which does not take it: nobody follows the rule",
            verdict.asked
        );
        return refuse("WaypointIsNotReady", message);
    }
    let ports = rule.spec.traffic_policy.iter().flat_map(|policy| &policy.port_level_settings);
    let mut unknown = ports.map(|settings| settings.port.number);
    let is_there = |number: u32| u16::try_from(number).is_ok_and(|port| has_port(object, port));
    if let Some(port) = unknown.find(|number| !is_there(*number)) {
        let message = format!(
            "the Service {service} has no TCP port {port}: what portLevelSettings say of it counts for nothing"
        );
        return Condition::waypoint(true, "PartiallyInvalid", message);
    }
    if !rule.spec.subsets.is_empty() && !has_selector(object) {
        let message = format!("the Service {service} has no selector, and so nobody is in a subset of it");
        return Condition::waypoint(true, "PartiallyInvalid", message);
    }
    if let Some(policy) = load_balancer::of_service(&service, world).filter(|_| says_how(rule)) {
        let message = format!(
            "followed by waypoint {}, but not how an endpoint is chosen: TrafficPolicy {policy} says that of the Service {service}",
            verdict.asked
        );
        return Condition::waypoint(true, "Overridden", message);
    }
    Condition::waypoint(true, "Accepted", format!("followed by waypoint {}", verdict.asked))
}

/// Whether a rule says anywhere how an endpoint is chosen.
fn says_how(rule: &DestinationRule) -> bool {
    let subsets = rule.spec.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
    let mut balancers = rule.spec.traffic_policy.iter().chain(subsets).flat_map(|policy| {
        let ports = policy.port_level_settings.iter().filter_map(|settings| settings.load_balancer.as_ref());
        policy.load_balancer.iter().chain(ports)
    });
    balancers.any(|balancer| balancing(balancer).is_some())
}

/// One for all of a domain.
fn below(key: &NamespacedName, domain: &str, world: &World<'_>) -> Condition {
    let everywhere = key.namespace == world.mesh.root_namespace;
    let whose =
        if everywhere { "that has none in its own namespace".to_owned() } else { format!("of {}", key.namespace) };
    let sample = names::hostname(&NamespacedName::new(key.namespace.clone(), "a"), world.mesh).name;
    if !everywhere && !sample.ends_with(domain) {
        let message = format!("no Service of {} has such a name, and only theirs count here", key.namespace);
        return Condition::waypoint(false, "NoSuchHost", message);
    }
    let message = format!("followed by waypoints for each Service below *{domain} {whose} and that no rule names");
    Condition::waypoint(true, "Accepted", message)
}
