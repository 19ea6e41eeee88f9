//! A whole waypoint in this process: real sockets, real TLS, HTTP clients and servers on both sides, on one data thread.

mod abuse;
mod asked;
mod balanced;
mod connections;
mod ends;
mod left;
mod limited;
mod logged;
mod named;
mod networks;
mod requests;
mod routed;
mod smuggled;
mod streams;
mod tokens;
mod traces;
mod traffic;
mod virtual_services;
mod workloads;

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::duplex::Duplex;
use mesh_hbone::server::Connection;
use mesh_identity::store::{Store, StoreOptions};
use mesh_model::address::{NamespacedName, NetworkAddress};
use mesh_model::pod::PodInfo;
use mesh_model::resource::Resource;
use mesh_model::route::{Rule, ServiceRoutes};
use mesh_model::service::{Service, Vip};
use mesh_model::workload::{AppProtocol, Memberships, PortMapping, Tunnel, Workload};
use mesh_proxy::context::ProxyContext;
use mesh_proxy::hostnames::Hostnames;
use mesh_proxy::metrics::{ReasonMetrics, RevocationMetrics};
use mesh_proxy::quota::{Limits, Quota};
use mesh_proxy::report::Telemetry;
use mesh_runtime::access_log::{AccessLog, MemoryLines};
use mesh_runtime::config::Env;
use mesh_runtime::drain;
use mesh_runtime::log::LogFormat;
use mesh_runtime::metrics::{Metrics, RequestMetrics, TextFormat, TrafficMetrics};
use mesh_testkit::ca::TestCa;
use mesh_testkit::hbone::{self, id};
use mesh_xds::follow::{self, Writer};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::{JoinHandle, spawn_local};

use crate::config::Config;
use crate::context::WaypointContext;
use crate::rate_limit::{RateLimitMetrics, RateLimits};
use crate::spans::exporter::{self, Exporter};
use crate::spans::{Finished, SpanMetrics, Spans};
use crate::upstream::{Clock, LocalExecutor, ServicePorts, UpstreamMetrics};
use crate::worker::{self, Command, Handle};

/// The service that is behind the waypoint.
pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);

/// A waypoint, and the other ends of what it reads.
pub(super) struct World {
    pub(super) ca: Arc<TestCa>,
    pub(super) at: SocketAddr,
    pub(super) tables: Writer,
    pub(super) log: MemoryLines,
    pub(super) drain: drain::Trigger,
    metrics: Metrics,
    context: Arc<WaypointContext>,
    thread: Handle,
    exporter: Exporter,
}

impl World {
    /// A waypoint that serves `cart`, whose port 80 speaks `protocol`, with these endpoints.
    pub(super) fn start(protocol: AppProtocol, endpoints: &[Endpoint]) -> Self {
        Self::start_with(protocol, endpoints, |_| {})
    }

    /// [`Self::start`], with other settings.
    pub(super) fn start_with(protocol: AppProtocol, endpoints: &[Endpoint], set: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(protocol, endpoints, set, Clock::started())
    }

    /// [`Self::start_with`], which judges endpoints by this clock.
    pub(super) fn start_at(
        protocol: AppProtocol,
        endpoints: &[Endpoint],
        set: impl FnOnce(&mut Config),
        clock: Clock,
    ) -> Self {
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
        let own = [("POD_NAME", "waypoint"), ("POD_NAMESPACE", "shop"), ("SERVICE_ACCOUNT", "waypoint")];
        let env: Env = own.into_iter().chain([("GATEWAY_NAME", "waypoint")]).collect();
        let proxy = ProxyContext {
            tables: reader,
            demand: None,
            certificates: Store::new(&tokio::runtime::Handle::current(), ca.clone(), StoreOptions::default()),
            telemetry: Arc::new(telemetry),
            quota: Quota::new(&Limits::default(), 4_096, Default::default(), Default::default()),
            hbone: Default::default(),
            hbone_metrics: Default::default(),
            drain: draining,
            cluster: "Kubernetes".into(),
            network: String::new(),
        };
        let (spans, queue) = Spans::new(SpanMetrics::register(&mut metrics));
        let mut config = Config::from_env(&env).unwrap();
        set(&mut config);
        let context = Arc::new(WaypointContext {
            proxy,
            requests: RequestMetrics::register(&mut metrics),
            ports: ServicePorts::new(UpstreamMetrics::register(&mut metrics), clock),
            hostnames: Hostnames::default(),
            endpoints_on_loopback: true,
            rate_limits: RateLimits::new(RateLimitMetrics::register(&mut metrics)),
            spans,
            gateway: NamespacedName::new("shop", "waypoint"),
            config,
        });
        let exporter = exporter::start(context.clone(), queue);
        let pod = PodInfo { name: "waypoint".into(), namespace: "shop".into(), service_account: "waypoint".into() };
        let thread = worker::start(0, context.clone(), Arc::new(pod)).unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let at = listener.local_addr().unwrap();
        assert!(thread.commands.send(Command::Serve(listener)).is_ok());
        let mut world = Self { ca, at, tables, log, drain, metrics, context, thread, exporter };
        let waypoint = Workload {
            name: "waypoint".into(),
            namespace: "shop".into(),
            service_account: "waypoint".into(),
            services: Memberships::from_iter([(key("waypoint"), Vec::new())]),
            ..Workload::empty("waypoint")
        };
        let mut all = vec![Resource::Workload(Arc::new(waypoint))];
        all.push(Resource::Service(Arc::new(service("cart", VIP.into(), protocol))));
        all.push(Resource::Routes(Arc::new(routes("cart", Vec::new(), &[]))));
        all.extend(endpoints.iter().map(|endpoint| endpoint.of("cart")));
        world.tables.apply_local(all);
        world
    }

    /// A connection of `who` to the waypoint.
    pub(super) async fn caller(&self, who: &str) -> Client {
        let credentials = self.ca.credentials(&id(who));
        hbone::dial(self.at, &credentials, &[id("waypoint")], &Default::default()).await.unwrap()
    }

    /// A tunnel of `who` to `to`.
    pub(super) async fn tunnel(&self, who: &str, to: &str) -> Result<Duplex, OpenError> {
        let request = connect::request(to, &Context::default()).unwrap();
        Ok(Duplex::new(self.caller(who).await.open(&request).await?.tunnel))
    }

    /// HTTP/1 to port 80 of `cart`, spoken by `who`.
    pub(super) async fn http1(&self, who: &str) -> http1::SendRequest<Full<Bytes>> {
        let tunnel = self.tunnel(who, "10.1.0.1:80").await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(tunnel)).await.unwrap();
        spawn_local(connection);
        sender
    }

    /// HTTP/2 to port 80 of `cart`, spoken by `who`.
    pub(super) async fn http2<B>(&self, who: &str) -> http2::SendRequest<B>
    where
        B: hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static,
    {
        let tunnel = self.tunnel(who, "10.1.0.1:80").await.unwrap();
        let mut builder = http2::Builder::new(LocalExecutor);
        let (sender, connection) =
            builder.max_header_list_size(64 << 10).handshake(TokioIo::new(tunnel)).await.unwrap();
        spawn_local(connection);
        sender
    }

    /// The log's last line that has `word`, once it is there.
    pub(super) async fn logged(&self, word: &str) -> String {
        loop {
            match self.log.lines().into_iter().rfind(|line| line.contains(word)) {
                Some(line) => return line,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// The page of metrics.
    pub(super) fn metrics(&self) -> String {
        self.metrics.encode(TextFormat::Prometheus).unwrap()
    }

    /// What the configuration dump says of services' ports.
    pub(super) fn upstreams(&self) -> serde_json::Value {
        self.context.ports.dump()
    }

    /// Ends it, and waits for its thread.
    pub(super) async fn end(self) {
        let Self { context, thread, exporter, .. } = self;
        drop(context);
        tokio::task::spawn_blocking(|| thread.join()).await.unwrap();
        exporter.end().await;
    }
}

/// An endpoint of a service.
pub(super) struct Endpoint {
    name: String,
    at: SocketAddr,
    tunnel: Tunnel,
}

impl Endpoint {
    /// Outside the mesh, at an address of its own. Where nobody listens it refuses.
    pub(super) fn plain(name: &str, at: SocketAddr) -> Self {
        Self { name: name.to_owned(), at, tunnel: Tunnel::None }
    }

    /// In the mesh: its ztunnel listens on port 15008 of its address.
    pub(super) fn hbone(name: &str, at: SocketAddr) -> Self {
        Self { name: name.to_owned(), at, tunnel: Tunnel::Hbone }
    }

    /// As the control plane tells of it.
    pub(super) fn of(&self, of: &str) -> Resource {
        let ports =
            vec![PortMapping { service_port: 80, target_port: self.at.port(), app_protocol: AppProtocol::Unknown }];
        Resource::Workload(Arc::new(Workload {
            name: self.name.as_str().into(),
            namespace: "shop".into(),
            service_account: "cart".into(),
            addresses: vec![self.at.ip()],
            tunnel: self.tunnel,
            services: Memberships::from_iter([(key(of), ports)]),
            ..Workload::empty(self.name.as_str())
        }))
    }
}

/// `name` of namespace `shop`.
pub(super) fn key(name: &str) -> NamespacedName {
    NamespacedName::new("shop", format!("{name}.shop.svc.cluster.local"))
}

/// A service of namespace `shop`.
pub(super) fn service(name: &str, vip: IpAddr, app_protocol: AppProtocol) -> Service {
    let address = NetworkAddress { network: "".into(), ip: vip };
    Service {
        name: name.into(),
        vips: vec![Vip { address, prefix: None }],
        ports: vec![PortMapping { service_port: 80, target_port: 0, app_protocol }],
        ..Service::empty("shop", &*key(name).name)
    }
}

/// The routes of a service.
pub(super) fn routes(name: &str, rules: Vec<Rule>, policies: &[&str]) -> ServiceRoutes {
    let policies = policies.iter().map(|policy| NamespacedName::new("shop", *policy)).collect();
    let (traffic, tokens) = (Vec::new(), Arc::default());
    ServiceRoutes {
        service: key(name),
        ports: Vec::new(),
        rules,
        policies,
        traffic,
        tokens,
        tracing: None,
        access_logging: None,
        subsets: Vec::new(),
        streams: Vec::new(),
        rate_limits: Arc::default(),
    }
}

/// The address of endpoints in the mesh: this machine's own, by the one way to write it that is not loopback's. (On loopback
/// port 15008 would be the waypoint itself.)
pub(super) const MESHED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// An HTTP/1 application.
pub(super) async fn application<F>(serve: impl Fn(Request<Incoming>) -> F + Clone + 'static) -> SocketAddr
where
    F: Future<Output = Response<Full<Bytes>>> + 'static,
{
    mesh_testkit::tcp::listen(move |tcp| {
        let serve = serve.clone();
        let service = hyper::service::service_fn(move |request| {
            let answer = serve(request);
            async move { Ok::<_, std::convert::Infallible>(answer.await) }
        });
        async move {
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
        }
    })
    .await
}

/// What an answer says.
pub(super) async fn text(answer: Response<Incoming>) -> (u16, String) {
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.into()).unwrap())
}

/// The ztunnel of endpoints at [`MESHED`]. There is one at a time.
pub(super) struct Ztunnel {
    /// Tunnels that were opened.
    pub(super) tunnels: Rc<Cell<usize>>,
    _alone: MutexGuard<'static, ()>,
    task: JoinHandle<()>,
}

impl Drop for Ztunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ztunnel {
    /// Carries tunnels to `application`, of this machine.
    pub(super) async fn start(ca: &TestCa, application: SocketAddr) -> Self {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        let (credentials, tunnels) = (ca.credentials(&id("cart")), Rc::new(Cell::new(0)));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 15_008)).await.unwrap();
        let counted = tunnels.clone();
        let task = spawn_local(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (config, counted) = (credentials.server_config(), counted.clone());
                spawn_local(async move {
                    let settings = Default::default();
                    let mut connection = Connection::accept(tcp, config, &settings).await.unwrap();
                    assert_eq!(connection.peer, id("waypoint"), "who opens tunnels to endpoints");
                    while let Some(Ok(asked)) = connection.next().await {
                        assert_eq!(asked.authority, format!("{MESHED}:{}", application.port()));
                        counted.set(counted.get() + 1);
                        hbone::let_in(asked, application, "");
                    }
                });
            }
        });
        Self { tunnels, _alone: alone, task }
    }
}
