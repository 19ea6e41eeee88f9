//! The threads that move bytes, and do nothing else. Each owns its connections: no task ever changes threads.
//!
//! Every pod has listeners on every worker; the kernel spreads connections over them (`SO_REUSEPORT`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_handoff::PodInfo;
use mesh_hbone::pool::Pool;
use mesh_model::policy::Facts;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{LocalSet, spawn_local};

use crate::connections::Connections;
use crate::shared::Shared;
use crate::sockets::{self, Netns};
use crate::{dns, inbound, outbound};

/// How often connections that nobody uses are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// What a worker is told.
pub(crate) enum Command {
    /// Serve a pod on these listeners.
    Serve(Served),
    /// Stop serving a pod at once: close its listeners and its connections.
    Stop(Arc<str>),
    /// Say what is open.
    List(oneshot::Sender<Vec<(Arc<PodInfo>, Facts)>>),
}

/// A pod to serve.
pub(crate) struct Served {
    /// Kubernetes pod UID.
    pub(crate) uid: Arc<str>,
    pub(crate) info: Arc<PodInfo>,
    pub(crate) netns: Netns,
    pub(crate) listeners: Listeners,
}

/// A worker's own listeners in a pod.
pub(crate) struct Listeners {
    pub(crate) outbound: std::net::TcpListener,
    pub(crate) plaintext: std::net::TcpListener,
    pub(crate) hbone: std::net::TcpListener,
    /// On one of the pod's workers.
    pub(crate) dns: Option<dns::Listeners>,
}

/// A pod as a worker's connections see it.
pub(crate) struct Pod {
    pub(crate) info: Arc<PodInfo>,
    pub(crate) netns: Netns,
    pub(crate) pool: Pool,
    pub(crate) dns: Rc<dns::PodDns>,
    stop: watch::Sender<bool>,
}

/// One worker's own things.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) connections: Connections,
    pods: RefCell<HashMap<Arc<str>, Rc<Pod>>>,
}

/// A running worker.
pub(crate) struct Handle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    thread: std::thread::JoinHandle<()>,
}

impl Handle {
    /// Ends the worker, with whatever is still open on it, and waits for its thread.
    pub(crate) fn join(self) {
        drop(self.commands);
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name(format!("data-{number}")).spawn(move || {
        LocalSet::new().block_on(&runtime, run(shared, receiver));
    })?;
    Ok(Handle { commands, thread })
}

async fn run(shared: Arc<Shared>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let worker = Rc::new(Worker { shared, connections: Connections::default(), pods: RefCell::default() });
    spawn_local(watch_policies(worker.clone()));
    spawn_local(sweep_pools(worker.clone()));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Serve(served) => worker.serve(served),
            Command::Stop(uid) => worker.stop(&uid),
            Command::List(answer) => drop(answer.send(worker.connections.list())),
        }
    }
}

impl Worker {
    fn serve(self: &Rc<Self>, served: Served) {
        self.stop(&served.uid);
        let (stop, _) = watch::channel(false);
        let pool = Pool::new(self.shared.config.hbone.clone());
        let dns = Rc::new(dns::PodDns::new(served.info.clone(), served.netns.clone()));
        let pod = Rc::new(Pod { info: served.info, netns: served.netns, pool, dns, stop });
        self.pods.borrow_mut().insert(served.uid, pod.clone());
        let Listeners { outbound, plaintext, hbone, dns } = served.listeners;
        self.listen(&pod, outbound, outbound::serve);
        self.listen(&pod, plaintext, inbound::plaintext::serve);
        self.listen(&pod, hbone, inbound::serve);
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
            self.listen(&pod, tcp, dns::tcp);
        }
    }

    /// The pod of that name, if this worker serves it.
    pub(crate) fn pod(&self, name: &str, namespace: &str, account: &str) -> Option<Rc<Pod>> {
        let pods = self.pods.borrow();
        let is = |info: &PodInfo| info.name == name && info.namespace == namespace && info.service_account == account;
        pods.values().find(|pod| is(&pod.info)).cloned()
    }

    fn stop(&self, uid: &str) {
        if let Some(pod) = self.pods.borrow_mut().remove(uid) {
            pod.stop.send_replace(true);
        }
    }

    /// Accepts on a listener until the pod stops or ztunnel drains; each connection is a task of its own, cut when the
    /// pod stops.
    fn listen<F>(
        self: &Rc<Self>,
        pod: &Rc<Pod>,
        listener: std::net::TcpListener,
        serve: impl Fn(Rc<Self>, Rc<Pod>, TcpStream, SocketAddr) -> F + Copy + 'static,
    ) where
        F: Future<Output = ()> + 'static,
    {
        let (worker, pod) = (self.clone(), pod.clone());
        spawn_local(async move {
            let listener = match TcpListener::from_std(listener) {
                Ok(listener) => listener,
                Err(error) => return tracing::error!(pod = %pod.info, %error, "cannot listen"),
            };
            let start = |tcp: TcpStream, peer: SocketAddr| {
                sockets::tune(&tcp, &worker.shared.config.sockets);
                let peer = mesh_model::address::canonical(peer);
                let connection = serve(worker.clone(), pod.clone(), tcp, peer);
                let stopped = stopped(pod.stop.subscribe());
                let token = worker.shared.drain.token();
                spawn_local(async move {
                    tokio::select! {
                        () = connection => {}
                        () = stopped => {}
                    }
                    drop(token);
                });
            };
            let stopped = stopped(pod.stop.subscribe());
            let draining = worker.shared.drain.started();
            tokio::pin!(stopped, draining);
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((tcp, peer)) => start(tcp, peer),
                        Err(error) => give_way(&pod, &error).await,
                    },
                    () = &mut stopped => return,
                    () = &mut draining => break,
                }
            }
            // What the kernel has accepted for us would be reset when the listener closes: serve it.
            while let Some(Ok((tcp, peer))) = futures_util::FutureExt::now_or_never(listener.accept()) {
                start(tcp, peer);
            }
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
        worker.connections.judge_again(|pod, facts| worker.shared.judge_open(pod, facts)).await;
    }
}

async fn sweep_pools(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        for pod in worker.pods.borrow().values() {
            pod.pool.sweep();
        }
    }
}
