//! PeerAuthentication: whether a workload takes plaintext (`security.istio.io`).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::authorization_policy::{WorkloadSelector, null_as_default};
use super::field::{FieldError, FieldPath};

/// The object.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerAuthentication {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is asked.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: PeerAuthenticationSpec,
    #[serde(rename = "status", default, skip_serializing)]
    _status: IgnoredAny,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerAuthenticationSpec {
    /// Which workloads; none is the whole namespace, or the whole mesh in the root namespace.
    pub selector: Option<WorkloadSelector>,
    /// For all ports.
    #[serde(default, deserialize_with = "null_as_default")]
    pub mtls: MutualTls,
    /// Exceptions by container port.
    #[serde(default, deserialize_with = "null_as_default")]
    pub port_level_mtls: BTreeMap<String, MutualTls>,
}

/// A mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MutualTls {
    /// `UNSET` when left out.
    #[serde(default)]
    pub mode: Mode,
}

/// Istio's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// As the level above says.
    #[default]
    Unset,
    /// Taken for [`Mode::Permissive`] in ambient.
    Disable,
    /// Both plaintext and mutual TLS are taken.
    Permissive,
    /// Plaintext is refused.
    Strict,
}

impl PeerAuthenticationSpec {
    /// Its exceptions by container port. Call only after [`validate`]: keys that are no port are left out.
    pub fn ports(&self) -> impl Iterator<Item = (u16, Mode)> {
        self.port_level_mtls.iter().filter_map(|(port, mtls)| Some((port.parse().ok()?, mtls.mode)))
    }
}

/// Checks what the type alone does not.
///
/// # Errors
/// Names the first field that is wrong.
pub fn validate(object: &PeerAuthentication) -> Result<(), FieldError> {
    let spec = FieldPath::of("spec");
    let ports = spec.field("portLevelMtls");
    for port in object.spec.port_level_mtls.keys() {
        if !port.parse::<u16>().is_ok_and(|p| p > 0) {
            return Err(ports.field(port).error(format!("{port:?} is not a port: write 1 to 65535")));
        }
    }
    if let Some(selector) = &object.spec.selector {
        selector.validate(&spec.field("selector"))?;
    }
    // As Istio refuses it: exceptions by port belong to chosen workloads.
    let chosen = object.spec.selector.as_ref().is_some_and(|s| !s.match_labels.is_empty());
    if !object.spec.port_level_mtls.is_empty() && !chosen {
        return Err(ports.error("port exceptions need a selector: add spec.selector.matchLabels"));
    }
    Ok(())
}
