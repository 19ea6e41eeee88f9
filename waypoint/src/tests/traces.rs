//! Traces of requests, as applications and a collector see them. The collector is a gRPC server of OpenTelemetry's own definition.

use std::cell::RefCell;
use std::collections::HashMap;

use mesh_model::route::{Backend, BackendTarget, Filter, Mirror, RequestMatch, Retry, RouteKind};
use mesh_model::trace::{Tag, TagValue, Tracing};
use mesh_testkit::hbone::on_one_thread;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::sync::mpsc;
use tower_service::Service as _;

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What a collector has been sent.
struct Receiver(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let _ = self.0.send(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector, and what it is sent.
async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let (sent, comes) = mpsc::unbounded_channel();
    let server = TraceServiceServer::new(Receiver(sent));
    let at = mesh_testkit::tcp::listen(move |tcp| {
        let server = server.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| server.clone().call(request));
        async move {
            let _ = hyper::server::conn::http2::Builder::new(LocalExecutor)
                .serve_connection(TokioIo::new(tcp), service)
                .await;
        }
    })
    .await;
    (at, comes)
}

/// An application that keeps the headers that it is asked with, and answers with these statuses in turn.
async fn remembers(statuses: &'static [u16]) -> (SocketAddr, Rc<RefCell<Vec<http::HeaderMap>>>) {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let told = seen.clone();
    let at = application(move |request: Request<Incoming>| {
        let mut seen = told.borrow_mut();
        let status = statuses[seen.len() % statuses.len()];
        seen.push(request.headers().clone());
        std::future::ready(Response::builder().status(status).body(Full::default()).unwrap())
    })
    .await;
    (at, seen)
}

fn traced(sampling: u16, rules: Vec<Rule>) -> Resource {
    let tag = |name: &str, value| Tag { name: name.into(), value };
    let tracing = Tracing {
        provider: "otel".into(),
        collector: Some((key("collector"), 80)),
        sampling,
        tags: vec![
            tag("environment", TagValue::Literal("test".into())),
            tag("user", TagValue::Header { name: "x-user".into(), default: Some("nobody".into()) }),
        ],
        istio_tags: true,
    };
    Resource::Routes(Arc::new(ServiceRoutes { tracing: Some(tracing.into()), ..routes("cart", rules, &[]) }))
}

/// A waypoint whose requests are traced, and reported to a collector at `at`.
fn world(application: SocketAddr, collector: Endpoint, sampling: u16, rules: Vec<Rule>) -> World {
    let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
    world.tables.apply_local(vec![
        traced(sampling, rules),
        Resource::Service(Arc::new(service("collector", "10.1.0.9".parse().unwrap(), AppProtocol::Grpc))),
        collector.of("collector"),
    ]);
    world
}

/// For every GET.
fn rule(retry: Option<Retry>) -> Rule {
    Rule {
        kind: RouteKind::Http,
        route: NamespacedName::new("shop", "cart"),
        name: "rules[0]".into(),
        port: None,
        callers: None,
        matches: vec![RequestMatch { method: Some("GET".into()), ..RequestMatch::default() }],
        filters: Vec::new(),
        backends: vec![Backend { target: BackendTarget::Service(key("cart"), 80), weight: 1, filters: Vec::new() }],
        request_timeout: None,
        backend_timeout: None,
        retry,
        fault: None,
    }
}

async fn ask(world: &World, headers: &[(&str, &str)]) -> u16 {
    let request = Request::get("/a?secret=1").header("host", "cart");
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let answer = world.http1("web").await.send_request(request.body(Full::default()).unwrap()).await.unwrap();
    text(answer).await.0
}

fn attributes(all: &[KeyValue]) -> HashMap<&str, String> {
    let text = |value: &KeyValue| match value.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    all.iter().map(|one| (&*one.key, text(one))).collect()
}

/// The spans of one message: the request's own, and those of its tries.
fn spans(message: ExportTraceServiceRequest) -> (Span, Vec<Span>) {
    let [of_resource] = <[_; 1]>::try_from(message.resource_spans).unwrap();
    let resource = of_resource.resource.unwrap();
    assert_eq!(attributes(&resource.attributes)["service.name"], "waypoint.shop");
    let mut tries: Vec<Span> = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans).collect();
    let own = tries.iter().position(|span| span.kind() == SpanKind::Server).unwrap();
    let own = tries.remove(own);
    for one in &tries {
        assert_eq!((one.kind(), &one.parent_span_id, &one.trace_id), (SpanKind::Client, &own.span_id, &own.trace_id));
        assert!(
            own.start_time_unix_nano <= one.start_time_unix_nano && one.end_time_unix_nano <= own.end_time_unix_nano
        );
    }
    (own, tries)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The caller's step leads to the waypoint's, that to the try, and the application is told of the last.
#[tokio::test]
async fn a_request_is_a_span_and_each_try_is_one_below_it() {
    on_one_thread(async {
        let ((application, seen), (at, mut comes)) = (remembers(&[200]).await, collector().await);
        // Through a tunnel, as to any endpoint in the mesh.
        let world =
            world(application, Endpoint::hbone("collector-1", SocketAddr::new(MESHED, at.port())), 0, Vec::new());
        let ztunnel = Ztunnel::start(&world.ca, at).await;
        let parent = format!("00-{TRACE}-{CALLER}-01");
        let headers = [
            ("traceparent", &*parent),
            ("tracestate", "a=1"),
            ("x-user", "ann"),
            ("user-agent", "me/1"),
            ("x-request-id", "r1"),
        ];
        assert_eq!(ask(&world, &headers).await, 200);
        let (own, tries) = spans(comes.recv().await.unwrap());
        assert_eq!((hex(&own.trace_id), hex(&own.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
        assert_eq!(own.name, "cart.shop.svc.cluster.local:80/*");
        let said = attributes(&own.attributes);
        for (name, value) in [
            ("http.request.method", "GET"),
            ("url.path", "/a"),
            ("http.response.status_code", "200"),
            ("server.address", "cart"),
            ("user_agent.original", "me/1"),
            ("guid:x-request-id", "r1"),
            ("istio.source_principal", "spiffe://cluster.local/ns/shop/sa/web"),
            ("istio.destination_service", "cart.shop.svc.cluster.local"),
            ("environment", "test"),
            ("user", "ann"),
            ("response_flags", "-"),
        ] {
            assert_eq!(said[name], value, "{name}");
        }
        assert!(own.status.is_none(), "{own:?}");
        let [one] = &tries[..] else { panic!("{tries:?}") };
        assert_eq!(attributes(&one.attributes)["http.response.status_code"], "200");
        let told = seen.borrow()[0].clone();
        assert_eq!(told["traceparent"], format!("00-{TRACE}-{}-01", hex(&one.span_id)));
        assert_eq!((&told["tracestate"], &told["x-request-id"]), (&"a=1".parse().unwrap(), &"r1".parse().unwrap()));
        let line = world.logged("request complete").await;
        assert!(line.contains(&format!("traceID=\"{TRACE}\"")), "{line}");
        assert_eq!(ztunnel.tunnels.get(), 1);
        while !world.metrics().contains("ambit_spans_exported_total 2") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.end().await;
    })
    .await;
}

/// What is tried again is one trace, and shows what had failed; what is refused is a span without a try.
#[tokio::test]
async fn tries_that_fail_are_spans_of_their_own() {
    on_one_thread(async {
        let ((application, seen), (at, mut comes)) = (remembers(&[503, 200]).await, collector().await);
        let retry =
            Retry { codes: vec![503], attempts: 2, backoff: Some(Duration::from_millis(1)), ..Retry::default() };
        let rule = rule(Some(retry));
        let world = world(application, Endpoint::plain("collector-1", at), 10_000, vec![rule]);
        assert_eq!(ask(&world, &[("b3", &format!("{TRACE}-{CALLER}-1"))]).await, 200);
        let (own, tries) = spans(comes.recv().await.unwrap());
        assert_eq!(attributes(&own.attributes)["route_name"], "shop/cart rules[0]");
        let [first, second] = &tries[..] else { panic!("{tries:?}") };
        let (failed, worked) = (attributes(&first.attributes), attributes(&second.attributes));
        assert_eq!((&*failed["http.response.status_code"], failed.get("http.request.resend_count")), ("503", None));
        assert_eq!((&*worked["http.response.status_code"], &*worked["http.request.resend_count"]), ("200", "1"));
        assert!(first.status.is_some() && second.status.is_none());
        for (one, told) in tries.iter().zip(&*seen.borrow()) {
            assert_eq!(told["b3"], format!("{TRACE}-{}-1-{}", hex(&one.span_id), hex(&own.span_id)));
            assert!(!told.contains_key("traceparent"));
        }
        // Nothing is asked: the route knows no POST.
        let post = Request::post("/").header("host", "cart").body(Full::default()).unwrap();
        assert_eq!(world.http1("web").await.send_request(post).await.unwrap().status(), 404);
        let (own, tries) = spans(comes.recv().await.unwrap());
        assert!(tries.is_empty() && own.parent_span_id.is_empty(), "{own:?} {tries:?}");
        assert_eq!(attributes(&own.attributes)["error.type"], "NO_ROUTE");
        world.end().await;
    })
    .await;
}

/// A copy for a mirror is one more step of the same trace, and not a request of its own.
#[tokio::test]
async fn a_mirror_is_told_of_the_trace_too() {
    on_one_thread(async {
        let ((application, seen), (at, mut comes)) = (remembers(&[200]).await, collector().await);
        let backend = BackendTarget::Service(key("cart"), 80);
        let mirror = Mirror { backend: backend.clone(), millionths: 1_000_000 };
        let filters = vec![Filter::Mirror(mirror)];
        let backends = vec![Backend { target: backend, weight: 1, filters: Vec::new() }];
        let rule = Rule { filters, backends, ..rule(None) };
        let world = world(application, Endpoint::plain("collector-1", at), 10_000, vec![rule]);
        assert_eq!(ask(&world, &[]).await, 200);
        let mut all = Vec::new();
        while all.len() < 3 {
            let message = comes.recv().await.unwrap();
            let scopes = message.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            all.extend(scopes.flat_map(|scope| scope.spans));
        }
        let own = all.iter().position(|span| span.kind() == SpanKind::Server).unwrap();
        let own = all.remove(own);
        let told = |span: &Span| format!("00-{}-{}-03", hex(&own.trace_id), hex(&span.span_id));
        let (mut told, mut heard): (Vec<_>, Vec<_>) = (
            all.iter().map(told).collect(),
            seen.borrow().iter().map(|headers| headers["traceparent"].to_str().unwrap().to_owned()).collect(),
        );
        told.sort();
        heard.sort();
        assert_eq!(told, heard);
        assert!(all.iter().all(|span| span.parent_span_id == own.span_id), "{all:?}");
        world.end().await;
        assert!(comes.try_recv().is_err());
    })
    .await;
}

/// What is not sampled is told to the next hop, and to nobody else; where nothing is set, requests pass as they are.
#[tokio::test]
async fn what_is_not_sampled_makes_no_span() {
    on_one_thread(async {
        let ((application, seen), (at, mut comes)) = (remembers(&[200]).await, collector().await);
        let mut world = world(application, Endpoint::plain("collector-1", at), 0, Vec::new());
        let forged = [("x-b3-traceid", "nonsense"), ("x-b3-sampled", "1"), ("tracestate", "a=1")];
        assert_eq!(ask(&world, &forged).await, 200);
        let parent = format!("00-{TRACE}-{CALLER}-00");
        assert_eq!(ask(&world, &[("traceparent", &parent)]).await, 200);
        world.tables.apply_local(vec![Resource::Routes(Arc::new(routes("cart", Vec::new(), &[])))]);
        assert_eq!(ask(&world, &forged).await, 200);
        let seen = seen.borrow().clone();
        let made = seen[0]["traceparent"].to_str().unwrap();
        assert!(made.ends_with("-02") && made.len() == 55, "{made}");
        assert_eq!(seen[0]["x-request-id"].len(), 36);
        assert!(forged.iter().all(|(name, _)| !seen[0].contains_key(*name)), "{seen:?}");
        assert_eq!(seen[1]["traceparent"], parent, "nobody would find a span of the waypoint's");
        assert!(forged.iter().all(|(name, value)| seen[2][*name] == *value), "{seen:?}");
        assert!(!seen[2].contains_key("traceparent") && !seen[2].contains_key("x-request-id"));
        world.end().await;
        assert!(comes.try_recv().is_err());
    })
    .await;
}

/// Requests do not wait for a collector, and what it does not take is counted.
#[tokio::test]
async fn a_collector_that_is_away_or_silent_costs_spans_and_nothing_else() {
    on_one_thread(async {
        let silent = mesh_testkit::tcp::listen(async |tcp| {
            let _kept = tcp;
            std::future::pending::<()>().await;
        })
        .await;
        // Nobody has listened there.
        let away = SocketAddr::from(([127, 15, 8, 1], 9));
        for (collector, reason) in [(away, "collector_unavailable"), (silent, "shutdown")] {
            let (application, _) = remembers(&[200]).await;
            let world = world(application, Endpoint::plain("collector-1", collector), 10_000, Vec::new());
            assert_eq!(ask(&world, &[]).await, 200);
            world.logged("request complete").await;
            let World { context, thread, exporter, metrics, .. } = world;
            drop(context);
            tokio::task::spawn_blocking(|| thread.join()).await.unwrap();
            exporter.end().await;
            let page = metrics.encode(TextFormat::Prometheus).unwrap();
            assert!(page.contains(&format!("ambit_spans_dropped_total{{reason=\"{reason}\"}} 2")), "{page}");
            assert!(page.contains("ambit_spans_exported_total 0"), "{page}");
        }
    })
    .await;
}

/// A queue that nobody empties takes so many, and counts the others.
#[test]
fn a_queue_has_its_bound() {
    let mut metrics = Metrics::new("waypoint", "test");
    let (spans, mut queue) = Spans::new(SpanMetrics::register(&mut metrics));
    for _ in 0..1_030 {
        let span = mesh_model::trace::span::Span {
            trace_id: 1,
            id: 1,
            parent: None,
            flags: 1,
            kind: mesh_model::trace::span::Kind::Server,
            name: String::new(),
            began: std::time::SystemTime::now(),
            took: Duration::ZERO,
            attributes: Vec::new(),
            failed: false,
        };
        spans.hand_over(Finished { collector: (key("collector"), 80), spans: vec![span.clone(), span] });
    }
    let page = metrics.encode(TextFormat::Prometheus).unwrap();
    assert!(page.contains("ambit_spans_dropped_total{reason=\"queue_full\"} 12"), "{page}");
    assert_eq!(std::iter::from_fn(|| queue.try_recv().ok()).count(), 1_024);
}
