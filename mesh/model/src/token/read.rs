//! Text → what a token says of itself, before anybody has looked at its signature.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::fault::TokenFault;
use super::json;

/// Longest token that is read, in bytes: with its request's other headers it has to fit into a head.
pub const MAX_TOKEN: usize = 16 << 10;

/// A token that nobody has verified: only its issuer may be looked at, to find the keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Unverified<'a> {
    /// What is signed: header and payload as they came.
    pub signed: &'a str,
    /// The payload as it came, in base64url.
    pub payload: &'a str,
    /// The signature as it came, in base64url.
    pub signature: &'a str,
    /// The header's `alg`. Never `none`.
    pub algorithm: Box<str>,
    /// The header's `kid`.
    pub key_id: Option<Box<str>>,
    /// The payload.
    pub claims: Map<String, Value>,
    /// Its `iss`.
    pub issuer: Box<str>,
}

/// Reads a token.
///
/// # Errors
/// When it is none, or could be read in two ways.
pub fn read(text: &str) -> Result<Unverified<'_>, TokenFault> {
    if text.len() > MAX_TOKEN {
        return Err(TokenFault::Long);
    }
    let mut parts = text.split('.');
    let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenFault::Form);
    };
    let signed = text.get(..header.len() + 1 + payload.len()).ok_or(TokenFault::Form)?;
    let said = decode(header).and_then(|bytes| json::object(&bytes)).ok_or(TokenFault::Header)?;
    // Extensions that must be understood, or the payload is not what it seems (RFC 7515 4.1.11, RFC 7797).
    if said.contains_key("crit") {
        return Err(TokenFault::Critical);
    }
    let algorithm = said.get("alg").and_then(Value::as_str).ok_or(TokenFault::Algorithm)?;
    if algorithm.eq_ignore_ascii_case("none") {
        return Err(TokenFault::Algorithm);
    }
    let key_id = match said.get("kid") {
        None => None,
        Some(Value::String(id)) => Some(id.as_str().into()),
        Some(_) => return Err(TokenFault::Header),
    };
    let claims = decode(payload).and_then(|bytes| json::object(&bytes)).ok_or(TokenFault::Payload)?;
    if signature.is_empty() || decode(signature).is_none() {
        return Err(TokenFault::Encoding);
    }
    let issuer = match claims.get("iss") {
        None => "".into(),
        Some(Value::String(issuer)) => issuer.as_str().into(),
        Some(_) => return Err(TokenFault::Payload),
    };
    Ok(Unverified { signed, payload, signature, algorithm: algorithm.into(), key_id, claims, issuer })
}

/// Without padding, and in one way only (RFC 7515 2).
fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
