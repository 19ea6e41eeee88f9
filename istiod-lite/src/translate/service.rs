//! Service → Service.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service as KubernetesService, ServicePort, ServiceSpec};
use mesh_model::address::{NamespacedName, NetworkAddress, canonical_ip};
use mesh_model::service::{BalanceMode, IpFamilies, LoadBalancing, NamedPort, Scope, Service, ServiceExtension, Vip};
use mesh_model::workload::PortMapping;

use super::endpoints::{publishes_not_ready, service_ports};
use super::{Context, Mesh, distribution, ports, waypoint};
use crate::cluster::relations::{self, has_selector};

/// A name for something outside: it has no endpoints of ours.
pub(super) fn is_external_name(service: &KubernetesService) -> bool {
    service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("ExternalName")
}

/// `namespace/hostname`.
pub(super) fn key(service: &KubernetesService, mesh: &Mesh) -> NamespacedName {
    let name = service.metadata.name.as_deref().unwrap_or("");
    hostname(&NamespacedName::new(namespace(service), name), mesh)
}

/// The same, of a service that may be gone.
fn hostname(object: &NamespacedName, mesh: &Mesh) -> NamespacedName {
    let NamespacedName { namespace, name } = object;
    NamespacedName::new(namespace.clone(), format!("{name}.{namespace}.svc.{}", mesh.domain))
}

/// Every name under which a service may be published.
pub(super) fn names(object: &NamespacedName, mesh: &Mesh) -> [NamespacedName; 2] {
    let plain = hostname(object, mesh);
    [external(&plain), plain]
}

/// An ExternalName's: the last dot hides it from DNS proxies that do not know what is special about it.
fn external(NamespacedName { namespace, name }: &NamespacedName) -> NamespacedName {
    NamespacedName::new(namespace.clone(), format!("{name}."))
}

/// Its namespace, `default` when it says none.
pub(super) fn namespace(service: &KubernetesService) -> &str {
    relations::namespace(&service.metadata)
}

/// Its TCP ports, each with its place among all of them.
pub(super) fn tcp_ports(service: &KubernetesService) -> impl Iterator<Item = (usize, &ServicePort)> {
    service_ports(service).iter().enumerate().filter(|(_, port)| ports::is_tcp(port.protocol.as_deref()))
}

/// A Service as proxies are told of it.
pub(super) fn translate(service: &KubernetesService, context: &Context<'_>) -> Service {
    let default = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&default);
    let key = key(service, context.mesh);
    if is_external_name(service) {
        let NamespacedName { namespace, name: hostname } = external(&key);
        let external_name = spec.external_name.as_deref().unwrap_or("").trim_end_matches('.').to_ascii_lowercase();
        let extension = ServiceExtension { external_name: external_name.into(), ..ServiceExtension::default() };
        return Service {
            name: service.metadata.name.as_deref().unwrap_or("").into(),
            canonical: true,
            extension: Some(extension.into()),
            ..Service::empty(namespace, hostname)
        };
    }
    let NamespacedName { namespace, name: hostname } = key;
    Service {
        name: service.metadata.name.as_deref().unwrap_or("").into(),
        vips: vips(spec, &context.network),
        ports: tcp_ports(service)
            .map(|(_, port)| PortMapping {
                service_port: ports::number(port.port),
                // Without a selector the endpoints are given, and each says on which ports it serves: on no others.
                target_port: if has_selector(service) { ports::target(port) } else { 0 },
                app_protocol: ports::app_protocol(port),
            })
            .collect(),
        load_balancing: load_balancing(service, context.cluster.namespace(&namespace).map(|n| &**n)),
        ip_families: ip_families(spec),
        waypoint: waypoint::of_service(&service.metadata, &namespace, context.cluster, context.mesh),
        canonical: true,
        extension: extension(service, spec),
        ..Service::empty(namespace, hostname)
    }
}

/// What Istio's messages have no field for.
fn extension(service: &KubernetesService, spec: &ServiceSpec) -> Option<Arc<ServiceExtension>> {
    let named = service_ports(service).iter().filter_map(|port| {
        Some(NamedPort {
            name: port.name.as_deref().filter(|name| !name.is_empty())?.into(),
            protocol: ports::protocol(port.protocol.as_deref()).to_ascii_lowercase().into(),
            service_port: ports::number(port.port),
            target_port: if has_selector(service) { ports::target(port) } else { 0 },
        })
    });
    let extension = ServiceExtension {
        client_ip_affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
        named_ports: named.collect(),
        ..ServiceExtension::default()
    };
    (extension != ServiceExtension::default()).then(|| extension.into())
}

fn vips(spec: &ServiceSpec, network: &Arc<str>) -> Vec<Vip> {
    let vip = |ip| Vip { address: NetworkAddress { network: network.clone(), ip }, prefix: None };
    cluster_ips(spec).map(vip).collect()
}

/// The cluster's own addresses, never those of load balancers: these belong to the machinery outside.
fn cluster_ips(spec: &ServiceSpec) -> impl Iterator<Item = IpAddr> {
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

/// Which of its endpoints a service prefers.
pub(super) fn load_balancing(service: &KubernetesService, namespace: Option<&Namespace>) -> LoadBalancing {
    let spec = service.spec.as_ref();
    let (preference, mode) = match spec.and_then(|s| s.internal_traffic_policy.as_deref()) {
        Some("Local") => (vec![Scope::Node], BalanceMode::Strict),
        _ => distribution::of(service, namespace).balance(),
    };
    LoadBalancing { preference, mode, allow_unhealthy: publishes_not_ready(service) }
}
