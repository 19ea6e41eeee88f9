//! Istio's mesh configuration: the key `mesh` of the ConfigMap `istio`. What is read of it: who can be asked about requests,
//! who is sent traces, and who writes logs ([`provider`]).
//!
//! The rest of it is about proxies that are not ours, or is set elsewhere: it is named to whoever looks, and never silently left
//! out ([`MeshConfig::unread`]).

pub mod provider;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::NamespacedName;
use serde_json::{Map, Value};

use super::field::{FieldError, FieldPath};
use super::strict;
pub use provider::{ExtAuthz, ExtAuthzHttp, Host, OpenTelemetry, Provider};

/// The key of the ConfigMap.
const KEY: &str = "mesh";
/// Most extension providers: a mesh has a few.
const MOST: usize = 100;

/// What is read of a mesh configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MeshConfig {
    /// Of the ConfigMap: which one it is.
    pub metadata: ObjectMeta,
    /// `extensionProviders`, by name.
    pub extension_providers: BTreeMap<String, Provider>,
    /// `defaultProviders.tracing`: who is sent traces where no Telemetry says otherwise.
    pub tracing: Vec<String>,
    /// `defaultProviders.accessLogging`: who logs requests where no Telemetry says otherwise.
    pub access_logging: Vec<String>,
    /// What is written and not read, field by field.
    pub unread: Vec<String>,
}

/// Whether an object that is a ConfigMap is one that holds a mesh configuration: `istio`, or `istio-REVISION`.
pub fn is_one(value: &Value) -> bool {
    let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    (name == "istio" || name.starts_with("istio-")) && value.pointer("/data/mesh").is_some()
}

/// Checks that it can be read at all. What is wrong in one provider is that provider's.
///
/// # Errors
/// Names what is wrong.
pub fn validate(object: &ConfigMap) -> Result<(), FieldError> {
    read(object).map(drop)
}

impl MeshConfig {
    /// Of a ConfigMap that [`validate`] has found good; of another it is empty, and so nobody can be asked.
    pub fn of(object: &ConfigMap) -> Self {
        let ObjectMeta { name, namespace, .. } = object.metadata.clone();
        let metadata = ObjectMeta { name, namespace, ..ObjectMeta::default() };
        Self { metadata, ..read(object).unwrap_or_default() }
    }

    /// Whether a provider may be this Service, in whatever domain.
    pub fn names(&self, service: &NamespacedName) -> bool {
        let begins = |name: &str| {
            let rest = name.strip_prefix(&*service.name).and_then(|rest| rest.strip_prefix('.'));
            rest.and_then(|rest| rest.strip_prefix(&*service.namespace)).is_some_and(|rest| rest.starts_with(".svc"))
        };
        self.extension_providers.values().filter_map(Provider::host).any(|host| begins(&host.name))
    }
}

fn read(object: &ConfigMap) -> Result<MeshConfig, FieldError> {
    let at = FieldPath::of("data").field(KEY);
    let text = object.data.as_ref().and_then(|data| data.get(KEY)).map_or("", String::as_str);
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 32, max_nodes: 50_000, max_events: 100_000, max_aliases: 100 },
        with_snippet: false,
    };
    if text.trim().is_empty() {
        return Ok(MeshConfig::default());
    }
    let value: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| at.error(format!("no YAML: {}", error.without_snippet())))?;
    let mut config = MeshConfig::default();
    let fields = match value {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        _ => return Err(at.error("expected a MeshConfig: fields such as extensionProviders")),
    };
    for (name, value) in fields {
        match &*name {
            "extensionProviders" => config.providers(value, &at.field(&name))?,
            "defaultProviders" => config.defaults(value, &at.field(&name))?,
            "accessLogFile" => config.access_log_file(&value),
            _ => config.unread.push(name),
        }
    }
    for name in &config.access_logging {
        match config.extension_providers.get(name) {
            Some(Provider::FileAccessLog) => {}
            None if name == provider::BUILT_IN_LOG => {}
            _ => config.unread.push(format!(
                "defaultProviders.accessLogging ({name}): nobody who writes a log: name {}, or one of kind envoyFileAccessLog",
                provider::BUILT_IN_LOG
            )),
        }
    }
    Ok(config)
}

impl MeshConfig {
    fn providers(&mut self, value: Value, at: &FieldPath) -> Result<(), FieldError> {
        let list = match value {
            Value::Array(list) => list,
            Value::Null => Vec::new(),
            _ => return Err(at.error("expected a list of providers")),
        };
        if list.len() > MOST {
            return Err(at.error(format!("{} providers: at most {MOST} are read", list.len())));
        }
        for (i, value) in list.into_iter().enumerate() {
            let name = value.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            if name.is_empty() {
                return Err(at.index(i).field("name").error("missing: policies name it"));
            }
            if self.extension_providers.contains_key(&name) {
                return Err(at.index(i).field("name").error(format!("{name:?} is there twice: keep one of them")));
            }
            let provider = match strict::read::<provider::Written>(&value) {
                Ok(written) => written.provider(),
                Err(FieldError { path, message }) => Provider::Unusable(match path.0.is_empty() {
                    true => message,
                    false => format!("{path}: {message}"),
                }),
            };
            if let Provider::Unusable(why) = &provider {
                self.unread.push(format!("extensionProviders[{i}] ({name}): {why}"));
            }
            self.extension_providers.insert(name, provider);
        }
        Ok(())
    }

    /// As it is in any case. Istio's own default, nothing, is not one that a user has chosen.
    fn access_log_file(&mut self, value: &Value) {
        if !matches!(value.as_str(), Some("" | "/dev/stdout")) {
            self.unread.push(format!("accessLogFile: {value}: a waypoint writes to its standard output"));
        }
    }

    fn defaults(&mut self, value: Value, at: &FieldPath) -> Result<(), FieldError> {
        let fields = match value {
            Value::Object(fields) => fields,
            Value::Null => Map::new(),
            _ => return Err(at.error("expected lists of providers by what they are for: tracing, accessLogging")),
        };
        for (name, value) in fields {
            let list = match &*name {
                "tracing" => &mut self.tracing,
                "accessLogging" => &mut self.access_logging,
                _ => {
                    self.unread.push(format!("defaultProviders.{name}"));
                    continue;
                }
            };
            let names = serde_json::from_value::<Option<Vec<String>>>(value);
            *list = names.map_err(|_| at.field(&name).error("expected a list of names"))?.unwrap_or_default();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
