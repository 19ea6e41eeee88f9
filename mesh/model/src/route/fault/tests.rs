use super::*;
use crate::address::NamespacedName;
use crate::http::{Received, Rules, canonical};
use crate::route::{Cors, Filter, RequestMatch, RouteKind, Router, Selected, ServiceRoutes};
use http::header::{HOST, HeaderName, HeaderValue};
use http::{Method, Version};

fn injected(fault: Fault, method: &Method, lines: &[(&'static str, &'static str)], rolls: &[u64]) -> Injected {
    let cors = Cors { allow_origins: vec!["*".into()], ..Cors::default() };
    let rule = Rule {
        kind: RouteKind::VirtualService,
        route: NamespacedName::new("shop", "web"),
        name: "http[0]".into(),
        port: None,
        callers: None,
        matches: vec![RequestMatch::default()],
        filters: vec![Filter::Cors(cors)],
        backends: Vec::new(),
        request_timeout: None,
        backend_timeout: None,
        retry: None,
        fault: Some(fault),
    };
    let routes = ServiceRoutes {
        service: NamespacedName::new("shop", "cart"),
        ports: Vec::new(),
        rules: vec![rule],
        policies: Vec::new(),
        traffic: Vec::new(),
        tokens: [].into(),
        tracing: None,
        access_logging: None,
        subsets: Vec::new(),
        streams: Vec::new(),
        rate_limits: [].into(),
    };
    let mut headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("cart"))]);
    for (name, value) in lines {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let received = Received::of_target(Version::HTTP_11, method, b"/", &headers);
    let request = canonical(&received, Rules::default()).unwrap();
    let Selected::Rule(matched) = Router::new(routes.into()).select(&request, &headers, "web", 80) else {
        panic!("it matches")
    };
    let mut rolls = rolls.iter();
    matched.inject(&request, &headers, || *rolls.next().expect("no more rolls than asked for"))
}

#[test]
fn a_share_of_requests_waits_and_a_share_is_refused() {
    let delay = |millionths| Some(Delay { length: Duration::from_secs(7), millionths });
    let abort = |millionths| Some(Abort { status: StatusCode::IM_A_TEAPOT, millionths });
    // (fault, rolls, waits, is refused)
    for (delay, abort, rolls, waits, refused) in [
        (delay(1_000_000), None, &[999_999][..], true, false),
        (delay(0), None, &[0], false, false),
        (delay(500_000), None, &[499_999], true, false),
        (delay(500_000), None, &[500_000], false, false),
        (None, abort(500_000), &[1_499_999], false, true),
        (None, abort(500_000), &[1_500_000], false, false),
        // Each by a number of its own.
        (delay(1), abort(1), &[0, 1], true, false),
        (delay(1), abort(1), &[1, 0], false, true),
        (delay(1), abort(1), &[0, 0], true, true),
        (None, None, &[], false, false),
    ] {
        let found = injected(Fault { delay, abort }, &Method::GET, &[], rolls);
        assert_eq!(found.delay.as_ref().map(|(length, _)| length.as_secs()), waits.then_some(7), "{delay:?} {rolls:?}");
        assert_eq!(
            found.abort.as_ref().map(|(status, _)| status.as_u16()),
            refused.then_some(418),
            "{abort:?} {rolls:?}"
        );
    }
    let found = injected(Fault { delay: delay(1), abort: abort(1) }, &Method::GET, &[], &[0, 0]);
    let (waits, refused) = (found.delay.unwrap().1, found.abort.unwrap().1);
    assert_eq!(waits, "the fault of http[0] of VirtualService shop/web delayed it by 7s");
    assert_eq!(refused, "the fault of http[0] of VirtualService shop/web answered it with 418");
}

#[test]
fn what_a_browser_asks_before_it_asks_is_left_alone() {
    let fault = Fault { abort: Some(Abort { status: StatusCode::BAD_GATEWAY, millionths: 1_000_000 }), delay: None };
    let preflight = [("origin", "http://a.example"), ("access-control-request-method", "PUT")];
    assert_eq!(injected(fault, &Method::OPTIONS, &preflight, &[]), Injected::default());
    assert!(injected(fault, &Method::OPTIONS, &preflight[..1], &[0]).abort.is_some());
}
