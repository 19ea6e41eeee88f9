//! What the API server would refuse although the types fit: enough of it that a translation never meets nonsense.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::field::{FieldError, FieldPath};
use super::host::dns_name;
use super::kind::Kind;
use super::object::Object;
use super::{
    authorization_policy, destination_rule, gateway_api, mesh_config, peer_authentication, request_authentication,
    service_entry, telemetry, traffic_policy, virtual_service, workload_entry,
};

/// Checks an object.
pub(super) fn object(object: &Object) -> Result<(), FieldError> {
    metadata(object.kind(), object.metadata())?;
    match object {
        Object::Pod(o) => pod(o),
        Object::Service(o) => service(o),
        Object::EndpointSlice(o) => endpoint_slice(o),
        Object::Endpoints(o) => endpoints(o),
        Object::AuthorizationPolicy(o) => authorization_policy::validate(o),
        Object::PeerAuthentication(o) => peer_authentication::validate(o),
        Object::RequestAuthentication(o) => request_authentication::validate(o),
        Object::GatewayClass(o) => gateway_api::validate_class(o),
        Object::Gateway(o) => gateway_api::validate_gateway(o),
        Object::HttpRoute(o) => gateway_api::validate_http_route(o),
        Object::GrpcRoute(o) => gateway_api::validate_grpc_route(o),
        Object::TcpRoute(o) => gateway_api::validate_tcp_route(o),
        Object::TlsRoute(o) => gateway_api::validate_tls_route(o),
        Object::ServiceEntry(o) => service_entry::validate(o),
        Object::WorkloadEntry(o) => workload_entry::validate(o),
        Object::DestinationRule(o) => destination_rule::validate(o),
        Object::VirtualService(o) => virtual_service::validate(o),
        Object::ConfigMap(o) => mesh_config::validate(o),
        Object::Telemetry(o) => telemetry::validate(o),
        Object::TrafficPolicy(o) => traffic_policy::validate(o),
        Object::Namespace(_) | Object::Node(_) | Object::ServiceAccount(_) => Ok(()),
    }
}

fn metadata(kind: Kind, metadata: &ObjectMeta) -> Result<(), FieldError> {
    let path = FieldPath::of("metadata");
    match metadata.name.as_deref() {
        None | Some("") if metadata.generate_name.is_some() => {
            return Err(path.field("generateName").error("nothing here generates names: give it a name"));
        }
        None | Some("") => return Err(path.field("name").error("missing: give it a name")),
        Some(name) => dns_name(name, &path.field("name"))?,
    }
    match metadata.namespace.as_deref() {
        Some(namespace) if kind.is_namespaced() && !namespace.is_empty() => {
            dns_name(namespace, &path.field("namespace"))
        }
        _ => Ok(()),
    }
}

fn pod(pod: &Pod) -> Result<(), FieldError> {
    if let Some(spec) = &pod.spec {
        let containers = FieldPath::of("spec.containers");
        for (i, container) in spec.containers.iter().enumerate() {
            for (j, port) in container.ports.iter().flatten().enumerate() {
                number(port.container_port, &containers.index(i).field("ports").index(j).field("containerPort"))?;
            }
        }
        if let Some(account) = spec.service_account_name.as_deref().filter(|a| !a.is_empty()) {
            dns_name(account, &FieldPath::of("spec.serviceAccountName"))?;
        }
    }
    if let Some(status) = &pod.status {
        let ips = FieldPath::of("status.podIPs");
        for (i, ip) in status.pod_ips.iter().flatten().enumerate() {
            address(&ip.ip, &ips.index(i).field("ip"))?;
        }
        if let Some(ip) = status.pod_ip.as_deref().filter(|ip| !ip.is_empty()) {
            address(ip, &FieldPath::of("status.podIP"))?;
        }
    }
    Ok(())
}

fn service(service: &Service) -> Result<(), FieldError> {
    let Some(spec) = &service.spec else { return Ok(()) };
    let ports = FieldPath::of("spec.ports");
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        number(port.port, &ports.index(i).field("port"))?;
        if let Some(IntOrString::Int(target)) = &port.target_port {
            number(*target, &ports.index(i).field("targetPort"))?;
        }
    }
    let none = |ip: &str| ip.is_empty() || ip == "None";
    if let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !none(ip)) {
        address(ip, &FieldPath::of("spec.clusterIP"))?;
    }
    let ips = FieldPath::of("spec.clusterIPs");
    for (i, ip) in spec.cluster_ips.iter().flatten().enumerate().filter(|(_, ip)| !none(ip)) {
        address(ip, &ips.index(i))?;
    }
    if spec.type_.as_deref() == Some("ExternalName") && spec.external_name.as_deref().unwrap_or("").is_empty() {
        return Err(FieldPath::of("spec.externalName").error("missing: a service of type ExternalName needs it"));
    }
    Ok(())
}

fn endpoint_slice(slice: &EndpointSlice) -> Result<(), FieldError> {
    let endpoints = FieldPath::of("endpoints");
    for (i, endpoint) in slice.endpoints.iter().flatten().enumerate() {
        if slice.address_type == "FQDN" {
            continue;
        }
        for (j, ip) in endpoint.addresses.iter().enumerate() {
            address(ip, &endpoints.index(i).field("addresses").index(j))?;
        }
    }
    let ports = FieldPath::of("ports");
    for (i, port) in slice.ports.iter().flatten().enumerate() {
        if let Some(port) = port.port {
            number(port, &ports.index(i).field("port"))?;
        }
    }
    Ok(())
}

fn endpoints(endpoints: &Endpoints) -> Result<(), FieldError> {
    let subsets = FieldPath::of("subsets");
    for (i, subset) in endpoints.subsets.iter().flatten().enumerate() {
        let path = subsets.index(i);
        for (list, addresses) in [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)]
        {
            for (j, entry) in addresses.iter().flatten().enumerate() {
                address(&entry.ip, &path.field(list).index(j).field("ip"))?;
            }
        }
        for (j, port) in subset.ports.iter().flatten().enumerate() {
            number(port.port, &path.field("ports").index(j).field("port"))?;
        }
    }
    Ok(())
}

fn number(port: i32, path: &FieldPath) -> Result<(), FieldError> {
    if (1..=65535).contains(&port) {
        Ok(())
    } else {
        Err(path.error(format!("{port} is not a port: write 1 to 65535")))
    }
}

fn address(ip: &str, path: &FieldPath) -> Result<(), FieldError> {
    ip.parse::<IpAddr>().map(drop).map_err(|_| path.error(format!("{ip:?} is not an IP address")))
}
