//! Tokens as those make them who may, and as those try it who may not. (What can be told without a key is in the model's tests.)

use aws_lc_rs::signature::KeyPair;
use http::header::{AUTHORIZATION, HeaderValue};
use mesh_model::address::NamespacedName;
use mesh_model::token::rule::TokenHeader;
use serde_json::{Value, json};

use super::issuer::{Issuer, encode, with_secret};
use super::*;

/// Far enough away.
const LATER: u64 = 4_000_000_000;

fn rule(keys: impl Into<Option<String>>) -> JwtRule {
    JwtRule {
        authentication: NamespacedName::new("shop", "tokens"),
        issuer: "me".into(),
        audiences: vec!["shop".into()],
        keys: keys.into().map(Arc::from).ok_or_else(|| "not fetched".into()),
        headers: vec![TokenHeader { name: "authorization".into(), prefix: "Bearer ".into() }],
        params: vec!["access_token".into()],
        cookies: Vec::new(),
        forward: false,
        payload_header: None,
        claim_headers: Vec::new(),
        space_delimited: Vec::new(),
    }
}

fn bearing(tokens: &[&str]) -> HeaderMap {
    let values = tokens.iter().map(|token| HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    values.map(|value| (AUTHORIZATION, value)).collect()
}

fn verify(rules: &[JwtRule], token: &str) -> Result<String, TokenFault> {
    one(&Keys::default(), rules, token)
}

/// Whom a request with a token is of.
fn one(keys: &Keys, rules: &[JwtRule], token: &str) -> Result<String, TokenFault> {
    keys.verify(rules, &bearing(&[token]), None).map(|valid| valid[0].verified.token.principal())
}

fn claims() -> Value {
    json!({"iss": "me", "sub": "you", "aud": ["shop"], "exp": LATER})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

#[test]
fn what_an_issuer_signs_is_valid() {
    let issuer = Issuer::new();
    let rules = [rule(issuer.jwks())];
    for header in [
        json!({"alg": "RS256", "kid": "rsa", "typ": "JWT"}),
        json!({"alg": "RS256"}),
        json!({"alg": "ES256", "kid": "ec"}),
        json!({"alg": "EdDSA", "kid": "ed"}),
    ] {
        assert_eq!(verify(&rules, &issuer.token(&header, &claims())), Ok("me/you".into()), "{header}");
    }
    // Nobody is refused who has no token, and nothing is proven.
    assert!(Keys::default().verify(&rules, &bearing(&[]), Some("a=b")).unwrap().is_empty());
    // A key that does not say what it is for is for each algorithm of its kind.
    let mut keys = issuer.keys();
    keys[0].as_object_mut().unwrap().retain(|name, _| !["alg", "use", "kid"].contains(&&**name));
    let rules = [rule(json!({"keys": keys}).to_string())];
    for alg in ["RS256", "PS256"] {
        let token = issuer.token(&json!({"alg": alg, "kid": "any"}), &claims());
        assert_eq!(verify(&rules, &token), Ok("me/you".into()), "{alg}");
    }
    // A shared secret, long enough.
    let secret = [7; 32];
    let rules = [rule(json!({"keys": [{"kty": "oct", "k": encode(secret)}]}).to_string())];
    assert!(verify(&rules, &with_secret(&secret, &json!({"alg": "HS256"}), &claims())).is_ok());
}

/// Each of these was a hole in some library, or would be one here.
#[test]
fn what_others_try_is_not() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let rules = [rule(issuer.jwks())];
    let rsa = json!({"alg": "RS256", "kid": "rsa"});
    let good = issuer.good(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let replaced = |place: usize, text: &str| {
        let mut parts = parts.clone();
        parts[place] = text;
        parts.join(".")
    };
    let hs256 = |kid: &str| json!({"alg": "HS256", "kid": kid});
    let public = issuer.rsa.public_key();
    let flipped = {
        let last = if parts[2].starts_with('A') { 'B' } else { 'A' };
        format!("{last}{}", &parts[2][1..])
    };
    for (what, token, fault) in [
        ("signed by somebody else", other.good(&claims()), TokenFault::Signature),
        ("another payload", replaced(1, &encode(with("sub", json!("admin")).to_string())), TokenFault::Signature),
        ("another header", replaced(0, &encode(json!({"alg": "RS256"}).to_string())), TokenFault::Signature),
        ("a flipped bit", replaced(2, &flipped), TokenFault::Signature),
        ("a cut signature", replaced(2, &parts[2][..parts[2].len() - 10]), TokenFault::Signature),
        ("no signature", replaced(2, ""), TokenFault::Encoding),
        ("alg none", format!("{}.{}.", encode(r#"{"alg":"none"}"#), parts[1]), TokenFault::Algorithm),
        ("alg none, signed", replaced(0, &encode(r#"{"alg":"none"}"#)), TokenFault::Algorithm),
        ("an algorithm that nobody has", replaced(0, &encode(r#"{"alg":"RS1"}"#)), TokenFault::Algorithm),
        ("the public key as a secret", with_secret(public.as_ref(), &hs256("rsa"), &claims()), TokenFault::NoKey),
        ("the JWKS as a secret", with_secret(issuer.jwks().as_bytes(), &hs256("ec"), &claims()), TokenFault::NoKey),
        ("nothing as a secret", with_secret(b"", &json!({"alg": "HS256"}), &claims()), TokenFault::NoKey),
        ("not the key's algorithm", issuer.token(&json!({"alg": "PS256", "kid": "rsa"}), &claims()), TokenFault::NoKey),
        (
            "the kid of a key of another kind",
            issuer.token(&json!({"alg": "RS256", "kid": "ec"}), &claims()),
            TokenFault::NoKey,
        ),
        (
            "a kid that is a path",
            other.token(&json!({"alg": "RS256", "kid": "../../dev/null"}), &claims()),
            TokenFault::NoKey,
        ),
        (
            "a kid that is SQL",
            other.token(&json!({"alg": "RS256", "kid": "' UNION SELECT 'x"}), &claims()),
            TokenFault::NoKey,
        ),
        ("an empty kid", other.token(&json!({"alg": "RS256", "kid": ""}), &claims()), TokenFault::NoKey),
        (
            "a key of its own in the header",
            other.token(&json!({"alg": "RS256", "kid": "rsa", "jwk": other.keys()[0]}), &claims()),
            TokenFault::Signature,
        ),
        (
            "an address of keys in the header",
            other.token(&json!({"alg": "RS256", "kid": "rsa", "jku": "http://127.0.0.1/keys"}), &claims()),
            TokenFault::Signature,
        ),
        (
            "crit",
            issuer.token(&json!({"alg": "RS256", "kid": "rsa", "crit": ["exp"]}), &claims()),
            TokenFault::Critical,
        ),
        ("of another issuer", issuer.token(&rsa, &with("iss", json!("you"))), TokenFault::Issuer),
        ("of an issuer that begins so", issuer.token(&rsa, &with("iss", json!("me/"))), TokenFault::Issuer),
        ("of no issuer", issuer.token(&rsa, &with("iss", json!(null))), TokenFault::Payload),
        ("for somebody else", issuer.token(&rsa, &with("aud", json!("bank"))), TokenFault::Audience),
        ("ended", issuer.token(&rsa, &with("exp", json!(1))), TokenFault::Expired),
        ("not begun", issuer.token(&rsa, &with("nbf", json!(LATER))), TokenFault::NotYet),
        ("an end that is a text", issuer.token(&rsa, &with("exp", json!(LATER.to_string()))), TokenFault::Payload),
    ] {
        assert_eq!(verify(&rules, &token), Err(fault), "{what}");
    }
    let twice = format!(r#"{{"iss":"me","sub":"you","aud":"shop","sub":"admin","exp":{LATER}}}"#);
    let signed = replaced(1, &encode(twice));
    assert_eq!(verify(&rules, &signed), Err(TokenFault::Payload), "a claim twice");
}

#[test]
fn keys_that_are_not_for_this_are_left_out() {
    let issuer = Issuer::new();
    let mut keys = issuer.keys();
    for (what, name, value) in [
        ("for encryption", "use", json!("enc")),
        ("for signing only", "key_ops", json!(["sign"])),
        ("of no kind", "kty", json!("XYZ")),
        ("for another algorithm", "alg", json!("RS512")),
        ("not even base64", "n", json!("%%")),
    ] {
        let mut only = keys[0].clone();
        only[name] = value;
        let rules = [rule(json!({"keys": [only, {"kty": "EC"}, 5]}).to_string())];
        assert_eq!(verify(&rules, &issuer.good(&claims())), Err(TokenFault::NoKey), "{what}");
    }
    let short = json!({"keys": [{"kty": "oct", "k": encode([7; 16])}]});
    let token = with_secret(&[7; 16], &json!({"alg": "HS256"}), &claims());
    assert_eq!(verify(&[rule(short.to_string())], &token), Err(TokenFault::NoKey), "a secret that can be guessed");
    assert_eq!(verify(&[rule("no JSON".to_owned())], &token), Err(TokenFault::NoKey));
    assert_eq!(verify(&[rule(None)], &token), Err(TokenFault::NoKeys), "keys that nobody has fetched yet");
    // Of two with one name the right one is found.
    let other = Issuer::new();
    keys.splice(0..0, other.keys());
    assert!(verify(&[rule(json!({"keys": keys}).to_string())], &issuer.good(&claims())).is_ok());
}

#[test]
fn several_tokens_are_all_valid_or_none_is() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    let theirs = JwtRule { issuer: "they".into(), audiences: Vec::new(), ..rule(other.jwks()) };
    let rules = [rule(issuer.jwks()), theirs];
    let (ours, theirs) = (issuer.good(&claims()), other.good(&json!({"iss": "they", "sub": "x"})));
    let keys = Keys::default();
    let both = keys.verify(&rules, &bearing(&[&ours]), Some(&format!("access_token={theirs}"))).unwrap();
    assert_eq!(both.iter().map(|one| one.rule).collect::<Vec<_>>(), [0, 1]);
    let forged = other.good(&claims());
    for headers in [bearing(&[&ours, &forged]), bearing(&[&forged, &ours])] {
        assert!(matches!(keys.verify(&rules, &headers, None), Err(TokenFault::Signature)));
    }
    // One issuer's key is no other's.
    let crossed = issuer.good(&json!({"iss": "they", "sub": "x"}));
    assert_eq!(one(&keys, &rules, &crossed), Err(TokenFault::Signature));
}

/// What was verified is remembered; that it may be used, is not.
#[test]
fn what_is_remembered_is_still_checked() {
    let issuer = Issuer::new();
    let (keys, jwks) = (Keys::default(), Arc::<str>::from(issuer.jwks()));
    let shop = JwtRule { keys: Ok(jwks.clone()), ..rule(None) };
    let bank = JwtRule { audiences: vec!["bank".into()], ..shop.clone() };
    let token = issuer.good(&claims());
    for _ in 0..2 {
        assert!(one(&keys, std::slice::from_ref(&shop), &token).is_ok());
        assert_eq!(one(&keys, std::slice::from_ref(&bank), &token), Err(TokenFault::Audience));
    }
    // What one rule does not take another one does, remembered or not.
    for _ in 0..2 {
        assert!(one(&keys, &[bank.clone(), shop.clone()], &token).is_ok());
    }
    let set = keys.of(&shop).unwrap();
    assert!(set.known(&recent::digest(&token)).is_some(), "it is remembered");
    // An issuer that shares its keys with another one is none the less another.
    let theirs = JwtRule { issuer: "they".into(), ..shop.clone() };
    assert_eq!(one(&keys, &[theirs], &token), Err(TokenFault::Issuer));
    // With new keys nothing of the old ones is left.
    let rotated = JwtRule { keys: Ok(Issuer::new().jwks().into()), ..shop };
    assert_eq!(one(&keys, &[rotated], &token), Err(TokenFault::Signature));
    keys.follow(&Tables::default());
    assert!(keys.0.borrow().is_empty(), "keys that nobody tells of are let go");
}
