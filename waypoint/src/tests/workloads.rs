//! Pods that are asked for by their own addresses.

use http::header::CONNECTION;
use mesh_model::address::{GatewayAddress, GatewayDestination};
use mesh_model::policy::http::HttpMatch;
use mesh_model::policy::{Action, Clause, Match, Policy, Rule, Scope, StringMatch};
use mesh_testkit::hbone::on_one_thread;

use super::*;

fn ask(method: &str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri("/").header("host", "whoever").body(Full::default()).unwrap()
}

/// The pod `cart-1`, of the service `cart`, which is behind the waypoint, or not.
fn pod(endpoint: &Endpoint, is_behind: bool) -> Resource {
    let Resource::Workload(workload) = endpoint.of("cart") else { panic!("an endpoint is a workload") };
    let waypoint =
        GatewayAddress { destination: GatewayDestination::Hostname(key("waypoint")), hbone_mtls_port: 15_008 };
    Resource::Workload(Arc::new(Workload {
        uid: "Kubernetes//Pod/shop/cart-1".into(),
        waypoint: is_behind.then(|| waypoint.shared()),
        ..(*workload).clone()
    }))
}

/// Nobody may DELETE, at addresses of workloads.
fn no_delete() -> Vec<Resource> {
    let http = HttpMatch { methods: vec![StringMatch::Exact("DELETE".into())], ..HttpMatch::default() };
    let clause = Clause { matches: vec![Match { http: Some(Arc::new(http)), ..Match::default() }] };
    let deny = Policy {
        name: "no-delete".into(),
        namespace: "shop".into(),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![clause] }],
        dry_run: false,
    };
    let workloads = ServiceRoutes {
        policies: vec![NamespacedName::new("shop", "no-delete")],
        ..ServiceRoutes::nothing(ServiceRoutes::of_workloads(&NamespacedName::new("shop", "waypoint")))
    };
    vec![Resource::Policy(Arc::new(deny)), Resource::Routes(Arc::new(workloads))]
}

#[tokio::test]
async fn a_pod_is_reached_at_its_address_and_judged_by_what_is_for_workloads() {
    on_one_thread(async {
        let application = application(|request: Request<Incoming>| {
            let xfcc = request.headers()["x-forwarded-client-cert"].to_str().unwrap().to_owned();
            std::future::ready(Response::new(Full::from(xfcc)))
        })
        .await;
        let mut world = World::start(AppProtocol::Http11, &[]);
        let waypoint = Workload {
            name: "waypoint".into(),
            namespace: "shop".into(),
            service_account: "waypoint".into(),
            addresses: vec![[10, 2, 0, 9].into()],
            services: Memberships::from_iter([(key("waypoint"), Vec::new())]),
            ..Workload::empty("waypoint")
        };
        let endpoint = Endpoint::hbone("cart-1", SocketAddr::new(MESHED, application.port()));
        let of_waypoint = Resource::Workload(Arc::new(waypoint));
        world.tables.apply_local([of_waypoint, pod(&endpoint, true)].into_iter().chain(no_delete()).collect());
        let ztunnel = Ztunnel::start(&world.ca, application).await;
        let at = format!("{MESHED}:{}", application.port());
        let connect = async || {
            let tunnel = world.tunnel("web", &at).await.unwrap();
            let (sender, connection) = http1::handshake(TokioIo::new(tunnel)).await.unwrap();
            spawn_local(connection);
            sender
        };
        let mut web = connect().await;
        for _ in 0..2 {
            web.ready().await.unwrap();
            let (status, xfcc) = text(web.send_request(ask("GET")).await.unwrap()).await;
            assert_eq!((status, xfcc.contains("URI=spiffe://cluster.local/ns/shop/sa/web")), (200, true), "{xfcc}");
        }
        assert_eq!(ztunnel.tunnels.get(), 1, "the connection to the pod is kept for the next request");
        let line = world.logged("response_code=200").await;
        assert!(line.contains("dst.workload=\"cart-1\"") && !line.contains("dst.service="), "{line}");
        web.ready().await.unwrap();
        assert_eq!(text(web.send_request(ask("DELETE")).await.unwrap()).await.0, 403);
        let line = world.logged("response_code=403").await;
        assert!(line.contains("shop/no-delete"), "{line}");
        // The service's own routes and policies are not for it, and the other way round.
        assert!(world.upstreams().to_string().contains("Kubernetes//Pod/shop/cart-1"), "{}", world.upstreams());
        drop(web);
        world.end().await;
    })
    .await;
}

/// It is served until its callers know that it has left, and these are sent away.
#[tokio::test]
async fn a_pod_that_leaves_is_served_until_its_callers_know() {
    on_one_thread(async {
        let application = application(|_| std::future::ready(Response::new(Full::from("here")))).await;
        let mut world = World::start(AppProtocol::Http11, &[]);
        let waypoint = Workload {
            name: "waypoint".into(),
            namespace: "shop".into(),
            service_account: "waypoint".into(),
            addresses: vec![[10, 2, 0, 9].into()],
            services: Memberships::from_iter([(key("waypoint"), Vec::new())]),
            ..Workload::empty("waypoint")
        };
        let endpoint = Endpoint::plain("cart-1", application);
        let of_waypoint = Resource::Workload(Arc::new(waypoint));
        world.tables.apply_local([of_waypoint, pod(&endpoint, true)].into_iter().chain(no_delete()).collect());
        let at = application.to_string();
        let connect = async |world: &World| {
            let tunnel = world.tunnel("web", &at).await.unwrap();
            let (sender, connection) = http1::handshake(TokioIo::new(tunnel)).await.unwrap();
            spawn_local(connection);
            sender
        };
        let mut early = connect(&world).await;
        assert_eq!(text(early.send_request(ask("GET")).await.unwrap()).await, (200, "here".to_owned()));
        world.tables.apply_local(vec![pod(&endpoint, false)]);
        for (method, status) in [("GET", 200), ("DELETE", 403)] {
            let mut late = connect(&world).await;
            assert_eq!(text(late.send_request(ask(method)).await.unwrap()).await.0, status, "one that comes now");
        }
        early.ready().await.unwrap();
        let answer = early.send_request(ask("GET")).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()[CONNECTION]), (200, &"close".parse().unwrap()));
        world.end().await;
    })
    .await;
}
