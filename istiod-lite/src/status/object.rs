//! As much of an object of a cluster as those read who write on it. Whatever else it holds, they can: that it is wrong is what they have to say.

use mesh_kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::conditions::Written;

/// As much of an object as is read.
#[derive(Deserialize)]
pub(super) struct Object {
    pub(super) metadata: Metadata,
    #[serde(default, deserialize_with = "readable")]
    pub(super) spec: ObjectSpec,
    #[serde(default, deserialize_with = "readable")]
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
    #[serde(deserialize_with = "readable")]
    pub(super) parent_refs: Option<Vec<Value>>,
    /// Of a traffic policy.
    #[serde(deserialize_with = "readable")]
    pub(super) target_refs: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
pub(super) struct ObjectStatus {
    /// Those that cannot be read are none of ours.
    #[serde(default, deserialize_with = "readable_of")]
    pub(super) conditions: Vec<Written>,
    /// Of a route.
    #[serde(default, deserialize_with = "readable")]
    pub(super) parents: Vec<Value>,
    /// Of a traffic policy.
    #[serde(default, deserialize_with = "readable")]
    pub(super) ancestors: Vec<Value>,
}

/// What is there, or nothing, if it is something else.
fn readable<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(from: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).unwrap_or_default())
}

/// Of a list, what can be read.
fn readable_of<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<Vec<T>, D::Error> {
    let list: Vec<Value> = readable(from)?;
    Ok(list.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect())
}

/// As objects name their group and version.
pub(super) fn api_version(resource: Resource) -> String {
    let version = resource.versions[0];
    if resource.group.is_empty() { version.to_owned() } else { format!("{}/{version}", resource.group) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_read_of_an_object_keeps_nobody_from_saying_so() {
        let read = |spec: Value, status: Value| -> Object {
            let object = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": spec, "status": status});
            serde_json::from_value(object).unwrap()
        };
        for wrong in [json!("all"), json!(null), json!(["a"]), json!({"targetRefs": "all", "parentRefs": {"a": 1}})] {
            let object = read(wrong.clone(), wrong);
            assert_eq!(
                (object.metadata.uid.as_str(), object.spec.target_refs, object.spec.parent_refs),
                ("u", None, None)
            );
        }
        let condition = json!({"type": "ZtunnelAccepted", "status": "True"});
        let status = json!({"conditions": [{"type": 7}, condition, "b"], "ancestors": 3, "parents": [{"a": 1}]});
        let object = read(json!({"targetRefs": [{"kind": "Service"}]}), status);
        let ObjectStatus { conditions, parents, ancestors } = object.status;
        assert_eq!((conditions.len(), parents.len(), ancestors.len()), (1, 1, 0));
        assert_eq!(object.spec.target_refs.map(|refs| refs.len()), Some(1));
    }
}
