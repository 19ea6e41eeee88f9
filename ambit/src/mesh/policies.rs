//! What the control plane says about the user's policies.
use crate::manifest::{self, Position, Rejected};
use crate::status::PolicyStatus;
use istiod_lite::source::{Origin, Rejected as Refused};
use istiod_lite::status::Status;
use istiod_lite::translate::condition::PolicyStatus as Said;
use std::path::Path;

/// What the control plane says.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Of each policy.
    pub(crate) policies: Vec<PolicyStatus>,
    rejected: Vec<Refused>,
}

/// Reads istiod-lite's status file; nothing before it has written one.
pub(crate) fn read(path: &Path) -> Told {
    let Ok(text) = std::fs::read(path) else { return Told::default() };
    match serde_json::from_slice::<Status>(&text) {
        Ok(said) => said.into(),
        Err(e) => {
            tracing::warn!("{} is not what istiod-lite writes: {e}", path.display());
            Told::default()
        }
    }
}

impl Told {
    /// Lets what the control plane says of the same position in the same folder count.
    pub(crate) fn correct(&self, ours: &mut Rejected, folder: &Path) {
        let position = |theirs: &Refused| match &theirs.origin {
            Origin::File { file, line, column } => {
                Some(Position::new(file.strip_prefix(folder).unwrap_or(file), *line, *column))
            }
            Origin::Cluster { .. } => None,
        };
        if let Some(theirs) = self.rejected.iter().find(|theirs| position(theirs).as_ref() == Some(&ours.position)) {
            ours.reason = manifest::reason(
                theirs.kind.as_deref(),
                theirs.name.as_deref(),
                theirs.field.as_deref(),
                &theirs.message,
            );
            ours.last_good_kept &= theirs.last_good_kept;
        }
    }
}

impl From<Status> for Told {
    fn from(said: Status) -> Self {
        Told { policies: said.policies.into_iter().map(told).collect(), rejected: said.rejected }
    }
}

fn told(policy: Said) -> PolicyStatus {
    // The first that is not simply accepted is the one to act on.
    let told = policy.conditions.iter().find(|c| !c.is_accepted()).or(policy.conditions.first());
    PolicyStatus {
        accepted: policy.conditions.iter().all(|c| c.status),
        reason: told.map(|c| c.reason.to_string()).unwrap_or_default(),
        message: told.map(|c| c.message.clone()).unwrap_or_default(),
        kind: policy.key.kind.to_string(),
        namespace: policy.key.namespace.to_string(),
        name: policy.key.name.to_string(),
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
        let said: Status = serde_json::from_str(text).unwrap();
        let told = Told::from(said).policies.remove(0);
        assert_eq!(
            (told.accepted, told.reason.as_str(), told.message.as_str()),
            (false, "Unsupported", "no paths here")
        );
    }

    /// What it is for: were only our own memory asked, it would say that what was last good keeps serving.
    #[test]
    fn what_the_control_plane_no_longer_serves_is_not_said_to_serve() {
        let text = r#"{"policies": [], "rejected": [
            {"file": "/f/p.yaml", "line": 4, "column": 3, "kind": "AuthorizationPolicy", "name": "deny", "field": "spec.x",
             "message": "unknown field. All is refused", "last_good_kept": false}]}"#;
        let said: Status = serde_json::from_str(text).unwrap();
        let told = Told::from(said);
        let ours = |line| {
            let position = Position::new(Path::new("p.yaml"), line, 3);
            let mut ours = Rejected { position, reason: "ours".into(), refused: true, last_good_kept: true };
            told.correct(&mut ours, Path::new("/f"));
            ours.told()
        };
        assert_eq!(ours(4), "AuthorizationPolicy deny: spec.x: unknown field. All is refused");
        assert_eq!(ours(5), "ours (what was last good keeps serving)");
    }
}
