//! TCPRoute and TLSRoute: where connections go that nobody looks into. Each has one rule.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::backend_ref::BackendRef;
use super::common::ParentRef;
use crate::resources::authorization_policy::null_as_default;

/// Where connections go.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct TcpRoute {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name, namespace, age.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is asked.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: TcpRouteSpec,
    #[serde(rename = "status", default, skip_serializing)]
    _status: IgnoredAny,
}

/// Where connections of TLS go, by the name that their clients ask for.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct TlsRoute {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name, namespace, age.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is asked.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: TlsRouteSpec,
    #[serde(rename = "status", default, skip_serializing)]
    _status: IgnoredAny,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpRouteSpec {
    /// What it belongs to.
    #[serde(default, deserialize_with = "null_as_default")]
    pub parent_refs: Vec<ParentRef>,
    /// Exactly one.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rules: Vec<StreamRouteRule>,
    /// Experimental.
    pub use_default_gateways: Option<Value>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsRouteSpec {
    /// What it belongs to.
    #[serde(default, deserialize_with = "null_as_default")]
    pub parent_refs: Vec<ParentRef>,
    /// The names that it is for (SNI).
    #[serde(default, deserialize_with = "null_as_default")]
    pub hostnames: Vec<String>,
    /// Exactly one.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rules: Vec<StreamRouteRule>,
    /// Experimental.
    pub use_default_gateways: Option<Value>,
}

/// The rule.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRouteRule {
    /// Its name.
    pub name: Option<String>,
    /// Where to.
    #[serde(default, deserialize_with = "null_as_default")]
    pub backend_refs: Vec<StreamBackendRef>,
}

/// Where the rule sends connections.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct StreamBackendRef {
    /// Empty when left out: a Service.
    pub group: Option<String>,
    /// `Service` when left out.
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// The route's own when left out.
    pub namespace: Option<String>,
    /// A Service needs it.
    pub port: Option<i64>,
    /// Its share, 1 when left out.
    pub weight: Option<i64>,
}

impl StreamBackendRef {
    /// The object.
    pub fn reference(&self) -> BackendRef {
        let Self { group, kind, name, namespace, port, .. } = self.clone();
        BackendRef { group, kind, name, namespace, port }
    }
}
