//! Requests that follow routes.

use std::cell::Cell;

use mesh_model::route::{
    Backend, BackendTarget, Filter, HeaderEdit, Mirror, PathEdit, PathMatch, Redirect, RequestMatch, Retry, Rewrite,
    RouteKind, ValueMatch,
};
use mesh_testkit::hbone::on_one_thread;

use super::*;

/// A rule for a path, to one service.
pub(super) fn rule(path: &str, to: &str) -> Rule {
    Rule {
        kind: RouteKind::Http,
        route: NamespacedName::new("shop", "cart-routes"),
        name: format!("to-{to}").as_str().into(),
        port: None,
        callers: None,
        matches: vec![RequestMatch { path: Some(PathMatch::Prefix(path.into())), ..RequestMatch::default() }],
        filters: Vec::new(),
        backends: vec![backend(to, 1)],
        request_timeout: None,
        backend_timeout: None,
        retry: None,
        fault: None,
    }
}

fn backend(to: &str, weight: u32) -> Backend {
    Backend { target: BackendTarget::Service(key(to), 80), weight, filters: Vec::new() }
}

/// An application that says its name, and what it is asked.
async fn named(name: &'static str) -> SocketAddr {
    application(move |request: Request<Incoming>| {
        let header = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
        let (path, host, added) = (request.uri().to_string(), header("host"), header("x-added"));
        std::future::ready(Response::new(Full::from(format!("{name} {path} {host} {added}"))))
    })
    .await
}

/// `cart`, whose rules lead to services `v1` and `v2` of one endpoint each.
async fn split(rules: Vec<Rule>) -> World {
    let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("own", named("cart").await)]);
    let mut all = vec![Resource::Routes(Arc::new(routes("cart", rules, &[])))];
    for (number, name) in ["v1", "v2"].into_iter().enumerate() {
        let vip = IpAddr::from([10, 1, 1, number as u8 + 1]);
        all.push(Resource::Service(Arc::new(service(name, vip, AppProtocol::Http11))));
        all.push(Endpoint::plain(name, named(name).await).of(name));
    }
    world.tables.apply_local(all);
    world
}

/// What `who` gets of these paths, on one connection.
async fn ask(world: &World, who: &str, requests: Vec<Request<Full<Bytes>>>) -> Vec<(u16, String)> {
    let (mut sender, mut got) = (world.http1(who).await, Vec::new());
    for request in requests {
        sender.ready().await.unwrap();
        got.push(text(sender.send_request(request).await.unwrap()).await);
    }
    got
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "cart").body(Full::default()).unwrap()
}

#[tokio::test]
async fn the_rule_that_matches_best_says_where_to() {
    on_one_thread(async {
        let canary = RequestMatch {
            path: Some(PathMatch::Prefix("/a".into())),
            headers: vec![ValueMatch { name: "x-canary".into(), value: "yes".into(), regex: false }],
            ..RequestMatch::default()
        };
        let world = split(vec![rule("/a", "v1"), Rule { matches: vec![canary], ..rule("/a", "v2") }]).await;
        let with = Request::get("/a/b").header("host", "cart").header("x-canary", "yes").body(Full::default()).unwrap();
        let got = ask(&world, "web", vec![get("/a/b"), with, get("/other")]).await;
        assert_eq!(got[0], (200, "v1 /a/b cart -".to_owned()));
        assert_eq!(got[1], (200, "v2 /a/b cart -".to_owned()));
        assert_eq!(got[2], (404, "NO_ROUTE\n".to_owned()));
        let line = world.logged("response_code=404").await;
        assert!(line.contains("reason=\"NO_ROUTE\""), "{line}");
        let line = world.logged("shop/cart-routes to-v2").await;
        assert!(line.contains("route=\"shop/cart-routes to-v2\"") && line.contains("dst.workload=\"v2\""), "{line}");
        world.end().await;
    })
    .await;
}

/// Nothing is compiled on a data thread: what was made ready where it came in is followed there, the very same, and let go of when
/// there is another.
#[tokio::test]
async fn routes_are_made_ready_where_they_come_in_and_shared() {
    on_one_thread(async {
        let mut world = split(vec![rule("/", "v1")]).await;
        let router = |world: &World| {
            let router = world.tables.reader().read(|tables| tables.router(&key("cart")).cloned());
            Arc::downgrade(&router.unwrap())
        };
        let first = router(&world);
        assert_eq!(first.strong_count(), 1, "nobody has asked yet");
        let answer = ask(&world, "web", vec![get("/a")]).await.remove(0).1;
        assert!(answer.starts_with("v1 "), "{answer}");
        assert_eq!(first.strong_count(), 2, "the tables and the data thread have it, and that is one");
        let edited = routes("cart", vec![rule("/", "v2")], &[]);
        world.tables.apply_local(vec![Resource::Routes(Arc::new(edited))]);
        let answer = ask(&world, "web", vec![get("/a")]).await.remove(0).1;
        assert!(answer.starts_with("v2 "), "{answer}");
        assert_eq!((first.strong_count(), router(&world).strong_count()), (0, 2));
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_request_is_changed_on_its_way_as_the_route_says() {
    on_one_thread(async {
        let edit = HeaderEdit { set: vec![("x-added".into(), "by-route".into())], ..HeaderEdit::default() };
        let rewrite = Rewrite { hostname: Some("other".into()), path: Some(PathEdit::Prefix("/new".into())) };
        let changed =
            Rule { filters: vec![Filter::RequestHeaders(edit), Filter::Rewrite(rewrite)], ..rule("/old", "v1") };
        let redirect = Redirect {
            scheme: Some("https".into()),
            hostname: Some("example.com".into()),
            path: None,
            port: None,
            status: 301,
        };
        let moved = Rule { filters: vec![Filter::Redirect(redirect)], backends: Vec::new(), ..rule("/moved", "v1") };
        let world = split(vec![changed, moved]).await;
        let got = ask(&world, "web", vec![get("/old/x?q=1")]).await;
        assert_eq!(got[0], (200, "v1 /new/x?q=1 other by-route".to_owned()));
        let answer = world.http1("web").await.send_request(get("/moved/x")).await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (301, &http::HeaderValue::from_static("https://example.com/moved/x"))
        );
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn weights_are_kept_and_a_backend_that_does_not_exist_takes_its_share() {
    on_one_thread(async {
        let nobody = Backend {
            target: BackendTarget::Invalid("there is no Service gone".into()),
            weight: 10,
            filters: Vec::new(),
        };
        let backends = vec![backend("v1", 60), backend("v2", 30), nobody];
        let world = split(vec![Rule { backends, ..rule("/", "v1") }]).await;
        let got = ask(&world, "web", (0..300).map(|_| get("/")).collect()).await;
        let share = |begins: &str| got.iter().filter(|(_, text)| text.starts_with(begins)).count();
        let (first, second, failed) = (share("v1"), share("v2"), share("NO_BACKEND"));
        assert_eq!(first + second + failed, 300);
        // 180, 90 and 30, give or take six times what chance does.
        assert!((130..=230).contains(&first) && (45..=138).contains(&second) && (1..=61).contains(&failed), "{got:?}");
        world.end().await;
    })
    .await;
}

/// A backend that fails now and then is asked again, as often as the route says; a POST keeps its body.
#[tokio::test]
async fn what_a_route_says_is_tried_again() {
    on_one_thread(async {
        let asked = Rc::new(Cell::new(0));
        let counted = asked.clone();
        let application = application(move |request: Request<Incoming>| {
            let number = counted.get() + 1;
            counted.set(number);
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut answer = Response::new(Full::from(format!("{number} {}", String::from_utf8_lossy(&body))));
                if number % 3 != 0 {
                    *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                }
                answer
            }
        })
        .await;
        let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
        let retry = |attempts| Retry {
            codes: vec![503],
            attempts,
            backoff: Some(Duration::from_millis(1)),
            ..Retry::default()
        };
        let tried = |attempts| {
            let rules = vec![Rule { retry: Some(retry(attempts)), ..rule("/", "cart") }];
            Resource::Routes(Arc::new(routes("cart", rules, &[])))
        };
        let post = || Request::post("/").header("host", "cart").body(Full::from("kept")).unwrap();
        world.tables.apply_local(vec![tried(2)]);
        assert_eq!(ask(&world, "web", vec![post()]).await[0], (200, "3 kept".to_owned()));
        world.tables.apply_local(vec![tried(1)]);
        assert_eq!(ask(&world, "web", vec![post()]).await[0], (503, "5 kept".to_owned()));
        assert_eq!(asked.get(), 5);
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_route_bounds_how_long_a_request_and_a_try_may_take() {
    on_one_thread(async {
        let asked = Rc::new(Cell::new(0));
        let counted = asked.clone();
        let application = application(move |_| {
            counted.set(counted.get() + 1);
            std::future::pending::<Response<Full<Bytes>>>()
        })
        .await;
        let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
        let limited = |request, one, retry| {
            let rule = Rule { request_timeout: request, backend_timeout: one, retry, ..rule("/", "cart") };
            Resource::Routes(Arc::new(routes("cart", vec![rule], &[])))
        };
        let short = Some(Duration::from_millis(50));
        world.tables.apply_local(vec![limited(short, None, None)]);
        assert_eq!(ask(&world, "web", vec![get("/")]).await[0], (504, "REQUEST_TIMEOUT\n".to_owned()));
        assert_eq!(asked.get(), 1);
        let retry = Retry { attempts: 2, backoff: Some(Duration::from_millis(1)), ..Retry::default() };
        world.tables.apply_local(vec![limited(None, short, Some(retry))]);
        assert_eq!(ask(&world, "web", vec![get("/")]).await[0], (504, "REQUEST_TIMEOUT\n".to_owned()));
        assert_eq!(asked.get(), 1 + 3, "each try has its own limit");
        world.end().await;
    })
    .await;
}

/// The copy is asked the same, and what it answers, or that it fails, changes nothing.
#[tokio::test]
async fn a_mirror_gets_a_copy_and_nobody_waits_for_it() {
    on_one_thread(async {
        let mirror =
            |to: &str| Filter::Mirror(Mirror { backend: BackendTarget::Service(key(to), 80), millionths: 1_000_000 });
        let filters = vec![mirror("v2"), mirror("nobody")];
        let world = split(vec![Rule { filters, ..rule("/", "v1") }]).await;
        let post = Request::post("/x").header("host", "cart").body(Full::from("both")).unwrap();
        assert_eq!(ask(&world, "web", vec![post]).await[0], (200, "v1 /x cart -".to_owned()));
        let line = world.logged("(mirror)").await;
        assert!(line.contains("dst.workload=\"v2\"") && line.contains("response_code=200"), "{line}");
        world.end().await;
    })
    .await;
}

/// Who is to be kept from `v1` is kept from it, whatever route leads there.
#[tokio::test]
async fn a_route_grants_nobody_more_than_dialling_would() {
    on_one_thread(async {
        use mesh_model::policy::{Action, Policy, Scope};
        let mut world = split(vec![rule("/", "v1")]).await;
        let nobody = Policy {
            name: "nobody".into(),
            namespace: "shop".into(),
            scope: Scope::WorkloadSelector,
            action: Action::Allow,
            rules: Vec::new(),
            dry_run: false,
        };
        assert_eq!(ask(&world, "web", vec![get("/")]).await[0].0, 200);
        world.tables.apply_local(vec![
            Resource::Policy(Arc::new(nobody)),
            Resource::Routes(Arc::new(routes("v1", Vec::new(), &["nobody"]))),
        ]);
        assert_eq!(ask(&world, "web", vec![get("/")]).await[0], (403, "RBAC: access denied".to_owned()));
        world.end().await;
    })
    .await;
}

/// A policy of namespace `shop` that says no to `web`, to all or to one port.
fn deny_web(name: &str, ports: &[u16]) -> Resource {
    use mesh_model::policy::{Action, Clause, Match, Policy, Rule as PolicyRule, Scope, StringMatch};
    let who = StringMatch::Exact("cluster.local/ns/shop/sa/web".into());
    let one = Match { principals: vec![who], destination_ports: ports.to_vec(), ..Match::default() };
    Resource::Policy(Arc::new(Policy {
        name: name.into(),
        namespace: "shop".into(),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![PolicyRule { clauses: vec![Clause { matches: vec![one] }] }],
        dry_run: false,
    }))
}

/// Policies may name ports: a route to another port of the service that was dialled is judged as that port.
#[tokio::test]
async fn a_route_grants_no_other_port_of_the_same_service() {
    on_one_thread(async {
        let other = Backend { target: BackendTarget::Service(key("cart"), 9090), ..backend("cart", 1) };
        let rules = || vec![Rule { backends: vec![other.clone()], ..rule("/", "cart") }];
        let application = named("admin").await;
        let mut world = World::start(AppProtocol::Http11, &[]);
        let mut cart = service("cart", VIP.into(), AppProtocol::Http11);
        let port =
            |number, target_port| PortMapping { service_port: number, target_port, app_protocol: AppProtocol::Http11 };
        cart.ports.push(port(9090, 0));
        let endpoint = Workload {
            namespace: "shop".into(),
            addresses: vec![application.ip()],
            services: Memberships::from_iter([(key("cart"), vec![port(9090, application.port())])]),
            ..Workload::empty("cart-1")
        };
        world.tables.apply_local(vec![
            Resource::Service(Arc::new(cart)),
            Resource::Workload(Arc::new(endpoint)),
            Resource::Routes(Arc::new(routes("cart", rules(), &[]))),
        ]);
        assert_eq!(ask(&world, "web", vec![get("/")]).await[0].0, 200);
        world.tables.apply_local(vec![
            deny_web("no-admin", &[9090]),
            Resource::Routes(Arc::new(routes("cart", rules(), &["no-admin"]))),
        ]);
        assert_eq!(ask(&world, "web", vec![get("/")]).await[0], (403, "RBAC: access denied".to_owned()));
        assert_eq!(ask(&world, "other", vec![get("/")]).await[0].0, 200, "whom the policy does not name");
        world.end().await;
    })
    .await;
}

/// Nor does a mirror get what its caller may not send there.
#[tokio::test]
async fn a_mirror_grants_nobody_more_than_dialling_would() {
    on_one_thread(async {
        let mirror = Mirror { backend: BackendTarget::Service(key("v2"), 80), millionths: 1_000_000 };
        let mut world = split(vec![Rule { filters: vec![Filter::Mirror(mirror)], ..rule("/", "v1") }]).await;
        world.tables.apply_local(vec![
            deny_web("no-web", &[]),
            Resource::Routes(Arc::new(routes("v2", Vec::new(), &["no-web"]))),
        ]);
        assert_eq!(ask(&world, "web", vec![get("/")]).await[0].0, 200, "the request itself is not concerned");
        let line = world.logged("(mirror)").await;
        assert!(line.contains("response_code=403") && line.contains("shop/no-web"), "{line}");
        assert_eq!(ask(&world, "other", vec![get("/")]).await[0].0, 200);
        let line = world.logged("sa/other").await;
        let line = if line.contains("(mirror)") { line } else { world.logged("dst.workload=\"v2\"").await };
        assert!(line.contains("response_code=200") && line.contains("(mirror)"), "{line}");
        world.end().await;
    })
    .await;
}

/// What could be read in two ways is refused; what is passed on is what was judged.
#[tokio::test]
async fn requests_have_one_form() {
    on_one_thread(async {
        let world = split(vec![rule("/", "v1")]).await;
        let got = ask(
            &world,
            "web",
            vec![
                get("/a/%2e%2e/admin%41"),
                get("/a//b%2Fc"),
                get("/a/..;/admin"),
                get("/a%00b"),
                Request::get("/").header("host", "cart").header("host", "other").body(Full::default()).unwrap(),
                Request::get("/").header("host", "user@cart").body(Full::default()).unwrap(),
            ],
        )
        .await;
        assert_eq!(got[0], (200, "v1 /adminA cart -".to_owned()));
        assert_eq!(got[1], (200, "v1 /a//b%2Fc cart -".to_owned()), "no policy speaks of paths");
        for (got, reason) in
            got[2..].iter().zip(["AMBIGUOUS_PATH", "AMBIGUOUS_PATH", "AMBIGUOUS_HOST", "AMBIGUOUS_HOST"])
        {
            assert_eq!(*got, (400, format!("{reason}\n")));
        }
        world.end().await;
    })
    .await;
}

/// What is judged is the one form of the request: whatever it is written like. So it is by the policies of the service to which its route
/// leads. Seen red of that one, while the form was made for the policies of the service that was asked for: `//admin` was let in.
#[tokio::test]
async fn policies_read_requests() {
    for of in ["cart", "v1"] {
        on_one_thread(policies_of(of)).await;
    }
}

async fn policies_of(of: &str) {
    use mesh_model::policy::http::{HeaderCondition, HttpMatch, PathPattern};
    use mesh_model::policy::{Action, Clause, Match, Policy, Rule as PolicyRule, Scope, StringMatch};
    let deny = |http: HttpMatch| PolicyRule {
        clauses: vec![Clause { matches: vec![Match { http: Some(Arc::new(http)), ..Match::default() }] }],
    };
    let admin = vec![PathPattern::Text(StringMatch::Prefix("/admin".into()))];
    let marked = HeaderCondition {
        name: "x-mark".into(),
        values: vec![StringMatch::Exact("bad".into())],
        not_values: Vec::new(),
    };
    let rules = vec![
        deny(HttpMatch { paths: admin, ..HttpMatch::default() }),
        deny(HttpMatch { methods: vec![StringMatch::Exact("DELETE".into())], ..HttpMatch::default() }),
        deny(HttpMatch { headers: vec![marked], ..HttpMatch::default() }),
    ];
    let policy = Policy {
        name: "no".into(),
        namespace: "shop".into(),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules,
        dry_run: false,
    };
    let mut world = split(vec![rule("/", "v1")]).await;
    world.tables.apply_local(vec![
        Resource::Policy(Arc::new(policy)),
        Resource::Routes(Arc::new(routes(of, if of == "cart" { vec![rule("/", "v1")] } else { Vec::new() }, &["no"]))),
    ]);
    let with = |name: &str, values: &[&str]| {
        let request = Request::get("/").header("host", "cart");
        let request = values.iter().fold(request, |request, value| request.header(name, *value));
        request.body(Full::default()).unwrap()
    };
    let delete = Request::delete("/").header("host", "cart").body(Full::default()).unwrap();
    for (what, request, status) in [
        ("it is nobody's business", get("/"), 200),
        ("the path", get("/admin/x"), 403),
        ("another way to write it", get("/a/../%61dmin"), 403),
        ("and another", get("//admin"), 403),
        ("it could be read in two ways, and a policy speaks of paths", get("/x%2Fadmin"), 400),
        ("it is another path", get("/x/admin"), 200),
        ("the method", delete, 403),
        ("the header", with("x-mark", &["bad"]), 403),
        ("one of its values", with("x-mark", &["good", "bad"]), 403),
        ("another value", with("x-mark", &["good"]), 200),
    ] {
        assert_eq!(ask(&world, "web", vec![request]).await[0].0, status, "{what}");
    }
    assert!(world.logged("POLICY_DENIED").await.contains("explicitly denied by: shop/no (rule 2)"));
    world.end().await;
}
