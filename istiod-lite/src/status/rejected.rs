//! What is to be on routes, TrafficPolicies and Gateways that were rejected. Pure.

use serde_json::Value;

use crate::resources::gateway_api::common::ParentRef;
use crate::source::{Origin, Rejected};
use crate::translate::condition::{Condition, ParentStatus};

/// Which version of the object this is about.
pub(super) fn generation(rejected: &Rejected) -> Option<i64> {
    match rejected.origin {
        Origin::Cluster { generation, .. } if generation != 0 => Some(generation),
        _ => None,
    }
}

/// On a route: of each of its parents that is a Service or ServiceEntry, as its `spec.parentRefs` are now. That of other parents is for other
/// controllers to say.
pub(super) fn parents(rejected: &Rejected, refs: &[Value]) -> Vec<ParentStatus> {
    let read = refs.iter().filter_map(|written| serde_json::from_value::<ParentRef>(written.clone()).ok());
    let conditions = vec![condition("Accepted", "UnsupportedValue", rejected)];
    let ours = read.filter(|parent| parent.is_service() || parent.is_entry());
    ours.map(|parent| ParentStatus { parent, conditions: conditions.clone() }).collect()
}

/// On a traffic policy: of each of its targets, as its `spec.targetRefs` are now.
pub(super) fn ancestors(rejected: &Rejected, refs: &[Value]) -> Vec<ParentStatus> {
    let read = refs.iter().filter_map(|written| serde_json::from_value::<ParentRef>(written.clone()).ok());
    let conditions = vec![condition("Accepted", "Invalid", rejected)];
    read.map(|parent| ParentStatus { parent, conditions: conditions.clone() }).collect()
}

/// On a Gateway.
pub(super) fn gateway(rejected: &Rejected) -> Vec<Condition> {
    ["Accepted", "Programmed"].map(|kind| condition(kind, "Invalid", rejected)).into()
}

fn condition(kind: &'static str, reason: &'static str, rejected: &Rejected) -> Condition {
    let serves = if rejected.last_good_kept { ". The version before keeps serving" } else { "" };
    Condition {
        kind: kind.into(),
        status: false,
        reason: reason.into(),
        message: format!("{}{serves}", rejected.sentence()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rejected() -> Rejected {
        Rejected {
            origin: Origin::Cluster { resource_version: "7".into(), generation: 3 },
            kind: Some("HTTPRoute".into()),
            namespace: Some("shop".into()),
            name: Some("web".into()),
            field: Some("spec.rules[0].sessionPersistence".into()),
            message: "not supported here".into(),
            last_good_kept: true,
        }
    }

    #[test]
    fn each_parent_of_a_mesh_says_that_the_route_is_not_accepted() {
        let refs = [
            json!({"group": "", "kind": "Service", "name": "web", "port": 80}),
            json!({"group": "networking.istio.io", "kind": "ServiceEntry", "name": "api"}),
            json!({"name": "ingress"}),
            json!({"group": "", "kind": "Service", "name": "web", "port": "eighty"}),
        ];
        let told = parents(&rejected(), &refs);
        let message = "spec.rules[0].sessionPersistence: not supported here. The version before keeps serving";
        let accepted = Condition {
            kind: "Accepted".into(),
            status: false,
            reason: "UnsupportedValue".into(),
            message: message.to_owned(),
        };
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!((told[0].parent.port, &told[0].conditions), (Some(80), &vec![accepted]));
        assert!(told[1].parent.is_entry(), "{told:?}");
        assert_eq!(generation(&rejected()), Some(3));
    }

    #[test]
    fn a_gateway_says_both() {
        let kinds: Vec<_> = gateway(&rejected()).into_iter().map(|one| (one.kind, one.status, one.reason)).collect();
        assert_eq!(
            kinds,
            [("Accepted".into(), false, "Invalid".into()), ("Programmed".into(), false, "Invalid".into())]
        );
    }
}
