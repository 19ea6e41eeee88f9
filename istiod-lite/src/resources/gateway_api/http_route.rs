//! HTTPRoute.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::common::{ParentRef, ValueMatch, WeightedBackend};
use super::http_filter::HttpFilter;
use crate::resources::authorization_policy::null_as_default;

/// Where requests go, by what they ask for.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct HttpRoute {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name, namespace, age.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is asked.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: HttpRouteSpec,
    #[serde(rename = "status", default, skip_serializing)]
    _status: IgnoredAny,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// What it belongs to.
    #[serde(default, deserialize_with = "null_as_default")]
    pub parent_refs: Vec<ParentRef>,
    /// Hosts at a gateway. In a mesh the Service is what a route is for, whatever the host.
    #[serde(default, deserialize_with = "null_as_default")]
    pub hostnames: Vec<String>,
    /// One that matches everything, when left out.
    pub rules: Option<Vec<HttpRule>>,
    /// Experimental.
    pub use_default_gateways: Option<Value>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRule {
    /// Unique in its route.
    pub name: Option<String>,
    /// Any of them; none matches everything.
    #[serde(default, deserialize_with = "null_as_default")]
    pub matches: Vec<HttpMatch>,
    /// In order.
    #[serde(default, deserialize_with = "null_as_default")]
    pub filters: Vec<HttpFilter>,
    /// Where to.
    #[serde(default, deserialize_with = "null_as_default")]
    pub backend_refs: Vec<WeightedBackend>,
    /// Limits of time.
    pub timeouts: Option<Timeouts>,
    /// What is tried again.
    pub retry: Option<Retry>,
    /// Experimental.
    pub session_persistence: Option<Value>,
}

/// All that are set.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpMatch {
    /// Everything when left out.
    pub path: Option<PathMatch>,
    /// All of them.
    #[serde(default, deserialize_with = "null_as_default")]
    pub headers: Vec<ValueMatch>,
    /// All of them.
    #[serde(default, deserialize_with = "null_as_default")]
    pub query_params: Vec<ValueMatch>,
    /// Any when left out.
    pub method: Option<Method>,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct PathMatch {
    /// `PathPrefix` when left out.
    #[serde(rename = "type")]
    pub kind: Option<PathMatchType>,
    /// `/` when left out.
    pub value: Option<String>,
}

/// How paths are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
pub enum PathMatchType {
    /// Equal.
    Exact,
    /// Begins with these elements.
    #[default]
    PathPrefix,
    /// All of it, by a regular expression.
    RegularExpression,
}

/// The API's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "HTTP's own words")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl Method {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
        }
    }
}

/// Limits of time, in the API's form: `10s`, `1h30m`; 0 is none.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// For all of it.
    pub request: Option<String>,
    /// For one try.
    pub backend_request: Option<String>,
}

/// What is tried again.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct Retry {
    /// Statuses.
    #[serde(default, deserialize_with = "null_as_default")]
    pub codes: Vec<i64>,
    /// After the first; 1 when left out.
    pub attempts: Option<i64>,
    /// Between two.
    pub backoff: Option<String>,
}
