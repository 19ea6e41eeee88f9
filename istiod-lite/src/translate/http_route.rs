//! HTTPRoute → Rules.

use std::time::Duration;

use mesh_model::route::{PathMatch, RequestMatch, Retry, Rule};

use super::world::World;
use super::{backends, http_filter};
use crate::resources::gateway_api::http_route::{self as written, HttpMatch, HttpRoute, HttpRule, PathMatchType};
use crate::resources::gateway_api::parse_duration;

/// The rules of a route, as `blank` but for what they say themselves.
pub(super) fn rules(route: &HttpRoute, blank: &Rule, world: &World<'_>) -> Vec<Rule> {
    // The API's default: one rule, which matches everything.
    let default = [HttpRule::default()];
    let written = route.spec.rules.as_deref().unwrap_or(&default);
    let namespace = &*blank.route.namespace;
    let one = |(i, rule): (usize, &HttpRule)| Rule {
        name: rule.name.as_deref().map_or_else(|| format!("rules[{i}]").into(), Into::into),
        matches: matches(&rule.matches),
        filters: http_filter::of(&rule.filters, namespace, world),
        backends: backends::of_rule(&rule.backend_refs, namespace, world),
        request_timeout: rule.timeouts.as_ref().and_then(|limits| limit(limits.request.as_deref())),
        backend_timeout: rule.timeouts.as_ref().and_then(|limits| limit(limits.backend_request.as_deref())),
        retry: rule.retry.as_ref().map(retry),
        ..blank.clone()
    };
    written.iter().enumerate().map(one).collect()
}

fn matches(written: &[HttpMatch]) -> Vec<RequestMatch> {
    // The API's default: the prefix that every path has.
    let default = [HttpMatch::default()];
    let written = if written.is_empty() { &default } else { written };
    let one = |written: &HttpMatch| RequestMatch {
        path: Some(path(&written.path.clone().unwrap_or_default())),
        method: written.method.map(|method| method.as_str().into()),
        headers: backends::header_matches(&written.headers),
        query: written.query_params.iter().map(|one| backends::value_match(&one.name, one)).collect(),
        ..RequestMatch::default()
    };
    written.iter().map(one).collect()
}

fn path(written: &written::PathMatch) -> PathMatch {
    let value = written.value.as_deref().unwrap_or("/");
    match written.kind.unwrap_or_default() {
        PathMatchType::Exact => PathMatch::Exact(value.into()),
        PathMatchType::RegularExpression => PathMatch::Regex(value.into()),
        PathMatchType::PathPrefix => match value.strip_suffix('/') {
            Some("") | None => PathMatch::Prefix(value.into()),
            Some(prefix) => PathMatch::Prefix(prefix.into()),
        },
    }
}

/// 0 is no limit.
fn limit(text: Option<&str>) -> Option<Duration> {
    text.and_then(parse_duration).filter(|limit| !limit.is_zero())
}

fn retry(written: &written::Retry) -> Retry {
    Retry {
        codes: written.codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect(),
        attempts: written.attempts.and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or(1),
        backoff: written.backoff.as_deref().and_then(parse_duration),
        ..Retry::default()
    }
}
