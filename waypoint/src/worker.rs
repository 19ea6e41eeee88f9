//! What a data thread of a waypoint does: it takes tunnels and serves what is in them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_hbone::pool::Pool as HbonePool;
use mesh_model::pod::PodInfo;
use mesh_proxy::accept::{BACKLOG, accept};
use mesh_proxy::connections::{OpenConnections, follow_policies};
use mesh_proxy::data_thread::DataThread;
use mesh_proxy::inbound;
use mesh_proxy::local_pod::LocalPod;
use mesh_runtime::metrics::Reporter;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;

use crate::context::WaypointContext;
use crate::serving::Worker;
use crate::{tunnel, upstream};

/// How often connections that nobody uses are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// A busy cluster changes all the time; looking once for many changes is enough.
const SETTLE: Duration = Duration::from_millis(100);
/// The waypoint in quotas: it is the only pod.
const OWN: &str = "(waypoint)";

/// What a worker is told.
pub(crate) enum Command {
    /// Take tunnels on this listener.
    Serve(std::net::TcpListener),
    /// Say what is open.
    List(oneshot::Sender<OpenConnections>),
}

/// A running worker.
pub(crate) type Handle = DataThread<Command>;

/// Starts a worker thread of the waypoint that is `pod`.
///
/// # Errors
/// When the system has no thread or event queue left.
pub(crate) fn start(number: usize, context: Arc<WaypointContext>, pod: Arc<PodInfo>) -> io::Result<Handle> {
    DataThread::start(number, move |commands| run(context, pod, commands))
}

/// The listener of a worker: all share the port, and the kernel spreads connections over them.
///
/// # Errors
/// When the port is taken by somebody else.
pub(crate) fn listen(port: u16, ipv6: bool) -> io::Result<std::net::TcpListener> {
    let wildcard: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let at = SocketAddr::new(wildcard, port);
    let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if at.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn run(context: Arc<WaypointContext>, info: Arc<PodInfo>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let worker = on_this_thread(context, info);
    spawn_local(follow_policies(worker.connections.clone(), worker.context.proxy.tables.clone()));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Serve(listener) => drop(spawn_local(serve(worker.clone(), listener))),
            Command::List(answer) => drop(answer.send(worker.connections.list())),
        }
    }
}

/// What the tasks of this thread share from now on, to reach endpoints by; it follows the tables.
pub(crate) fn on_this_thread(context: Arc<WaypointContext>, info: Arc<PodInfo>) -> Rc<Worker> {
    let (pool, quota) = (HbonePool::new(context.proxy.hbone.clone()), context.proxy.quota.pod(&OWN.into()));
    let worker = Rc::new(Worker::new(context, LocalPod::new(info, pool, quota)));
    spawn_local(sweep(worker.clone()));
    spawn_local(follow_tables(worker.clone()));
    spawn_local(upstream::shed(worker.clone()));
    worker
}

/// Takes HBONE connections until the proxy drains.
async fn serve(worker: Rc<Worker>, listener: std::net::TcpListener) {
    let drain = &worker.context.proxy.drain;
    let _open = drain.listener();
    let start = |tcp, from| {
        let (worker, token) = (worker.clone(), worker.context.proxy.drain.token());
        spawn_local(async move {
            let _token = token;
            let begin = |asked, connection| {
                let (worker, token) = (worker.clone(), worker.context.proxy.drain.token());
                spawn_local(async move {
                    let _token = token;
                    tunnel::serve(worker, connection, asked).await;
                });
            };
            inbound::serve(&worker.context.proxy, &worker.pod, Reporter::Waypoint, tcp, from, begin).await;
        });
    };
    accept(listener, false, drain, &*worker.pod.info, start).await;
}

async fn sweep(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(SWEEP);
    let mut hbone = worker.context.proxy.hbone_metrics.of_thread();
    loop {
        ticks.tick().await;
        worker.pod.pool.sweep();
        worker.context.proxy.tables.read(|tables| worker.upstream.sweep(tables));
        worker.context.ports.check();
        hbone.update(worker.pod.pool.connections());
    }
}

/// Lets go of what the tables tell of no more, and has connections sent away for which they tell something else.
async fn follow_tables(worker: Rc<Worker>) {
    let mut changed = worker.context.proxy.tables.changed();
    loop {
        // Once at the start: what was told before this thread began is no change.
        worker.context.proxy.tables.read(|tables| worker.follow(tables));
        tokio::time::sleep(SETTLE).await;
        if changed.changed().await.is_err() {
            return;
        }
    }
}
