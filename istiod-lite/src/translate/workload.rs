//! Pod → Workload.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSpec, Service as KubernetesService, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::NamespacedName;
use mesh_model::identity::DEFAULT_SERVICE_ACCOUNT;
use mesh_model::labels;
use mesh_model::workload::{AppProtocol, Locality, Memberships, PortMapping, Tunnel, Workload, WorkloadType};

use super::life::{self, Stage};
use super::{Context, ports, service, waypoint};

/// `None` for a pod that has ended or has no address yet.
pub(super) fn translate(pod: &Pod, context: &Context<'_>) -> Option<Workload> {
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
        healthy: stage == Stage::Ready,
        cluster: context.mesh.cluster_id.clone(),
        services: services(pod, namespace, context),
        locality: locality(node, context),
        waypoint: waypoint::of_pod(metadata, namespace, context.mesh),
        host_network: spec.host_network == Some(true),
        ..Workload::empty(format!("{}//Pod/{namespace}/{name}", context.mesh.cluster_id))
    })
}

/// Its namespace, `default` when it says none.
pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default")
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

/// The services it is an endpoint of: by selector, or because a slice says so.
fn services(pod: &Pod, namespace: &str, context: &Context<'_>) -> Memberships {
    let mut services = Vec::new();
    for object in context.services_in(namespace) {
        let mappings = if selects(object, pod.metadata.labels.as_ref()) {
            mappings(object, |port| ports::target_in_pod(port, pod))
        } else if let Some(slice) = context.slices.of_pod(namespace, object, pod) {
            mappings(object, |port| slice.port(port))
        } else {
            continue;
        };
        services.push((service::key(object, context), mappings));
    }
    services.into_iter().collect()
}

/// A service's ports, each with its target; ports without a target are left out. What is spoken there is the service's
/// to say, and not repeated, as istiod has it.
pub(super) fn mappings(object: &KubernetesService, target: impl Fn(&ServicePort) -> Option<u16>) -> Vec<PortMapping> {
    let mapping = |port: &ServicePort| {
        Some(PortMapping {
            service_port: ports::number(port.port),
            target_port: target(port)?,
            app_protocol: AppProtocol::Unknown,
        })
    };
    service::tcp_ports(object).filter_map(mapping).collect()
}

fn selects(object: &KubernetesService, labels: Option<&BTreeMap<String, String>>) -> bool {
    let selector = object.spec.as_ref().and_then(|s| s.selector.as_ref());
    selector.is_some_and(|selector| {
        // A service without selector selects nothing: its endpoints are given.
        !selector.is_empty() && selector.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
    })
}

/// Where a node is.
pub(super) fn locality(node: &str, context: &Context<'_>) -> Locality {
    let labels = context.cluster.node(node).and_then(|n| n.metadata.labels.as_ref());
    let label = |name| Arc::from(labels.and_then(|l| l.get(name)).map_or("", String::as_str));
    Locality {
        region: label(labels::TOPOLOGY_REGION),
        zone: label(labels::TOPOLOGY_ZONE),
        subzone: label(labels::TOPOLOGY_SUBZONE),
    }
}
