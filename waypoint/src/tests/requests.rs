//! Requests through a waypoint.

use std::cell::RefCell;

use http::header::CONNECTION;
use mesh_model::policy::{Action, Clause, Match, Policy, Rule, Scope, StringMatch};
use mesh_testkit::hbone::on_one_thread;

use super::*;

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "cart").body(Full::default()).unwrap()
}

/// What an application sees of a request.
async fn seen(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let header = |name: &str| {
        let all = request.headers().get_all(name).iter();
        all.map(|value| value.to_str().unwrap()).collect::<Vec<_>>().join("|")
    };
    let (method, path) = (request.method().clone(), request.uri().to_string());
    let (host, xfcc, from) = (header("host"), header("x-forwarded-client-cert"), header("x-forwarded-for"));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    Response::new(Full::from(format!("{method} {path} {host} {xfcc} {from} {body}")))
}

#[tokio::test]
async fn a_request_reaches_an_endpoint_and_says_who_asks() {
    on_one_thread(async {
        let application = application(seen).await;
        let endpoint = Endpoint::hbone("cart-1", SocketAddr::new(MESHED, application.port()));
        let world = World::start(AppProtocol::Http11, &[endpoint]);
        let ztunnel = Ztunnel::start(&world.ca, application).await;
        let mut web = world.http1("web").await;
        for n in 0..3 {
            let request = Request::post(format!("/a?n={n}"))
                .header("host", "cart")
                .header("x-forwarded-client-cert", "By=me;URI=spiffe://cluster.local/ns/shop/sa/admin")
                .header("x-forwarded-for", "8.8.8.8")
                .body(Full::from("three pounds"))
                .unwrap();
            let xfcc = "By=spiffe://cluster.local/ns/shop/sa/waypoint;URI=spiffe://cluster.local/ns/shop/sa/web";
            let expected = format!("POST /a?n={n} cart {xfcc} 127.0.0.1 three pounds");
            web.ready().await.unwrap();
            assert_eq!(text(web.send_request(request).await.unwrap()).await, (200, expected));
        }
        assert_eq!(ztunnel.tunnels.get(), 1, "the connection to the endpoint is kept for the next request");
        let line = world.logged("path=\"/a?n=2\"").await;
        for part in [
            "request complete",
            "src.identity=\"spiffe://cluster.local/ns/shop/sa/web\"",
            "dst.workload=\"cart-1\"",
            "dst.service=\"cart.shop.svc.cluster.local\"",
            "method=\"POST\"",
            "response_code=200",
            "bytes_recv=12",
        ] {
            assert!(line.contains(part), "{part} is missing in {line}");
        }
        drop(web);
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_not_behind_the_waypoint_is_refused() {
    on_one_thread(async {
        let mut world = World::start(AppProtocol::Http11, &[]);
        let other = service("other", "10.1.0.2".parse().unwrap(), AppProtocol::Http11);
        world.tables.apply_local(vec![Resource::Service(Arc::new(other))]);
        // Asked for at once: each is waited for, because the control plane may be about to say otherwise.
        let ask = async |to: &str| match world.tunnel("web", to).await.err() {
            Some(OpenError::Refused { status, reason }) => (status.as_u16(), reason.unwrap_or_default()),
            other => panic!("{to}: {other:?}"),
        };
        let (port, other) = tokio::join!(ask("10.1.0.1:81"), ask("10.1.0.2:80"));
        assert_eq!(port, (404, "UNKNOWN_SERVICE_PORT".to_owned()));
        assert_eq!(other, (404, "WRONG_DESTINATION".to_owned()));
        world.end().await;
    })
    .await;
}

/// Its policies and its routes are gone; who has asked before, and who has not heard of it, is served as before, and then sent away.
#[tokio::test]
async fn a_service_that_leaves_is_served_until_its_callers_know() {
    on_one_thread(async {
        let application = application(seen).await;
        let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
        let method = |method: &str| vec![StringMatch::Exact(method.into())];
        let http = mesh_model::policy::http::HttpMatch { methods: method("DELETE"), ..Default::default() };
        let clause = Clause { matches: vec![Match { http: Some(Arc::new(http)), ..Match::default() }] };
        let deny = Policy {
            name: "deny".into(),
            namespace: "shop".into(),
            scope: Scope::WorkloadSelector,
            action: Action::Deny,
            rules: vec![Rule { clauses: vec![clause] }],
            dry_run: false,
        };
        let cart = routes("cart", Vec::new(), &["deny"]);
        let name = cart.service.to_string();
        world.tables.apply_local(vec![Resource::Policy(Arc::new(deny)), Resource::Routes(Arc::new(cart))]);
        let delete = || Request::delete("/").header("host", "cart").body(Full::default()).unwrap();
        let mut web = world.http1("web").await;
        assert_eq!(text(web.send_request(get("/")).await.unwrap()).await.0, 200);
        let mut two = world.http2("web").await;
        let absolute = || Request::get("http://cart/").body(Full::<Bytes>::default()).unwrap();
        assert_eq!(text(two.send_request(absolute()).await.unwrap()).await.0, 200);

        world.tables.apply(mesh_model::resource::Kind::Authorization, Vec::new(), vec!["shop/deny".into()]).await;
        world.tables.apply(mesh_model::resource::Kind::Routes, Vec::new(), vec![name]).await;
        for (request, status) in [(get("/"), 200), (delete(), 403)] {
            let mut late = world.http1("web").await;
            assert_eq!(text(late.send_request(request).await.unwrap()).await.0, status, "one that comes now");
        }
        let answer = web.send_request(get("/")).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.headers()[CONNECTION]), (200, &"close".parse().unwrap()));
        text(answer).await;
        assert_eq!(text(two.send_request(absolute()).await.unwrap()).await.0, 200);
        // GOAWAY: its connection ends. Nobody waits for more requests on it.
        while !two.is_closed() {
            tokio::task::yield_now().await;
        }
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_refuses_costs_the_caller_nothing() {
    on_one_thread(async {
        let application = application(seen).await;
        // Nobody has listened there.
        let dead = SocketAddr::from(([127, 15, 8, 1], 9));
        let endpoints = [Endpoint::plain("dead", dead), Endpoint::plain("alive", application)];
        let world = World::start(AppProtocol::Http11, &endpoints);
        let mut web = world.http1("web").await;
        for _ in 0..20 {
            web.ready().await.unwrap();
            let request = Request::post("/").header("host", "cart").body(Full::from("once")).unwrap();
            assert_eq!(text(web.send_request(request).await.unwrap()).await.0, 200);
        }
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn without_an_endpoint_the_answer_says_so() {
    on_one_thread(async {
        let world = World::start(AppProtocol::Http11, &[]);
        let answer = world.http1("web").await.send_request(get("/")).await.unwrap();
        assert_eq!(text(answer).await, (503, "NO_HEALTHY_UPSTREAM\n".to_owned()));
        assert!(world.logged("NO_HEALTHY_UPSTREAM").await.contains("no healthy upstream"));
        world.end().await;
    })
    .await;
}

/// Only `who` may ask.
fn only(who: &str) -> Resource {
    let principals = vec![StringMatch::Exact(format!("cluster.local/ns/shop/sa/{who}").into())];
    let clause = Clause { matches: vec![Match { principals, ..Match::default() }] };
    Resource::Policy(Arc::new(Policy {
        name: "only".into(),
        namespace: "shop".into(),
        scope: Scope::WorkloadSelector,
        action: Action::Allow,
        rules: vec![Rule { clauses: vec![clause] }],
        dry_run: false,
    }))
}

/// Each request is judged: also on a connection that was there before the policy.
#[tokio::test]
async fn policies_of_the_service_judge_every_request() {
    on_one_thread(async {
        let application = application(seen).await;
        let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
        let (mut web, mut admin) = (world.http1("web").await, world.http1("admin").await);
        let ask = async |who: &mut http1::SendRequest<Full<Bytes>>| {
            who.ready().await.unwrap();
            text(who.send_request(get("/")).await.unwrap()).await
        };
        assert_eq!((ask(&mut web).await.0, ask(&mut admin).await.0), (200, 200));
        let routes = Resource::Routes(Arc::new(routes("cart", Vec::new(), &["only"])));
        world.tables.apply_local(vec![only("admin"), routes.clone()]);
        assert_eq!(ask(&mut web).await, (403, "RBAC: access denied".to_owned()));
        assert_eq!(ask(&mut admin).await.0, 200);
        let line = world.logged("POLICY_DENIED").await;
        assert!(line.contains("allow policies exist, but none allowed: shop/only"), "{line}");
        world.tables.apply_local(vec![only("web"), routes]);
        assert_eq!((ask(&mut web).await.0, ask(&mut admin).await.0), (200, 403));
        world.end().await;
    })
    .await;
}

/// Headers of HTTP/1 pass as they are written; those of one connection do not pass.
#[tokio::test]
async fn what_is_written_passes_as_it_is_written() {
    on_one_thread(async {
        let heard = Rc::new(RefCell::new(String::new()));
        let told = heard.clone();
        let application = mesh_testkit::tcp::listen(move |mut tcp| {
            let heard = told.clone();
            async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut bytes = vec![0; 4096];
                let read = tcp.read(&mut bytes).await.unwrap();
                *heard.borrow_mut() = String::from_utf8_lossy(&bytes[..read]).into_owned();
                let answer = b"HTTP/1.1 200 OK\r\nX-CamelCase: Yes\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nok";
                tcp.write_all(answer).await.unwrap();
            }
        })
        .await;
        let world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
        let mut tunnel = world.tunnel("web", "10.1.0.1:80").await.unwrap();
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let request = b"GET /x HTTP/1.1\r\nHost: cart\r\nX-MiXed: a\r\nConnection: X-Secret\r\nX-Secret: s\r\n\r\n";
        tunnel.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"ok") {
            assert!(tunnel.read_buf(&mut answer).await.unwrap() > 0);
        }
        let (asked, answer) = (heard.borrow().clone(), String::from_utf8(answer).unwrap());
        assert!(asked.contains("X-MiXed: a\r\n") && asked.starts_with("GET /x HTTP/1.1\r\n"), "{asked}");
        assert!(!asked.to_lowercase().contains("x-secret"), "{asked}");
        assert!(answer.contains("X-CamelCase: Yes\r\n") && !answer.contains("X-Hop"), "{answer}");
        assert!(!answer.to_lowercase().contains(CONNECTION.as_str()), "the endpoint's connection is not the caller's: {answer}");
        world.end().await;
    })
    .await;
}

/// A kept connection that its endpoint closes as the next request arrives: what is harmless is asked again, and the caller sees
/// nothing of it.
#[tokio::test]
async fn a_kept_connection_that_ends_costs_a_get_nothing() {
    on_one_thread(async {
        let application = mesh_testkit::tcp::listen(async |mut tcp| {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut asked = vec![0; 4096];
            let _ = tcp.read(&mut asked).await.unwrap();
            tcp.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            // It says nothing of closing, reads the next request, and closes.
            let _ = tcp.read(&mut asked).await;
        })
        .await;
        let world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
        let mut web = world.http1("web").await;
        for _ in 0..5 {
            web.ready().await.unwrap();
            assert_eq!(text(web.send_request(get("/")).await.unwrap()).await, (200, "ok".to_owned()));
        }
        // Doing this twice is not like doing it once.
        web.ready().await.unwrap();
        let post = Request::post("/").header("host", "cart").body(Full::from("once")).unwrap();
        assert_eq!(text(web.send_request(post).await.unwrap()).await, (502, "UPSTREAM_RESET\n".to_owned()));
        world.end().await;
    })
    .await;
}

/// A request may be on its way when the drain begins: the connection that it comes by is not closed before it, but with its answer.
///
/// Seen red while connections on which nothing was asked were closed at once: the request failed.
#[tokio::test]
async fn what_is_asked_just_after_a_drain_began_is_answered() {
    on_one_thread(async {
        let application = application(|_| async { Response::new(Full::from("here")) }).await;
        let world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
        let mut kept = world.http1("web").await;
        let fresh = world.http1("web").await;
        assert_eq!(text(kept.send_request(get("/")).await.unwrap()).await.0, 200);
        // Of another caller, whose HBONE connection says when the waypoint has heard of the drain.
        let told = world.caller("web").await;
        let World { drain, context, thread, .. } = world;
        let draining = spawn_local(drain.drain(Duration::from_secs(30)));
        while told.has_room() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for mut connection in [kept, fresh] {
            let answer = connection.send_request(get("/")).await.expect("it was not closed under a request");
            assert_eq!(answer.headers()["connection"], "close");
            assert_eq!(text(answer).await, (200, "here".to_owned()));
        }
        assert_eq!(draining.await.unwrap().left, 0);
        drop(context);
        tokio::task::spawn_blocking(|| thread.join()).await.unwrap();
    })
    .await;
}

/// What is under way when the waypoint ends is answered; then its callers are sent elsewhere.
#[tokio::test]
async fn a_waypoint_that_drains_answers_what_was_asked() {
    on_one_thread(async {
        let (go, going) = tokio::sync::watch::channel(false);
        let application = application(move |_| {
            let mut going = going.clone();
            async move {
                going.wait_for(|go| *go).await.unwrap();
                Response::new(Full::from("at last"))
            }
        })
        .await;
        let soon = |config: &mut Config| config.connections.left = Duration::from_millis(50);
        let world = World::start_with(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)], soon);
        let mut web = world.http1("web").await;
        let idle = world.http1("web").await;
        let asked = spawn_local(async move { (web.send_request(get("/")).await.unwrap(), web) });
        while world.context.proxy.drain.open() < 3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let World { drain, context, thread, .. } = world;
        let draining = spawn_local(drain.drain(Duration::from_secs(30)));
        // Whoever waits for nothing is sent away, and so the waypoint has heard of it.
        while !idle.is_closed() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        go.send_replace(true);
        let (answer, _web) = asked.await.unwrap();
        assert_eq!(answer.headers()["connection"], "close");
        assert_eq!(text(answer).await, (200, "at last".to_owned()));
        assert_eq!(draining.await.unwrap().left, 0);
        drop(context);
        tokio::task::spawn_blocking(|| thread.join()).await.unwrap();
    })
    .await;
}
