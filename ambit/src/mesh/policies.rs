//! What the control plane says about the user's policies.
use crate::status::PolicyStatus;
use serde::Deserialize;
use std::path::Path;

#[derive(Deserialize)]
struct Said {
    policies: Vec<Policy>,
}

#[derive(Deserialize)]
struct Policy {
    kind: String,
    #[serde(default)]
    namespace: String,
    name: String,
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    status: bool,
    reason: String,
    message: String,
}

/// Reads istiod-lite's status file; nothing before it has written one.
pub(crate) fn read(path: &Path) -> Vec<PolicyStatus> {
    let Ok(text) = std::fs::read(path) else { return Vec::new() };
    match serde_json::from_slice::<Said>(&text) {
        Ok(said) => said.policies.into_iter().map(Policy::told).collect(),
        Err(e) => {
            tracing::warn!("{} is not what istiod-lite writes: {e}", path.display());
            Vec::new()
        }
    }
}

impl Policy {
    fn told(self) -> PolicyStatus {
        // The first that is not simply accepted is the one to act on.
        let told = self.conditions.iter().find(|c| !c.status || c.reason != "Accepted").or(self.conditions.first());
        PolicyStatus {
            accepted: self.conditions.iter().all(|c| c.status),
            reason: told.map(|c| c.reason.clone()).unwrap_or_default(),
            message: told.map(|c| c.message.clone()).unwrap_or_default(),
            kind: self.kind,
            namespace: self.namespace,
            name: self.name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_act_on_comes_first() {
        let text = r#"{"rejected": [], "policies": [
            {"kind": "AuthorizationPolicy", "namespace": "a", "name": "p", "conditions": [
                {"type": "ZtunnelAccepted", "status": true, "reason": "Accepted", "message": "attached"},
                {"type": "WaypointAccepted", "status": false, "reason": "Unsupported", "message": "no paths here"}]}]}"#;
        let said: Said = serde_json::from_str(text).unwrap();
        let told = said.policies.into_iter().map(Policy::told).next().unwrap();
        assert_eq!(
            (told.accepted, told.reason.as_str(), told.message.as_str()),
            (false, "Unsupported", "no paths here")
        );
    }
}
