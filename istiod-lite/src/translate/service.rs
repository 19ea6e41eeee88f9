//! Service → Service.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service as KubernetesService, ServicePort, ServiceSpec};
use mesh_model::address::{NamespacedName, NetworkAddress, canonical_ip};
use mesh_model::labels;
use mesh_model::service::{BalanceMode, IpFamilies, LoadBalancing, Scope, Service, Vip};
use mesh_model::workload::PortMapping;

use super::{Context, ports, waypoint};

/// A name for something outside: it has no endpoints of ours.
pub(super) fn is_external_name(service: &KubernetesService) -> bool {
    service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("ExternalName")
}

/// `namespace/hostname`.
pub(super) fn key(service: &KubernetesService, context: &Context<'_>) -> NamespacedName {
    let metadata = &service.metadata;
    let namespace = namespace(service);
    let name = metadata.name.as_deref().unwrap_or("");
    NamespacedName::new(namespace, format!("{name}.{namespace}.svc.{}", context.mesh.domain))
}

/// Its namespace, `default` when it says none.
pub(super) fn namespace(service: &KubernetesService) -> &str {
    service.metadata.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default")
}

/// Its TCP ports.
pub(super) fn tcp_ports(service: &KubernetesService) -> impl Iterator<Item = &ServicePort> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    ports.filter(|port| ports::is_tcp(port.protocol.as_deref()))
}

/// `None` for a service that stands for nothing here.
pub(super) fn translate(service: &KubernetesService, context: &Context<'_>) -> Option<Service> {
    if is_external_name(service) {
        return None;
    }
    let default = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&default);
    let NamespacedName { namespace, name: hostname } = key(service, context);
    Some(Service {
        name: service.metadata.name.as_deref().unwrap_or("").into(),
        vips: vips(spec, &context.network),
        ports: tcp_ports(service)
            .map(|port| PortMapping {
                service_port: ports::number(port.port),
                target_port: ports::target(port),
                app_protocol: ports::app_protocol(port),
            })
            .collect(),
        load_balancing: load_balancing(service, spec, &namespace, context),
        ip_families: ip_families(spec),
        waypoint: waypoint::of_service(&service.metadata, &namespace, context.cluster, context.mesh),
        canonical: true,
        ..Service::empty(namespace, hostname)
    })
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
fn ip_families(spec: &ServiceSpec) -> IpFamilies {
    let families: Vec<&str> = spec.ip_families.iter().flatten().map(String::as_str).collect();
    let addresses: Vec<bool> = cluster_ips(spec).map(|ip| ip.is_ipv6()).collect();
    match (&families[..], &addresses[..]) {
        (["IPv4"], _) | ([], [false]) => IpFamilies::Ipv4,
        (["IPv6"], _) | ([], [true]) => IpFamilies::Ipv6,
        ([_, _], _) | ([], [_, _]) => IpFamilies::Dual,
        _ => IpFamilies::Automatic,
    }
}

fn load_balancing(
    service: &KubernetesService,
    spec: &ServiceSpec,
    namespace: &str,
    context: &Context<'_>,
) -> LoadBalancing {
    let annotation = |metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
        metadata.annotations.as_ref()?.get(labels::TRAFFIC_DISTRIBUTION).cloned()
    };
    let distribution = spec
        .traffic_distribution
        .clone()
        .or_else(|| annotation(&service.metadata))
        .or_else(|| annotation(&context.cluster.namespace(namespace)?.metadata));
    let (preference, mode) = match (spec.internal_traffic_policy.as_deref(), distribution.as_deref()) {
        (Some("Local"), _) => (vec![Scope::Node], BalanceMode::Strict),
        (_, Some("PreferClose" | "PreferSameZone")) => {
            (vec![Scope::Network, Scope::Region, Scope::Zone], BalanceMode::Failover)
        }
        (_, Some("PreferSameNode")) => {
            (vec![Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node], BalanceMode::Failover)
        }
        _ => (Vec::new(), BalanceMode::Any),
    };
    LoadBalancing { preference, mode, allow_unhealthy: spec.publish_not_ready_addresses == Some(true) }
}
