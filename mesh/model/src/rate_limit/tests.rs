use std::collections::BTreeSet;
use std::hash::DefaultHasher;

use http::HeaderValue;
use mesh_proto::rate_limit as pb;
use prost::Message;

use super::bucket::Bucket;
use super::counts::Counts;
use super::service::{Verdict, answer, request};
use super::*;
use crate::authorizer::verdict::Edit;

const SECOND: u64 = 1_000_000_000;

fn limit(requests: u32, per: Duration, burst: u32) -> Bucket {
    Bucket::of(&LocalRateLimit { requests, per, burst, key: None })
}

/// Takes at these milliseconds, from a bucket that was never used: how long to wait, of each.
fn taken(bucket: Bucket, at: &[u64]) -> Vec<Option<u64>> {
    let mut full = 0;
    let take = |at: &u64| match bucket.take(full, at * 1_000_000) {
        Ok(then) => {
            full = then;
            None
        }
        Err(wait) => Some(u64::try_from(wait.as_millis()).unwrap()),
    };
    at.iter().map(take).collect()
}

#[test]
fn a_bucket_holds_the_burst_and_fills_evenly() {
    let (yes, wait) = (None, Some);
    for (what, bucket, at, expected) in [
        (
            "ten a second, two at once",
            limit(10, Duration::from_secs(1), 2),
            &[0, 0, 0, 50, 100, 100, 1_000, 1_000, 1_000][..],
            &[yes, yes, wait(100), wait(50), yes, wait(100), yes, yes, wait(100)][..],
        ),
        (
            "one a minute",
            limit(1, Duration::from_secs(60), 1),
            &[0, 0, 59_999, 60_000],
            &[yes, wait(60_000), wait(1), yes],
        ),
        (
            "as many at once as in the time",
            limit(3, Duration::from_secs(3), 3),
            &[5, 5, 5, 5],
            &[yes, yes, yes, wait(1_000)],
        ),
        (
            "a rest does not save up",
            limit(1, Duration::from_secs(1), 2),
            &[0, 0, 60_000, 60_000, 60_000],
            &[yes, yes, yes, yes, wait(1_000)],
        ),
    ] {
        assert_eq!(taken(bucket, at), expected, "{what}");
    }
    // Thirds are rounded up: never more than is written.
    let thirds = limit(3, Duration::from_secs(1), 1);
    let (mut full, mut let_pass) = (0, 0);
    for now in 0..10_000 {
        if let Ok(then) = thirds.take(full, now * SECOND / 1_000) {
            (full, let_pass) = (then, let_pass + 1);
        }
    }
    assert!((29..=30).contains(&let_pass), "{let_pass} in ten seconds");
    // At the ends of what may be written nothing overflows.
    let widest = limit(1, LONGEST_PER, MOST_REQUESTS);
    let full = (0..1_000).fold(0, |full, _| widest.take(full, SECOND).unwrap());
    assert_eq!(widest.give_back(full), full - 3_600 * SECOND);
    assert!(limit(MOST_REQUESTS, SHORTEST_PER, 1).take(0, 0).is_ok());
}

#[test]
fn what_was_given_back_may_be_taken_again() {
    let one = limit(1, Duration::from_secs(60), 1);
    let full = one.take(0, SECOND).unwrap();
    assert!(one.take(full, SECOND).is_err());
    assert_eq!(one.take(one.give_back(full), SECOND), Ok(full));
    let mut counts = Counts::new(1);
    assert_eq!(counts.take(one, 7, 0), Some(Ok(())));
    assert!(matches!(counts.take(one, 7, 0), Some(Err(_))));
    counts.give_back(one, 7);
    assert_eq!(counts.take(one, 7, 0), Some(Ok(())));
}

#[test]
fn keys_have_buckets_of_their_own_and_full_ones_make_room() {
    let (bucket, mut counts) = (limit(1, Duration::from_secs(10), 1), Counts::new(2));
    assert_eq!(counts.take(bucket, 1, 0), Some(Ok(())));
    assert_eq!(counts.take(bucket, 2, 5 * SECOND), Some(Ok(())));
    assert_eq!(counts.take(bucket, 1, 5 * SECOND), Some(Err(Duration::from_secs(5))));
    assert_eq!(counts.take(bucket, 3, 6 * SECOND), None, "no place, and nobody is pushed out");
    assert_eq!(counts.take(bucket, 2, 6 * SECOND), Some(Err(Duration::from_secs(9))), "a known one is counted on");
    assert_eq!(counts.take(bucket, 3, 10 * SECOND), Some(Ok(())), "the first one's bucket is full again");
    assert_eq!(counts.len(), 2);
    assert_eq!(counts.take(bucket, 4, 10 * SECOND + 1), None, "looked for once a second");
    assert_eq!(counts.take(bucket, 4, 15 * SECOND), Some(Ok(())));
    assert_eq!(counts.take(bucket, 2, 15 * SECOND), None, "forgotten, and nothing was lost by it");
}

fn id(namespace: &str, account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", namespace, account).unwrap()
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn a_key_tells_apart_what_it_says() {
    let (web, api, other) = (id("shop", "web"), id("shop", "api"), id("other", "web"));
    let (none, alice, bob) = (headers(&[]), headers(&[("x-user", "alice")]), headers(&[("x-user", "bob")]));
    let (both, joined) = (headers(&[("x-user", "a"), ("x-user", "b")]), headers(&[("x-user", "ab")]));
    let all = [(&web, &none), (&api, &alice), (&other, &bob), (&web, &alice), (&web, &both), (&web, &joined)];
    let different = |key: LimitKey| {
        let of = |(caller, headers): &(&SpiffeId, &HeaderMap)| {
            let mut state = DefaultHasher::new();
            key.hash(&About { caller, headers, route: None }, &mut state);
            state.finish()
        };
        all.iter().map(of).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(different(LimitKey::CallerIdentity), 3);
    assert_eq!(different(LimitKey::CallerNamespace), 2);
    assert_eq!(different(LimitKey::Header("x-user".into())), 5, "none, alice, bob, and two that are no ab");
}

fn global(descriptors: &[&[(&str, EntryValue)]]) -> GlobalRateLimit {
    let entry = |(key, value): &(&str, EntryValue)| Entry { key: (*key).into(), value: value.clone() };
    GlobalRateLimit {
        service: NamespacedName::new("limits", "ratelimit.limits.svc"),
        port: 8081,
        domain: "shop".into(),
        timeout: Duration::from_millis(100),
        deny_on_failure: false,
        descriptors: descriptors.iter().map(|entries| entries.iter().map(entry).collect()).collect(),
    }
}

#[test]
fn what_a_request_does_not_have_leaves_its_descriptor_out() {
    let limit = global(&[
        &[("who", EntryValue::CallerIdentity), ("from", EntryValue::CallerNamespace)],
        &[("user", EntryValue::Header("x-user".into()))],
        &[("route", EntryValue::Route), ("plan", EntryValue::Constant("gold".into()))],
    ]);
    let (web, route) = (id("shop", "web"), NamespacedName::new("shop", "r"));
    let (none, two) = (headers(&[]), headers(&[("x-user", "a"), ("x-user", "b")]));
    let said = |headers, route| {
        let message = request(&limit, &About { caller: &web, headers, route })?;
        let message = pb::RateLimitRequest::decode(message).unwrap();
        assert_eq!((&*message.domain, message.hits_addend), ("shop", 0));
        let entry = |entry: &pb::rate_limit_descriptor::Entry| format!("{}={}", entry.key, entry.value);
        let of = |d: &pb::RateLimitDescriptor| d.entries.iter().map(entry).collect::<Vec<_>>().join(",");
        Some(message.descriptors.iter().map(of).collect::<Vec<_>>())
    };
    let who = "who=spiffe://cluster.local/ns/shop/sa/web,from=shop".to_owned();
    assert_eq!(said(&none, None), Some(vec![who.clone()]));
    assert_eq!(said(&two, Some(&route)), Some(vec![who, "user=a,b".into(), "route=shop/r,plan=gold".into()]));
    let by_user = global(&[&[("user", EntryValue::Header("x-user".into()))]]);
    assert_eq!(request(&by_user, &About { caller: &web, headers: &none, route: None }), None);
}

#[test]
fn an_answer_says_yes_or_over_or_nothing() {
    let header = |key: &str| pb::HeaderValue { key: key.into(), value: "v".into(), raw_value: Default::default() };
    let of = |code: i32, change: &dyn Fn(&mut pb::RateLimitResponse)| {
        let mut message = pb::RateLimitResponse { overall_code: code, ..Default::default() };
        change(&mut message);
        answer(message.encode_to_vec().into())
    };
    let add = |name: &'static str| Edit::Add(name.parse().unwrap(), HeaderValue::from_static("v"));
    let with_headers = |message: &mut pb::RateLimitResponse| {
        message.request_headers_to_add = vec![header("x-a"), header("host"), header("not a name")];
        message.response_headers_to_add = vec![header("x-b")];
    };
    assert_eq!(
        of(1, &with_headers),
        Some(Verdict::Pass { request: vec![add("x-a")], answer: vec![add("x-b")] }),
        "what names the host is not theirs to say"
    );
    let status = |code, seconds| pb::rate_limit_response::DescriptorStatus {
        code,
        limit_remaining: 0,
        duration_until_reset: Some(mesh_proto::Duration { seconds, nanos: 0 }),
    };
    let over = |message: &mut pb::RateLimitResponse| {
        with_headers(message);
        message.statuses = vec![status(1, 100), status(2, 3), status(2, 5)];
        message.raw_body = "slow down".into();
    };
    let Some(Verdict::Over { headers, body, again }) = of(2, &over) else { panic!("over") };
    assert_eq!(
        (headers["x-b"].as_bytes(), &body[..], again),
        (&b"v"[..], &b"slow down"[..], Some(Duration::from_secs(5)))
    );
    for (what, verdict) in
        [("unknown", of(0, &|_| ())), ("another code", of(9, &|_| ())), ("no message", answer("\x0f".into()))]
    {
        assert_eq!(verdict, None, "{what}");
    }
}

#[test]
fn a_limit_says_what_it_is() {
    let route = LimitedRoute { route: NamespacedName::new("shop", "r"), rule: Some("slow".into()) };
    let local =
        LocalRateLimit { requests: 5, per: Duration::from_secs(60), burst: 2, key: Some(LimitKey::CallerIdentity) };
    assert_eq!(local.to_string(), "5 requests per 60s, 2 at once, for each caller's identity");
    let limit = RateLimit {
        policy: NamespacedName::new("shop", "limits"),
        name: "local[0]".into(),
        target: Target::HttpRoute(route),
        kind: Kind::Local(local),
    };
    assert_eq!(limit.to_string(), "local[0] of TrafficPolicy shop/limits for HTTPRoute shop/r slow");
}
