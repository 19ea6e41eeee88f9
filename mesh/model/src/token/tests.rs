//! Tokens that nobody should take, and those that everybody should.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{COOKIE, HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::check::{LEEWAY, check};
use super::find::{MAX_TOKENS, Place, find};
use super::hand_on;
use super::read::MAX_TOKEN;
use super::rule::{ClaimHeader, TokenHeader};
use super::*;

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn token(header: &str, payload: &str) -> String {
    format!("{}.{}.{}", encode(header), encode(payload), encode("signature"))
}

fn rule() -> JwtRule {
    JwtRule {
        authentication: crate::address::NamespacedName::new("shop", "tokens"),
        issuer: "me".into(),
        audiences: Vec::new(),
        keys: Err("".into()),
        headers: vec![TokenHeader { name: "authorization".into(), prefix: "Bearer ".into() }],
        params: vec!["access_token".into()],
        cookies: vec!["session".into()],
        forward: false,
        payload_header: None,
        claim_headers: Vec::new(),
        space_delimited: Vec::new(),
    }
}

const RS256: &str = r#"{"alg":"RS256","kid":"1"}"#;
const CLAIMS: &str = r#"{"iss":"me","sub":"you"}"#;

#[test]
fn what_is_no_token_or_could_be_read_in_two_ways_is_refused() {
    let good = token(RS256, CLAIMS);
    let said = read(&good).unwrap();
    assert_eq!((&*said.algorithm, said.key_id.as_deref(), &*said.issuer), ("RS256", Some("1"), "me"));
    assert_eq!(format!("{}.{}", said.signed, said.signature), good);
    let [header, payload, signature] = [encode(RS256), encode(CLAIMS), encode("signature")];
    let deep = format!("{}1{}", r#"{"a":"#.repeat(200), "}".repeat(200));
    for (name, text, fault) in [
        ("nothing", String::new(), TokenFault::Form),
        ("one part", header.clone(), TokenFault::Form),
        ("two parts", format!("{header}.{payload}"), TokenFault::Form),
        ("four parts", format!("{good}.x"), TokenFault::Form),
        ("an encrypted one", format!("{good}.x.y"), TokenFault::Form),
        ("too long", format!("{good}{}", "A".repeat(MAX_TOKEN)), TokenFault::Long),
        ("no signature", format!("{header}.{payload}."), TokenFault::Encoding),
        ("a signature with padding", format!("{header}.{payload}.{signature}="), TokenFault::Encoding),
        ("a signature of the other base64", format!("{header}.{payload}.a+/b"), TokenFault::Encoding),
        ("no algorithm", token("{}", CLAIMS), TokenFault::Algorithm),
        ("alg none", token(r#"{"alg":"none"}"#, CLAIMS), TokenFault::Algorithm),
        ("alg nOnE", token(r#"{"alg":"nOnE"}"#, CLAIMS), TokenFault::Algorithm),
        ("alg is a list", token(r#"{"alg":["RS256"]}"#, CLAIMS), TokenFault::Algorithm),
        ("alg twice", token(r#"{"alg":"RS256","alg":"none"}"#, CLAIMS), TokenFault::Header),
        ("alg twice, by an escape", token(r#"{"alg":"RS256","\u0061lg":"none"}"#, CLAIMS), TokenFault::Header),
        ("kid is a number", token(r#"{"alg":"RS256","kid":1}"#, CLAIMS), TokenFault::Header),
        ("crit", token(r#"{"alg":"RS256","crit":["b64"],"b64":false}"#, CLAIMS), TokenFault::Critical),
        ("crit, empty", token(r#"{"alg":"RS256","crit":[]}"#, CLAIMS), TokenFault::Critical),
        ("a header that is a list", token("[]", CLAIMS), TokenFault::Header),
        ("something after the header", token(r#"{"alg":"RS256"}{}"#, CLAIMS), TokenFault::Header),
        ("a header of bytes", format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode([0xff])), TokenFault::Header),
        ("a payload that is a text", token(RS256, r#""me""#), TokenFault::Payload),
        ("iss twice", token(RS256, r#"{"iss":"me","iss":"other"}"#), TokenFault::Payload),
        ("a claim twice, deep inside", token(RS256, r#"{"iss":"me","a":[{"b":1,"b":2}]}"#), TokenFault::Payload),
        ("iss is a list", token(RS256, r#"{"iss":["me"]}"#), TokenFault::Payload),
        ("deeper than any reader goes", token(RS256, &deep), TokenFault::Payload),
        ("a payload with padding", format!("{header}.{payload}=.{signature}"), TokenFault::Payload),
    ] {
        assert_eq!(read(&text).map(|_| ()), Err(fault), "{name}");
    }
}

fn claims(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn when_and_for_whom_a_token_is() {
    const NOW: u64 = 1_000_000;
    let for_shop = |audience: &str| JwtRule { audiences: vec!["other".into(), audience.into()], ..rule() };
    for (name, value, rule, expected) in [
        ("no end", json!({}), rule(), Ok(None)),
        ("it ends", json!({"exp": NOW + 5}), rule(), Ok(Some(NOW + 5 + LEEWAY))),
        ("it has just ended", json!({"exp": NOW - LEEWAY + 1}), rule(), Ok(Some(NOW + 1))),
        ("it has ended", json!({"exp": NOW - LEEWAY}), rule(), Err(TokenFault::Expired)),
        ("it ended before 1970", json!({"exp": -5}), rule(), Err(TokenFault::Expired)),
        ("not whole", json!({"exp": NOW as f64 + 0.5}), rule(), Ok(Some(NOW + LEEWAY))),
        ("an end that is a text", json!({"exp": "9999999999"}), rule(), Err(TokenFault::Payload)),
        ("an end that is null", json!({"exp": null}), rule(), Err(TokenFault::Payload)),
        ("the last end there is", json!({"exp": u64::MAX}), rule(), Ok(Some(u64::MAX))),
        ("it has begun", json!({"nbf": NOW + LEEWAY}), rule(), Ok(None)),
        ("it has not", json!({"nbf": NOW + LEEWAY + 1}), rule(), Err(TokenFault::NotYet)),
        ("a beginning that is a list", json!({"nbf": [1]}), rule(), Err(TokenFault::Payload)),
        ("a subject that is a number", json!({"sub": 1}), rule(), Err(TokenFault::Payload)),
        ("for anybody", json!({"aud": "x"}), rule(), Ok(None)),
        ("for us", json!({"aud": "shop"}), for_shop("shop"), Ok(None)),
        ("for us, too", json!({"aud": ["x", "shop"]}), for_shop("shop"), Ok(None)),
        ("for others", json!({"aud": ["x"]}), for_shop("shop"), Err(TokenFault::Audience)),
        ("for those below us", json!({"aud": "shop/admin"}), for_shop("shop"), Err(TokenFault::Audience)),
        ("for nobody", json!({}), for_shop("shop"), Err(TokenFault::Audience)),
        ("for nobody, at length", json!({"aud": []}), for_shop("shop"), Err(TokenFault::Audience)),
        ("a URL", json!({"aud": "https://shop.example/"}), for_shop("shop.example"), Ok(None)),
        ("an audience that is a number", json!({"aud": [1]}), rule(), Err(TokenFault::Payload)),
    ] {
        assert_eq!(check(&claims(value), &rule, NOW), expected, "{name}");
    }
    assert_eq!(TokenFault::Audience.status(), 403);
    assert_eq!(TokenFault::Expired.status(), 401);
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    map
}

#[test]
fn tokens_are_found_where_rules_say() {
    let raw = JwtRule {
        headers: vec![TokenHeader { name: "x-token".into(), prefix: "".into() }],
        params: Vec::new(),
        cookies: Vec::new(),
        ..rule()
    };
    let rules = [rule(), raw, rule()];
    for (name, lines, query, expected) in [
        ("none", &[][..], None, &[][..]),
        ("another scheme", &[("authorization", "Basic abc")], None, &[]),
        ("bearer", &[("authorization", "Bearer abc")], None, &["abc"]),
        ("bearer, as it may be written", &[("authorization", " bEaReR  abc ")], None, &["abc"]),
        ("bearer of nothing", &[("authorization", "Bearer ")], None, &[""]),
        ("two lines", &[("authorization", "Bearer a"), ("authorization", "Bearer b")], None, &["a", "b"]),
        ("a header as it is", &[("x-token", "abc")], None, &["abc"]),
        ("query", &[], Some("a=b&access_token=abc&c"), &["abc"]),
        ("query, twice and escaped", &[], Some("access%5Ftoken=a%2Eb&access_token=c"), &["a.b", "c"]),
        ("query, without value", &[], Some("access_token&access_token="), &[]),
        ("cookie", &[("cookie", "a=b; session=abc;session=\"d\""), ("cookie", "session=e")], None, &["abc", "d", "e"]),
        (
            "everywhere",
            &[("cookie", "session=c"), ("authorization", "Bearer a"), ("x-token", "d")],
            Some("access_token=b"),
            &["a", "b", "c", "d"],
        ),
    ] {
        let found = find(&rules, &headers(lines), query).unwrap();
        assert_eq!(found.iter().map(|found| &*found.text).collect::<Vec<_>>(), expected, "{name}");
    }
    let many = vec![("x-token", "a"); MAX_TOKENS + 1];
    assert_eq!(find(&rules, &headers(&many), None), Err(TokenFault::Many));
    let first = &find(&rules, &headers(&[("x-token", "a")]), None).unwrap()[0];
    assert_eq!(rules.each_ref().map(|rule| first.place.is_of(rule)), [false, true, false]);
}

#[test]
fn a_token_that_is_not_forwarded_is_nowhere() {
    let target = |text: &str| text.parse().unwrap();
    let mut map = headers(&[("authorization", "Bearer a"), ("cookie", "a=b; session=x; c=d"), ("cookie", "session=y")]);
    let [header, cookie, param] = [
        Place::Header(rule().headers[0].clone()),
        Place::Cookie("session".into()),
        Place::Param("access_token".into()),
    ];
    assert_eq!(hand_on::remove(&header, &mut map, &target("/")), None);
    assert_eq!(hand_on::remove(&cookie, &mut map, &target("/")), None);
    assert_eq!(map, headers(&[("cookie", "a=b; c=d")]));
    for (before, after) in [
        ("/a?access_token=x", "/a"),
        ("/a?b=c&access_token=x&access_token=y&d", "/a?b=c&d"),
        ("/a?access%5ftoken=x&b", "/a?b"),
    ] {
        assert_eq!(hand_on::remove(&param, &mut map, &target(before)), Some(target(after)), "{before}");
    }
    assert_eq!(map.get_all(COOKIE).iter().count(), 1);
}

#[test]
fn the_application_is_told_what_was_verified_and_nothing_else() {
    let told = |header: &str, claim: &[&str]| ClaimHeader {
        header: header.into(),
        claim: claim.iter().map(|name| (*name).into()).collect(),
    };
    let rule = JwtRule {
        payload_header: Some("x-payload".into()),
        claim_headers: vec![
            told("x-sub", &["sub"]),
            told("x-deep", &["a", "b"]),
            told("x-number", &["n"]),
            told("x-list", &["l"]),
            told("x-none", &["none"]),
            told("x-evil", &["evil"]),
        ],
        ..rule()
    };
    let mut map =
        headers(&[("x-payload", "forged"), ("x-sub", "admin"), ("x-sub", "root"), ("x-none", "forged"), ("x", "y")]);
    hand_on::clear(std::slice::from_ref(&rule), &mut map);
    assert_eq!(map, headers(&[("x", "y")]));
    let claims = claims(json!({"sub": "you", "a": {"b": true}, "n": 5, "l": ["x"], "evil": "a\r\nx-admin: yes"}));
    hand_on::tell(&rule, "cGF5", &claims, &mut map);
    let list = encode(r#"["x"]"#);
    let lines =
        [("x", "y"), ("x-payload", "cGF5"), ("x-sub", "you"), ("x-deep", "true"), ("x-number", "5"), ("x-list", &list)];
    assert_eq!(map, headers(&lines));
}
