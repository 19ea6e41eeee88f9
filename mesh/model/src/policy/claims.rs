//! What a policy says of a request's token: `requestPrincipals`, and `request.auth.*` in `when`.
//!
//! A claim is a text, or a list of texts of which one counts. Where one is anything else, nobody knows what its author meant
//! by comparing it with a text: if that would hold, the outcome is *unknown*, which is decided against the caller. The same
//! where a request has several tokens and they do not agree.

use std::sync::Arc;

use serde_json::Value;

use super::outcome::Outcome;
use super::strings::StringMatch;
use crate::token::Token;

/// `requestPrincipals`: the issuer and the subject of a token, which must have both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestPrincipal {
    /// `iss`.
    pub issuer: StringMatch,
    /// `sub`.
    pub subject: StringMatch,
}

/// `request.auth.claims[a][b]`, and what stands for one: `request.auth.audiences`, `request.auth.presenter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimCondition {
    /// The names of the objects around it, and its own. Never empty.
    pub path: Vec<Arc<str>>,
    /// One of these holds for it.
    pub values: Vec<StringMatch>,
    /// None of these holds for it.
    pub not_values: Vec<StringMatch>,
}

impl RequestPrincipal {
    /// As Istio reads it: `ISSUER/SUBJECT` with a star at the beginning or the end. Issuers are often URLs: the last slash parts.
    pub fn parse(text: &str) -> Self {
        use StringMatch::{Exact, Prefix, Presence, Suffix};
        let star = |rest: &str, kind: fn(Arc<str>) -> StringMatch| match rest {
            "" => Presence,
            rest => kind(rest.into()),
        };
        let (issuer, subject) = match (text.rsplit_once('/'), text.strip_prefix('*'), text.strip_suffix('*')) {
            (_, Some(""), _) => (Presence, Presence),
            (Some((issuer, subject)), Some(_), _) => {
                (star(issuer.get(1..).unwrap_or_default(), Suffix), Exact(subject.into()))
            }
            (None, Some(end), _) => (Presence, star(end, Suffix)),
            (Some((issuer, subject)), None, Some(_)) => {
                (Exact(issuer.into()), star(subject.strip_suffix('*').unwrap_or(subject), Prefix))
            }
            (None, None, Some(begin)) => (star(begin, Prefix), Presence),
            (Some((issuer, subject)), None, None) => (Exact(issuer.into()), Exact(subject.into())),
            (None, None, None) => (Exact(text.into()), Exact("".into())),
        };
        Self { issuer, subject }
    }

    fn holds(&self, token: &Token) -> bool {
        let is = |pattern: &StringMatch, name| token.text(name).is_some_and(|text| pattern.matches(text));
        is(&self.issuer, "iss") && is(&self.subject, "sub")
    }
}

/// One of the principals, where there are any to be one of; and none of the others.
pub(super) fn principals(wanted: &[RequestPrincipal], not: &[RequestPrincipal], tokens: &[Arc<Token>]) -> Outcome {
    let one_of = |all: &[RequestPrincipal]| {
        of_tokens(tokens, |token| Outcome::from_bool(all.iter().any(|principal| principal.holds(token))))
    };
    let wanted = if wanted.is_empty() { Outcome::Met } else { one_of(wanted) };
    let not = if not.is_empty() { Outcome::Met } else { one_of(not).not() };
    wanted.and(not)
}

/// A condition on a claim.
pub(super) fn claim(condition: &ClaimCondition, tokens: &[Arc<Token>]) -> Outcome {
    let any = |patterns: &[StringMatch]| {
        of_tokens(tokens, |token| {
            token.claim(&condition.path).map_or(Outcome::NotMet, |value| one_claim(patterns, value))
        })
    };
    let wanted = if condition.values.is_empty() { Outcome::Met } else { any(&condition.values) };
    wanted.and(any(&condition.not_values).not())
}

/// Of all tokens: what holds for none or for all of them. Without any, nothing holds.
fn of_tokens(tokens: &[Arc<Token>], holds: impl Fn(&Token) -> Outcome) -> Outcome {
    let mut outcomes = tokens.iter().map(|token| holds(token));
    let first = outcomes.next().unwrap_or(Outcome::NotMet);
    if outcomes.all(|other| other == first) { first } else { Outcome::Unknown }
}

fn one_claim(patterns: &[StringMatch], value: &Value) -> Outcome {
    let any = |text: &str| patterns.iter().any(|pattern| pattern.matches(text));
    match value {
        Value::String(text) => Outcome::from_bool(any(text)),
        Value::Array(items) => items.iter().map(|item| one_claim(patterns, item)).fold(Outcome::NotMet, Outcome::or),
        other if any(&other.to_string()) => Outcome::Unknown,
        _ => Outcome::NotMet,
    }
}

#[cfg(test)]
mod tests;
