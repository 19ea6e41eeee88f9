//! What users are told of TrafficPolicies, target by target (`status.ancestors` of the Gateway API's PolicyStatus). Pure.

use mesh_model::address::NamespacedName;

use super::condition::{Condition, ParentStatus};
use super::rate_limits::policy_of;
use super::service_spec::has_port;
use super::waypoint;
use super::world::World;
use crate::cluster::Kept;
use crate::cluster::attachments::{entry_parents, limited, parents};
use crate::resources::TrafficPolicy;
use crate::resources::gateway_api::common::ParentRef;
use crate::resources::traffic_policy::{GlobalRateLimit, PolicyTargetRef};

/// What is told of a policy: of each target, in order.
pub(super) fn of(key: &NamespacedName, policy: &TrafficPolicy, world: &World<'_>) -> Vec<ParentStatus> {
    let resolved = resolved(key, policy, world);
    let one = |reference: &PolicyTargetRef| {
        let (status, reason, message) = match accepted(key, reference, world) {
            Ok(message) => (true, "Accepted", message),
            Err((reason, message)) => (false, reason, message),
        };
        let accepted = condition("Accepted", status, reason, message);
        ParentStatus {
            parent: parent(reference),
            conditions: std::iter::once(accepted).chain(resolved.clone()).collect(),
        }
    };
    policy.spec.target_refs.iter().map(one).collect()
}

/// A target, as `ancestorRef` names it.
pub(super) fn parent(reference: &PolicyTargetRef) -> ParentRef {
    let PolicyTargetRef { group, kind, name, section_name } = reference;
    ParentRef {
        group: Some(group.clone()),
        kind: Some(kind.clone()),
        name: name.clone(),
        section_name: section_name.clone(),
        ..ParentRef::default()
    }
}

/// What a person is told of all of it: what is wrong, else that it is right.
pub(super) fn summary(targets: &[ParentStatus]) -> Vec<Condition> {
    let mut told: Vec<Condition> = Vec::new();
    let all = || targets.iter().flat_map(|of| &of.conditions);
    for wrong in all().filter(|condition| !condition.status) {
        if !told.contains(wrong) {
            told.push(wrong.clone());
        }
    }
    if told.is_empty() {
        told.extend(all().next().cloned());
    }
    told
}

fn condition(kind: &'static str, status: bool, reason: &'static str, message: String) -> Condition {
    Condition { kind: kind.into(), status, reason: reason.into(), message }
}

type Accepted = Result<String, (&'static str, String)>;

/// Whether a policy counts for a target.
fn accepted(key: &NamespacedName, reference: &PolicyTargetRef, world: &World<'_>) -> Accepted {
    let not_found = |what: String| Err(("TargetNotFound", format!("there is no {what}")));
    let Some(target) = limited(reference, &key.namespace) else {
        return Err(("Invalid", format!("a {} is no target of a TrafficPolicy", reference.kind)));
    };
    let Some(object) = world.cluster.get(&target) else { return not_found(target.to_string()) };
    let section = reference.section_name.as_deref();
    if let Some(section) = section.filter(|section| !has_rule(&object, section)) {
        return not_found(format!("rule {section} in {target}"));
    }
    if let Some((oldest, _)) = policy_of(&target, section, world).filter(|(oldest, _)| *oldest != key) {
        return Err((
            "Conflicted",
            format!("TrafficPolicy {oldest} has the same target and is older: it alone counts"),
        ));
    }
    match &object {
        Kept::Gateway(gateway) if !gateway.is_waypoint() => {
            Err(("Invalid", format!("{target} is no waypoint: its class is {}", gateway.spec.gateway_class_name)))
        }
        Kept::Gateway(_) => Ok(format!("enforced by {}", target.object())),
        Kept::Service(_) => at_waypoint(&target.object(), world),
        _ => {
            let services = parents(&object).into_iter().map(|service| at_waypoint(&service, world));
            let entries = entry_parents(&object).into_iter().map(|entry| entry_at_waypoint(&entry, world));
            let all: Vec<Accepted> = services.chain(entries).collect();
            // One that is bound is enough for it to count; what is wrong with the others the route says.
            let bound = all.iter().position(Result::is_ok).unwrap_or_default();
            let none = || {
                Err((
                    "AncestorNotBound",
                    format!("{target} has no Service or ServiceEntry as its parent: NOT enforced"),
                ))
            };
            all.into_iter().nth(bound).unwrap_or_else(none)
        }
    }
}

fn has_rule(object: &Kept, section: &str) -> bool {
    match object {
        Kept::HttpRoute(route) => route.spec.rules.iter().flatten().any(|rule| rule.name.as_deref() == Some(section)),
        Kept::GrpcRoute(route) => route.spec.rules.iter().any(|rule| rule.name.as_deref() == Some(section)),
        _ => false,
    }
}

fn at_waypoint(service: &NamespacedName, world: &World<'_>) -> Accepted {
    let Some(object) = world.cluster.service(service) else {
        return Err(("TargetNotFound", format!("there is no Service {service}")));
    };
    enforced(&format!("Service {service}"), waypoint::of_service(object, world))
}

fn entry_at_waypoint(entry: &NamespacedName, world: &World<'_>) -> Accepted {
    let Some(object) = world.cluster.service_entry(entry) else {
        return Err(("TargetNotFound", format!("there is no ServiceEntry {entry}")));
    };
    enforced(&format!("ServiceEntry {entry}"), waypoint::of_entry(&object.metadata, world))
}

fn enforced(target: &str, verdict: Option<waypoint::Verdict>) -> Accepted {
    let Some(verdict) = verdict else {
        let message = format!(
            "the {target} has no waypoint, so the policy is NOT enforced: label it, or its namespace, with \
             istio.io/use-waypoint"
        );
        return Err(("AncestorNotBound", message));
    };
    if verdict.is_served {
        return Ok(format!("enforced by {}", verdict.asked));
    }
    let effect = if verdict.address.is_some() { "is refused" } else { "goes around it" };
    Err((
        "AncestorNotBound",
        format!("the {target} is not bound to {}, and what is sent to it {effect}", verdict.asked),
    ))
}

/// Whether the rate limit services are there; None where none is named.
fn resolved(key: &NamespacedName, policy: &TrafficPolicy, world: &World<'_>) -> Option<Condition> {
    let mut named = policy.global().peekable();
    named.peek()?;
    let missing = |(name, limit): (String, &GlobalRateLimit)| {
        let (service, port) = (limit.service.object(&key.namespace), limit.service.port);
        let what = match world.cluster.service(&service) {
            None => format!("there is no Service {service}"),
            Some(object) if u16::try_from(port).is_ok_and(|port| has_port(object, port)) => return None,
            Some(_) => format!("the Service {service} has no TCP port {port}"),
        };
        Some(format!("{name}: {what}, so its failureMode holds for every request"))
    };
    Some(match named.find_map(missing) {
        None => condition("ResolvedRefs", true, "ResolvedRefs", "All references resolved".to_owned()),
        Some(why) => condition("ResolvedRefs", false, "BackendNotFound", why),
    })
}
