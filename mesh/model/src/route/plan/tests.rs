use super::*;
use crate::http::{Received, Rules, canonical};
use crate::route::select::{Router, Selected};
use crate::route::{Backend, Cors, Filter, HeaderEdit, PathEdit, Redirect, RequestMatch, RouteKind, ServiceRoutes};
use http::header::{HOST, HeaderName};
use http::{Method, Version};

fn to(name: &str) -> BackendTarget {
    BackendTarget::Service(NamespacedName::new("shop", name), 80)
}

fn backend(name: &str, weight: u32) -> Backend {
    Backend { target: to(name), weight, filters: Vec::new() }
}

fn rule(filters: Vec<Filter>) -> Rule {
    Rule {
        kind: RouteKind::Http,
        route: NamespacedName::new("shop", "route"),
        name: "rules[0]".into(),
        port: None,
        callers: None,
        matches: vec![RequestMatch::default()],
        filters,
        backends: vec![backend("v1", 1)],
        request_timeout: None,
        backend_timeout: None,
        retry: None,
        fault: None,
    }
}

fn under(prefix: &str, rule: Rule) -> Rule {
    let path = Some(PathMatch::Prefix(prefix.into()));
    Rule { matches: vec![RequestMatch { path, ..RequestMatch::default() }], ..rule }
}

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    let mut map = HeaderMap::new();
    for (name, value) in lines.iter().map(pair) {
        map.append(name, value);
    }
    map
}

/// What the rule does with `METHOD target`, dialled at `port`.
fn plan_at(rule: Rule, line: &str, lines: &[(&str, &str)], port: u16, rolls: &[u64]) -> Plan {
    let service = NamespacedName::new("shop", "cart");
    let routes = ServiceRoutes {
        service,
        ports: Vec::new(),
        rules: vec![rule],
        policies: Vec::new(),
        traffic: Vec::new(),
        tokens: Arc::default(),
        tracing: None,
        access_logging: None,
        subsets: Vec::new(),
        streams: Vec::new(),
        rate_limits: [].into(),
    };
    let (method, target) = line.split_once(' ').unwrap();
    let mut headers = map(lines);
    headers.entry(HOST).or_insert(HeaderValue::from_static("cart.shop"));
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let received = Received::of_target(Version::HTTP_11, &method, target.as_bytes(), &headers);
    let request = canonical(&received, Rules::default()).unwrap();
    let Selected::Rule(matched) = Router::new(routes.into()).select(&request, &headers, "web", port) else {
        panic!("{line}")
    };
    let mut rolls = rolls.iter();
    matched.plan(&request, &headers, port, || *rolls.next().expect("no more rolls than asked for"))
}

fn forward(rule: Rule, line: &str) -> Forward {
    match plan_at(rule, line, &[], 80, &[0, 0, 0]) {
        Plan::Forward(forward) => forward,
        Plan::Answer(answer) => panic!("{answer:?}"),
    }
}

fn answer(rule: Rule, line: &str, lines: &[(&str, &str)]) -> Answer {
    match plan_at(rule, line, lines, 80, &[0]) {
        Plan::Answer(answer) => answer,
        Plan::Forward(forward) => panic!("{forward:?}"),
    }
}

fn refused(rule: Rule, line: &str) -> (u16, ReasonCode, String) {
    let Answer { status, refused, .. } = answer(rule, line, &[]);
    let (code, why) = refused.unwrap();
    (status.as_u16(), code, why)
}

#[test]
fn backends_by_weight() {
    let invalid = Backend { target: BackendTarget::Invalid("no such service".into()), ..backend("", 1) };
    let none = Backend { weight: 0, ..invalid.clone() };
    let of = |backends: Vec<Backend>, roll| match plan_at(Rule { backends, ..rule(vec![]) }, "GET /", &[], 80, &[roll])
    {
        Plan::Forward(forward) => forward.backend().unwrap().service.name.to_string(),
        Plan::Answer(answer) => {
            let (code, why) = answer.refused.unwrap();
            assert_eq!((answer.status.as_u16(), code), (500, ReasonCode::NoBackend));
            why
        }
    };
    let split = || vec![backend("v1", 70), none.clone(), backend("v2", 30)];
    for (roll, name) in [(0, "v1"), (69, "v1"), (70, "v2"), (99, "v2"), (100, "v1"), (u64::MAX, "v1")] {
        assert_eq!(of(split(), roll), name, "{roll}");
    }
    let why = "rules[0] of route shop/route has no backend for the request: no such service";
    assert_eq!(of(vec![backend("v1", 1), invalid.clone()], 1), why);
    assert_eq!(of(vec![backend("v1", 1), invalid], 0), "v1");
    for nothing in [vec![], vec![backend("v1", 0)], vec![none]] {
        assert!(of(nothing, 7).ends_with("it has none with a weight"));
    }
    let huge = vec![backend("v1", u32::MAX), backend("v2", u32::MAX)];
    assert_eq!(of(huge, u64::from(u32::MAX)), "v2");
}

#[test]
fn headers_are_edited_in_order() {
    let pair = |name: &str, value: &str| (name.into(), value.into());
    let edit = |set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]| HeaderEdit {
        set: set.iter().map(|(name, value)| pair(name, value)).collect(),
        add: add.iter().map(|(name, value)| pair(name, value)).collect(),
        remove: remove.iter().map(|name| (*name).into()).collect(),
    };
    let first = edit(&[("x-set", "1")], &[("x-add", "1")], &["x-gone"]);
    let second = edit(&[("x-set", "2"), ("host", "other.example")], &[("x-add", "2")], &["x-late"]);
    let of_both = |edit: &HeaderEdit| vec![Filter::RequestHeaders(edit.clone()), Filter::ResponseHeaders(edit.clone())];
    let backends = vec![Backend { filters: of_both(&second), ..backend("v1", 1) }];
    let forward = forward(Rule { backends, ..rule(of_both(&first)) }, "GET /");
    let sent =
        || map(&[("x-set", "0"), ("x-set", "00"), ("x-add", "0"), ("x-gone", "0"), ("x-late", "0"), ("x-own", "0")]);
    let expected = map(&[("x-set", "2"), ("x-add", "0"), ("x-add", "1"), ("x-add", "2"), ("x-own", "0")]);
    let (mut request, mut answer) = (sent(), sent());
    forward.edit_request(&mut request);
    forward.edit_answer(&mut answer);
    assert_eq!((request, answer), (expected.clone(), expected));
    assert_eq!(forward.authority.as_deref(), Some("other.example"));
}

#[test]
fn what_no_route_can_edit() {
    for name in ["connection", "content-length", "transfer-encoding", "te", "upgrade", "keep-alive", ":path", "a b"] {
        for edit in [
            HeaderEdit { set: vec![(name.into(), "1".into())], ..HeaderEdit::default() },
            HeaderEdit { add: vec![(name.into(), "1".into())], ..HeaderEdit::default() },
            HeaderEdit { remove: vec![name.into()], ..HeaderEdit::default() },
        ] {
            for filter in [Filter::RequestHeaders(edit.clone()), Filter::ResponseHeaders(edit)] {
                let (status, code, why) = refused(rule(vec![filter.clone()]), "GET /");
                assert_eq!((status, code), (500, ReasonCode::RouteInvalid), "{filter:?}");
                assert!(
                    why.starts_with("rules[0] of route shop/route cannot be followed: ") && why.contains(name),
                    "{why}"
                );
                let backends = vec![Backend { filters: vec![filter], ..backend("v1", 1) }];
                assert_eq!(refused(Rule { backends, ..rule(vec![]) }, "GET /").1, ReasonCode::RouteInvalid);
            }
        }
    }
    let lines = HeaderEdit { set: vec![("x".into(), "a\r\nb".into())], ..HeaderEdit::default() };
    assert_eq!(refused(rule(vec![Filter::RequestHeaders(lines)]), "GET /").1, ReasonCode::RouteInvalid);
}

#[test]
fn redirects() {
    let none = Redirect { scheme: None, hostname: None, path: None, port: None, status: 302 };
    let scheme = |scheme: &str| Redirect { scheme: Some(scheme.into()), ..none.clone() };
    let host = Redirect { hostname: Some("example.org".into()), ..none.clone() };
    let path = |path| Redirect { path: Some(path), ..none.clone() };
    let whole = || PathEdit::Whole("/whole".into());
    for (redirect, port, location) in [
        (none.clone(), 80, "http://cart.shop/a/b?c=d"),
        (none.clone(), 8080, "http://cart.shop:8080/a/b?c=d"),
        (none.clone(), 443, "http://cart.shop:443/a/b?c=d"),
        (host.clone(), 80, "http://example.org/a/b?c=d"),
        (scheme("https"), 8080, "https://cart.shop/a/b?c=d"),
        (scheme("http"), 8080, "http://cart.shop/a/b?c=d"),
        (Redirect { port: Some(8443), ..scheme("https") }, 80, "https://cart.shop:8443/a/b?c=d"),
        (Redirect { port: Some(443), ..scheme("https") }, 80, "https://cart.shop/a/b?c=d"),
        (Redirect { port: Some(80), ..scheme("https") }, 80, "https://cart.shop:80/a/b?c=d"),
        (Redirect { port: Some(8083), ..none.clone() }, 80, "http://cart.shop:8083/a/b?c=d"),
        (Redirect { port: Some(80), ..none.clone() }, 8080, "http://cart.shop/a/b?c=d"),
        (path(whole()), 80, "http://cart.shop/whole?c=d"),
        (path(PathEdit::Prefix("/x".into())), 80, "http://cart.shop/x/b?c=d"),
        (path(PathEdit::Prefix("".into())), 80, "http://cart.shop/b?c=d"),
        (Redirect { path: Some(whole()), ..host }, 80, "http://example.org/whole?c=d"),
    ] {
        let rule = under("/a", rule(vec![Filter::Redirect(redirect.clone())]));
        let Plan::Answer(answer) = plan_at(rule, "GET /a/b?c=d", &[], port, &[]) else { panic!("{redirect:?}") };
        let found = (answer.status.as_u16(), answer.headers.get("location").unwrap().to_str().unwrap());
        assert_eq!((found, answer.refused), ((302, location), None), "{redirect:?} at {port}");
    }
    for status in [301, 302, 303, 307, 308] {
        let edit = HeaderEdit { set: vec![("x-a".into(), "1".into())], ..HeaderEdit::default() };
        let filters = vec![Filter::Redirect(Redirect { status, ..none.clone() }), Filter::ResponseHeaders(edit)];
        // Without backends, as redirects are.
        let answer = answer(Rule { backends: Vec::new(), ..rule(filters) }, "GET /", &[]);
        assert_eq!(
            (answer.status.as_u16(), answer.headers.get("x-a").unwrap()),
            (status, &HeaderValue::from_static("1"))
        );
    }
    let exact = RequestMatch { path: Some(PathMatch::Exact("/a".into())), ..RequestMatch::default() };
    let prefix = Filter::Redirect(path(PathEdit::Prefix("/x".into())));
    let of_exact = Rule { matches: vec![exact], ..rule(vec![prefix]) };
    assert_eq!(refused(of_exact, "GET /a").1, ReasonCode::RouteInvalid);
    let bad = Filter::Redirect(Redirect { hostname: Some("a\nb".into()), ..none });
    assert_eq!(refused(rule(vec![bad]), "GET /a").1, ReasonCode::RouteInvalid);
}

#[test]
fn rewrites() {
    let to = |hostname: Option<&str>, path| Filter::Rewrite(Rewrite { hostname: hostname.map(Into::into), path });
    let prefix = |path: &str| Some(PathEdit::Prefix(path.into()));
    let of = |filter, own: Option<Filter>| {
        let backends = vec![Backend { filters: own.into_iter().collect(), ..backend("v1", 1) }];
        let forward = forward(under("/a", Rule { backends, ..rule(vec![filter]) }), "GET /a/b?c=d");
        (forward.target.to_string(), forward.authority.map(|host| host.to_string()))
    };
    assert_eq!(of(to(None, prefix("/x")), None), ("/x/b?c=d".into(), None));
    assert_eq!(of(to(None, Some(PathEdit::Whole("/x".into()))), None), ("/x?c=d".into(), None));
    assert_eq!(of(to(Some("h.example"), None), None), ("/a/b?c=d".into(), Some("h.example".into())));
    let own = Some(to(Some("own.example"), prefix("/y")));
    assert_eq!(of(to(Some("h.example"), prefix("/x")), own), ("/y/b?c=d".into(), Some("own.example".into())));
    let bad = to(None, Some(PathEdit::Whole("x".into())));
    assert_eq!(refused(rule(vec![bad]), "GET /").1, ReasonCode::RouteInvalid);
}

#[test]
fn mirrors_by_their_share() {
    let of = |backend, millionths| Filter::Mirror(Mirror { backend, millionths });
    let filters =
        vec![of(to("all"), 1_000_000), of(to("some"), 500_000), of(BackendTarget::Invalid("x".into()), 1_000_000)];
    let own = vec![of(to("none"), 0)];
    let names = |rolls: &[u64]| {
        let backends = vec![Backend { filters: own.clone(), ..backend("v1", 1) }];
        let rule = Rule { backends, ..rule(filters.clone()) };
        let Plan::Forward(forward) = plan_at(rule, "GET /", &[], 80, rolls) else { panic!() };
        forward.mirrors.iter().map(|to| to.service.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&[0, 999_999, 499_999, 0, 0]), ["all", "some"]);
    assert_eq!(names(&[0, 999_999, 500_000, 0, 0]), ["all"]);
    assert_eq!(names(&[0, 999_999, 1_499_999, 0, 0]), ["all", "some"], "of a million");
}

#[test]
fn time_limits_and_retries() {
    let retry = |attempts| Some(Retry { codes: vec![503], attempts, ..Retry::default() });
    let second = Duration::from_secs(1);
    let with = |request_timeout, backend_timeout, retry| {
        forward(Rule { request_timeout, backend_timeout, retry, ..rule(vec![]) }, "GET /")
    };
    let set = with(Some(2 * second), Some(second), retry(2));
    assert_eq!((set.request_timeout(), set.backend_timeout()), (Some(2 * second), Some(second)));
    assert_eq!(set.retry().map(|retry| retry.attempts), Some(2));
    let zero = with(Some(Duration::ZERO), Some(Duration::ZERO), retry(0));
    assert_eq!((zero.request_timeout(), zero.backend_timeout(), zero.retry()), (None, None, None));
}

#[test]
fn cross_origin_requests() {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).into()).collect::<Vec<Arc<str>>>();
    let strict = Cors {
        allow_origins: texts(&["https://a.example", "https://*.b.example"]),
        allow_credentials: true,
        allow_methods: texts(&["GET", "PUT"]),
        allow_headers: texts(&["x-a", "x-b"]),
        expose_headers: texts(&["x-c"]),
        max_age: 5,
    };
    let open = |allow_credentials| Cors {
        allow_origins: texts(&["*"]),
        allow_credentials,
        allow_methods: texts(&["*"]),
        allow_headers: texts(&["*"]),
        expose_headers: texts(&["*"]),
        max_age: 5,
    };
    let of = |cors: &Cors| rule(vec![Filter::Cors(cors.clone())]);
    let preflight = |cors: &Cors, origin: &str| {
        let asks =
            [("origin", origin), ("access-control-request-method", "PATCH"), ("access-control-request-headers", "x-z")];
        let answer = answer(of(cors), "OPTIONS /", &asks);
        assert_eq!((answer.status.as_u16(), answer.refused), (204, None));
        answer.headers
    };
    let listed = [
        ("access-control-allow-origin", "https://a.b.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, PUT"),
        ("access-control-allow-headers", "x-a, x-b"),
        ("access-control-max-age", "5"),
        ("vary", "Origin"),
    ];
    assert_eq!(preflight(&strict, "https://a.b.example"), map(&listed));
    assert_eq!(preflight(&strict, "https://evil.example"), map(&[("vary", "Origin")]));
    let stars = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "*"),
        ("access-control-allow-headers", "*"),
        ("access-control-max-age", "5"),
    ];
    assert_eq!(preflight(&open(false), "https://x.example"), map(&stars));
    let asked = [
        ("access-control-allow-origin", "https://x.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "PATCH"),
        ("access-control-allow-headers", "x-z"),
        ("access-control-max-age", "5"),
        ("vary", "Origin"),
    ];
    assert_eq!(preflight(&open(true), "https://x.example"), map(&asked));

    // Not preflights: they are sent on, and the answer says who may read it.
    let answered = |cors: &Cors, line: &str, lines: &[(&str, &str)]| {
        let Plan::Forward(forward) = plan_at(of(cors), line, lines, 80, &[0]) else { panic!("{line}") };
        let mut headers = map(&[("access-control-allow-origin", "https://application"), ("vary", "Accept")]);
        forward.edit_answer(&mut headers);
        headers
    };
    let page = map(&[
        ("access-control-allow-origin", "https://a.example"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "x-c"),
        ("vary", "Accept"),
        ("vary", "Origin"),
    ]);
    assert_eq!(answered(&strict, "GET /", &[("origin", "https://a.example")]), page);
    assert_eq!(answered(&strict, "OPTIONS /", &[("origin", "https://a.example")]), page, "no method is asked for");
    let own = map(&[("access-control-allow-origin", "https://application"), ("vary", "Accept")]);
    assert_eq!(answered(&strict, "GET /", &[]), own, "of no page");
}

#[test]
fn what_does_not_compile_is_answered() {
    let path = Some(PathMatch::Regex("/a(".into()));
    let broken = Rule { matches: vec![RequestMatch { path, ..RequestMatch::default() }], ..rule(vec![]) };
    let (status, code, why) = refused(broken, "GET /x");
    assert_eq!((status, code), (500, ReasonCode::RouteInvalid));
    assert!(
        why.starts_with("rules[0] of route shop/route cannot be followed: the regular expression \"/a(\""),
        "{why}"
    );
    let service = NamespacedName::new("shop", "cart");
    let none = Answer::no_route(&service);
    assert_eq!((none.status.as_u16(), none.refused.unwrap().0), (404, ReasonCode::NoRoute));
}

/// A subset is named with its service; what is nowhere answers as Istio's proxies do.
#[test]
fn destinations_of_a_virtual_service() {
    let of = |target| {
        let backends = vec![Backend { target, weight: 1, filters: Vec::new() }];
        Rule { kind: RouteKind::VirtualService, backends, ..rule(vec![]) }
    };
    let subset = BackendTarget::Subset(NamespacedName::new("shop", "cart"), 80, "v2".into());
    let wanted = To { service: NamespacedName::new("shop", "cart"), port: 80, subset: Some("v2".into()) };
    assert_eq!(forward(of(subset.clone()), "GET /").backend(), Some(wanted.clone()));
    let (status, code, why) = refused(of(BackendTarget::Invalid("no such subset".into())), "GET /");
    assert_eq!((status, code), (503, ReasonCode::NoBackend), "{why}");
    let mirror = Filter::Mirror(Mirror { backend: subset, millionths: 1_000_000 });
    assert_eq!(forward(Rule { filters: vec![mirror], ..of(to("v1")) }, "GET /").mirrors, [wanted]);
}
