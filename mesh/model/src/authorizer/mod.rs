//! Somebody else who is asked whether a request may pass (`extensionProviders` of Istio's mesh configuration).
//!
//! | file | question |
//! |---|---|
//! | this one | who, and how? |
//! | [`grpc`] | what does Envoy's Check say, and what the answer? |
//! | [`over_http`] | which headers does an HTTP check have, and what does its answer change? |
//! | [`verdict`] | what follows for the request? |
//! | `wire` | an authorizer between control plane and waypoints |

pub mod grpc;
pub mod over_http;
pub mod verdict;
pub(crate) mod wire;

use std::sync::Arc;
use std::time::Duration;

use crate::address::NamespacedName;
use crate::policy::strings::StringMatch;

pub use verdict::Verdict;

/// Who is asked, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorizer {
    /// Its name in the mesh configuration.
    pub name: Arc<str>,
    /// Its service: `namespace/hostname`.
    pub service: NamespacedName,
    /// Its port.
    pub port: u16,
    /// How long it may take.
    pub timeout: Duration,
    /// A request passes when it does not answer.
    pub fail_open: bool,
    /// What the caller is answered when it does not answer.
    pub status_on_error: http::StatusCode,
    /// How much of a request's body it is shown; `None`: nothing.
    pub body: Option<BodyInCheck>,
    /// What it speaks.
    pub protocol: Protocol,
}

/// How much of a request's body is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyInCheck {
    /// Bytes. A longer body is refused with 413, unless a part will do.
    pub most: u32,
    /// A part will do.
    pub allow_partial: bool,
    /// Over gRPC: as bytes, not as text.
    pub as_bytes: bool,
}

/// What is spoken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
    /// A request like the one that is asked about; 200 lets it pass.
    Http(HttpCheck),
}

/// An HTTP check.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HttpCheck {
    /// Stands before the request's path.
    pub path_prefix: Arc<str>,
    /// Headers of the request that are sent along, besides `Host`, `Authorization` and its method, path and length.
    pub request_headers: Vec<StringMatch>,
    /// Headers that are added.
    pub additional_headers: Vec<(Arc<str>, Arc<str>)>,
    /// Headers of the answer that the application gets.
    pub upstream_on_allow: Vec<StringMatch>,
    /// Headers of the answer that a refused caller gets; none: all of them.
    pub downstream_on_deny: Vec<StringMatch>,
    /// Headers of the answer that a caller gets with the application's.
    pub downstream_on_allow: Vec<StringMatch>,
}

#[cfg(test)]
mod tests;
