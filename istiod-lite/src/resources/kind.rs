//! Kinds of objects, and what an object is known by.

use std::fmt;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use serde::{Deserialize, Serialize};

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
    /// `security.istio.io/v1` and `v1beta1`.
    RequestAuthentication,
    /// `gateway.networking.k8s.io/v1` and `v1beta1`.
    GatewayClass,
    /// `gateway.networking.k8s.io/v1` and `v1beta1`.
    Gateway,
    /// `gateway.networking.k8s.io/v1` and `v1beta1`.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// `gateway.networking.k8s.io/v1`.
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    /// `gateway.networking.k8s.io/v1` and `v1alpha2`.
    #[serde(rename = "TCPRoute")]
    TcpRoute,
    /// `gateway.networking.k8s.io/v1`, `v1alpha3` and `v1alpha2`.
    #[serde(rename = "TLSRoute")]
    TlsRoute,
    /// `networking.istio.io/v1`, `v1beta1` and `v1alpha3`.
    ServiceEntry,
    /// `networking.istio.io/v1`, `v1beta1` and `v1alpha3`.
    WorkloadEntry,
    /// `networking.istio.io/v1`, `v1beta1` and `v1alpha3`.
    DestinationRule,
    /// `networking.istio.io/v1`, `v1beta1` and `v1alpha3`.
    VirtualService,
    /// Core v1: those that hold a mesh configuration.
    ConfigMap,
    /// `telemetry.istio.io/v1` and `v1alpha1`.
    Telemetry,
    /// `ambit.dev/v1alpha1`: ours.
    TrafficPolicy,
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
            Self::RequestAuthentication => "RequestAuthentication",
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TcpRoute => "TCPRoute",
            Self::TlsRoute => "TLSRoute",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::DestinationRule => "DestinationRule",
            Self::VirtualService => "VirtualService",
            Self::ConfigMap => "ConfigMap",
            Self::Telemetry => "Telemetry",
            Self::TrafficPolicy => "TrafficPolicy",
        }
    }

    /// False for the kinds that stand above namespaces.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node | Self::GatewayClass)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fill_in_the_namespace() {
        assert_eq!(Key::new(Kind::Pod, None, "a").to_string(), "Pod default/a");
        assert_eq!(Key::new(Kind::Namespace, Some("x"), "a").to_string(), "Namespace a");
    }
}
