//! Requests about which somebody else is asked (CUSTOM policies), over HTTP and gRPC, by real servers.

use std::cell::RefCell;

use http::StatusCode;
use mesh_model::authorizer::{Authorizer, BodyInCheck, HttpCheck, Protocol};
use mesh_model::policy::http::{HttpMatch, PathPattern};
use mesh_model::policy::{Action, Clause, Match, Policy, Rule as PolicyRule, Scope, StringMatch};
use mesh_proto::ext_authz as pb;
use mesh_testkit::hbone::on_one_thread;
use pb::check_response::HttpResponse;
use prost::Message;

use super::*;

fn authorizer(protocol: Protocol) -> Authorizer {
    Authorizer {
        name: "sample".into(),
        service: key("ask"),
        port: 80,
        timeout: Duration::from_secs(5),
        fail_open: false,
        status_on_error: StatusCode::FORBIDDEN,
        body: None,
        protocol,
    }
}

fn over_http() -> HttpCheck {
    let exact = |name: &str| vec![StringMatch::Exact(name.into())];
    HttpCheck {
        path_prefix: "/check".into(),
        request_headers: vec![exact("x-ask").remove(0), StringMatch::Prefix("x-forwarded-client-".into())],
        additional_headers: vec![("x-by".into(), "waypoint".into())],
        upstream_on_allow: exact("x-user"),
        downstream_on_deny: exact("x-why"),
        downstream_on_allow: exact("x-told"),
    }
}

/// A policy for every path but `/free`.
fn policy(name: &str, action: Action, paths: &[&str]) -> Resource {
    let text = |path: &&str| PathPattern::Text(StringMatch::Exact((*path).into()));
    let http = match paths {
        [] => HttpMatch { not_paths: vec![text(&"/free")], ..HttpMatch::default() },
        some => HttpMatch { paths: some.iter().map(text).collect(), ..HttpMatch::default() },
    };
    let clause = Clause { matches: vec![Match { http: Some(Arc::new(http)), ..Match::default() }] };
    Resource::Policy(Arc::new(Policy {
        name: name.into(),
        namespace: "shop".into(),
        scope: Scope::WorkloadSelector,
        action,
        rules: vec![PolicyRule { clauses: vec![clause] }],
        dry_run: false,
    }))
}

fn custom(authorizer: Authorizer) -> Resource {
    policy("custom", Action::Custom(Ok(Arc::new(authorizer))), &[])
}

/// An application that says what it gets, and a service `ask` at `at`.
async fn guarded(authorizer: Authorizer, at: SocketAddr, protocol: AppProtocol) -> World {
    let application = application(|request: Request<Incoming>| async move {
        let header = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
        let told = ["x-user", "x-ask"].map(header).join(" ");
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::from(format!("{path} {told} {}", body.len())))
    })
    .await;
    let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
    world.tables.apply_local(vec![
        Resource::Service(Arc::new(service("ask", [10, 1, 0, 2].into(), protocol))),
        Endpoint::plain("ask-1", at).of("ask"),
        custom(authorizer),
        Resource::Routes(Arc::new(routes("cart", Vec::new(), &["custom"]))),
    ]);
    world
}

/// Status, header `x-told` or `x-why`, and body.
async fn ask(world: &World, request: Request<Full<Bytes>>) -> (u16, String, String) {
    let answer = world.http1("web").await.send_request(request).await.unwrap();
    let told = ["x-told", "x-why"].iter().find_map(|name| answer.headers().get(*name));
    let told = told.map_or("-", |value| value.to_str().unwrap()).to_owned();
    let (status, body) = text(answer).await;
    (status, told, body)
}

fn post(path: &str, asked: &str, bytes: usize) -> Request<Full<Bytes>> {
    let body = Full::from(vec![b'x'; bytes]);
    Request::post(path).header("host", "cart").header("x-ask", asked).header("x-user", "forged").body(body).unwrap()
}

/// Who called, as the waypoint says it.
fn xfcc() -> String {
    format!("By={};URI={}", id("waypoint"), id("web"))
}

fn said(status: u16, told: &str, body: &str) -> (u16, String, String) {
    (status, told.to_owned(), body.to_owned())
}

/// An authorizer over HTTP, which writes down what it is asked; `x-ask` says what it answers.
async fn http_server(seen: Rc<RefCell<Vec<String>>>) -> SocketAddr {
    application(move |request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            let header =
                |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
            let (asked, xfcc) = (header("x-ask"), header("x-forwarded-client-cert"));
            let told = [header("host"), header("x-by"), header("x-user"), xfcc].join(" ");
            let line = format!("{} {} {told}", request.method(), request.uri());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            seen.borrow_mut().push(format!("{line} {}", body.len()));
            let (status, body) = match &*asked {
                "yes" => (200, Bytes::new()),
                "long" => (401, vec![b'x'; 100_000].into()),
                "never" => std::future::pending().await,
                code => (code.parse().unwrap_or(401), Bytes::from_static(b"who are you?")),
            };
            let answer = Response::builder().status(status).header("x-user", "bob").header("x-why", "because");
            answer.header("x-told", "allowed").header("x-other", "not passed on").body(Full::from(body)).unwrap()
        }
    })
    .await
}

#[tokio::test]
async fn an_authorizer_is_asked_over_http_and_its_word_counts() {
    on_one_thread(async {
        let seen = Rc::new(RefCell::default());
        let at = http_server(Rc::clone(&seen)).await;
        let mut world = guarded(authorizer(Protocol::Http(over_http())), at, AppProtocol::Http11).await;
        assert_eq!(ask(&world, post("/a?b", "yes", 3)).await, said(200, "allowed", "/a bob yes 3"));
        assert_eq!(*seen.borrow(), [format!("POST /check/a?b cart waypoint - {} 0", xfcc())]);
        assert_eq!(ask(&world, post("/a", "no", 3)).await, said(401, "because", "who are you?"));
        let line = world.logged("response_code=401").await;
        assert!(
            line.contains("AUTHORIZER_DENIED") && line.contains("extension provider sample answered 401"),
            "{line}"
        );
        assert_eq!(seen.borrow().len(), 2);
        assert_eq!(ask(&world, post("/free", "no", 3)).await, said(200, "-", "/free forged no 3"));
        assert_eq!(seen.borrow().len(), 2, "nobody is asked about what no rule matches");
        // Who is let pass by it may still be denied; who is not, is not asked for anything else.
        world.tables.apply_local(vec![
            policy("deny", Action::Deny, &["/a"]),
            Resource::Routes(Arc::new(routes("cart", Vec::new(), &["custom", "deny"]))),
        ]);
        assert_eq!(ask(&world, post("/a", "yes", 0)).await, said(403, "-", "RBAC: access denied"));
        assert_eq!(ask(&world, post("/a", "no", 0)).await, said(401, "because", "who are you?"));
        assert_eq!(ask(&world, post("/b", "yes", 0)).await, said(200, "allowed", "/b bob yes 0"));
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn whoever_gives_no_answer_has_not_said_yes() {
    on_one_thread(async {
        let at = http_server(Rc::default()).await;
        let asks = || authorizer(Protocol::Http(over_http()));
        let mut world = guarded(asks(), at, AppProtocol::Http11).await;
        let open = Authorizer { fail_open: true, ..asks() };
        let other = Authorizer { status_on_error: StatusCode::SERVICE_UNAVAILABLE, ..asks() };
        let soon = Authorizer { timeout: Duration::from_millis(50), ..asks() };
        let nowhere = Authorizer { service: key("nowhere"), ..asks() };
        let elsewhere = Authorizer { port: 81, ..asks() };
        let refused = said(403, "-", "RBAC: access denied");
        for (authorizer, asked, expected, why) in [
            (asks(), "500", refused.clone(), "it answered 500"),
            (asks(), "204", said(204, "because", ""), "answered 204"),
            (asks(), "long", refused.clone(), "longer than 65536 bytes"),
            (other, "500", said(503, "-", "AUTHORIZER_FAILED\n"), "it answered 500"),
            (soon, "never", refused.clone(), "no answer within the time"),
            (
                nowhere.clone(),
                "yes",
                refused.clone(),
                "(shop/nowhere.shop.svc.cluster.local, port 80) has not said yes: there is",
            ),
            (elsewhere, "yes", refused, "port 81) has not said yes"),
            (Authorizer { fail_open: true, ..nowhere }, "yes", said(200, "-", "/a forged yes 0"), ""),
            (open.clone(), "500", said(200, "-", "/a forged 500 0"), ""),
            // It has said something, and not yes.
            (open, "no", said(401, "because", "who are you?"), "answered 401"),
        ] {
            world.tables.apply_local(vec![custom(authorizer)]);
            assert_eq!(ask(&world, post("/a", asked, 0)).await, expected, "{why}");
            if !why.is_empty() {
                world.logged(why).await;
            }
        }
        world.tables.apply_local(vec![policy("custom", Action::Custom(Err("provider x is unknown".into())), &[])]);
        assert_eq!(ask(&world, post("/a", "yes", 0)).await.0, 403);
        world.logged("not let pass by whom shop/custom (rule 0) asks: provider x is unknown").await;
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn what_an_authorizer_may_see_of_a_body_still_reaches_the_application() {
    on_one_thread(async {
        let seen = Rc::new(RefCell::default());
        let at = http_server(Rc::clone(&seen)).await;
        let with = |allow_partial| {
            let body = Some(BodyInCheck { most: 10_000, allow_partial, as_bytes: false });
            Authorizer { body, ..authorizer(Protocol::Http(over_http())) }
        };
        let mut world = guarded(with(false), at, AppProtocol::Http11).await;
        for (allow_partial, bytes, expected, shown) in [
            (false, 0, said(200, "allowed", "/a bob yes 0"), Some(0)),
            (false, 10_000, said(200, "allowed", "/a bob yes 10000"), Some(10_000)),
            (false, 10_001, said(413, "-", "AUTHORIZER_FAILED\n"), None),
            (true, 10_001, said(200, "allowed", "/a bob yes 10001"), Some(10_000)),
            (true, 1_000_000, said(200, "allowed", "/a bob yes 1000000"), Some(10_000)),
        ] {
            world.tables.apply_local(vec![custom(with(allow_partial))]);
            seen.borrow_mut().clear();
            assert_eq!(ask(&world, post("/a", "yes", bytes)).await, expected, "{bytes}");
            let shown = shown.map(|shown| format!("POST /check/a cart waypoint - {} {shown}", xfcc()));
            assert_eq!(*seen.borrow(), Vec::from_iter(shown), "{bytes}");
        }
        world.end().await;
    })
    .await;
}

/// An authorizer over gRPC, which writes down what it is asked. It lets pass what has the header `x-ask: yes`.
async fn grpc_server(seen: Rc<RefCell<Vec<pb::CheckRequest>>>) -> SocketAddr {
    let header = |key: &str, value: &str| pb::HeaderValueOption {
        header: Some(pb::HeaderValue { key: key.into(), value: value.into(), raw_value: Bytes::new() }),
        append: None,
        append_action: 0,
    };
    let answer = move |asked: Option<&str>| {
        let (code, http_response) = match asked {
            Some("yes") => {
                let headers = vec![header("x-user", "bob")];
                let response_headers_to_add = vec![header("x-told", "allowed")];
                let headers_to_remove = vec!["x-ask".into()];
                let ok = pb::OkHttpResponse { headers, headers_to_remove, response_headers_to_add };
                (0, HttpResponse::OkResponse(ok))
            }
            _ => {
                let status = Some(pb::HttpStatus { code: 401 });
                let denied =
                    pb::DeniedHttpResponse { status, headers: vec![header("x-why", "because")], body: "no".into() };
                (7, HttpResponse::DeniedResponse(denied))
            }
        };
        let status = Some(pb::RpcStatus { code, message: String::new() });
        pb::CheckResponse { status, http_response: Some(http_response) }.encode_to_vec()
    };
    mesh_testkit::tcp::listen(move |tcp| {
        let (seen, answer) = (seen.clone(), answer);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (seen, answer) = (seen.clone(), answer);
            async move {
                assert_eq!(
                    request.uri(),
                    "http://ask.shop.svc.cluster.local:80/envoy.service.auth.v3.Authorization/Check"
                );
                let message = request.into_body().collect().await.unwrap().to_bytes();
                let message = pb::CheckRequest::decode(message.slice(5..)).unwrap();
                let http = message.attributes.as_ref().unwrap().request.as_ref().unwrap().http.as_ref().unwrap();
                let asked = http.headers.get("x-ask").cloned();
                seen.borrow_mut().push(message);
                if asked.as_deref() == Some("fail") {
                    let failed = Response::builder().header("grpc-status", "14").header("grpc-message", "away");
                    return Ok::<_, std::convert::Infallible>(failed.body(Full::<Bytes>::default().boxed()).unwrap());
                }
                let answer = answer(asked.as_deref());
                let mut framed = vec![0];
                framed.extend(u32::try_from(answer.len()).unwrap().to_be_bytes());
                framed.extend(answer);
                let mut trailers = http::HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let body = Full::from(framed).with_trailers(std::future::ready(Some(Ok(trailers))));
                let head = Response::builder().header("content-type", "application/grpc");
                Ok(head.body(body.boxed()).unwrap())
            }
        });
        async move {
            let server = hyper::server::conn::http2::Builder::new(LocalExecutor);
            let _ = server.serve_connection(TokioIo::new(tcp), service).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_authorizer_is_asked_over_grpc() {
    on_one_thread(async {
        let seen = Rc::new(RefCell::default());
        let at = grpc_server(Rc::clone(&seen)).await;
        let body = Some(BodyInCheck { most: 100, allow_partial: true, as_bytes: true });
        let world = guarded(Authorizer { body, ..authorizer(Protocol::Grpc) }, at, AppProtocol::Unknown).await;
        assert_eq!(ask(&world, post("/a?b", "yes", 200)).await, said(200, "allowed", "/a bob - 200"));
        let message = seen.borrow_mut().pop().unwrap();
        let attributes = message.attributes.unwrap();
        let principal = |peer: Option<pb::attribute_context::Peer>| peer.unwrap().principal;
        assert_eq!(principal(attributes.source), id("web").to_string());
        assert_eq!(principal(attributes.destination), id("waypoint").to_string());
        let http = attributes.request.unwrap().http.unwrap();
        assert_eq!((&*http.method, &*http.path, &*http.host), ("POST", "/a?b", "cart"));
        assert_eq!((http.raw_body.len(), http.size, &*http.protocol), (100, 200, "HTTP/1.1"));
        assert_eq!(http.headers["x-forwarded-client-cert"], xfcc());
        assert_eq!(ask(&world, post("/a", "no", 0)).await, said(401, "because", "no"));
        assert_eq!(ask(&world, post("/a", "fail", 0)).await, said(403, "-", "RBAC: access denied"));
        let line = world.logged("AUTHORIZER_FAILED").await;
        assert!(line.contains("gRPC status") && line.contains("away"), "{line}");
        world.end().await;
    })
    .await;
}
