//! What the agent says about its pods: how far each enrolment got, and why.

use std::collections::BTreeMap;
use std::path::Path;

use mesh_model::labels;
use mesh_runtime::files;
use serde::{Deserialize, Serialize};

/// How far a pod's enrolment got. `enabled` and `pending` are words of the annotation [`labels::REDIRECTION`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Redirection {
    /// Captured and served by ztunnel: peers use HBONE.
    Enabled,
    /// Served by ztunnel and not captured yet: peers are to use HBONE, and once all of them do it is captured.
    Joining,
    /// Captured no more and still served by ztunnel: peers are to use plain TCP, and once all of them do it is let go.
    Leaving,
    /// To be enrolled, or captured while no ztunnel serves it: what is captured fails.
    Pending,
    /// Not in the mesh.
    Disabled,
}

impl Redirection {
    /// The annotation's value; `None` where the annotation is absent.
    pub fn annotation(self) -> Option<&'static str> {
        match self {
            Self::Enabled | Self::Joining => Some(labels::REDIRECTION_ENABLED),
            Self::Pending => Some(labels::REDIRECTION_PENDING),
            Self::Disabled | Self::Leaving => None,
        }
    }
}

/// One pod's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// How far it got.
    pub redirection: Redirection,
    /// Why, for people.
    pub reason: String,
}

/// Every pod of the node, by UID.
pub type States = BTreeMap<String, Enrolled>;

/// Writes the states as one file. Readers see the old or the new one, never a part.
pub fn write(path: &Path, states: &States) -> std::io::Result<()> {
    #[derive(Serialize)]
    struct Written<'a> {
        pods: &'a States,
    }
    let json = serde_json::to_vec(&Written { pods: states })?;
    files::replace(path, json)
}

/// Reads what a predecessor wrote; nothing if there is no file.
pub fn read(path: &Path) -> std::io::Result<States> {
    #[derive(Deserialize)]
    struct Read {
        pods: States,
    }
    match std::fs::read(path) {
        Ok(json) => Ok(serde_json::from_slice::<Read>(&json)?.pods),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(States::default()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_as_others_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("enrolled.json");
        let state = |redirection| Enrolled { redirection, reason: "why".to_owned() };
        let states = States::from([
            ("a".to_owned(), state(Redirection::Enabled)),
            ("b".to_owned(), state(Redirection::Pending)),
            ("c".to_owned(), state(Redirection::Disabled)),
        ]);
        write(&path, &states).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            r#"{"pods":{"a":{"redirection":"enabled","reason":"why"},"b":{"redirection":"pending","reason":"why"},"c":{"redirection":"disabled","reason":"why"}}}"#
        );
        assert_eq!(read(&path).unwrap(), states);
        assert_eq!(read(&dir.path().join("none")).unwrap(), States::default());
        // What peers are told: HBONE only while ztunnel serves it, and for as long as it is captured.
        for (redirection, annotation) in [
            (Redirection::Pending, Some("pending")),
            (Redirection::Joining, Some("enabled")),
            (Redirection::Enabled, Some("enabled")),
            (Redirection::Leaving, None),
            (Redirection::Disabled, None),
        ] {
            assert_eq!(redirection.annotation(), annotation);
        }
    }
}
