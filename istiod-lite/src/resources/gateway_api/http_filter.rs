//! What a route does to a request, or to its answer.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::backend_ref::BackendRef;
use crate::resources::authorization_policy::null_as_default;

/// A filter: its type, and the field of that name.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpFilter {
    /// Which.
    #[serde(rename = "type")]
    pub kind: FilterType,
    /// Of [`FilterType::RequestHeaderModifier`].
    pub request_header_modifier: Option<HeaderModifier>,
    /// Of [`FilterType::ResponseHeaderModifier`].
    pub response_header_modifier: Option<HeaderModifier>,
    /// Of [`FilterType::RequestMirror`].
    pub request_mirror: Option<RequestMirror>,
    /// Of [`FilterType::RequestRedirect`].
    pub request_redirect: Option<RequestRedirect>,
    /// Of [`FilterType::UrlRewrite`].
    #[serde(rename = "urlRewrite")]
    pub url_rewrite: Option<UrlRewrite>,
    /// Of [`FilterType::Cors`].
    pub cors: Option<Cors>,
    /// Of [`FilterType::ExternalAuth`].
    pub external_auth: Option<Value>,
    /// Of [`FilterType::ExtensionRef`].
    pub extension_ref: Option<Value>,
}

/// The API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[allow(missing_docs, reason = "the API's own words")]
pub enum FilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestMirror,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    #[serde(rename = "CORS")]
    Cors,
    ExternalAuth,
    ExtensionRef,
}

/// Headers.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct HeaderModifier {
    /// Overwritten.
    #[serde(default, deserialize_with = "null_as_default")]
    pub set: Vec<Header>,
    /// Added.
    #[serde(default, deserialize_with = "null_as_default")]
    pub add: Vec<Header>,
    /// Taken away.
    #[serde(default, deserialize_with = "null_as_default")]
    pub remove: Vec<String>,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A copy.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestMirror {
    /// Where to.
    pub backend_ref: BackendRef,
    /// Of how many of a hundred requests; all when left out.
    pub percent: Option<i64>,
    /// The same, finer.
    pub fraction: Option<Fraction>,
}

/// A fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
pub struct Fraction {
    /// Above.
    pub numerator: i64,
    /// Below; 100 when left out.
    pub denominator: Option<i64>,
}

/// An answer that sends the caller elsewhere.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRedirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
    /// The port.
    pub port: Option<i64>,
    /// 302 when left out.
    pub status_code: Option<i64>,
}

/// A request for something else.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct UrlRewrite {
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
}

/// Another path: its type, and the field of that name.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathModifier {
    /// Which.
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    /// All of it.
    pub replace_full_path: Option<String>,
    /// What the rule's PathPrefix matched.
    pub replace_prefix_match: Option<String>,
}

/// The API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[allow(missing_docs, reason = "the API's own words")]
pub enum PathModifierType {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

/// What browsers may ask from other origins.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "the API's own field names; see its reference for HTTPCORSFilter")]
pub struct Cors {
    #[serde(default, deserialize_with = "null_as_default")]
    pub allow_origins: Vec<String>,
    pub allow_credentials: Option<bool>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub allow_methods: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub allow_headers: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub expose_headers: Vec<String>,
    pub max_age: Option<i64>,
}
