//! As much of an object of a cluster as those read who write on it.

use mesh_kube::Resource;
use serde::Deserialize;
use serde_json::Value;

use super::conditions::Written;

/// As much of an object as is read.
#[derive(Deserialize)]
pub(super) struct Object {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: ObjectSpec,
    #[serde(default)]
    pub(super) status: ObjectStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) uid: String,
    #[serde(default)]
    pub(super) resource_version: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ObjectSpec {
    /// Of a route.
    pub(super) parent_refs: Option<Vec<Value>>,
    /// Of a traffic policy.
    pub(super) target_refs: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
pub(super) struct ObjectStatus {
    #[serde(default)]
    pub(super) conditions: Vec<Written>,
    /// Of a route.
    #[serde(default)]
    pub(super) parents: Vec<Value>,
    /// Of a traffic policy.
    #[serde(default)]
    pub(super) ancestors: Vec<Value>,
}

/// As objects name their group and version.
pub(super) fn api_version(resource: Resource) -> String {
    let version = resource.versions[0];
    if resource.group.is_empty() { version.to_owned() } else { format!("{}/{version}", resource.group) }
}
