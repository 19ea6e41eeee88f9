//! Matches by path, so that the time to find one does not grow with how many there are: whole paths by hash, beginnings by hash for
//! each length that there is, and only those that no path tells apart one by one.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use regex::bytes::Regex;

use super::PathMatch;
use super::condition::{Condition, Verdict};
use crate::http::Request;

/// One match of one rule.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The place of its rule among all.
    pub(super) rule: usize,
    /// Its place in the rule.
    pub(super) matched: usize,
    /// The rest of it.
    pub(super) condition: Arc<Condition>,
}

impl Candidate {
    fn order(&self) -> impl Ord + use<> {
        (Reverse(self.condition.rank()), self.rule, self.matched)
    }
}

/// The path of a match, compiled.
#[derive(Clone, Debug)]
pub(super) enum Path {
    Any,
    Exact(Box<str>),
    /// Without a last slash.
    Prefix(Box<str>),
    Beginning(Box<str>),
    /// With the length of what was written; None where it does not compile.
    Regex(Option<Arc<Regex>>, usize),
}

impl Path {
    /// In canonical form, as the paths of requests are.
    pub(super) fn new(path: Option<&PathMatch>, compile: impl FnOnce(&Arc<str>) -> Option<Arc<Regex>>) -> Self {
        let canonical = |path: &str| crate::http::canonical_path(path).unwrap_or_else(|| path.into());
        match path {
            None => Self::Any,
            // Cases are told apart here: only rules of VirtualServices, which come to no table, ask otherwise.
            Some(PathMatch::Exact(path) | PathMatch::ExactAnyCase(path)) => Self::Exact(canonical(path)),
            Some(PathMatch::Prefix(prefix)) => match canonical(prefix).trim_end_matches('/') {
                "" => Self::Any,
                prefix => Self::Prefix(prefix.into()),
            },
            Some(PathMatch::Beginning(text) | PathMatch::BeginningAnyCase(text)) => Self::Beginning((&**text).into()),
            Some(PathMatch::Regex(text)) => Self::Regex(compile(text), text.len()),
        }
    }
}

/// Matches that may meet one request.
#[derive(Debug, Default)]
pub(super) struct Table {
    exact: HashMap<Box<str>, Vec<Candidate>>,
    /// The flag: by whole elements.
    beginnings: HashMap<Box<str>, Vec<(bool, Candidate)>>,
    /// Of the beginnings, the longest first, each once.
    lengths: Vec<usize>,
    /// The longest first.
    regexes: Vec<(usize, Option<Arc<Regex>>, Candidate)>,
    any: Vec<Candidate>,
}

impl Table {
    pub(super) fn add(&mut self, path: &Path, candidate: Candidate) {
        match path {
            Path::Any => self.any.push(candidate),
            Path::Exact(path) => self.exact.entry(path.clone()).or_default().push(candidate),
            Path::Prefix(prefix) => self.beginnings.entry(prefix.clone()).or_default().push((true, candidate)),
            Path::Beginning(text) => self.beginnings.entry(text.clone()).or_default().push((false, candidate)),
            Path::Regex(regex, length) => self.regexes.push((*length, regex.clone(), candidate)),
        }
    }

    /// Brings what was added in the order in which it is asked.
    pub(super) fn finish(&mut self) {
        self.exact.values_mut().for_each(|list| list.sort_by_key(Candidate::order));
        self.beginnings.values_mut().for_each(|list| list.sort_by_key(|(_, candidate)| candidate.order()));
        self.regexes.sort_by_key(|(length, _, candidate)| (Reverse(*length), candidate.order()));
        self.any.sort_by_key(Candidate::order);
        self.lengths = self.beginnings.keys().map(|key| key.len()).collect();
        self.lengths.sort_unstable_by_key(|length| Reverse(*length));
        self.lengths.dedup();
    }

    /// The first that matches: whole path, longest beginning, expression, any. The flag: it only might. `tried` counts what was
    /// looked at.
    pub(super) fn find(
        &self,
        request: &Request,
        headers: &HeaderMap,
        tried: &mut usize,
    ) -> Option<(&Candidate, Verdict)> {
        let path = request.path();
        let mut ask = |candidate, path: Verdict| -> Option<(&Candidate, Verdict)> {
            let candidate: &Candidate = candidate;
            *tried += 1;
            let verdict = path.and(|| candidate.condition.matches(request, headers));
            (verdict != Verdict::No).then_some((candidate, verdict))
        };
        let exact = self.exact.get(path).into_iter().flatten();
        if let Some(found) = exact.clone().find_map(|candidate| ask(candidate, Verdict::Yes)) {
            return Some(found);
        }
        for length in self.lengths.iter().skip_while(|length| **length > path.len()) {
            // A canonical path is ASCII.
            let Some((beginning, rest)) = path.split_at_checked(*length) else { continue };
            let whole = rest.is_empty() || rest.starts_with('/');
            let listed = self.beginnings.get(beginning).into_iter().flatten();
            let found = listed.filter(|(by_elements, _)| whole || !by_elements);
            if let Some(found) = found.map(|(_, candidate)| candidate).find_map(|c| ask(c, Verdict::Yes)) {
                return Some(found);
            }
        }
        for (_, regex, candidate) in &self.regexes {
            let path = match regex {
                Some(regex) if regex.is_match(path.as_bytes()) => Verdict::Yes,
                Some(_) => Verdict::No,
                None => Verdict::Perhaps,
            };
            if let Some(found) = ask(candidate, path) {
                return Some(found);
            }
        }
        self.any.iter().find_map(|candidate| ask(candidate, Verdict::Yes))
    }
}
