//! Where a redirect points.

use http::HeaderValue;

use super::{PathMatch, Redirect, path_edit};
use crate::http::{Request, Scheme};

/// The `Location`; None where the redirect replaces the beginning of a path and the rule matched none, or it makes no URL. `port`
/// is the one that was dialled.
pub(super) fn location(
    redirect: &Redirect,
    request: &Request,
    matched: Option<&PathMatch>,
    port: u16,
) -> Option<HeaderValue> {
    let scheme = redirect.scheme.as_deref().unwrap_or(request.scheme.as_str());
    let host = redirect.hostname.as_deref().unwrap_or(&request.host);
    let well_known = [Scheme::Http, Scheme::Https].into_iter().find(|known| known.as_str() == scheme).map(Scheme::port);
    let port = match (redirect.port, redirect.scheme.is_some()) {
        (Some(port), _) => port,
        (None, true) => well_known.unwrap_or(port),
        (None, false) => port,
    };
    let target = match &redirect.path {
        None => request.target.clone(),
        Some(edit) => path_edit::with_query(path_edit::edited(edit, request.path(), matched)?, request.query())?,
    };
    let port = if well_known == Some(port) { String::new() } else { format!(":{port}") };
    // HTTP/1.0 need not name a host.
    let url = match host.is_empty() {
        true => target.to_string(),
        false => format!("{scheme}://{host}{port}{target}"),
    };
    HeaderValue::try_from(url).ok()
}
