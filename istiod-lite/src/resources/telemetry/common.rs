//! What several parts of a Telemetry say alike.

use serde::{Deserialize, Serialize};

/// Which side of a request.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct Match {
    /// Both, where it is not said.
    pub mode: Option<Mode>,
}

impl Match {
    /// It is about requests that come to a waypoint, which is on the server's side.
    pub(super) fn is_for_servers(this: Option<&Self>) -> bool {
        this.and_then(|matches| matches.mode) != Some(Mode::Client)
    }
}

/// Which side of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// Both.
    ClientAndServer,
    /// Who asks: a sidecar. A waypoint is on the server's side.
    Client,
    /// Who is asked.
    Server,
}

/// An extensionProvider of the mesh configuration.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct ProviderRef {
    /// Its name.
    pub name: String,
}
