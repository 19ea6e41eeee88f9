//! The threads that move bytes, and do nothing else. Each owns its connections: no task ever changes threads.
//!
//! Every pod has listeners on every worker; the kernel spreads connections over them (`SO_REUSEPORT`).

mod described;
mod served;
mod tasks;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_handoff::PodInfo;
use mesh_hbone::pool::Pool;
use mesh_hbone::unfinished;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_local;

use crate::connections::{Connections, Listed};
use crate::dialler::Dialler;
use crate::judge::judge_open;
use crate::listeners::{Door, Listeners};
use crate::quota::PodQuota;
use crate::shared::Shared;
use crate::sockets::{Netns, SocketSettings};
use crate::{dns, door, inbound, outbound};
use described::Described;
use served::Pods;
use tasks::Tasks;

/// How often connections that nobody uses, and those that have just been dialled, are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Tasks that have their turn before the thread looks for events again. A turn takes microseconds, and at most a fraction of a
/// millisecond; looking takes one.
const TASKS: u32 = 16;
/// A busy cluster changes all the time; looking once for many changes is enough.
const SETTLE: Duration = Duration::from_millis(100);

/// What a worker is told.
pub(crate) enum Command {
    /// Serve a pod on these listeners.
    Serve(Served),
    /// Stop serving a pod at once: close its listeners and its connections.
    Stop(Arc<str>),
    /// Say what is open.
    List(oneshot::Sender<Listed>),
    /// End, with whatever is open: the process does.
    End,
}

/// A pod to serve.
pub(crate) struct Served {
    /// Kubernetes pod UID.
    pub(crate) uid: Arc<str>,
    pub(crate) info: Arc<PodInfo>,
    pub(crate) netns: Netns,
    pub(crate) listeners: Listeners,
    /// How sockets are made there.
    pub(crate) sockets: Arc<SocketSettings>,
    /// The one port that tunnels may ask for; `None` is any.
    pub(crate) only: Option<u16>,
}

/// A pod as a worker's connections see it.
pub(crate) struct Pod {
    pub(crate) info: Arc<PodInfo>,
    pub(crate) dialler: Dialler,
    pub(crate) sockets: Arc<SocketSettings>,
    pub(crate) only: Option<u16>,
    pub(crate) pool: Pool,
    pub(crate) quota: PodQuota,
    pub(crate) dns: Rc<dns::PodDns>,
    described: Described,
    tasks: Rc<Tasks>,
    stop: watch::Sender<bool>,
    /// The control plane has told of it.
    known: Cell<bool>,
    /// The control plane tells of it no more.
    leaving: watch::Sender<bool>,
}

impl Pod {
    /// Resolves when callers should open no more tunnels to the pod here: it terminates, or ztunnel does.
    pub(crate) fn sends_callers_away(&self, drain: &mesh_runtime::drain::Watch) -> impl Future<Output = ()> + use<> {
        let (drain, mut leaving) = (drain.clone(), self.leaving.subscribe());
        async move {
            tokio::select! {
                () = drain.started() => {}
                // An error means that the pod is not served any more.
                _ = leaving.wait_for(|leaving| *leaving) => {}
            }
        }
    }

    /// The baggage of its workload.
    pub(crate) fn baggage(&self, workload: &Arc<Workload>) -> Rc<str> {
        self.described.baggage(workload)
    }

    /// Compares with the tables: connections to workloads that are gone serve no new tunnel, whoever has their
    /// addresses now; and a pod that is gone from them terminates.
    fn follow(&self, tables: &Tables) {
        self.pool.retain(|key| tables.workload(&key.workload).is_some());
        let info = &self.info;
        let known = tables.workload_of_pod(&info.namespace, &info.name, &info.service_account).is_some();
        let leaving = self.known.replace(self.known.get() || known) && !known;
        self.leaving.send_if_modified(|now| std::mem::replace(now, leaving) != leaving);
    }
}

/// One worker's own things.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connections: Connections,
    pods: RefCell<Pods>,
}

/// A running worker.
pub(crate) struct Handle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    thread: std::thread::JoinHandle<()>,
}

impl Handle {
    /// Ends the worker, with whatever is still open on it, and waits for its thread.
    pub(crate) fn join(self) {
        // One that has ended already does not listen.
        let _ = self.commands.send(Command::End);
        if self.thread.join().is_err() {
            tracing::error!("a worker thread had panicked");
        }
    }
}

/// Starts a worker thread.
///
/// # Errors
/// When the system has no thread or event queue left.
pub(crate) fn start(number: usize, shared: Arc<Shared>) -> io::Result<Handle> {
    let (commands, receiver) = mpsc::unbounded_channel();
    let (made, told) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("data-{number}")).spawn(move || {
        // It never leaves its thread, so it is made there.
        let mut builder = Builder::new_current_thread();
        let runtime = match builder.enable_all().event_interval(TASKS).build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(made.send(error)),
        };
        drop(made);
        runtime.block_on(run(shared, receiver));
    })?;
    match told.recv() {
        Ok(error) => Err(error),
        Err(_made) => Ok(Handle { commands, thread }),
    }
}

async fn run(shared: Arc<Shared>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let worker = Rc::new(Worker { shared, connections: Connections::default(), pods: RefCell::default() });
    spawn_local(watch_policies(worker.clone()));
    spawn_local(sweep(worker.clone()));
    spawn_local(follow_tables(worker.clone()));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Serve(served) => worker.serve(served),
            Command::Stop(uid) => worker.stop(&uid),
            Command::List(answer) => drop(answer.send(worker.connections.list())),
            Command::End => return,
        }
    }
}

impl Worker {
    fn serve(self: &Rc<Self>, served: Served) {
        self.stop(&served.uid);
        let (stop, _) = watch::channel(false);
        let pool = Pool::new(self.shared.config.hbone.clone());
        let quota = self.shared.quota.pod(&served.uid);
        let dns = Rc::new(dns::PodDns::new(served.info.clone(), served.netns.clone()));
        let (known, leaving) = (Cell::new(false), watch::Sender::new(false));
        let Served { uid, info, netns, listeners, sockets, only } = served;
        let pod = Rc::new(Pod {
            info,
            dialler: Dialler::new(netns),
            sockets,
            only,
            pool,
            quota,
            dns,
            described: Described::default(),
            tasks: Rc::default(),
            stop,
            known,
            leaving,
        });
        self.shared.tables.read(|tables| pod.follow(tables));
        self.pods.borrow_mut().insert(uid, pod.clone());
        let Listeners { doors, dns, migrate } = listeners;
        for (door, listener) in doors {
            match door {
                Door::Outbound => self.listen(&pod, listener, migrate, outbound::serve),
                Door::Plaintext => self.listen(&pod, listener, migrate, inbound::plaintext::serve),
                Door::Hbone => self.listen(&pod, listener, migrate, inbound::serve),
                Door::Socks => self.listen(&pod, listener, migrate, outbound::socks::serve),
            }
        }
        let dns = dns.map_or_else(Default::default, |dns| (dns.udp, dns.tcp));
        for socket in dns.0 {
            let (serve, stopped) = (dns::udp(self.clone(), pod.clone(), socket), stopped(pod.stop.subscribe()));
            spawn_local(async move {
                tokio::select! {
                    () = serve => {}
                    () = stopped => {}
                }
            });
        }
        for tcp in dns.1 {
            self.listen(&pod, tcp, migrate, dns::tcp);
        }
    }

    /// The pod of that name, if this worker serves it.
    pub(crate) fn pod(&self, name: &str, namespace: &str, account: &str) -> Option<Rc<Pod>> {
        let is = |info: &PodInfo| info.namespace == namespace && info.service_account == account;
        self.pods.borrow().named(name).iter().find(|pod| is(&pod.info)).cloned()
    }

    fn stop(&self, uid: &str) {
        if let Some(pod) = self.pods.borrow_mut().remove(uid) {
            pod.stop.send_replace(true);
            pod.tasks.stop();
        }
    }

    /// Accepts on a listener until the pod stops or ztunnel drains; each connection is a task of its own, cut when the
    /// pod stops.
    fn listen<F>(
        self: &Rc<Self>,
        pod: &Rc<Pod>,
        listener: std::net::TcpListener,
        migrate: bool,
        serve: impl Fn(Rc<Self>, Rc<Pod>, TcpStream, SocketAddr) -> F + Copy + 'static,
    ) where
        F: Future<Output = ()> + 'static,
    {
        let (worker, pod) = (self.clone(), pod.clone());
        let door = self.shared.drain.door();
        spawn_local(async move {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!(pod = %pod.info, %error, "cannot listen"),
            };
            let start = |tcp: TcpStream, peer: SocketAddr| {
                let peer = mesh_model::address::canonical(peer);
                let connection = serve(worker.clone(), pod.clone(), tcp, peer);
                let token = worker.shared.drain.token();
                pod.tasks.spawn(connection, token);
            };
            let stopped = stopped(pod.stop.subscribe());
            let closing = worker.shared.drain.closing();
            tokio::pin!(stopped, closing);
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((tcp, peer)) => start(tcp, peer),
                        Err(error) => give_way(&pod, &error).await,
                    },
                    () = &mut stopped => return,
                    () = &mut closing => break,
                }
            }
            door::close(listener, migrate, start).await;
            drop(door);
        });
    }
}

impl Pod {
    /// For [`stopped`].
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }
}

/// Resolves when the pod is to stop, or is gone.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// After a failed accept: one connection's fault goes on at once, a shortage of descriptors waits for some to be
/// given back instead of spinning.
async fn give_way(pod: &Pod, error: &io::Error) {
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) {
        tracing::error!(pod = %pod.info, %error, "cannot accept: raise the limit of open files (ulimit -n)");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks the policies again about what is open, whenever they change.
async fn watch_policies(worker: Rc<Worker>) {
    let mut changed = worker.shared.tables.policies_changed();
    while changed.changed().await.is_ok() {
        worker.connections.judge_again(|pod, facts| judge_open(&worker.shared.tables, pod, facts)).await;
    }
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP);
    let (mut before, mut kept, mut shed) = (0, 0, 0);
    loop {
        ticks.tick().await;
        let mut pooled = 0;
        for pod in worker.pods.borrow().iter() {
            pod.pool.sweep();
            pod.dialler.sweep(&pod.sockets);
            pooled += pod.pool.connections() as i64;
        }
        // The gauges are the sums of all workers'.
        worker.shared.pooled.inc_by(pooled - std::mem::replace(&mut before, pooled));
        let metrics = &worker.shared.unfinished;
        let now = unfinished::held() as i64;
        metrics.held.inc_by(now - std::mem::replace(&mut kept, now));
        let now = unfinished::shed();
        metrics.shed.inc_by(now - std::mem::replace(&mut shed, now));
    }
}

/// Lets go of what the tables tell of no more.
async fn follow_tables(worker: Rc<Worker>) {
    let mut changed = worker.shared.tables.changed();
    while changed.changed().await.is_ok() {
        for pod in worker.pods.borrow().iter() {
            worker.shared.tables.read(|tables| pod.follow(tables));
        }
        tokio::time::sleep(SETTLE).await;
    }
}

#[cfg(test)]
mod tests;
