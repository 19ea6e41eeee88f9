//! Conditions on a request against the request.
//!
//! Where a request could be read in two ways, and the condition holds for one of them only, the outcome is *unknown*, which is
//! decided against the caller: a header with several values (CVE-2026-26308), a path with parameters (CVE-2026-73553).

use std::borrow::Cow;

use http::header::{COOKIE, HOST, HeaderName};

use super::claims;
use super::facts::HttpFacts;
use super::http::{HeaderCondition, HttpMatch, PathPattern};
use super::outcome::{Outcome, all, any};
use super::strings::StringMatch;
use crate::http::{Request, canonical_path};

/// All that is set. With nothing set nobody knows what was meant.
pub(super) fn meets(m: &HttpMatch, http: HttpFacts<'_>) -> Outcome {
    if *m == HttpMatch::default() {
        return Outcome::Unknown;
    }
    let request = http.request;
    let one_of = |wanted: &[StringMatch], holds: &dyn Fn(&StringMatch) -> bool| {
        Outcome::from_bool(wanted.is_empty() || wanted.iter().any(holds))
    };
    let none_of = |unwanted: &[StringMatch], holds: &dyn Fn(&StringMatch) -> bool| {
        Outcome::from_bool(!unwanted.iter().any(holds))
    };
    let host = |pattern: &StringMatch| host(pattern, request);
    let method = |pattern: &StringMatch| pattern.matches(request.method.as_str());
    let settled = one_of(&m.hosts, &host)
        .and(none_of(&m.not_hosts, &host))
        .and(one_of(&m.methods, &method))
        .and(none_of(&m.not_methods, &method));
    if settled == Outcome::NotMet {
        return settled;
    }
    let paths = if m.paths.is_empty() { Outcome::Met } else { any_path(&m.paths, request.path()) };
    let not_paths = any_path(&m.not_paths, request.path()).not();
    let headers = all(m.headers.iter().map(|condition| header(condition, http)));
    let principals = claims::principals(&m.request_principals, &m.not_request_principals, http.tokens);
    let claims = all(m.claims.iter().map(|condition| claims::claim(condition, http.tokens)));
    settled.and(paths).and(not_paths).and(headers).and(principals).and(claims)
}

/// Of all readings of one thing: what holds for all, for none, or for some and is therefore unknown.
fn of_readings(holds: impl IntoIterator<Item = bool>) -> Outcome {
    let one = |so_far: Option<Outcome>, holds| match (so_far, Outcome::from_bool(holds)) {
        (None, now) => Some(now),
        (Some(before), now) if before == now => Some(now),
        _ => Some(Outcome::Unknown),
    };
    holds.into_iter().fold(None, one).unwrap_or(Outcome::NotMet)
}

/// Hosts are case-insensitive. A pattern with a port means that port, which need not be said where it is the scheme's.
fn host(pattern: &StringMatch, request: &Request) -> bool {
    let text = match pattern {
        StringMatch::Presence => return !request.host.is_empty(),
        StringMatch::Exact(text) | StringMatch::Prefix(text) | StringMatch::Suffix(text) => text,
    };
    let has_port = text.rsplit(']').next().is_some_and(|after| after.contains(':'));
    let value = match has_port {
        false => Cow::Borrowed(&*request.host),
        true => Cow::Owned(format!("{}:{}", request.host, request.port.unwrap_or(request.scheme.port()))),
    };
    let (text, value) = (text.as_bytes(), value.as_bytes());
    let absolute = || text.strip_suffix(b".").unwrap_or(text);
    match pattern {
        StringMatch::Prefix(_) => value.get(..text.len()).is_some_and(|begins| begins.eq_ignore_ascii_case(text)),
        StringMatch::Suffix(_) => {
            let end = value.len().checked_sub(absolute().len()).and_then(|start| value.get(start..));
            end.is_some_and(|end| end.eq_ignore_ascii_case(absolute()))
        }
        StringMatch::Exact(_) | StringMatch::Presence => value.eq_ignore_ascii_case(absolute()),
    }
}

/// Servers differ in whether `/a;b/c` is `/a/c`.
fn any_path(patterns: &[PathPattern], path: &str) -> Outcome {
    let holds = |path: &str| any(patterns.iter().map(|p| one_path(p, path)));
    let as_it_is = holds(path);
    if !path.contains(';') && !path.contains("%3B") {
        return as_it_is;
    }
    let plain = |segment| -> &str {
        let end = [";", "%3B"].into_iter().filter_map(|mark| str::find(segment, mark)).min();
        end.and_then(|end| segment.get(..end)).unwrap_or(segment)
    };
    let without = path.split('/').map(plain).collect::<Vec<_>>().join("/");
    match holds(&without) == as_it_is {
        true => as_it_is,
        false => Outcome::Unknown,
    }
}

/// Unknown for a template that is none.
fn one_path(pattern: &PathPattern, path: &str) -> Outcome {
    match pattern {
        PathPattern::Text(pattern) => Outcome::from_bool(match pattern {
            StringMatch::Presence => !path.is_empty(),
            StringMatch::Exact(text) => *canonical(text) == *path,
            StringMatch::Prefix(text) => path.starts_with(&*canonical(text)),
            StringMatch::Suffix(text) => path.ends_with(&*canonical(text)),
        }),
        PathPattern::Template(template) => template_matches(template, path),
    }
}

/// Escapes of a pattern, as those of paths are.
fn canonical(pattern: &str) -> Cow<'_, str> {
    if !pattern.contains('%') {
        return Cow::Borrowed(pattern);
    }
    let whole = canonical_path(&format!("/{pattern}"));
    let without = whole.as_deref().and_then(|path| path.strip_prefix('/'));
    without.map_or(Cow::Borrowed(pattern), |path| Cow::Owned(path.to_owned()))
}

/// `{*}` is one segment, `{**}` any number of them; both stand alone between slashes, and there is one `{**}` at most.
fn template_matches(template: &str, path: &str) -> Outcome {
    let (Some(wanted), Some(found)) = (template.strip_prefix('/'), path.strip_prefix('/')) else {
        return if template.starts_with('/') { Outcome::NotMet } else { Outcome::Unknown };
    };
    let wanted: Vec<&str> = wanted.split('/').collect();
    let found: Vec<&str> = found.split('/').collect();
    let operator = |segment: &&str| matches!(*segment, "{*}" | "{**}");
    let several = wanted.iter().filter(|segment| **segment == "{**}").count() > 1;
    if several || wanted.iter().any(|segment| !operator(segment) && segment.contains(['{', '}'])) {
        return Outcome::Unknown;
    }
    let one = |(wanted, found): (&&str, &&str)| match *wanted {
        "{*}" => !found.is_empty(),
        literal => *canonical(literal) == **found,
    };
    let all = |wanted: &[&str], found: &[&str]| wanted.len() == found.len() && wanted.iter().zip(found).all(one);
    let mut around = wanted.splitn(2, |segment| *segment == "{**}");
    let before = around.next().unwrap_or_default();
    Outcome::from_bool(match around.next() {
        None => all(before, &found),
        // What stands for it is something between slashes, if only nothing.
        Some(after) => found.len().checked_sub(after.len()).is_some_and(|end| {
            let (begins, ends) = (found.get(..before.len()), found.get(end..));
            end > before.len() && all(before, begins.unwrap_or_default()) && all(after, ends.unwrap_or_default())
        }),
    })
}

/// Each of a header's values and all of them together: servers take the first, the last or the list.
fn header(condition: &HeaderCondition, http: HttpFacts<'_>) -> Outcome {
    let any = |patterns: &[StringMatch], value: &[u8]| patterns.iter().any(|pattern| pattern.matches_bytes(value));
    let readings = readings(&condition.name, http);
    let outcome = |patterns: &[StringMatch]| of_readings(readings.iter().map(|value| any(patterns, value)));
    let wanted = if condition.values.is_empty() { Outcome::Met } else { outcome(&condition.values) };
    wanted.and(outcome(&condition.not_values).not())
}

/// What a header may be read as; nothing where it is missing.
fn readings<'a>(name: &str, http: HttpFacts<'a>) -> Vec<Cow<'a, [u8]>> {
    let of_request = |text: String| vec![Cow::Owned(text.into_bytes())];
    match name {
        ":authority" => return of_request(http.request.authority()),
        ":method" => return of_request(http.request.method.to_string()),
        ":path" => return of_request(http.request.target.to_string()),
        ":scheme" => return of_request(http.request.scheme.as_str().to_owned()),
        _ => {}
    }
    let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return Vec::new() };
    if name == HOST {
        return of_request(http.request.authority());
    }
    let values: Vec<&[u8]> = http.headers.get_all(&name).iter().map(|value| value.as_bytes()).collect();
    match values.as_slice() {
        [] => Vec::new(),
        [only] => vec![Cow::Borrowed(*only)],
        // HTTP/2 may cut it in pieces, and they are one (RFC 9113 8.2.3).
        several if name == COOKIE => vec![Cow::Owned(several.join(&b"; "[..]))],
        several => {
            several.iter().map(|value| Cow::Borrowed(*value)).chain([Cow::Owned(several.join(&b","[..]))]).collect()
        }
    }
}

#[cfg(test)]
mod tests;
