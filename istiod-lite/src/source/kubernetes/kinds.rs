//! Where an API server has each kind, and how much is read of its objects. Pure.

use mesh_kube::{Query, Raw, Resource};
use mesh_model::address::NamespacedName;

use crate::cluster::Kept;
use crate::resources::{Key, Kind, Object, gateway_api, traffic_policy};
use crate::source::{Origin, Rejected};

/// An object, or what is wrong with it.
pub type Read = Result<Kept, Box<Rejected>>;

/// Every kind that is read.
pub const ALL: [Kind; 23] = [
    Kind::Namespace,
    Kind::Node,
    Kind::ServiceAccount,
    Kind::Pod,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Endpoints,
    Kind::AuthorizationPolicy,
    Kind::PeerAuthentication,
    Kind::RequestAuthentication,
    Kind::GatewayClass,
    Kind::Gateway,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TcpRoute,
    Kind::TlsRoute,
    Kind::ServiceEntry,
    Kind::WorkloadEntry,
    Kind::DestinationRule,
    Kind::VirtualService,
    Kind::ConfigMap,
    Kind::Telemetry,
    Kind::TrafficPolicy,
];

/// Where a kind is.
pub const fn resource(kind: Kind) -> Resource {
    const fn security(plural: &'static str) -> Resource {
        Resource { group: "security.istio.io", versions: &["v1", "v1beta1"], plural }
    }
    const fn gateway(plural: &'static str) -> Resource {
        Resource { group: gateway_api::GROUP, versions: &["v1", "v1beta1"], plural }
    }
    const fn networking(plural: &'static str) -> Resource {
        Resource { group: "networking.istio.io", versions: &["v1", "v1beta1", "v1alpha3"], plural }
    }
    match kind {
        Kind::Namespace => Resource::core("namespaces"),
        Kind::Node => Resource::core("nodes"),
        Kind::ServiceAccount => Resource::core("serviceaccounts"),
        Kind::Pod => Resource::core("pods"),
        Kind::Service => Resource::core("services"),
        Kind::EndpointSlice => Resource { group: "discovery.k8s.io", versions: &["v1"], plural: "endpointslices" },
        Kind::Endpoints => Resource::core("endpoints"),
        Kind::AuthorizationPolicy => security("authorizationpolicies"),
        Kind::PeerAuthentication => security("peerauthentications"),
        Kind::RequestAuthentication => security("requestauthentications"),
        Kind::GatewayClass => gateway("gatewayclasses"),
        Kind::Gateway => gateway("gateways"),
        Kind::HttpRoute => gateway("httproutes"),
        Kind::GrpcRoute => Resource { group: gateway_api::GROUP, versions: &["v1"], plural: "grpcroutes" },
        Kind::TcpRoute => Resource { group: gateway_api::GROUP, versions: &["v1", "v1alpha2"], plural: "tcproutes" },
        Kind::TlsRoute => {
            Resource { group: gateway_api::GROUP, versions: &["v1", "v1alpha3", "v1alpha2"], plural: "tlsroutes" }
        }
        Kind::ServiceEntry => networking("serviceentries"),
        Kind::WorkloadEntry => networking("workloadentries"),
        Kind::DestinationRule => networking("destinationrules"),
        Kind::VirtualService => networking("virtualservices"),
        Kind::ConfigMap => Resource::core("configmaps"),
        Kind::Telemetry => {
            Resource { group: "telemetry.istio.io", versions: &["v1", "v1alpha1"], plural: "telemetries" }
        }
        Kind::TrafficPolicy => {
            Resource { group: traffic_policy::GROUP, versions: &["v1alpha1"], plural: "trafficpolicies" }
        }
    }
}

/// What is asked for: everything, but of ConfigMaps only the one with the mesh configuration. The others are not our business,
/// and nobody has to grant that they are read.
pub(super) fn query(kind: Kind, mesh_config: &NamespacedName) -> Query {
    let all = Query::all(resource(kind));
    match kind {
        Kind::ConfigMap => Query {
            namespace: Some(mesh_config.namespace.to_string()),
            fields: format!("metadata.name={}", mesh_config.name),
            ..all
        },
        _ => all,
    }
}

/// Reads an object, as it comes: what is not kept of it is not held until it is published.
pub(crate) fn read(kind: Kind, raw: &Raw<'_>) -> Read {
    let meta = &raw.meta;
    let object = Object::from_server(kind, raw.text).map_err(|invalid| {
        Box::new(Rejected {
            origin: Origin::Cluster { resource_version: meta.resource_version.clone(), generation: meta.generation },
            kind: Some(kind.as_str().to_owned()),
            namespace: Some(meta.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(meta.name.clone()),
            field: Some(invalid.path.to_string()).filter(|field| !field.is_empty()),
            message: invalid.message,
            last_good_kept: false,
        })
    })?;
    Ok(object.into())
}

/// The key of an object that cannot be read.
pub(super) fn key(kind: Kind, rejected: &Rejected) -> Key {
    Key::new(kind, rejected.namespace.as_deref(), rejected.name.as_deref().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::resources::Recognized;

    /// Whatever is recognised in a file is asked for under the same group and version.
    #[test]
    fn kinds_are_asked_for_as_files_name_them() {
        for kind in ALL {
            let Resource { group, versions, plural } = resource(kind);
            assert!(plural.starts_with(&kind.as_str().to_lowercase()[..3]), "{kind}");
            for version in versions {
                let api_version = if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") };
                assert_eq!(Kind::recognize(&api_version, kind.as_str()), Recognized::Read(kind));
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let of = |kind, value: &Value| {
            let text = value.to_string();
            let meta = serde_json::from_value(value["metadata"].clone()).unwrap();
            read(kind, &Raw { meta, text: &text })
        };
        let metadata = json!({"name": "deny", "namespace": "shop", "resourceVersion": "7", "generation": 2});
        let spec = json!({"rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/99"]}}]}]});
        let error = of(Kind::AuthorizationPolicy, &json!({"metadata": metadata, "spec": spec})).unwrap_err();
        assert_eq!(key(Kind::AuthorizationPolicy, &error).to_string(), "AuthorizationPolicy shop/deny");
        let text = error.to_string();
        let expected =
            "cluster, generation 2: AuthorizationPolicy shop/deny: spec.rules[0].from[0].source.ipBlocks[0]: ";
        assert!(text.starts_with(expected), "{text}");
        assert!(of(Kind::Node, &json!({"metadata": {"name": "n1"}})).is_ok());
    }
}
