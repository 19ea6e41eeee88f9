//! WorkloadEntry: something that runs outside of Kubernetes, such as a virtual machine (`networking.istio.io`). The same fields
//! describe an endpoint of a ServiceEntry.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::canonical_ip;
use mesh_model::identity::DEFAULT_SERVICE_ACCOUNT;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::authorization_policy::null_as_default;
use super::field::{FieldError, FieldPath};
use super::host;

/// Begins the address of a Unix socket.
const UNIX: &str = "unix://";

/// The object.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadEntry {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name, namespace, labels.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What runs, and where.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: WorkloadEntrySpec,
    #[serde(rename = "status", default, skip_serializing)]
    _status: IgnoredAny,
}

/// What runs, and where.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadEntrySpec {
    /// An IP address, a host name, or a Unix socket; may be empty on another network.
    #[serde(default)]
    pub address: String,
    /// Its own ports, by the names of the ports of the service.
    #[serde(default, deserialize_with = "null_as_default")]
    pub ports: BTreeMap<String, u32>,
    /// Its labels.
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
    /// Its network; the cluster's own when empty.
    #[serde(default)]
    pub network: String,
    /// `region/zone/subzone`.
    #[serde(default)]
    pub locality: String,
    /// Its share of the connections; 0 is 1.
    #[serde(default)]
    pub weight: u32,
    /// Whose identity it proves.
    #[serde(default)]
    pub service_account: String,
}

/// What an address is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointAddress {
    /// In normal form.
    Ip(IpAddr),
    /// Resolved by whoever connects. Lower case, without a last dot.
    Host(String),
    /// Nothing that a proxy of another machine could reach.
    Unix,
    /// Known to the gateway of its network.
    None,
}

impl WorkloadEntrySpec {
    /// Whose identity it proves: the namespace's `default` account where it names none.
    pub fn account(&self) -> &str {
        match self.service_account.as_str() {
            "" => DEFAULT_SERVICE_ACCOUNT,
            account => account,
        }
    }

    /// What its address is.
    pub fn endpoint(&self) -> EndpointAddress {
        match self.address.parse() {
            Ok(ip) => EndpointAddress::Ip(canonical_ip(ip)),
            Err(_) if self.address.is_empty() => EndpointAddress::None,
            Err(_) if self.address.starts_with(UNIX) => EndpointAddress::Unix,
            Err(_) => EndpointAddress::Host(host::normal(&self.address)),
        }
    }

    /// Checks it at its place in an object.
    pub(super) fn validate(&self, path: &FieldPath) -> Result<(), FieldError> {
        let address = path.field("address");
        match self.endpoint() {
            EndpointAddress::None if self.network.is_empty() => {
                return Err(address.error("missing: write an IP address or a host name"));
            }
            EndpointAddress::Unix if !self.ports.is_empty() => {
                return Err(path.field("ports").error("a Unix socket has no ports: leave them out"));
            }
            EndpointAddress::Host(_) => host::full_name(&self.address, &address)?,
            EndpointAddress::Ip(_) | EndpointAddress::None | EndpointAddress::Unix => {}
        }
        let ports = path.field("ports");
        for (name, port) in &self.ports {
            host::port_name(name, &ports)?;
            host::port(*port, &ports.field(name))?;
        }
        if let Some(key) = self.labels.keys().find(|key| key.is_empty()) {
            return Err(path.field("labels").field(key).error("a label's key must not be empty"));
        }
        match self.service_account.as_str() {
            "" => Ok(()),
            account => host::dns_name(account, &path.field("serviceAccount")),
        }
    }
}

/// Checks what the types alone do not.
///
/// # Errors
/// Names the first field that is wrong.
pub fn validate(object: &WorkloadEntry) -> Result<(), FieldError> {
    object.spec.validate(&FieldPath::of("spec"))
}
