//! `metrics`: what is counted, and by which labels. Waypoints count everything, for Prometheus; what would change that is kept as a fact,
//! for its author to be told.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::common::ProviderRef;
use crate::resources::authorization_policy::null_as_default;
use crate::resources::field::{FieldError, FieldPath};

/// What some providers are given.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metrics {
    /// Who takes them. None: whom a less specific Telemetry names.
    #[serde(default, deserialize_with = "null_as_default")]
    pub providers: Vec<ProviderRef>,
    /// Not followed.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub overrides: Value,
    /// Refused: Prometheus asks when it likes.
    pub reporting_interval: Option<String>,
}

impl Metrics {
    /// It changes what is counted.
    pub fn changes(&self) -> bool {
        match &self.overrides {
            Value::Null => false,
            Value::Array(overrides) => !overrides.is_empty(),
            _ => true,
        }
    }
}

/// Checks what the types alone do not.
pub(super) fn validate(entries: &[Metrics], path: &FieldPath) -> Result<(), FieldError> {
    for (i, entry) in entries.iter().enumerate() {
        let path = path.index(i);
        if entry.reporting_interval.is_some() {
            let path = path.field("reportingInterval");
            return Err(path.error("is not followed: Prometheus asks for metrics when it likes, so leave it out"));
        }
        if let Some(i) = entry.providers.iter().position(|provider| provider.name.is_empty()) {
            return Err(path.field("providers").index(i).field("name").error("must not be empty"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::resources::{Kind, Object};

    fn read(entries: &Value) -> Result<(), String> {
        let object = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"metrics": entries}});
        Object::from_value(Kind::Telemetry, &object).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        assert_eq!(read(&json!([{"providers": [{"name": "prometheus"}], "overrides": [{"disabled": true}]}])), Ok(()));
        for (entry, expected) in [
            (json!({"reportingInterval": "5s"}), "reportingInterval: is not followed"),
            (json!({"providers": [{"name": ""}]}), "providers[0].name: must not be empty"),
            (json!({"provider": "a"}), "provider: unknown field `provider`: did you mean `providers`"),
        ] {
            let error = read(&json!([entry])).unwrap_err();
            assert!(error.starts_with(&format!("spec.metrics[0].{expected}")), "{error} instead of {expected}");
        }
    }
}
