//! The rule that is found through tables is the one that is found by looking at all of them.

use std::cmp::Reverse;

use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Version};
use mesh_model::address::NamespacedName;
use mesh_model::http::{Received, Request, Rules, canonical};
use mesh_model::route::{PathMatch, Plan, RequestMatch, RouteKind, Router, Rule, Selected, ServiceRoutes, ValueMatch};

const PATHS: [&str; 6] = ["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c"];

/// Choices, one byte each; the first of each when there are no more.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn below(&mut self, end: usize) -> usize {
        usize::from(self.0.next().copied().unwrap_or_default()) % end
    }

    fn maybe(&mut self) -> bool {
        self.below(3) == 1
    }

    fn path(&mut self) -> &'static str {
        PATHS[self.below(PATHS.len())]
    }

    fn value(&mut self, name: &str) -> Vec<ValueMatch> {
        let value = |name: &str, value: &str| ValueMatch { name: name.into(), value: value.into(), regex: false };
        if self.maybe() { vec![value(name, "1")] } else { Vec::new() }
    }

    fn one_match(&mut self) -> RequestMatch {
        let path = self.path();
        RequestMatch {
            path: match self.below(4) {
                0 => None,
                1 => Some(PathMatch::Exact(path.into())),
                2 => Some(PathMatch::Prefix(path.into())),
                _ => Some(PathMatch::Beginning(path.into())),
            },
            method: self.maybe().then(|| "GET".into()),
            headers: self.value("x"),
            query: self.value("q"),
            conditions: Vec::new(),
        }
    }

    fn rule(&mut self, number: usize) -> Rule {
        Rule {
            kind: if self.maybe() { RouteKind::Grpc } else { RouteKind::Http },
            route: NamespacedName::new("shop", "route"),
            name: number.to_string().into(),
            port: self.maybe().then(|| 80 + self.below(2) as u16),
            callers: self.maybe().then(|| "web".into()),
            matches: (0..=self.below(2)).map(|_| self.one_match()).collect(),
            filters: Vec::new(),
            backends: Vec::new(),
            request_timeout: None,
            backend_timeout: None,
            retry: None,
            fault: None,
        }
    }

    fn request(&mut self) -> (Request, HeaderMap) {
        let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("cart"))]);
        for (name, value) in [("x", "1"), (CONTENT_TYPE.as_str(), "application/grpc")] {
            if self.maybe() {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
        let query = if self.maybe() { "?q=1" } else { "" };
        let target = format!("{}{query}", self.path());
        let method = if self.maybe() { Method::GET } else { Method::POST };
        let received = Received::of_target(Version::HTTP_11, &method, target.as_bytes(), &headers);
        (canonical(&received, Rules::default()).expect("nothing to refuse"), headers)
    }
}

/// Rules and a request out of bytes.
pub fn select(bytes: &[u8]) {
    let mut choices = Choices(bytes.iter());
    let mut rules: Vec<Rule> = (0..=choices.below(6)).map(|number| choices.rule(number)).collect();
    // For the same callers there are either those of a VirtualService or others.
    if choices.maybe() {
        rules.iter_mut().for_each(|rule| rule.kind = RouteKind::VirtualService);
    }
    let (request, headers) = choices.request();
    let (caller, port) = (["web", "other"][choices.below(2)], 80 + choices.below(3) as u16);
    let routes = ServiceRoutes {
        service: NamespacedName::new("shop", "cart"),
        ports: Vec::new(),
        rules: rules.clone(),
        policies: Vec::new(),
        traffic: Vec::new(),
        tokens: [].into(),
        tracing: None,
        access_logging: None,
        subsets: Vec::new(),
        streams: Vec::new(),
        rate_limits: [].into(),
    };
    let found = match Router::new(routes.into()).select(&request, &headers, caller, port) {
        Selected::NoRoutes => None,
        Selected::NoMatch => Some(None),
        Selected::Rule(matched) => {
            let plan = matched.plan(&request, &headers, port, || 0);
            assert!(matches!(plan, Plan::Answer(_)), "there is no backend");
            Some(Some((matched.rule().clone(), matched.request_match().cloned().expect("one of its own"))))
        }
    };
    assert_eq!(found, slow(&rules, &request, &headers, caller, port), "{request:?} {headers:?} {caller} {port}");
}

type Found = Option<Option<(Rule, RequestMatch)>>;

fn slow(rules: &[Rule], request: &Request, headers: &HeaderMap, caller: &str, port: u16) -> Found {
    let at_port = |rule: &&Rule| rule.port.is_none_or(|wanted| wanted == port);
    let of = |callers: Option<&str>| -> Vec<&Rule> {
        rules.iter().filter(at_port).filter(|rule| rule.callers.as_deref() == callers).collect()
    };
    let (own, all) = (of(Some(caller)), of(None));
    let attached = if own.is_empty() { all } else { own };
    if attached.is_empty() {
        return None;
    }
    let grpc = headers.contains_key(CONTENT_TYPE);
    let matched = attached
        .iter()
        .filter(|rule| grpc || rule.kind != RouteKind::Grpc)
        .flat_map(|rule| rule.matches.iter().enumerate().map(move |(place, one)| (*rule, place, one)))
        .filter(|(_, _, one)| holds(one, request, headers));
    let first = matched.max_by_key(|(rule, place, one)| {
        let number: usize = rule.name.parse().expect("a number");
        let more = (one.method.is_some(), one.headers.len(), one.query.len());
        let place = Reverse((number, *place));
        match rule.kind {
            RouteKind::VirtualService => (false, (false, 0), (false, 0, 0), place),
            kind => (kind == RouteKind::Grpc, specific(one.path.as_ref()), more, place),
        }
    });
    Some(first.map(|(rule, _, one)| (rule.clone(), one.clone())))
}

fn specific(path: Option<&PathMatch>) -> (bool, usize) {
    match path {
        None => (false, 0),
        Some(PathMatch::Exact(path) | PathMatch::ExactAnyCase(path)) => (true, path.len()),
        Some(PathMatch::Prefix(path)) => (false, path.trim_end_matches('/').len()),
        Some(PathMatch::Beginning(path) | PathMatch::BeginningAnyCase(path) | PathMatch::Regex(path)) => {
            (false, path.len())
        }
    }
}

fn holds(one: &RequestMatch, request: &Request, headers: &HeaderMap) -> bool {
    let path = request.path();
    let by_path = match &one.path {
        None => true,
        Some(PathMatch::Exact(wanted)) => path == &**wanted,
        Some(PathMatch::Prefix(wanted)) => {
            let rest = path.strip_prefix(wanted.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        Some(PathMatch::Beginning(wanted)) => path.starts_with(&**wanted),
        // None is made here.
        Some(PathMatch::Regex(_) | PathMatch::ExactAnyCase(_) | PathMatch::BeginningAnyCase(_)) => false,
    };
    by_path
        && one.method.as_deref().is_none_or(|method| method == request.method.as_str())
        && (one.headers.is_empty() || headers.contains_key("x"))
        && (one.query.is_empty() || request.query().is_some())
}
