//! Checks of routes: limits, names, and which parts go together.

use super::backend_ref::ISTIO;
use super::check::{self, Checked};
use super::check_filter::{GRPC, HTTP, backends, filters};
use super::common::{MatchType, ParentRef, ValueMatch};
use super::grpc_route::{GrpcRoute, GrpcRule, MethodMatch};
use super::http_filter::FilterType;
use super::http_route::{HttpRoute, HttpRule, PathMatch, PathMatchType, Retry, Timeouts};
use crate::resources::field::FieldPath;

pub(super) const EXPERIMENTAL: &str = "it is experimental: remove it";

pub(in crate::resources) fn http_route(route: &HttpRoute) -> Checked {
    let (spec, path) = (&route.spec, FieldPath::of("spec"));
    check::unsupported(spec.use_default_gateways.is_some(), &path.field("useDefaultGateways"), EXPERIMENTAL)?;
    parents(&spec.parent_refs, &path)?;
    hosts(&spec.hostnames, &path)?;
    let rules = spec.rules.as_deref().unwrap_or_default();
    let path = path.field("rules");
    if spec.rules.as_ref().is_some_and(Vec::is_empty) {
        return Err(path.error("an empty list: write a rule, or leave it out for one that matches everything"));
    }
    check::at_most(rules, 16, &path)?;
    names(rules.iter().map(|rule| rule.name.as_deref()), &path)?;
    let matches: usize = rules.iter().map(|rule| rule.matches.len()).sum();
    if matches > 128 {
        return Err(path.error(format!("{matches} matches in all rules, and 128 is the most: make it several routes")));
    }
    rules.iter().enumerate().try_for_each(|(i, rule)| http_rule(rule, &path.index(i)))
}

pub(in crate::resources) fn grpc_route(route: &GrpcRoute) -> Checked {
    let (spec, path) = (&route.spec, FieldPath::of("spec"));
    check::unsupported(spec.use_default_gateways.is_some(), &path.field("useDefaultGateways"), EXPERIMENTAL)?;
    parents(&spec.parent_refs, &path)?;
    hosts(&spec.hostnames, &path)?;
    let path = path.field("rules");
    check::at_most(&spec.rules, 16, &path)?;
    names(spec.rules.iter().map(|rule| rule.name.as_deref()), &path)?;
    let matches: usize = spec.rules.iter().map(|rule| rule.matches.len()).sum();
    if matches > 128 {
        return Err(path.error(format!("{matches} matches in all rules, and 128 is the most: make it several routes")));
    }
    spec.rules.iter().enumerate().try_for_each(|(i, rule)| grpc_rule(rule, &path.index(i)))
}

pub(super) fn parents(refs: &[ParentRef], path: &FieldPath) -> Checked {
    let path = path.field("parentRefs");
    check::at_most(refs, 32, &path)?;
    for (i, parent) in refs.iter().enumerate() {
        let at = path.index(i);
        check::length(&parent.name, 1, 253, &at.field("name"))?;
        if let Some(port) = parent.port {
            check::port(port, &at.field("port"))?;
        }
        if parent.group() != "" && parent.kind() == "Service" {
            return Err(at.field("group").error("a Service is of the core group: write `group: \"\"`"));
        }
        if parent.group() != ISTIO && parent.kind() == "ServiceEntry" {
            return Err(at.field("group").error(format!("a ServiceEntry is of Istio's group: write `group: {ISTIO}`")));
        }
        let section = parent.section_name.is_some() && (parent.is_service() || parent.is_entry());
        check::unsupported(section, &at.field("sectionName"), &format!("a {} has ports: write `port`", parent.kind()))?;
        let same = |other: &&ParentRef| {
            (other.group(), other.kind(), &other.namespace, &other.name)
                == (parent.group(), parent.kind(), &parent.namespace, &parent.name)
        };
        for other in refs[..i].iter().filter(same) {
            let (a, b) = ((&other.section_name, other.port), (&parent.section_name, parent.port));
            if a == b || (a == (&None, None)) != (b == (&None, None)) {
                return Err(at.error("the same parent twice: name a port (or section) of its own in each, or keep one"));
            }
        }
    }
    Ok(())
}

fn hosts(names: &[String], path: &FieldPath) -> Checked {
    let path = path.field("hostnames");
    check::at_most(names, 16, &path)?;
    names.iter().enumerate().try_for_each(|(i, name)| check::host_pattern(name, &path.index(i)))
}

pub(super) fn names<'a>(names: impl Iterator<Item = Option<&'a str>>, path: &FieldPath) -> Checked {
    let mut seen = Vec::new();
    for (i, name) in names.enumerate() {
        let Some(name) = name else { continue };
        let at = path.index(i).field("name");
        check::section_name(name, &at)?;
        if seen.contains(&name) {
            return Err(at.error(format!("{name:?} is there twice: each rule has a name of its own, or none")));
        }
        seen.push(name);
    }
    Ok(())
}

fn http_rule(rule: &HttpRule, path: &FieldPath) -> Checked {
    check::unsupported(rule.session_persistence.is_some(), &path.field("sessionPersistence"), EXPERIMENTAL)?;
    let matches = path.field("matches");
    check::at_most(&rule.matches, 64, &matches)?;
    for (i, one) in rule.matches.iter().enumerate() {
        let at = matches.index(i);
        if let Some(path) = &one.path {
            path_match(path, &at.field("path"))?;
        }
        values(&one.headers, 4096, &at.field("headers"))?;
        values(&one.query_params, 1024, &at.field("queryParams"))?;
    }
    let prefix = matches!(&rule.matches[..], [one] if one.path.as_ref().and_then(|p| p.kind).unwrap_or_default() == PathMatchType::PathPrefix)
        || rule.matches.is_empty();
    filters(&rule.filters, prefix, HTTP, &path.field("filters"))?;
    let redirects = rule.filters.iter().any(|filter| filter.kind == FilterType::RequestRedirect);
    if redirects && !rule.backend_refs.is_empty() {
        return Err(path
            .field("backendRefs")
            .error("a rule with a RequestRedirect sends nothing on: keep one of the two"));
    }
    backends(&rule.backend_refs, prefix, HTTP, path)?;
    if let Some(limits) = &rule.timeouts {
        timeouts(limits, &path.field("timeouts"))?;
    }
    rule.retry.as_ref().map_or(Ok(()), |again| retry(again, &path.field("retry")))
}

fn grpc_rule(rule: &GrpcRule, path: &FieldPath) -> Checked {
    check::unsupported(rule.session_persistence.is_some(), &path.field("sessionPersistence"), EXPERIMENTAL)?;
    let matches = path.field("matches");
    check::at_most(&rule.matches, 64, &matches)?;
    for (i, one) in rule.matches.iter().enumerate() {
        let at = matches.index(i);
        if let Some(method) = &one.method {
            method_match(method, &at.field("method"))?;
        }
        values(&one.headers, 4096, &at.field("headers"))?;
    }
    filters(&rule.filters, false, GRPC, &path.field("filters"))?;
    backends(&rule.backend_refs, false, GRPC, path)
}

fn path_match(one: &PathMatch, path: &FieldPath) -> Checked {
    let (value, path) = (one.value.as_deref().unwrap_or("/"), path.field("value"));
    match one.kind.unwrap_or_default() {
        PathMatchType::RegularExpression => check::length(value, 1, 1024, &path),
        PathMatchType::Exact | PathMatchType::PathPrefix => check::path_value(value, &path),
    }
}

fn method_match(one: &MethodMatch, path: &FieldPath) -> Checked {
    if one.service.is_none() && one.method.is_none() {
        return Err(path.error("set service or method, or both"));
    }
    let name = |b: u8, dots: bool| b.is_ascii_alphanumeric() || b == b'_' || (dots && b == b'.');
    for (field, value, dots) in [("service", &one.service, true), ("method", &one.method, false)] {
        let Some(value) = value else { continue };
        let path = path.field(field);
        check::length(value, 1, 1024, &path)?;
        let plain =
            value.bytes().all(|b| name(b, dots)) && !value.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        if one.kind.unwrap_or_default() == MatchType::Exact && !plain {
            return Err(path.error(format!("{value:?} is not the name of a {field} of gRPC")));
        }
    }
    Ok(())
}

fn values(list: &[ValueMatch], most: usize, path: &FieldPath) -> Checked {
    check::at_most(list, 16, path)?;
    for (i, one) in list.iter().enumerate() {
        let at = path.index(i);
        check::header_name(&one.name, &at.field("name"))?;
        check::length(&one.value, 1, most, &at.field("value"))?;
        if list[..i].iter().any(|other| other.name == one.name) {
            return Err(at.field("name").error(format!("{:?} is there twice: keep one", one.name)));
        }
    }
    Ok(())
}

fn timeouts(limits: &Timeouts, path: &FieldPath) -> Checked {
    for (field, value) in [("request", &limits.request), ("backendRequest", &limits.backend_request)] {
        if let Some(value) = value {
            check::duration(value, &path.field(field))?;
        }
    }
    let parse = |value: &Option<String>| value.as_deref().and_then(check::parse_duration);
    if let (Some(request), Some(backend)) = (parse(&limits.request), parse(&limits.backend_request))
        && !request.is_zero()
        && backend > request
    {
        return Err(path.field("backendRequest").error("longer than `request`, which is for all tries together"));
    }
    Ok(())
}

fn retry(again: &Retry, path: &FieldPath) -> Checked {
    for (i, code) in again.codes.iter().enumerate() {
        if !(400..=599).contains(code) {
            return Err(path.field("codes").index(i).error(format!("{code} is not an error: write 400 to 599")));
        }
    }
    if let Some(attempts) = again.attempts.filter(|attempts| !(0..=100).contains(attempts)) {
        return Err(path.field("attempts").error(format!("{attempts}: write 0 to 100")));
    }
    again.backoff.as_deref().map_or(Ok(()), |wait| check::duration(wait, &path.field("backoff")))
}
