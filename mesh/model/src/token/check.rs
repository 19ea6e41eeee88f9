//! Whether a token may be used, now and by this rule. Pure; its signature is looked at elsewhere.

use serde_json::{Map, Value};

use super::fault::TokenFault;
use super::rule::JwtRule;

/// How far clocks may differ, in seconds: Envoy's default.
pub const LEEWAY: u64 = 60;

/// Whether claims may be used at `now`, in seconds since 1970. Gives when that ends, leeway included; `None`: never.
///
/// # Errors
/// When they may not, or have a claim of another type than its own.
pub fn check(claims: &Map<String, Value>, rule: &JwtRule, now: u64) -> Result<Option<u64>, TokenFault> {
    if !matches!(claims.get("sub"), None | Some(Value::String(_))) {
        return Err(TokenFault::Payload);
    }
    let (expires, begins) = (moment(claims, "exp")?, moment(claims, "nbf")?);
    if begins.is_some_and(|begins| begins > now.saturating_add(LEEWAY)) {
        return Err(TokenFault::NotYet);
    }
    let ends = expires.map(|expires| expires.saturating_add(LEEWAY));
    if ends.is_some_and(|ends| ends <= now) {
        return Err(TokenFault::Expired);
    }
    let audiences = match claims.get("aud") {
        None => Vec::new(),
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(all)) => all.iter().map(Value::as_str).collect::<Option<_>>().ok_or(TokenFault::Payload)?,
        Some(_) => return Err(TokenFault::Payload),
    };
    let taken = |wanted: &str| audiences.iter().any(|audience| plain(audience) == plain(wanted));
    if !rule.audiences.is_empty() && !rule.audiences.iter().any(|wanted| taken(wanted)) {
        return Err(TokenFault::Audience);
    }
    Ok(ends)
}

/// A NumericDate, which need not be whole.
fn moment(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, TokenFault> {
    match claims.get(name) {
        None => Ok(None),
        // Before 1970 is 1970: long ago.
        Some(Value::Number(number)) => {
            let seconds = number.as_u64().or_else(|| number.as_f64().map(|seconds| seconds as u64));
            seconds.map(Some).ok_or(TokenFault::Payload)
        }
        Some(_) => Err(TokenFault::Payload),
    }
}

/// Envoy's reading of an audience: a URL's scheme and last slash say nothing.
fn plain(audience: &str) -> &str {
    let bare = ["https://", "http://"].iter().find_map(|scheme| audience.strip_prefix(scheme)).unwrap_or(audience);
    bare.strip_suffix('/').unwrap_or(bare)
}
