//! Rules on tokens ↔ `ambit.v1.JwtRule`.

use std::sync::Arc;

use http::header::HeaderName;
use mesh_proto::ambit as pb;

use super::parts::{or_empty, set};
use crate::address::NamespacedName;
use crate::shared::text;
use crate::token::JwtRule;
use crate::token::rule::{ClaimHeader, TokenHeader};

/// None when it has no issuer, or names a header or claim that is none.
pub(super) fn read(wire: &pb::JwtRule) -> Option<JwtRule> {
    // Kept in lower case by `HeaderName`, whatever the case on the wire.
    let header = |name: &str| HeaderName::from_bytes(name.as_bytes()).ok().map(|name| text(name.as_str()));
    let texts = |list: &[String]| list.iter().map(|one| text(one)).collect::<Vec<Arc<str>>>();
    if wire.issuer.is_empty() || wire.claim_headers.iter().any(|told| told.claim.is_empty()) {
        return None;
    }
    let token_header =
        |told: &pb::TokenHeader| Some(TokenHeader { name: header(&told.name)?, prefix: text(&told.prefix) });
    let claim_header =
        |told: &pb::ClaimHeader| Some(ClaimHeader { header: header(&told.header)?, claim: texts(&told.claim) });
    Some(JwtRule {
        authentication: NamespacedName::parse_shared(&wire.authentication)?,
        issuer: text(&wire.issuer),
        audiences: texts(&wire.audiences),
        keys: set(&wire.jwks).ok_or_else(|| text(&wire.jwks_missing)),
        headers: wire.headers.iter().map(token_header).collect::<Option<_>>()?,
        params: texts(&wire.params),
        cookies: texts(&wire.cookies),
        forward: wire.forward,
        payload_header: match &*wire.payload_header {
            "" => None,
            name => Some(header(name)?),
        },
        claim_headers: wire.claim_headers.iter().map(claim_header).collect::<Option<_>>()?,
        space_delimited: texts(&wire.space_delimited),
    })
}

pub(super) fn write(rule: &JwtRule) -> pb::JwtRule {
    let texts = |list: &[Arc<str>]| list.iter().map(ToString::to_string).collect();
    let token_header =
        |told: &TokenHeader| pb::TokenHeader { name: told.name.to_string(), prefix: told.prefix.to_string() };
    let claim_header =
        |told: &ClaimHeader| pb::ClaimHeader { header: told.header.to_string(), claim: texts(&told.claim) };
    pb::JwtRule {
        authentication: rule.authentication.to_string(),
        issuer: rule.issuer.to_string(),
        audiences: texts(&rule.audiences),
        jwks: or_empty(rule.keys.as_ref().ok()),
        jwks_missing: or_empty(rule.keys.as_ref().err()),
        headers: rule.headers.iter().map(token_header).collect(),
        params: texts(&rule.params),
        cookies: texts(&rule.cookies),
        forward: rule.forward,
        payload_header: or_empty(rule.payload_header.as_ref()),
        claim_headers: rule.claim_headers.iter().map(claim_header).collect(),
        space_delimited: texts(&rule.space_delimited),
    }
}
