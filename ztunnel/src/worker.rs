//! What a data thread of ztunnel does: it is told which pods to serve, and gives each connection to what serves it.
//!
//! Every pod has listeners on every worker; the kernel spreads connections over them (`SO_REUSEPORT`).

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_hbone::pool::Pool;
use mesh_model::pod::PodInfo;
use mesh_proxy::accept::accept;
use mesh_proxy::connections::{Connections, OpenConnections, follow_policies};
use mesh_proxy::data_thread::DataThread;
use mesh_proxy::local_pod::LocalPod;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use crate::carried::Carried;
use crate::context::WorkerContext;
use crate::listeners::{ListenerKind, Listeners};
use crate::pod::Pod;
use crate::serving::Worker;
use crate::sockets::{Netns, SocketSettings};
use crate::{dns, inbound, outbound};

/// How often connections that nobody uses, and those that have just been dialled, are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// A busy cluster changes all the time; looking once for many changes is enough.
const SETTLE: Duration = Duration::from_millis(100);

/// What a worker is told.
pub(crate) enum Command {
    /// Serve a pod on these listeners.
    Serve(Served),
    /// Stop serving a pod at once: close its listeners and its connections.
    Stop(Arc<str>),
    /// Say what is open.
    List(oneshot::Sender<OpenConnections>),
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

/// A running worker.
pub(crate) type Handle = DataThread<Command>;

/// Starts a worker thread.
///
/// # Errors
/// When the system has no thread or event queue left.
pub(crate) fn start(number: usize, context: Arc<WorkerContext>) -> io::Result<Handle> {
    DataThread::start(number, move |commands| run(context, commands))
}

async fn run(context: Arc<WorkerContext>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let worker = Rc::new(Worker {
        context,
        connections: Connections::default(),
        carried: Carried::default(),
        pods: RefCell::default(),
    });
    spawn_local(follow_policies(worker.connections.clone(), worker.context.proxy.tables.clone()));
    spawn_local(sweep(worker.clone()));
    spawn_local(follow_tables(worker.clone()));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Serve(served) => serve(&worker, served),
            Command::Stop(uid) => stop(&worker, &uid),
            Command::List(answer) => drop(answer.send(worker.connections.list())),
        }
    }
}

/// Serves a pod, in the place of one of the same uid.
fn serve(worker: &Rc<Worker>, served: Served) {
    stop(worker, &served.uid);
    let Served { uid, info, netns, listeners, sockets, only } = served;
    let (pool, quota) = (Pool::new(worker.context.proxy.hbone.clone()), worker.context.proxy.quota.pod(&uid));
    let pod = Rc::new(Pod::new(LocalPod::new(info, pool, quota), netns, sockets, only));
    worker.context.proxy.tables.read(|tables| pod.local.follow(tables));
    worker.pods.borrow_mut().insert(uid, pod.clone());
    let Listeners { tcp, dns, migrate } = listeners;
    for (kind, listener) in tcp {
        match kind {
            ListenerKind::Outbound => listen(worker, &pod, listener, migrate, outbound::serve),
            ListenerKind::Plaintext => listen(worker, &pod, listener, migrate, inbound::plaintext::serve),
            ListenerKind::Hbone => listen(worker, &pod, listener, migrate, inbound::serve),
            ListenerKind::Socks => listen(worker, &pod, listener, migrate, outbound::socks::serve),
        }
    }
    if let (Some(listeners), Some(proxy)) = (dns, &worker.context.dns) {
        for socket in listeners.udp {
            pod.spawn(dns::serve::udp(proxy.clone(), pod.dns.clone(), socket), ());
        }
        for listener in listeners.tcp {
            listen(worker, &pod, listener, migrate, serve_dns);
        }
    }
}

/// Stops serving a pod at once.
fn stop(worker: &Worker, uid: &str) {
    if let Some(pod) = worker.pods.borrow_mut().remove(uid) {
        pod.stop();
        worker.connections.pod_stopped(&pod.local.info);
    }
}

/// Serves one connection to the pod's DNS proxy.
async fn serve_dns(worker: Rc<Worker>, pod: Rc<Pod>, tcp: TcpStream, _from: SocketAddr) {
    if let Some(proxy) = worker.context.dns.clone() {
        dns::serve::tcp(&proxy, &pod.dns, tcp, worker.context.proxy.drain.started()).await;
    }
}

/// Accepts on a listener until the pod stops or ztunnel drains; each connection is a task of its own, cut when the pod
/// stops.
fn listen<F>(
    worker: &Rc<Worker>,
    pod: &Rc<Pod>,
    listener: std::net::TcpListener,
    migrate: bool,
    serve: impl Fn(Rc<Worker>, Rc<Pod>, TcpStream, SocketAddr) -> F + Copy + 'static,
) where
    F: Future<Output = ()> + 'static,
{
    let counted = worker.context.proxy.drain.listener();
    let (worker, of) = (worker.clone(), pod.clone());
    let accepting = async move {
        let start = |tcp: TcpStream, peer: SocketAddr| {
            let connection = serve(worker.clone(), of.clone(), tcp, peer);
            of.spawn(connection, worker.context.proxy.drain.token());
        };
        accept(listener, migrate, &worker.context.proxy.drain, &*of.local.info, start).await;
    };
    pod.spawn(accepting, counted);
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP);
    let mut hbone = worker.context.proxy.hbone_metrics.of_thread();
    loop {
        ticks.tick().await;
        let mut pooled = 0;
        for pod in worker.pods.borrow().iter() {
            pod.local.pool.sweep();
            pod.dialler.sweep(&pod.sockets);
            pooled += pod.local.pool.connections();
        }
        hbone.update(pooled);
    }
}

/// Lets go of what the tables tell of no more.
async fn follow_tables(worker: Rc<Worker>) {
    let mut changed = worker.context.proxy.tables.changed();
    while changed.changed().await.is_ok() {
        for pod in worker.pods.borrow().iter() {
            worker.context.proxy.tables.read(|tables| pod.local.follow(tables));
        }
        tokio::time::sleep(SETTLE).await;
    }
}

#[cfg(test)]
mod tests;
