//! Filters of routes.

use std::sync::Arc;

use mesh_model::route::{Cors, Filter, HeaderEdit, Mirror, PathEdit, Redirect, Rewrite};

use super::backend_ref;
use super::world::World;
use crate::resources::gateway_api::http_filter as written;

/// In the order of the object.
pub(super) fn of(filters: &[written::HttpFilter], namespace: &str, world: &World<'_>) -> Vec<Filter> {
    filters.iter().filter_map(|filter| one(filter, namespace, world)).collect()
}

/// Its type's field is there: else it was refused when it was read.
fn one(filter: &written::HttpFilter, namespace: &str, world: &World<'_>) -> Option<Filter> {
    use written::FilterType;
    Some(match filter.kind {
        FilterType::RequestHeaderModifier => Filter::RequestHeaders(headers(filter.request_header_modifier.as_ref()?)),
        FilterType::ResponseHeaderModifier => {
            Filter::ResponseHeaders(headers(filter.response_header_modifier.as_ref()?))
        }
        FilterType::RequestMirror => mirror(filter.request_mirror.as_ref()?, namespace, world),
        FilterType::RequestRedirect => Filter::Redirect(redirect(filter.request_redirect.as_ref()?)),
        FilterType::UrlRewrite => {
            let rewrite = filter.url_rewrite.as_ref()?;
            Filter::Rewrite(Rewrite { hostname: text(&rewrite.hostname), path: rewrite.path.as_ref().and_then(path) })
        }
        FilterType::Cors => Filter::Cors(cors(filter.cors.as_ref()?)),
        FilterType::ExternalAuth | FilterType::ExtensionRef => return None,
    })
}

/// RequestMirror.
fn mirror(written: &written::RequestMirror, namespace: &str, world: &World<'_>) -> Filter {
    let part = match (written.fraction, written.percent) {
        (Some(fraction), _) => {
            let (above, below) = (fraction.numerator.max(0), fraction.denominator.unwrap_or(100).max(1));
            above.saturating_mul(1_000_000) / below
        }
        (None, Some(percent)) => percent.saturating_mul(10_000),
        (None, None) => 1_000_000,
    };
    Filter::Mirror(Mirror {
        backend: backend_ref::target(&written.backend_ref, namespace, world),
        millionths: u32::try_from(part).unwrap_or(1_000_000).min(1_000_000),
    })
}

/// RequestHeaderModifier and ResponseHeaderModifier. Of names that are equal the first counts.
fn headers(written: &written::HeaderModifier) -> HeaderEdit {
    let list = |headers: &[written::Header]| {
        let mut list: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for header in headers {
            let name = header.name.to_ascii_lowercase();
            if !list.iter().any(|(known, _)| **known == *name) {
                list.push((name.into(), header.value.as_str().into()));
            }
        }
        list
    };
    HeaderEdit {
        set: list(&written.set),
        add: list(&written.add),
        remove: written.remove.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
    }
}

fn text(value: &Option<String>) -> Option<Arc<str>> {
    value.as_deref().map(Arc::from)
}

fn path(modifier: &written::PathModifier) -> Option<PathEdit> {
    Some(match modifier.kind {
        written::PathModifierType::ReplaceFullPath => PathEdit::Whole(text(&modifier.replace_full_path)?),
        written::PathModifierType::ReplacePrefixMatch => PathEdit::Prefix(text(&modifier.replace_prefix_match)?),
    })
}

fn redirect(redirect: &written::RequestRedirect) -> Redirect {
    Redirect {
        scheme: text(&redirect.scheme),
        hostname: text(&redirect.hostname),
        path: redirect.path.as_ref().and_then(path),
        port: redirect.port.and_then(|port| u16::try_from(port).ok()),
        status: redirect.status_code.and_then(|code| u16::try_from(code).ok()).unwrap_or(302),
    }
}

fn cors(cors: &written::Cors) -> Cors {
    let list = |values: &[String]| values.iter().map(|value| value.as_str().into()).collect();
    Cors {
        allow_origins: list(&cors.allow_origins),
        allow_credentials: cors.allow_credentials.unwrap_or(false),
        allow_methods: list(&cors.allow_methods),
        allow_headers: list(&cors.allow_headers),
        expose_headers: list(&cors.expose_headers),
        // The API's default.
        max_age: cors.max_age.and_then(|age| u32::try_from(age).ok()).unwrap_or(5),
    }
}
