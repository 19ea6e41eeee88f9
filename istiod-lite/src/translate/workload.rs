//! Pod → Workload.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Service as KubernetesService, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::NamespacedName;
use mesh_model::identity::DEFAULT_SERVICE_ACCOUNT;
use mesh_model::labels;
use mesh_model::workload::{AppProtocol, Locality, Memberships, PortMapping, Tunnel, Workload, WorkloadType};

use super::endpoints::{Endpoint, publishes_not_ready};
use super::{Context, ports, service, waypoint};
use crate::cluster::relations;
use crate::resources::life::{self, Stage};

/// `None` for a pod that has ended or has no address yet. `endpoints` are what it is of services, in the services' order.
pub(super) fn translate(
    pod: &Pod,
    endpoints: &[(&KubernetesService, &Endpoint)],
    context: &Context<'_>,
) -> Option<Workload> {
    let stage = life::stage(pod);
    if matches!(stage, Stage::Pending | Stage::Ended) {
        return None;
    }
    let default_spec = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&default_spec);
    let metadata = &pod.metadata;
    let (name, namespace) = (metadata.name.as_deref().unwrap_or(""), namespace(pod));
    let workload_name = workload_name(metadata);
    let native_tunnel = label(metadata, labels::TUNNEL) == Some("http");
    let node = spec.node_name.as_deref().unwrap_or("");
    let ready = stage == Stage::Ready;
    let Serving { healthy, services, hostname } = serving(endpoints, ready, context);
    Some(Workload {
        name: name.into(),
        namespace: namespace.into(),
        addresses: life::addresses(pod),
        network: context.network.clone(),
        tunnel: if native_tunnel || is_captured(metadata) { Tunnel::Hbone } else { Tunnel::None },
        native_tunnel,
        trust_domain: context.mesh.trust_domain.clone(),
        service_account: service_account(pod).into(),
        node: node.into(),
        canonical_name: first_label(metadata, &[labels::CANONICAL_NAME, labels::APP_NAME, "app"])
            .unwrap_or(&workload_name)
            .into(),
        canonical_revision: first_label(metadata, &[labels::CANONICAL_REVISION, labels::APP_VERSION, "version"])
            .unwrap_or("latest")
            .into(),
        // As istiod sends it, whatever owns the pod.
        workload_type: WorkloadType::Pod,
        workload_name: workload_name.into(),
        authorization_policies: authorization_policies(metadata, namespace, context),
        healthy,
        cluster: context.mesh.cluster_id.clone(),
        services,
        hostname: hostname.into(),
        locality: locality(node, context),
        waypoint: waypoint::of_pod(metadata, namespace, context.mesh),
        host_network: spec.host_network == Some(true),
        ..Workload::empty(uid(pod, &context.mesh.cluster_id))
    })
}

/// What a pod is known by in proxies' tables.
pub(super) fn uid(pod: &Pod, cluster_id: &str) -> String {
    uid_of(namespace(pod), pod.metadata.name.as_deref().unwrap_or(""), cluster_id)
}

/// The same, of a pod that may be gone.
pub(super) fn uid_of(namespace: &str, name: &str, cluster_id: &str) -> String {
    format!("{cluster_id}//Pod/{namespace}/{name}")
}

/// Its namespace, `default` when it says none.
pub(crate) fn namespace(pod: &Pod) -> &str {
    relations::namespace(&pod.metadata)
}

/// Its service account, `default` when it says none.
pub(crate) fn service_account(pod: &Pod) -> &str {
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref());
    account.filter(|a| !a.is_empty()).unwrap_or(DEFAULT_SERVICE_ACCOUNT)
}

fn is_captured(metadata: &ObjectMeta) -> bool {
    let state = metadata.annotations.as_ref().and_then(|a| a.get(labels::REDIRECTION));
    state.is_some_and(|state| state == labels::REDIRECTION_ENABLED)
}

fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

fn first_label<'a>(metadata: &'a ObjectMeta, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| label(metadata, name).filter(|value| !value.is_empty()))
}

/// The name users know the pod's owner by: the Deployment behind a ReplicaSet, the CronJob behind a Job. A pod that
/// somebody named is known by that name, whoever owns it: as istiod has it.
fn workload_name(metadata: &ObjectMeta) -> String {
    let named_by_owner = metadata.generate_name.as_ref().is_some_and(|stem| !stem.is_empty());
    let owner =
        metadata.owner_references.iter().flatten().find(|owner| named_by_owner && owner.controller == Some(true));
    let Some(owner) = owner else { return metadata.name.clone().unwrap_or_default() };
    let stem = owner.name.rsplit_once('-');
    match (owner.kind.as_str(), stem) {
        ("ReplicaSet", Some((deployment, hash))) if label(metadata, "pod-template-hash") == Some(hash) => deployment,
        // The controller names its Jobs by the scheduled minute.
        ("Job", Some((cron_job, minute))) if minute.len() >= 8 && minute.bytes().all(|b| b.is_ascii_digit()) => {
            cron_job
        }
        _ => owner.name.as_str(),
    }
    .to_owned()
}

fn authorization_policies(metadata: &ObjectMeta, namespace: &str, context: &Context<'_>) -> Vec<NamespacedName> {
    let labels = metadata.labels.as_ref();
    let mut names: Vec<_> =
        context.policies.selecting(namespace, labels).chain(context.modes.named_by(namespace, labels)).collect();
    names.sort();
    names
}

/// What proxies are told of a pod as an endpoint.
struct Serving {
    healthy: bool,
    services: Memberships,
    /// Its name in DNS, if it has one.
    hostname: String,
}

/// The services that a pod is an endpoint of. A proxy knows one health of a workload, Kubernetes one for each service and
/// port. Where they differ the pod is healthy, and an endpoint only where it takes traffic.
fn serving(endpoints: &[(&KubernetesService, &Endpoint)], ready: bool, context: &Context<'_>) -> Serving {
    let healthy = ready || endpoints.iter().any(|(object, e)| e.in_use && !publishes_not_ready(object));
    // While the pod is not healthy, no service but one that publishes what is not ready sends it anything: there it stays
    // what it is, as istiod has it.
    let counts = |e: &Endpoint| e.in_use || !healthy && e.selected;
    let counted = || endpoints.iter().filter(|(_, e)| counts(e));
    let services = counted().map(|(object, e)| (service::key(object, context.mesh), mappings(object, e))).collect();
    let named = counted().find_map(|(object, e)| Some((object, e.hostname.as_ref()?)));
    let hostname =
        named.map_or_else(String::new, |(object, name)| format!("{name}.{}", service::key(object, context.mesh).name));
    Serving { healthy, services, hostname }
}

/// The TCP ports of a service that an endpoint serves, each with its target. What is spoken there is the service's to
/// say, and not repeated, as istiod has it.
pub(super) fn mappings(object: &KubernetesService, endpoint: &Endpoint) -> Vec<PortMapping> {
    let counts = |in_use: bool| in_use || !endpoint.in_use;
    let mapping = |(place, port): (usize, &ServicePort)| {
        let served = endpoint.ports.iter().find(|p| p.port == place && counts(p.in_use))?;
        Some(PortMapping {
            service_port: ports::number(port.port),
            target_port: served.target,
            app_protocol: AppProtocol::Unknown,
        })
    };
    service::tcp_ports(object).filter_map(mapping).collect()
}

/// Where a node is.
pub(super) fn locality(node: &str, context: &Context<'_>) -> Locality {
    locality_of(context.cluster.node(node).map(|n| &**n))
}

/// The same, of the Node itself; nobody knows where a node is that there is not.
pub(super) fn locality_of(node: Option<&Node>) -> Locality {
    let labels = node.and_then(|n| n.metadata.labels.as_ref());
    let label = |name| Arc::from(labels.and_then(|l| l.get(name)).map_or("", String::as_str));
    Locality {
        region: label(labels::TOPOLOGY_REGION),
        zone: label(labels::TOPOLOGY_ZONE),
        subzone: label(labels::TOPOLOGY_SUBZONE),
    }
}
