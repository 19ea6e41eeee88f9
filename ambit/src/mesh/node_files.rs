//! What a node's agent is told (`pods.json`) and what it answers (`enrolled.json`).
use serde::{Deserialize, Serialize};
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
}

/// What the agent did about them, by pod uid.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Enrolled {
    #[serde(default)]
    pub(crate) pods: BTreeMap<String, Enrolment>,
}

/// How far a pod's enrolment got.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Enrolment {
    pub(crate) redirection: Redirection,
    #[serde(default)]
    pub(crate) reason: String,
}

/// State of a pod's redirection; the words of the annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Redirection {
    Enabled,
    Pending,
    Disabled,
}

impl Enrolled {
    /// Reads the agent's answer; nothing if there is none yet. A broken file is the agent's fault and is said so.
    pub(crate) fn read(path: &Path) -> Self {
        let Ok(text) = std::fs::read(path) else { return Enrolled::default() };
        serde_json::from_slice(&text).unwrap_or_else(|e| {
            tracing::warn!("{} is not what a node agent writes: {e}", path.display());
            Enrolled::default()
        })
    }
}
