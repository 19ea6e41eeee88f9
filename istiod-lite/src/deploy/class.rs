//! GatewayClass of ours: what it is, and what its status says. Pure.

use serde_json::{Value, json};

use super::settings::MANAGER;
use crate::resources::gateway_api::{GROUP, GatewayClass};
use crate::status::condition;
use crate::translate::condition::Condition;

/// What a waypoint follows of HTTPRoute and GRPCRoute, in the Gateway API's words, sorted as the API demands. Names of the list for
/// meshes are no GatewayClass's to say: `docs/recipes/waypoint.md` has them.
const FEATURES: [&str; 29] = [
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteRequestHeaderModifier",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetryCodes",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
];

/// The object.
pub(super) fn object(name: &str) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": MANAGER, "description": "Waypoints of Ambit"},
    })
}

/// Whether it is ours: another controller may have made one of the same name first.
pub(super) fn is_ours(class: &GatewayClass) -> bool {
    class.spec.controller_name == MANAGER
}

/// What its status is to say; None if `there`, the object as it is, says so. The list of conditions is one value to a merge patch,
/// so those of others are in it. `now` is written where ours changes.
pub(super) fn status(class: &GatewayClass, there: &Value, now: &str) -> Option<Value> {
    let (status, reason, message) = match &class.spec.parameters_ref {
        None => (true, "Accepted", "its Gateways get waypoints"),
        Some(_) => (false, "InvalidParameters", "spec.parametersRef: how waypoints run cannot be set yet: remove it"),
    };
    let accepted = Condition { kind: "Accepted".into(), status, reason: reason.into(), message: message.to_owned() };
    let accepted = condition(&accepted, Some(&there["status"]), class.metadata.generation, now);
    let features: Vec<Value> = FEATURES.iter().map(|name| json!({"name": name})).collect();
    let known = there["status"]["conditions"].as_array().into_iter().flatten();
    let others = known.clone().filter(|known| known["type"] != "Accepted").cloned();
    let same = known.clone().any(|known| *known == accepted)
        && there["status"]["supportedFeatures"].as_array() == Some(&features);
    (!same).then(|| {
        let conditions: Vec<Value> = [accepted].into_iter().chain(others).collect();
        json!({"conditions": conditions, "supportedFeatures": features})
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::resources::{Kind, Object};

    fn read(mut value: Value, generation: i64) -> Arc<GatewayClass> {
        value["metadata"]["generation"] = generation.into();
        let Object::GatewayClass(class) = Object::from_value(Kind::GatewayClass, &value).unwrap() else { panic!() };
        class
    }

    #[test]
    fn it_is_accepted_once_for_each_generation() {
        assert!(FEATURES.is_sorted());
        let class = read(object("ambit-waypoint"), 1);
        assert!(is_ours(&class));
        // As the API server fills it in.
        let pending = json!({"type": "Accepted", "status": "Unknown", "reason": "Pending"});
        let foreign = json!({"type": "example.com/Liked", "status": "True", "reason": "Liked"});
        let pending = json!({"status": {"conditions": [pending, foreign]}});
        let first = status(&class, &pending, "t1").unwrap();
        let condition = |status: &Value| {
            let one = &status["conditions"][0];
            ["type", "status", "observedGeneration", "lastTransitionTime"].map(|field| one[field].clone())
        };
        assert_eq!(condition(&first), [json!("Accepted"), json!("True"), json!(1), json!("t1")]);
        assert_eq!(first["conditions"].as_array().map(Vec::len), Some(2));
        assert_eq!(first["conditions"][1], foreign, "others' conditions stay");
        assert_eq!(first["supportedFeatures"][3], json!({"name": "HTTPRoute"}));
        let there = json!({"status": first});
        assert_eq!(status(&class, &there, "t2"), None);
        let second = status(&read(object("ambit-waypoint"), 2), &there, "t2").unwrap();
        assert_eq!(condition(&second), [json!("Accepted"), json!("True"), json!(2), json!("t1")]);
        let mut with = object("ambit-waypoint");
        with["spec"]["parametersRef"] = json!({"group": "", "kind": "ConfigMap", "name": "a"});
        let refused = status(&read(with, 3), &there, "t3").unwrap();
        assert_eq!(condition(&refused), [json!("Accepted"), json!("False"), json!(3), json!("t3")]);
        // Another controller's stays another controller's.
        let mut theirs = object("ambit-waypoint");
        theirs["spec"]["controllerName"] = json!("example.com/other");
        assert!(!is_ours(&read(theirs, 1)));
    }
}
