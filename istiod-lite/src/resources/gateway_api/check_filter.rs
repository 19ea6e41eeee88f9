//! Checks of what a rule does, and of where it sends requests.

use super::backend_ref::BackendRef;
use super::check::{self, Checked};
use super::common::WeightedBackend;
use super::http_filter::{Cors, FilterType, HeaderModifier, HttpFilter, PathModifier, PathModifierType, RequestMirror};
use crate::resources::field::FieldPath;

/// The filters of an HTTPRoute.
pub(super) const HTTP: &[FilterType] = &[
    FilterType::RequestHeaderModifier,
    FilterType::ResponseHeaderModifier,
    FilterType::RequestMirror,
    FilterType::RequestRedirect,
    FilterType::UrlRewrite,
    FilterType::Cors,
];
/// The filters of a GRPCRoute.
pub(super) const GRPC: &[FilterType] =
    &[FilterType::RequestHeaderModifier, FilterType::ResponseHeaderModifier, FilterType::RequestMirror];

pub(super) fn backends(refs: &[WeightedBackend], prefix: bool, allowed: &[FilterType], path: &FieldPath) -> Checked {
    let path = path.field("backendRefs");
    check::at_most(refs, 16, &path)?;
    for (i, backend) in refs.iter().enumerate() {
        let at = path.index(i);
        backend_ref(&backend.reference(), &at)?;
        weight(backend.weight, &at)?;
        filters(&backend.filters, prefix, allowed, &at.field("filters"))?;
        for (j, filter) in backend.filters.iter().enumerate() {
            let redirects = filter.kind == FilterType::RequestRedirect;
            let at = at.field("filters").index(j).field("type");
            check::unsupported(redirects, &at, "a redirect is for the whole rule: move it to the rule's filters")?;
        }
    }
    Ok(())
}

pub(super) fn weight(weight: Option<i64>, path: &FieldPath) -> Checked {
    match weight.filter(|weight| !(0..=1_000_000).contains(weight)) {
        Some(weight) => Err(path.field("weight").error(format!("{weight}: write 0 to 1000000"))),
        None => Ok(()),
    }
}

pub(super) fn backend_ref(backend: &BackendRef, path: &FieldPath) -> Checked {
    check::length(&backend.name, 1, 253, &path.field("name"))?;
    match backend.port {
        Some(port) => check::port(port, &path.field("port")),
        None if backend.is_service() || backend.is_hostname() => {
            Err(path.field("port").error(format!("missing: a {} has several, say which", backend.kind())))
        }
        None => Ok(()),
    }
}

/// `prefix`: the rule has one match, of the type PathPrefix.
pub(super) fn filters(list: &[HttpFilter], prefix: bool, allowed: &[FilterType], path: &FieldPath) -> Checked {
    check::at_most(list, 16, path)?;
    for (i, filter) in list.iter().enumerate() {
        let at = path.index(i);
        let kind = filter.kind;
        let fix = match kind {
            FilterType::ExtensionRef | FilterType::ExternalAuth => "no extensions are known: remove the filter",
            _ => "not in a route of this kind: remove the filter",
        };
        check::unsupported(!allowed.contains(&kind), &at.field("type"), fix)?;
        if kind != FilterType::RequestMirror && list[..i].iter().any(|other| other.kind == kind) {
            return Err(at.field("type").error("this type is there twice: make it one filter"));
        }
        fields(filter, &at)?;
        filter_value(filter, prefix, &at)?;
    }
    let has = |kind| list.iter().any(|filter| filter.kind == kind);
    if has(FilterType::RequestRedirect) && has(FilterType::UrlRewrite) {
        return Err(path.error("RequestRedirect and URLRewrite exclude each other: keep one"));
    }
    Ok(())
}

/// The field of the filter's type is there, and no other.
fn fields(filter: &HttpFilter, path: &FieldPath) -> Checked {
    for (kind, field, is_set) in [
        (FilterType::RequestHeaderModifier, "requestHeaderModifier", filter.request_header_modifier.is_some()),
        (FilterType::ResponseHeaderModifier, "responseHeaderModifier", filter.response_header_modifier.is_some()),
        (FilterType::RequestMirror, "requestMirror", filter.request_mirror.is_some()),
        (FilterType::RequestRedirect, "requestRedirect", filter.request_redirect.is_some()),
        (FilterType::UrlRewrite, "urlRewrite", filter.url_rewrite.is_some()),
        (FilterType::Cors, "cors", filter.cors.is_some()),
        (FilterType::ExternalAuth, "externalAuth", filter.external_auth.is_some()),
        (FilterType::ExtensionRef, "extensionRef", filter.extension_ref.is_some()),
    ] {
        if (filter.kind == kind) != is_set {
            let what = if is_set {
                "it is not what the filter's type says: remove it"
            } else {
                "missing: the filter's type says it is there"
            };
            return Err(path.field(field).error(what));
        }
    }
    Ok(())
}

fn filter_value(filter: &HttpFilter, prefix: bool, path: &FieldPath) -> Checked {
    if let Some(edit) = &filter.request_header_modifier {
        headers(edit, &path.field("requestHeaderModifier"))?;
    }
    if let Some(edit) = &filter.response_header_modifier {
        headers(edit, &path.field("responseHeaderModifier"))?;
    }
    if let Some(copy) = &filter.request_mirror {
        mirror(copy, &path.field("requestMirror"))?;
    }
    if let Some(redirect) = &filter.request_redirect {
        let path = path.field("requestRedirect");
        if let Some(scheme) = redirect.scheme.as_deref().filter(|scheme| !["http", "https"].contains(scheme)) {
            return Err(path.field("scheme").error(format!("{scheme:?}: write http or https")));
        }
        if let Some(host) = &redirect.hostname {
            check::hostname(host, &path.field("hostname"))?;
        }
        if let Some(port) = redirect.port {
            check::port(port, &path.field("port"))?;
        }
        if let Some(code) = redirect.status_code.filter(|code| ![301, 302, 303, 307, 308].contains(code)) {
            return Err(path.field("statusCode").error(format!("{code}: write 301, 302, 303, 307 or 308")));
        }
        path_modifier(redirect.path.as_ref(), prefix, &path.field("path"))?;
    }
    if let Some(rewrite) = &filter.url_rewrite {
        let path = path.field("urlRewrite");
        if let Some(host) = &rewrite.hostname {
            check::hostname(host, &path.field("hostname"))?;
        }
        path_modifier(rewrite.path.as_ref(), prefix, &path.field("path"))?;
    }
    filter.cors.as_ref().map_or(Ok(()), |one| cors(one, &path.field("cors")))
}

fn path_modifier(modifier: Option<&PathModifier>, prefix: bool, path: &FieldPath) -> Checked {
    let Some(modifier) = modifier else { return Ok(()) };
    let whole = modifier.kind == PathModifierType::ReplaceFullPath;
    for (field, value, wanted) in [
        ("replaceFullPath", &modifier.replace_full_path, whole),
        ("replacePrefixMatch", &modifier.replace_prefix_match, !whole),
    ] {
        let path = path.field(field);
        match value {
            None if wanted => return Err(path.error("missing: the type says it is there")),
            Some(_) if !wanted => return Err(path.error("it is not what the type says: remove it")),
            Some(value) => check::length(value, 0, 1024, &path)?,
            None => {}
        }
    }
    if !whole && !prefix {
        let message = "it replaces what a PathPrefix matched: the rule needs exactly one match, of the type PathPrefix";
        return Err(path.field("replacePrefixMatch").error(message));
    }
    Ok(())
}

fn headers(edit: &HeaderModifier, path: &FieldPath) -> Checked {
    for (field, list) in [("set", &edit.set), ("add", &edit.add)] {
        let path = path.field(field);
        check::at_most(list, 16, &path)?;
        for (i, header) in list.iter().enumerate() {
            check::header_name(&header.name, &path.index(i).field("name"))?;
            let at = path.index(i).field("value");
            check::length(&header.value, 1, 4096, &at)?;
            if header.value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
                return Err(at.error("a control character, which no header has"));
            }
        }
    }
    let path = path.field("remove");
    check::at_most(&edit.remove, 16, &path)?;
    edit.remove.iter().enumerate().try_for_each(|(i, name)| check::header_name(name, &path.index(i)))
}

fn mirror(copy: &RequestMirror, path: &FieldPath) -> Checked {
    backend_ref(&copy.backend_ref, &path.field("backendRef"))?;
    if copy.percent.is_some() && copy.fraction.is_some() {
        return Err(path.field("fraction").error("percent and fraction say the same: keep one"));
    }
    if let Some(percent) = copy.percent.filter(|percent| !(0..=100).contains(percent)) {
        return Err(path.field("percent").error(format!("{percent}: write 0 to 100")));
    }
    let Some(fraction) = copy.fraction else { return Ok(()) };
    let denominator = fraction.denominator.unwrap_or(100);
    if denominator < 1 || !(0..=denominator).contains(&fraction.numerator) {
        let message = format!("{} of {denominator}: write at most the whole, of at least 1", fraction.numerator);
        return Err(path.field("fraction").error(message));
    }
    Ok(())
}

fn cors(one: &Cors, path: &FieldPath) -> Checked {
    for (field, list, most) in [
        ("allowOrigins", &one.allow_origins, 64),
        ("allowMethods", &one.allow_methods, 9),
        ("allowHeaders", &one.allow_headers, 64),
        ("exposeHeaders", &one.expose_headers, 64),
    ] {
        let path = path.field(field);
        check::at_most(list, most, &path)?;
        if list.len() > 1 && list.iter().any(|value| value == "*") {
            return Err(path.error("\"*\" is everything: keep it alone, or remove it"));
        }
        for (i, value) in list.iter().enumerate() {
            if field == "allowOrigins" {
                check::length(value, 1, 253, &path.index(i))?;
            } else {
                check::header_name(value, &path.index(i))?;
            }
        }
    }
    match one.max_age {
        Some(age) if !(1..=i64::from(i32::MAX)).contains(&age) => {
            Err(path.field("maxAge").error(format!("{age}: write at least 1 second")))
        }
        _ => Ok(()),
    }
}
