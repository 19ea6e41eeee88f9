//! The routes of a service with every field set.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_model::access_log::{AccessLogging, Expression};
use mesh_model::address::NamespacedName;
use mesh_model::balance::ewma::PeakEwma;
use mesh_model::balance::warmup::Warmup;
use mesh_model::rate_limit::{
    Entry, EntryValue, GlobalRateLimit, Kind, LimitKey, LimitedRoute, LocalRateLimit, RateLimit, Target,
};
use mesh_model::route::{
    Abort, Backend, BackendTarget, Condition, Cors, Delay, Fault, Filter, HeaderEdit, Mirror, PathEdit, PathMatch,
    PortProtocol, Protocol, Redirect, RequestMatch, Retry, Rewrite, RouteKind, Rule, ServiceRoutes, StreamBackend,
    StreamKind, StreamRule, TextMatch, ValueMatch,
};
use mesh_model::token::JwtRule;
use mesh_model::token::rule::{ClaimHeader, TokenHeader};
use mesh_model::trace::{Tag, TagValue, Tracing};
use mesh_model::traffic::{
    Balancing, Cookie, Detection, HashBy, HashTable, Limits, PortTraffic, Subset, TrafficPolicy,
};

fn service(name: &str) -> BackendTarget {
    BackendTarget::Service(NamespacedName::new("shop", format!("{name}.shop.svc")), 80)
}

fn subset() -> BackendTarget {
    BackendTarget::Subset(NamespacedName::new("shop", "cart.shop.svc"), 80, "v2".into())
}

fn token() -> JwtRule {
    JwtRule {
        authentication: NamespacedName::new("shop", "tokens"),
        issuer: "https://issuer.example".into(),
        audiences: vec!["shop".into()],
        keys: Ok(r#"{"keys":[]}"#.into()),
        headers: vec![TokenHeader { name: "authorization".into(), prefix: "Bearer ".into() }],
        params: vec!["access_token".into()],
        cookies: vec!["session".into()],
        forward: true,
        payload_header: Some("x-payload".into()),
        claim_headers: vec![ClaimHeader { header: "x-claim".into(), claim: vec!["a".into(), "b".into()] }],
        space_delimited: vec!["roles".into()],
    }
}

fn tracing() -> Tracing {
    let header =
        |name: &str, default: Option<&str>| TagValue::Header { name: name.into(), default: default.map(Into::into) };
    let tag = |name: &str, value| Tag { name: name.into(), value };
    Tracing {
        provider: "otel".into(),
        collector: Some((NamespacedName::new("telemetry", "collector.telemetry.svc"), 4317)),
        sampling: 1_234,
        tags: vec![
            tag("a", TagValue::Literal("".into())),
            tag("b", header("x-user", Some(""))),
            tag("c", header("x-user", None)),
        ],
        istio_tags: true,
    }
}

fn access_logging() -> AccessLogging {
    let filter = |text| Expression::compile(text).unwrap();
    AccessLogging { filters: vec![filter("response.code >= 400"), filter("request.headers['x-a'] == 'b'")] }
}

fn filters() -> Vec<Filter> {
    let pair = |name: &str, value: &str| (name.into(), value.into());
    let edit = HeaderEdit {
        set: vec![pair("x-a", "1")],
        add: vec![pair("x-b", "2"), pair("x-b", "3")],
        remove: vec!["x-c".into()],
    };
    let redirect = |path, status| Redirect {
        scheme: Some("https".into()),
        hostname: Some("other.example".into()),
        path,
        port: Some(8443),
        status,
    };
    let cors = Cors {
        allow_origins: vec!["https://*.example".into()],
        allow_credentials: true,
        allow_methods: vec!["GET".into(), "PUT".into()],
        allow_headers: vec!["x-a".into()],
        expose_headers: vec!["x-b".into()],
        max_age: 5,
    };
    vec![
        Filter::RequestHeaders(edit.clone()),
        Filter::ResponseHeaders(edit),
        Filter::Redirect(redirect(Some(PathEdit::Whole("/b".into())), 308)),
        Filter::Redirect(redirect(None, 302)),
        Filter::Rewrite(Rewrite { hostname: Some("a.example".into()), path: Some(PathEdit::Prefix("".into())) }),
        Filter::Rewrite(Rewrite { hostname: None, path: Some(PathEdit::Matched("/c".into())) }),
        Filter::Mirror(Mirror { backend: service("mirror"), millionths: 12_500 }),
        Filter::Cors(cors),
    ]
}

fn conditions() -> Vec<Condition> {
    let [exact, prefix, regex] = ["x", "y", "z"];
    vec![
        Condition::Header("x-a".into(), TextMatch::Present),
        Condition::WithoutHeader("x-b".into(), TextMatch::Exact(exact.into())),
        Condition::Query("Q".into(), TextMatch::Prefix(prefix.into())),
        Condition::Method(TextMatch::Regex(regex.into())),
        Condition::Authority(TextMatch::Exact(exact.into())),
        Condition::Scheme(TextMatch::Exact("http".into())),
        Condition::SourceNamespace("shop".into()),
    ]
}

fn matches() -> Vec<RequestMatch> {
    let value = |name: &str, regex| ValueMatch { name: name.into(), value: "v".into(), regex };
    let of = |path| RequestMatch { path: Some(path), ..RequestMatch::default() };
    vec![
        RequestMatch {
            path: Some(PathMatch::Exact("/a/b".into())),
            method: Some("GET".into()),
            headers: vec![value("x-a", false), value("x-b", true)],
            query: vec![value("Q", false), value("r", true)],
            conditions: conditions(),
        },
        of(PathMatch::Prefix("/a".into())),
        of(PathMatch::Beginning("/pkg.Service/".into())),
        of(PathMatch::Regex("/a/[0-9]+".into())),
        of(PathMatch::ExactAnyCase("/A".into())),
        of(PathMatch::BeginningAnyCase("/A".into())),
        RequestMatch::default(),
    ]
}

/// What holds for ports, in every form.
fn traffic() -> Vec<PortTraffic> {
    let seconds = Duration::from_secs;
    let limits = Limits {
        connections: Some(1),
        pending: Some(0),
        requests: Some(3),
        retries: Some(4),
        requests_per_connection: Some(5),
        connect_timeout: Some(seconds(6)),
        idle_timeout: Some(seconds(7)),
    };
    let outliers = Detection {
        server_errors: 1,
        gateway_errors: 2,
        local_failures: Some(3),
        interval: seconds(4),
        base_ejection_time: seconds(5),
        max_ejection_percent: 60,
        min_health_percent: 70,
    };
    let cookie = |path: Option<&str>, ttl| {
        let cookie = Cookie { name: "user".into(), path: path.map(Into::into), ttl };
        Balancing::Hash(HashBy::Cookie(cookie), HashTable::default())
    };
    let warmup = Some(Warmup { duration: seconds(8), minimum: 1234, aggression: 1500 });
    let full = TrafficPolicy { limits, outliers: Some(outliers), balancing: Balancing::LeastRequest, warmup };
    let policy = NamespacedName::new("shop", "fast");
    let ewma = PeakEwma { policy, decay: seconds(9), default_latency: seconds(1) };
    let balancings = [
        Balancing::RoundRobin,
        Balancing::Random,
        Balancing::PeakEwma(ewma),
        Balancing::Hash(HashBy::Header("x-user".into()), HashTable::Ring(2048)),
        Balancing::Hash(HashBy::Query("user".into()), HashTable::Maglev(65_537)),
        Balancing::Hash(HashBy::SourceIp, HashTable::default()),
        cookie(None, None),
        cookie(Some("/"), Some(seconds(0))),
    ];
    let others = balancings.map(|balancing| TrafficPolicy { balancing, ..TrafficPolicy::default() });
    let of = |(port, policy): (u16, TrafficPolicy)| PortTraffic {
        port: (port > 0).then_some(port),
        rule: (!matches!(policy.balancing, Balancing::PeakEwma(_))).then(|| NamespacedName::new("shop", "cart")),
        policy: policy.into(),
    };
    (0..).zip(std::iter::once(full).chain(others)).map(of).collect()
}

/// Limits of all targets, by all keys, of both kinds.
fn rate_limits() -> Vec<RateLimit> {
    let name = |name: &str| NamespacedName::new("shop", name);
    let route = |rule: Option<&str>| LimitedRoute { route: name("web"), rule: rule.map(Into::into) };
    let local = |key| Kind::Local(LocalRateLimit { requests: 5, per: Duration::from_secs(60), burst: 7, key });
    let values = [
        EntryValue::CallerIdentity,
        EntryValue::CallerNamespace,
        EntryValue::Header("x-user".into()),
        EntryValue::Route,
        EntryValue::Constant("gold".into()),
    ];
    let entry = |value| Entry { key: "k".into(), value };
    let global = GlobalRateLimit {
        service: NamespacedName::new("limits", "ratelimit.limits.svc"),
        port: 8081,
        domain: "shop".into(),
        timeout: Duration::from_millis(100),
        deny_on_failure: true,
        descriptors: vec![values.map(entry).into(), vec![entry(EntryValue::Route)]],
    };
    let targets = [
        (Target::Gateway(name("waypoint")), local(None)),
        (Target::Service(name("cart.shop.svc")), local(Some(LimitKey::CallerIdentity))),
        (Target::HttpRoute(route(None)), local(Some(LimitKey::CallerNamespace))),
        (Target::GrpcRoute(route(Some("named"))), local(Some(LimitKey::Header("x-user".into())))),
        (Target::Service(name("cart.shop.svc")), Kind::Global(global.into())),
    ];
    let limit = |(target, kind)| RateLimit { policy: name("limits"), name: "local[0]".into(), target, kind };
    targets.map(limit).into()
}

fn streams() -> [StreamRule; 2] {
    let tls = StreamRule {
        kind: StreamKind::Tls,
        route: NamespacedName::new("client", "by-name"),
        name: "rules[0]".into(),
        port: Some(84),
        callers: Some("client".into()),
        hostnames: ["a.example.com", "*.example.com"].map(Into::into).into(),
        backends: vec![
            StreamBackend { target: service("v1"), weight: 80 },
            StreamBackend { target: BackendTarget::Invalid("no such service".into()), weight: 0 },
        ],
    };
    let tcp = StreamRule {
        kind: StreamKind::Tcp,
        name: "named".into(),
        port: None,
        callers: None,
        hostnames: [].into(),
        backends: Vec::new(),
        ..tls.clone()
    };
    [tls, tcp]
}

/// The routes of a service.
pub fn routes() -> ServiceRoutes {
    use Protocol::*;
    let port = |(i, protocol)| PortProtocol { port: 80 + i as u16, protocol };
    let full = Rule {
        kind: RouteKind::Http,
        route: NamespacedName::new("client", "canary"),
        name: "rules[0]".into(),
        port: Some(80),
        callers: Some("client".into()),
        matches: matches(),
        filters: filters(),
        backends: vec![
            Backend { target: service("v1"), weight: 80, filters: filters() },
            Backend { target: subset(), weight: 1, filters: Vec::new() },
            Backend { target: BackendTarget::Invalid("no such service".into()), weight: 0, filters: Vec::new() },
        ],
        request_timeout: Some(Duration::from_millis(1_500)),
        backend_timeout: Some(Duration::from_nanos(1)),
        retry: Some(Retry {
            codes: vec![500, 503],
            grpc_codes: vec![14],
            attempts: 3,
            backoff: Some(Duration::from_millis(25)),
        }),
        fault: Some(Fault {
            delay: Some(Delay { length: Duration::from_secs(5), millionths: 1 }),
            abort: Some(Abort { status: StatusCode::IM_A_TEAPOT, millionths: 1_000_000 }),
        }),
    };
    let bare = Rule {
        kind: RouteKind::Grpc,
        name: "named".into(),
        port: None,
        callers: None,
        matches: vec![RequestMatch::default()],
        filters: Vec::new(),
        backends: Vec::new(),
        request_timeout: None,
        backend_timeout: None,
        retry: None,
        fault: None,
        ..full.clone()
    };
    let ordered = Rule { kind: RouteKind::VirtualService, ..bare.clone() };
    let subset = Subset { name: "v2".into(), workloads: vec!["u1".into(), "u2".into()], traffic: traffic() };
    ServiceRoutes {
        service: NamespacedName::new("shop", "cart.shop.svc"),
        ports: [Http, Http2, Grpc, WebSocket, Tcp, Tls].into_iter().enumerate().map(port).collect(),
        rules: vec![full, bare, ordered],
        streams: streams().map(Arc::new).into(),
        policies: vec![NamespacedName::new("shop", "guard")],
        traffic: traffic(),
        tokens: [token()].into(),
        tracing: Some(tracing().into()),
        access_logging: Some(access_logging().into()),
        subsets: vec![subset.into()],
        rate_limits: rate_limits().into(),
    }
}
