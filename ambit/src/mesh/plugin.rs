//! How a new pod is announced to its node's agent, as a CNI plugin would.
use node_agent::cni::{AddRequest, IpConfig, IpNet};
use node_agent::plugin_client::{self, CmdAddError};
use std::net::IpAddr;
use std::path::PathBuf;

/// Whether the mesh must take a pod before it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Not decided yet: the pod waits.
    Undecided,
    /// It does not belong to the mesh.
    Free,
    /// It does: the agent at this socket must be asked first.
    Ask { socket: PathBuf, request: AddRequest },
}

impl Admission {
    /// Asks. `Err` says why the pod may not start yet.
    pub(crate) async fn ask(&self) -> Result<(), String> {
        match self {
            Admission::Undecided => {
                Err("the node's agent and the control plane have not been told of it yet".to_owned())
            }
            Admission::Free => Ok(()),
            Admission::Ask { socket, request } => {
                let asked = plugin_client::cmd_add(socket, request).await;
                asked.map_err(|error| match error {
                    // How it was asked is of no interest to people.
                    CmdAddError::Refused { reason, .. } => format!("not in the mesh yet: {reason}"),
                    error => format!("not in the mesh yet: {error}"),
                })
            }
        }
    }
}

/// What the agent is told about a pod.
pub(crate) fn request(netns: PathBuf, name: &str, namespace: &str, ips: &[IpAddr]) -> AddRequest {
    let ip_config = |ip: &IpAddr| IpConfig {
        interface: None,
        address: IpNet::new(*ip, if ip.is_ipv4() { 32 } else { 128 }),
        gateway: None,
    };
    AddRequest {
        netns,
        pod_name: name.to_owned(),
        pod_namespace: namespace.to_owned(),
        pod_uid: None,
        ips: ips.iter().map(ip_config).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where files cannot be written, for example on a full disk, no pod starts outside the mesh by mistake.
    #[tokio::test]
    async fn a_pod_of_which_nobody_has_decided_waits() {
        assert!(Admission::Undecided.ask().await.is_err());
        assert!(Admission::Free.ask().await.is_ok());
    }
}
