//! Where in a request tokens are: headers, parameters of the query, cookies.

use std::borrow::Cow;
use std::sync::Arc;

use http::HeaderMap;
use http::header::{COOKIE, HeaderName};
use percent_encoding::percent_decode_str;

use super::fault::TokenFault;
use super::rule::{JwtRule, TokenHeader};

/// Most tokens of a request that are looked at: each may cost a signature.
pub const MAX_TOKENS: usize = 8;

/// A place that may hold a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A header, with what stands before the token.
    Header(TokenHeader),
    /// A parameter of the query.
    Param(Arc<str>),
    /// A cookie.
    Cookie(Arc<str>),
}

/// A token, and where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The token.
    pub text: String,
    /// Where it was.
    pub place: Place,
}

impl Place {
    /// Whether a rule reads tokens there.
    pub fn is_of(&self, rule: &JwtRule) -> bool {
        match self {
            Self::Header(header) => rule.headers.contains(header),
            Self::Param(name) => rule.params.contains(name),
            Self::Cookie(name) => rule.cookies.contains(name),
        }
    }
}

/// The tokens of a request, in the order of the rules and of each rule's places; each place is looked at once.
///
/// # Errors
/// When there are too many.
pub fn find(rules: &[JwtRule], headers: &HeaderMap, query: Option<&str>) -> Result<Vec<Found>, TokenFault> {
    let mut places: Vec<Place> = Vec::new();
    for rule in rules {
        let all = rule.headers.iter().cloned().map(Place::Header);
        let all = all.chain(rule.params.iter().cloned().map(Place::Param));
        for place in all.chain(rule.cookies.iter().cloned().map(Place::Cookie)) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    let mut found = Vec::new();
    for place in places {
        let tokens = match &place {
            Place::Header(header) => of_header(header, headers),
            Place::Param(name) => of_query(name, query),
            Place::Cookie(name) => of_cookies(name, headers),
        };
        found.extend(tokens.into_iter().map(|text| Found { text, place: place.clone() }));
        if found.len() > MAX_TOKENS {
            return Err(TokenFault::Many);
        }
    }
    Ok(found)
}

/// Each line of a header may hold one. What is no text holds none that could be valid, and is refused as one.
fn of_header(header: &TokenHeader, headers: &HeaderMap) -> Vec<String> {
    let Ok(name) = HeaderName::from_bytes(header.name.as_bytes()) else { return Vec::new() };
    let lines = headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
    lines.filter_map(|line| after(&line, &header.prefix).map(|token| token.trim().to_owned())).collect()
}

/// What comes after a prefix, whatever its case: `bearer` is `Bearer` (RFC 9110 11.1).
fn after<'a>(line: &'a str, prefix: &str) -> Option<&'a str> {
    let line = line.trim_start();
    let begins = line.get(..prefix.len())?;
    begins.eq_ignore_ascii_case(prefix).then(|| line.get(prefix.len()..)).flatten()
}

fn of_query(name: &str, query: Option<&str>) -> Vec<String> {
    let params = query.unwrap_or_default().split('&').filter(|param| param_name(param) == name);
    let values = params.filter_map(|param| param.split_once('=')).map(|(_, value)| decoded(value).into_owned());
    values.filter(|value| !value.is_empty()).collect()
}

fn of_cookies(name: &str, headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(COOKIE).iter().map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
    let mut found = Vec::new();
    for line in lines {
        let values = line.split(';').filter_map(|one| one.split_once('=')).filter(|(own, _)| own.trim() == name);
        found.extend(values.map(|(_, value)| value.trim().trim_matches('"').to_owned()).filter(|v| !v.is_empty()));
    }
    found
}

/// A parameter's name as servers read it.
pub(super) fn param_name(param: &str) -> Cow<'_, str> {
    decoded(param.split_once('=').map_or(param, |(name, _)| name))
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}
