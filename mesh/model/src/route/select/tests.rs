use super::*;
use crate::address::NamespacedName;
use crate::http::{Received, Rules, canonical};
use crate::route::{PathMatch, RouteKind, ValueMatch};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Version};

fn rule(name: &str, matches: Vec<RequestMatch>) -> Rule {
    Rule {
        kind: RouteKind::Http,
        route: NamespacedName::new("shop", "route"),
        name: name.into(),
        port: None,
        callers: None,
        matches,
        filters: Vec::new(),
        backends: Vec::new(),
        request_timeout: None,
        backend_timeout: None,
        retry: None,
        fault: None,
    }
}

fn router(rules: Vec<Rule>) -> Router {
    Router::new(Arc::new(ServiceRoutes {
        service: NamespacedName::new("shop", "cart"),
        ports: Vec::new(),
        rules,
        policies: Vec::new(),
        traffic: Vec::new(),
        tokens: Arc::default(),
        tracing: None,
        access_logging: None,
        subsets: Vec::new(),
        streams: Vec::new(),
        rate_limits: [].into(),
    }))
}

fn exact(path: &str) -> RequestMatch {
    RequestMatch { path: Some(PathMatch::Exact(path.into())), ..RequestMatch::default() }
}

fn prefix(path: &str) -> RequestMatch {
    RequestMatch { path: Some(PathMatch::Prefix(path.into())), ..RequestMatch::default() }
}

fn regex(path: &str) -> RequestMatch {
    RequestMatch { path: Some(PathMatch::Regex(path.into())), ..RequestMatch::default() }
}

fn value(name: &str, value: &str) -> ValueMatch {
    ValueMatch { name: name.into(), value: value.into(), regex: false }
}

fn value_regex(name: &str, text: &str) -> ValueMatch {
    ValueMatch { regex: true, ..value(name, text) }
}

/// `METHOD target`, and headers.
fn request(line: &str, lines: &[(&str, &str)]) -> (Request, HeaderMap) {
    let (method, target) = line.split_once(' ').unwrap();
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    let mut headers: HeaderMap = lines.iter().map(pair).collect();
    headers.insert(header::HOST, HeaderValue::from_static("cart:80"));
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let received = Received::of_target(Version::HTTP_11, &method, target.as_bytes(), &headers);
    (canonical(&received, Rules::default()).unwrap(), headers)
}

/// The name of the rule that is followed, `-` for none, `service` where no route is attached; `?` where it only might match.
fn followed(router: &Router, line: &str, lines: &[(&str, &str)], caller: &str, port: u16) -> String {
    let (request, headers) = request(line, lines);
    match router.select(&request, &headers, caller, port) {
        Selected::Rule(matched) => format!("{}{}", matched.rule().name, if matched.broken { "?" } else { "" }),
        Selected::NoRoutes => "service".into(),
        Selected::NoMatch => "-".into(),
    }
}

#[test]
fn by_path() {
    let router = router(vec![
        rule("any", vec![RequestMatch::default()]),
        rule("api", vec![prefix("/api")]),
        rule("users", vec![prefix("/api/users/")]),
        rule("one", vec![exact("/api/users/1"), exact("/caf%c3%a9")]),
        rule("number", vec![regex("/[0-9]+"), regex("/api/[0-9]+")]),
        rule("longer expression", vec![regex("/[0-9][0-9]+")]),
    ]);
    for (line, expected) in [
        ("GET /", "any"),
        ("GET /other", "any"),
        ("GET /api", "api"),
        ("GET /api/", "api"),
        ("GET /api?q", "api"),
        ("GET /apis", "any"),
        ("GET /api/usersx", "api"),
        ("GET /api/users", "users"),
        ("GET /api/users/", "users"),
        ("GET /api/users/1/2", "users"),
        ("GET /api/users/1", "one"),
        ("GET /api/users/1/", "users"),
        ("GET /x/../api//users/%31", "one"),
        ("GET /caf%C3%A9", "one"),
        ("GET /7", "number"),
        ("GET /77", "longer expression"),
        ("GET /77x", "any"),
        ("GET /api/7", "api"),
        ("OPTIONS *", "any"),
    ] {
        assert_eq!(followed(&router, line, &[], "web", 80), expected, "{line}");
    }
}

#[test]
fn by_method_headers_and_query() {
    let full = RequestMatch {
        method: Some("GET".into()),
        headers: vec![value("x-a", "1"), value_regex("x-b", "[0-9]+")],
        query: vec![value("Q", "a b"), value_regex("r", "x+")],
        ..prefix("/a")
    };
    let none = RequestMatch { headers: vec![value("x a", "1")], ..RequestMatch::default() };
    let router = router(vec![rule("full", vec![full]), rule("none", vec![none])]);
    let good = [("x-a", "1"), ("x-b", "22")];
    for (name, line, headers, expected) in [
        ("all of it", "GET /a?Q=a+b&r=xx", &good[..], "full"),
        ("escaped", "GET /a?%51=a%20b&r=%78", &good, "full"),
        ("among others", "GET /a/b?z&Q=a+b&r=x&s=1", &good, "full"),
        ("another method", "POST /a?Q=a+b&r=xx", &good, "-"),
        ("another path", "GET /b?Q=a+b&r=xx", &good, "-"),
        ("no query", "GET /a", &good, "-"),
        ("another value", "GET /a?Q=a&r=xx", &good, "-"),
        ("the first of a name counts", "GET /a?Q=a&Q=a+b&r=xx", &good, "-"),
        ("a name in other letters", "GET /a?q=a+b&r=xx", &good, "-"),
        ("an expression of all of it", "GET /a?Q=a+b&r=xxy", &good, "-"),
        ("a header missing", "GET /a?Q=a+b&r=xx", &[("x-a", "1")], "-"),
        ("a header's other value", "GET /a?Q=a+b&r=xx", &[("x-a", "2"), ("x-b", "22")], "-"),
        ("a header twice", "GET /a?Q=a+b&r=xx", &[("x-a", "1"), ("x-a", "1"), ("x-b", "22")], "-"),
        ("an expression of the list", "GET /a?Q=a+b&r=xx", &[("x-a", "1"), ("x-b", "2"), ("x-b", "2")], "-"),
    ] {
        assert_eq!(followed(&router, line, headers, "web", 80), expected, "{name}");
    }
    let list = RequestMatch { headers: vec![value("x-a", "1,2"), value("host", "cart:80")], ..RequestMatch::default() };
    let router = self::router(vec![rule("list", vec![list])]);
    assert_eq!(followed(&router, "GET /", &[("x-a", "1"), ("x-a", "2")], "web", 80), "list");
}

/// Each pair in both orders: the first of a pair wins wherever it stands.
#[test]
fn precedence() {
    let get = |of: RequestMatch| RequestMatch { method: Some("GET".into()), ..of };
    let header = |of: RequestMatch, name: &str| {
        let headers = of.headers.iter().cloned().chain([value(name, "1")]).collect();
        RequestMatch { headers, ..of }
    };
    let query = |of: RequestMatch, name: &str| {
        let query = of.query.iter().cloned().chain([value(name, "1")]).collect();
        RequestMatch { query, ..of }
    };
    let any = RequestMatch::default;
    for (name, stronger, weaker) in [
        ("whole path before a longer prefix", exact("/a/b"), header(get(prefix("/a/b")), "x")),
        ("the longer prefix before a method", prefix("/a/b"), header(get(prefix("/a")), "x")),
        ("a prefix before an expression", prefix("/a"), header(get(regex("/a/.*")), "x")),
        ("an expression before any path", regex("/a/b"), header(get(prefix("/")), "x")),
        ("a method before headers", get(any()), header(header(any(), "x"), "y")),
        ("a method before headers, on one path", get(exact("/a/b")), header(header(exact("/a/b"), "x"), "y")),
        ("more headers before parameters", header(header(any(), "x"), "y"), query(query(header(any(), "x"), "p"), "q")),
        ("more parameters", query(query(prefix("/a"), "p"), "q"), query(prefix("/a"), "p")),
        ("a parameter before none", query(any(), "p"), any()),
    ] {
        for turned in [false, true] {
            let mut rules = vec![rule("stronger", vec![stronger.clone()]), rule("weaker", vec![weaker.clone()])];
            if turned {
                rules.reverse();
            }
            let found = followed(&router(rules), "GET /a/b?p=1&q=1", &[("x", "1"), ("y", "1")], "web", 80);
            assert_eq!(found, "stronger", "{name}");
        }
    }
    // Of equals the one that stands first: of the older route, by its name, by the rule's place.
    let rules = vec![rule("first", vec![prefix("/a")]), rule("second", vec![prefix("/a"), prefix("/a/")])];
    assert_eq!(followed(&router(rules), "GET /a/b", &[], "web", 80), "first");
}

#[test]
fn by_port_and_caller() {
    let of = |name, port, callers: Option<&str>, path| Rule {
        port,
        callers: callers.map(Into::into),
        ..rule(name, vec![prefix(path)])
    };
    let rules = router(vec![
        of("every port", None, None, "/a"),
        of("81", Some(81), None, "/"),
        of("web's", None, Some("web"), "/w"),
        of("web's at 82", Some(82), Some("web"), "/"),
        of("batch's at 81", Some(81), Some("batch"), "/"),
    ]);
    for (path, caller, port, expected) in [
        ("GET /a", "other", 80, "every port"),
        ("GET /b", "other", 80, "-"),
        ("GET /a", "other", 81, "every port"),
        ("GET /b", "other", 81, "81"),
        // Consumer routes: the producer's do not count before them.
        ("GET /w", "web", 80, "web's"),
        ("GET /a", "web", 80, "-"),
        ("GET /a", "web", 82, "web's at 82"),
        ("GET /w", "web", 82, "web's"),
        // Of another port they are none.
        ("GET /a", "batch", 80, "every port"),
        ("GET /a", "batch", 81, "batch's at 81"),
        ("GET /w", "", 80, "-"),
    ] {
        assert_eq!(followed(&rules, path, &[], caller, port), expected, "{path} of {caller} to {port}");
    }
    let one_port = router(vec![of("81", Some(81), None, "/"), of("web's", Some(82), Some("web"), "/")]);
    assert_eq!(followed(&one_port, "GET /", &[], "web", 80), "service");
    assert_eq!(followed(&one_port, "GET /", &[], "web", 81), "81");
    assert_eq!(followed(&one_port, "GET /", &[], "other", 82), "service");
    assert_eq!(followed(&router(Vec::new()), "GET /", &[], "web", 80), "service");
}

#[test]
fn grpc_calls_meet_grpc_routes_first() {
    let grpc = |name, path| Rule { kind: RouteKind::Grpc, ..rule(name, vec![RequestMatch { path, ..exact("/") }]) };
    let rules = router(vec![
        rule("http", vec![exact("/pkg.Cart/Add"), exact("/pkg.Other/Get")]),
        grpc("method", Some(PathMatch::Exact("/pkg.Cart/Add".into()))),
        grpc("service", Some(PathMatch::Beginning("/pkg.Cart/".into()))),
        grpc("method of any service", Some(PathMatch::Regex("/[^/]+/List".into()))),
    ]);
    let call = [(CONTENT_TYPE.as_str(), "application/grpc+proto")];
    for (line, headers, expected) in [
        ("POST /pkg.Cart/Add", &call[..], "method"),
        ("POST /pkg.Cart/Remove", &call, "service"),
        ("POST /pkg.CartX/List", &call, "method of any service"),
        ("POST /pkg.Other/Get", &call, "http"),
        ("POST /pkg.Other/Put", &call, "-"),
        ("POST /pkg.Cart/Add", &[], "http"),
        ("POST /pkg.Cart/Remove", &[], "-"),
        ("POST /pkg.Cart/Remove", &[("content-type", "text/plain")], "-"),
    ] {
        assert_eq!(followed(&rules, line, headers, "web", 80), expected, "{line} {headers:?}");
    }
    let every = router(vec![grpc("every call", None), rule("http", vec![prefix("/")])]);
    assert_eq!(followed(&every, "POST /a/b", &call, "web", 80), "every call");
    assert_eq!(followed(&every, "POST /a/b", &[], "web", 80), "http");
}

/// What might match is not passed by for a weaker rule.
#[test]
fn an_expression_that_does_not_compile() {
    let header = RequestMatch { headers: vec![value_regex("x", "(")], ..prefix("/h") };
    let query = RequestMatch { query: vec![value_regex("q", "(")], method: Some("GET".into()), ..prefix("/q") };
    let rules = router(vec![
        rule("path", vec![regex("/a("), exact("/good")]),
        rule("header", vec![header]),
        rule("query", vec![query]),
        rule("any", vec![RequestMatch::default()]),
    ]);
    for (line, headers, expected) in [
        ("GET /anything", &[][..], "path?"),
        ("GET /good", &[], "path"),
        ("GET /h", &[("x", "1")], "header?"),
        ("GET /q?q", &[], "query?"),
        ("GET /q", &[], "path?"),
    ] {
        assert_eq!(followed(&rules, line, headers, "web", 80), expected, "{line}");
    }
    let rules = router(vec![
        rule("path", vec![RequestMatch { method: Some("PUT".into()), ..regex("/a(") }]),
        rule("header", vec![RequestMatch { headers: vec![value_regex("x", "(")], ..prefix("/h") }]),
        rule("any", vec![RequestMatch::default()]),
    ]);
    assert_eq!(followed(&rules, "GET /a", &[], "web", 80), "any", "it cannot match another method");
    assert_eq!(followed(&rules, "PUT /a", &[], "web", 80), "path?");
    assert_eq!(followed(&rules, "GET /h", &[], "web", 80), "any", "it cannot match a header that is not there");
}

/// The time to find a rule does not grow with how many there are.
#[test]
fn few_of_many_are_looked_at() {
    let tried = |rules: usize, line: &str| {
        let of = |n: usize| match n % 2 {
            0 => rule(&n.to_string(), vec![exact(&format!("/api/{n}/whole"))]),
            _ => rule(&n.to_string(), vec![prefix(&format!("/api/{n}"))]),
        };
        let router = router((0..rules).map(of).chain([rule("any", vec![RequestMatch::default()])]).collect());
        let (request, headers) = request(line, &[]);
        let mut tried = 0;
        let Selected::Rule(matched) = router.select_counted(&request, &headers, "web", 80, &mut tried) else {
            panic!("{line}")
        };
        (matched.rule().name.to_string(), tried)
    };
    for (line, name) in [("GET /api/8/whole", "8"), ("GET /api/9/b/c", "9"), ("GET /else", "any")] {
        for rules in [10, 5_000] {
            assert_eq!(tried(rules, line), (name.to_owned(), 1), "{line} among {rules}");
        }
    }
}

/// However many slashes a path has.
#[test]
fn a_deep_path_is_looked_up_as_often_as_there_are_lengths() {
    let router = router(vec![rule("a", vec![prefix("/a")]), rule("a/a", vec![prefix("/a/a")])]);
    let (request, headers) = request(&format!("GET {}", "/a".repeat(30_000)), &[]);
    let table = &router.producers.other.as_ref().unwrap().http;
    let mut tried = 0;
    let (found, _) = table.find(&request, &headers, &mut tried).unwrap();
    assert_eq!((found.rule, tried), (1, 1));
}
