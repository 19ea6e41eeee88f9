//! What a node's agent is told (`pods.json`) and what it answers (`enrolled.json`).
use node_agent::enroll::{Enrolment, Selection, enrolment};
use node_agent::enrolled::States;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The full list of pods that should be on a node.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct NodePods {
    pub(crate) pods: Vec<NodePod>,
}

/// One of them.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodePod {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) namespace_labels: BTreeMap<String, String>,
    pub(crate) host_network: bool,
    pub(crate) ips: Vec<std::net::IpAddr>,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) phase: &'static str,
    /// What everybody's tables hold of it: `HBONE`, `TCP` or `unsettled`.
    pub(crate) known_as: &'static str,
}

impl NodePod {
    /// Whether it belongs to the mesh, by the node agent's own rule; with the reason either way.
    pub(crate) fn belongs(&self) -> Result<String, String> {
        let pod = node_agent::pods::Pod {
            uid: self.uid.clone(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            service_account: self.service_account.clone(),
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            namespace_labels: self.namespace_labels.clone(),
            host_network: self.host_network,
            ips: self.ips.clone(),
            netns: self.netns.clone(),
            phase: match self.phase {
                "Running" => node_agent::pods::Phase::Running,
                "Succeeded" => node_agent::pods::Phase::Succeeded,
                "Failed" => node_agent::pods::Phase::Failed,
                _ => node_agent::pods::Phase::Pending,
            },
            // Whether it belongs does not depend on who knows.
            known_as: node_agent::pods::KnownAs::default(),
        };
        let decided = enrolment(&pod, &Selection::default());
        match decided {
            Enrolment::In(_) => Ok(decided.to_string()),
            Enrolment::Out(_) => Err(decided.to_string()),
        }
    }
}

/// What a node's agent did about its pods, by their uid. A broken file is the agent's fault and is said so.
pub(crate) fn enrolled(path: &Path) -> States {
    node_agent::enrolled::read(path).unwrap_or_else(|e| {
        tracing::warn!("{} is not what a node agent writes: {e}", path.display());
        States::default()
    })
}
