//! What was received → the canonical form, or why there is none.
//!
//! A request that different servers read in different ways is refused: a policy that was judged by one reading is no policy for a
//! server that has another.

use http::uri::PathAndQuery;
use http::{Method, Version, header};

use super::host::{self, Authority, HostFault};
use super::path::{self, PathFault};
use super::{Received, Request, Rules, Scheme, Target};
use crate::reason::ReasonCode;

/// Why a request is refused. The answer is [`Refusal::STATUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Of the path.
    #[error("path: {0}")]
    Path(#[from] PathFault),
    /// Of the host.
    #[error("host: {0}")]
    Host(#[from] HostFault),
    /// Of the method.
    #[error("method: {0}")]
    Method(#[from] MethodFault),
}

/// What is wrong with a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodFault {
    /// Methods are case-sensitive, and not every server knows.
    #[error("it has lower-case letters")]
    LowerCase,
    /// A tunnel through the waypoint.
    #[error("CONNECT asks for a tunnel, which is not served here")]
    Connect,
}

impl Refusal {
    /// Bad request.
    pub const STATUS: u16 = 400;

    /// Its reason code.
    pub const fn reason(&self) -> ReasonCode {
        match self {
            Self::Path(_) => ReasonCode::AmbiguousPath,
            Self::Host(_) => ReasonCode::AmbiguousHost,
            Self::Method(_) => ReasonCode::MethodNotServed,
        }
    }
}

/// The canonical form of a request. The same for the same request over HTTP/1 and HTTP/2, and its own canonical form.
///
/// # Errors
/// When it could be read in more than one way.
pub fn canonical(received: &Received<'_>, rules: Rules) -> Result<Request, Refusal> {
    let method = method(received)?;
    let scheme = scheme(received)?;
    let Authority { host, port } = authority(received, scheme)?;
    Ok(Request { target: target(received, &method, rules)?, method, scheme, host, port })
}

fn method(received: &Received<'_>) -> Result<Method, MethodFault> {
    match received.method {
        &Method::CONNECT if received.extended_connect => Ok(Method::GET),
        &Method::CONNECT => Err(MethodFault::Connect),
        method if method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) => Err(MethodFault::LowerCase),
        method => Ok(method.clone()),
    }
}

fn scheme(received: &Received<'_>) -> Result<Scheme, HostFault> {
    match received.scheme {
        None => Ok(Scheme::Http),
        Some(scheme) if scheme.eq_ignore_ascii_case("http") => Ok(Scheme::Http),
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => Ok(Scheme::Https),
        Some(_) => Err(HostFault::Scheme),
    }
}

fn authority(received: &Received<'_>, scheme: Scheme) -> Result<Authority, HostFault> {
    let mut hosts = received.headers.get_all(header::HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(HostFault::Several);
    }
    let before_hosts = received.version < Version::HTTP_11;
    let found = match (received.authority, header) {
        (Some(_), None) if received.version == Version::HTTP_11 => return Err(HostFault::Missing),
        (Some(authority), None) => host::read(authority)?,
        (None, Some(header)) => host::read(header.as_bytes())?,
        (None, None) => Authority::default(),
        (Some(authority), Some(header)) => {
            let (authority, header) = (host::read(authority)?, host::read(header.as_bytes())?);
            let at = |authority: &Authority| authority.port.unwrap_or(scheme.port());
            if authority.host != header.host || at(&authority) != at(&header) {
                return Err(HostFault::Different);
            }
            authority
        }
    };
    match found.host.is_empty() && (!before_hosts || found.port.is_some() || received.authority.is_some()) {
        true => Err(HostFault::Missing),
        false => Ok(found),
    }
}

fn target(received: &Received<'_>, method: &Method, rules: Rules) -> Result<PathAndQuery, PathFault> {
    let bytes = received.target.bytes();
    if bytes == b"*" {
        return match *method == Method::OPTIONS {
            true => Ok(PathAndQuery::from_static("*")),
            false => Err(PathFault::Form),
        };
    }
    let mark = bytes.iter().position(|byte| *byte == b'?');
    let (path, query) = bytes.split_at(mark.unwrap_or(bytes.len()));
    // `http://example.com` and `http://example.com?query` have the path `/`; over HTTP/2 none is malformed (RFC 9113).
    let implied = path.is_empty() && received.authority.is_some() && received.version < Version::HTTP_2;
    let path = if implied { &b"/"[..] } else { path };
    path::query(query)?;
    let changed = path::canonical(path, rules)?;
    if changed.is_none()
        && !implied
        && let Target::Shared(target) = received.target
    {
        return Ok(target.clone());
    }
    let mut all = changed.unwrap_or_else(|| path.to_vec());
    all.extend_from_slice(query);
    // Bounds its length, too: to 65,534 bytes.
    PathAndQuery::try_from(all).map_err(|_| PathFault::Form)
}
