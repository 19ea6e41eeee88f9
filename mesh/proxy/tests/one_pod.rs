//! A proxy that serves one pod, the one that it is, as a waypoint would: a data thread, an HBONE listener and an identity of
//! its own, under policies. It has no network namespace to enter, and nothing of ztunnel's.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_hbone::Settings;
use mesh_hbone::carry;
use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::pool::Pool;
use mesh_hbone::server::Asked;
use mesh_identity::store::{Store, StoreOptions};
use mesh_model::address::Authority;
use mesh_model::pod::PodInfo;
use mesh_model::policy::{Action, Clause, Facts, Match, Policy, Rule, Scope, StringMatch};
use mesh_model::reason::ReasonCode;
use mesh_model::resource::Resource;
use mesh_model::workload::Workload;
use mesh_proxy::accept::accept;
use mesh_proxy::connections::{Connections, follow_policies, until_cut};
use mesh_proxy::context::ProxyContext;
use mesh_proxy::data_thread::DataThread;
use mesh_proxy::inbound::{self, TunnelContext};
use mesh_proxy::judge::{Judgement, judge};
use mesh_proxy::local_pod::LocalPod;
use mesh_proxy::local_workload::deadline;
use mesh_proxy::metrics::{DrainMetrics, ReasonMetrics, RevocationMetrics};
use mesh_proxy::quota::{Limits, Quota};
use mesh_proxy::report::{Party, Report, Telemetry, Traffic};
use mesh_runtime::access_log::{AccessLog, Direction, MemoryLines};
use mesh_runtime::drain;
use mesh_runtime::log::LogFormat;
use mesh_runtime::metrics::{Metrics, Reporter, ResponseFlags, TrafficMetrics};
use mesh_runtime::readiness::Readiness;
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::{self, id, on_one_thread};
use mesh_testkit::tcp;
use mesh_xds::follow::{self, Writer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;

/// The proxy, and the other ends of what it reads.
struct Proxy {
    ca: Arc<TestCa>,
    context: Arc<ProxyContext>,
    thread: DataThread<Infallible>,
    at: SocketAddr,
    tables: Writer,
    log: MemoryLines,
    drain: drain::Trigger,
}

impl Proxy {
    fn start() -> Self {
        let ca = Arc::new(TestCa::new());
        let (tables, reader) = follow::tables();
        let (access_log, log) = AccessLog::memory(LogFormat::Plain).unwrap();
        let (drain, draining) = drain::new();
        let mut metrics = Metrics::new("waypoint", "test");
        let telemetry = Telemetry {
            traffic: TrafficMetrics::register(&mut metrics),
            reasons: ReasonMetrics::register(&mut metrics),
            revocation: RevocationMetrics::register(&mut metrics),
            access_log,
            policy_info_logging: false,
        };
        let context = Arc::new(ProxyContext {
            tables: reader,
            demand: None,
            certificates: Store::new(&tokio::runtime::Handle::current(), ca.clone(), StoreOptions::default()),
            telemetry: Arc::new(telemetry),
            quota: Quota::new(&Limits::default(), 1_024, Default::default(), Default::default()),
            hbone: Default::default(),
            hbone_metrics: Default::default(),
            drain: draining,
            cluster: "Kubernetes".into(),
            network: String::new(),
        });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        let read = context.clone();
        let thread = DataThread::start(0, move |commands| run(read, listener, commands)).unwrap();
        Self { ca, context, thread, at, tables, log, drain }
    }

    /// A connection of `who`.
    async fn caller(&self, who: &str) -> Client {
        self.caller_by(who, self.at).await
    }

    /// The same, by way of another address.
    async fn caller_by(&self, who: &str, at: SocketAddr) -> Client {
        let credentials = self.ca.credentials(&id(who));
        hbone::dial(at, &credentials, &[id("waypoint")], &Default::default()).await.unwrap()
    }

    /// The log's last line that has `word`, once it is there.
    async fn logged(&self, word: &str) -> String {
        loop {
            match self.log.lines().into_iter().rfind(|line| line.contains(word)) {
                Some(line) => return line,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

/// All that its data thread does.
async fn run(
    context: Arc<ProxyContext>,
    listener: std::net::TcpListener,
    mut commands: mpsc::UnboundedReceiver<Infallible>,
) {
    let name = || "waypoint".to_owned();
    let info = PodInfo { name: name(), namespace: "shop".into(), service_account: name() };
    let (pool, quota) = (Pool::new(context.hbone.clone()), context.quota.pod(&"uid".into()));
    let pod = Rc::new(LocalPod::new(Arc::new(info), pool, quota));
    let connections = Connections::default();
    spawn_local(follow_policies(connections.clone(), context.tables.clone()));
    let start = |tcp: TcpStream, from: SocketAddr| {
        let (context, pod, connections) = (context.clone(), pod.clone(), connections.clone());
        let held = context.drain.token();
        spawn_local(async move {
            let _held = held;
            let begin = |asked: Asked, on: TunnelContext| {
                spawn_local(tunnel(context.clone(), pod.clone(), connections.clone(), asked, on));
            };
            inbound::serve(&context, &pod, Reporter::Destination, tcp, from, begin).await;
        });
    };
    accept(listener, false, &context.drain, &*pod.info, start).await;
    commands.recv().await;
}

/// Serves a tunnel to whoever it asks for, if the policies let its caller in.
async fn tunnel(
    context: Arc<ProxyContext>,
    pod: Rc<LocalPod>,
    connections: Connections,
    asked: Asked,
    on: TunnelContext,
) {
    let deadline = deadline();
    let workload = context.local_workload(&pod.info, deadline).await.unwrap();
    let to: SocketAddr = asked.authority.parse().unwrap();
    let facts = Facts { source_ip: on.from.ip(), source: Some((*on.caller).clone()), destination: to };
    let mut report = Report::open(
        &context.telemetry,
        Traffic {
            direction: Direction::Inbound,
            reporter: Reporter::Destination,
            from: on.from,
            to,
            hbone_to: Some(Authority::Address(to)),
            source: Party::known(None),
            destination: Party::workload(&workload, workload.identity().ok().as_ref()),
            service: None,
            secured: true,
            trace: None,
        },
    );
    match judge(&context.tables, &pod.info, &workload, &facts, deadline).await {
        Judgement::Decided(decision) if decision.allowed => report.decided(&decision),
        judgement => {
            report.denied(&judgement);
            return asked.refuse(StatusCode::UNAUTHORIZED, judgement.code());
        }
    }
    let (_registration, cut) = connections.add_inbound(pod.info.clone(), facts, on.from.port(), None);
    let upstream = match TcpStream::connect(to).await {
        Ok(upstream) => upstream,
        Err(error) => return report.failed(ResponseFlags::Connect, ReasonCode::ApplicationUnreachable, &error),
    };
    let tunnel = asked.accept(&pod.baggage(&workload)).unwrap();
    report.opened();
    match until_cut(carry::tcp_and_tunnel(upstream, tunnel, report.count_from_server()), cut).await {
        Ok(result) => report.ended(result),
        Err(reason) => report.cut(&reason),
    }
}

/// An address that leads to `at`, until it is notified: from then on nothing passes, and nobody is told.
async fn wire(at: SocketAddr) -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, cut) = (listener.local_addr().unwrap(), Arc::new(Notify::new()));
    let told = cut.clone();
    spawn_local(async move {
        let (mut caller, _) = listener.accept().await.unwrap();
        let mut proxy = TcpStream::connect(at).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut caller, &mut proxy) => {}
            () = told.notified() => std::future::pending().await,
        }
    });
    (address, cut)
}

/// The pod that the proxy is.
fn itself() -> Resource {
    Resource::Workload(Arc::new(Workload {
        name: "waypoint".into(),
        namespace: "shop".into(),
        service_account: "waypoint".into(),
        ..Workload::empty("waypoint")
    }))
}

/// Only `who` may call.
fn only(who: &str) -> Resource {
    let principals = vec![StringMatch::Exact(format!("cluster.local/ns/shop/sa/{who}").into())];
    let clause = Clause { matches: vec![Match { principals, ..Match::default() }] };
    Resource::Policy(Arc::new(Policy {
        name: "only".into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action: Action::Allow,
        rules: vec![Rule { clauses: vec![clause] }],
        dry_run: false,
    }))
}

/// Its callers are let in by identity, cut when the policies change, and sent elsewhere when it drains.
#[tokio::test]
async fn a_proxy_of_one_pod_judges_reports_and_drains() {
    on_one_thread(async {
        let mut proxy = Proxy::start();
        proxy.tables.apply_local(vec![only("caller"), itself()]);
        let application = tcp::echo().await.to_string();
        let ask = async |client: &mut Client| {
            client.open(&connect::request(&application, &Context::default()).unwrap()).await
        };

        let refused = ask(&mut proxy.caller("stranger").await).await.err();
        let Some(OpenError::Refused { status, reason }) = refused else { panic!("{refused:?}") };
        assert_eq!((status, reason.as_deref()), (StatusCode::UNAUTHORIZED, Some("POLICY_DENIED")));
        proxy.logged("POLICY_DENIED").await;

        let mut caller = proxy.caller("caller").await;
        let opened = ask(&mut caller).await.unwrap();
        let (mut downstream, captured) = tcp::pair().await;
        hbone::carry(captured, opened.tunnel);
        downstream.write_all(b"through").await.unwrap();
        let mut answer = [0; 7];
        downstream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"through");

        proxy.tables.apply_local(vec![only("nobody")]);
        assert!(matches!(downstream.read(&mut [0]).await, Ok(0) | Err(_)), "it is cut");
        let line = proxy.logged("POLICY_CHANGED").await;
        assert!(line.contains("direction=\"inbound\"") && line.contains("bytes_sent=7"), "{line}");

        let (way, cut) = wire(proxy.at).await;
        let mut gone = proxy.caller_by("caller", way).await;
        // It is answered, so the proxy knows who it is.
        assert!(ask(&mut gone).await.is_err(), "nobody is let in");
        cut.notify_one();

        let Proxy { context, thread, at, drain, .. } = proxy;
        let readiness = Readiness::new();
        let (life, mut metrics) = (readiness.register("life"), Metrics::new("waypoint", "test"));
        let drained = DrainMetrics::register(&mut metrics);
        // GOAWAY ends the caller's connection, which carries nothing any more, and one whose caller is gone without a word is not
        // kept until a PING finds out: the limit is not waited for.
        let limit = Settings::default().ping_interval - Duration::from_secs(1);
        mesh_proxy::drain::drain(drain, &context.drain, &"the test", limit, &drained, &life).await;
        assert_eq!(context.drain.open(), 0);
        assert!(ask(&mut caller).await.is_err(), "no tunnel on a connection that is closing");
        TcpStream::connect(at).await.expect_err("it listens no more");
        tokio::task::spawn_blocking(|| thread.join()).await.unwrap();
    })
    .await;
}

/// A caller that proves nothing does not come again at once: its connection stays open for a while. Nothing here closes it later.
#[tokio::test]
async fn a_caller_that_proves_nothing_is_not_closed_at_once() {
    on_one_thread(async {
        let mut proxy = Proxy::start();
        proxy.tables.apply_local(vec![itself()]);
        let mut stranger = TcpStream::connect(proxy.at).await.unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        proxy.logged("TLS_FAILED").await;
        let open = loop {
            match stranger.try_read(&mut [0; 64]) {
                Ok(0) => break false,
                // What TLS says to it.
                Ok(_) => {}
                Err(error) => break error.kind() == std::io::ErrorKind::WouldBlock,
            }
        };
        assert!(open, "it is closed at once");
    })
    .await;
}
