//! This node's pods, as a source says they should be: always the whole list, never a change.
//!
//! Today the source is a file, which `ambit` writes as it is declared here; one that watches Kubernetes says the same in
//! the same shape.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_runtime::watch::Watch;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

/// The largest file that is read, in bytes: some 100,000 pods, far more than a node has.
const MAX_FILE: u64 = 64 << 20;
/// How often the file is read even if nobody said that it changed: notifications can be lost.
const REREAD: Duration = Duration::from_secs(2);

/// One pod of this node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// The Kubernetes UID. Another pod of the same name has another.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The service account it runs as.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The labels of its namespace.
    pub namespace_labels: BTreeMap<String, String>,
    /// It shares the network of the node.
    pub host_network: bool,
    /// Its addresses; empty until it has some.
    pub ips: Vec<IpAddr>,
    /// Where its network namespace can be opened, once it has one.
    pub netns: Option<PathBuf>,
    /// How far its life has come.
    pub phase: Phase,
    /// The ports that its kubelet dials, as [`Probed::ports`](crate::probe_ports::Probed::ports) says them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub probe_ports: Vec<u16>,
    /// What everybody's tables hold of it; [`KnownAs::NotTold`] where the source cannot tell.
    #[serde(skip_serializing_if = "KnownAs::is_not_told")]
    pub known_as: KnownAs,
}

/// How the pod takes connections, as the tables of every ztunnel of the mesh have it. The words are those of ztunnel's
/// own state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KnownAs {
    /// The source does not know what the tables hold: nobody waits for them.
    #[default]
    NotTold,
    /// The source does not know what the tables hold; what peers are told reaches all of them a moment later.
    #[serde(rename = "later")]
    Later,
    /// Not everybody holds the same, or somebody holds nothing.
    #[serde(rename = "unsettled")]
    Unsettled,
    /// Everybody sends it plain TCP.
    #[serde(rename = "TCP")]
    Tcp,
    /// Everybody sends it HBONE.
    #[serde(rename = "HBONE")]
    Hbone,
}

impl KnownAs {
    fn is_not_told(&self) -> bool {
        *self == Self::NotTold
    }
}

/// A pod's phase, in Kubernetes' words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Not all its containers run yet.
    #[default]
    Pending,
    /// It runs.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// The node cannot tell.
    #[serde(other)]
    Unknown,
}

impl Pod {
    /// It has run to its end and will not start again.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// `namespace/name`, as people call it.
    pub fn display_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// Why a list of pods was not taken. What was known before stays in force.
#[derive(Debug, thiserror::Error)]
pub enum PodsError {
    /// The file could not be read.
    #[error("cannot read the pods of this node from {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not a list of pods.
    #[error("{path} is not a list of pods: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A pod that cannot be told from others.
    #[error("{path}: pod {pod:?} {what}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which pod.
        pod: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The whole file: every pod of the node.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pods {
    /// In any order.
    pub pods: Vec<Pod>,
}

/// Reads a list of pods.
pub fn parse(path: &Path, json: &[u8]) -> Result<Vec<Pod>, PodsError> {
    let Pods { pods } =
        serde_json::from_slice(json).map_err(|source| PodsError::Parse { path: path.to_owned(), source })?;
    let mut seen = HashSet::new();
    for pod in &pods {
        let invalid = |what| PodsError::Invalid { path: path.to_owned(), pod: pod.display_name(), what };
        if pod.uid.is_empty() || pod.name.is_empty() || pod.namespace.is_empty() {
            return Err(invalid("lacks uid, name or namespace"));
        }
        if !seen.insert(&pod.uid) {
            return Err(invalid("has the uid of another pod"));
        }
    }
    Ok(pods)
}

/// Reads the file once.
pub fn read(path: &Path) -> Result<Vec<Pod>, PodsError> {
    use std::io::Read as _;
    let mut json = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut json))
        .and_then(|n| if n as u64 > MAX_FILE { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(()) })
        .map_err(|source| PodsError::Read { path: path.to_owned(), source })?;
    parse(path, &json)
}

/// Follows the file until nobody listens, and looks at once when `refresh` is notified. The file must be replaced by
/// rename, so that it is never seen half written. A list that cannot be taken is logged and the last good one stays;
/// before the first good one there is `None`.
pub async fn follow(path: PathBuf, refresh: Arc<Notify>, pods: watch::Sender<Option<Vec<Pod>>>) {
    let mut replaced = Watch::replaced([path.clone()], REREAD);
    let mut last_error = String::new();
    while !pods.is_closed() {
        match read(&path) {
            Ok(read) => {
                last_error.clear();
                pods.send_if_modified(|known| {
                    let different = known.as_ref() != Some(&read);
                    *known = Some(read);
                    different
                });
            }
            Err(error) => {
                let error = error.to_string();
                if error != last_error {
                    tracing::error!(%error, "the list of pods was not taken; the last good one stays in force");
                    last_error = error;
                }
            }
        }
        tokio::select! {
            () = refresh.notified() => {}
            () = replaced.changed() => {}
        }
    }
}

/// The list of pods, as soon as there is one.
pub async fn known(pods: &mut watch::Receiver<Option<Vec<Pod>>>) -> Vec<Pod> {
    loop {
        if let Some(pods) = pods.borrow_and_update().clone() {
            return pods;
        }
        if pods.changed().await.is_err() {
            // Whoever follows is gone; nothing will ever come.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_source_writes() {
        let json = br#"{"pods":[{"uid":"u1","name":"a","namespace":"ns","serviceAccount":"sa",
            "labels":{"app":"a"},"annotations":{},"namespaceLabels":{"istio.io/dataplane-mode":"ambient"},
            "hostNetwork":false,"ips":["10.244.1.2","fd00::2"],"netns":"/run/netns/u1","phase":"Running"},
            {"uid":"u2","name":"b","namespace":"ns","netns":null,"phase":"Pending","knownAs":"HBONE"},
            {"uid":"u3","name":"c","namespace":"ns","phase":"Evicted","knownAs":"unsettled"}]}"#;
        let pods = parse(Path::new("pods.json"), json).unwrap();
        assert_eq!(pods[0].ips, ["10.244.1.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        assert_eq!(pods[0].netns.as_deref(), Some(Path::new("/run/netns/u1")));
        assert_eq!(pods[1].netns, None);
        assert_eq!(
            pods.iter().map(|p| p.known_as).collect::<Vec<_>>(),
            [KnownAs::NotTold, KnownAs::Hbone, KnownAs::Unsettled]
        );
        assert_eq!((pods[0].phase, pods[1].phase, pods[2].phase), (Phase::Running, Phase::Pending, Phase::Unknown));
    }

    /// Whoever writes the file (`ambit`) and we who read it share one declaration; the words stay Kubernetes'.
    #[test]
    fn what_is_written_is_read() {
        let pod = Pod {
            uid: "u".to_owned(),
            name: "a".to_owned(),
            namespace: "ns".to_owned(),
            service_account: "sa".to_owned(),
            labels: [("app".to_owned(), "a".to_owned())].into(),
            namespace_labels: [("l".to_owned(), "v".to_owned())].into(),
            ips: vec!["10.244.1.2".parse().unwrap()],
            netns: Some("/run/netns/u".into()),
            phase: Phase::Running,
            known_as: KnownAs::Unsettled,
            ..Pod::default()
        };
        let json = serde_json::to_string(&Pods { pods: vec![pod.clone()] }).unwrap();
        assert_eq!(
            json,
            r#"{"pods":[{"uid":"u","name":"a","namespace":"ns","serviceAccount":"sa","labels":{"app":"a"},"annotations":{},"namespaceLabels":{"l":"v"},"hostNetwork":false,"ips":["10.244.1.2"],"netns":"/run/netns/u","phase":"Running","knownAs":"unsettled"}]}"#
        );
        let others = [
            Pod {
                uid: "v".to_owned(),
                known_as: KnownAs::Hbone,
                phase: Phase::Failed,
                probe_ports: vec![80, 8080],
                ..pod.clone()
            },
            Pod { uid: "w".to_owned(), known_as: KnownAs::NotTold, phase: Phase::Unknown, netns: None, ..pod.clone() },
        ];
        let all: Vec<Pod> = std::iter::once(pod).chain(others).collect();
        let json = serde_json::to_vec(&Pods { pods: all.clone() }).unwrap();
        assert_eq!(parse(Path::new("pods.json"), &json).unwrap(), all);
    }

    #[test]
    fn refuses_a_list_that_is_not_certain() {
        for json in [
            "",
            "{}",
            r#"{"pods":[{"name":"a","namespace":"ns"}]}"#,
            r#"{"pods":[{"uid":"u","namespace":"ns"}]}"#,
            r#"{"pods":[{"uid":"u","name":"a","namespace":"n"},{"uid":"u","name":"b","namespace":"n"}]}"#,
            r#"{"pods":[{"uid":"u","name":"a","namespace":"n","ips":["10.0.0"]}]}"#,
        ] {
            assert!(parse(Path::new("pods.json"), json.as_bytes()).is_err(), "{json}");
        }
    }

    #[tokio::test]
    async fn follows_a_file_that_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pods.json");
        let write = |json: &str| {
            let new = dir.path().join("new");
            std::fs::write(&new, json).unwrap();
            std::fs::rename(new, &path).unwrap();
        };
        let (sender, mut pods) = watch::channel(None);
        tokio::spawn(follow(path.clone(), Arc::default(), sender));
        write(r#"{"pods":[{"uid":"u","name":"a","namespace":"n"}]}"#);
        assert_eq!(known(&mut pods).await[0].uid, "u");
        // A broken list changes nothing; the next good one does.
        write("{");
        write(r#"{"pods":[]}"#);
        pods.changed().await.unwrap();
        assert_eq!(*pods.borrow_and_update(), Some(Vec::new()));
    }
}
