//! Service → Service.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Service as KubernetesService, ServiceSpec};
use mesh_model::address::{NamespacedName, NetworkAddress};
use mesh_model::service::{BalanceMode, LoadBalancing, NamedPort, Scope, Service, ServiceExtension, Vip};
use mesh_model::workload::PortMapping;

use super::context::Context;
use super::service_spec::{cluster_ips, ip_families, is_external_name, publishes_not_ready, service_ports, tcp_ports};
use super::{distribution, elsewhere, names, ports, waypoint};
use crate::cluster::relations::{self, has_selector};

/// A Service as proxies are told of it.
pub(super) fn translate(service: &KubernetesService, context: &Context<'_>) -> Service {
    let default = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&default);
    let key = names::service(service, context.mesh);
    if is_external_name(service) {
        let NamespacedName { namespace, name: hostname } = names::external(&key);
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
        subject_alt_names: elsewhere::identities(
            &namespace,
            |metadata| relations::selects(service, metadata),
            &[],
            context,
        ),
        load_balancing: load_balancing(service, context.cluster.namespace(&namespace).map(|n| &**n)),
        ip_families: ip_families(spec),
        waypoint: waypoint::of_service(service, context).and_then(|verdict| verdict.address),
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

/// Which of its endpoints a service prefers.
pub(super) fn load_balancing(service: &KubernetesService, namespace: Option<&Namespace>) -> LoadBalancing {
    let spec = service.spec.as_ref();
    let (preference, mode) = match spec.and_then(|s| s.internal_traffic_policy.as_deref()) {
        Some("Local") => (vec![Scope::Node], BalanceMode::Strict),
        _ => distribution::of(service, namespace).balance(),
    };
    LoadBalancing { preference, mode, allow_unhealthy: publishes_not_ready(service) }
}
