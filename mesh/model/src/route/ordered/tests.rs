use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Method, Version};

use crate::address::NamespacedName;
use crate::http::{Received, Rules, canonical};
use crate::route::{
    Condition, PathMatch, RequestMatch, RouteKind, Router, Rule, Selected, ServiceRoutes, TextMatch, ValueMatch,
};

fn rule(name: &str, matches: Vec<RequestMatch>) -> Rule {
    Rule {
        kind: RouteKind::VirtualService,
        route: NamespacedName::new("shop", "web"),
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

/// The rule that a request follows: its name, whether it cannot be told, `404` or `none`.
fn selected(rules: Vec<Rule>, line: &str, lines: &[(&'static str, &str)], (caller, port): (&str, u16)) -> String {
    let router = Router::new(
        ServiceRoutes {
            service: NamespacedName::new("shop", "cart"),
            ports: Vec::new(),
            rules,
            policies: Vec::new(),
            traffic: Vec::new(),
            tokens: [].into(),
            tracing: None,
            access_logging: None,
            subsets: Vec::new(),
            streams: Vec::new(),
            rate_limits: [].into(),
        }
        .into(),
    );
    let (method, target) = line.split_once(' ').unwrap();
    let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("cart:80"))]);
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let received = Received::of_target(Version::HTTP_11, &method, target.as_bytes(), &headers);
    let request = canonical(&received, Rules::default()).unwrap();
    match router.select(&request, &headers, caller, port) {
        Selected::Rule(matched) if matched.broken => format!("{}?", matched.rule().name),
        Selected::Rule(matched) => matched.rule().name.to_string(),
        Selected::NoMatch => "404".to_owned(),
        Selected::NoRoutes => "none".to_owned(),
    }
}

fn asks(condition: Condition) -> RequestMatch {
    RequestMatch { conditions: vec![condition], ..RequestMatch::default() }
}

fn at(path: PathMatch) -> RequestMatch {
    RequestMatch { path: Some(path), ..RequestMatch::default() }
}

fn exact(text: &str) -> TextMatch {
    TextMatch::Exact(text.into())
}

#[test]
fn each_condition() {
    let prefix = |text: &str| TextMatch::Prefix(text.into());
    let regex = |text: &str| TextMatch::Regex(text.into());
    let header = |value| asks(Condition::Header("end-user".into(), value));
    let without = |value| asks(Condition::WithoutHeader("end-user".into(), value));
    let query = |value| asks(Condition::Query("q".into(), value));
    let (jason, other): (&[_], &[_]) = (&[("end-user", "jason")], &[("end-user", "mallory")]);
    for (of, line, lines, expected) in [
        // Istio's prefix is of text, not of whole elements.
        (at(PathMatch::Beginning("/api".into())), "GET /api/v1", &[][..], true),
        (at(PathMatch::Beginning("/api".into())), "GET /apiary?q", &[], true),
        (at(PathMatch::Beginning("/api/".into())), "GET /api", &[], false),
        (at(PathMatch::Beginning("/api".into())), "GET /API", &[], false),
        (at(PathMatch::BeginningAnyCase("/api".into())), "GET /API/v1", &[], true),
        (at(PathMatch::BeginningAnyCase("/api".into())), "GET /ap", &[], false),
        (at(PathMatch::Exact("/api".into())), "GET /api?q=1", &[], true),
        (at(PathMatch::Exact("/api".into())), "GET /api/", &[], false),
        (at(PathMatch::ExactAnyCase("/api".into())), "GET /Api", &[], true),
        (at(PathMatch::ExactAnyCase("/api".into())), "GET /Api/", &[], false),
        (at(PathMatch::Regex("/a.c".into())), "GET /abc", &[], true),
        (at(PathMatch::Regex("/a.c".into())), "GET /abcd", &[], false),
        (header(exact("jason")), "GET /", jason, true),
        (header(exact("jason")), "GET /", other, false),
        (header(exact("jason")), "GET /", &[], false),
        (header(prefix("ja")), "GET /", jason, true),
        (header(regex("j.*n")), "GET /", jason, true),
        (header(regex("j.*s")), "GET /", jason, false),
        (header(TextMatch::Present), "GET /", other, true),
        (header(TextMatch::Present), "GET /", &[], false),
        (without(exact("jason")), "GET /", jason, false),
        (without(exact("jason")), "GET /", other, true),
        (without(exact("jason")), "GET /", &[], true),
        (without(TextMatch::Present), "GET /", other, false),
        (without(TextMatch::Present), "GET /", &[], true),
        (query(exact("1")), "GET /?p=2&q=1", &[], true),
        (query(exact("1")), "GET /?q=2", &[], false),
        (query(prefix("1")), "GET /?q=12", &[], true),
        (query(TextMatch::Present), "GET /?q", &[], true),
        (query(TextMatch::Present), "GET /", &[], false),
        (asks(Condition::Method(exact("GET"))), "GET /", &[], true),
        (asks(Condition::Method(exact("GET"))), "PUT /", &[], false),
        (asks(Condition::Method(regex("GET|PUT"))), "PUT /", &[], true),
        (asks(Condition::Authority(prefix("cart"))), "GET /", &[], true),
        (asks(Condition::Authority(exact("cart"))), "GET /", &[], false),
        (asks(Condition::Header(":authority".into(), exact("cart:80"))), "GET /", &[], true),
        (asks(Condition::Scheme(exact("http"))), "GET /", &[], true),
        (asks(Condition::Scheme(exact("https"))), "GET /", &[], false),
        (asks(Condition::SourceNamespace("web".into())), "GET /", &[], true),
        (asks(Condition::SourceNamespace("shop".into())), "GET /", &[], false),
        // No request has such a header.
        (asks(Condition::Header("a b".into(), TextMatch::Present)), "GET /", &[], false),
        (asks(Condition::WithoutHeader("a b".into(), TextMatch::Present)), "GET /", &[], true),
    ] {
        let found = selected(vec![rule("yes", vec![of.clone()])], line, lines, ("web", 80));
        assert_eq!(found, if expected { "yes" } else { "404" }, "{line} {lines:?} {of:?}");
    }
}

#[test]
fn the_first_that_matches_counts_and_all_of_its_conditions_have_to() {
    let both = RequestMatch {
        path: Some(PathMatch::Beginning("/a".into())),
        method: Some("GET".into()),
        headers: vec![ValueMatch { name: "x".into(), value: "1".into(), regex: false }],
        conditions: vec![Condition::Query("q".into(), exact("1")), Condition::Header("y".into(), TextMatch::Present)],
        ..RequestMatch::default()
    };
    let rules = || {
        vec![
            rule("both", vec![both.clone()]),
            // A longer path, or an exact one, counts no more than its place.
            rule("prefix", vec![at(PathMatch::Beginning("/a".into())), at(PathMatch::Exact("/z".into()))]),
            rule("exact", vec![at(PathMatch::Exact("/a/b".into()))]),
            rule("late", vec![at(PathMatch::Exact("/c".into()))]),
        ]
    };
    for (line, lines, expected) in [
        ("GET /a?q=1", &[("x", "1"), ("y", "")][..], "both"),
        ("GET /a?q=1", &[("x", "1")], "prefix"),
        ("GET /a?q=2", &[("x", "1"), ("y", "")], "prefix"),
        ("PUT /a?q=1", &[("x", "1"), ("y", "")], "prefix"),
        ("GET /a/b", &[], "prefix"),
        ("GET /z", &[], "prefix"),
        ("GET /c", &[(CONTENT_TYPE.as_str(), "application/grpc")], "late"),
        ("GET /d", &[], "404"),
    ] {
        assert_eq!(selected(rules(), line, lines, ("web", 80)), expected, "{line} {lines:?}");
    }
}

#[test]
fn ports_and_callers() {
    let all = |name| rule(name, vec![RequestMatch::default()]);
    let rules = || {
        vec![
            Rule { port: Some(80), ..all("at-80") },
            Rule { callers: Some("web".into()), port: Some(80), ..all("of-web") },
        ]
    };
    for (from, expected) in [(("web", 80), "of-web"), (("x", 80), "at-80"), (("x", 81), "none"), (("web", 81), "none")]
    {
        assert_eq!(selected(rules(), "GET /", &[], from), expected, "{from:?}");
    }
}

/// Where it cannot be told whether a rule matches, no later one is followed in its place.
#[test]
fn an_expression_that_does_not_compile_might_match() {
    let broken = [
        at(PathMatch::Regex("/a(".into())),
        asks(Condition::Header("x".into(), TextMatch::Regex("(".into()))),
        asks(Condition::WithoutHeader("x".into(), TextMatch::Regex("(".into()))),
        asks(Condition::Query("q".into(), TextMatch::Regex("(".into()))),
    ];
    for of in broken {
        let rules = vec![rule("broken", vec![of.clone()]), rule("rest", vec![RequestMatch::default()])];
        assert_eq!(selected(rules, "GET /?q=1", &[("x", "1")], ("web", 80)), "broken?", "{of:?}");
    }
    let rules = vec![
        rule("broken", vec![asks(Condition::Header("x".into(), TextMatch::Regex("(".into())))]),
        rule("rest", vec![RequestMatch::default()]),
    ];
    assert_eq!(selected(rules, "GET /", &[], ("web", 80)), "rest", "it has no such header");
}
