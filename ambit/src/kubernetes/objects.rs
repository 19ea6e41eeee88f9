//! What of an object is read. What an API server leaves out is empty here. Pure.
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Labels or annotations.
pub(crate) type Map = BTreeMap<String, String>;

/// Any object.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Object {
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) spec: Value,
    #[serde(default)]
    pub(crate) status: Value,
    /// Of a ConfigMap.
    #[serde(default)]
    pub(crate) data: Map,
    /// Of an Event.
    #[serde(default, rename = "involvedObject")]
    pub(crate) involved: Involved,
    /// Of an Event.
    #[serde(default)]
    pub(crate) message: String,
    /// Of an Event.
    #[serde(default, rename = "lastTimestamp")]
    pub(crate) last: Option<String>,
}

/// Who it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) uid: String,
    pub(crate) generation: Option<i64>,
    pub(crate) labels: Map,
    pub(crate) annotations: Map,
    pub(crate) deletion_timestamp: Option<String>,
}

/// What an Event is about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Involved {
    pub(crate) uid: String,
}

/// A condition of an object's status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) observed_generation: Option<i64>,
}

impl Object {
    /// `namespace/name`, or the name of what is in none.
    pub(crate) fn place(&self) -> String {
        let Metadata { namespace, name, .. } = &self.metadata;
        if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") }
    }

    /// A label's value; empty where it has none.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.metadata.labels.get(name).map_or("", String::as_str)
    }

    /// A text of the spec, by its path.
    pub(crate) fn spec_text(&self, path: &str) -> &str {
        self.spec.pointer(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// It is about the object as it is now, and not as it was before somebody changed it.
    pub(crate) fn is_current(&self, condition: &Condition) -> bool {
        match (condition.observed_generation, self.metadata.generation) {
            (Some(observed), Some(now)) => observed >= now,
            _ => true,
        }
    }

    /// Those of its status.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        conditions(&self.status["conditions"])
    }

    /// Whether the condition `Ready` of a pod or node is true.
    pub(crate) fn is_ready(&self) -> bool {
        self.conditions().iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
    }
}

/// Conditions, as far as they can be read.
pub(crate) fn conditions(list: &Value) -> Vec<Condition> {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(|one| Condition::deserialize(one).ok()).collect()
}
