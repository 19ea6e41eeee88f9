use super::*;
use crate::http::{Received, Rules, canonical};
use crate::policy::{Action, Clause, Decision, Facts, Match, Policy, Rule, Scope, decide, decide_request};
use Outcome::{Met, NotMet, Unknown};
use http::{HeaderMap, HeaderValue, Method, Version};
use std::sync::Arc;

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.into())
}

fn suffix(text: &str) -> StringMatch {
    StringMatch::Suffix(text.into())
}

/// `METHOD target` over HTTP/1.1 to a host, with headers.
fn request(line: &str, host: &str, lines: &[(&str, &[u8])]) -> (Request, HeaderMap) {
    let mut headers = HeaderMap::new();
    headers.append(HOST, HeaderValue::from_str(host).unwrap());
    for (name, value) in lines {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value).unwrap());
    }
    let (method, target) = line.split_once(' ').unwrap();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let received = Received::of_target(Version::HTTP_11, &method, target.as_bytes(), &headers);
    (canonical(&received, Rules::default()).unwrap(), headers)
}

fn outcome(m: &HttpMatch, line: &str, host: &str, lines: &[(&str, &[u8])]) -> Outcome {
    let (request, headers) = request(line, host, lines);
    meets(m, HttpFacts::new(&request, &headers))
}

#[test]
fn hosts() {
    for (pattern, host, holds) in [
        (exact("cart.shop"), "cart.shop", true),
        (exact("cart.shop"), "CART.Shop:8080", true),
        (exact("Cart.Shop"), "cart.shop", true),
        (exact("cart.shop."), "cart.shop", true),
        (exact("cart.shop"), "cart.shop.", true),
        (exact("cart.shop"), "cart.shop.evil", false),
        (exact("cart.shop:8080"), "cart.shop:8080", true),
        (exact("cart.shop:8080"), "cart.shop", false),
        (exact("cart.shop:80"), "cart.shop", true),
        (prefix("cart."), "Cart.shop:80", true),
        (prefix("cart."), "cart", false),
        (suffix(".shop"), "cart.SHOP:8080", true),
        (suffix(".shop."), "cart.shop", true),
        (suffix(".shop"), "shop", false),
        (suffix(":8080"), "cart.shop:8080", true),
        (suffix(":8080"), "cart.shop:18080", false),
        (exact("[fd00::1]"), "[FD00::0001]:8080", true),
        (exact("[fd00::1]:8080"), "[fd00::1]:8080", true),
        (exact("[fd00::1]:8080"), "[fd00::1]:8081", false),
        (StringMatch::Presence, "a", true),
    ] {
        let positive = HttpMatch { hosts: vec![exact("none.example"), pattern.clone()], ..HttpMatch::default() };
        let negative = HttpMatch { not_hosts: positive.hosts.clone(), ..HttpMatch::default() };
        let found = (outcome(&positive, "GET /", host, &[]), outcome(&negative, "GET /", host, &[]));
        assert_eq!(found, if holds { (Met, NotMet) } else { (NotMet, Met) }, "{pattern:?} {host}");
    }
}

#[test]
fn methods() {
    for (pattern, holds) in [
        (exact("GET"), true),
        (exact("PUT"), false),
        (exact("get"), false),
        (prefix("G"), true),
        (suffix("T"), true),
        (StringMatch::Presence, true),
    ] {
        let positive = HttpMatch { methods: vec![pattern.clone()], ..HttpMatch::default() };
        let negative = HttpMatch { not_methods: vec![pattern.clone()], ..HttpMatch::default() };
        let found = (outcome(&positive, "GET /", "a", &[]), outcome(&negative, "GET /", "a", &[]));
        assert_eq!(found, if holds { (Met, NotMet) } else { (NotMet, Met) }, "{pattern:?}");
    }
}

#[test]
fn paths() {
    let text = PathPattern::Text;
    let template = |template: &str| PathPattern::Template(template.into());
    for (pattern, path, expected) in [
        (text(exact("/admin")), "/admin", Met),
        (text(exact("/admin")), "/admin?x=/admin", Met),
        (text(exact("/admin")), "/x?/admin", NotMet),
        (text(exact("/admin")), "/public/..//./%61dmin", Met),
        (text(exact("/admin")), "/admin/", NotMet),
        (text(exact("/admin")), "/Admin", NotMet),
        (text(exact("/caf%c3%a9/%7euser")), "/caf%C3%A9/~user", Met),
        (text(prefix("/admin/%7e")), "/admin/~user", Met),
        (text(prefix("/admin/")), "/admin/x", Met),
        (text(prefix("/admin/")), "/admin", NotMet),
        (text(suffix("/info")), "/a/info", Met),
        (text(suffix("%7einfo")), "/a/~info", Met),
        (text(suffix("/info")), "/a/info/x", NotMet),
        (text(StringMatch::Presence), "/", Met),
        // CVE-2026-73553: what a server that leaves parameters out would serve.
        (text(exact("/admin/users")), "/admin;x=1/users", Unknown),
        (text(exact("/admin/users")), "/admin/users;jsessionid=1", Unknown),
        (text(exact("/admin/users")), "/admin%3bx/users", Unknown),
        (text(exact("/admin;x")), "/admin;x", Unknown),
        (text(prefix("/admin")), "/admin;x/users", Met),
        (text(prefix("/other")), "/admin;x/users", NotMet),
        (template("/a/{*}"), "/a/b", Met),
        (template("/a/{*}"), "/a/b/c", NotMet),
        (template("/a/{*}"), "/a/", NotMet),
        (template("/a/{*}"), "/a", NotMet),
        (template("/a/{*}/c"), "/a/b/c", Met),
        (template("/a/{*}/{*}"), "/a/b/c", Met),
        (template("/{*}/%7eb"), "/a/~b", Met),
        (template("/a/{**}"), "/a/b/c", Met),
        (template("/a/{**}"), "/a/", Met),
        (template("/a/{**}"), "/a", NotMet),
        (template("/a/{**}"), "/ab/c", NotMet),
        (template("/a/{**}/z"), "/a/b/c/z", Met),
        (template("/a/{**}/z"), "/a/z", NotMet),
        (template("/a/{*}/{**}"), "/a/b/c/d", Met),
        (template("/a/{*}/{**}"), "/a/b", NotMet),
        (template("/{**}"), "/", Met),
        (template("/a/{*}"), "/a;x/b", Unknown),
        // What is no template is decided against the caller.
        (template("/a/{**}/{**}"), "/b", Unknown),
        (template("/a/{*}x"), "/b", Unknown),
        (template("/a/{name}"), "/b", Unknown),
        (template("a/{*}"), "/b", Unknown),
    ] {
        let positive = HttpMatch { paths: vec![pattern.clone()], ..HttpMatch::default() };
        let negative = HttpMatch { not_paths: vec![pattern.clone()], ..HttpMatch::default() };
        let line = format!("GET {path}");
        let found = (outcome(&positive, &line, "a", &[]), outcome(&negative, &line, "a", &[]));
        assert_eq!(found, (expected, expected.not()), "{pattern:?} {path}");
    }
    let asterisk = HttpMatch { paths: vec![text(prefix("/")), template("/{**}")], ..HttpMatch::default() };
    assert_eq!(outcome(&asterisk, "OPTIONS *", "a", &[]), NotMet);
}

/// CVE-2026-26308: a second value neither hides the first nor stands for it.
#[test]
fn headers() {
    let of = |name: &str, values: &[StringMatch], not_values: &[StringMatch]| HttpMatch {
        headers: vec![HeaderCondition { name: name.into(), values: values.to_vec(), not_values: not_values.to_vec() }],
        ..HttpMatch::default()
    };
    let x = |values: &[&'static str]| values.iter().map(|value| ("x", value.as_bytes())).collect::<Vec<_>>();
    for (pattern, values, expected) in [
        (exact("1"), x(&["1"]), Met),
        (exact("1"), x(&["2"]), NotMet),
        (exact("1"), x(&[]), NotMet),
        (StringMatch::Presence, x(&[]), NotMet),
        (StringMatch::Presence, x(&[""]), NotMet),
        (StringMatch::Presence, x(&["a", "b"]), Met),
        (exact("1"), x(&["1", "2"]), Unknown),
        (exact("1"), x(&["2", "1"]), Unknown),
        (exact("2,3"), x(&["2", "3"]), Unknown),
        (exact("1"), x(&["2", "3"]), NotMet),
        (prefix("a"), x(&["ab", "ac"]), Met),
        (suffix("b"), x(&["b", "c"]), Unknown),
        (exact("1"), vec![("x", b"\xff")], NotMet),
        (prefix("1"), vec![("x", b"1\xff")], Met),
    ] {
        let found = outcome(&of("x", std::slice::from_ref(&pattern), &[]), "GET /", "a", &values);
        assert_eq!(found, expected, "{pattern:?} {values:?}");
        let found = outcome(&of("x", &[], std::slice::from_ref(&pattern)), "GET /", "a", &values);
        assert_eq!(found, expected.not(), "not {pattern:?} {values:?}");
    }
    let several = of("x", &[exact("1"), exact("2")], &[exact("2")]);
    assert_eq!(outcome(&several, "GET /", "a", &x(&["1"])), Met);
    assert_eq!(outcome(&several, "GET /", "a", &x(&["2"])), NotMet);
    // HTTP/2 cuts cookies in pieces.
    let cookies: [(&str, &[u8]); 2] = [("cookie", b"a=1"), ("cookie", b"b=2")];
    assert_eq!(outcome(&of("cookie", &[exact("a=1; b=2")], &[]), "GET /", "a", &cookies), Met);
    assert_eq!(outcome(&of("cookie", &[exact("a=1")], &[]), "GET /", "a", &cookies), NotMet);
    for (name, value) in
        [("host", "a:80"), (":authority", "a:80"), (":method", "GET"), (":path", "/b?c"), (":scheme", "http")]
    {
        assert_eq!(outcome(&of(name, &[exact(value)], &[]), "GET /b?c", "A:80", &[]), Met, "{name}");
    }
    assert_eq!(outcome(&of("no name", &[StringMatch::Presence], &[]), "GET /", "a", &[]), NotMet);
}

#[test]
fn all_that_is_set() {
    let full = HttpMatch {
        hosts: vec![exact("a")],
        methods: vec![exact("GET")],
        paths: vec![PathPattern::Text(prefix("/p"))],
        headers: vec![
            HeaderCondition { name: "x".into(), values: vec![exact("1")], not_values: vec![] },
            HeaderCondition { name: "y".into(), values: vec![exact("2")], not_values: vec![] },
        ],
        ..HttpMatch::default()
    };
    let good: [(&str, &[u8]); 2] = [("x", b"1"), ("y", b"2")];
    assert_eq!(outcome(&full, "GET /p", "a", &good), Met);
    assert_eq!(outcome(&full, "GET /p", "b", &good), NotMet);
    assert_eq!(outcome(&full, "PUT /p", "a", &good), NotMet);
    assert_eq!(outcome(&full, "GET /q", "a", &good), NotMet);
    assert_eq!(outcome(&full, "GET /p", "a", &good[..1]), NotMet);
    assert_eq!(outcome(&HttpMatch::default(), "GET /", "a", &[]), Unknown, "nobody knows what was meant");
}

/// What is unknown is decided against the caller, and so is every condition on requests where none is seen.
#[test]
fn decisions() {
    let policy = |action| {
        let condition = HttpMatch { paths: vec![PathPattern::Text(exact("/admin"))], ..HttpMatch::default() };
        let matches = vec![Match { http: Some(condition.into()), ..Match::default() }];
        let rules = vec![Rule { clauses: vec![Clause { matches }] }];
        let scope = Scope::WorkloadSelector;
        Arc::new(Policy { name: "p".into(), namespace: "shop".into(), scope, action, rules, dry_run: false })
    };
    let facts =
        Facts { source_ip: "10.0.0.1".parse().unwrap(), source: None, destination: "10.0.0.2:80".parse().unwrap() };
    let allowed = |Decision { allowed, .. }| allowed;
    for (line, by_allow, by_deny) in
        [("GET /admin", true, false), ("GET /public", false, true), ("GET /admin;x", false, false)]
    {
        let (request, headers) = request(line, "a", &[]);
        let http = HttpFacts::new(&request, &headers);
        let judged = |action| allowed(decide_request([&policy(action)], &facts, http));
        assert_eq!((judged(Action::Allow), judged(Action::Deny)), (by_allow, by_deny), "{line}");
    }
    let judged = |action| allowed(decide([&policy(action)], &facts));
    assert_eq!((judged(Action::Allow), judged(Action::Deny)), (false, false), "no request is seen");
}
