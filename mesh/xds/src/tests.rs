//! Both ends over a real TLS socket: sync, updates, refusals, reconnects, on demand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh_control::channel::{self, ChannelConfig, ServerRoots, Token};
use mesh_model::resource::{Kind, Resource};
use mesh_model::workload::Workload;
use mesh_proto::discovery::Node;
use mesh_runtime::metrics::{Metrics, TextFormat, XdsServerMetrics};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

use crate::client;
use crate::demand::{self, Demand, Unanswered};
use crate::follow::{self, Reader};
use crate::node::NodeInfo;
use crate::observe::{End, Observer};
use crate::published::{Published, Publisher};
use crate::server::{Caller, Discovery, Gate, Limits};

mod scripted;

const NAME: &str = "istiod.istio-system.svc";
/// How long a test waits for what must happen before it fails.
const SOON: Duration = Duration::from_secs(20);

/// Admits who has the token.
struct Doorman;

impl Gate for Doorman {
    fn admit(&self, call: &http::request::Parts) -> Result<Caller, Status> {
        match call.headers.get("authorization").and_then(|token| token.to_str().ok()) {
            Some("Bearer good") => {
                Ok(Caller { name: "ztunnel".into(), namespace: Some("istio-system".into()), proxy: true })
            }
            _ => Err(Status::unauthenticated("no")),
        }
    }
}

/// A control plane that can be stopped and started on the same port. It has a runtime of its own: when that ends,
/// everything ends, as with a killed process.
struct ControlPlane {
    port: u16,
    /// Bound to the port and not listening: nobody else gets it while this is stopped.
    _kept: tokio::net::TcpSocket,
    certified: rcgen::CertifiedKey<rcgen::KeyPair>,
    limits: Limits,
    metrics: XdsServerMetrics,
    running: Option<tokio::runtime::Runtime>,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

impl ControlPlane {
    fn start(published: watch::Receiver<Published>) -> Self {
        Self::start_within(published, Limits::default())
    }

    fn start_within(published: watch::Receiver<Published>, limits: Limits) -> Self {
        let certified = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let kept = Self::socket(0);
        let port = kept.local_addr().unwrap().port();
        let metrics = XdsServerMetrics::default();
        let mut made = Self { port, _kept: kept, certified, limits, metrics, running: None };
        made.serve(published);
        made
    }

    fn socket(port: u16) -> tokio::net::TcpSocket {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], port).into()).unwrap();
        socket
    }

    /// Begins to serve, on its port.
    fn serve(&mut self, published: watch::Receiver<Published>) {
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(self.certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certified.cert.der().clone()], key.into())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            Self::socket(self.port).listen(16).unwrap()
        };
        let incoming = TcpListenerStream::new(listener)
            .then(move |stream| {
                let acceptor = acceptor.clone();
                async move { acceptor.accept(stream?).await }
            })
            // A client that gives up in the handshake ends only its own connection.
            .filter(Result::is_ok);
        let service = Discovery::new(published, Arc::new(Doorman), self.limits).counted_in(self.metrics.clone());
        runtime.spawn(tonic::transport::Server::builder().serve_with_incoming(service, incoming));
        self.running = Some(runtime);
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            // Until its listener is gone, too. A runtime may not wait for another, a thread may.
            std::thread::spawn(move || drop(running)).join().unwrap();
        }
    }

    fn channel(&self, token: &str) -> ChannelConfig {
        ChannelConfig {
            address: format!("https://127.0.0.1:{}", self.port).parse().unwrap(),
            roots: ServerRoots::Pem(self.certified.cert.pem()),
            server_name: Some(NAME.into()),
            token: Token::Literal(token.into()),
            cluster_id: "Kubernetes".into(),
            headers: Vec::new(),
        }
    }
}

/// Counts for real.
#[derive(Default)]
struct Counted {
    bytes: Mutex<Vec<u64>>,
    ends: Mutex<Vec<End>>,
    changed: watch::Sender<()>,
}

impl Observer for Counted {
    fn message(&self, _: &str, bytes: u64) {
        self.bytes.lock().unwrap().push(bytes);
        self.changed.send_replace(());
    }
    fn ended(&self, end: End) {
        self.ends.lock().unwrap().push(end);
        self.changed.send_replace(());
    }
}

impl Counted {
    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let wait = async {
            while !what(self) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("counted in time");
    }
}

/// A proxy that follows.
struct Proxy {
    tables: Reader,
    counted: Arc<Counted>,
    demand: Option<Demand>,
    task: JoinHandle<std::convert::Infallible>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn node() -> Node {
    NodeInfo { pod_name: "z".into(), pod_namespace: "istio-system".into(), ..NodeInfo::default() }.to_node()
}

fn follow(config: &ChannelConfig, node: Node, on_demand: bool) -> Proxy {
    follow_keeping(config, node, on_demand, Duration::MAX)
}

fn follow_keeping(config: &ChannelConfig, node: Node, on_demand: bool, keep: Duration) -> Proxy {
    let (writer, tables) = follow::tables();
    let counted = Arc::new(Counted::default());
    let (demand, demands) = demand::demand(keep);
    let demands = on_demand.then_some(demands);
    let channel = channel::connect(config).unwrap();
    let task = tokio::spawn(client::run(channel, node, &Kind::ISTIO, writer, demands, counted.clone()));
    Proxy { tables, counted, demand: on_demand.then_some(demand), task }
}

impl Proxy {
    async fn until(&self, what: impl Fn(&mesh_model::tables::Tables) -> bool) {
        let mut changed = self.tables.changed();
        let wait = async {
            while !self.tables.read(&what) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("in the tables in time");
    }

    async fn synced(&self) {
        let mut synced = self.tables.synced();
        tokio::time::timeout(SOON, synced.wait_for(|synced| *synced)).await.expect("synced in time").unwrap();
    }
}

fn workload(uid: &str, ip: &str) -> Resource {
    Resource::Workload(Arc::new(Workload { addresses: vec![ip.parse().unwrap()], ..Workload::empty(uid) }))
}

fn policy(name: &str) -> Resource {
    let wire = mesh_proto::policy::Authorization { name: name.into(), namespace: "shop".into(), ..Default::default() };
    Resource::Policy(Arc::new(wire.try_into().unwrap()))
}

#[tokio::test]
async fn a_stream_ends_at_its_age_and_nothing_is_lost_or_said_twice() {
    let mut publisher = Publisher::new();
    publisher.publish([workload("a", "10.0.0.1")]);
    let limits = Limits { age: Some(Duration::from_millis(200)), ..Limits::default() };
    let control = ControlPlane::start_within(publisher.subscribe(), limits);
    let proxy = follow(&control.channel("good"), node(), false);
    proxy.until(|t| t.workload("a").is_some()).await;
    proxy.counted.until(|c| c.ends.lock().unwrap().len() > 1).await;
    publisher.publish([workload("a", "10.0.0.1"), workload("b", "10.0.0.2")]);
    proxy.until(|t| t.workload("b").is_some()).await;
    proxy.counted.until(|c| c.ends.lock().unwrap().len() > 3).await;
    assert!(proxy.counted.ends.lock().unwrap().iter().all(|end| *end == End::Complete), "no stream fails");
    let with_something = proxy.counted.bytes.lock().unwrap().iter().filter(|bytes| **bytes > 0).count();
    assert_eq!(with_something, 2, "each workload once");
}

#[tokio::test]
async fn tables_follow_the_control_plane() {
    let mut publisher = Publisher::new();
    let plane = ControlPlane::start(publisher.subscribe());
    let proxy = follow(&plane.channel("good"), node(), false);
    assert!(!*proxy.tables.synced().borrow());
    publisher.publish([workload("a", "10.0.0.1"), workload("b", "10.0.0.2"), policy("p")]);
    proxy.synced().await;
    proxy.tables.read(|t| {
        assert_eq!((t.workloads().count(), t.policies().count()), (2, 1));
    });
    publisher.publish([workload("a", "10.0.0.9"), policy("p")]);
    proxy
        .until(|t| t.workload("b").is_none() && t.workload_by_address("", "10.0.0.9".parse().unwrap()).is_some())
        .await;
    assert!(proxy.tables.read(|t| t.workload_by_address("", "10.0.0.1".parse().unwrap()).is_none()));
    assert_eq!(proxy.counted.bytes.lock().unwrap().len(), 3);
}

/// Waits until the metrics of a control plane have these lines.
async fn until_measured(metrics: &Metrics, lines: &[&str]) {
    let text = || metrics.encode(TextFormat::Prometheus).unwrap();
    let wait = async {
        while !lines.iter().all(|line| text().lines().any(|have| have == *line)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("{lines:?} are not all in\n{}", text()));
}

/// What a proxy refuses is seen in the metrics of who sent it, for as long as it refuses it.
#[tokio::test]
async fn a_refusal_is_counted_and_seen_until_it_is_mended() {
    let mut publisher = Publisher::new();
    publisher.publish([workload("a", "10.0.0.1")]);
    let plane = ControlPlane::start(publisher.subscribe());
    let mut metrics = Metrics::new("pilot", "0");
    crate::observe::register(&plane.metrics, &mut metrics);
    let proxy = follow(&plane.channel("good"), node(), false);
    proxy.synced().await;
    let well = [
        "pilot_xds{type=\"ztunnel\"} 1",
        "pilot_xds_pushes{type=\"wds\"} 1",
        "pilot_total_xds_rejects{type=\"wds\"} 0",
        "pilot_proxy_convergence_time_count 1",
        "ambit_xds_subscribers_behind 0",
    ];
    until_measured(&metrics, &well).await;
    // A workload without a name.
    publisher.publish([workload("a", "10.0.0.1"), workload("", "10.0.0.2")]);
    let refused = ["pilot_total_xds_rejects{type=\"wds\"} 1", "ambit_xds_subscribers_refusing 1"];
    until_measured(&metrics, &refused).await;
    publisher.publish([workload("a", "10.0.0.1"), workload("b", "10.0.0.2")]);
    proxy.until(|t| t.workload("b").is_some()).await;
    let mended = ["pilot_total_xds_rejects{type=\"wds\"} 1", "ambit_xds_subscribers_refusing 0"];
    until_measured(&metrics, &mended).await;
    drop(proxy);
    until_measured(&metrics, &["pilot_xds{type=\"ztunnel\"} 0"]).await;
}

#[tokio::test]
async fn an_empty_mesh_is_a_mesh() {
    let mut publisher = Publisher::new();
    publisher.publish([]);
    let plane = ControlPlane::start(publisher.subscribe());
    follow(&plane.channel("good"), node(), false).synced().await;
}

#[tokio::test]
async fn a_restart_is_survived_and_nothing_is_sent_again() {
    let mut publisher = Publisher::new();
    let resources = || [workload("a", "10.0.0.1"), workload("b", "10.0.0.2"), policy("p")];
    publisher.publish(resources());
    let mut plane = ControlPlane::start(publisher.subscribe());
    let proxy = follow(&plane.channel("good"), node(), false);
    proxy.synced().await;
    let before = proxy.counted.bytes.lock().unwrap().len();
    plane.stop();
    proxy.counted.until(|c| c.ends.lock().unwrap().len() >= 2).await;
    assert_eq!(proxy.tables.read(|t| t.workloads().count()), 2, "what is known stays");

    // Another process: another publisher, and at first nothing to say.
    let mut publisher = Publisher::new();
    plane.serve(publisher.subscribe());
    publisher.publish(resources());
    proxy.counted.until(|c| c.bytes.lock().unwrap().len() >= before + 2).await;
    assert_eq!(proxy.counted.bytes.lock().unwrap()[before..], [0, 0], "nothing was sent again");
    assert_eq!(proxy.tables.read(|t| t.workloads().count()), 2);
    publisher.publish([workload("a", "10.0.0.1")]);
    proxy.until(|t| t.workloads().count() == 1 && t.policies().count() == 0).await;
    assert!(proxy.counted.ends.lock().unwrap().contains(&End::ConnectionError));
}

/// The state is brought together as a whole after a reconnect: what changed, what is new, what is gone; of each kind.
#[tokio::test]
async fn a_reconnect_takes_in_what_changed_meanwhile() {
    let mut publisher = Publisher::new();
    let same = || [workload("same", "10.0.0.1"), policy("same")];
    publisher.publish(same().into_iter().chain([
        workload("moved", "10.0.0.2"),
        workload("gone", "10.0.0.3"),
        policy("gone"),
    ]));
    let mut plane = ControlPlane::start(publisher.subscribe());
    let proxy = follow(&plane.channel("good"), node(), false);
    proxy.synced().await;
    plane.stop();
    proxy.counted.until(|c| !c.ends.lock().unwrap().is_empty()).await;
    assert_eq!(proxy.tables.read(|t| (t.workloads().count(), t.policies().count())), (3, 2), "what is known stays");

    // The address of the one that is gone has another owner.
    let mut publisher = Publisher::new();
    publisher.publish(same().into_iter().chain([
        workload("moved", "10.0.0.9"),
        workload("new", "10.0.0.3"),
        policy("new"),
    ]));
    plane.serve(publisher.subscribe());
    let owner = |t: &mesh_model::tables::Tables, ip: &str| {
        t.workload_by_address("", ip.parse().unwrap()).map(|workload| workload.uid.to_string())
    };
    proxy.until(|t| owner(t, "10.0.0.9").as_deref() == Some("moved") && t.policies().all(|p| &*p.name != "gone")).await;
    proxy.tables.read(|t| {
        let owners = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| owner(t, ip));
        assert_eq!(owners, [Some("same".into()), None, Some("new".into())]);
        assert_eq!((t.workloads().count(), t.policies().count()), (3, 2));
    });
}

#[tokio::test]
async fn on_demand_only_what_is_asked_for_comes() {
    let mut publisher = Publisher::new();
    publisher.publish([workload("a", "10.0.0.1"), workload("b", "10.0.0.2")]);
    let plane = ControlPlane::start(publisher.subscribe());
    let proxy = follow(&plane.channel("good"), node(), true);
    proxy.synced().await;
    assert_eq!(proxy.tables.read(|t| t.workloads().count()), 0);
    let demand = proxy.demand.clone().unwrap();
    let ask = |key: &'static str| {
        let demand = demand.clone();
        async move { drop(demand.fetch(key, SOON).await.unwrap()) }
    };
    ask("/10.0.0.2").await;
    assert!(proxy.tables.read(|t| t.workload("b").is_some() && t.workload("a").is_none()));
    ask("/10.0.0.3").await;
    ask("/10.0.0.2").await;
    assert_eq!(proxy.tables.read(|t| t.workloads().count()), 1);
    // What was unknown and comes later is told.
    publisher.publish([workload("a", "10.0.0.1"), workload("b", "10.0.0.2"), workload("c", "10.0.0.3")]);
    proxy.until(|t| t.workload("c").is_some()).await;
    assert!(proxy.tables.read(|t| t.workload("a").is_none()));
}

#[tokio::test]
async fn trap_36_nothing_comes_until_it_is_asked_for_and_what_is_unknown_is_remembered() {
    let mut publisher = Publisher::new();
    publisher.publish([workload("a", "10.0.0.1")]);
    let mut plane = ControlPlane::start(publisher.subscribe());
    let proxy = follow(&plane.channel("good"), node(), true);
    proxy.synced().await;
    let demand = proxy.demand.clone().unwrap();
    assert_eq!(proxy.tables.read(|t| t.workloads().count()), 0);
    drop(demand.fetch("/192.0.2.1", SOON).await.unwrap());
    drop(demand.fetch("/10.0.0.1", SOON).await.unwrap());
    let before = proxy.counted.bytes.lock().unwrap().len();
    drop(demand.fetch("/192.0.2.1", SOON).await.unwrap());
    drop(demand.fetch("/10.0.0.1", SOON).await.unwrap());
    assert_eq!(proxy.counted.bytes.lock().unwrap().len(), before, "asked once");

    plane.stop();
    proxy.counted.until(|c| !c.ends.lock().unwrap().is_empty()).await;
    drop(demand.fetch("/192.0.2.1", SOON).await.unwrap());
    let short = Duration::from_millis(50);
    let silent = demand.fetch("/192.0.2.2", short).await.err();
    assert_eq!(silent, Some(Unanswered::Silent("/192.0.2.2".into(), short)));

    // What was asked for is asked again on the next stream, and what became of it meanwhile is told.
    let mut publisher = Publisher::new();
    publisher.publish([workload("b", "192.0.2.1")]);
    plane.serve(publisher.subscribe());
    proxy.until(|t| t.workload("b").is_some() && t.workload("a").is_none()).await;
    drop(demand.fetch("/192.0.2.2", SOON).await.unwrap());
}

/// What nobody uses any more is let go of, at both ends, and comes again when it is asked for again.
#[tokio::test]
async fn on_demand_what_nobody_uses_goes_and_comes_back() {
    let mut publisher = Publisher::new();
    publisher.publish([workload("a", "10.0.0.1"), workload("b", "10.0.0.2")]);
    let plane = ControlPlane::start(publisher.subscribe());
    let proxy = follow_keeping(&plane.channel("good"), node(), true, Duration::from_millis(100));
    proxy.synced().await;
    let demand = proxy.demand.clone().unwrap();
    let in_use = demand.fetch("/10.0.0.1", SOON).await.unwrap();
    drop(demand.fetch("/10.0.0.2", SOON).await.unwrap());
    proxy.until(|t| t.workload("b").is_none()).await;
    assert!(proxy.tables.read(|t| t.workload("a").is_some()), "it is in use");
    // Nothing is told of it any more, until it is asked for.
    publisher.publish([workload("a", "10.0.0.9"), workload("b", "10.0.0.2")]);
    proxy.until(|t| t.workload_by_address("", "10.0.0.9".parse().unwrap()).is_some()).await;
    assert!(proxy.tables.read(|t| t.workload("b").is_none()));
    let again = demand.fetch("/10.0.0.2", SOON).await.unwrap();
    assert!(proxy.tables.read(|t| t.workload("b").is_some()));
    drop((in_use, again));
}

/// Trap 28 besides: the waypoint of what was dialled is part of the decision, so it is asked for too.
#[tokio::test]
async fn on_demand_a_connection_gets_all_that_its_decision_needs() {
    use mesh_model::address::{GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress};
    use mesh_model::service::{Service, Vip};

    let at =
        |ip: &str| vec![Vip { address: NetworkAddress { network: "".into(), ip: ip.parse().unwrap() }, prefix: None }];
    let destination = GatewayDestination::Hostname(NamespacedName::new("shop", "wp"));
    let waypoint = Some(GatewayAddress { destination, hbone_mtls_port: 15008 }.into());
    let of = |service: &str, uid: &str, ip: &str| {
        let mut workload = Workload { addresses: vec![ip.parse().unwrap()], ..Workload::empty(uid) };
        workload.services.insert(NamespacedName::new("shop", service), Vec::new());
        Resource::Workload(workload.into())
    };
    let mut publisher = Publisher::new();
    publisher.publish([
        Resource::Service(Service { vips: at("10.96.0.1"), waypoint, ..Service::empty("shop", "cart") }.into()),
        Resource::Service(Service { vips: at("10.96.0.2"), ..Service::empty("shop", "wp") }.into()),
        of("cart", "cart-1", "10.0.0.1"),
        of("wp", "wp-1", "10.0.0.2"),
        of("other", "other-1", "10.0.0.3"),
    ]);
    let plane = ControlPlane::start(publisher.subscribe());
    let proxy = follow(&plane.channel("good"), node(), true);
    proxy.synced().await;
    let client = Workload::empty("client");
    let demand = proxy.demand.clone().unwrap();
    let _in_use = demand.complete(&proxy.tables, &client, "", "10.96.0.1".parse().unwrap(), SOON).await.unwrap();
    proxy.tables.read(|t| {
        assert!(t.service(&NamespacedName::new("shop", "wp")).is_some());
        assert_eq!(t.endpoints(&NamespacedName::new("shop", "wp")).len(), 1);
        assert_eq!(t.workloads().count(), 2, "and nothing else");
    });
}

#[tokio::test]
async fn who_is_not_admitted_gets_nothing() {
    let mut publisher = Publisher::new();
    publisher.publish([workload("a", "10.0.0.1")]);
    let plane = ControlPlane::start(publisher.subscribe());
    let stranger = follow(&plane.channel("bad"), node(), false);
    stranger.counted.until(|c| c.ends.lock().unwrap().len() >= 2).await;
    // Admitted, but claims to be of a namespace that its token is not of.
    let elsewhere = NodeInfo { pod_name: "z".into(), pod_namespace: "shop".into(), ..NodeInfo::default() };
    let liar = follow(&plane.channel("good"), elsewhere.to_node(), false);
    liar.counted.until(|c| c.ends.lock().unwrap().len() >= 2).await;
    for proxy in [stranger, liar] {
        assert!(proxy.counted.bytes.lock().unwrap().is_empty());
        assert!(!*proxy.tables.synced().borrow());
    }
}

/// What asks for more than it may have ends, and hears which bound it met; others are served as before.
#[tokio::test]
async fn gluttons_are_turned_away_by_name() {
    use mesh_proto::discovery::DeltaDiscoveryRequest;

    use crate::service::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

    let mut publisher = Publisher::new();
    publisher.publish([workload("a", "10.0.0.1")]);
    let limits = Limits { request: 256 * 1024, names_each: 64 * 1024, names: 1 << 20, ..Limits::default() };
    let plane = ControlPlane::start_within(publisher.subscribe(), limits);
    let first = || DeltaDiscoveryRequest {
        node: Some(node()),
        type_url: Kind::Address.type_url().into(),
        ..DeltaDiscoveryRequest::default()
    };
    // A stream on which this is sent, and nothing more until the sender is dropped.
    let open = |request: DeltaDiscoveryRequest| {
        let mut client = AggregatedDiscoveryServiceClient::new(channel::connect(&plane.channel("good")).unwrap());
        let (sender, requests) = tokio::sync::mpsc::channel(1);
        sender.try_send(request).unwrap();
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        async move { Ok::<_, Status>((client.delta_aggregated_resources(requests).await?, sender)) }
    };
    let end = |request: DeltaDiscoveryRequest| async {
        let (responses, _sender) = open(request).await?;
        let mut responses = responses.into_inner();
        while responses.message().await?.is_some() {}
        panic!("it ended well")
    };
    let names = |many: usize| (0..many).map(|n| format!("/{n}")).collect::<Vec<_>>();
    let mut wordy = first();
    wordy.node.as_mut().unwrap().id.push_str(&"x".repeat(70_000));
    let declares = names(1000).into_iter().map(|name| (name, "1".repeat(100))).collect();
    for (what, request, named) in [
        ("names", DeltaDiscoveryRequest { resource_names_subscribe: names(2000), ..first() }, "XDS_NAMES_PER_CALLER"),
        ("declared", DeltaDiscoveryRequest { initial_resource_versions: declares, ..first() }, "XDS_NAMES_PER_CALLER"),
        (
            "bytes",
            DeltaDiscoveryRequest { resource_names_subscribe: names(50_000), ..first() },
            "ISTIO_GPRC_MAXRECVMSGSIZE",
        ),
        ("a node", wordy, "a node of"),
    ] {
        let ended: Result<(), Status> = tokio::time::timeout(SOON, end(request)).await.expect(what);
        let status = ended.unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{what}: {status}");
        assert!(status.message().contains(named), "{what}: {status}");
    }
    let mut held = Vec::new();
    let refused = loop {
        match open(first()).await {
            Ok(stream) => held.push(stream),
            Err(refused) => break refused,
        }
    };
    assert_eq!((held.len(), refused.code()), (8, tonic::Code::ResourceExhausted), "{refused}");
    drop(held);
    follow(&plane.channel("good"), node(), false).synced().await;
}
