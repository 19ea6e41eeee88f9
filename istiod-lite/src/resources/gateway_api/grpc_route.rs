//! GRPCRoute.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::common::{MatchType, ParentRef, ValueMatch, WeightedBackend};
use super::http_filter::HttpFilter;
use crate::resources::authorization_policy::null_as_default;

/// Where gRPC calls go, by what they call.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct GrpcRoute {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name, namespace, age.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is asked.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: GrpcRouteSpec,
    #[serde(rename = "status", default, skip_serializing)]
    _status: IgnoredAny,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRouteSpec {
    /// What it belongs to.
    #[serde(default, deserialize_with = "null_as_default")]
    pub parent_refs: Vec<ParentRef>,
    /// Hosts at a gateway. In a mesh the Service is what a route is for, whatever the host.
    #[serde(default, deserialize_with = "null_as_default")]
    pub hostnames: Vec<String>,
    /// None of them does nothing.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rules: Vec<GrpcRule>,
    /// Experimental.
    pub use_default_gateways: Option<Value>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrpcRule {
    /// Unique in its route.
    pub name: Option<String>,
    /// Any of them; none matches everything.
    #[serde(default, deserialize_with = "null_as_default")]
    pub matches: Vec<GrpcMatch>,
    /// In order.
    #[serde(default, deserialize_with = "null_as_default")]
    pub filters: Vec<HttpFilter>,
    /// Where to.
    #[serde(default, deserialize_with = "null_as_default")]
    pub backend_refs: Vec<WeightedBackend>,
    /// Experimental.
    pub session_persistence: Option<Value>,
}

/// All that are set.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct GrpcMatch {
    /// Any when left out.
    pub method: Option<MethodMatch>,
    /// All of them.
    #[serde(default, deserialize_with = "null_as_default")]
    pub headers: Vec<ValueMatch>,
}

/// A method of a service.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct MethodMatch {
    /// `Exact` when left out.
    #[serde(rename = "type")]
    pub kind: Option<MatchType>,
    /// Any when left out.
    pub service: Option<String>,
    /// Any when left out.
    pub method: Option<String>,
}
