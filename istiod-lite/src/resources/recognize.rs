//! What becomes of an object, told by its `apiVersion` and `kind` alone.

use mesh_runtime::nearest::nearest;

use super::kind::Kind;
use super::unread::Unread;

/// What becomes of an object, told by its `apiVersion` and `kind` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognized {
    /// Read.
    Read(Kind),
    /// A kind of a group we know, in a version we do not.
    WrongVersion,
    /// Not read.
    Unread(Unread),
    /// A word that is almost a kind we read.
    Misspelt(&'static str),
}

/// Core kinds that say nothing to the mesh.
const CORE: [&str; 7] = [
    "Secret",
    "PersistentVolumeClaim",
    "PersistentVolume",
    "LimitRange",
    "ResourceQuota",
    "Event",
    "ReplicationController",
];
/// Groups of kinds that say nothing to the mesh.
const GROUPS: [&str; 12] = [
    "apps",
    "batch",
    "autoscaling",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "scheduling.k8s.io",
    "apiextensions.k8s.io",
    "kustomize.config.k8s.io",
    "admissionregistration.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
];
/// Groups whose kinds say something about traffic that Ambit does not do.
const TRAFFIC: [&str; 8] = [
    "networking.k8s.io",
    "policy.networking.k8s.io",
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
    "gateway.networking.k8s.io",
    "ambit.dev",
];

/// Kinds that there are, though their names are almost those of kinds we read.
const KNOWN: [&str; 1] = ["UDPRoute"];

impl Kind {
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
            // Whoever reads it looks whether it holds what is read ([`super::mesh_config::is_one`]).
            ("", "ConfigMap") => Self::ConfigMap,
            ("discovery.k8s.io", "EndpointSlice") => Self::EndpointSlice,
            ("security.istio.io", "AuthorizationPolicy") => Self::AuthorizationPolicy,
            ("security.istio.io", "PeerAuthentication") => Self::PeerAuthentication,
            ("security.istio.io", "RequestAuthentication") => Self::RequestAuthentication,
            ("gateway.networking.k8s.io", "GatewayClass") => Self::GatewayClass,
            ("gateway.networking.k8s.io", "Gateway") => Self::Gateway,
            ("gateway.networking.k8s.io", "HTTPRoute") => Self::HttpRoute,
            ("gateway.networking.k8s.io", "GRPCRoute") => Self::GrpcRoute,
            ("gateway.networking.k8s.io", "TCPRoute") => Self::TcpRoute,
            ("gateway.networking.k8s.io", "TLSRoute") => Self::TlsRoute,
            ("networking.istio.io", "ServiceEntry") => Self::ServiceEntry,
            ("networking.istio.io", "WorkloadEntry") => Self::WorkloadEntry,
            ("networking.istio.io", "DestinationRule") => Self::DestinationRule,
            ("networking.istio.io", "VirtualService") => Self::VirtualService,
            ("telemetry.istio.io", "Telemetry") => Self::Telemetry,
            ("ambit.dev", "TrafficPolicy") => Self::TrafficPolicy,
            _ => return unread(group, kind),
        };
        let versions: &[&str] = match group {
            "gateway.networking.k8s.io" => match read {
                Self::GrpcRoute => &["v1"],
                Self::TcpRoute => &["v1", "v1alpha2"],
                Self::TlsRoute => &["v1", "v1alpha3", "v1alpha2"],
                _ => &["v1", "v1beta1"],
            },
            "security.istio.io" => &["v1", "v1beta1"],
            "networking.istio.io" => &["v1", "v1beta1", "v1alpha3"],
            "telemetry.istio.io" => &["v1", "v1alpha1"],
            "ambit.dev" => &["v1alpha1"],
            _ => &["v1"],
        };
        if versions.contains(&version) { Recognized::Read(read) } else { Recognized::WrongVersion }
    }
}

/// For a kind that is not read.
fn unread(group: &str, kind: &str) -> Recognized {
    let read: &[&'static str] = match group {
        "" => &["Namespace", "Node", "ServiceAccount", "Pod", "Service", "Endpoints", "ConfigMap"],
        "discovery.k8s.io" => &["EndpointSlice"],
        "security.istio.io" => &["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"],
        "gateway.networking.k8s.io" => &["GatewayClass", "Gateway", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"],
        "networking.istio.io" => &["ServiceEntry", "WorkloadEntry", "DestinationRule", "VirtualService"],
        "telemetry.istio.io" => &["Telemetry"],
        "ambit.dev" => &["TrafficPolicy"],
        _ => &[],
    };
    if group.is_empty() && CORE.contains(&kind) || GROUPS.contains(&group) {
        return Recognized::Unread(Unread::SaysNothing);
    }
    match nearest(kind, read.iter().copied()).filter(|_| !KNOWN.contains(&kind)) {
        Some(meant) => Recognized::Misspelt(meant),
        None if TRAFFIC.contains(&group) => Recognized::Unread(Unread::NotEnforced),
        None => Recognized::Unread(Unread::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_recognised_by_group_and_version() {
        for (api, kind, expected) in [
            ("v1", "Pod", Recognized::Read(Kind::Pod)),
            ("security.istio.io/v1", "AuthorizationPolicy", Recognized::Read(Kind::AuthorizationPolicy)),
            ("security.istio.io/v1beta1", "PeerAuthentication", Recognized::Read(Kind::PeerAuthentication)),
            ("security.istio.io/v1", "RequestAuthentication", Recognized::Read(Kind::RequestAuthentication)),
            ("security.istio.io/v1alpha1", "PeerAuthentication", Recognized::WrongVersion),
            ("discovery.k8s.io/v1beta1", "EndpointSlice", Recognized::WrongVersion),
            ("apps/v1", "Deployment", Recognized::Unread(Unread::SaysNothing)),
            ("v1", "ConfigMap", Recognized::Read(Kind::ConfigMap)),
            ("networking.k8s.io/v1", "NetworkPolicy", Recognized::Unread(Unread::NotEnforced)),
            ("gateway.networking.k8s.io/v1", "HTTPRoute", Recognized::Read(Kind::HttpRoute)),
            ("gateway.networking.k8s.io/v1beta1", "Gateway", Recognized::Read(Kind::Gateway)),
            ("gateway.networking.k8s.io/v1beta1", "GRPCRoute", Recognized::WrongVersion),
            ("gateway.networking.k8s.io/v1", "HttpRoute", Recognized::Misspelt("HTTPRoute")),
            ("gateway.networking.k8s.io/v1", "TCPRoute", Recognized::Read(Kind::TcpRoute)),
            ("gateway.networking.k8s.io/v1alpha2", "TCPRoute", Recognized::Read(Kind::TcpRoute)),
            ("gateway.networking.k8s.io/v1alpha3", "TCPRoute", Recognized::WrongVersion),
            ("gateway.networking.k8s.io/v1alpha3", "TLSRoute", Recognized::Read(Kind::TlsRoute)),
            ("gateway.networking.k8s.io/v1beta1", "TLSRoute", Recognized::WrongVersion),
            ("gateway.networking.k8s.io/v1alpha2", "UDPRoute", Recognized::Unread(Unread::NotEnforced)),
            ("networking.istio.io/v1alpha3", "DestinationRule", Recognized::Read(Kind::DestinationRule)),
            ("telemetry.istio.io/v1", "Telemetry", Recognized::Read(Kind::Telemetry)),
            ("telemetry.istio.io/v1alpha1", "Telemetry", Recognized::Read(Kind::Telemetry)),
            ("telemetry.istio.io/v1beta1", "Telemetry", Recognized::WrongVersion),
            ("networking.istio.io/v1", "VirtualService", Recognized::Read(Kind::VirtualService)),
            ("networking.istio.io/v1", "EnvoyFilter", Recognized::Unread(Unread::NotEnforced)),
            ("ambit.dev/v1alpha1", "TrafficPolicy", Recognized::Read(Kind::TrafficPolicy)),
            ("ambit.dev/v1", "TrafficPolicy", Recognized::WrongVersion),
            ("ambit.dev/v1alpha1", "TraficPolicy", Recognized::Misspelt("TrafficPolicy")),
            ("networking.istio.io/v1", "WorkloadGroup", Recognized::Unread(Unread::NotEnforced)),
            ("networking.istio.io/v1alpha3", "ServiceEntry", Recognized::Read(Kind::ServiceEntry)),
            ("networking.istio.io/v1beta1", "WorkloadEntry", Recognized::Read(Kind::WorkloadEntry)),
            ("networking.istio.io/v1", "ServicEntry", Recognized::Misspelt("ServiceEntry")),
            ("networking.istio.io/v2", "ServiceEntry", Recognized::WrongVersion),
            ("v1", "Podd", Recognized::Misspelt("Pod")),
            ("security.istio.io/v1", "AuthorisationPolicy", Recognized::Misspelt("AuthorizationPolicy")),
            ("example.com/v1", "Pod", Recognized::Unread(Unread::Unknown)),
            ("cert-manager.io/v1", "Certificate", Recognized::Unread(Unread::Unknown)),
        ] {
            assert_eq!(Kind::recognize(api, kind), expected, "{api} {kind}");
        }
    }
}
