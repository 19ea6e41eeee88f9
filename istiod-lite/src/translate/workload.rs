//! Pod → Workload.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service as KubernetesService, ServicePort};
use mesh_model::address::NamespacedName;
use mesh_model::labels;
use mesh_model::policy::Policy;
use mesh_model::workload::{AppProtocol, Memberships, PortMapping, Tunnel, Workload, WorkloadType};

use super::context::Context;
use super::endpoints::Endpoint;
use super::service_spec::{namespace as service_namespace, publishes_not_ready, tcp_ports};
use super::{guard, locality, names, ports, waypoint};
use crate::cluster::pod::{Pod, Stage};
use crate::cluster::relations::label;
use crate::resources::labels::Labelled;

/// `None` for a pod that has ended or has no address yet. `endpoints` are what it is of services, in the services' order. With it comes
/// what keeps callers from going around the waypoint of its own addresses.
pub(super) fn translate(
    pod: &Pod,
    endpoints: &[(&KubernetesService, &Endpoint)],
    context: &Context<'_>,
) -> Option<(Workload, Option<Policy>)> {
    if matches!(pod.stage, Stage::Pending | Stage::Ended) {
        return None;
    }
    let guard = guard::of_pod(pod, endpoints, context);
    let NamespacedName { namespace, name } = pod.name.clone();
    let native_tunnel = pod.label(labels::TUNNEL) == Some("http");
    let Serving { healthy, mut services, hostname } = serving(endpoints, pod.is_ready(), context);
    for entry in context.entries.selecting(&namespace, pod) {
        for (service, ports) in entry.memberships(|_| None) {
            services.insert(service, ports);
        }
    }
    let (canonical_name, canonical_revision) = canonical(pod, &pod.workload_name);
    let workload = Workload {
        name,
        addresses: pod.addresses.to_vec(),
        network: context.network.clone(),
        tunnel: if native_tunnel || pod.is_captured { Tunnel::Hbone } else { Tunnel::None },
        native_tunnel,
        trust_domain: context.mesh.trust_domain.clone(),
        service_account: pod.service_account.clone(),
        node: pod.node.clone(),
        canonical_name,
        canonical_revision,
        // As istiod sends it, whatever owns the pod.
        workload_type: WorkloadType::Pod,
        workload_name: pod.workload_name.clone(),
        authorization_policies: policies_of_pod(pod, endpoints, guard.as_ref(), context),
        healthy,
        cluster: context.mesh.cluster_id.clone(),
        services,
        hostname: hostname.into(),
        locality: locality::of_node(&pod.node, context.cluster),
        waypoint: waypoint::of_pod(pod, &namespace, context).and_then(|verdict| verdict.address),
        host_network: pod.host_network,
        namespace,
        ..Workload::empty(names::uid(&pod.name, &context.mesh.cluster_id))
    };
    Some((workload, guard))
}

/// The names for telemetry, of something that is known as `workload_name`.
pub(super) fn canonical(object: &dyn Labelled, workload_name: &Arc<str>) -> (Arc<str>, Arc<str>) {
    let first = |names: [&str; 3]| names.into_iter().find_map(|name| label(object, name)).map(Arc::from);
    let name = first([labels::CANONICAL_NAME, labels::APP_NAME, "app"]);
    let revision = first([labels::CANONICAL_REVISION, labels::APP_VERSION, "version"]);
    (name.unwrap_or_else(|| workload_name.clone()), revision.unwrap_or_else(|| "latest".into()))
}

/// The policies that cover a pod, and what keeps callers from going around its waypoint and those of its services.
fn policies_of_pod(
    pod: &Pod,
    endpoints: &[(&KubernetesService, &Endpoint)],
    own: Option<&Policy>,
    context: &Context<'_>,
) -> Vec<NamespacedName> {
    let of_service = |(service, _): &(&KubernetesService, &Endpoint)| {
        let name = service.metadata.name.as_deref().unwrap_or("");
        Some(context.guards.get(&NamespacedName::new(service_namespace(service), name))?.key())
    };
    let mut names = authorization_policies(&pod.name.namespace, pod, context);
    names.extend(endpoints.iter().filter_map(of_service).chain(own.map(Policy::key)));
    names.sort();
    names.dedup();
    names
}

/// The policies that cover something with these labels.
pub(super) fn authorization_policies(
    namespace: &str,
    object: &dyn Labelled,
    context: &Context<'_>,
) -> Vec<NamespacedName> {
    let mut names: Vec<_> =
        context.policies.selecting(namespace, object).chain(context.modes.named_by(namespace, object)).collect();
    names.sort();
    names.dedup();
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
    let services = counted().map(|(object, e)| (names::service(object, context.mesh), mappings(object, e))).collect();
    let named = counted().find_map(|(object, e)| Some((object, e.hostname.as_ref()?)));
    let hostname = named
        .map_or_else(String::new, |(object, name)| format!("{name}.{}", names::service(object, context.mesh).name));
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
    tcp_ports(object).filter_map(mapping).collect()
}
