//! What the application is told of a request's tokens: what the rules say, and nothing that a caller could have said in its place.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, header};
use serde_json::{Map, Value};

use super::claims::at;
use super::find::{Place, param_name};
use super::rule::JwtRule;

/// Takes away what callers may not say: the headers in which rules put what they have verified.
pub fn clear(rules: &[JwtRule], headers: &mut HeaderMap) {
    for rule in rules {
        let claims = rule.claim_headers.iter().map(|claim| &claim.header);
        for name in rule.payload_header.iter().chain(claims) {
            headers.remove(&**name);
        }
    }
}

/// Writes what a rule tells of a token: `payload` as it came, in base64url, and its claims.
pub fn tell(rule: &JwtRule, payload: &str, claims: &Map<String, Value>, headers: &mut HeaderMap) {
    let mut set = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    };
    if let Some(name) = &rule.payload_header {
        set(name, payload);
    }
    for told in &rule.claim_headers {
        // Lists and objects travel encoded, as from Envoy.
        match at(claims, &told.claim) {
            Some(Value::String(text)) => set(&told.header, text),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => set(&told.header, &value.to_string()),
            Some(value @ (Value::Array(_) | Value::Object(_))) => {
                set(&told.header, &URL_SAFE_NO_PAD.encode(value.to_string()));
            }
            Some(Value::Null) | None => {}
        }
    }
}

/// Takes a token away from where it was, so that the application does not get it. Gives the new target, if that is another.
pub fn remove(place: &Place, headers: &mut HeaderMap, target: &PathAndQuery) -> Option<PathAndQuery> {
    match place {
        Place::Header(header) => {
            headers.remove(&*header.name);
            None
        }
        Place::Cookie(name) => {
            let lines: Vec<_> = headers.get_all(COOKIE).iter().map(|line| without_cookie(line, name)).collect();
            headers.remove(COOKIE);
            for line in lines.into_iter().flatten() {
                headers.append(header::COOKIE, line);
            }
            None
        }
        Place::Param(name) => {
            let left: Vec<_> = target.query()?.split('&').filter(|param| param_name(param) != **name).collect();
            let query = if left.is_empty() { String::new() } else { format!("?{}", left.join("&")) };
            format!("{}{query}", target.path()).parse().ok()
        }
    }
}

/// A line of cookies without one of them; None if nothing is left.
fn without_cookie(line: &HeaderValue, name: &str) -> Option<HeaderValue> {
    let text = String::from_utf8_lossy(line.as_bytes());
    let is_it = |one: &&str| one.split_once('=').is_some_and(|(own, _)| own.trim() == name);
    if !text.split(';').any(|one| is_it(&one)) {
        return Some(line.clone());
    }
    let left: Vec<_> = text.split(';').filter(|one| !is_it(one)).map(str::trim).filter(|one| !one.is_empty()).collect();
    (!left.is_empty()).then(|| HeaderValue::from_str(&left.join("; ")).ok()).flatten()
}
