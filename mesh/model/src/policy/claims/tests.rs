use super::*;
use Outcome::{Met, NotMet, Unknown};
use serde_json::json;

fn token(value: Value) -> Arc<Token> {
    Arc::new(Token::new(value.as_object().unwrap().clone(), &["roles".into()]))
}

fn patterns(values: &[&str]) -> Vec<StringMatch> {
    let one = |value: &&str| match (value.strip_suffix('*'), *value) {
        (Some(""), _) => StringMatch::Presence,
        (Some(begin), _) => StringMatch::Prefix(begin.into()),
        (None, whole) => StringMatch::Exact(whole.into()),
    };
    values.iter().map(one).collect()
}

/// As Istio's control plane reads them, case by case.
#[test]
fn request_principals() {
    let (url, plain) = (json!({"iss": "https://a.example", "sub": "bob"}), json!({"iss": "a", "sub": "b/c"}));
    for (pattern, holds) in [
        ("*", [true, true]),
        ("https://a.example/bob", [true, false]),
        ("https://a.example/*", [true, false]),
        ("https://a.example/bo*", [true, false]),
        ("https://a.example/bob/*", [false, false]),
        ("*/bob", [true, false]),
        ("*.example/bob", [true, false]),
        ("*ob", [true, false]),
        ("https*", [true, false]),
        ("a*", [false, true]),
        ("https://a.example", [false, false]),
        // The subject has no slash for who writes one.
        ("a/b/c", [false, false]),
        ("https://a.example/bobby", [false, false]),
    ] {
        let wanted = [RequestPrincipal::parse(pattern)];
        for (claims, holds) in [&url, &plain].into_iter().zip(holds) {
            let tokens = [token(claims.clone())];
            assert_eq!(principals(&wanted, &[], &tokens), Outcome::from_bool(holds), "{pattern} {claims}");
            assert_eq!(principals(&[], &wanted, &tokens), Outcome::from_bool(!holds), "not {pattern} {claims}");
        }
    }
    let any = [RequestPrincipal::parse("*")];
    assert_eq!((principals(&any, &[], &[]), principals(&[], &any, &[])), (NotMet, Met), "without a token");
    for nobody in [json!({"iss": "a"}), json!({"sub": "b"}), json!({"iss": "a", "sub": ""})] {
        assert_eq!(principals(&any, &[], &[token(nobody.clone())]), NotMet, "{nobody}");
    }
}

/// No policy is weaker because a claim is of another type than its author thought.
#[test]
fn claims_of_every_type() {
    let values = json!({
        "text": "a b", "list": ["a", "b"], "mixed": ["a", 5], "number": 5, "yes": true, "null": null,
        "object": {"in": "a", "deep": {"er": ["b"]}}, "a.b": "c", "scope": "read  write", "roles": "x y", "empty": "",
    });
    for (path, wanted, expected) in [
        (&["text"][..], &["a b"][..], Met),
        (&["text"], &["a"], NotMet),
        (&["list"], &["b"], Met),
        (&["list"], &["a b", "[\"a\",\"b\"]"], NotMet),
        (&["mixed"], &["a"], Met),
        (&["mixed"], &["5"], Unknown),
        (&["mixed"], &["6"], NotMet),
        (&["number"], &["5"], Unknown),
        (&["number"], &["*"], Unknown),
        (&["number"], &["6"], NotMet),
        (&["yes"], &["true"], Unknown),
        (&["null"], &["null"], Unknown),
        (&["object"], &["*"], Unknown),
        (&["object", "in"], &["a"], Met),
        (&["object", "deep", "er"], &["b"], Met),
        (&["text", "in"], &["*"], NotMet),
        (&["a.b"], &["c"], Met),
        (&["scope"], &["write"], Met),
        (&["scope"], &["read  write"], NotMet),
        (&["roles"], &["y"], Met),
        (&["empty"], &["*"], NotMet),
        (&["none"], &["*"], NotMet),
    ] {
        let path: Vec<Arc<str>> = path.iter().map(|name| (*name).into()).collect();
        let tokens = [token(values.clone())];
        let positive = ClaimCondition { path: path.clone(), values: patterns(wanted), not_values: Vec::new() };
        assert_eq!(claim(&positive, &tokens), expected, "{path:?} {wanted:?}");
        let negative = ClaimCondition { values: Vec::new(), not_values: positive.values, path: path.clone() };
        assert_eq!(claim(&negative, &tokens), expected.not(), "{path:?} not {wanted:?}");
    }
}

#[test]
fn several_tokens_have_to_agree() {
    let [a, b] = ["a", "b"].map(|sub| token(json!({"iss": "i", "sub": sub, "x": sub})));
    let of = |pattern: &str, tokens: &[Arc<Token>]| principals(&[RequestPrincipal::parse(pattern)], &[], tokens);
    let both = [a.clone(), b];
    assert_eq!((of("i/a", &both), of("*", &both), of("i/c", &both)), (Unknown, Met, NotMet));
    assert_eq!(of("i/a", &[a.clone(), a]), Met);
    let condition = ClaimCondition { path: vec!["x".into()], values: patterns(&["b"]), not_values: Vec::new() };
    assert_eq!(claim(&condition, &both), Unknown);
}
