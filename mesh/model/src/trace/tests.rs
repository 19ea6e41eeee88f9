use http::HeaderValue;

use super::*;

const T: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const S: &str = "00f067aa0ba902b7";

fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    map
}

fn every(sampling: u16) -> Tracing {
    Tracing { provider: "otel".into(), collector: None, sampling, tags: Vec::new(), istio_tags: true }
}

/// What the next hop is told after a request with these headers: its own span is 2, the waypoint's first 1; new traces have id 7.
fn told(lines: &[(&'static str, &str)]) -> (Context, Vec<(String, String)>) {
    let mut headers = map(lines);
    headers.insert("x-other", HeaderValue::from_static("stays"));
    let context = Context::begin(&headers, &every(0), || 7);
    context.write(&mut headers, 2, Some(1));
    headers.remove("x-other").unwrap();
    let text =
        |(name, value): (&http::HeaderName, &HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
    let mut told: Vec<_> = headers.iter().map(text).collect();
    told.sort();
    (context, told)
}

/// Every way to say it, and what is said to the next hop.
#[test]
fn a_trace_goes_on_in_the_way_it_came() {
    let (two, one) = ("0000000000000002", "0000000000000001");
    let w3c = |flags: &str| format!("00-{T}-{two}-{flags}");
    let came = |flags: &str| format!("00-{T}-{S}-{flags}");
    let short = "a3ce929d0e0e4736";
    let new = format!("00-{:032x}-{two}-02", 7);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    // (what comes, sampled, has a parent, what goes)
    type Row = (Vec<(&'static str, String)>, bool, bool, Vec<(String, String)>);
    let rows: Vec<Row> = vec![
        (vec![], false, false, vec![pair("traceparent", &new)]),
        (vec![("traceparent", came("01"))], true, true, vec![pair("traceparent", &w3c("01"))]),
        (vec![("traceparent", came("00"))], false, true, vec![pair("traceparent", &w3c("00"))]),
        (vec![("traceparent", came("03"))], true, true, vec![pair("traceparent", &w3c("03"))]),
        // Flags that have no meaning are not passed on.
        (vec![("traceparent", came("fd"))], true, true, vec![pair("traceparent", &w3c("01"))]),
        (
            vec![("traceparent", came("01")), ("tracestate", "a=1,b@c=2".into()), ("tracestate", "d=x y".into())],
            true,
            true,
            vec![pair("traceparent", &w3c("01")), pair("tracestate", "a=1,b@c=2"), pair("tracestate", "d=x y")],
        ),
        // A later version, of which this one knows the beginning.
        (vec![("traceparent", format!("cc-{T}-{S}-01-more"))], true, true, vec![pair("traceparent", &w3c("01"))]),
        // A state that is none, or belongs to nothing, goes no further.
        (
            vec![("traceparent", came("01")), ("tracestate", "A=1".into())],
            true,
            true,
            vec![pair("traceparent", &w3c("01"))],
        ),
        (vec![("tracestate", "a=1".into())], false, false, vec![pair("traceparent", &new)]),
        (vec![("b3", format!("{T}-{S}-1"))], true, true, vec![pair("b3", &format!("{T}-{two}-1-{one}"))]),
        (vec![("b3", format!("{T}-{S}-0-{one}"))], false, true, vec![pair("b3", &format!("{T}-{two}-0-{one}"))]),
        (vec![("b3", format!("{short}-{S}-d"))], true, true, vec![pair("b3", &format!("{short}-{two}-d-{one}"))]),
        // Left open by the caller: decided here.
        (vec![("b3", format!("{T}-{S}"))], false, true, vec![pair("b3", &format!("{T}-{two}-0-{one}"))]),
        // A decision and nothing else: a trace begins, in the same way.
        (vec![("b3", "1".into())], true, false, vec![pair("b3", &format!("{:032x}-{two}-1-{one}", 7))]),
        (vec![("b3", "0".into())], false, false, vec![pair("b3", &format!("{:032x}-{two}-0-{one}", 7))]),
        (
            vec![("x-b3-traceid", short.into()), ("x-b3-spanid", S.into()), ("x-b3-sampled", "true".into())],
            true,
            true,
            vec![
                pair("x-b3-parentspanid", one),
                pair("x-b3-sampled", "1"),
                pair("x-b3-spanid", two),
                pair("x-b3-traceid", short),
            ],
        ),
        (
            vec![("x-b3-traceid", T.into()), ("x-b3-spanid", S.into()), ("x-b3-flags", "1".into())],
            true,
            true,
            vec![
                pair("x-b3-flags", "1"),
                pair("x-b3-parentspanid", one),
                pair("x-b3-spanid", two),
                pair("x-b3-traceid", T),
            ],
        ),
        // Said in two ways: the standard's counts, and both are told the same.
        (
            vec![("traceparent", came("01")), ("b3", format!("{short}-{S}-0"))],
            true,
            true,
            vec![pair("b3", &format!("{T}-{two}-1-{one}")), pair("traceparent", &w3c("01"))],
        ),
        // A malformed one counts as not there.
        (
            vec![("traceparent", "nonsense".into()), ("b3", format!("{T}-{S}-1"))],
            true,
            true,
            vec![pair("b3", &format!("{T}-{two}-1-{one}"))],
        ),
    ];
    for (came, sampled, parent, goes) in rows {
        let lines: Vec<_> = came.iter().map(|(name, value)| (*name, &**value)).collect();
        let (context, told) = told(&lines);
        assert_eq!((context.sampled, context.parent.is_some()), (sampled, parent), "{came:?}");
        assert_eq!(told, goes, "{came:?}");
    }
}

/// What is malformed is dropped whole, whatever of it could be read.
#[test]
fn what_is_malformed_begins_a_new_trace() {
    let parent = |text: String| vec![("traceparent", text)];
    let b3 = |text: String| vec![("b3", text)];
    let several = |id: &str, span: &str, more: &[(&'static str, &str)]| {
        let ids = [("x-b3-traceid", id.to_owned()), ("x-b3-spanid", span.to_owned())];
        ids.into_iter().chain(more.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect::<Vec<_>>()
    };
    let rows = vec![
        parent(String::new()),
        parent(format!("00-{T}-{S}-1")),
        parent(format!("00-{T}-{S}-011")),
        parent(format!("00-{T}-{S}-01-more")),
        parent(format!("01-{T}-{S}-01more")),
        parent(format!("ff-{T}-{S}-01")),
        parent(format!("0-{T}-{S}-01")),
        parent(format!("00-{}-{S}-01", T.to_uppercase())),
        parent(format!("00-{}-{S}-01", "0".repeat(32))),
        parent(format!("00-{T}-{}-01", "0".repeat(16))),
        parent(format!("00_{T}-{S}-01")),
        parent(format!("00-{T}_{S}-01")),
        parent(format!("00-{T}-{S}_01")),
        parent(format!("00-{T}-+{}-01", &S[1..])),
        [parent(format!("00-{T}-{S}-01")), parent(format!("00-{T}-{S}-01"))].concat(),
        b3(String::new()),
        b3("2".into()),
        b3(T.to_owned()),
        b3(format!("{T}-{S}-2")),
        b3(format!("{T}-{S}-1-")),
        b3(format!("{T}-{S}-1-{S}-")),
        b3(format!("{}-{S}-1", &T[1..])),
        b3(format!("{T}-{}-1", S.to_uppercase())),
        [b3(format!("{T}-{S}-1")), b3("0".into())].concat(),
        several(T, "", &[]),
        several("0", S, &[("x-b3-sampled", "1")]),
        several(T, S, &[("x-b3-sampled", "yes")]),
        several(T, S, &[("x-b3-spanid", S)]),
        vec![("x-b3-parentspanid", S.to_owned())],
    ];
    for came in rows {
        let lines: Vec<_> = came.iter().map(|(name, value)| (*name, &**value)).collect();
        let (context, told) = told(&lines);
        assert_eq!((context.trace_id, context.parent, context.sampled), (7, None, false), "{came:?}");
        assert_eq!(told.len(), 1, "{came:?}: {told:?}");
        assert!(told[0].0 == "traceparent" && told[0].1.starts_with("00-0000"), "{came:?}: {told:?}");
    }
}

#[test]
fn a_state_has_its_bounds() {
    let state = |text: &str| w3c::is_valid_state(&map(&[("tracestate", text)]));
    let many = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    for (text, valid) in [
        ("a=1", true),
        ("a=1, b=2 ,, 0c=x", true),
        ("tenant@system=x/y", true),
        (&*many(32), true),
        (&*many(33), false),
        (&*format!("a={}", "x".repeat(256)), true),
        (&*format!("a={}", "x".repeat(257)), false),
        ("a", false),
        ("a=", false),
        ("=a", false),
        ("A=1", false),
        ("a=b=c", false),
        ("a=\u{e9}", false),
    ] {
        assert_eq!(state(text), valid, "{text}");
    }
    let long: Vec<_> = (0..20).map(|n| ("tracestate", format!("k{n}={}", "x".repeat(250)))).collect();
    let lines: Vec<_> = long.iter().map(|(name, value)| (*name, &**value)).collect();
    assert!(!w3c::is_valid_state(&map(&lines)) && w3c::is_valid_state(&map(&lines[..16])));
}

/// What is decided by the id alone, everybody decides alike; and so many are sampled as is said.
#[test]
fn sampling_is_by_the_id_of_the_trace() {
    // (the last 56 bits, of 10,000, sampled)
    let most = (1u128 << 56) - 1;
    for (id, sampling, sampled) in [
        (0, 0, false),
        (most, 0, false),
        (0, 10_000, true),
        (most, 10_000, true),
        (most, 1, true),
        (0, 9_999, false),
        (1 << 55, 5_000, true),
        ((1 << 55) - 1, 5_000, false),
        // What stands before decides nothing.
        (0xffff << 56, 9_999, false),
        // More than all is all.
        (0, u16::MAX, true),
    ] {
        assert_eq!(is_sampled(id, sampling), sampled, "{id:x} {sampling}");
    }
    let spread = |n: u64| u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let sampled = (0..100_000).filter(|n| is_sampled(spread(*n), 123)).count();
    assert!((1_100..1_400).contains(&sampled), "{sampled}");
}

#[test]
fn a_request_gets_an_id_and_keeps_what_it_has() {
    let given = |headers: &mut HeaderMap, random| {
        request_id(headers, random);
        headers["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(given(&mut map(&[]), 0), "00000000-0000-4000-8000-000000000000");
    assert_eq!(given(&mut map(&[("x-request-id", "")]), u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    assert_eq!(given(&mut map(&[("x-request-id", "mine")]), 0), "mine");
}

#[test]
fn tags_say_what_is_written_or_what_a_header_says() {
    let long = "x".repeat(300);
    let headers = map(&[("x-user", "ann"), ("x-long", &long)]);
    let of = |value| Tag { name: "t".into(), value }.of(&headers);
    let header = |name: &str, default: Option<&str>| {
        of(TagValue::Header { name: name.into(), default: default.map(Into::into) }).map(|value| value.len())
    };
    assert_eq!(of(TagValue::Literal("is".into())).as_deref(), Some("is"));
    assert_eq!(header("x-user", Some("nobody")), Some(3));
    assert_eq!(header("x-none", Some("nobody")), Some(6));
    assert_eq!(header("x-none", None), None);
    assert_eq!(header("x-long", None), Some(MOST_TAG_BYTES));
}
