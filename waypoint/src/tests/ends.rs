//! Connections that are ended in order, while requests go on.

use http::header::CONNECTION;
use mesh_model::resource::Kind;
use mesh_testkit::hbone::on_one_thread;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::*;

/// Longest that a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);

fn get() -> Request<Full<Bytes>> {
    Request::get("http://cart/").header("host", "cart").body(Full::default()).unwrap()
}

async fn answers(_: Request<Incoming>) -> Response<Full<Bytes>> {
    Response::default()
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"));
}

/// Seen red without the watch in `Ends::left`: none ended.
#[tokio::test]
async fn who_asks_nothing_is_sent_away_before_its_service_is_forgotten() {
    on_one_thread(async {
        let application = application(answers).await;
        let quick = |config: &mut Config| config.connections.left = Duration::from_millis(50);
        let endpoints = [Endpoint::plain("cart-1", application)];
        let mut world = World::start_with(AppProtocol::Http11, &endpoints, quick);
        let (mut one, mut two) = (world.http1("web").await, world.http2("web").await);
        assert_eq!(text(one.send_request(get()).await.unwrap()).await.0, 200);
        assert_eq!(text(two.send_request(get()).await.unwrap()).await.0, 200);
        // One that has not asked for anything yet.
        let new = world.http1("web").await;
        world.tables.apply(Kind::Routes, Vec::new(), vec![key("cart").to_string()]).await;
        let begin = Instant::now();
        until("all are sent away", || one.is_closed() && two.is_closed() && new.is_closed()).await;
        assert!(begin.elapsed() < Duration::from_secs(8), "before requests are refused");
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn an_old_connection_ends_with_an_answer_and_no_request_fails() {
    on_one_thread(async {
        let application = application(answers).await;
        let old = |config: &mut Config| config.connections.age = Some(Duration::from_millis(100));
        let endpoints = [Endpoint::plain("cart-1", application)];
        let world = World::start_with(AppProtocol::Http11, &endpoints, old);
        for _ in 0..2 {
            let (mut one, mut asked, mut told) = (world.http1("web").await, 0, false);
            while !told {
                one.ready().await.expect("it was not said that it ends");
                let answer = one.send_request(get()).await.expect("no request fails");
                assert_eq!(answer.status(), 200);
                told = answer.headers().get(CONNECTION).is_some_and(|value| value == "close");
                text(answer).await;
                asked += 1;
            }
            assert!(asked > 1, "not with the first answer");
            until("it ends", || one.is_closed()).await;
        }
        world.end().await;
    })
    .await;
}

/// GOAWAY: what is under way is answered, however long it takes.
#[tokio::test]
async fn an_old_http2_connection_ends_when_all_is_answered() {
    on_one_thread(async {
        let gate = Arc::new(Semaphore::new(0));
        let waits = gate.clone();
        let application = application(move |_| {
            let gate = waits.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                Response::new(Full::from("late"))
            }
        })
        .await;
        let old = |config: &mut Config| config.connections.age = Some(Duration::from_millis(100));
        let endpoints = [Endpoint::plain("cart-1", application)];
        let world = World::start_with(AppProtocol::Http11, &endpoints, old);
        let mut two = world.http2("web").await;
        let begun = two.send_request(get());
        let (answer, ()) = tokio::join!(begun, async {
            // Longer than it may grow old.
            tokio::time::sleep(Duration::from_millis(300)).await;
            gate.add_permits(1);
        });
        assert_eq!(text(answer.unwrap()).await, (200, "late".to_owned()));
        until("it ends", || two.is_closed()).await;
        world.end().await;
    })
    .await;
}

/// As many connections move as the new pods are to have; those that are left stay.
#[tokio::test]
async fn more_pods_of_the_waypoint_get_their_part_of_the_connections() {
    on_one_thread(async {
        let application = application(answers).await;
        let moves = |config: &mut Config| {
            config.connections.age = Some(DAY);
            config.connections.spread = Duration::from_millis(100);
        };
        let endpoints = [Endpoint::plain("cart-1", application)];
        let mut world = World::start_with(AppProtocol::Http11, &endpoints, moves);
        let pod = |name: &str| {
            Resource::Workload(Arc::new(Workload {
                name: name.into(),
                namespace: "shop".into(),
                service_account: "waypoint".into(),
                services: Memberships::from_iter([(key("waypoint"), Vec::new())]),
                ..Workload::empty(name)
            }))
        };
        let mut connections = Vec::new();
        for _ in 0..40 {
            let mut connection = world.http2("web").await;
            assert_eq!(text(connection.send_request(get()).await.unwrap()).await.0, 200);
            connections.push(connection);
        }
        let closed = || connections.iter().filter(|connection| connection.is_closed()).count();
        // A thread that has just begun may see the first of them as the pods that there always were.
        for number in 0..40 {
            if closed() > 0 {
                break;
            }
            world.tables.apply_local([0, 1].map(|n| pod(&format!("waypoint-{number}-{n}"))).into());
            // Longer than those that move may take.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!((1..40).contains(&closed()), "some move, and some stay: {} of 40", closed());
        world.end().await;
    })
    .await;
}
