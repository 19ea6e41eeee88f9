//! Requests that are counted: by the waypoint, and by a rate limit service over gRPC, with a real server.

use std::convert::Infallible;
use std::sync::Mutex as StdMutex;

use http::StatusCode;
use mesh_model::policy::{Action, Clause, Match, Policy, Rule as PolicyRule, Scope, StringMatch};
use mesh_model::rate_limit::{
    Entry, EntryValue, GlobalRateLimit, Kind, LimitKey, LimitedRoute, LocalRateLimit, RateLimit, Target,
};
use mesh_model::route::{Backend, BackendTarget, RequestMatch, RouteKind};
use mesh_proto::rate_limit as pb;
use mesh_testkit::hbone::on_one_thread;
use prost::Message;

use super::*;

fn limit(name: &str, target: Target, kind: Kind) -> RateLimit {
    RateLimit { policy: NamespacedName::new("shop", "limits"), name: name.into(), target, kind }
}

fn of_cart() -> Target {
    Target::Service(key("cart"))
}

/// So many in an hour.
fn local(requests: u32, key: Option<LimitKey>) -> Kind {
    Kind::Local(LocalRateLimit { requests, per: Duration::from_secs(3600), burst: requests, key })
}

fn told(rules: Vec<Rule>, policies: &[&str], limits: Vec<RateLimit>) -> Resource {
    Resource::Routes(Arc::new(ServiceRoutes { rate_limits: limits.into(), ..routes("cart", rules, policies) }))
}

/// A rule of a route of `shop` for a path, to a service.
fn rule(route: &str, path: &str, to: &str) -> Rule {
    let path = mesh_model::route::PathMatch::Prefix(path.into());
    Rule {
        kind: RouteKind::Http,
        route: NamespacedName::new("shop", route),
        name: "rules[0]".into(),
        port: None,
        callers: None,
        matches: vec![RequestMatch { path: Some(path), ..RequestMatch::default() }],
        filters: Vec::new(),
        backends: vec![Backend { target: BackendTarget::Service(key(to), 80), weight: 1, filters: Vec::new() }],
        request_timeout: None,
        backend_timeout: None,
        retry: None,
        fault: None,
    }
}

async fn world(limits: Vec<RateLimit>) -> World {
    let application = application(|request: Request<Incoming>| async move {
        let header = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
        Response::new(Full::from(format!("{} {}", request.uri().path(), header("x-plan"))))
    })
    .await;
    let mut world = World::start(AppProtocol::Http11, &[Endpoint::plain("cart-1", application)]);
    world.tables.apply_local(vec![told(Vec::new(), &[], limits)]);
    world
}

fn get(path: &str, user: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "cart").header("x-user", user).body(Full::default()).unwrap()
}

/// The status of a request of `who`.
async fn status(world: &World, who: &str, path: &str, user: &str) -> u16 {
    world.http1(who).await.send_request(get(path, user)).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn one_caller_is_over_its_limit_and_another_is_not() {
    on_one_thread(async {
        let world = world(vec![limit("local[0]", of_cart(), local(2, Some(LimitKey::CallerIdentity)))]).await;
        let seen = [
            status(&world, "web", "/", "-").await,
            status(&world, "web", "/", "-").await,
            status(&world, "web", "/", "-").await,
            status(&world, "other", "/", "-").await,
        ];
        assert_eq!(seen, [200, 200, 429, 200]);
        let answer = world.http1("web").await.send_request(get("/", "-")).await.unwrap();
        let header = |name: &str| answer.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(header("x-envoy-ratelimited"), "true");
        let wait: u64 = header("retry-after").parse().unwrap();
        assert!((1_700..=1_800).contains(&wait), "{wait}");
        assert_eq!(text(answer).await, (429, "RATE_LIMITED\n".to_owned()));
        let line = world.logged("response_code=429").await;
        assert!(line.contains("RATE_LIMITED") && line.contains("shop/limits"), "{line}");
        assert!(line.contains("local[0] of TrafficPolicy shop/limits for Service shop/cart"), "{line}");
        let metrics = world.metrics();
        let count = |result: &str| {
            let labels = format!(r#"{{traffic_policy="shop/limits",kind="local",result="{result}"}}"#);
            let line = metrics.lines().find(|line| line.contains(&labels)).unwrap_or("none");
            line.rsplit(' ').next().unwrap().to_owned()
        };
        assert_eq!((count("ok"), count("over_limit")), ("3".into(), "2".into()), "{metrics}");
        assert!(metrics.contains(r#"response_flags="RL""#), "{metrics}");
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_grpc_call_over_the_limit_is_answered_in_its_words() {
    on_one_thread(async {
        let world = world(vec![limit("local[0]", of_cart(), local(1, None))]).await;
        assert_eq!(status(&world, "web", "/", "-").await, 200);
        let call = Request::post("http://cart/a.B/C").header("content-type", "application/grpc");
        let answer = world.http2("web").await.send_request(call.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(
            (header("grpc-status").as_deref(), header("grpc-message").as_deref()),
            (Some("8"), Some("RATE_LIMITED"))
        );
        assert!(header("retry-after").is_some());
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn who_may_not_ask_uses_up_nothing_and_a_refused_request_is_counted_once() {
    on_one_thread(async {
        let mut world = world(Vec::new()).await;
        let stranger = Match { principals: vec![StringMatch::Suffix("/sa/stranger".into())], ..Match::default() };
        world.tables.apply_local(vec![
            Resource::Policy(Arc::new(Policy {
                name: "deny".into(),
                namespace: "shop".into(),
                scope: Scope::WorkloadSelector,
                action: Action::Deny,
                rules: vec![PolicyRule { clauses: vec![Clause { matches: vec![stranger] }] }],
                dry_run: false,
            })),
            told(
                Vec::new(),
                &["deny"],
                vec![
                    limit("all", of_cart(), local(3, None)),
                    limit("users", of_cart(), local(1, Some(LimitKey::Header("x-user".into())))),
                ],
            ),
        ]);
        for _ in 0..5 {
            assert_eq!(status(&world, "stranger", "/", "-").await, 403);
        }
        assert_eq!(status(&world, "web", "/", "alice").await, 200);
        for _ in 0..5 {
            assert_eq!(status(&world, "web", "/", "alice").await, 429, "over her own, and not counted by the other");
        }
        let rest = [status(&world, "web", "/", "bob").await, status(&world, "web", "/", "carol").await];
        assert_eq!(rest, [200, 200], "three in all have passed");
        assert_eq!(status(&world, "web", "/", "dave").await, 429);
        world.logged("over all of TrafficPolicy").await;
        world.end().await;
    })
    .await;
}

#[tokio::test]
async fn limits_of_routes_and_of_backends_own_services_count() {
    on_one_thread(async {
        let mut world = world(Vec::new()).await;
        let slow = LimitedRoute { route: NamespacedName::new("shop", "slow"), rule: None };
        let at = application(|_| async { Response::new(Full::from("other")) }).await;
        let own = limit("own", Target::Service(key("other")), local(1, None));
        // The same Gateway's limit stands at both: a request is counted by it once.
        let gateway = limit("gateway", Target::Gateway(NamespacedName::new("shop", "waypoint")), local(6, None));
        let of_other = ServiceRoutes { rate_limits: [gateway.clone(), own].into(), ..routes("other", Vec::new(), &[]) };
        world.tables.apply_local(vec![
            Resource::Service(Arc::new(service("other", [10, 1, 0, 2].into(), AppProtocol::Http11))),
            Endpoint::plain("other-1", at).of("other"),
            Resource::Routes(Arc::new(of_other)),
            told(
                vec![rule("slow", "/slow", "cart"), rule("away", "/away", "other"), rule("rest", "/", "cart")],
                &[],
                vec![gateway, limit("route", Target::HttpRoute(slow), local(1, None))],
            ),
        ]);
        let mut seen = Vec::new();
        for path in ["/slow", "/slow", "/away", "/away", "/", "/", "/", "/"] {
            seen.push(status(&world, "web", path, "-").await);
        }
        // One that only the backend's own limit refuses has passed the Gateway's.
        assert_eq!(seen, [200, 429, 200, 429, 200, 200, 200, 429]);
        world.logged("over own of TrafficPolicy shop/limits for Service shop/other").await;
        world.logged("over gateway of TrafficPolicy").await;
        world.end().await;
    })
    .await;
}

/// A rate limit service: one call with one message each way, by tonic.
#[derive(Clone)]
struct Limits(Arc<StdMutex<Vec<pb::RateLimitRequest>>>);

#[derive(Clone, Default)]
struct Codec;

impl tonic::codec::Codec for Codec {
    type Encode = pb::RateLimitResponse;
    type Decode = pb::RateLimitRequest;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Codec {
    type Item = pb::RateLimitResponse;
    type Error = tonic::Status;

    fn encode(&mut self, item: Self::Item, to: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), tonic::Status> {
        item.encode(to).map_err(|error| tonic::Status::internal(error.to_string()))
    }
}

impl tonic::codec::Decoder for Codec {
    type Item = pb::RateLimitRequest;
    type Error = tonic::Status;

    fn decode(&mut self, from: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Self::Item>, tonic::Status> {
        pb::RateLimitRequest::decode(from).map(Some).map_err(|error| tonic::Status::internal(error.to_string()))
    }
}

impl tonic::server::UnaryService<pb::RateLimitRequest> for Limits {
    type Response = pb::RateLimitResponse;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<tonic::Response<Self::Response>, tonic::Status>> + Send>>;

    /// Whoever is called `many` is over, and about `lost` nothing is said.
    fn call(&mut self, request: tonic::Request<pb::RateLimitRequest>) -> Self::Future {
        let message = request.into_inner();
        let entries = message.descriptors.iter().flat_map(|descriptor| &descriptor.entries);
        let user = entries.filter(|entry| entry.key == "user").map(|entry| entry.value.clone()).next();
        self.0.lock().unwrap().push(message);
        let header = |key: &str| pb::HeaderValue { key: key.into(), value: "gold".into(), raw_value: Bytes::new() };
        let status = pb::rate_limit_response::DescriptorStatus {
            code: 2,
            limit_remaining: 0,
            duration_until_reset: Some(mesh_proto::Duration { seconds: 6, nanos: 1 }),
        };
        let answer = match user.as_deref() {
            Some("lost") => return Box::pin(std::future::ready(Err(tonic::Status::unavailable("away")))),
            Some("many") => pb::RateLimitResponse {
                overall_code: 2,
                statuses: vec![status],
                response_headers_to_add: vec![header("x-told")],
                raw_body: "slow down".into(),
                ..Default::default()
            },
            _ => pb::RateLimitResponse {
                overall_code: 1,
                request_headers_to_add: vec![header("x-plan")],
                response_headers_to_add: vec![header("x-told")],
                ..Default::default()
            },
        };
        Box::pin(std::future::ready(Ok(tonic::Response::new(answer))))
    }
}

async fn rate_limit_service(seen: Arc<StdMutex<Vec<pb::RateLimitRequest>>>) -> SocketAddr {
    mesh_testkit::tcp::listen(move |tcp| {
        let limits = Limits(seen.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            assert_eq!(request.uri().path(), "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
            let limits = limits.clone();
            async move { Ok::<_, Infallible>(tonic::server::Grpc::new(Codec).unary(limits, request).await) }
        });
        async move {
            let server = hyper::server::conn::http2::Builder::new(LocalExecutor);
            let _ = server.serve_connection(TokioIo::new(tcp), service).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_rate_limit_service_is_asked_and_its_word_counts() {
    on_one_thread(async {
        let seen = Arc::new(StdMutex::default());
        let at = rate_limit_service(Arc::clone(&seen)).await;
        let entry = |key: &str, value| Entry { key: key.into(), value };
        let global = |deny_on_failure| {
            let user = vec![entry("user", EntryValue::Header("x-user".into()))];
            GlobalRateLimit {
                service: key("ask"),
                port: 80,
                domain: "shop".into(),
                timeout: Duration::from_secs(5),
                deny_on_failure,
                descriptors: vec![vec![entry("who", EntryValue::CallerIdentity)], user],
            }
        };
        let limits = |deny| {
            vec![
                limit("local", of_cart(), local(3, None)),
                limit("global", of_cart(), Kind::Global(global(deny).into())),
            ]
        };
        let mut world = world(limits(true)).await;
        world.tables.apply_local(vec![
            Resource::Service(Arc::new(service("ask", [10, 1, 0, 2].into(), AppProtocol::Unknown))),
            Endpoint::plain("ask-1", at).of("ask"),
        ]);
        let answer = world.http1("web").await.send_request(get("/a", "few")).await.unwrap();
        assert_eq!(answer.headers()["x-told"], "gold");
        assert_eq!(text(answer).await, (200, "/a gold".to_owned()));
        let message = seen.lock().unwrap().pop().unwrap();
        let entry = |d: &pb::RateLimitDescriptor| d.entries.iter().map(|e| format!("{}={}", e.key, e.value)).collect();
        let descriptors: Vec<String> = message.descriptors.iter().map(entry).collect();
        assert_eq!((&*message.domain, descriptors), ("shop", vec![format!("who={}", id("web")), "user=few".into()]));

        let answer = world.http1("web").await.send_request(get("/a", "many")).await.unwrap();
        let header = |name: &str| answer.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!([header("x-envoy-ratelimited"), header("retry-after"), header("x-told")], ["true", "7", "gold"]);
        assert_eq!(text(answer).await, (429, "slow down".to_owned()));
        world
            .logged("over global of TrafficPolicy shop/limits for Service shop/cart.shop.svc.cluster.local, says")
            .await;

        // Nobody has said yes.
        assert_eq!(status(&world, "web", "/a", "lost").await, 500);
        let line = world.logged("RATE_LIMITER_FAILED").await;
        assert!(line.contains("gRPC status") && line.contains("away"), "{line}");
        assert!(world.metrics().contains(r#"response_flags="RLSE""#));
        world.tables.apply_local(vec![told(Vec::new(), &[], limits(false))]);
        assert_eq!(status(&world, "web", "/a", "lost").await, 200, "failureMode Allow");
        // Those that were refused are not counted by the waypoint: this is the third that passes.
        assert_eq!(status(&world, "web", "/a", "few").await, 200);
        let asked = seen.lock().unwrap().len();
        assert_eq!(status(&world, "web", "/a", "few").await, 429);
        assert_eq!(seen.lock().unwrap().len(), asked, "nobody is asked about what the waypoint refuses");
        world.end().await;
    })
    .await;
}
