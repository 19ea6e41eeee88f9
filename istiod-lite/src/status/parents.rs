//! What is to be in `status.parents` of a route, or in `status.ancestors` of a policy: our entries, and everybody else's as they are. Pure.

use serde_json::{Map, Value, json};

use crate::translate::condition::{Condition, ParentStatus};

/// By which our entries are known among those of other controllers.
pub(super) const CONTROLLER: &str = "ambit.dev/mesh-controller";

/// How an entry names what it is about: in `status.parents` of a route.
pub(super) const PARENT: &str = "parentRef";
/// In `status.ancestors` of a policy.
pub(super) const ANCESTOR: &str = "ancestorRef";

/// `status.parents`, or `status.ancestors`, as it is to be; None if it is so already. The list is one value to an API server, so other controllers'
/// entries are in it. `now` is written where a status changes.
pub(super) fn patch(
    wanted: &[ParentStatus],
    (named, there): (&str, &[Value]),
    generation: Option<i64>,
    now: &str,
) -> Option<Value> {
    let is_ours = |entry: &Value| entry["controllerName"] == CONTROLLER;
    let ours: Vec<&Value> = there.iter().filter(|entry| is_ours(entry)).collect();
    let entry = |of: &ParentStatus| {
        let parent = reference(of);
        let before = ours.iter().find(|entry| entry[named] == parent);
        let conditions: Vec<Value> =
            of.conditions.iter().map(|c| condition(c, before.copied(), generation, now)).collect();
        json!({named: parent, "controllerName": CONTROLLER, "conditions": conditions})
    };
    let new: Vec<Value> = wanted.iter().map(entry).collect();
    if new.iter().eq(ours.iter().copied()) {
        return None;
    }
    let others = there.iter().filter(|entry| !is_ours(entry)).cloned();
    Some(others.chain(new).collect())
}

/// As the route names it, with what it leaves out left out.
fn reference(of: &ParentStatus) -> Value {
    let parent = serde_json::to_value(&of.parent).unwrap_or_default();
    let fields = parent.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

/// A condition. `before` is what holds the conditions that were there.
pub(crate) fn condition(condition: &Condition, before: Option<&Value>, generation: Option<i64>, now: &str) -> Value {
    let status = if condition.status { "True" } else { "False" };
    let known = before.and_then(|entry| entry["conditions"].as_array()).into_iter().flatten();
    let known = known.into_iter().find(|known| known["type"] == *condition.kind && known["status"] == status);
    let since = known.and_then(|known| known["lastTransitionTime"].as_str()).unwrap_or(now);
    let mut new = json!({
        "type": condition.kind,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": since,
    });
    if let Some(generation) = generation {
        new["observedGeneration"] = generation.into();
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::gateway_api::common::ParentRef;

    #[test]
    fn others_entries_stay_and_times_are_those_of_changes() {
        let parent = ParentRef {
            group: Some(String::new()),
            kind: Some("Service".into()),
            name: "web".into(),
            ..ParentRef::default()
        };
        let of = |status, message: &str| ParentStatus {
            parent: parent.clone(),
            conditions: vec![Condition {
                kind: "Accepted".into(),
                status,
                reason: "Accepted".into(),
                message: message.into(),
            }],
        };
        let foreign =
            json!({"controllerName": "example.com/other", "parentRef": {"name": "ingress"}, "conditions": []});
        let first = patch(&[of(true, "m")], (PARENT, std::slice::from_ref(&foreign)), Some(1), "t1").unwrap();
        let entries = first.as_array().unwrap().clone();
        assert_eq!(entries[0], foreign);
        let ours = json!({
            "controllerName": CONTROLLER,
            "parentRef": {"group": "", "kind": "Service", "name": "web"},
            "conditions": [{
                "type": "Accepted", "status": "True", "reason": "Accepted", "message": "m", "lastTransitionTime": "t1",
                "observedGeneration": 1,
            }],
        });
        assert_eq!(entries[1], ours);
        assert_eq!(patch(&[of(true, "m")], (PARENT, &entries), Some(1), "t2"), None, "nothing new");
        let time = |patch: &Value| patch[1]["conditions"][0]["lastTransitionTime"].clone();
        let newer = patch(&[of(true, "m")], (PARENT, &entries), Some(2), "t2").unwrap();
        assert_eq!((time(&newer), &newer[1]["conditions"][0]["observedGeneration"]), (json!("t1"), &json!(2)));
        assert_eq!(time(&patch(&[of(false, "m")], (PARENT, &entries), Some(2), "t2").unwrap()), json!("t2"));
        let of_policy = patch(&[of(true, "m")], (ANCESTOR, &[]), Some(1), "t1").unwrap();
        assert_eq!(of_policy[0]["ancestorRef"], ours["parentRef"]);
        // The route is another Service's now: ours goes, the other stays.
        assert_eq!(patch(&[], (PARENT, &entries), Some(3), "t3"), Some(json!([foreign])));
    }
}
