//! What was fetched → keys that are published. Pure.

use serde_json::Value;

use crate::resources::request_authentication;

/// Of a key, what says the same in a certificate: nobody reads it here, and it is the larger part of it.
const CERTIFICATES: [&str; 4] = ["x5c", "x5t", "x5t#S256", "x5u"];

/// A JWKS (RFC 7517), always the same text for the same keys: some issuers say them in another order each time, and what differs is
/// published anew.
///
/// # Errors
/// Says what is wrong with it. Nothing of the text itself is in that: it may be what others must not see.
pub(super) fn canonical(text: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(text).map_err(|_| "it is no JSON".to_owned())?;
    request_authentication::key_set(text)?;
    let mut set: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let mut keys = set.get_mut("keys").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    for key in keys.iter_mut().filter_map(Value::as_object_mut) {
        key.retain(|name, _| !CERTIFICATES.contains(&&**name));
    }
    keys.sort_by_cached_key(Value::to_string);
    Ok(serde_json::json!({ "keys": keys }).to_string())
}

/// `jwks_uri` of an issuer's OpenID configuration (OpenID Connect Discovery 1.0, 3 and 4.3), which must be of that issuer.
///
/// # Errors
/// Says what is wrong with it.
pub(super) fn discovered(text: &[u8], issuer: &str) -> Result<String, String> {
    let config: Value = serde_json::from_slice(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let said = |name: &str| config.get(name).and_then(Value::as_str);
    if said("issuer") != Some(issuer) {
        return Err("it is not of this issuer (OpenID Connect Discovery 4.3)".to_owned());
    }
    let uri = said("jwks_uri").ok_or("it has no jwks_uri")?;
    if issuer.starts_with("https:") && !uri.starts_with("https:") {
        return Err("its jwks_uri is no https address".to_owned());
    }
    Ok(uri.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_keys_are_the_same_text() {
        let one = br#"{"keys": [{"kty": "EC", "kid": "a", "x5c": ["MII"]}, {"kid": "b", "kty": "RSA"}], "more": 1}"#;
        let other = br#"{"keys":[{"kty":"RSA","kid":"b"},{"kid":"a","kty":"EC","x5t":"x"}]}"#;
        assert_eq!(canonical(one).unwrap(), r#"{"keys":[{"kid":"a","kty":"EC"},{"kid":"b","kty":"RSA"}]}"#);
        assert_eq!(canonical(one), canonical(other));
        for bad in [&b"<html>secret"[..], b"{}", b"{\"keys\": [{}]}", b"\xff", b"[]"] {
            let why = canonical(bad).unwrap_err();
            assert!(!why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn an_issuer_says_where_its_own_keys_are() {
        let of = |issuer: &str, uri: &str| format!(r#"{{"issuer": "{issuer}", "jwks_uri": "{uri}"}}"#);
        for (text, expected) in [
            (of("https://a.example", "https://keys.example/k"), Some("https://keys.example/k")),
            (of("https://b.example", "https://keys.example/k"), None),
            (of("https://a.example/", "https://keys.example/k"), None),
            (of("https://a.example", "http://keys.example/k"), None),
            (r#"{"issuer": "https://a.example"}"#.to_owned(), None),
            ("nothing".to_owned(), None),
        ] {
            let found = discovered(text.as_bytes(), "https://a.example");
            assert_eq!(found.as_deref().ok(), expected, "{text}: {found:?}");
        }
        assert!(discovered(of("http://a", "http://a/k").as_bytes(), "http://a").is_ok());
    }
}
