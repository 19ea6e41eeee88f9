//! The routes of a service with every field set.

use std::time::Duration;

use mesh_model::address::NamespacedName;
use mesh_model::route::{
    Backend, BackendTarget, Cors, Filter, HeaderEdit, Mirror, PathEdit, PathMatch, PortProtocol, Protocol, Redirect,
    RequestMatch, Retry, Rewrite, RouteKind, Rule, ServiceRoutes, ValueMatch,
};

fn service(name: &str) -> BackendTarget {
    BackendTarget::Service(NamespacedName::new("shop", format!("{name}.shop.svc")), 80)
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
        Filter::Mirror(Mirror { backend: service("mirror"), millionths: 12_500 }),
        Filter::Cors(cors),
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
        },
        of(PathMatch::Prefix("/a".into())),
        of(PathMatch::Beginning("/pkg.Service/".into())),
        of(PathMatch::Regex("/a/[0-9]+".into())),
        RequestMatch::default(),
    ]
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
            Backend { target: BackendTarget::Invalid("no such service".into()), weight: 0, filters: Vec::new() },
        ],
        request_timeout: Some(Duration::from_millis(1_500)),
        backend_timeout: Some(Duration::from_nanos(1)),
        retry: Some(Retry { codes: vec![500, 503], attempts: 3, backoff: Some(Duration::from_millis(25)) }),
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
        ..full.clone()
    };
    ServiceRoutes {
        service: NamespacedName::new("shop", "cart.shop.svc"),
        ports: [Http, Http2, Grpc, WebSocket, Tcp, Tls].into_iter().enumerate().map(port).collect(),
        rules: vec![full, bare],
        policies: vec![NamespacedName::new("shop", "guard")],
    }
}
