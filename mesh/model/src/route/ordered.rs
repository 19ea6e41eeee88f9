//! Rules of VirtualServices: the first one that matches counts, as it is written.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use regex::bytes::Regex;

use super::condition::{Compiled, Verdict, header_values, parameter_value};
use super::table::Candidate;
use super::text_match::{Condition, TextMatch};
use super::{PathMatch, RequestMatch};
use crate::http::{Request, canonical_path};

/// Matches in their order.
#[derive(Debug, Default)]
pub(super) struct Ordered(Vec<Arc<Entry>>);

/// One match, compiled.
#[derive(Debug)]
pub(super) struct Entry {
    path: Uri,
    conditions: Vec<Asked>,
    candidate: Candidate,
}

#[derive(Debug)]
enum Uri {
    Any,
    Exact(Box<str>),
    Beginning(Box<str>),
    /// By whole elements, without a last slash.
    Elements(Box<str>),
    ExactAnyCase(Box<str>),
    BeginningAnyCase(Box<str>),
    /// None: it does not compile.
    Regex(Option<Arc<Regex>>),
}

#[derive(Debug)]
enum Asked {
    Always,
    /// The flag: it must not.
    Header(HeaderName, Text, bool),
    Query(Arc<str>, Text),
    Method(Text),
    Authority(Text),
    Scheme(Text),
    SourceNamespace(Arc<str>),
}

#[derive(Debug)]
enum Text {
    Present,
    Exact(Arc<str>),
    Prefix(Arc<str>),
    /// None: it does not compile.
    Regex(Option<Arc<Regex>>),
}

impl Entry {
    /// None where nothing can match it: a header that no request can have.
    pub(super) fn new(of: &RequestMatch, candidate: Candidate, compiled: &mut Compiled) -> Option<Arc<Self>> {
        let conditions = of.conditions.iter().map(|one| Asked::new(one, compiled)).collect::<Option<_>>()?;
        Some(Arc::new(Self { path: Uri::new(of.path.as_ref(), compiled), conditions, candidate }))
    }

    fn matches(&self, request: &Request, headers: &HeaderMap, caller: &str) -> Verdict {
        let rest = || self.candidate.condition.matches(request, headers);
        let asked = || {
            self.conditions
                .iter()
                .fold(Verdict::Yes, |so_far, one| so_far.and(|| one.matches(request, headers, caller)))
        };
        self.path.matches(request.path()).and(rest).and(asked)
    }
}

impl Ordered {
    pub(super) fn add(&mut self, entry: Arc<Entry>) {
        self.0.push(entry);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first that matches, or might. `tried` counts what was looked at.
    pub(super) fn find(
        &self,
        request: &Request,
        headers: &HeaderMap,
        caller: &str,
        tried: &mut usize,
    ) -> Option<(&Candidate, Verdict)> {
        self.0.iter().find_map(|entry| {
            *tried += 1;
            let verdict = entry.matches(request, headers, caller);
            (verdict != Verdict::No).then_some((&entry.candidate, verdict))
        })
    }
}

impl Uri {
    /// In canonical form, as the paths of requests are.
    fn new(path: Option<&PathMatch>, compiled: &mut Compiled) -> Self {
        let canonical = |path: &str| canonical_path(path).unwrap_or_else(|| path.into());
        match path {
            None => Self::Any,
            Some(PathMatch::Exact(path)) => Self::Exact(canonical(path)),
            Some(PathMatch::Beginning(text)) => Self::Beginning((&**text).into()),
            Some(PathMatch::Prefix(prefix)) => Self::Elements(canonical(prefix).trim_end_matches('/').into()),
            Some(PathMatch::ExactAnyCase(path)) => Self::ExactAnyCase(canonical(path)),
            Some(PathMatch::BeginningAnyCase(text)) => Self::BeginningAnyCase((&**text).into()),
            Some(PathMatch::Regex(text)) => Self::Regex(compiled.get(text)),
        }
    }

    fn matches(&self, path: &str) -> Verdict {
        Verdict::of(match self {
            Self::Any => true,
            Self::Exact(wanted) => path == &**wanted,
            Self::Beginning(wanted) => path.starts_with(&**wanted),
            Self::Elements(wanted) => {
                path.strip_prefix(&**wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::ExactAnyCase(wanted) => path.eq_ignore_ascii_case(wanted),
            Self::BeginningAnyCase(wanted) => {
                path.get(..wanted.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(wanted))
            }
            Self::Regex(Some(regex)) => regex.is_match(path.as_bytes()),
            Self::Regex(None) => return Verdict::Perhaps,
        })
    }
}

impl Asked {
    /// None: no request meets it.
    fn new(of: &Condition, compiled: &mut Compiled) -> Option<Self> {
        let mut text = |text: &TextMatch| Text::new(text, compiled);
        Some(match of {
            Condition::Header(name, value) => match &**name {
                "host" | ":authority" => Self::Authority(text(value)),
                ":method" => Self::Method(text(value)),
                ":scheme" => Self::Scheme(text(value)),
                name => Self::Header(HeaderName::from_bytes(name.as_bytes()).ok()?, text(value), false),
            },
            Condition::WithoutHeader(name, value) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Self::Header(name, text(value), true),
                // No request has it.
                Err(_) => Self::Always,
            },
            Condition::Query(name, value) => Self::Query(name.clone(), text(value)),
            Condition::Method(value) => Self::Method(text(value)),
            Condition::Authority(value) => Self::Authority(text(value)),
            Condition::Scheme(value) => Self::Scheme(text(value)),
            Condition::SourceNamespace(namespace) => Self::SourceNamespace(namespace.clone()),
        })
    }

    fn matches(&self, request: &Request, headers: &HeaderMap, caller: &str) -> Verdict {
        match self {
            Self::Always => Verdict::Yes,
            Self::Header(name, wanted, without) => {
                let verdict = header_values(name, headers).map_or(Verdict::No, |value| wanted.matches(&value));
                match (without, verdict) {
                    (true, Verdict::Yes) => Verdict::No,
                    (true, Verdict::No) => Verdict::Yes,
                    (_, verdict) => verdict,
                }
            }
            Self::Query(name, wanted) => {
                parameter_value(name, request.query()).map_or(Verdict::No, |value| wanted.matches(&value))
            }
            Self::Method(wanted) => wanted.matches(request.method.as_str().as_bytes()),
            Self::Authority(wanted) => wanted.matches(request.authority().as_bytes()),
            Self::Scheme(wanted) => wanted.matches(request.scheme.as_str().as_bytes()),
            Self::SourceNamespace(wanted) => Verdict::of(**wanted == *caller),
        }
    }
}

impl Text {
    fn new(of: &TextMatch, compiled: &mut Compiled) -> Self {
        match of {
            TextMatch::Present => Self::Present,
            TextMatch::Exact(text) => Self::Exact(text.clone()),
            TextMatch::Prefix(text) => Self::Prefix(text.clone()),
            TextMatch::Regex(text) => Self::Regex(compiled.get(text)),
        }
    }

    fn matches(&self, value: &[u8]) -> Verdict {
        Verdict::of(match self {
            Self::Present => true,
            Self::Exact(wanted) => wanted.as_bytes() == value,
            Self::Prefix(wanted) => value.starts_with(wanted.as_bytes()),
            Self::Regex(Some(regex)) => regex.is_match(value),
            Self::Regex(None) => return Verdict::Perhaps,
        })
    }
}

#[cfg(test)]
mod tests;
