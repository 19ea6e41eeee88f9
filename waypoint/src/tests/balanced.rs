//! Who gets which request where time counts: by a clock that the applications move by hand, so what is counted is the same on every
//! machine.

use std::sync::atomic::{AtomicU64, Ordering};

use mesh_model::balance::ewma::{DECAY, DEFAULT_LATENCY, PeakEwma};
use mesh_model::balance::warmup::Warmup;
use mesh_model::traffic::{Balancing, Detection, PortTraffic, TrafficPolicy};
use mesh_testkit::hbone::on_one_thread;

use super::*;

/// Milliseconds.
type Time = Arc<AtomicU64>;

/// The routes of `cart`, whose endpoints are treated so.
fn treated(policy: TrafficPolicy) -> Resource {
    let rule = Some(NamespacedName::new("shop", "cart-rule"));
    let traffic = vec![PortTraffic { port: None, rule, policy: policy.into() }];
    Resource::Routes(Arc::new(ServiceRoutes { traffic, ..routes("cart", Vec::new(), &[]) }))
}

/// An application that answers with its name and a status, after so many milliseconds of `time`.
async fn taking(
    name: &'static str,
    milliseconds: u64,
    time: &Time,
    status: impl Fn() -> u16 + Clone + 'static,
) -> Endpoint {
    let time = time.clone();
    let at = application(move |_| {
        time.fetch_add(milliseconds, Ordering::Relaxed);
        let mut answer = Response::new(Full::from(name));
        *answer.status_mut() = http::StatusCode::from_u16(status()).unwrap();
        std::future::ready(answer)
    })
    .await;
    Endpoint::plain(name, at)
}

/// How many of so many requests, one after the other, are answered by `name`.
async fn count(world: &World, times: usize, name: &str) -> usize {
    let mut sender = world.http1("web").await;
    let mut got = 0;
    for _ in 0..times {
        sender.ready().await.unwrap();
        let request = Request::get("/").header("host", "cart").body(Full::default()).unwrap();
        got += usize::from(text(sender.send_request(request).await.unwrap()).await.1 == name);
    }
    got
}

fn by_latency() -> Balancing {
    let policy = NamespacedName::new("shop", "fast");
    Balancing::PeakEwma(PeakEwma { policy, decay: DECAY, default_latency: DEFAULT_LATENCY })
}

#[tokio::test]
async fn a_slow_endpoint_gets_few_requests() {
    on_one_thread(async {
        let time = Time::default();
        let endpoints = [taking("fast", 10, &time, || 200).await, taking("slow", 90, &time, || 200).await];
        let mut world = World::start_at(AppProtocol::Http11, &endpoints, |_| {}, Clock::by_hand(time));
        let least = count(&world, 200, "slow").await;
        assert!(least > 20, "by what is under way it gets as much as chance gives: {least}");
        world.tables.apply_local(vec![treated(TrafficPolicy { balancing: by_latency(), ..TrafficPolicy::default() })]);
        let few = count(&world, 200, "slow").await;
        assert!(few <= 2, "{few} of 200");
        let dump = world.upstreams();
        assert_eq!(dump[0]["trafficPolicy"], "shop/fast", "{dump}");
        let cost = |endpoint: usize| dump[0]["endpoints"][endpoint]["cost"].as_f64().unwrap();
        assert!(cost(1) > cost(0), "{dump}");
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_fails_fast_draws_no_traffic() {
    on_one_thread(async {
        let time = Time::default();
        let endpoints = [taking("good", 60, &time, || 200).await, taking("bad", 1, &time, || 503).await];
        let mut world = World::start_at(AppProtocol::Http11, &endpoints, |_| {}, Clock::by_hand(time));
        world.tables.apply_local(vec![treated(TrafficPolicy { balancing: by_latency(), ..TrafficPolicy::default() })]);
        let bad = count(&world, 200, "bad").await;
        assert!(bad <= 70, "by latency alone it would get nearly all: {bad} of 200");
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_new_endpoint_gets_more_with_time() {
    on_one_thread(async {
        let (time, failing) = (Time::default(), Rc::new(Cell::new(false)));
        let fails = failing.clone();
        let status = move || if fails.replace(false) { 503 } else { 200 };
        let (old, new) = (taking("old", 0, &time, || 200).await, taking("new", 0, &time, status).await);
        let mut world = World::start_at(AppProtocol::Http11, &[old], |_| {}, Clock::by_hand(time.clone()));
        let detection = Detection { server_errors: 1, max_ejection_percent: 100, ..Detection::default() };
        world.tables.apply_local(vec![treated(TrafficPolicy {
            balancing: Balancing::RoundRobin,
            warmup: Some(Warmup::lasting(Duration::from_secs(60))),
            outliers: Some(detection),
            ..TrafficPolicy::default()
        })]);
        assert_eq!(count(&world, 10, "new").await, 0);
        world.tables.apply_local(vec![new.of("cart")]);
        let at = |seconds: u64| time.store(seconds * 1000, Ordering::Relaxed);
        for (what, seconds, expected) in [("at first", 0, 10), ("half way", 30, 37), ("in the end", 60, 55)] {
            at(seconds);
            let got = count(&world, 110, "new").await;
            assert!(got.abs_diff(expected) <= 3, "{what}: {got}, not {expected}");
        }
        // It fails, is ejected, and is new when it returns.
        failing.set(true);
        assert!(count(&world, 10, "new").await <= 1);
        at(100);
        let got = count(&world, 110, "new").await;
        assert!(got.abs_diff(10) <= 3, "after its ejection: {got}");
        assert_eq!(world.upstreams()[0]["endpoints"][0]["warmupPercent"], 10.0);
        world.end().await;
    })
    .await;
}
