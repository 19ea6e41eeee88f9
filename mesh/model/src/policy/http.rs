//! What a policy says of HTTP: only a waypoint can evaluate it.

use std::sync::Arc;

use super::claims::{ClaimCondition, RequestPrincipal};
use super::strings::StringMatch;

/// Conditions on a request. All fields that are set; positive fields want one of their values, `not_` fields none of theirs.
/// Compared in the canonical form of the request, the one that is routed and passed on, too.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct HttpMatch {
    /// `Host` or `:authority`, lower case; a pattern without port matches any port.
    pub hosts: Vec<StringMatch>,
    /// None of these.
    pub not_hosts: Vec<StringMatch>,
    /// The method.
    pub methods: Vec<StringMatch>,
    /// None of these.
    pub not_methods: Vec<StringMatch>,
    /// The path without the query.
    pub paths: Vec<PathPattern>,
    /// None of these.
    pub not_paths: Vec<PathPattern>,
    /// Conditions on headers, all of them.
    pub headers: Vec<HeaderCondition>,
    /// Whom the request's token names.
    pub request_principals: Vec<RequestPrincipal>,
    /// None of these; satisfied by a request without token.
    pub not_request_principals: Vec<RequestPrincipal>,
    /// Conditions on the token's claims, all of them.
    pub claims: Vec<ClaimCondition>,
}

/// A path in a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// Exact, beginning, end or presence.
    Text(StringMatch),
    /// Istio's template, with `{*}` for one element and `{**}` for any number.
    Template(Arc<str>),
}

/// `request.headers[name]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderCondition {
    /// Lower case.
    pub name: Arc<str>,
    /// One of these holds for one of the header's values.
    pub values: Vec<StringMatch>,
    /// None of these holds for any of the header's values (in a positive condition, empty).
    pub not_values: Vec<StringMatch>,
}
