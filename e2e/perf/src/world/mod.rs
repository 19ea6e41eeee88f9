//! Three pods on two nodes, and what carries their traffic.
//!
//! | file | question |
//! |---|---|
//! | `manifest` | the YAML of the pods (pure) |
//! | `bootstrap` | Envoy's configuration (pure) |
//! | `certificates` | what the Envoys prove themselves with |
//! | `child` | processes of ours, ended when we let go of them |
mod bootstrap;
pub(crate) mod certificates;
pub(crate) mod child;
mod manifest;

use crate::cases::Path;
use crate::processes;
use anyhow::{Context, Result, bail, ensure};
use child::Child;
use serde::Serialize;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

/// Longest wait for a world's pods.
const START: Duration = Duration::from_secs(60);

/// What carries the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Nothing: the pods talk to each other.
    Direct,
    /// The mesh: a ztunnel on each node.
    Ambit,
    /// Another build of the mesh, which it is compared with.
    Before,
    /// An Envoy beside each pod.
    Envoy,
}

impl Kind {
    /// Its pods are in a mesh of ours.
    pub(crate) fn is_mesh(self) -> bool {
        matches!(self, Kind::Ambit | Kind::Before)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Direct => "direct",
            Kind::Ambit => "ambit",
            Kind::Before => "before",
            Kind::Envoy => "envoy",
        })
    }
}

/// The programs worlds are made with.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// This one.
    pub(crate) own: PathBuf,
    /// Whatever is to be measured as Ambit.
    pub(crate) ambit: PathBuf,
    /// Another build of it.
    pub(crate) before: Option<PathBuf>,
    /// Whatever is to be measured as Envoy.
    pub(crate) envoy: Option<PathBuf>,
}

/// Worker threads of each Envoy: as many as ztunnel has when nobody says otherwise.
pub(crate) fn workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 4).max(2)
}

/// A pod that runs.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Its server's process id, as this machine counts.
    pub(crate) pid: u32,
    /// Its address.
    pub(crate) ip: IpAddr,
}

/// A world that runs; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) kind: Kind,
    /// Where the load runs.
    pub(crate) client: Pod,
    near: Pod,
    far: Pod,
    /// The processes that carry the traffic: for every path the same number of them handles a byte.
    proxies: Vec<Proxy>,
    /// In this order: proxies go before the machine they are in.
    _envoys: Vec<Child>,
    _up: Child,
    directory: PathBuf,
}

/// A process under test.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) pid: u32,
    /// Traffic between nodes passes through it.
    pub(crate) on_remote_path: bool,
}

impl World {
    /// Starts the pods and what belongs between them.
    /// Its files are made in `directory`.
    pub(crate) fn start(kind: Kind, programs: &Programs, directory: &FilePath) -> Result<Self> {
        let directory = directory.join(kind.to_string());
        let folder = directory.join("yaml");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("pods.yaml"), manifest::yaml(&programs.own, kind.is_mesh()))?;
        let name = format!("perf-{}-{kind}", std::process::id());
        let more: &[&str] = if kind.is_mesh() { &[] } else { &["--no-mesh"] };
        let ambit = match kind {
            Kind::Before => programs.before.as_ref().context("no other build of ambit was given")?,
            _ => &programs.ambit,
        };
        let (up, status) = up(&programs.own, ambit, &name, &directory, &folder, more)
            .with_context(|| format!("the pods of world `{kind}` did not start"))?;
        let tree = processes::descendants(up.id())?;
        let pod = |name| pod(&status, &tree, manifest::NAMESPACE, name);
        let (client, near, far) = (pod(manifest::CLIENT)?, pod(manifest::NEAR)?, pod(manifest::FAR)?);
        let mut world = World { kind, client, near, far, proxies: Vec::new(), _envoys: Vec::new(), _up: up, directory };
        match kind {
            Kind::Direct => {}
            Kind::Ambit | Kind::Before => {
                for pod in &status.pods {
                    ensure!(pod.mesh.state == "yes", "pod {} is not in the mesh: {}", pod.name, pod.mesh.reason);
                }
                let is_ztunnel = |words: &[String]| words.get(1).is_some_and(|word| word == "ztunnel");
                let found = tree.iter().filter(|(_, words)| is_ztunnel(words));
                world.proxies = found.map(|(pid, _)| Proxy { pid: *pid, on_remote_path: true }).collect();
                ensure!(world.proxies.len() == 2, "found {} ztunnels of two nodes", world.proxies.len());
            }
            Kind::Envoy => world.start_envoys(programs)?,
        }
        Ok(world)
    }

    /// The server at the end of a path.
    pub(crate) fn server(&self, path: Path) -> &Pod {
        match path {
            Path::Remote => &self.far,
            Path::Same => &self.near,
        }
    }

    /// The processes that carry the traffic.
    pub(crate) fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// What its programs wrote last, for an error.
    pub(crate) fn last_words(&self) -> String {
        last_words(&self.directory)
    }

    fn start_envoys(&mut self, programs: &Programs) -> Result<()> {
        let envoy = programs.envoy.as_ref().context("no Envoy was given")?;
        let directory = self.directory.as_path();
        let authority = certificates::Authority::new()?;
        let root = directory.join("root.pem");
        fs::write(&root, authority.root_pem())?;
        for (name, pod, on_remote_path) in [
            (manifest::CLIENT, &self.client, true),
            (manifest::NEAR, &self.near, false),
            (manifest::FAR, &self.far, true),
        ] {
            let files = bootstrap::Files {
                root: root.clone(),
                chain: directory.join(format!("{name}.pem")),
                key: directory.join(format!("{name}.key")),
            };
            let leaf = authority.leaf(&format!("spiffe://cluster.local/ns/{}/sa/{name}", manifest::NAMESPACE))?;
            fs::write(&files.chain, leaf.chain_pem)?;
            fs::write(&files.key, leaf.key_pem)?;
            let config = directory.join(format!("envoy-{name}.json"));
            fs::write(&config, serde_json::to_vec_pretty(&bootstrap::config(&files))?)?;
            let mut command = child::launch(&programs.own);
            command.args(["--pid", &pod.pid.to_string(), "--redirect", "--"]).arg(envoy).arg("-c").arg(config);
            command.args(["--concurrency", &workers().to_string(), "--disable-hot-restart", "-l", "warning"]);
            let envoy = Child::start(command, &log(directory, &format!("envoy-{name}")))?;
            self.proxies.push(Proxy { pid: envoy.id(), on_remote_path });
            self._envoys.push(envoy);
        }
        Ok(())
    }
}

/// Starts the machine of a world, with `more` arguments, and waits until its pods are ready.
pub(crate) fn up(
    own: &FilePath,
    ambit: &FilePath,
    name: &str,
    directory: &FilePath,
    folder: &FilePath,
    more: &[&str],
) -> Result<(Child, ambit::status::Status)> {
    let ready = directory.join("ready.json");
    let mut command = child::launch(own);
    command.arg("--").arg(ambit).args(["up", "--quiet", "--name", name, "-f"]);
    command.arg(folder).arg("--ready-file").arg(&ready).args(more);
    // Its programs' own reports would be work that no other world does.
    command.env_remove("RUST_LOG");
    let mut up = Child::start(command, &log(directory, "up"))?;
    let deadline = Instant::now() + START;
    loop {
        // It is written in one step, but an older ambit may not do so.
        if let Some(status) = fs::read(&ready).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return Ok((up, status));
        }
        if let Some(status) = up.ended()? {
            bail!("`ambit up` ended with {status}: {}", last_words(directory));
        }
        if Instant::now() > deadline {
            bail!("they were not ready after {START:?}: {}", last_words(directory));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A pod that runs `serve`.
pub(crate) fn pod(
    status: &ambit::status::Status,
    tree: &[(u32, Vec<String>)],
    namespace: &str,
    name: &str,
) -> Result<Pod> {
    let pod = status.pod(namespace, name).with_context(|| format!("there is no pod {name}"))?;
    let ip = *pod.ips.iter().find(|ip| ip.is_ipv4()).with_context(|| format!("pod {name} has no IPv4 address"))?;
    let serves = |words: &[String]| words.get(1..3) == Some(&["serve".to_owned(), name.to_owned()]);
    let (pid, _) =
        tree.iter().find(|(_, words)| serves(words)).with_context(|| format!("pod {name} has no server process"))?;
    Ok(Pod { pid: *pid, ip })
}

fn log(directory: &FilePath, name: &str) -> PathBuf {
    directory.join(format!("{name}.log"))
}

/// The end of every log that has one.
pub(crate) fn last_words(directory: &FilePath) -> String {
    const MOST: usize = 1500;
    let files = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut words = String::new();
    for file in files.filter(|f| f.extension().is_some_and(|e| e == "log")) {
        let text = fs::read(&file).unwrap_or_default();
        let end = String::from_utf8_lossy(&text[text.len().saturating_sub(MOST)..]).trim().to_owned();
        if !end.is_empty() {
            words += &format!("\n[{}] {end}", file.file_stem().unwrap_or_default().display());
        }
    }
    words
}
