//! Tokens made here, as an API server makes them.

use jsonwebtoken::{EncodingKey, Header, get_current_timestamp};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::*;

fn claims() -> Value {
    json!({
        "iss": "ambit", "aud": ["istio-ca"], "sub": "system:serviceaccount:istio-system:ztunnel",
        "exp": get_current_timestamp() + 600, "iat": get_current_timestamp(),
        "kubernetes.io": {
            "namespace": "istio-system", "serviceaccount": {"name": "ztunnel", "uid": "s"},
            "pod": {"name": "ztunnel-n1", "uid": "p"}, "node": {"name": "n1", "uid": "n"},
        },
    })
}

fn header(key: &KeyPair, claims: &Value) -> String {
    let encoding = EncodingKey::from_ec_der(&key.serialize_der());
    format!("Bearer {}", jsonwebtoken::encode(&Header::new(Algorithm::ES256), claims, &encoding).unwrap())
}

fn tokens(path: &Path, issuer: Option<&str>) -> Tokens {
    Tokens::new(path.to_owned(), vec!["istio-ca".to_owned()], issuer.map(str::to_owned)).unwrap()
}

#[test]
fn only_a_good_token_proves_somebody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.pem");
    let (key, stranger) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    fs::write(&path, key.public_key_pem()).unwrap();
    let tokens = tokens(&path, Some("ambit"));
    let caller = tokens.verify(Some(&header(&key, &claims()))).unwrap();
    assert_eq!(caller.account, NamespacedName::new("istio-system", "ztunnel"));
    assert_eq!(caller.account_uid, "s");
    assert_eq!(caller.pod, Some(("ztunnel-n1".to_owned(), "p".to_owned())));
    let left = caller.expires.duration_since(SystemTime::now()).unwrap();
    assert!((590..=600).contains(&left.as_secs()), "{left:?}");

    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        header(&key, &claims)
    };
    let without = |name: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        header(&key, &claims)
    };
    let none_algorithm = {
        // {"alg":"none"} and no signature.
        let good = header(&key, &claims());
        let body = good.split('.').nth(1).unwrap().to_owned();
        format!("Bearer eyJhbGciOiJub25lIn0.{body}.")
    };
    for (what, header) in [
        ("signed by a stranger", header(&stranger, &claims())),
        ("expired", with("exp", json!(get_current_timestamp() - 60))),
        ("not valid yet", with("nbf", json!(get_current_timestamp() + 600))),
        ("for another audience", with("aud", json!(["api"]))),
        ("of another issuer", with("iss", json!("somebody"))),
        ("of another subject", with("sub", json!("system:serviceaccount:shop:cart"))),
        ("without expiry", without("exp")),
        ("with an expiry beyond all time", with("exp", json!(u64::MAX))),
        ("without audience", without("aud")),
        ("without issuer", without("iss")),
        ("without subject", without("sub")),
        ("without Kubernetes claims", without("kubernetes.io")),
        ("unsigned", none_algorithm),
        ("no token", "Bearer ".to_owned()),
        ("another scheme", "Basic abc".to_owned()),
        ("endless", format!("Bearer {}", "a".repeat(1 << 20))),
    ] {
        assert!(tokens.verify(Some(&header)).is_err(), "{what}");
    }
    assert!(matches!(tokens.verify(None), Err(TokenError::Missing)));
}

#[test]
fn keys_rotate_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.pem");
    let (old, new) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    fs::write(&path, old.public_key_pem()).unwrap();
    let tokens = tokens(&path, None);
    assert!(tokens.verify(Some(&header(&new, &claims()))).is_err());
    let replace = |text: String| {
        fs::write(directory.path().join("next"), text).unwrap();
        fs::rename(directory.path().join("next"), &path).unwrap();
    };
    replace(old.public_key_pem() + &new.public_key_pem());
    for key in [&old, &new] {
        tokens.verify(Some(&header(key, &claims()))).unwrap();
    }
    replace("nonsense".to_owned());
    tokens.verify(Some(&header(&new, &claims()))).expect("the keys before stay");
}

#[test]
fn a_shared_secret_is_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    fs::write(&path, r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}]}"#).unwrap();
    assert!(Tokens::new(path, Vec::new(), None).is_err());
}
