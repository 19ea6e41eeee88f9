//! Takes the taint `cni.istio.io/not-ready` from nodes once pods that start there are captured: for users whose nodes come with it, so
//! that nothing is scheduled there before. Nobody here ever taints a node.

mod decide;

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_kube::write::{self, WriteError};
use mesh_kube::{Client, Meta, Query, Resource, Watch};
use mesh_model::address::NamespacedName;
use mesh_runtime::backoff::Backoff;

use self::decide::{Known, Node, Pod, Verdict, Why};

const NODES: Resource = Resource::core("nodes");
const PODS: Resource = Resource::core("pods");
/// Labels of the pods of both DaemonSets, as in Istio's charts.
const AGENTS: &str = "k8s-app=istio-cni-node";
const ZTUNNELS: &str = "app=ztunnel";
/// Who owns what we write.
const MANAGER: &str = "istiod-lite";
/// Shortest and longest wait before what could not be written is tried again.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Where what a node needs is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The namespace of node agents.
    pub namespace: String,
    /// Service accounts of ztunnels.
    pub ztunnels: Vec<NamespacedName>,
}

/// Takes the taint from nodes that are ready, now and later. Never returns.
pub async fn keep(client: Client, settings: Settings) {
    let pods = |namespace: Option<String>, labels: &str| {
        let query = Query { namespace, labels: labels.to_owned(), ..Query::all(PODS) };
        Watch::new(client.clone(), query, |raw| (raw.meta, decide::pod(raw.text)))
    };
    let mut agent_events = pods(Some(settings.namespace.clone()), AGENTS);
    let mut ztunnel_events = pods(None, ZTUNNELS);
    let mut node_events = Watch::new(client.clone(), Query::all(NODES), |raw| (raw.meta, decide::node(raw.text)));
    let (mut agents, mut ztunnels, mut nodes) = (Known::<Pod>::default(), Known::<Pod>::default(), Known::default());
    let mut keeper = Keeper { client, settings, waits: BTreeMap::new(), backoff: Backoff::default() };
    loop {
        let wait = keeper.step(&nodes, &agents, &ztunnels).await;
        let ended = tokio::select! {
            event = node_events.next() => event.map(|event| nodes.hear(event)).is_none(),
            event = agent_events.next() => event.map(|event| agents.hear(event)).is_none(),
            event = ztunnel_events.next() => event.map(|event| ztunnels.hear(event)).is_none(),
            () = tokio::time::sleep(wait) => false,
        };
        if ended {
            return;
        }
    }
}

struct Keeper {
    client: Client,
    settings: Settings,
    /// Why nodes keep the taint, as the log has it.
    waits: BTreeMap<String, Why>,
    backoff: Backoff,
}

impl Keeper {
    /// Does what is due. Gives how long to wait if nothing changes.
    async fn step(&mut self, nodes: &Known<Node>, agents: &Known<Pod>, ztunnels: &Known<Pod>) -> Duration {
        let agents: Vec<&Pod> = agents.all().map(|(_, pod)| pod).collect();
        let is_trusted = |meta: &Meta, pod: &Pod| {
            self.settings
                .ztunnels
                .iter()
                .any(|account| *account == NamespacedName::new(&*meta.namespace, &*pod.account))
        };
        let trusted = ztunnels.all().filter(|(meta, pod)| is_trusted(meta, pod));
        let ztunnels: Vec<&Pod> = trusted.map(|(_, pod)| pod).collect();
        let (mut waits, mut failed) = (BTreeMap::new(), false);
        for (meta, node) in nodes.all() {
            match decide::verdict(&meta.name, node, &agents, &ztunnels) {
                Verdict::Untainted => {}
                Verdict::Wait(why) => {
                    if self.waits.get(&meta.name) != Some(&why) {
                        tracing::info!(node = meta.name, taint = decide::TAINT, "the node keeps its taint: {why}");
                    }
                    waits.insert(meta.name.clone(), why);
                }
                Verdict::Untaint(rest) => failed |= !self.untaint(meta, &rest).await,
            }
        }
        self.waits = waits;
        if failed {
            return self.backoff.next_wait().saturating_mul(10).clamp(WAITS.0, WAITS.1);
        }
        self.backoff.reset();
        Duration::MAX
    }

    /// False if it is to be tried again.
    async fn untaint(&self, meta: &Meta, rest: &[serde_json::Value]) -> bool {
        let (node, taint) = (&*meta.name, decide::TAINT);
        let patch = decide::patch(meta, rest);
        match write::merge(&self.client, NODES, ("", node), "", &patch, MANAGER).await {
            Ok(()) => {
                tracing::info!(node, taint, "the taint is removed: pods that start there are captured");
                true
            }
            // The watch has another state of it, or will have.
            Err(WriteError::Refused { code: 404 | 409, .. }) => true,
            Err(error) => {
                tracing::warn!(node, taint, %error, "the taint is not removed, and tried again (the right to patch nodes: taint.enabled of the chart)");
                false
            }
        }
    }
}
