//! What HTTPRoute and GRPCRoute have in common: parents, backends, matches of headers.

use serde::{Deserialize, Serialize};

use super::GROUP;
use super::backend_ref::{BackendRef, ISTIO};
use super::http_filter::HttpFilter;
use crate::resources::authorization_policy::null_as_default;

/// What a route belongs to: a Service or ServiceEntry, for a mesh.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// The API's own when left out; a Service's is empty, a ServiceEntry's Istio's.
    pub group: Option<String>,
    /// `Gateway` when left out.
    pub kind: Option<String>,
    /// The route's own when left out.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// A listener: Services have none.
    pub section_name: Option<String>,
    /// One port; every one when left out.
    pub port: Option<i64>,
}

impl ParentRef {
    /// A Service, which is what the routes of a mesh are for.
    pub fn is_service(&self) -> bool {
        self.group() == "" && self.kind() == "Service"
    }

    /// A ServiceEntry: the routes of a mesh are for its hosts, too.
    pub fn is_entry(&self) -> bool {
        self.group() == ISTIO && self.kind() == "ServiceEntry"
    }

    /// Its group.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GROUP)
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Gateway")
    }
}

/// Where a rule sends requests.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct WeightedBackend {
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
    /// After those of the rule.
    #[serde(default, deserialize_with = "null_as_default")]
    pub filters: Vec<HttpFilter>,
}

impl WeightedBackend {
    /// The object.
    pub fn reference(&self) -> BackendRef {
        let Self { group, kind, name, namespace, port, .. } = self.clone();
        BackendRef { group, kind, name, namespace, port }
    }
}

/// How values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
pub enum MatchType {
    /// Equal.
    #[default]
    Exact,
    /// All of it, by a regular expression.
    RegularExpression,
}

/// A header or query parameter.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct ValueMatch {
    /// `Exact` when left out.
    #[serde(rename = "type")]
    pub kind: Option<MatchType>,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}
