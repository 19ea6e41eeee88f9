//! The threads that move bytes, and do nothing else. Each owns its connections: no task ever changes threads. Here they
//! begin, hear what they are to serve, and give each connection to who serves it.
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
use mesh_proxy::connections::{Connections, Listed, follow_policies};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use crate::listeners::{Door, Listeners};
use crate::pod::Pod;
use crate::serving::Worker;
use crate::shared::Shared;
use crate::sockets::{Netns, SocketSettings};
use crate::{dns, door, inbound, outbound};

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
    spawn_local(follow_policies(worker.connections.clone(), worker.shared.tables.clone()));
    spawn_local(sweep(worker.clone()));
    spawn_local(follow_tables(worker.clone()));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Serve(served) => serve(&worker, served),
            Command::Stop(uid) => stop(&worker, &uid),
            Command::List(answer) => drop(answer.send(worker.connections.list())),
            Command::End => return,
        }
    }
}

/// Serves a pod, in the place of one of the same uid.
fn serve(worker: &Rc<Worker>, served: Served) {
    stop(worker, &served.uid);
    let Served { uid, info, netns, listeners, sockets, only } = served;
    let (pool, quota) = (Pool::new(worker.shared.config.hbone.clone()), worker.shared.quota.pod(&uid));
    let pod = Rc::new(Pod::new(info, netns, sockets, only, pool, quota));
    worker.shared.tables.read(|tables| pod.follow(tables));
    worker.pods.borrow_mut().insert(uid, pod.clone());
    let Listeners { doors, dns, migrate } = listeners;
    for (door, listener) in doors {
        match door {
            Door::Outbound => listen(worker, &pod, listener, migrate, outbound::serve),
            Door::Plaintext => listen(worker, &pod, listener, migrate, inbound::plaintext::serve),
            Door::Hbone => listen(worker, &pod, listener, migrate, inbound::serve),
            Door::Socks => listen(worker, &pod, listener, migrate, outbound::socks::serve),
        }
    }
    if let (Some(listeners), Some(proxy)) = (dns, &worker.shared.dns) {
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
        worker.connections.pod_stopped(&pod.info);
    }
}

/// Serves one connection to the pod's DNS proxy.
async fn serve_dns(worker: Rc<Worker>, pod: Rc<Pod>, tcp: TcpStream, _from: SocketAddr) {
    if let Some(proxy) = worker.shared.dns.clone() {
        dns::serve::tcp(&proxy, &pod.dns, tcp, worker.shared.drain.started()).await;
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
    let door = worker.shared.drain.door();
    pod.spawn(accept(worker.clone(), pod.clone(), listener, migrate, serve), door);
}

async fn accept<F>(
    worker: Rc<Worker>,
    pod: Rc<Pod>,
    listener: std::net::TcpListener,
    migrate: bool,
    serve: impl Fn(Rc<Worker>, Rc<Pod>, TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(pod = %pod.info, %error, "cannot listen"),
    };
    let start = |tcp: TcpStream, peer: SocketAddr| {
        let peer = mesh_model::address::canonical(peer);
        let connection = serve(worker.clone(), pod.clone(), tcp, peer);
        pod.spawn(connection, worker.shared.drain.token());
    };
    let closing = worker.shared.drain.closing();
    tokio::pin!(closing);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, peer)) => start(tcp, peer),
                Err(error) => give_way(&pod, &error).await,
            },
            () = &mut closing => break,
        }
    }
    door::close(listener, migrate, start).await;
}

/// After a failed accept: one connection's fault goes on at once, a shortage of descriptors waits for some to be
/// given back instead of spinning.
async fn give_way(pod: &Pod, error: &io::Error) {
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) {
        tracing::error!(pod = %pod.info, %error, "cannot accept: raise the limit of open files (ulimit -n)");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP);
    let mut hbone = worker.shared.hbone_metrics.of_thread();
    loop {
        ticks.tick().await;
        let mut pooled = 0;
        for pod in worker.pods.borrow().iter() {
            pod.pool.sweep();
            pod.dialler.sweep(&pod.sockets);
            pooled += pod.pool.connections();
        }
        hbone.update(pooled);
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
