//! What is to be on a Gateway whose waypoint could not be made as it asks. Pure.

use std::collections::BTreeMap;

use mesh_model::address::NamespacedName;

use crate::translate::condition::Condition;

/// Gateways whose waypoint could not be made as they ask.
pub type Problems = BTreeMap<NamespacedName, Problem>;

/// Why a waypoint is not as its Gateway asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its parameters cannot be followed; otherwise the API server did not take what was made of it.
    pub of_parameters: bool,
    /// What, why, and what to do.
    pub message: String,
}

/// What the Gateway says instead of what it says otherwise.
pub(super) fn conditions(problem: &Problem) -> Vec<Condition> {
    let say = |kind: &'static str, status, reason: &'static str, message: &str| Condition {
        kind: kind.into(),
        status,
        reason: reason.into(),
        message: message.to_owned(),
    };
    let message = format!("{}. What was made before stays as it is", problem.message);
    let accepted = if problem.of_parameters {
        say("Accepted", false, "InvalidParameters", &message)
    } else {
        say("Accepted", true, "Accepted", "Resource accepted")
    };
    vec![accepted, say("Programmed", false, "Invalid", &message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_at_fault_is_said() {
        let said = |of_parameters| {
            let said = conditions(&Problem { of_parameters, message: "no ConfigMap".to_owned() });
            said.iter().map(|one| format!("{}={} {}", one.kind, one.status, one.reason)).collect::<Vec<_>>()
        };
        assert_eq!(said(true), ["Accepted=false InvalidParameters", "Programmed=false Invalid"]);
        assert_eq!(said(false), ["Accepted=true Accepted", "Programmed=false Invalid"]);
    }
}
