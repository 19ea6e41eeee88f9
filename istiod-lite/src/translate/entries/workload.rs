//! Endpoints of a ServiceEntry, and WorkloadEntries → Workload.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service as KubernetesService, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::{GatewayAddress, NamespacedName};
use mesh_model::labels;
use mesh_model::shared::text;
use mesh_model::workload::{AppProtocol, Locality, Memberships, PortMapping, Tunnel, Workload, WorkloadType};

use super::defined::{Entry, Host};
use super::ports::{mappings as entry_mappings, number};
use crate::cluster::relations;
use crate::resources::WorkloadEntry;
use crate::resources::labels::Labelled;
use crate::resources::service_entry::Resolution;
use crate::resources::workload_entry::{EndpointAddress, WorkloadEntrySpec};
use crate::translate::context::Context;
use crate::translate::service_spec::{is_external_name, tcp_ports};
use crate::translate::{names, ports, waypoint, workload};

/// What a workload's object says of it, besides where it is.
struct Author<'a> {
    name: &'a NamespacedName,
    metadata: &'a ObjectMeta,
    workload_name: Arc<str>,
}

/// The uid of a WorkloadEntry's workload.
pub(crate) fn uid_of_workload_entry(key: &NamespacedName, cluster_id: &str) -> String {
    format!("{cluster_id}/networking.istio.io/WorkloadEntry/{}/{}", key.namespace, key.name)
}

fn uid_of_endpoint(key: &NamespacedName, address: &str, cluster_id: &str) -> String {
    format!("{cluster_id}/networking.istio.io/ServiceEntry/{}/{}/{address}", key.namespace, key.name)
}

/// Without endpoints, a service entry that is resolved by name is served at its hosts.
fn is_served_at_its_hosts(entry: &Entry) -> bool {
    let spec = &entry.object.spec;
    spec.resolution.is_dns() && spec.endpoints.is_empty() && spec.workload_selector.is_none()
}

/// The uids of a service entry's endpoints.
pub(super) fn uids(entry: &Entry, cluster_id: &str) -> Vec<String> {
    let uid = |address: &str| uid_of_endpoint(&entry.key, address, cluster_id);
    if is_served_at_its_hosts(entry) {
        return entry.hosts.iter().map(|host| uid(&host.name)).collect();
    }
    entry.object.spec.endpoints.iter().map(|endpoint| uid(&endpoint.address)).collect()
}

/// The endpoints of a service entry that defines something. Of several at one address the last counts, as Istio has it.
pub(super) fn of_entry(entry: &Entry, context: &Context<'_>) -> Vec<Workload> {
    let author = Author { name: &entry.key, metadata: &entry.object.metadata, workload_name: entry.key.name.clone() };
    let uid = |address: &str| uid_of_endpoint(&entry.key, address, &context.mesh.cluster_id);
    if is_served_at_its_hosts(entry) {
        let at_host = |host: &Host| {
            let own = WorkloadEntrySpec { address: host.name.to_string(), ..WorkloadEntrySpec::default() };
            let key = NamespacedName::new(entry.key.namespace.clone(), host.name.clone());
            let services = [(key, entry_mappings(&entry.object, |_| None))].into();
            workload(uid(&host.name), &author, &own, services, None, context)
        };
        return entry.hosts.iter().filter_map(at_host).collect();
    }
    if entry.hosts.is_empty() || entry.object.spec.resolution == Resolution::None {
        return Vec::new();
    }
    let endpoint = |own: &WorkloadEntrySpec| {
        let services = entry.memberships(|name| port_of(own, name)).collect();
        let through = waypoint::of_pod(&own.labels, &entry.key.namespace, context).and_then(|verdict| verdict.address);
        let mut found = workload(uid(&own.address), &author, own, services, through, context)?;
        // What takes HBONE may be said of one endpoint, or of all.
        if own.labels.label(labels::TUNNEL) == Some("http") {
            (found.tunnel, found.native_tunnel) = (Tunnel::Hbone, true);
        }
        Some(found)
    };
    entry.object.spec.endpoints.iter().filter_map(endpoint).collect()
}

/// A WorkloadEntry's workload.
pub(super) fn of_workload_entry(
    key: &NamespacedName,
    object: &WorkloadEntry,
    context: &Context<'_>,
) -> Option<Workload> {
    let (metadata, own) = (&object.metadata, &object.spec);
    let group = metadata.annotations.as_ref().and_then(|all| all.get(labels::AUTO_REGISTRATION_GROUP));
    let named = group.map(String::as_str).or_else(|| metadata.label(labels::WORKLOAD_NAME));
    let author = Author { name: key, metadata, workload_name: named.map_or_else(|| key.name.clone(), text) };
    let selecting = context.cluster.services_in(&key.namespace).map(|(_, service)| &**service);
    let selecting = selecting.filter(|service| relations::selects(service, metadata) && !is_external_name(service));
    let services = selecting.map(|service| (names::service(service, context.mesh), mappings(service, own)));
    let entries = context.entries.selecting(&key.namespace, metadata);
    let services = services.chain(entries.flat_map(|entry| entry.memberships(|name| port_of(own, name)))).collect();
    let through = waypoint::of_pod(metadata, &key.namespace, context).and_then(|verdict| verdict.address);
    workload(uid_of_workload_entry(key, &context.mesh.cluster_id), &author, own, services, through, context)
}

/// The number that it has for a port of a service, if it has one of its own.
fn port_of(own: &WorkloadEntrySpec, name: &str) -> Option<u16> {
    own.ports.get(name).map(|port| number(*port))
}

/// The TCP ports of a Kubernetes Service at a WorkloadEntry: by the name of the target, else by that of the port.
fn mappings(service: &KubernetesService, own: &WorkloadEntrySpec) -> Vec<PortMapping> {
    let mapping = |(_, port): (usize, &ServicePort)| {
        let target = match ports::target(port) {
            // It asks for a name that this one may not have.
            0 => port_of(own, ports::target_name(port)?)?,
            fixed => port.name.as_deref().and_then(|name| port_of(own, name)).unwrap_or(fixed),
        };
        Some(PortMapping {
            service_port: ports::number(port.port),
            target_port: target,
            app_protocol: AppProtocol::Unknown,
        })
    };
    tcp_ports(service).filter_map(mapping).collect()
}

fn workload(
    uid: String,
    author: &Author<'_>,
    own: &WorkloadEntrySpec,
    services: Memberships,
    waypoint: Option<Arc<GatewayAddress>>,
    context: &Context<'_>,
) -> Option<Workload> {
    let NamespacedName { namespace, name } = author.name;
    let (mut addresses, mut hostname) = (Vec::new(), String::new());
    match own.endpoint() {
        EndpointAddress::Ip(ip) => addresses.push(ip),
        EndpointAddress::Host(host) => hostname = host,
        EndpointAddress::None => {}
        EndpointAddress::Unix => return None,
    }
    let native_tunnel = author.metadata.label(labels::TUNNEL) == Some("http");
    let mut place = own.locality.split('/').map(text);
    let mut part = || place.next().unwrap_or_else(|| text(""));
    let (canonical_name, canonical_revision) = workload::canonical(author.metadata, &author.workload_name);
    let network = if own.network.is_empty() { context.network.clone() } else { text(&own.network) };
    Some(Workload {
        name: name.clone(),
        namespace: namespace.clone(),
        addresses,
        hostname: text(&hostname),
        network_gateway: context.networks.gateway_of(&network),
        network,
        tunnel: if native_tunnel { Tunnel::Hbone } else { Tunnel::None },
        native_tunnel,
        trust_domain: context.mesh.trust_domain.clone(),
        service_account: text(own.account()),
        canonical_name,
        canonical_revision,
        // As istiod sends it.
        workload_type: WorkloadType::Pod,
        workload_name: author.workload_name.clone(),
        authorization_policies: workload::authorization_policies(namespace, author.metadata, context),
        cluster: context.mesh.cluster_id.clone(),
        services,
        waypoint,
        locality: Locality { region: part(), zone: part(), subzone: part() },
        capacity: own.weight.max(1),
        ..Workload::empty(uid)
    })
}
