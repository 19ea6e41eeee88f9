//! Policies, and what else the control plane says something of. Pure.
use super::objects::{Condition, Object, conditions};
use super::status::Policy;
use std::collections::BTreeMap;

/// Another control plane's: nothing is wrong with it.
const OTHER_REVISION: &str = "OtherRevision";

/// All of them, and what is wrong.
pub(super) fn policies(
    found: &BTreeMap<&'static str, Vec<Object>>,
    services: &[Object],
    problems: &mut Vec<String>,
) -> Vec<Policy> {
    let of_kinds = found.iter().flat_map(|(kind, all)| all.iter().map(|object| (*kind, object)));
    // Routes of ingress gateways are none of the mesh's.
    let of_kinds = of_kinds.filter(|(kind, object)| !is_route(kind) || has_service_parent(object));
    let of_kinds = of_kinds.map(|(kind, object)| (kind, object, told(object)));
    // Of a Service is only said what is to be said, and not what others say of it.
    let of_services = services.iter().map(|service| {
        let mut told = told(service);
        told.retain(|condition| condition.kind.starts_with("istio.io/"));
        ("Service", service, told)
    });
    let of_services = of_services.filter(|(.., told)| !told.is_empty());
    let mut policies = Vec::new();
    for (kind, object, told) in of_kinds.chain(of_services) {
        let wrong: Vec<&Condition> = told.iter().filter(|condition| is_wrong(condition)).collect();
        let notes = told.iter().filter(|c| !matches!(&*c.reason, "Accepted" | "ResolvedRefs" | ""));
        let worth_saying: Vec<String> = if wrong.is_empty() {
            notes.filter(|c| !c.message.is_empty()).map(say).collect()
        } else {
            wrong.iter().map(|condition| say(condition)).collect()
        };
        let accepted = match (told.is_empty(), wrong.is_empty()) {
            (true, _) => "unknown",
            (false, true) => "yes",
            (false, false) => "no",
        };
        if !wrong.is_empty() {
            problems.push(format!("{kind} {}: {}", object.place(), worth_saying.join("; ")));
        }
        let nothing = "no control plane has said anything about it as it is now";
        policies.push(Policy {
            kind: kind.to_owned(),
            namespace: object.metadata.namespace.clone(),
            name: object.metadata.name.clone(),
            accepted: accepted.to_owned(),
            reason: if told.is_empty() { nothing.to_owned() } else { worth_saying.join("; ") },
        });
    }
    policies
}

fn is_route(kind: &str) -> bool {
    kind.ends_with("Route")
}

fn has_service_parent(route: &Object) -> bool {
    let parents = route.spec["parentRefs"].as_array();
    parents.into_iter().flatten().any(|parent| parent["kind"] == "Service")
}

/// What is said of it as it is now: its own conditions, and those at the Services that are parents of a route, or at the targets of a
/// traffic policy.
fn told(object: &Object) -> Vec<Condition> {
    let parents = object.status["parents"].as_array().into_iter().flatten();
    let parents = parents.filter(|parent| parent["parentRef"]["kind"] == "Service");
    let ancestors = object.status["ancestors"].as_array().into_iter().flatten();
    let each = parents.chain(ancestors).flat_map(|entry| conditions(&entry["conditions"]));
    let all = object.conditions().into_iter().chain(each);
    all.filter(|condition| object.is_current(condition)).collect()
}

fn is_wrong(condition: &Condition) -> bool {
    let bad = if condition.kind.ends_with("WaypointMissing") { "True" } else { "False" };
    condition.status == bad && condition.reason != OTHER_REVISION
}

fn say(condition: &Condition) -> String {
    let Condition { kind, reason, message, .. } = condition;
    if message.is_empty() { format!("{kind} {reason}") } else { format!("{reason}: {message}") }
}
