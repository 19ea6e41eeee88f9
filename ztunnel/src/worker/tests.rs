//! Pods served by a real worker over loopback, callers and applications at both ends: what the decisions come to on the
//! wire. An application's address is 127.0.0.1, a service's another one of loopback; `original_destination` of a
//! connection that nobody redirected is where it arrived.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::connect::{self, Context};
use mesh_identity::store::{Store, StoreOptions};
use mesh_identity::tls::Credentials;
use mesh_model::address::{GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress};
use mesh_model::pod::PodInfo;
use mesh_model::policy::{Action, Policy, Scope};
use mesh_model::resource::Resource;
use mesh_model::service::{Service, Vip};
use mesh_model::workload::{AppProtocol, ApplicationTunnel, PortMapping, Tunnel, Workload};
use mesh_proxy::context::ProxyContext;
use mesh_proxy::metrics::{ReasonMetrics, RevocationMetrics};
use mesh_proxy::report::Telemetry;
use mesh_runtime::access_log::{AccessLog, MemoryLines};
use mesh_runtime::config::Env;
use mesh_runtime::drain;
use mesh_runtime::log::LogFormat;
use mesh_runtime::metrics::{Metrics, TrafficMetrics};
use mesh_runtime::trace::TraceParent;
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::{self, id, let_in, on_one_thread};
use mesh_testkit::tcp;
use mesh_xds::demand::Demand;
use mesh_xds::follow;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::config::Config;
use crate::context::WorkerContext;
use crate::dns::Dns;
use crate::inbound::proxy_protocol;
use crate::listeners::{ListenerKind, Listeners};
use crate::metrics::HostnameMetrics;
use crate::sockets::{Netns, OriginalSource, SocketSettings};
use crate::worker::{self, Command, Handle, Served};
use traces::trace_of;

mod life;

const CART: &str = "cart.shop.svc.cluster.local";

/// A worker with pods of namespace `shop`, each of a service account of its name.
struct Ztunnel {
    ca: Arc<TestCa>,
    worker: Handle,
    sockets: SocketSettings,
    tables: follow::Writer,
    certificates: Store,
    metrics: Metrics,
    log: MemoryLines,
    _drain: drain::Trigger,
}

/// What a worker reads, and the other ends of it.
struct Parts {
    context: WorkerContext,
    tables: follow::Writer,
    metrics: Metrics,
    log: MemoryLines,
    drain: drain::Trigger,
}

fn parts(settings: &[(&str, &str)], options: StoreOptions, ca: &Arc<TestCa>, demand: Option<Demand>) -> Parts {
    let (access_log, log) = AccessLog::memory(LogFormat::Plain).unwrap();
    let mut metrics = Metrics::new("ztunnel", "test");
    let (drain, draining) = drain::new();
    let runtime = tokio::runtime::Handle::current();
    let settings = settings.iter().copied().chain([("NETWORK", "here")]);
    let config = Config::from_env(&settings.collect::<Env>()).unwrap();
    let (tables, reader) = follow::tables_of(&config.cluster);
    // Whom to ask what the tables do not know: nobody.
    let nowhere = std::path::Path::new("/nonexistent");
    let dns = config.dns.as_ref();
    let dns = dns.map(|dns| Dns::new(dns, reader.clone(), config.sockets.clone(), nowhere, &mut metrics));
    let telemetry = Arc::new(Telemetry {
        traffic: TrafficMetrics::register(&mut metrics),
        reasons: ReasonMetrics::register(&mut metrics),
        revocation: RevocationMetrics::register(&mut metrics),
        access_log,
        policy_info_logging: config.policy_info_logging,
    });
    let proxy = ProxyContext {
        tables: reader,
        demand,
        certificates: Store::new(&runtime, ca.clone(), options),
        telemetry,
        quota: mesh_proxy::quota::Quota::new(&config.limits, 1_024, Default::default(), Default::default()),
        hbone: config.hbone.clone(),
        hbone_metrics: Default::default(),
        drain: draining,
        cluster: config.cluster.clone(),
        network: config.network.clone(),
    };
    let hostname_metrics = HostnameMetrics::register(&mut metrics);
    let context =
        WorkerContext { proxy, config, hostnames: mesh_proxy::hostnames::Hostnames::default(), hostname_metrics, dns };
    Parts { context, tables, metrics, log, drain }
}

/// Where a pod's listeners are.
struct Ports {
    outbound: u16,
    plaintext: SocketAddr,
    hbone: SocketAddr,
    socks: SocketAddr,
}

impl Ztunnel {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        Self::with_options(settings, StoreOptions::default())
    }

    fn with_options(settings: &[(&str, &str)], options: StoreOptions) -> Self {
        let ca = Arc::new(TestCa::new());
        let Parts { context, tables, metrics, log, drain } = parts(settings, options, &ca, None);
        let (sockets, certificates) = (context.config.sockets.clone(), context.proxy.certificates.clone());
        let worker = worker::start(0, Arc::new(context)).unwrap();
        Self { ca, worker, sockets, tables, certificates, metrics, log, _drain: drain }
    }

    fn serve(&self, name: &str) -> Ports {
        self.serve_with(name, None, &self.sockets)
    }

    fn serve_with(&self, name: &str, only: Option<u16>, sockets: &SocketSettings) -> Ports {
        let listen = |address: &str| {
            let listener = std::net::TcpListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        // Every address of loopback, so that a connection arrives at the service that it means.
        let (outbound, plaintext, hbone) = (listen("0.0.0.0:0"), listen("127.0.0.1:0"), listen("127.0.0.1:0"));
        let socks = listen("127.0.0.1:0");
        let ports = Ports {
            outbound: outbound.local_addr().unwrap().port(),
            plaintext: plaintext.local_addr().unwrap(),
            hbone: hbone.local_addr().unwrap(),
            socks: socks.local_addr().unwrap(),
        };
        let info = PodInfo { name: name.into(), namespace: "shop".into(), service_account: name.into() };
        let netns = Netns::new(std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()).unwrap();
        let tcp = vec![
            (ListenerKind::Outbound, outbound),
            (ListenerKind::Plaintext, plaintext),
            (ListenerKind::Hbone, hbone),
            (ListenerKind::Socks, socks),
        ];
        let listeners = Listeners { tcp, dns: None, migrate: false };
        let sockets = Arc::new(sockets.clone());
        let served = Served { uid: name.into(), info: Arc::new(info), netns, listeners, sockets, only };
        self.worker.commands.send(Command::Serve(served)).ok().unwrap();
        ports
    }

    /// What a caller with an identity of the mesh is answered: status and reason, 200 if the tunnel is open.
    async fn ask(&self, pod: (&str, SocketAddr), authority: &str) -> (u16, String) {
        let mut client = self.caller(pod).await.0;
        let request = connect::request(authority, &Context::default()).unwrap();
        match client.open(&request).await {
            Ok(_) => (200, String::new()),
            Err(OpenError::Refused { status, reason }) => (status.as_u16(), reason.unwrap_or_default()),
            Err(other) => panic!("{authority}: {other}"),
        }
    }

    async fn caller(&self, pod: (&str, SocketAddr)) -> (Client, SocketAddr) {
        self.caller_from("127.0.0.1", pod).await
    }

    async fn caller_from(&self, from: &str, (pod, at): (&str, SocketAddr)) -> (Client, SocketAddr) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        let tcp = socket.connect(at).await.unwrap();
        let (from, expected) = (tcp.local_addr().unwrap(), [id(pod)]);
        let config = self.ca.credentials(&id("caller")).client_config(&expected);
        (Client::handshake(tcp, config, &expected, &Default::default()).await.unwrap(), from)
    }

    /// The log's last line that has `word`, once it is there.
    async fn logged(&self, word: &str) -> String {
        loop {
            let lines = self.log.lines();
            match lines.iter().rev().find(|line| line.contains(word)) {
                Some(line) => return line.clone(),
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

fn pod(name: &str) -> Workload {
    Workload {
        name: name.into(),
        namespace: "shop".into(),
        service_account: name.into(),
        network: "here".into(),
        tunnel: Tunnel::Hbone,
        ..Workload::empty(name)
    }
}

fn ports(service_port: u16, target_port: u16) -> Vec<PortMapping> {
    vec![PortMapping { service_port, target_port, app_protocol: AppProtocol::Unknown }]
}

fn service(hostname: &str, vip: &str, ports: Vec<PortMapping>) -> Service {
    let address = NetworkAddress { network: "here".into(), ip: vip.parse().unwrap() };
    Service { vips: vec![Vip { address, prefix: None }], ports, ..Service::empty("shop", hostname) }
}

fn serving(hostname: &str, ports: Vec<PortMapping>, workload: Workload) -> Resource {
    let services = [(NamespacedName::new("shop", hostname), ports)].into();
    Resource::Workload(Arc::new(Workload { services, ..workload }))
}

/// A policy that lets nobody in.
fn nobody_enters() -> Resource {
    Resource::Policy(Arc::new(Policy {
        name: "nobody".into(),
        namespace: "shop".into(),
        scope: Scope::WorkloadSelector,
        action: Action::Allow,
        rules: vec![],
        dry_run: false,
    }))
}

/// The same pod, under the policy that lets nobody in.
fn closed(pod: Workload) -> Workload {
    Workload { authorization_policies: vec![NamespacedName::new("shop", "nobody")], ..pod }
}

/// Answers the upper case of all it read, once the caller has finished. Its port.
async fn application() -> u16 {
    tcp::shouting().await.port()
}

/// Answers the upper case of every piece as it comes.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    spawn_local(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            spawn_local(async move {
                let mut piece = [0; 4096];
                while let Ok(n @ 1..) = tcp.read(&mut piece).await {
                    piece[..n].make_ascii_uppercase();
                    if tcp.write_all(&piece[..n]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// The gateway of a network, `shop/gw`: whatever it is asked for is at `to`.
async fn gateway(ca: &TestCa, to: SocketAddr) -> SocketAddr {
    gateway_of(ca.credentials(&id("gw")), to).await
}

async fn gateway_of(credentials: Arc<Credentials>, to: SocketAddr) -> SocketAddr {
    let server = hbone::serve(credentials, Default::default(), move |_, asked| let_in(asked, to, ""));
    server.await.address
}

/// What is answered to what is said; empty if the connection is closed instead.
async fn say(to: SocketAddr, words: &str) -> String {
    let mut tcp = TcpStream::connect(to).await.unwrap();
    let mut answer = String::new();
    if tcp.write_all(words.as_bytes()).await.is_ok() && tcp.shutdown().await.is_ok() {
        let _ = tcp.read_to_string(&mut answer).await;
    }
    answer
}

/// Runs a test that enters network namespaces and marks packets, if this machine lets it.
#[allow(clippy::print_stderr, reason = "skipped tests must be seen")]
async fn with_rights(test: impl Future<Output = ()>) {
    let may = Netns::new(std::fs::File::open("/proc/thread-self/ns/net").unwrap().into())
        .and_then(|netns| netns.run(|| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)))
        .and_then(|socket| socket.set_mark(1));
    if let Err(error) = may {
        eprintln!("SKIPPED: this user may not enter network namespaces or mark packets: {error}");
        return;
    }
    on_one_thread(test).await;
}

/// `client` here; `cart` there, behind a gateway, where it serves at `app` what its service has at `port`.
fn two_networks(gateway: SocketAddr, port: u16, app: u16) -> Vec<Resource> {
    let far = NetworkAddress { network: "far".into(), ip: gateway.ip() };
    let gateway =
        GatewayAddress { destination: GatewayDestination::Address(far.clone()), hbone_mtls_port: gateway.port() };
    let subject_alt_names = vec![id("cart").to_string().into()];
    vec![
        Resource::Workload(Arc::new(pod("client"))),
        Resource::Service(Arc::new(Service { subject_alt_names, ..service(CART, "127.0.0.2", ports(port, 0)) })),
        // Here it stands for the pod on the other network: it serves, and takes no traffic from this one.
        serving(CART, ports(port, app), Workload { capacity: 0, ..pod("cart") }),
        serving(
            CART,
            ports(port, app),
            Workload { network: "far".into(), network_gateway: Some(gateway.into()), ..pod("cart-far") },
        ),
        Resource::Workload(Arc::new(Workload {
            network: "far".into(),
            tunnel: Tunnel::None,
            addresses: vec![far.ip],
            ..pod("gw")
        })),
    ]
}

/// O10 from end to end: one ztunnel's outbound path, a gateway, another pod's inbound path (I4), TLS at every end.
#[tokio::test]
async fn o10_a_service_of_another_network_is_reached_through_its_gateway() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let (client, server) = (ztunnel.serve("client"), ztunnel.serve("cart"));
        let (app, port) = (application().await, client.outbound);
        let at = gateway(&ztunnel.ca, server.hbone).await;
        ztunnel.tables.apply_local(two_networks(at, port, app));
        let vip = SocketAddr::new("127.0.0.2".parse().unwrap(), port);
        assert_eq!(say(vip, "across").await, "ACROSS");
        let outbound = ztunnel.logged("direction=\"outbound\"").await;
        assert!(outbound.contains(&format!("{CART}:{port}")), "4.7: the service is what is asked for: {outbound}");
        assert!(outbound.contains("sa/cart"), "11.1: who answered behind the gateway: {outbound}");
        let inbound = ztunnel.logged("direction=\"inbound\"").await;
        assert!(inbound.contains("sa/client"), "the inner tunnel proves the client, not the gateway: {inbound}");
        // Through a gateway and in two tunnels, it is one trace from the client to the server.
        let trace = trace_of(&outbound).expect("a trace");
        assert!(TraceParent::parse(trace).is_some(), "{outbound}");
        assert_eq!(trace_of(&inbound), Some(trace), "{inbound}");
        // On a connection to the gateway that is there already.
        for _ in 0..2 {
            assert_eq!(say(vip, "across").await, "ACROSS");
        }
    })
    .await;
}

/// O10, trap 21: a gateway that is somebody else is told nothing; nor is whoever is behind it and is none of the service's
/// names, though it is the very workload that the gateway led to.
#[tokio::test]
async fn o10_who_cannot_prove_itself_gets_no_byte_and_the_log_says_at_which_end() {
    with_rights(async {
        for (gateway_is, named, says) in
            [("imposter", "cart", "network gateway "), ("gw", "other", "behind network gateway ")]
        {
            let mut ztunnel = Ztunnel::new();
            let (client, server) = (ztunnel.serve("client"), ztunnel.serve("cart"));
            let (app, port) = (application().await, client.outbound);
            let at = gateway_of(ztunnel.ca.credentials(&id(gateway_is)), server.hbone).await;
            let mut tables = two_networks(at, port, app);
            for resource in &mut tables {
                if let Resource::Service(service) = resource {
                    let subject_alt_names = vec![id(named).to_string().into()];
                    *service = Arc::new(Service { subject_alt_names, ..Service::clone(service) });
                }
            }
            ztunnel.tables.apply_local(tables);
            let vip = SocketAddr::new("127.0.0.2".parse().unwrap(), port);
            assert_eq!(say(vip, "secret").await, "", "{gateway_is}");
            let line = ztunnel.logged("TLS_FAILED").await;
            assert!(line.contains(&format!("error=\"{says}{at}: ")), "{gateway_is}: {line}");
        }
    })
    .await;
}

/// O9 and 5.4 step 6: an endpoint that has only a name.
#[tokio::test]
async fn o9_an_endpoint_is_reached_by_its_hostname() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let client = ztunnel.serve("client");
        let (app, port) = (application().await, client.outbound);
        let outside = |service: &str, hostname: &str| {
            let outside = Workload { hostname: hostname.into(), tunnel: Tunnel::None, ..pod(hostname) };
            serving(service, ports(port, app), outside)
        };
        ztunnel.tables.apply_local(vec![
            Resource::Workload(Arc::new(pod("client"))),
            Resource::Service(Arc::new(service("db.shop", "127.0.0.2", ports(port, 0)))),
            outside("db.shop", "localhost"),
            Resource::Service(Arc::new(service("gone.shop", "127.0.0.3", ports(port, 0)))),
            outside("gone.shop", "not a name"),
        ]);
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
        assert_eq!(say(at("127.0.0.2"), "by name").await, "BY NAME");
        assert_eq!(say(at("127.0.0.3"), "by name").await, "");
        ztunnel.logged("HOSTNAME_UNRESOLVED").await;
    })
    .await;
}

/// I2 to I12: what the caller is answered.
#[tokio::test]
async fn inbound_rows_as_they_are_answered() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let (open, locked) = (ztunnel.serve("open").hbone, ztunnel.serve("locked").hbone);
        let app = application().await;
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        ztunnel.tables.apply_local(vec![
            nobody_enters(),
            Resource::Workload(Arc::new(pod("open"))),
            Resource::Workload(Arc::new(closed(pod("locked")))),
        ]);
        let (open, locked) = (("open", open), ("locked", locked));
        for (row, pod, authority, want) in [
            ("I2: no port", open, "127.0.0.1:0".to_owned(), (400, "BAD_REQUEST")),
            ("I4: unknown hostname", open, "nobody.shop:80".to_owned(), (503, "UNKNOWN_HOSTNAME")),
            ("I8: another address", open, "10.0.0.7:80".to_owned(), (400, "WRONG_DESTINATION")),
            ("I9: a reserved port", open, "127.0.0.1:15006".to_owned(), (503, "RECURSIVE_CALL")),
            ("I10, trap 14: 401, not 403", locked, format!("127.0.0.1:{app}"), (401, "POLICY_DENIED")),
            (
                "I11, trap 24: the dial comes before the answer",
                open,
                format!("127.0.0.1:{nobody}"),
                (503, "APPLICATION_UNREACHABLE"),
            ),
            (
                "I10 before I11, trap 24: who is denied learns nothing of the application",
                locked,
                format!("127.0.0.1:{nobody}"),
                (401, "POLICY_DENIED"),
            ),
            ("I5, I12", open, format!("127.0.0.1:{app}"), (200, "")),
        ] {
            let (status, reason) = ztunnel.ask(pod, &authority).await;
            assert_eq!((status, reason.as_str()), want, "{row}");
        }
        // I2, what is no CONNECT: nothing is guessed.
        let (mut client, _) = ztunnel.caller(open).await;
        let request = http::Request::get(format!("http://127.0.0.1:{app}")).body(()).unwrap();
        let refused = client.open(&request).await.err().unwrap().to_string();
        assert_eq!(refused, "http status: 400 Bad Request (BAD_REQUEST)", "I2: GET");
        // I12: bytes, and who we are.
        let (mut client, _) = ztunnel.caller(open).await;
        let request = connect::request(&format!("127.0.0.1:{app}"), &Context::default()).unwrap();
        let opened = client.open(&request).await.unwrap();
        assert_eq!(opened.headers["baggage"], "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop", "4.2");
        let (mut near, captured) = tcp::pair().await;
        hbone::carry(captured, opened.tunnel);
        near.write_all(b"in").await.unwrap();
        near.shutdown().await.unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "IN");
    })
    .await;
}

/// 4.8, I6: a waypoint behind an application tunnel hears of the caller first.
#[tokio::test]
async fn i6_a_proxy_header_comes_before_the_bytes() {
    with_rights(async {
        let mut ztunnel = Ztunnel::new();
        let waypoint = ztunnel.serve("wp");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let application_tunnel = Some(ApplicationTunnel { proxy_protocol: true, port });
        ztunnel.tables.apply_local(vec![Resource::Workload(Arc::new(Workload { application_tunnel, ..pod("wp") }))]);
        let (mut client, from) = ztunnel.caller(("wp", waypoint.hbone)).await;
        let request = connect::request("10.96.0.1:80", &Context::default()).unwrap();
        let opened = client.open(&request).await.unwrap();
        let (mut near, captured) = tcp::pair().await;
        hbone::carry(captured, opened.tunnel);
        near.write_all(b"GET /").await.unwrap();
        near.shutdown().await.unwrap();
        let (mut told, who) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        told.read_to_end(&mut heard).await.unwrap();
        assert!(who.ip().is_loopback(), "LOCALHOST_APP_TUNNEL");
        let header = proxy_protocol::header(from, "10.96.0.1:80".parse().unwrap(), Some(&id("caller")));
        assert_eq!(heard, [&header[..], b"GET /"].concat(), "trap 23: one header, with the identity in 0xD0");
    })
    .await;
}

/// O2, I3 and P2: a pod that the control plane does not tell of within 5 s neither calls nor is called. There is no 503
/// on a connection: without a workload there is no identity to answer with.
#[tokio::test]
async fn i3_a_pod_that_the_control_plane_does_not_know() {
    with_rights(async {
        let ztunnel = Ztunnel::new();
        let stranger = ztunnel.serve("stranger");
        let outbound = SocketAddr::new("127.0.0.2".parse().unwrap(), stranger.outbound);
        let refused = async |row: &str, to: SocketAddr| {
            let from = TcpStream::connect(to).await.unwrap();
            let (address, mut from) = (from.local_addr().unwrap(), from);
            assert!(matches!(from.read(&mut [0]).await, Ok(0) | Err(_)), "{row}: it is closed, without a byte");
            let line = ztunnel.logged(&address.to_string()).await;
            assert!(line.contains("UNKNOWN_WORKLOAD") && line.contains("shop/stranger"), "{row}: {line}");
        };
        tokio::join!(refused("O2", outbound), refused("I3", stranger.hbone), refused("P2", stranger.plaintext));
    })
    .await;
}

/// Bounds: a pod that holds its share is refused more, and the last permits are for others.
#[tokio::test]
async fn a_greedy_pod_is_shed_and_others_are_served() {
    with_rights(async {
        let mut ztunnel = Ztunnel::with(&[("ZTUNNEL_MAX_CONNECTIONS", "16")]);
        let (greedy, modest) = (ztunnel.serve("cart"), ztunnel.serve("pay"));
        let application = format!("127.0.0.1:{}", application().await);
        let pods = ["cart", "pay"].map(|name| Resource::Workload(Arc::new(pod(name))));
        ztunnel.tables.apply_local(pods.to_vec());
        // One permit for the connection, one for each of its tunnels.
        let (mut caller, from) = ztunnel.caller(("cart", greedy.hbone)).await;
        let open = async |caller: &mut Client| {
            let request = connect::request(&application, &Context::default()).unwrap();
            caller.open(&request).await
        };
        let mut held = Vec::new();
        let refused = loop {
            match open(&mut caller).await {
                Ok(opened) => held.push(opened),
                Err(refused) => break refused,
            }
        };
        assert_eq!(
            (held.len(), refused.to_string().as_str()),
            (3, "http status: 503 Service Unavailable (SOURCE_OVERLOADED)")
        );
        let line = ztunnel.logged("SOURCE_OVERLOADED").await;
        assert!(line.contains(&from.to_string()) && line.contains("ZTUNNEL_MAX_CONNECTIONS"), "{line}");
        // What other sources leave of the pod's share: four that hold one each.
        let mut others = Vec::new();
        for name in ["a", "b", "c", "d"] {
            others.push(ztunnel.dial_as(name, "127.0.0.1", ("cart", greedy.hbone)).await.unwrap());
        }
        // Then the pod is full: who comes now has the permit of one that carries nothing.
        let _knock = TcpStream::connect(greedy.hbone).await.unwrap();
        let line = ztunnel.logged("ENDED_FOR_OTHERS").await;
        assert!(line.contains("127.0.0.1"), "{line}");
        // Others find room, and so does the greedy one when it has let go of some.
        assert_eq!(ztunnel.ask(("pay", modest.hbone), &application).await.0, 200);
        held.clear();
        while open(&mut caller).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Bounds: a connection from a pod of this node, which comes through no tunnel, takes a permit of the server's too.
#[tokio::test]
async fn neighbours_take_places_of_the_pod_that_serves_them() {
    with_rights(async {
        let mut ztunnel = Ztunnel::with(&[("ZTUNNEL_MAX_CONNECTIONS_PER_POD", "1")]);
        // Served before who calls it, as commands are carried out in order.
        ztunnel.serve("cart");
        let (first, second) = (ztunnel.serve("first").outbound, ztunnel.serve("second").outbound);
        let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = application.local_addr().unwrap().port();
        let listens = [ports(first, port), ports(second, port)].concat();
        // Its own address is nobody's here; with a PROXY header it is dialled on loopback.
        let addresses = vec!["192.0.2.1".parse().unwrap()];
        let application_tunnel = Some(ApplicationTunnel { proxy_protocol: true, port });
        ztunnel.tables.apply_local(vec![
            Resource::Workload(Arc::new(pod("first"))),
            Resource::Workload(Arc::new(pod("second"))),
            Resource::Service(Arc::new(service(CART, "127.0.0.2", listens.clone()))),
            serving(CART, listens, Workload { addresses, application_tunnel, ..pod("cart") }),
        ]);
        let call = |port| TcpStream::connect(SocketAddr::new("127.0.0.2".parse().unwrap(), port));
        let (held, served) = (call(first).await.unwrap(), application.accept().await.unwrap());
        let from = call(second).await.unwrap().local_addr().unwrap();
        let line = ztunnel.logged("ZTUNNEL_MAX_CONNECTIONS").await;
        assert!(line.contains(&from.to_string()) && line.contains("POD_OVERLOADED"), "{line}");
        drop((held, served));
        while tokio::time::timeout(Duration::from_millis(20), application.accept()).await.is_err() {
            drop(call(second).await.unwrap());
        }
    })
    .await;
}

mod joined;
mod listed;
mod named;
mod own;
mod patience;
mod pod_gone;
mod same_node;
mod shares;
mod socks;
mod taken_back;
mod traces;
