//! Which requests and connections have a line in the access log (Telemetry's `accessLogging`).

use mesh_model::access_log::{AccessLogging, Expression};
use mesh_testkit::hbone::on_one_thread;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn told(filters: &[&str]) -> Resource {
    let filters = filters.iter().map(|text| Expression::compile(text).unwrap()).collect();
    let access_logging = Some(AccessLogging { filters }.into());
    Resource::Routes(Arc::new(ServiceRoutes { access_logging, ..routes("cart", Vec::new(), &[]) }))
}

/// A waypoint whose application answers with the status that the path says.
async fn world(filters: &[&str]) -> World {
    let application = application(|request: Request<Incoming>| async move {
        let status: u16 = request.uri().path()[1..].parse().unwrap();
        Response::builder().status(status).body(Full::default()).unwrap()
    })
    .await;
    let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
    world.tables.apply_local(vec![told(filters)]);
    world
}

/// Asks with this header in one connection, and gives the lines of requests that there are once `until` is there.
async fn asked(world: &World, requests: &[(&str, &str)], until: &str) -> Vec<String> {
    let mut connection = world.http1("web").await;
    for (path, user) in requests {
        let request = Request::get(*path).header("host", "cart").header("x-user", *user).body(Full::default()).unwrap();
        let answer = connection.send_request(request).await.unwrap();
        answer.into_body().collect().await.unwrap();
    }
    world.logged(until).await;
    let lines = world.log.lines().into_iter().filter(|line| line.contains("request complete"));
    let path = |line: &str| line.split("path=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    lines.map(|line| path(&line)).collect()
}

#[tokio::test]
async fn only_what_a_filter_lets_through_is_logged() {
    on_one_thread(async {
        let world = world(&["response.code >= 400", "request.headers['x-user'] == 'ann'"]).await;
        let requests = [("/200", "bob"), ("/404", "bob"), ("/201", "ann"), ("/202", "bob"), ("/503", "bob")];
        assert_eq!(asked(&world, &requests, "/503").await, ["/404", "/201", "/503"]);
        let counted = world.metrics();
        for code in ["200", "201", "202", "404", "503"] {
            let words = ["istio_requests_total{", &format!("response_code=\"{code}\"")];
            assert!(counted.lines().any(|line| words.iter().all(|word| line.contains(word))), "{code} is counted");
        }
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_logged_until_an_edit_while_a_connection_is_open() {
    on_one_thread(async {
        let mut world = world(&[]).await;
        let mut connection = world.http1("web").await;
        let mut get = async |path: &str| {
            let request = Request::get(path).header("host", "cart").body(Full::default()).unwrap();
            connection.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        };
        get("/500").await;
        world.tables.apply_local(vec![told(&["true"])]);
        get("/200").await;
        world.logged("/200").await;
        assert!(!world.log.lines().iter().any(|line| line.contains("/500")));
        drop(connection);
        world.end().await;
    })
    .await;
}

/// A waypoint whose service speaks no HTTP: its application ends each connection.
async fn connections(filters: &[&str]) -> World {
    let application = mesh_testkit::tcp::listen(|mut tcp| async move { tcp.shutdown().await.unwrap() }).await;
    let mut world = World::start(AppProtocol::Tcp, &[Endpoint::plain("cart-1", application)]);
    world.tables.apply_local(vec![told(filters)]);
    world
}

async fn connects(world: &World) {
    let mut tunnel = world.tunnel("web", "10.1.0.1:80").await.unwrap();
    tunnel.shutdown().await.unwrap();
    tunnel.read_to_end(&mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn connections_are_logged_unless_a_filter_is_sure() {
    on_one_thread(async {
        // Of what has no status, nobody can say that it is below 400.
        let mut world = connections(&["response.code >= 400"]).await;
        connects(&world).await;
        world.logged("connection complete").await;
        let before = world.log.lines().len();
        world.tables.apply_local(vec![told(&["!connection.mtls"])]);
        connects(&world).await;
        world.tables.apply_local(vec![told(&["destination.port == 80"])]);
        connects(&world).await;
        // Each has a line when it opens and when it ends.
        let lines = || world.log.lines().into_iter().skip(before).filter(|line| line.contains("connection ")).count();
        while lines() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(lines(), 2);
        world.end().await;
    })
    .await;
}
