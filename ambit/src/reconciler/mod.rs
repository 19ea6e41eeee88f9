//! What should run, what does, and bringing the two together.
//!
//! One task owns all of this and nothing else changes it. Everything that happens (an edit, a death, an answer) only
//! wakes it; it then looks at the whole and does what is missing.
//!
//! | file | question |
//! |---|---|
//! | `reading` | what does the folder say, without keeping anybody waiting? |
//! | `pod` | one pod: its sandbox, its life, its address |
//! | `service` | what would an API server have written into a Service? (pure) |
//! | `reconcile` | which pods and services start, change, stop? |
//! | `publish` | what do hosts files, nodes, agents and the control plane have to be told? |
//! | `report` | how is it all? |
//! | `serve` | questions from outside |
mod pod;
mod publish;
mod reading;
mod reconcile;
mod report;
mod serve;
mod service;

use crate::machine::MachineArgs;
use crate::manifest::{Folder, Key, Objects, Rejected};
use crate::mesh::held::ToldService;
use crate::mesh::overlay_files::OverlayFiles;
use crate::mesh::programs::{self, Programs};
use crate::net::addressing::ServicePool;
use crate::net::links::{self, Fabric};
use crate::net::services::Frontend;
use crate::node::Node;
use crate::run_dir::RunDir;
use crate::sys::children::Children;
use anyhow::{Context, Result};
use istiod_lite::held::Held;
use pod::RunningPod;
use reading::Reading;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

/// How long a mesh that starts waits for its folder.
const FIRST_LOOK: Duration = Duration::from_secs(30);

/// A running mesh, from inside: what its folder asks for, what there is of it, and everything by which that is changed.
pub(crate) struct Reconciler {
    run: RunDir,
    fabric: Fabric,
    nodes: Vec<Node>,
    folder: Reading<Folder, Option<(Objects, Vec<Rejected>)>>,
    folder_path: PathBuf,
    objects: Objects,
    rejected: Vec<Rejected>,
    /// Objects that are fine by themselves and still cannot be had here, and why.
    impossible: BTreeMap<Key, String>,
    generation: u64,
    pods: BTreeMap<Key, RunningPod>,
    service_pool: ServicePool,
    services: BTreeMap<Key, Vec<IpAddr>>,
    /// Services that the control plane was told of.
    told_services: BTreeMap<Key, ToldService>,
    /// What the control plane says everybody's tables hold.
    held: Held,
    /// By which the control plane is told of services, nodes and pods.
    overlay: [OverlayFiles; 3],
    /// The last version of any object that the control plane was told of.
    version: u64,
    /// What each node translates at the moment.
    translated: Option<Vec<Vec<Frontend>>>,
    next_node: usize,
    serial: u64,
    children: Arc<Children>,
    changed: Arc<Notify>,
    programs: Programs,
    ready_file: Option<PathBuf>,
    quiet: bool,
    was_ready: bool,
    /// Why something outside does not know the latest.
    out_of_date: Option<String>,
    /// Complaints that were printed at the terminal and that still hold.
    complaints: BTreeSet<String>,
}

/// A question from outside, waiting for its answer.
pub(crate) struct Question {
    pub(crate) ask: crate::control::Ask,
    pub(crate) answer: oneshot::Sender<(crate::control::Answer, Vec<OwnedFd>)>,
}

/// The events that the reconciler waits for.
pub(crate) struct Inputs {
    /// The folder changed.
    pub(crate) edits: Arc<Notify>,
    /// Questions from outside.
    pub(crate) questions: mpsc::Receiver<Question>,
    /// Resolves when the machine should end.
    pub(crate) end: oneshot::Receiver<()>,
}

impl Reconciler {
    /// Makes the network and starts the mesh's programs; no pods yet.
    pub(crate) async fn start(args: &MachineArgs, run: RunDir, children: Arc<Children>) -> Result<Self> {
        let own_netns: OwnedFd = File::open("/proc/thread-self/ns/net").context("cannot open our own network")?.into();
        let fabric = Fabric::make(own_netns, links::has_ipv6())?;
        let mut folder = Reading::new(Folder::new(args.folder.clone(), programs::waypoints(args, &run)), Folder::read);
        folder.look();
        // Nodes are made now or not at all; status says so of those that are read later.
        let (objects, rejected) = timeout(FIRST_LOOK, folder.done()).await.ok().flatten().unwrap_or_default();
        let changed = Arc::new(Notify::new());
        let mut names: Vec<String> = objects.nodes.keys().cloned().collect();
        if names.is_empty() {
            names = vec!["node1".into(), "node2".into()];
        }
        run.check_lengths(&names)?;
        let mut nodes = Vec::new();
        for (position, name) in names.iter().enumerate() {
            let k = u8::try_from(position + 1).ok().filter(|k| *k <= crate::net::addressing::MOST_NODES);
            let k = k.with_context(|| {
                format!("{} nodes are more than the {} that fit", names.len(), crate::net::addressing::MOST_NODES)
            })?;
            nodes
                .push(Node::make(&run, &fabric, name, k, &nodes).await.with_context(|| format!("making node {name}"))?);
        }
        let programs = Programs::start(args, &run, &fabric, &nodes, &children, &changed).await?;
        Ok(Reconciler {
            run,
            fabric,
            nodes,
            folder,
            folder_path: args.folder.clone(),
            objects,
            rejected,
            impossible: BTreeMap::new(),
            generation: 1,
            pods: BTreeMap::new(),
            service_pool: ServicePool::default(),
            services: BTreeMap::new(),
            told_services: BTreeMap::new(),
            held: Held::default(),
            overlay: ["services", "nodes", "pods"].map(OverlayFiles::new),
            version: 0,
            translated: None,
            next_node: 0,
            serial: 0,
            children,
            changed,
            programs,
            ready_file: args.ready_file.clone(),
            quiet: args.quiet,
            was_ready: false,
            out_of_date: None,
            complaints: BTreeSet::new(),
        })
    }

    /// What to notify when something outside of this task changed.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    /// The files by which node agents and the control plane answer.
    pub(crate) fn answers(&self) -> Vec<PathBuf> {
        self.nodes.iter().map(|n| self.run.enrolled_file(&n.name)).chain([self.run.acknowledged()]).collect()
    }

    /// Runs until told to end; then stops everything in order.
    pub(crate) async fn run(mut self, mut inputs: Inputs) -> Result<()> {
        loop {
            self.reconcile().await;
            // Kept at it: most of it is fine, and the next look tries again.
            self.out_of_date = self.publish().await.err().map(|e| format!("cannot bring everything up to date: {e:#}"));
            self.begin_lives();
            self.announce();
            tokio::select! {
                _ = &mut inputs.end => break,
                () = self.changed.notified() => {}
                () = inputs.edits.notified() => self.folder.look(),
                read = self.folder.done() => {
                    self.generation += 1;
                    if let Some((objects, rejected)) = read {
                        (self.objects, self.rejected) = (objects, rejected);
                        for rejected in &self.rejected {
                            tracing::warn!("{}: {}", rejected.position, rejected.told());
                        }
                    }
                }
                question = inputs.questions.recv() => {
                    let Some(question) = question else { break };
                    if matches!(question.ask, crate::control::Ask::Down) {
                        // The asker may have gone; the wish stands.
                        let _ = question.answer.send((crate::control::Answer::Done, Vec::new()));
                        break;
                    }
                    let answer = self.answer(&question.ask);
                    let _ = question.answer.send(answer);
                }
            }
        }
        self.end().await;
        Ok(())
    }

    async fn end(self) {
        const PATIENCE: Duration = Duration::from_secs(2);
        tracing::info!("ending");
        let lives: Vec<_> = self.pods.into_values().filter_map(|pod| pod.stop(PATIENCE)).collect();
        for life in lives {
            // A panic there is logged; the machine's end takes what is left.
            let _ = life.await;
        }
        self.programs.stop(PATIENCE).await;
    }

    /// A line for the person at the terminal.
    #[allow(clippy::print_stdout, reason = "this is what `ambit up` shows its user")]
    fn say(&self, line: &str) {
        if !self.quiet {
            println!("{line}");
        }
    }
}
