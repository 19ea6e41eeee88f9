//! Requests as a waypoint sees them: one canonical form, in which they are routed, judged and passed on.
//!
//! [`canonical()`] makes it of what was received; `path` and `host` are its parts.

mod canonical;
mod host;
mod path;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri, Version};

pub use canonical::{MethodFault, Refusal, canonical};
pub use host::HostFault;
pub use path::PathFault;
pub(crate) use path::canonical_path;

/// What was received of a request, before anything is decided about it.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// HTTP/1.0, HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// The method.
    pub method: &'a Method,
    /// Of the absolute form, or `:scheme`.
    pub scheme: Option<&'a str>,
    /// Of the absolute form, or `:authority`.
    pub authority: Option<&'a [u8]>,
    /// Path and query, or `*`.
    pub target: Target<'a>,
    /// An extended CONNECT (RFC 8441), by its `:protocol`: what a WebSocket over HTTP/2 begins with.
    pub extended_connect: bool,
    /// All of its headers.
    pub headers: &'a HeaderMap,
}

/// Path and query as received.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Of an HTTP library: not copied where it is in canonical form.
    Shared(&'a PathAndQuery),
    /// As on the wire.
    Bytes(&'a [u8]),
}

impl Target<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(target) => target.as_str().as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl<'a> Received<'a> {
    /// As an HTTP library hands it over: `uri` is the target of HTTP/1, or made of the pseudo headers of HTTP/2.
    pub fn of_uri(
        version: Version,
        method: &'a Method,
        uri: &'a Uri,
        headers: &'a HeaderMap,
        extended_connect: bool,
    ) -> Self {
        Self {
            version,
            method,
            scheme: uri.scheme_str(),
            authority: uri.authority().map(|authority| authority.as_str().as_bytes()),
            target: uri.path_and_query().map_or(Target::Bytes(b""), Target::Shared),
            extended_connect,
            headers,
        }
    }

    /// As on the wire in HTTP/1: `target` is the second word of the request line.
    pub fn of_target(version: Version, method: &'a Method, target: &'a [u8], headers: &'a HeaderMap) -> Self {
        let absolute = || {
            let colon = target.windows(3).position(|three| three == b"://")?;
            let (scheme, rest) = (target.get(..colon)?, target.get(colon + 3..)?);
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
            Some((std::str::from_utf8(scheme).ok()?, rest.get(..end)?, rest.get(end..)?))
        };
        let (scheme, authority, target) = match target.first() {
            Some(b'/' | b'*') | None => (None, None, target),
            _ if *method == Method::CONNECT => (None, Some(target), &b""[..]),
            _ => match absolute() {
                Some((scheme, authority, target)) => (Some(scheme), Some(authority), target),
                None => (None, None, target),
            },
        };
        let target = Target::Bytes(target);
        Self { version, method, scheme, authority, target, extended_connect: false, headers }
    }
}

/// What is left to choose of the canonical form. The default is what is safe with policies on paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `//` is `/` (Istio's MERGE_SLASHES; its default leaves them, and most servers do not tell them apart).
    pub merge_slashes: bool,
    /// `%2F` and `%5C` stay in the path as they are (Istio's default), instead of being refused: some servers take them for
    /// slashes, which no policy on paths then sees. Never beside a dot segment.
    pub keep_encoded_slashes: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { merge_slashes: true, keep_encoded_slashes: false }
    }
}

/// Whether a request says that it came over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Nothing else was said.
    Http,
    /// It says so.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL need not say.
    pub const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A request in canonical form: that which is routed, judged and passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In upper case. Of an extended CONNECT it is GET, as the same over HTTP/1 is.
    pub method: Method,
    /// Of the absolute form or `:scheme`.
    pub scheme: Scheme,
    /// In lower case, without port and last dot; an IPv6 address is in brackets. Empty where HTTP/1.0 names none.
    pub host: Box<str>,
    /// The port that is named beside the host.
    pub port: Option<u16>,
    /// Path and query.
    pub target: PathAndQuery,
}

impl Request {
    /// The path: begins with a slash, but for `*`.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// The query, as it was received.
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }

    /// What to pass on as `Host` or `:authority`.
    pub fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
