//! The mesh that is attacked, with a CA of the run's own.
use crate::processes;
use crate::wire::{ECHO_PORT, HTTP_PORT};
use crate::world::certificates::Authority;
use crate::world::child::Child;
use crate::world::{self, Pod};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the control plane of every mesh of `ambit up` is.
pub(super) const CONTROL_PLANE: &str = "https://172.30.0.1:15012";
/// The namespace of the good pods.
pub(super) const NAMESPACE: &str = "abuse";
/// Who calls.
pub(super) const CLIENT: &str = "client";
/// The attackers' certificates.
pub(super) const CHAIN: &str = "attacker.pem";
/// And their key.
pub(super) const KEY: &str = "attacker.key";

/// A mesh that runs; it ends when this is dropped.
pub(super) struct World {
    pub(super) client: Pod,
    pub(super) victim: Pod,
    pub(super) other: Pod,
    pub(super) attacker: Pod,
    /// Process of the ztunnel on the callers' node: whoever enters its network is on that node.
    pub(super) near_ztunnel: u32,
    /// Of the attacked node.
    ztunnel: u32,
    istiod: u32,
    /// What the control plane's certificate is checked with.
    pub(super) root: PathBuf,
    /// What a ztunnel proves itself with.
    pub(super) token: PathBuf,
    /// Files for the attackers.
    pub(super) files: PathBuf,
    directory: PathBuf,
    _up: Child,
}

/// Resident memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) ztunnel: f64,
    pub(crate) istiod: f64,
}

impl Memory {
    pub(super) fn most(self, other: Self) -> Self {
        Self { ztunnel: self.ztunnel.max(other.ztunnel), istiod: self.istiod.max(other.istiod) }
    }
}

impl World {
    /// `hold`: for so many seconds the server that does not read keeps a connection.
    pub(super) fn start(own: &Path, directory: &Path, hold: f64) -> Result<Self> {
        let (folder, files) = (directory.join("yaml"), directory.join("files"));
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(&files)?;
        let authority = Authority::new()?;
        for (name, text) in [
            ("ca-cert.pem", authority.root_pem()),
            ("root-cert.pem", authority.root_pem()),
            ("ca-key.pem", authority.key_pem()),
        ] {
            fs::write(files.join(name), text)?;
        }
        let leaf = authority.leaf(&format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/attacker"))?;
        fs::write(files.join(CHAIN), leaf.chain_pem)?;
        fs::write(files.join(KEY), leaf.key_pem)?;
        fs::write(folder.join("pods.yaml"), yaml(own, hold))?;
        let name = format!("abuse-{}", std::process::id());
        let plugged = format!("istiod-lite:PLUGGED_CA={}", files.display());
        let (up, status) = world::up(own, own, &name, directory, &folder, &["--set", &plugged])?;
        let tree = processes::descendants(up.id())?;
        let pod = |name| world::pod(&status, &tree, NAMESPACE, name);
        let program = |title: &str| {
            let found = tree.iter().find(|(_, words)| words.first().is_some_and(|word| word.ends_with(title)));
            found.map(|(pid, _)| *pid).with_context(|| format!("found no process {title}"))
        };
        let run = ambit::files_of(&name)?;
        let world = World {
            client: pod(CLIENT)?,
            victim: pod("victim")?,
            other: pod("other")?,
            attacker: world::pod(&status, &tree, "outside", "attacker")?,
            near_ztunnel: program("/ztunnel-node1")?,
            ztunnel: program("/ztunnel-node2")?,
            istiod: program("/istiod-lite")?,
            root: files.join("root-cert.pem"),
            token: run.join("nodes/node1/token"),
            files,
            directory: directory.to_owned(),
            _up: up,
        };
        ensure!(world.token.exists(), "there is no token at {}", world.token.display());
        Ok(world)
    }

    pub(super) fn echo(&self, pod: &Pod) -> SocketAddr {
        SocketAddr::new(pod.ip, ECHO_PORT)
    }

    /// What is held now.
    pub(super) fn memory(&self) -> Result<Memory> {
        let resident = |pid| anyhow::Ok(processes::memory(pid)?.resident);
        Ok(Memory { ztunnel: resident(self.ztunnel)?, istiod: resident(self.istiod)? })
    }

    pub(super) fn last_words(&self) -> String {
        world::last_words(&self.directory)
    }
}

fn yaml(own: &Path, hold: f64) -> String {
    let mut yaml = format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}, labels: {{istio.io/dataplane-mode: ambient}}}}}}\n\
         ---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: outside}}}}\n"
    );
    let pods = [
        (NAMESPACE, CLIENT, "node1"),
        (NAMESPACE, "victim", "node2"),
        (NAMESPACE, "other", "node2"),
        ("outside", "attacker", "node1"),
    ];
    for (namespace, name, node) in pods {
        yaml += &format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  serviceAccountName: {name}
  containers:
    - name: {name}
      command: [{own}, serve, {name}, --hold, '{hold}']
      readinessProbe: {{tcpSocket: {{port: {HTTP_PORT}}}, periodSeconds: 1}}
",
            // A JSON string is a YAML string, whatever is in it.
            own = serde_json::Value::from(own.to_string_lossy()),
        );
    }
    yaml
}
