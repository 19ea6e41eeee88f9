//! What many rules of one service cost: how long it takes to find one, and memory: `cargo bench -p mesh-model --bench routes`. It
//! prints its figures and fails on none.

#![allow(clippy::print_stdout, reason = "it prints its figures")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Method, Version, header};
use mesh_model::address::NamespacedName;
use mesh_model::http::{Received, Request, Rules, canonical};
use mesh_model::route::select::{Router, Selected};
use mesh_model::route::{
    Backend, BackendTarget, Filter, HeaderEdit, PathMatch, RequestMatch, RouteKind, Rule, ServiceRoutes, ValueMatch,
};

const LOOKUPS: u32 = 100_000;

/// As people write them: a prefix or a whole path, of every second rule a header as well, a changed header, two backends.
fn rule(n: usize) -> Rule {
    let path: Arc<str> = format!("/team-{}/service-{n}/v1", n % 100).into();
    let path = if n.is_multiple_of(2) { PathMatch::Prefix(path) } else { PathMatch::Exact(path) };
    let header = ValueMatch { name: "x-team".into(), value: format!("{}", n % 100).into(), regex: false };
    let headers = if n.is_multiple_of(2) { Vec::new() } else { vec![header] };
    let edit = HeaderEdit { set: vec![("x-rule".into(), format!("{n}").into())], ..HeaderEdit::default() };
    let backend = |version: &str, weight| Backend {
        target: BackendTarget::Service(
            NamespacedName::new("shop", format!("service-{n}-{version}.shop.svc.cluster.local")),
            8080,
        ),
        weight,
        filters: Vec::new(),
    };
    Rule {
        kind: RouteKind::Http,
        route: NamespacedName::new("shop", format!("route-{n}")),
        name: "rules[0]".into(),
        port: None,
        callers: None,
        matches: vec![RequestMatch { path: Some(path), headers, ..RequestMatch::default() }],
        filters: vec![Filter::RequestHeaders(edit)],
        backends: vec![backend("v1", 80), backend("v2", 20)],
        request_timeout: None,
        backend_timeout: None,
        retry: None,
        fault: None,
    }
}

fn request(path: &str, team: usize) -> (Request, HeaderMap) {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("shop:80"));
    headers.insert("x-team", team.into());
    let request = {
        let received = Received::of_target(Version::HTTP_11, &Method::GET, path.as_bytes(), &headers);
        canonical(&received, Rules::default()).expect("a request")
    };
    (request, headers)
}

/// Resident bytes of this process (proc(5)).
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("proc");
    let pages: usize = pages.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * 4096
}

fn main() {
    for count in [50, 500, 5_000] {
        let before = resident();
        let start = Instant::now();
        let routes = Arc::new(ServiceRoutes {
            service: NamespacedName::new("shop", "shop.shop.svc.cluster.local"),
            ports: Vec::new(),
            rules: (0..count).map(rule).collect(),
            policies: Vec::new(),
            traffic: Vec::new(),
            tokens: Arc::default(),
            tracing: None,
            access_logging: None,
            subsets: Vec::new(),
            streams: Vec::new(),
            rate_limits: [].into(),
        });
        let router = Router::new(routes.clone());
        let made = start.elapsed();
        println!(
            "{count} routes: made in {:.1} ms, {:.1} MB with their message",
            made.as_secs_f64() * 1e3,
            (resident() - before) as f64 / f64::from(1 << 20)
        );
        let team = (count - 1) % 100;
        let last = format!("/team-{team}/service-{}/v1", count - 1);
        for (what, path, found) in [
            ("the first", "/team-0/service-0/v1/x", true),
            ("the last", &last, true),
            ("none", "/nowhere/at/all", false),
        ] {
            let (request, headers) = request(path, team);
            let look = || router.select(black_box(&request), &headers, "shop", 80);
            assert_eq!(matches!(look(), Selected::Rule(_)), found, "{path}");
            let start = Instant::now();
            for _ in 0..LOOKUPS {
                drop(black_box(look()));
            }
            println!("  finds {what}: {:.3} µs", start.elapsed().as_secs_f64() * 1e6 / f64::from(LOOKUPS));
        }
    }
}
