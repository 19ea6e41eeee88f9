//! What DestinationRules say: limits, ejections, and who gets which request.

use std::cell::Cell;

use mesh_model::traffic::{Balancing, Cookie, Detection, HashBy, HashTable, Limits, PortTraffic, TrafficPolicy};
use mesh_testkit::hbone::on_one_thread;
use tokio::sync::Notify;

use super::*;

/// The routes of `cart`, with a rule.
fn ruled(policy: TrafficPolicy) -> Resource {
    let rule = NamespacedName::new("shop", "cart-rule");
    let traffic = vec![PortTraffic { port: None, rule: Some(rule), policy: policy.into() }];
    Resource::Routes(Arc::new(ServiceRoutes { traffic, ..routes("cart", Vec::new(), &[]) }))
}

fn limited(limits: Limits) -> Resource {
    ruled(TrafficPolicy { limits, ..TrafficPolicy::default() })
}

/// An application that answers with its name and this status.
async fn answering(name: &'static str, status: u16) -> SocketAddr {
    application(move |_| {
        let mut answer = Response::new(Full::from(name));
        *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
        std::future::ready(answer)
    })
    .await
}

/// An application that answers when it is let, and tells when it is asked.
struct Slow {
    at: SocketAddr,
    asked: Rc<(Cell<usize>, Notify)>,
    answer: Rc<tokio::sync::Semaphore>,
}

impl Slow {
    async fn start() -> Self {
        let (asked, answer) = (Rc::<(Cell<usize>, Notify)>::default(), Rc::new(tokio::sync::Semaphore::new(0)));
        let (told, let_go) = (asked.clone(), answer.clone());
        let at = application(move |_| {
            told.0.set(told.0.get() + 1);
            told.1.notify_one();
            let let_go = let_go.clone();
            async move {
                let_go.acquire().await.unwrap().forget();
                Response::new(Full::from("slow"))
            }
        })
        .await;
        Self { at, asked, answer }
    }

    /// Waits until so many requests have come.
    async fn asked(&self, times: usize) {
        while self.asked.0.get() < times {
            self.asked.1.notified().await;
        }
    }

    fn answers(&self, count: usize) {
        self.answer.add_permits(count);
    }
}

fn get() -> Request<Full<Bytes>> {
    Request::get("/").header("host", "cart").body(Full::default()).unwrap()
}

/// A request of its own connection, under way.
async fn asking(world: &World) -> JoinHandle<(u16, String)> {
    let mut sender = world.http1("web").await;
    spawn_local(async move { text(sender.send_request(get()).await.unwrap()).await })
}

async fn ask(world: &World) -> (u16, String) {
    asking(world).await.await.unwrap()
}

const OVERFLOW: (u16, &str) = (503, "UPSTREAM_OVERFLOW\n");

fn is_overflow(answer: &(u16, String)) -> bool {
    (answer.0, &*answer.1) == OVERFLOW
}

/// Istio's circuit-breaking task: one connection, one request that waits for it, and no more.
#[tokio::test]
async fn over_a_limit_requests_are_refused_at_once() {
    on_one_thread(async {
        let slow = Slow::start().await;
        let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", slow.at)]);
        world.tables.apply_local(vec![limited(Limits { connections: Some(1), pending: Some(1), ..Limits::default() })]);
        let first = asking(&world).await;
        slow.asked(1).await;
        let (second, third) = (asking(&world).await, asking(&world).await);
        // One of them waits, the other one is refused; which, is chance.
        let line = world.logged("UPSTREAM_OVERFLOW").await;
        let why = "http1MaxPendingRequests (1) of DestinationRule shop/cart-rule is reached at shop/cart.shop.svc.cluster.local port 80";
        assert!(line.contains(why) && line.contains("response_code=503"), "{line}");
        slow.answers(2);
        let answers = [first.await.unwrap(), second.await.unwrap(), third.await.unwrap()];
        assert_eq!(answers.iter().filter(|answer| is_overflow(answer)).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer.1 == "slow").count(), 2, "the one that waited got the connection");
        let page = world.metrics();
        assert!(page.contains("ambit_upstream_overflows_total{destination_service=\"cart.shop.svc.cluster.local\",limit=\"http1MaxPendingRequests\"} 1"), "{page}");
        assert!(page.contains("response_flags=\"UO\""), "{page}");
        // Without the rule nothing is refused.
        world.tables.apply_local(vec![Resource::Routes(Arc::new(routes("cart", Vec::new(), &[])))]);
        let all = [asking(&world).await, asking(&world).await, asking(&world).await];
        slow.asked(5).await;
        slow.answers(3);
        for one in all {
            assert_eq!(one.await.unwrap().0, 200);
        }
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn requests_under_way_are_bounded_whatever_is_spoken() {
    on_one_thread(async {
        let slow = Slow::start().await;
        let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", slow.at)]);
        world.tables.apply_local(vec![limited(Limits { requests: Some(1), ..Limits::default() })]);
        let first = asking(&world).await;
        slow.asked(1).await;
        assert!(is_overflow(&ask(&world).await));
        assert!(world.logged("UPSTREAM_OVERFLOW").await.contains("http2MaxRequests (1)"));
        slow.answers(2);
        assert_eq!(first.await.unwrap().0, 200);
        // Its answer has ended for the caller a moment before it has for the waypoint.
        while is_overflow(&ask(&world).await) {}
        world.end().await;
    })
    .await;
}

/// A connection to an endpoint that nobody uses makes room for one to another.
#[tokio::test]
async fn an_unused_connection_makes_room() {
    on_one_thread(async {
        let endpoints =
            [Endpoint::plain("a", answering("a", 200).await), Endpoint::plain("b", answering("b", 200).await)];
        let mut world = World::start(AppProtocol::Http11, &endpoints);
        let limits = Limits { connections: Some(1), ..Limits::default() };
        world.tables.apply_local(vec![ruled(TrafficPolicy {
            limits,
            balancing: Balancing::RoundRobin,
            ..TrafficPolicy::default()
        })]);
        let mut got = Vec::new();
        for _ in 0..6 {
            got.push(ask(&world).await);
        }
        assert!(got.iter().all(|answer| answer.0 == 200), "{got:?}");
        assert_eq!(got.iter().filter(|answer| answer.1 == "a").count(), 3, "{got:?}");
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_carries_no_more_requests_than_it_may() {
    on_one_thread(async {
        let connections = Rc::new(Cell::new(0));
        let counted = connections.clone();
        let at = mesh_testkit::tcp::listen(move |tcp| {
            counted.set(counted.get() + 1);
            let service = hyper::service::service_fn(|_| async {
                Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from("ok")))
            });
            async move {
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service).await;
            }
        })
        .await;
        let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", at)]);
        world.tables.apply_local(vec![limited(Limits { requests_per_connection: Some(2), ..Limits::default() })]);
        let mut sender = world.http1("web").await;
        for _ in 0..6 {
            sender.ready().await.unwrap();
            assert_eq!(text(sender.send_request(get()).await.unwrap()).await.0, 200);
        }
        assert_eq!(connections.get(), 3);
        world.end().await;
    })
    .await;
}

/// An endpoint that answers nothing but errors gets no more requests, whoever asks, and is seen to.
#[tokio::test]
async fn an_endpoint_that_fails_is_ejected() {
    on_one_thread(async {
        let endpoints = [
            Endpoint::plain("good", answering("good", 200).await),
            Endpoint::plain("bad", answering("bad", 503).await),
        ];
        let mut world = World::start(AppProtocol::Http11, &endpoints);
        let detection = Detection { server_errors: 2, max_ejection_percent: 50, ..Detection::default() };
        let policy =
            TrafficPolicy { outliers: Some(detection), balancing: Balancing::RoundRobin, ..TrafficPolicy::default() };
        world.tables.apply_local(vec![ruled(policy)]);
        let mut got = Vec::new();
        for _ in 0..20 {
            got.push(ask(&world).await.1);
        }
        assert_eq!(got.iter().filter(|name| *name == "bad").count(), 2, "{got:?}");
        assert!(got[4..].iter().all(|name| name == "good"), "{got:?}");
        let dump = world.upstreams();
        let bad = &dump[0]["endpoints"][0];
        assert_eq!(
            (&bad["workload"], &bad["ejected"], &bad["ejections"]),
            (&"bad".into(), &true.into(), &1.into()),
            "{dump}"
        );
        assert_eq!(dump[0]["destinationRule"], "shop/cart-rule");
        let page = world.metrics();
        let labels = "destination_service=\"cart.shop.svc.cluster.local\"";
        assert!(
            page.contains(&format!("ambit_outlier_ejections_total{{{labels},reason=\"consecutive_5xx\"}} 1")),
            "{page}"
        );
        assert!(page.contains(&format!("ambit_outlier_ejected{{{labels},port=\"80\"}} 1")), "{page}");
        // Without the rule it is one like the other.
        world.tables.apply_local(vec![Resource::Routes(Arc::new(routes("cart", Vec::new(), &[])))]);
        while ask(&world).await.1 != "bad" {}
        world.end().await;
    })
    .await;
}

/// Nobody listens at one of two endpoints: no caller notices, and after a while it is not tried any more. Then it returns.
#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_ejected_and_returns() {
    on_one_thread(async {
        // Nobody has listened there.
        let nobody = SocketAddr::from(([127, 15, 8, 2], 9));
        let endpoints = [Endpoint::plain("good", answering("good", 200).await), Endpoint::plain("gone", nobody)];
        let mut world = World::start(AppProtocol::Http11, &endpoints);
        let short = Duration::from_millis(50);
        let detection = Detection {
            server_errors: 0,
            local_failures: Some(1),
            interval: short,
            base_ejection_time: short,
            max_ejection_percent: 100,
            ..Detection::default()
        };
        let policy =
            TrafficPolicy { outliers: Some(detection), balancing: Balancing::RoundRobin, ..TrafficPolicy::default() };
        world.tables.apply_local(vec![ruled(policy)]);
        let is_ejected = |world: &World| world.upstreams()[0]["endpoints"][0]["ejected"] == true;
        for wanted in [true, false, true] {
            while is_ejected(&world) != wanted {
                assert_eq!(ask(&world).await, (200, "good".to_owned()));
            }
        }
        world.end().await;
    })
    .await;
}

/// The same user meets the same endpoint, by header and by a cookie that the waypoint gives.
#[tokio::test]
async fn a_hash_leads_to_the_same_endpoint() {
    on_one_thread(async {
        let mut endpoints = Vec::new();
        for name in ["a", "b", "c", "d"] {
            endpoints.push(Endpoint::plain(name, answering(name, 200).await));
        }
        let mut world = World::start(AppProtocol::Http11, &endpoints);
        let by = |by, table| ruled(TrafficPolicy { balancing: Balancing::Hash(by, table), ..TrafficPolicy::default() });
        let mut sender = world.http1("web").await;
        let mut ask = async |name: &str, value: &str| {
            let request = Request::get("/").header("host", "cart").header(name, value).body(Full::default()).unwrap();
            sender.ready().await.unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let cookie = answer.headers().get("set-cookie").map(|cookie| cookie.to_str().unwrap().to_owned());
            (text(answer).await.1, cookie)
        };
        for table in [HashTable::default(), HashTable::Maglev(65_537)] {
            world.tables.apply_local(vec![by(HashBy::Header("x-user".into()), table)]);
            let mut met = std::collections::BTreeSet::new();
            for user in ["ann", "bob", "cid", "dot", "eve", "fay", "gil", "hal", "ivy", "joe"] {
                let first = ask("x-user", user).await;
                for _ in 0..5 {
                    assert_eq!(ask("x-user", user).await, first, "{user} by {table:?}");
                }
                met.insert(first.0);
            }
            assert!(met.len() > 1, "{met:?}");
        }
        let cookie = Cookie { name: "user".into(), path: Some("/".into()), ttl: Some(Duration::from_secs(60)) };
        world.tables.apply_local(vec![by(HashBy::Cookie(cookie), HashTable::default())]);
        for _ in 0..5 {
            let (name, given) = ask("x-user", "ann").await;
            let given = given.expect("a cookie");
            assert!(given.starts_with("user=") && given.ends_with("; Max-Age=60; Path=/; HttpOnly"), "{given}");
            let (again, none) = ask("cookie", given.split_once(';').unwrap().0).await;
            assert_eq!((again, none), (name, None));
        }
        world.end().await;
    })
    .await;
}
