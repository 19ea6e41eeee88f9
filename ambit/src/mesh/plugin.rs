//! How a new pod is announced to its node's agent, as a CNI plugin would.
use std::path::PathBuf;

/// Whether the mesh must take a pod before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It does not belong to the mesh.
    Free,
    /// It does: this must be asked first.
    Ask { socket: PathBuf, request: Request },
}

/// What the agent is told about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) netns: PathBuf,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) ips: Vec<std::net::IpAddr>,
}

impl Admission {
    /// Asks. `Err` says why the pod may not start yet.
    pub(crate) async fn ask(&self) -> Result<(), String> {
        match self {
            Admission::Free => Ok(()),
            Admission::Ask { .. } => Err("this build has no node agent".into()),
        }
    }
}

/// Whether a pod belongs to the mesh; the node agent's own rule. `Err` says why not.
pub(crate) fn belongs(_pod: &super::node_files::NodePod) -> Result<(), String> {
    Err("no mesh".into())
}
