//! What a match asks of a request besides its path: method, headers, query parameters.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};
use regex::bytes::Regex;

use super::{RequestMatch, ValueMatch, expression};
use crate::http::Request;

/// Whether something matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    No,
    Yes,
    /// It cannot be told, for something in it does not compile: it might.
    Perhaps,
}

impl Verdict {
    pub(super) fn and(self, other: impl FnOnce() -> Self) -> Self {
        match (self, if self == Self::No { Self::No } else { other() }) {
            (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Perhaps,
        }
    }

    pub(super) fn of(matches: bool) -> Self {
        if matches { Self::Yes } else { Self::No }
    }
}

/// Expressions that were compiled; many rules have the same.
#[derive(Default)]
pub(super) struct Compiled {
    known: HashMap<Arc<str>, Result<Arc<Regex>, String>>,
    failed: Option<String>,
}

impl Compiled {
    /// None for one that does not compile.
    pub(super) fn get(&mut self, text: &Arc<str>) -> Option<Arc<Regex>> {
        let compile = || expression::whole(text).map(Arc::new);
        match self.known.entry(text.clone()).or_insert_with(compile) {
            Ok(regex) => Some(regex.clone()),
            Err(why) => {
                self.failed = Some(why.clone());
                None
            }
        }
    }

    /// Why one did not, since this was asked last.
    pub(super) fn failed(&mut self) -> Option<String> {
        self.failed.take()
    }
}

/// A match without its path.
#[derive(Debug)]
pub(super) struct Condition {
    method: Option<Method>,
    headers: Vec<(Name, Value)>,
    query: Vec<(Arc<str>, Value)>,
}

#[derive(Debug)]
enum Name {
    /// What HTTP/2 calls `:authority`.
    Host,
    Header(HeaderName),
}

#[derive(Debug)]
enum Value {
    Exact(Arc<str>),
    Regex(Arc<Regex>),
    /// It does not compile.
    Broken,
}

impl Value {
    fn of(value: &ValueMatch, compiled: &mut Compiled) -> Self {
        match value.regex {
            false => Self::Exact(value.value.clone()),
            true => compiled.get(&value.value).map_or(Self::Broken, Self::Regex),
        }
    }

    fn matches(&self, value: &[u8]) -> Verdict {
        match self {
            Self::Exact(wanted) => Verdict::of(wanted.as_bytes() == value),
            Self::Regex(regex) => Verdict::of(regex.is_match(value)),
            Self::Broken => Verdict::Perhaps,
        }
    }
}

impl Condition {
    /// None where nothing can match it: a method or header that no request can have.
    pub(super) fn new(of: &RequestMatch, compiled: &mut Compiled) -> Option<Self> {
        let mut header = |header: &ValueMatch| {
            let name = match &*header.name {
                "host" | ":authority" => Name::Host,
                name => Name::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            };
            Some((name, Value::of(header, compiled)))
        };
        let headers = of.headers.iter().map(&mut header).collect::<Option<_>>()?;
        Some(Self {
            method: of.method.as_ref().map(|method| Method::from_bytes(method.as_bytes())).transpose().ok()?,
            headers,
            query: of.query.iter().map(|p| (p.name.clone(), Value::of(p, compiled))).collect(),
        })
    }

    /// The higher, the earlier it is asked (Gateway API): with a method, then by headers, then by query parameters.
    pub(super) fn rank(&self) -> (bool, usize, usize) {
        (self.method.is_some(), self.headers.len(), self.query.len())
    }

    pub(super) fn matches(&self, request: &Request, headers: &HeaderMap) -> Verdict {
        let method = Verdict::of(self.method.as_ref().is_none_or(|method| *method == request.method));
        let headers = || all(&self.headers, |(name, value)| header(name, value, request, headers));
        let query = || all(&self.query, |(name, value)| parameter(name, value, request.query()));
        method.and(headers).and(query)
    }
}

fn all<T>(list: &[T], verdict: impl Fn(&T) -> Verdict) -> Verdict {
    list.iter().fold(Verdict::Yes, |so_far, one| so_far.and(|| verdict(one)))
}

fn header(name: &Name, wanted: &Value, request: &Request, headers: &HeaderMap) -> Verdict {
    match name {
        Name::Host => wanted.matches(request.authority().as_bytes()),
        Name::Header(name) => header_values(name, headers).map_or(Verdict::No, |value| wanted.matches(&value)),
    }
}

/// The value of a header, if it is there: of several it is their list that counts (RFC 9110 5.3).
pub(super) fn header_values<'a>(name: &HeaderName, headers: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter().map(|value| value.as_bytes());
    match (values.next()?, values.next()) {
        (only, None) => Some(Cow::Borrowed(only)),
        (first, Some(second)) => {
            let all: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
            Some(Cow::Owned(all.join(&b',')))
        }
    }
}

fn parameter(name: &str, wanted: &Value, query: Option<&str>) -> Verdict {
    parameter_value(name, query).map_or(Verdict::No, |value| wanted.matches(&value))
}

/// The value of a parameter of the query, if it is there: the first of a name counts.
pub(super) fn parameter_value<'a>(name: &str, query: Option<&'a str>) -> Option<Cow<'a, [u8]>> {
    for pair in query.unwrap_or_default().split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if *decoded(key) == *name.as_bytes() {
            return Some(decoded(value));
        }
    }
    None
}

/// As forms are written: `+` is a space, and `%41` an `A`. What escapes nothing stays as it is.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        let digit = |at: usize| after.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(*byte),
        }
    }
    Cow::Owned(bytes)
}
