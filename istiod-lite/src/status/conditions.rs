//! What is to be on which object of a cluster. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Status;
use crate::resources::{Key, Kind};
use crate::translate::condition::{Condition, WAYPOINT_ACCEPTED, ZTUNNEL_ACCEPTED};

/// The conditions of each object that is to have some.
pub(super) fn wanted(status: &Status) -> BTreeMap<Key, Vec<Condition>> {
    let mut wanted: BTreeMap<Key, Vec<Condition>> = BTreeMap::new();
    for policy in &status.policies {
        let ours = policy.conditions.iter().filter(|condition| is_for(policy.key.kind, &condition.kind));
        let conditions: Vec<Condition> = ours.cloned().collect();
        if !conditions.is_empty() {
            wanted.entry(policy.key.clone()).or_default().extend(conditions);
        }
    }
    // What is said of the version that serves is not true of what is there now.
    for rejected in &status.rejected {
        let told = [
            Kind::AuthorizationPolicy,
            Kind::PeerAuthentication,
            Kind::RequestAuthentication,
            Kind::ServiceEntry,
            Kind::WorkloadEntry,
            Kind::DestinationRule,
            Kind::VirtualService,
            Kind::Telemetry,
        ];
        let kind = told.into_iter().find(|kind| rejected.kind.as_deref() == Some(kind.as_str()));
        let (Some(kind), Some(name)) = (kind, &rejected.name) else { continue };
        let serves = if rejected.last_good_kept { ". The version before keeps serving" } else { "" };
        let mut condition = Condition::rejected(format!("{}{serves}", rejected.sentence()));
        if matches!(kind, Kind::DestinationRule | Kind::VirtualService | Kind::Telemetry) {
            // Only waypoints have anything to do with it.
            condition.kind = WAYPOINT_ACCEPTED.into();
        }
        wanted.insert(Key::new(kind, rejected.namespace.as_deref(), name), vec![condition]);
    }
    wanted
}

fn is_for(kind: Kind, condition: &str) -> bool {
    match kind {
        Kind::ServiceEntry | Kind::WorkloadEntry => condition == ZTUNNEL_ACCEPTED || condition.starts_with("istio.io/"),
        Kind::AuthorizationPolicy | Kind::PeerAuthentication | Kind::RequestAuthentication => {
            [ZTUNNEL_ACCEPTED, WAYPOINT_ACCEPTED].contains(&condition)
        }
        Kind::DestinationRule | Kind::VirtualService | Kind::Telemetry => condition == WAYPOINT_ACCEPTED,
        // Kubernetes wants the owner's name before the type's.
        Kind::Service => condition.starts_with("istio.io/"),
        _ => false,
    }
}

/// A condition as it is on an object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub(super) struct Written {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: String,
}

/// What to write where `there` is: None if that says it already. `before` are those that we wrote and that may go. `now` is
/// written where a status changes.
pub(super) fn patch(wanted: &[Condition], there: &[Written], before: &[Condition], now: &str) -> Option<Value> {
    let word = |status: bool| if status { "True" } else { "False" };
    let known = |kind: &str| there.iter().find(|written| written.kind == kind);
    let says = |condition: &Condition| {
        known(&condition.kind).is_some_and(|written| {
            written.status == word(condition.status)
                && written.reason == condition.reason
                && written.message == condition.message
        })
    };
    let stale = before
        .iter()
        .any(|old| !wanted.iter().any(|condition| condition.kind == old.kind) && known(&old.kind).is_some());
    if !stale && wanted.iter().all(says) {
        return None;
    }
    let conditions = wanted.iter().map(|condition| {
        let same = known(&condition.kind).filter(|written| written.status == word(condition.status));
        let since = same.map(|written| &*written.last_transition_time).filter(|since| !since.is_empty()).unwrap_or(now);
        json!({
            "type": condition.kind,
            "status": word(condition.status),
            "reason": condition.reason,
            "message": condition.message,
            "lastTransitionTime": since,
        })
    });
    Some(conditions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Origin, Rejected};
    use crate::translate::condition::PolicyStatus;

    fn condition(kind: &'static str, status: bool, reason: &'static str) -> Condition {
        Condition { kind: kind.into(), status, reason: reason.into(), message: "m".to_owned() }
    }

    #[test]
    fn what_is_rejected_is_not_called_accepted() {
        let key = |kind, name| Key::new(kind, Some("shop"), name);
        let of = |key: &Key, condition: Condition| PolicyStatus::new(key.clone(), vec![condition]);
        let (good, bad) = (key(Kind::AuthorizationPolicy, "good"), key(Kind::AuthorizationPolicy, "bad"));
        let (service, pod) = (key(Kind::Service, "web"), key(Kind::Pod, "web"));
        let accepted = condition(ZTUNNEL_ACCEPTED, true, "Accepted");
        let bound = condition("istio.io/WaypointBound", false, "WaypointIsNotReady");
        let rejected = Rejected {
            origin: Origin::Cluster { resource_version: "7".into(), generation: 2 },
            kind: Some("AuthorizationPolicy".into()),
            namespace: Some("shop".into()),
            name: Some("bad".into()),
            field: Some("spec.x".into()),
            message: "unknown field".into(),
            last_good_kept: true,
        };
        let status = Status {
            rejected: vec![rejected],
            policies: vec![
                of(&good, accepted.clone()),
                of(&bad, accepted.clone()),
                of(&service, bound.clone()),
                of(&service, accepted.clone()),
                of(&pod, bound.clone()),
            ],
            skipped: Vec::new(),
        };
        let invalid = Condition::rejected("spec.x: unknown field. The version before keeps serving".to_owned());
        let expected = [(good, accepted), (bad, invalid), (service, bound)];
        assert_eq!(wanted(&status), expected.map(|(key, condition)| (key, vec![condition])).into());
    }

    #[test]
    fn nothing_is_written_that_is_there_already_and_times_are_those_of_changes() {
        let written = |kind: &str, status: &str, reason: &str| Written {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: "m".to_owned(),
            last_transition_time: "then".to_owned(),
        };
        let wanted = [condition(ZTUNNEL_ACCEPTED, true, "Accepted")];
        let time =
            |patch: Option<Value>| patch.map(|p| p[0]["lastTransitionTime"].as_str().unwrap_or("none").to_owned());
        let other = written("Other", "True", "Accepted");
        for (what, there, expected) in [
            ("said already", vec![other.clone(), written(ZTUNNEL_ACCEPTED, "True", "Accepted")], None),
            ("new", vec![other.clone()], Some("now")),
            ("changed", vec![written(ZTUNNEL_ACCEPTED, "False", "Invalid")], Some("now")),
            ("another reason", vec![written(ZTUNNEL_ACCEPTED, "True", "UnsupportedValue")], Some("then")),
        ] {
            assert_eq!(time(patch(&wanted, &there, &[], "now")).as_deref(), expected, "{what}");
        }
        // Nothing is asked any more: what we wrote goes, and what others wrote is left alone.
        let there = [written(ZTUNNEL_ACCEPTED, "True", "Accepted"), other.clone()];
        assert_eq!(patch(&[], &there, &wanted, "now"), Some(json!([])));
        assert_eq!(patch(&[], &[other], &wanted, "now"), None);
    }
}
