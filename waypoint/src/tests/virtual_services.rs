//! Requests that follow rules of VirtualServices: subsets, and faults on purpose.

use http::StatusCode;
use mesh_model::route::{Abort, Backend, BackendTarget, Condition, Delay, Fault, RequestMatch, RouteKind, TextMatch};
use mesh_model::traffic::{Detection, PortTraffic, Subset, TrafficPolicy};
use mesh_testkit::hbone::on_one_thread;

use super::*;

fn rule(name: &str, header: Option<&str>, backends: &[(&str, u32)]) -> Rule {
    let to = |subset: &str| match subset {
        "" => BackendTarget::Service(key("cart"), 80),
        subset => BackendTarget::Subset(key("cart"), 80, subset.into()),
    };
    let asks = |value: &str| Condition::Header("x-who".into(), TextMatch::Exact(value.into()));
    Rule {
        kind: RouteKind::VirtualService,
        route: NamespacedName::new("shop", "cart"),
        name: name.into(),
        port: Some(80),
        callers: None,
        matches: vec![RequestMatch { conditions: header.map(asks).into_iter().collect(), ..RequestMatch::default() }],
        filters: Vec::new(),
        backends: backends
            .iter()
            .map(|(subset, weight)| Backend { target: to(subset), weight: *weight, filters: Vec::new() })
            .collect(),
        request_timeout: None,
        backend_timeout: None,
        retry: None,
        fault: None,
    }
}

/// An application that says its name, and answers 503 where it is asked to.
async fn named(name: &'static str) -> SocketAddr {
    application(move |request: Request<Incoming>| {
        let mut answer = Response::new(Full::from(name));
        if request.uri().path() == "/fail" {
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        std::future::ready(answer)
    })
    .await
}

fn subset(name: &str, workloads: &[&str], traffic: Vec<PortTraffic>) -> Arc<Subset> {
    let workloads = workloads.iter().map(|uid| Arc::from(*uid)).collect();
    Arc::new(Subset { name: name.into(), workloads, traffic })
}

/// `cart` with endpoints `v1` and `v2`.
async fn two(rules: Vec<Rule>, subsets: Vec<Arc<Subset>>) -> World {
    let all = [Endpoint::plain("v1", named("v1").await), Endpoint::plain("v2", named("v2").await)];
    let mut world = World::start(AppProtocol::Http11, &all);
    told(&mut world, rules, subsets);
    world
}

fn told(world: &mut World, rules: Vec<Rule>, subsets: Vec<Arc<Subset>>) {
    let all = ServiceRoutes { subsets, ..routes("cart", rules, &[]) };
    world.tables.apply_local(vec![Resource::Routes(Arc::new(all))]);
}

fn get(path: &str, who: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "cart").header("x-who", who).body(Full::default()).unwrap()
}

async fn ask(world: &World, path: &str, who: &str, times: usize) -> Vec<(u16, String)> {
    let (mut sender, mut got) = (world.http1("web").await, Vec::new());
    for _ in 0..times {
        sender.ready().await.unwrap();
        got.push(text(sender.send_request(get(path, who)).await.unwrap()).await);
    }
    got
}

#[tokio::test]
async fn a_subset_is_some_of_the_endpoints() {
    on_one_thread(async {
        let rules = || {
            vec![
                rule("old", Some("old"), &[("v1", 1)]),
                rule("new", Some("new"), &[("v2", 1)]),
                rule("none", Some("none"), &[("empty", 1)]),
                rule("unknown", Some("unknown"), &[("v3", 1)]),
                rule("split", Some("split"), &[("v1", 80), ("v2", 20)]),
                rule("all", None, &[("", 1)]),
            ]
        };
        let (v1, v2, empty) = (
            subset("v1", &["v1"], Vec::new()),
            subset("v2", &["v2"], Vec::new()),
            subset("empty", &["gone"], Vec::new()),
        );
        let mut world = two(rules(), vec![v1.clone(), v2.clone(), empty.clone()]).await;
        let all_of = |name: &str| vec![(200, name.to_owned()); 8];
        assert_eq!(ask(&world, "/", "old", 8).await, all_of("v1"));
        assert_eq!(ask(&world, "/", "new", 8).await, all_of("v2"));
        assert_eq!(ask(&world, "/", "none", 1).await, [(503, "NO_HEALTHY_UPSTREAM\n".to_owned())]);
        assert_eq!(ask(&world, "/", "unknown", 1).await, [(503, "NO_BACKEND\n".to_owned())]);
        let split = ask(&world, "/", "split", 100).await;
        let new = split.iter().filter(|(_, name)| name == "v2").count();
        assert!((5..40).contains(&new), "{new} of 100, not about 20");
        let both = ask(&world, "/", "all", 30).await;
        assert!(["v1", "v2"].iter().all(|name| both.iter().any(|(_, got)| got == name)), "{both:?}");
        // Who is in it changes.
        told(&mut world, rules(), vec![subset("v1", &["v2"], Vec::new()), v2, empty]);
        assert_eq!(ask(&world, "/", "old", 8).await, all_of("v2"));
        world.end().await;
    })
    .await;
}

/// What holds for a subset is counted apart from what holds for all.
#[tokio::test]
async fn a_subset_has_ejections_of_its_own() {
    on_one_thread(async {
        let outliers = Detection { server_errors: 1, max_ejection_percent: 100, ..Detection::default() };
        let policy = TrafficPolicy { outliers: Some(outliers), ..TrafficPolicy::default() };
        let traffic =
            vec![PortTraffic { port: None, rule: Some(NamespacedName::new("shop", "cart")), policy: policy.into() }];
        let rules = vec![rule("one", Some("one"), &[("one", 1)]), rule("all", None, &[("", 1)])];
        let world = two(rules, vec![subset("one", &["v1"], traffic)]).await;
        assert_eq!(ask(&world, "/fail", "one", 1).await, [(503, "v1".to_owned())]);
        assert_eq!(ask(&world, "/", "one", 1).await, [(503, "NO_HEALTHY_UPSTREAM\n".to_owned())]);
        let all = ask(&world, "/", "all", 30).await;
        assert!(all.iter().any(|(status, name)| (*status, &**name) == (200, "v1")), "nothing is said for all: {all:?}");
        let metrics = world.metrics();
        assert!(metrics.contains("ambit_outlier_ejected{") && metrics.contains("} 1\n"), "{metrics}");
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn requests_wait_and_are_refused_on_purpose() {
    on_one_thread(async {
        let length = Duration::from_millis(300);
        let delay = Some(Delay { length, millionths: 1_000_000 });
        let abort = Some(Abort { status: StatusCode::IM_A_TEAPOT, millionths: 1_000_000 });
        let with = |name, fault| Rule { fault: Some(fault), ..rule(name, Some(name), &[("", 1)]) };
        let rules = vec![
            // A delay is no part of what the application may take.
            Rule { request_timeout: Some(length / 2), ..with("slow", Fault { delay, abort: None }) },
            with("refused", Fault { delay: None, abort }),
            with("both", Fault { delay, abort }),
        ];
        let world = two(rules, Vec::new()).await;
        let began = std::time::Instant::now();
        let answer = ask(&world, "/", "slow", 1).await;
        assert!(answer[0].0 == 200 && began.elapsed() >= length, "{answer:?} after {:?}", began.elapsed());
        let line = world.logged("FAULT_DELAYED").await;
        assert!(line.contains("slow of VirtualService shop/cart delayed it by 300ms"), "{line}");
        assert_eq!(ask(&world, "/", "refused", 1).await, [(418, "fault filter abort".to_owned())]);
        let line = world.logged("FAULT_ABORTED").await;
        assert!(line.contains("response_code=418") && line.contains("shop/cart"), "{line}");
        let began = std::time::Instant::now();
        assert_eq!(ask(&world, "/", "both", 1).await, [(418, "fault filter abort".to_owned())]);
        assert!(began.elapsed() >= length, "{:?}", began.elapsed());
        let metrics = world.metrics();
        for flags in ["DI", "FI", "DI,FI"] {
            assert!(metrics.contains(&format!("response_flags=\"{flags}\"")), "{flags}: {metrics}");
        }
        world.end().await;
    })
    .await;
}
