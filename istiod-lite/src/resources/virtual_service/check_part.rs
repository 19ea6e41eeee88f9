//! Checks of what rules have in common.

use std::collections::BTreeMap;

use mesh_model::route::check_regex;

use super::super::field::{FieldError, FieldPath};
use super::super::host;
use super::{Destination, HttpMatch, Percent, StringMatch};

/// Rules of one object, matches of one rule, destinations of one rule, and headers or parameters of one match. Waypoints try rules one
/// by one.
const MOST: usize = 512;
/// Bytes of one text that is compared.
const LONGEST: usize = 4096;

pub(super) type Checked = Result<(), FieldError>;

/// Refuses a field by name.
pub(super) fn refuse(is_written: bool, path: FieldPath, why: &str) -> Checked {
    if is_written { Err(path.error(why)) } else { Ok(()) }
}

pub(super) fn at_most(count: usize, path: &FieldPath) -> Checked {
    match count <= MOST {
        true => Ok(()),
        false => Err(path.error(format!("{count} are too many: write at most {MOST}"))),
    }
}

/// One of the matches of a rule.
pub(super) fn http_match(one: &HttpMatch, path: &FieldPath) -> Checked {
    let why = "a waypoint knows who calls by identity, and not by labels: match sourceNamespace or a header";
    refuse(!one.source_labels.is_empty(), path.field("sourceLabels"), why)?;
    if let Some(port) = one.port {
        host::port(port, &path.field("port"))?;
    }
    if let Some(namespace) = &one.source_namespace {
        host::dns_name(namespace, &path.field("sourceNamespace"))?;
    }
    for (field, text) in
        [("uri", &one.uri), ("scheme", &one.scheme), ("method", &one.method), ("authority", &one.authority)]
    {
        let Some(text) = text else { continue };
        let at = path.field(field);
        let why = "empty: write exact, prefix or regex, or leave it out";
        refuse(*text == StringMatch::default(), at.clone(), why)?;
        string_match(text, &at)?;
    }
    for (field, texts) in
        [("headers", &one.headers), ("withoutHeaders", &one.without_headers), ("queryParams", &one.query_params)]
    {
        named(texts, field, &path.field(field))?;
    }
    Ok(())
}

fn named(texts: &BTreeMap<String, StringMatch>, field: &str, path: &FieldPath) -> Checked {
    at_most(texts.len(), path)?;
    let headers = field != "queryParams";
    for (name, text) in texts {
        let at = path.field(name);
        // Istio lets headers of HTTP/2's own be asked so, too.
        let is_name = name.strip_prefix(':').unwrap_or(name);
        let none = headers && http::HeaderName::from_bytes(is_name.as_bytes()).is_err();
        refuse(none, at.clone(), "no header has such a name")?;
        let known = !name.starts_with(':') || [":authority", ":method", ":scheme"].contains(&name.as_str());
        refuse(headers && !known, at.clone(), "write :authority, :method or :scheme, or match uri")?;
        let always = field == "withoutHeaders" && name.starts_with(':');
        refuse(always, at.clone(), "every request has it: match it by its own field")?;
        string_match(text, &at)?;
    }
    Ok(())
}

/// How a text is matched.
pub(super) fn string_match(text: &StringMatch, path: &FieldPath) -> Checked {
    let written = [("exact", &text.exact), ("prefix", &text.prefix), ("regex", &text.regex)];
    let mut written = written.into_iter().filter_map(|(field, text)| Some((field, text.as_ref()?)));
    let first = written.next();
    refuse(written.next().is_some(), path.clone(), "exact, prefix and regex exclude each other: write one of them")?;
    let Some((field, text)) = first else { return Ok(()) };
    let at = path.field(field);
    refuse(text.len() > LONGEST, at.clone(), "too long: write at most 4096 bytes")?;
    if field == "regex" {
        check_regex(text).map_err(|why| at.error(why))?;
    }
    Ok(())
}

/// Where to.
pub(super) fn destination(to: &Destination, path: &FieldPath) -> Checked {
    let at = path.field("host");
    if to.host.is_empty() {
        return Err(at.error("missing: write the name of a Service"));
    }
    refuse(
        host::is_wildcard(&to.host),
        at.clone(),
        "a wildcard is nowhere to send a request: write the name of a Service",
    )?;
    host::full_name(&to.host, &at)?;
    refuse(to.subset.as_deref() == Some(""), path.field("subset"), "empty: write its name, or leave it out")?;
    to.port.map_or(Ok(()), |port| host::port(port.number, &path.field("port").field("number")))
}

/// A share of 100.
pub(super) fn percent(value: Option<Percent>, old: Option<u32>, path: &FieldPath, names: (&str, &str)) -> Checked {
    let why = "a percentage: write 0 to 100";
    refuse(value.is_some_and(|p| !(0.0..=100.0).contains(&p.value)), path.field(names.0).field("value"), why)?;
    refuse(old.is_some_and(|percent| percent > 100), path.field(names.1), why)?;
    refuse(value.is_some() && old.is_some(), path.field(names.1), "it says the same again: leave it out")
}
