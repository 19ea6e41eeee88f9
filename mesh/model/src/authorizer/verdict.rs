//! What follows from an authorizer's answer for the request.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};
use prost::bytes::Bytes;

/// What follows from an authorizer's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The request passes, with these changes.
    Pass(Changes),
    /// It is answered so.
    Refuse {
        /// The status.
        status: StatusCode,
        /// Headers.
        headers: HeaderMap,
        /// The body.
        body: Bytes,
    },
}

/// What to change of a request that passes.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Changes {
    /// Of the request.
    pub request: Vec<Edit>,
    /// Of its answer.
    pub answer: Vec<Edit>,
}

/// One change of headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// In the place of what there is.
    Set(HeaderName, HeaderValue),
    /// Besides what there is.
    Add(HeaderName, HeaderValue),
    /// Only where there is none.
    Default(HeaderName, HeaderValue),
    /// In the place of what there is, and only if there is something.
    Replace(HeaderName, HeaderValue),
    /// Away with it.
    Remove(HeaderName),
}

impl Edit {
    /// Makes it.
    pub fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Set(name, value) => drop(headers.insert(name, value.clone())),
            Self::Add(name, value) => drop(headers.append(name, value.clone())),
            Self::Default(name, value) if !headers.contains_key(name) => drop(headers.insert(name, value.clone())),
            Self::Replace(name, value) if headers.contains_key(name) => drop(headers.insert(name, value.clone())),
            Self::Remove(name) => drop(headers.remove(name)),
            Self::Default(..) | Self::Replace(..) => {}
        }
    }
}

/// Who called.
pub(super) const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Whether an authorizer may change a header: not what frames a message, names its host, or says who calls.
pub(super) fn may_change(name: &HeaderName) -> bool {
    const FIXED: [HeaderName; 8] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        CLIENT_CERT,
    ];
    !FIXED.contains(name)
}

/// A header that it may change.
pub(crate) fn header_of(name: &str, value: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(may_change)?;
    Some((name, HeaderValue::from_bytes(value).ok()?))
}
