//! Tokens of a request: verified, and handed on as the rules say.

use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode};
use mesh_model::http::Request;
use mesh_model::reason::ReasonCode;
use mesh_model::token::{JwtRule, Token, TokenFault, hand_on};

use super::answer::Refused;
use crate::tokens::{Keys, Valid};

/// The tokens of a request, all of them valid. Without any nobody is refused: policies ask for a principal, or do not.
///
/// # Errors
/// When one is not valid.
pub(super) fn verify(
    keys: &Keys,
    rules: &[JwtRule],
    form: &Request,
    headers: &HeaderMap,
) -> Result<Vec<Valid>, Refused> {
    keys.verify(rules, headers, form.query()).map_err(|fault| refused(fault, rules, form))
}

/// What policies compare of them.
pub(super) fn proven(valid: &[Valid]) -> Vec<Arc<Token>> {
    valid.iter().map(|one| one.verified.token.clone()).collect()
}

/// Takes tokens away that are not to be forwarded, and tells the application what the rules say. What callers say in the
/// place of it is taken away in any case.
pub(super) fn hand_on(rules: &[JwtRule], valid: &[Valid], target: &mut PathAndQuery, headers: &mut HeaderMap) {
    hand_on::clear(rules, headers);
    let with_rules = || valid.iter().filter_map(|one| Some((one, rules.get(one.rule)?)));
    for (one, _) in with_rules().filter(|(_, rule)| !rule.forward) {
        if let Some(without) = hand_on::remove(&one.place, headers, target) {
            *target = without;
        }
    }
    for (one, rule) in with_rules() {
        hand_on::tell(rule, &one.verified.payload, &one.verified.claims, headers);
    }
}

/// As Envoy answers: which fault, and where a token is wanted (RFC 6750 3).
fn refused(fault: TokenFault, rules: &[JwtRule], form: &Request) -> Refused {
    let place = format!("{}://{}{}", form.scheme.as_str(), form.authority(), form.path()).replace(['"', '\\'], "");
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer realm=\"{place}\", error=\"invalid_token\"")) {
        headers.insert(WWW_AUTHENTICATE, value);
    }
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    let status: StatusCode = fault.status();
    // Why is for the log: callers are told no more than Envoy tells them.
    let missing = rules.iter().filter(|_| fault == TokenFault::NoKeys);
    let missing = missing.filter_map(|rule| Some((&rule.authentication, rule.keys.as_ref().err()?)));
    let why: Vec<_> = missing.map(|(object, why)| format!(" (RequestAuthentication {object}: {why})")).collect();
    Refused::new(status, ReasonCode::TokenInvalid, format!("{fault}{}", why.concat())).with(headers, fault.to_string())
}
