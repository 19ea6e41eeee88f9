//! `accessLogging`: which requests have a line in the access log.

use mesh_model::access_log::Expression;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::common::{Match, ProviderRef};
use crate::resources::authorization_policy::null_as_default;
use crate::resources::field::{FieldError, FieldPath};

/// Most entries of one object, and most providers of an entry.
const MOST: usize = 16;

/// Which requests are logged by some providers.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct AccessLogging {
    /// Which side of a request it is about.
    #[serde(rename = "match")]
    pub matches: Option<Match>,
    /// Who writes. None: whom a less specific Telemetry names.
    #[serde(default, deserialize_with = "null_as_default")]
    pub providers: Vec<ProviderRef>,
    /// They write nothing.
    pub disabled: Option<bool>,
    /// They write only some lines.
    pub filter: Option<Filter>,
}

/// Which lines are written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Filter {
    /// Those of requests of which this holds.
    #[serde(deserialize_with = "compiled", serialize_with = "written")]
    pub expression: Expression,
}

impl AccessLogging {
    /// It is about requests that come to a waypoint.
    pub fn is_for_servers(&self) -> bool {
        Match::is_for_servers(self.matches.as_ref())
    }
}

fn compiled<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Expression, D::Error> {
    Expression::compile(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn written<S: Serializer>(expression: &Expression, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(expression.source())
}

/// Checks what the types alone do not.
pub(super) fn validate(entries: &[AccessLogging], path: &FieldPath) -> Result<(), FieldError> {
    if entries.len() > MOST {
        return Err(path.error(format!("at most {MOST} entries")));
    }
    for (i, entry) in entries.iter().enumerate() {
        let path = path.index(i).field("providers");
        if entry.providers.len() > MOST {
            return Err(path.error(format!("at most {MOST} providers")));
        }
        if let Some(i) = entry.providers.iter().position(|provider| provider.name.is_empty()) {
            return Err(path.index(i).field("name").error("must not be empty"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::resources::{Kind, Object};

    fn read(entries: &Value) -> Result<(), String> {
        let object = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": {"accessLogging": entries}});
        Object::from_value(Kind::Telemetry, &object).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        let entry = json!({
            "match": {"mode": "SERVER"}, "providers": [{"name": "envoy"}, {"name": "mine"}], "disabled": false,
            "filter": {"expression": "response.code >= 400"},
        });
        assert_eq!(read(&json!([entry, {"disabled": true}, {}])), Ok(()));
        assert_eq!(read(&json!(null)), Ok(()));
        for (field, value, expected) in [
            ("providers", json!([{"name": ""}]), "providers[0].name: must not be empty"),
            ("providers", json!(vec![json!({"name": "a"}); 17]), "providers: at most 16"),
            ("match", json!({"mode": "ALL"}), "match.mode: "),
            ("disable", json!(true), "disable: unknown field `disable`: did you mean `disabled`"),
            (
                "filter",
                json!({"expression": "response.cod == 1"}),
                "filter.expression: at character 1: response.cod is no",
            ),
            ("filter", json!({"expression": ""}), "filter.expression: at character 1: a value is missing"),
            ("filter", json!({"expr": "true"}), "filter.expr: unknown field"),
            ("filter", json!({}), "filter: missing field `expression`"),
        ] {
            let mut entry = entry.clone();
            entry[field] = value;
            let error = read(&json!([entry])).unwrap_err();
            assert!(error.starts_with(&format!("spec.accessLogging[0].{expected}")), "{error} instead of {expected}");
        }
        let error = read(&json!(vec![json!({}); 17])).unwrap_err();
        assert!(error.starts_with("spec.accessLogging: at most 16 entries"), "{error}");
    }
}
