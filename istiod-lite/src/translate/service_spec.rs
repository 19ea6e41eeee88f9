//! What a Service says, of itself alone.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service as KubernetesService, ServicePort, ServiceSpec};
use mesh_model::address::canonical_ip;
use mesh_model::service::IpFamilies;

use super::ports;
use crate::cluster::relations;

/// A name for something outside: it has no endpoints of ours.
pub(super) fn is_external_name(service: &KubernetesService) -> bool {
    service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("ExternalName")
}

/// Its namespace, `default` when it says none.
pub(super) fn namespace(service: &KubernetesService) -> &str {
    relations::namespace(&service.metadata)
}

/// Its TCP ports, each with its place among all of them.
pub(super) fn tcp_ports(service: &KubernetesService) -> impl Iterator<Item = (usize, &ServicePort)> {
    service_ports(service).iter().enumerate().filter(|(_, port)| ports::is_tcp(port.protocol.as_deref()))
}

/// Whether a Service has a TCP port of a number.
pub(super) fn has_port(service: &KubernetesService, number: u16) -> bool {
    tcp_ports(service).any(|(_, port)| ports::number(port.port) == number)
}

/// The ports of a service, in its order.
pub fn service_ports(object: &KubernetesService) -> &[ServicePort] {
    object.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default()
}

/// Whether a service has no address of its own by wish.
pub fn is_headless(object: &KubernetesService) -> bool {
    object.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Whether a service's own pods are endpoints before they are ready, and while they end.
pub fn publishes_not_ready(object: &KubernetesService) -> bool {
    object.spec.as_ref().is_some_and(|s| s.publish_not_ready_addresses == Some(true))
}

/// The cluster's own addresses, never those of load balancers: these belong to the machinery outside.
pub(super) fn cluster_ips(spec: &ServiceSpec) -> impl Iterator<Item = IpAddr> {
    let texts = match &spec.cluster_ips {
        Some(ips) if !ips.is_empty() => ips.iter().collect(),
        _ => spec.cluster_ip.iter().collect::<Vec<_>>(),
    };
    texts.into_iter().filter_map(|text| text.parse().ok()).map(canonical_ip)
}

/// As written, else as its addresses are: an API server would have filled it in.
pub(super) fn ip_families(spec: &ServiceSpec) -> IpFamilies {
    let families: Vec<&str> = spec.ip_families.iter().flatten().map(String::as_str).collect();
    let addresses: Vec<bool> = cluster_ips(spec).map(|ip| ip.is_ipv6()).collect();
    match (&families[..], &addresses[..]) {
        (["IPv4"], _) | ([], [false]) => IpFamilies::Ipv4,
        (["IPv6"], _) | ([], [true]) => IpFamilies::Ipv6,
        ([_, _], _) | ([], [_, _]) => IpFamilies::Dual,
        _ => IpFamilies::Automatic,
    }
}
