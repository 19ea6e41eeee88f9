//! The Kubernetes kinds we read, as types.
//!
//! Core kinds are `k8s-openapi`'s, Istio's two policy kinds are our own. All are read by `strict`, which refuses a field
//! that the kind does not have: a typing mistake must never make an object say less than its author wrote. `life` says
//! where a pod is in its life.

pub mod authorization_policy;
mod defaults;
pub mod field;
pub mod labels;
pub(crate) mod life;
pub mod peer_authentication;
mod strict;
pub mod unread;
mod validate;

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::NamespacedName;
use serde::{Deserialize, Serialize};

pub use authorization_policy::AuthorizationPolicy;
pub use field::{FieldError, FieldPath};
pub use peer_authentication::PeerAuthentication;

/// The kinds we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Core v1.
    Namespace,
    /// Core v1.
    Node,
    /// Core v1.
    ServiceAccount,
    /// Core v1.
    Pod,
    /// Core v1.
    Service,
    /// `discovery.k8s.io/v1`.
    EndpointSlice,
    /// Core v1: the older form of slices.
    Endpoints,
    /// `security.istio.io/v1` and `v1beta1`.
    AuthorizationPolicy,
    /// `security.istio.io/v1` and `v1beta1`.
    PeerAuthentication,
}

/// What becomes of an object, told by its `apiVersion` and `kind` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognized {
    /// Read.
    Read(Kind),
    /// A kind of a group we know, in a version we do not.
    WrongVersion,
    /// Not read.
    Unread(unread::Unread),
    /// A word that is almost a kind we read.
    Misspelt(&'static str),
}

impl Kind {
    /// The word in the object's `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::ServiceAccount => "ServiceAccount",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
        }
    }

    /// False for the kinds that stand above namespaces.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }

    /// Recognises a kind by `apiVersion` and `kind`.
    pub fn recognize(api_version: &str, kind: &str) -> Recognized {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let read = match (group, kind) {
            ("", "Namespace") => Self::Namespace,
            ("", "Node") => Self::Node,
            ("", "ServiceAccount") => Self::ServiceAccount,
            ("", "Pod") => Self::Pod,
            ("", "Service") => Self::Service,
            ("", "Endpoints") => Self::Endpoints,
            ("discovery.k8s.io", "EndpointSlice") => Self::EndpointSlice,
            ("security.istio.io", "AuthorizationPolicy") => Self::AuthorizationPolicy,
            ("security.istio.io", "PeerAuthentication") => Self::PeerAuthentication,
            _ => return unread::recognize(group, kind),
        };
        let versions: &[&str] = if group == "security.istio.io" { &["v1", "v1beta1"] } else { &["v1"] };
        if versions.contains(&version) { Recognized::Read(read) } else { Recognized::WrongVersion }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an object is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Empty for kinds without a namespace.
    #[serde(serialize_with = "text", deserialize_with = "from_text", skip_serializing_if = "str::is_empty", default)]
    pub namespace: Arc<str>,
    /// Its name.
    #[serde(serialize_with = "text", deserialize_with = "from_text")]
    pub name: Arc<str>,
}

fn text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn from_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(deserializer).map(Arc::from)
}

impl Key {
    /// From its parts; the namespace of a kind without one is dropped, a missing one is `default`.
    pub fn new(kind: Kind, namespace: Option<&str>, name: &str) -> Self {
        let namespace = match namespace {
            _ if !kind.is_namespaced() => "",
            None | Some("") => "default",
            Some(namespace) => namespace,
        };
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// The same without its kind.
    pub fn object(&self) -> NamespacedName {
        NamespacedName::new(self.namespace.clone(), self.name.clone())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// One object of a kind we read. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A namespace.
    Namespace(Arc<Namespace>),
    /// A node.
    Node(Arc<Node>),
    /// A service account.
    ServiceAccount(Arc<ServiceAccount>),
    /// A pod.
    Pod(Arc<Pod>),
    /// A service.
    Service(Arc<Service>),
    /// Endpoints of a service.
    EndpointSlice(Arc<EndpointSlice>),
    /// Endpoints of a service, in the older form.
    Endpoints(Arc<Endpoints>),
    /// Who may talk to whom.
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    /// Whether plaintext is taken.
    PeerAuthentication(Arc<PeerAuthentication>),
}

/// Why an object could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct InvalidObject {
    /// The field.
    pub path: FieldPath,
    /// What is wrong with it, and what to write instead.
    pub message: String,
}

impl From<FieldError> for InvalidObject {
    fn from(e: FieldError) -> Self {
        Self { path: e.path, message: e.message }
    }
}

impl Object {
    /// Reads an object of a kind, and checks it as the API server would.
    ///
    /// # Errors
    /// Names the first field that is wrong.
    pub fn from_value(kind: Kind, value: &serde_json::Value) -> Result<Self, InvalidObject> {
        fn typed<T: serde::de::DeserializeOwned>(value: &serde_json::Value) -> Result<Arc<T>, FieldError> {
            strict::read(value).map(Arc::new)
        }
        let object = match kind {
            Kind::Namespace => Self::Namespace(typed(value)?),
            Kind::Node => Self::Node(typed(value)?),
            Kind::ServiceAccount => Self::ServiceAccount(typed(value)?),
            Kind::Pod => {
                let mut pod = typed(value)?;
                defaults::pod(Arc::make_mut(&mut pod));
                Self::Pod(pod)
            }
            Kind::Service => Self::Service(typed(value)?),
            Kind::EndpointSlice => Self::EndpointSlice(typed(value)?),
            Kind::Endpoints => Self::Endpoints(typed(value)?),
            Kind::AuthorizationPolicy => Self::AuthorizationPolicy(typed(value)?),
            Kind::PeerAuthentication => Self::PeerAuthentication(typed(value)?),
        };
        validate::object(&object)?;
        Ok(object)
    }

    /// The value that [`Self::from_value`] reads it from.
    ///
    /// # Errors
    /// None in practice: every kind has a JSON form.
    pub fn to_value(&self) -> serde_json::Result<serde_json::Value> {
        match self {
            Self::Namespace(o) => serde_json::to_value(&**o),
            Self::Node(o) => serde_json::to_value(&**o),
            Self::ServiceAccount(o) => serde_json::to_value(&**o),
            Self::Pod(o) => serde_json::to_value(&**o),
            Self::Service(o) => serde_json::to_value(&**o),
            Self::EndpointSlice(o) => serde_json::to_value(&**o),
            Self::Endpoints(o) => serde_json::to_value(&**o),
            Self::AuthorizationPolicy(o) => serde_json::to_value(&**o),
            Self::PeerAuthentication(o) => serde_json::to_value(&**o),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::PeerAuthentication(_) => Kind::PeerAuthentication,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Namespace(o) => &o.metadata,
            Self::Node(o) => &o.metadata,
            Self::ServiceAccount(o) => &o.metadata,
            Self::Pod(o) => &o.metadata,
            Self::Service(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
            Self::Endpoints(o) => &o.metadata,
            Self::AuthorizationPolicy(o) => &o.metadata,
            Self::PeerAuthentication(o) => &o.metadata,
        }
    }

    /// What it is known by.
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        Key::new(self.kind(), metadata.namespace.as_deref(), metadata.name.as_deref().unwrap_or(""))
    }
}

#[cfg(test)]
mod tests {
    use super::unread::Unread;
    use super::*;

    #[test]
    fn kinds_are_recognised_by_group_and_version() {
        for (api, kind, expected) in [
            ("v1", "Pod", Recognized::Read(Kind::Pod)),
            ("security.istio.io/v1", "AuthorizationPolicy", Recognized::Read(Kind::AuthorizationPolicy)),
            ("security.istio.io/v1beta1", "PeerAuthentication", Recognized::Read(Kind::PeerAuthentication)),
            ("security.istio.io/v1alpha1", "PeerAuthentication", Recognized::WrongVersion),
            ("discovery.k8s.io/v1beta1", "EndpointSlice", Recognized::WrongVersion),
            ("apps/v1", "Deployment", Recognized::Unread(Unread::SaysNothing)),
            ("v1", "ConfigMap", Recognized::Unread(Unread::SaysNothing)),
            ("networking.k8s.io/v1", "NetworkPolicy", Recognized::Unread(Unread::NotEnforced)),
            ("networking.istio.io/v1", "DestinationRule", Recognized::Unread(Unread::NotEnforced)),
            ("networking.istio.io/v1", "ServiceEntry", Recognized::Unread(Unread::NotEnforced)),
            ("v1", "Podd", Recognized::Misspelt("Pod")),
            ("security.istio.io/v1", "AuthorisationPolicy", Recognized::Misspelt("AuthorizationPolicy")),
            ("example.com/v1", "Pod", Recognized::Unread(Unread::Unknown)),
            ("cert-manager.io/v1", "Certificate", Recognized::Unread(Unread::Unknown)),
        ] {
            assert_eq!(Kind::recognize(api, kind), expected, "{api} {kind}");
        }
    }

    #[test]
    fn keys_fill_in_the_namespace() {
        assert_eq!(Key::new(Kind::Pod, None, "a").to_string(), "Pod default/a");
        assert_eq!(Key::new(Kind::Namespace, Some("x"), "a").to_string(), "Namespace a");
    }
}
