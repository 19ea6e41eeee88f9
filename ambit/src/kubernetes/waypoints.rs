//! Waypoints, and what is attached to them. Pure.
use super::objects::Object;
use super::read::ROUTES;
use super::status::Waypoint;
use istiod_lite::resources::gateway_api::gateway::WAYPOINT_CLASSES;
use mesh_model::labels::{
    GATEWAY_NAME, REVISION, USE_WAYPOINT, USE_WAYPOINT_NAMESPACE, USE_WAYPOINT_NONE, WAYPOINT_FOR,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Of what the waypoints are asked.
pub(super) struct Around<'a> {
    pub(super) namespaces: &'a [Object],
    pub(super) services: &'a [Object],
    pub(super) pods: &'a [Object],
    /// By kind.
    pub(super) policies: &'a BTreeMap<&'static str, Vec<Object>>,
}

/// The Gateways that are waypoints, and what is wrong with them.
pub(super) fn waypoints(gateways: &[Object], around: &Around<'_>, problems: &mut Vec<String>) -> Vec<Waypoint> {
    let ours = gateways.iter().filter(|gateway| WAYPOINT_CLASSES.contains(&gateway.spec_text("/gatewayClassName")));
    let all: Vec<Waypoint> = ours.map(|gateway| waypoint(gateway, around)).collect();
    for waypoint in &all {
        let Waypoint { namespace, name, programmed, reason, pods: (ready, _), .. } = waypoint;
        if !programmed {
            problems.push(format!("waypoint {namespace}/{name} takes no requests: {reason}"));
        } else if *ready == 0 && !is_run_elsewhere(gateways, namespace, name) {
            problems.push(format!("waypoint {namespace}/{name} has no pod that is ready"));
        }
    }
    all
}

/// A Gateway with addresses of its own is run by somebody else.
fn is_run_elsewhere(gateways: &[Object], namespace: &str, name: &str) -> bool {
    let this =
        gateways.iter().find(|gateway| gateway.metadata.namespace == *namespace && gateway.metadata.name == *name);
    this.is_some_and(|gateway| gateway.spec["addresses"].as_array().is_some_and(|addresses| !addresses.is_empty()))
}

fn waypoint(gateway: &Object, around: &Around<'_>) -> Waypoint {
    let (namespace, name) = (&*gateway.metadata.namespace, &*gateway.metadata.name);
    let mut conditions = gateway.conditions();
    conditions.retain(|condition| gateway.is_current(condition));
    let programmed = conditions.iter().find(|condition| condition.kind == "Programmed");
    let reason = match conditions.iter().find(|c| matches!(&*c.kind, "Accepted" | "Programmed") && c.status != "True") {
        Some(condition) => format!("{}: {}", condition.reason, condition.message),
        None if programmed.is_none() => "no control plane has said anything about it as it is now".to_owned(),
        None => String::new(),
    };
    let runs = |pod: &&Object| {
        pod.metadata.namespace == namespace
            && pod.label(GATEWAY_NAME) == name
            && pod.metadata.deletion_timestamp.is_none()
    };
    let (ready, all) = around
        .pods
        .iter()
        .filter(runs)
        .fold((0, 0), |(ready, all), pod| (ready + usize::from(pod.is_ready()), all + 1));
    let names = |object: &Object, own: &str| {
        let asked = Some(object.label(USE_WAYPOINT_NAMESPACE)).filter(|asked| !asked.is_empty()).unwrap_or(own);
        object.label(USE_WAYPOINT) == name && asked == namespace
    };
    let naming = around.namespaces.iter().filter(|space| names(space, &space.metadata.name));
    let namespaces: Vec<String> = naming.map(|space| space.metadata.name.clone()).collect();
    let uses = |service: &&Object| match service.label(USE_WAYPOINT) {
        // A waypoint's own Service is in the way to nothing.
        _ if !service.label(GATEWAY_NAME).is_empty() => false,
        "" => namespaces.contains(&service.metadata.namespace),
        USE_WAYPOINT_NONE => false,
        _ => names(service, &service.metadata.namespace),
    };
    let services: BTreeSet<String> = around.services.iter().filter(uses).map(Object::place).collect();
    let of = |kinds: &[&str], is_attached: &dyn Fn(&Object) -> bool| -> Vec<String> {
        let all = kinds.iter().flat_map(|kind| around.policies.get(*kind).into_iter().flatten());
        all.filter(|object| is_attached(object)).map(Object::place).collect()
    };
    let to_service = |reference: &Value, own: &str| {
        let space = reference["namespace"].as_str().unwrap_or(own);
        reference["kind"] == "Service"
            && reference["name"].as_str().is_some_and(|name| services.contains(&format!("{space}/{name}")))
    };
    let is_parent = |route: &Object| {
        let parents = route.spec["parentRefs"].as_array().into_iter().flatten();
        parents.into_iter().any(|parent| to_service(parent, &route.metadata.namespace))
    };
    let is_target = |policy: &Object| {
        let own = &*policy.metadata.namespace;
        let mut targets = policy.spec["targetRefs"].as_array().into_iter().flatten();
        targets.any(|target| {
            (target["kind"] == "Gateway" && own == namespace && target["name"] == name) || to_service(target, own)
        })
    };
    let waypoint_for = Some(gateway.label(WAYPOINT_FOR)).filter(|what| !what.is_empty()).unwrap_or("service");
    Waypoint {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        class: gateway.spec_text("/gatewayClassName").to_owned(),
        waypoint_for: waypoint_for.to_owned(),
        revision: gateway.label(REVISION).to_owned(),
        programmed: programmed.is_some_and(|condition| condition.status == "True"),
        reason,
        pods: (ready, all),
        routes: of(&ROUTES, &is_parent),
        policies: of(&["AuthorizationPolicy", "RequestAuthentication"], &is_target),
        namespaces,
        services: services.into_iter().collect(),
    }
}
