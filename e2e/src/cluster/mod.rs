//! A real Kubernetes cluster in namespaces of its own; see `e2e/cluster/README.md`.
//!
//! | file | question |
//! |---|---|
//! | `programs` | where are etcd, kubelet and all the others? |
//! | [`machine`] | namespaces and a file system of its own, and what runs in it |
//! | [`network`] | addresses, and the wires between machines |
//! | `keys` | the cluster's certificate authority, and who everybody is by it |
//! | `control` | the machine of the control plane |
//! | `node` | containerd, kubelet and kube-proxy on a machine |
//! | `door` | how clients of this machine reach the API server |
//! | [`image`] | the image of the mesh's own programs |
//! | [`shell`] | a cluster for a person to look at |
//! | [`traces`] | what is left of clusters that were killed |
mod control;
mod door;
pub mod image;
mod keys;
pub mod machine;
pub mod network;
mod node;
mod programs;
pub mod shell;
pub mod traces;

use crate::command::{self, Output};
use crate::harness::REPORT;
use crate::process::{self, Process};
use crate::until::until_within;
use anyhow::{Context, Result, ensure};
use door::Door;
use keys::Keys;
use machine::Machine;
use programs::Programs;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

pub use control::SERVICES;
pub use node::ProxyMode;
pub use programs::FOLDER;

/// The nodes of every cluster.
pub const NODES: [&str; 2] = ["node1", "node2"];
const DNS: &str = include_str!("../../cluster/dns.yaml");
/// How long each step of the start may take, on a machine that is busy.
const START: Duration = Duration::from_secs(120);
/// How long a call of `kubectl` may take.
const CALL: Duration = Duration::from_secs(150);

/// A cluster that runs. Dropped, it is gone.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they end.
    _door: Door,
    nodes: Vec<Machine>,
    control: Machine,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    proxy: ProxyMode,
    files: TempDir,
}

impl Cluster {
    /// Starts a cluster and returns once its nodes are Ready and its DNS answers.
    ///
    /// # Errors
    /// It does not become ready in time; or [`crate::skip`], if the machine lacks what a cluster needs.
    pub fn start() -> Result<Self> {
        Self::start_with(ProxyMode::Nftables)
    }

    /// [`Cluster::start`], with the way in which kube-proxy leads to services.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_with(proxy: ProxyMode) -> Result<Self> {
        let programs = Programs::find()?;
        traces::sweep()?;
        let files = tempfile::Builder::new().prefix(&traces::prefix()).tempdir().context("cannot make a folder")?;
        let keys = Keys::new(files.path())?;
        control::issue(&keys)?;
        let start = |name: &str| Machine::start(name, programs.folder(), files.path());
        let control = start("control")?;
        network::lay(&control)?;
        control::start_etcd(&control)?;
        control::start_api_server(&control)?;
        let door = Door::open(control.netns()?, (network::CONTROL, control::PORT).into())?;
        let server = door.address().to_string();
        let kubeconfig = keys.kubeconfig("outside", "admin", &keys.folder().display().to_string(), &server)?;
        let kubectl = programs.program("kubectl").context("there was a kubectl")?;
        let mut cluster = Cluster { _door: door, nodes: Vec::new(), control, kubeconfig, kubectl, proxy, files };
        let ready = cluster.add_nodes(&keys, &programs);
        match ready {
            Ok(()) => Ok(cluster),
            Err(e) => Err(e.context(cluster.report())),
        }
    }

    fn add_nodes(&mut self, keys: &Keys, programs: &Programs) -> Result<()> {
        for (number, name) in (1..).zip(NODES) {
            node::issue(keys, name, number)?;
            let machine = Machine::start(name, programs.folder(), self.files.path())?;
            let others: Vec<(u8, &Machine)> = (1..).zip(&self.nodes).collect();
            network::connect(&self.control, &machine, number, &others)?;
            self.nodes.push(machine);
        }
        for (number, machine) in (1..).zip(&self.nodes) {
            node::start_runtime(machine, number, programs)?;
        }
        until_within(START, "the API server is ready", || self.kubectl(&["get", "--raw=/readyz"])?.good())?;
        control::start_controllers(&self.control)?;
        for (number, machine) in (1..).zip(&self.nodes) {
            self.apply(&node::object(machine.name(), number).to_string())?;
            node::start_kubelet(machine, number)?;
            node::start_proxy(machine, self.proxy)?;
        }
        self.apply(DNS)?;
        until_within(START, "the nodes are Ready", || {
            let ready = self.kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s"])?.good()?;
            ensure!(ready.lines().count() == NODES.len(), "{ready}");
            // No pod is admitted in a namespace before.
            self.kubectl(&["get", "serviceaccount", "default"])?.good()
        })?;
        let dns = ["rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=120s"];
        self.kubectl(&dns)?.good().map(drop)
    }

    /// Its name: of its folder and of its control groups.
    pub fn name(&self) -> &str {
        self.files.path().file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// For clients of this machine, as administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The machine of the control plane; the bridge between nodes is there.
    pub fn control(&self) -> &Machine {
        &self.control
    }

    /// A node's machine.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn node(&self, name: &str) -> Result<&Machine> {
        self.nodes.iter().find(|node| node.name() == name).with_context(|| format!("there is no node {name}"))
    }

    /// A folder that goes with the cluster, which machines see as `/kit/files`.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// Gives all nodes the image of an archive (`scripts/image`).
    ///
    /// # Errors
    /// A node does not take it.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let copy = tempfile::NamedTempFile::new_in(self.files.path())?;
        std::fs::copy(archive, copy.path()).with_context(|| format!("cannot read {}", archive.display()))?;
        let inside = format!("/kit/files/{}", copy.path().file_name().unwrap_or_default().display());
        self.nodes.iter().try_for_each(|node| node::import(node, &inside))
    }

    /// Gives all nodes the image of the program under test, [`image::AMBIT`].
    ///
    /// # Errors
    /// It cannot be made, or a node does not take it.
    pub fn import_ambit(&self) -> Result<()> {
        self.import(&image::ambit(self.files())?)
    }

    /// Runs `kubectl`, as administrator, on this machine.
    ///
    /// # Errors
    /// It cannot be started, or takes too long.
    pub fn kubectl(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.kubectl);
        command.args(args).env("KUBECONFIG", &self.kubeconfig);
        // Nothing of it in anybody's home.
        command.env("KUBECACHEDIR", self.files.path().join("cache")).env("KUBERC", "off");
        command::run(&mut command, CALL)
    }

    /// Applies objects, by server-side apply.
    ///
    /// # Errors
    /// The API server refuses one.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.files.path())?;
        std::io::Write::write_all(&mut file, yaml.as_bytes())?;
        let path = file.path().to_str().context("a path that is no text")?;
        self.kubectl(&["apply", "--server-side", "-f", path])?.good().map(drop)
    }

    /// An object.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Result<Value> {
        let said = self.kubectl(&["get", kind, name, "-n", namespace, "-o", "json"])?.good()?;
        serde_json::from_str(&said).with_context(|| format!("kubectl said: {said}"))
    }

    /// The network namespace of a pod.
    ///
    /// # Errors
    /// It does not run.
    pub fn pod_netns(&self, namespace: &str, name: &str) -> Result<File> {
        let processes = self.pod_processes(namespace, name)?;
        let process = processes.first().with_context(|| format!("nothing of {namespace}/{name} runs"))?;
        File::open(format!("/proc/{}/ns/net", process.pid)).context("its process is gone")
    }

    /// What runs of a pod, as this machine counts; `pause` is what keeps its namespaces.
    ///
    /// # Errors
    /// There is none of this name, or it is on no node.
    pub fn pod_processes(&self, namespace: &str, name: &str) -> Result<Vec<Process>> {
        let pod = self.get(namespace, "pod", name)?;
        let node = pod["spec"]["nodeName"].as_str().context("it is on no node yet")?;
        self.processes_of_pod(node, pod["metadata"]["uid"].as_str().context("a pod has a uid")?)
    }

    /// [`Self::pod_processes`], by its UID: no API server is asked.
    ///
    /// # Errors
    /// There is no such node.
    pub fn processes_of_pod(&self, node: &str, uid: &str) -> Result<Vec<Process>> {
        let group = format!("/pod{uid}/");
        let within =
            |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|g| g.contains(&group));
        Ok(process::descendants(self.node(node)?.init()).into_iter().filter(|p| within(p.pid)).collect())
    }

    /// Kills the API server. What it knows stays in etcd.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop_api_server(&self) -> Result<()> {
        self.control.kill("kube-apiserver")
    }

    /// Starts the API server that was stopped, and waits for it.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start_api_server(&self) -> Result<()> {
        control::start_api_server(&self.control)?;
        until_within(START, "the API server is ready", || self.kubectl(&["get", "--raw=/readyz"])?.good()).map(drop)
    }

    /// Takes a node's power away and gives it back: what is on its disk stays, and nothing else does.
    ///
    /// # Errors
    /// It does not come back.
    pub fn reboot(&self, name: &str) -> Result<()> {
        let (number, machine) =
            (1..).zip(&self.nodes).find(|(_, node)| node.name() == name).context("there is no such node")?;
        node::lose_power(machine)?;
        node::start_again(machine, number, self.proxy)
    }

    /// What there is to know when something went wrong: the objects that matter and the ends of logs.
    pub fn report(&self) -> String {
        let mut report = format!("{REPORT}cluster in {}\n", self.files.path().display());
        for asked in
            [["get", "nodes,pods", "-A", "-o", "wide"], ["get", "events", "-A", "--sort-by=.lastTimestamp", ""]]
        {
            let said = self.kubectl(&asked).map_or_else(|e| format!("{e:#}"), |said| said.stdout + &said.stderr);
            let _ = writeln!(report, "--- kubectl {}\n{}", asked.join(" "), end_of(&said));
        }
        for machine in std::iter::once(&self.control).chain(&self.nodes) {
            let logs = std::fs::read_dir(machine.file("/var/log")).into_iter().flatten().flatten();
            for log in logs.filter(|log| log.path().extension().is_some_and(|ending| ending == "log")) {
                let text = std::fs::read(log.path()).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                let _ = writeln!(report, "--- {} {}\n{}", machine.name(), log.file_name().display(), end_of(&text));
            }
        }
        report
    }
}

/// The last lines of a text.
fn end_of(text: &str) -> String {
    const LINES: usize = 15;
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
