//! Cross-origin requests of browsers (Fetch; HTTPCORSFilter).

use std::sync::Arc;

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::Cors;
use crate::http::Request;

/// The answer to a preflight, None where the request is none. A page of an origin that is not allowed learns nothing: the browser
/// then refuses by itself.
pub(super) fn preflight(cors: &Cors, request: &Request, headers: &HeaderMap) -> Option<HeaderMap> {
    let method = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    if request.method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    let mut answer = allowed(cors, headers);
    if answer.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        put(&mut answer, header::ACCESS_CONTROL_ALLOW_METHODS, listed(cors, &cors.allow_methods, Some(method)));
        put(&mut answer, header::ACCESS_CONTROL_ALLOW_HEADERS, listed(cors, &cors.allow_headers, asked));
        put(&mut answer, header::ACCESS_CONTROL_MAX_AGE, Some(cors.max_age.into()));
    }
    Some(answer)
}

/// The headers of an answer to a request that is no preflight. Empty where it is of no page, or of one that is not allowed.
pub(super) fn answer(cors: &Cors, headers: &HeaderMap) -> HeaderMap {
    let mut answer = allowed(cors, headers);
    if answer.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
        put(&mut answer, header::ACCESS_CONTROL_EXPOSE_HEADERS, listed(cors, &cors.expose_headers, None));
    }
    answer
}

/// Who may read the answer.
fn allowed(cors: &Cors, headers: &HeaderMap) -> HeaderMap {
    let mut answer = HeaderMap::new();
    let Some(origin) = headers.get(header::ORIGIN) else { return answer };
    let anybody = cors.allow_origins.iter().any(|allowed| &**allowed == "*");
    // What answers differently by origin has to say so, whatever it answers: caches keep it.
    if !anybody || cors.allow_credentials {
        answer.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    let known = || origin.to_str().is_ok_and(|origin| cors.allow_origins.iter().any(|wanted| meets(wanted, origin)));
    if !anybody && !known() {
        return answer;
    }
    // Browsers take no `*` for an answer with credentials.
    let named = if anybody && !cors.allow_credentials { HeaderValue::from_static("*") } else { origin.clone() };
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, named);
    if cors.allow_credentials {
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    answer
}

/// A list as its header has it. With credentials `*` is no wildcard to browsers: what was asked for is said.
fn listed(cors: &Cors, list: &[Arc<str>], asked: Option<&HeaderValue>) -> Option<HeaderValue> {
    if list.iter().any(|one| &**one == "*") {
        return match cors.allow_credentials {
            true => asked.cloned(),
            false => Some(HeaderValue::from_static("*")),
        };
    }
    match list {
        [] => None,
        list => HeaderValue::try_from(list.join(", ")).ok(),
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    if let Some(value) = value {
        headers.insert(name, value);
    }
}

/// Whether an origin is the wanted one: scheme, host and port, of which the scheme's own need not be said. A `*` in the host stands for
/// labels, at least one.
fn meets(wanted: &str, origin: &str) -> bool {
    let (Some(wanted), Some(origin)) = (Origin::read(wanted), Origin::read(origin)) else { return false };
    if wanted.scheme != origin.scheme || wanted.port != origin.port {
        return false;
    }
    match wanted.host.split_once('*') {
        None => wanted.host == origin.host,
        Some((before, after)) => {
            let between = origin.host.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            between.is_some_and(|between| !between.is_empty())
        }
    }
}

struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl Origin {
    fn read(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, Some(port.parse().ok()?)),
            _ => (&*authority, None),
        };
        // Neither a path nor a user: nothing but an origin.
        let whole = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._*[]:".contains(&byte));
        let known = match &*scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        whole.then(|| Self { host: host.to_owned(), port: port.or(known), scheme })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (wanted, origin, expected) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "https://A.Example:443", true),
            ("https://a.example:443", "https://a.example", true),
            ("http://a.example", "http://a.example:80", true),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example", "https://b.a.example", false),
            ("https://*.example", "https://a.example", true),
            ("https://*.example", "https://a.b.example", true),
            ("https://*.example", "https://.example", false),
            ("https://*.example", "https://example", false),
            ("https://*.example", "https://a.example.evil", false),
            ("https://*.example", "https://evil/.example", false),
            ("https://*.example", "https://evil?.example", false),
            ("https://*.example", "https://evil#.example", false),
            ("https://*.example", "https://u@a.example", false),
            ("https://*.example:8443", "https://a.example:8443", true),
            ("https://a.example", "null", false),
        ] {
            assert_eq!(meets(wanted, origin), expected, "{wanted}: {origin}");
        }
    }
}
