//! The pods of this node: handed over by the node agent, served by every worker. The only writer of that list.
//!
//! A conversation with the agent begins with a snapshot; what it did not name is no longer served when it ends. The
//! loss of the agent stops no pod.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_handoff::{Request, ZtunnelEnd, ztunnel_end};
use mesh_model::pod::PodInfo;
use mesh_runtime::backoff::{Backoff, LONGEST};
use mesh_runtime::drain;
use mesh_runtime::readiness::Part;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::Config;
use crate::listeners::{self, ListenerKind, Wanted};
use crate::metrics::PodMetrics;
use crate::sockets::{Netns, SocketSettings};
use crate::worker::{Command, Handle, Served};

/// A pod whose listeners could not be made is tried again this often.
const RETRY: Duration = Duration::from_secs(5);
/// So long a pod that is not served makes ztunnel unready: three more attempts.
const PATIENCE: Duration = Duration::from_secs(15);

/// The pods of this node.
pub(crate) struct Pods {
    workers: Vec<tokio::sync::mpsc::UnboundedSender<Command>>,
    config: Config,
    sockets: Arc<SocketSettings>,
    kinds: Vec<ListenerKind>,
    metrics: PodMetrics,
    drain: drain::Watch,
    serving: HashMap<Arc<str>, Serving>,
    /// Handed over, but not served: why, and when it is tried again.
    pending: BTreeMap<Arc<str>, Pending>,
    /// Named by the snapshot under way.
    named: HashSet<Arc<str>>,
    /// For the admin dump.
    list: List,
}

/// What is served now, for the admin dump.
pub(crate) type List = Arc<Mutex<BTreeMap<Arc<str>, Arc<PodInfo>>>>;

struct Serving {
    info: Arc<PodInfo>,
    netns: Netns,
}

struct Pending {
    info: Arc<PodInfo>,
    netns: Netns,
    error: String,
    why: &'static str,
    retry: Instant,
    since: Instant,
}

impl Pods {
    pub(crate) fn new(workers: &[Handle], config: Config, metrics: PodMetrics, drain: drain::Watch) -> Self {
        Self {
            workers: workers.iter().map(|w| w.commands.clone()).collect(),
            sockets: Arc::new(config.sockets.clone()),
            kinds: listeners::kinds(&config),
            config,
            metrics,
            drain,
            serving: HashMap::new(),
            pending: BTreeMap::new(),
            named: HashSet::new(),
            list: List::default(),
        }
    }

    pub(crate) fn list(&self) -> List {
        self.list.clone()
    }

    /// Follows the agent for as long as the process lives; while it drains, only to hear which pods are gone. However a
    /// conversation ends, the pods stay served and another one begins: its snapshot says which there are.
    pub(crate) async fn follow(mut self, ready: Part) -> Infallible {
        let mut waits = Waits::default();
        loop {
            if self.drain.has_started() {
                // A conversation that begins now would make this ztunnel the newest, and new pods would come here.
                std::future::pending::<()>().await;
            }
            let mut agent = match ZtunnelEnd::connect(&self.config.agent_socket).await {
                Ok(agent) => agent,
                Err(error) => {
                    ready.not_ready(error.to_string());
                    tracing::debug!(%error, "waiting for the node agent");
                    sleep(waits.absent.next_wait()).await;
                    continue;
                }
            };
            tracing::info!(socket = %self.config.agent_socket.display(), "connected to the node agent");
            self.named.clear();
            let began = Instant::now();
            let mut snapshot_sent = false;
            let error = self.converse(&mut agent, &ready, &mut snapshot_sent).await;
            ready.not_ready(error.to_string());
            let what = match &error {
                ztunnel_end::Error::Violation(_) | ztunnel_end::Error::Unreadable(_) => {
                    "the node agent was not understood, and is asked again; the pods it named stay served"
                }
                _ => "the node agent is gone; the pods it named stay served",
            };
            tracing::warn!(%error, "{what}");
            sleep(waits.after(&error, snapshot_sent, began.elapsed())).await;
        }
    }

    async fn converse(&mut self, agent: &mut ZtunnelEnd, ready: &Part, snapshot_sent: &mut bool) -> ztunnel_end::Error {
        loop {
            let retry = self.pending.values().map(|p| p.retry).min();
            let request = tokio::select! {
                request = agent.next() => request,
                () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => {
                    self.retry_pending();
                    self.say_ready(ready, *snapshot_sent);
                    continue;
                }
            };
            let outcome = match request {
                Err(error) => return error,
                Ok(Request::Add { uid, pod, netns }) => self.add(uid.into(), pod, netns),
                Ok(Request::Keep { uid }) => {
                    self.named.insert(uid.into());
                    Ok(())
                }
                Ok(Request::Del { uid }) => {
                    self.named.remove(&*uid);
                    self.remove(&uid, "the node agent took it back");
                    Ok(())
                }
                Ok(Request::SnapshotSent) => {
                    self.reconcile();
                    *snapshot_sent = true;
                    Ok(())
                }
            };
            self.say_ready(ready, *snapshot_sent);
            if let Err(error) = agent.ack(outcome).await {
                return error;
            }
        }
    }

    fn add(&mut self, uid: Arc<str>, info: PodInfo, netns: OwnedFd) -> Result<(), String> {
        self.named.insert(uid.clone());
        let netns = Netns::new(netns).map_err(|e| format!("network namespace of {info}: {e}"))?;
        if let Some(serving) = self.serving.get(&uid) {
            if serving.netns.id == netns.id && *serving.info == info {
                return Ok(());
            }
            self.remove(&uid, "it has another network namespace now");
        }
        // The agent tries again, too: that does not make the trouble younger.
        let before = self.pending.remove(&uid).filter(|pending| pending.netns.id == netns.id);
        let since = before.map_or_else(Instant::now, |pending| pending.since);
        if self.drain.has_started() {
            return Err("this ztunnel is draining; hand the pod to its successor".to_owned());
        }
        let info = Arc::new(info);
        let result = self.serve(uid.clone(), info.clone(), netns.clone());
        result.map_err(|e| {
            let error = format!("cannot listen in pod {info}: {e}");
            tracing::error!(%error, "pod is not served; it is tried again");
            let why = reason(&e);
            let retry = Instant::now() + RETRY;
            self.pending.insert(uid, Pending { info, netns, error: error.clone(), why, retry, since });
            self.count_pending();
            error
        })
    }

    fn count_pending(&mut self) {
        self.metrics.pending.set(self.pending.len() as i64);
        let lines = self.pending.values().map(|p| (&*p.info.namespace, &*p.info.name, p.why));
        self.metrics.not_served.set(lines);
    }

    fn serve(&mut self, uid: Arc<str>, info: Arc<PodInfo>, netns: Netns) -> io::Result<()> {
        let wanted = Wanted {
            kinds: &self.kinds,
            // By one worker each, all pods by all of them.
            dns: self.config.dns.as_ref().map(|dns| (dns.address, self.metrics.started.get() as usize)),
        };
        let listeners = listeners::open(&netns, &wanted, self.workers.len(), &self.sockets)?;
        for (worker, listeners) in self.workers.iter().zip(listeners) {
            let (uid, info, netns, sockets) = (uid.clone(), info.clone(), netns.clone(), self.sockets.clone());
            let served = Served { uid, info, netns, listeners, sockets, only: None };
            // A worker ends only with the process.
            let _ = worker.send(Command::Serve(served));
        }
        tracing::info!(pod = %info, %uid, "serving pod");
        self.metrics.started.inc();
        lock(&self.list).insert(uid.clone(), info.clone());
        self.serving.insert(uid, Serving { info, netns });
        self.metrics.active.set(self.serving.len() as i64);
        Ok(())
    }

    fn remove(&mut self, uid: &str, why: &str) {
        if self.pending.remove(uid).is_some() {
            self.count_pending();
        }
        let Some(serving) = self.serving.remove(uid) else { return };
        for worker in &self.workers {
            let _ = worker.send(Command::Stop(uid.into()));
        }
        tracing::info!(pod = %serving.info, %uid, why, "no longer serving pod");
        self.metrics.stopped.inc();
        self.metrics.active.set(self.serving.len() as i64);
        lock(&self.list).remove(uid);
    }

    /// The snapshot is complete: what it did not name is gone.
    fn reconcile(&mut self) {
        let all = self.serving.keys().chain(self.pending.keys());
        let gone: Vec<Arc<str>> = all.filter(|uid| !self.named.contains(*uid)).cloned().collect();
        for uid in gone {
            self.remove(&uid, "it is not in the node agent's snapshot");
        }
    }

    fn retry_pending(&mut self) {
        let now = Instant::now();
        if self.drain.has_started() {
            self.pending.clear();
        }
        let due: Vec<Arc<str>> =
            self.pending.iter().filter(|(_, p)| p.retry <= now).map(|(uid, _)| uid.clone()).collect();
        for uid in due {
            let Some(pending) = self.pending.remove(&uid) else { continue };
            let result = self.serve(uid.clone(), pending.info.clone(), pending.netns.clone());
            if let Err(e) = result {
                let error = format!("cannot listen in pod {}: {e}", pending.info);
                self.pending.insert(uid, Pending { error, why: reason(&e), retry: now + RETRY, ..pending });
            }
        }
        self.count_pending();
    }

    fn say_ready(&self, ready: &Part, snapshot_sent: bool) {
        let detail = pods_not_served(self.pending.values().map(|p| (&*p.info, &*p.error)));
        match readiness(snapshot_sent, detail, self.pending.values().map(|p| p.since.elapsed()).min()) {
            PodsReadiness::Ready => ready.ready(),
            PodsReadiness::ReadyBut(what) => ready.ready_but(what),
            PodsReadiness::NotReady(why) => ready.not_ready(why),
        }
    }
}

/// How long is waited before the agent is dialled again.
#[derive(Debug, Default)]
struct Waits {
    /// It could not be reached, or went away.
    absent: Backoff,
    /// It was not understood. As often as it is asked, it says the same: what it said before the fault is no progress.
    broken: Backoff,
}

impl Waits {
    /// The wait after a conversation that took `lasted` and ended with `error`.
    fn after(&mut self, error: &ztunnel_end::Error, snapshot_sent: bool, lasted: Duration) -> Duration {
        if snapshot_sent {
            self.absent.reset();
        }
        let not_understood = matches!(error, ztunnel_end::Error::Violation(_) | ztunnel_end::Error::Unreadable(_));
        if lasted >= LONGEST || (snapshot_sent && !not_understood) {
            self.broken.reset();
        }
        if not_understood { self.broken.next_wait() } else { self.absent.next_wait() }
    }
}

/// Serves pods once the tables are `complete`, and none before: what is not known yet must not pass for what does not
/// exist.
pub(crate) async fn once_complete<T>(mut complete: watch::Receiver<bool>, serve: impl Future<Output = T>) -> T {
    if complete.wait_for(|complete| *complete).await.is_err() {
        // Only at the end of the process: the writer lives in a task of its own.
        std::future::pending::<()>().await;
    }
    serve.await
}

/// The word in metrics for why a pod cannot be listened in.
fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "port_in_use",
        io::ErrorKind::PermissionDenied => "not_permitted",
        io::ErrorKind::InvalidInput => "no_namespace",
        _ => "cannot_listen",
    }
}

/// Whether this node's pods let ztunnel be ready.
#[derive(Debug, PartialEq, Eq)]
enum PodsReadiness {
    Ready,
    ReadyBut(String),
    NotReady(String),
}

/// `pending` says which pods are not served, `youngest` since when the last of them is not. As with Istio's ztunnel
/// they make it unready (contract 2.5), but only for a while: a pod that cannot be helped must not hold up an upgrade,
/// and with it all others.
fn readiness(snapshot_sent: bool, pending: Option<String>, youngest: Option<Duration>) -> PodsReadiness {
    match pending {
        _ if !snapshot_sent => PodsReadiness::NotReady("waiting for the node agent's snapshot".to_owned()),
        None => PodsReadiness::Ready,
        Some(text) if youngest.is_some_and(|age| age >= PATIENCE) => PodsReadiness::ReadyBut(text),
        Some(text) => PodsReadiness::NotReady(text),
    }
}

/// Most pods that a readiness detail names.
const NAMED: usize = 10;

/// Names the pods that were handed over and are not served, the first ones, and says why the first is not: a pod must
/// never be outside the mesh in silence.
fn pods_not_served<'a>(mut pending: impl Iterator<Item = (&'a PodInfo, &'a str)> + Clone) -> Option<String> {
    let all = pending.clone();
    let (_, error) = pending.next()?;
    let names: Vec<String> = all.clone().take(NAMED).map(|(pod, _)| pod.to_string()).collect();
    let count = all.count();
    let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
    Some(format!("{count} pods not served: {}{more}; the first because {error}", names.join(", ")))
}

/// A panic while it was held cannot leave a map half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
