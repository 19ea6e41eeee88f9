//! What is to be in the status of a Gateway of ours. Pure.

use serde_json::{Value, json};

use super::parents::condition;
use crate::translate::condition::{Condition, PolicyStatus, WaypointStatus};

/// The status, as we own it; None if it is so already. `now` is written where a condition changes.
pub(super) fn status(told: &PolicyStatus, waypoint: &WaypointStatus, there: &Value, now: &str) -> Option<Value> {
    let list = |conditions: &[Condition], before: &Value| -> Vec<Value> {
        conditions.iter().map(|one| condition(one, Some(before), told.generation, now)).collect()
    };
    let resolved = Condition {
        kind: "ResolvedRefs".into(),
        status: true,
        reason: "ResolvedRefs".into(),
        message: "No errors found".into(),
    };
    let of_listener: Vec<Condition> = told.conditions.iter().cloned().chain([resolved]).collect();
    let known = there["listeners"].as_array().into_iter().flatten().find(|one| one["name"] == *waypoint.listener);
    let listener = json!({
        "name": waypoint.listener,
        // What is behind a waypoint says so itself, and its routes name services.
        "attachedRoutes": 0,
        "supportedKinds": [],
        "conditions": list(&of_listener, known.unwrap_or(&Value::Null)),
    });
    let addresses = serde_json::to_value(&waypoint.addresses).unwrap_or_default();
    let wanted = json!({"conditions": list(&told.conditions, there), "addresses": addresses, "listeners": [listener]});
    // Conditions of others, of other types, are not ours to compare.
    let is_there = |one: &Value| there["conditions"].as_array().into_iter().flatten().any(|known| known == one);
    let same = wanted["conditions"].as_array().into_iter().flatten().all(is_there)
        && wanted["addresses"] == there["addresses"]
        && wanted["listeners"] == there["listeners"];
    (!same).then_some(wanted)
}

/// The status of one whose present version was rejected; None if it is so already. Where the waypoint of the version before is, it
/// stays.
pub(super) fn rejected(conditions: &[Condition], generation: Option<i64>, there: &Value, now: &str) -> Option<Value> {
    let told: Vec<Value> = conditions.iter().map(|one| condition(one, Some(there), generation, now)).collect();
    let known = there["conditions"].as_array();
    if told.iter().all(|one| known.is_some_and(|known| known.contains(one))) {
        return None;
    }
    let mut wanted = json!({"conditions": told});
    for part in ["addresses", "listeners"].into_iter().filter(|part| !there[*part].is_null()) {
        wanted[part] = there[part].clone();
    }
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::gateway_api::gateway::Address;
    use crate::resources::{Key, Kind};

    #[test]
    fn it_is_written_once_and_says_which_generation_it_is_about() {
        let say = |kind: &'static str| Condition {
            kind: kind.into(),
            status: true,
            reason: kind.into(),
            message: "m".into(),
        };
        let key = Key::new(Kind::Gateway, Some("shop"), "way");
        let mut told = PolicyStatus::new(key, vec![say("Accepted"), say("Programmed")]);
        told.generation = Some(1);
        let address = Address { kind: Some("Hostname".into()), value: "way.shop.svc.cluster.local".into() };
        let waypoint =
            WaypointStatus { class: "ambit-waypoint".into(), listener: "mesh".into(), addresses: vec![address] };
        let first = status(&told, &waypoint, &json!({}), "t1").unwrap();
        assert_eq!(first["addresses"], json!([{"type": "Hostname", "value": "way.shop.svc.cluster.local"}]));
        assert_eq!(first["listeners"][0]["conditions"].as_array().unwrap().len(), 3);
        assert_eq!(status(&told, &waypoint, &first, "t2"), None);
        told.generation = Some(2);
        let second = status(&told, &waypoint, &first, "t2").unwrap();
        let condition = &second["conditions"][0];
        assert_eq!((&condition["observedGeneration"], &condition["lastTransitionTime"]), (&json!(2), &json!("t1")));
    }
    #[test]
    fn what_is_rejected_says_so_and_stays_where_it_is() {
        let conditions = ["Accepted", "Programmed"].map(|kind| Condition {
            kind: kind.into(),
            status: false,
            reason: "Invalid".into(),
            message: "m".into(),
        });
        let there = json!({"conditions": [{"type": "Other"}], "addresses": [{"value": "10.0.0.1"}]});
        let told = rejected(&conditions, Some(2), &there, "t1").unwrap();
        let status =
            |n: usize| (told["conditions"][n]["status"].clone(), told["conditions"][n]["observedGeneration"].clone());
        assert_eq!((status(0), status(1)), ((json!("False"), json!(2)), (json!("False"), json!(2))));
        assert_eq!((&told["addresses"], told.get("listeners")), (&there["addresses"], None));
        assert_eq!(rejected(&conditions, Some(2), &told, "t2"), None);
    }
}
