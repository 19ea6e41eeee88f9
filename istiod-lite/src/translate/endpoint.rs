//! EndpointSlice → Workload, for endpoints that are no pods; and what slices say about pods.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service as KubernetesService, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use mesh_model::address::{NamespacedName, canonical_ip};
use mesh_model::workload::{Locality, Workload};

use super::life::{self, Stage};
use super::{Context, ports, service, workload};
use crate::cluster::Cluster;

/// The label that says whose endpoints a slice holds.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// All slices, by what is asked of them.
pub(super) struct Slices<'a> {
    /// By namespace, pod name and service name.
    by_pod: HashMap<(&'a str, String, &'a str), SlicePorts<'a>>,
    /// Endpoints that are no pods.
    others: Vec<Other<'a>>,
}

/// The ports of a slice.
#[derive(Clone, Copy)]
pub(super) struct SlicePorts<'a>(&'a EndpointSlice);

struct Other<'a> {
    slice: &'a EndpointSlice,
    namespace: &'a str,
    service: &'a str,
    endpoint: &'a Endpoint,
    address: IpAddr,
}

impl SlicePorts<'_> {
    /// Ports meet by name; the only port of a service may have none.
    pub(super) fn port(self, port: &ServicePort) -> Option<u16> {
        let name = |name: &Option<String>| name.clone().unwrap_or_default();
        let mut ports = self.0.ports.iter().flatten().filter(|p| ports::is_tcp(p.protocol.as_deref()));
        ports.find(|p| name(&p.name) == name(&port.name)).and_then(|p| p.port).map(ports::number)
    }
}

impl<'a> Slices<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        let mut slices = Self { by_pod: HashMap::new(), others: Vec::new() };
        let mut pods_by_address = None;
        for (key, slice) in cluster.endpoint_slices() {
            let service = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME));
            let Some(service) = service.filter(|_| slice.address_type != "FQDN") else { continue };
            for endpoint in slice.endpoints.iter().flatten() {
                let target = endpoint.target_ref.as_ref().filter(|t| t.kind.as_deref() == Some("Pod"));
                if let Some(pod) = target.and_then(|t| t.name.clone()) {
                    slices.by_pod.insert((&key.namespace, pod, service), SlicePorts(slice));
                    continue;
                }
                // All addresses of one endpoint are the same application; the first is enough (as kube-proxy does).
                let Some(address) = endpoint.addresses.first().and_then(|a| a.parse().ok()).map(canonical_ip) else {
                    continue;
                };
                // A slice written by hand may list a pod's address without saying so. Taken for an outsider, the pod
                // would be dialled in plaintext.
                let pods = pods_by_address.get_or_insert_with(|| pods_by_address_in(cluster));
                if let Some(pod) = pods.get(&address).filter(|pod| pod.namespace == key.namespace) {
                    slices.by_pod.insert((&key.namespace, pod.name.to_string(), service), SlicePorts(slice));
                    continue;
                }
                slices.others.push(Other { slice, namespace: &key.namespace, service, endpoint, address });
            }
        }
        slices
    }

    /// The slice by which a pod is an endpoint of a service, if one says so.
    pub(super) fn of_pod(&self, namespace: &str, service: &KubernetesService, pod: &Pod) -> Option<SlicePorts<'a>> {
        if self.by_pod.is_empty() {
            return None;
        }
        let (pod, service) = (pod.metadata.name.as_deref()?, service.metadata.name.as_deref()?);
        self.by_pod.get(&(namespace, pod.to_owned(), service)).copied()
    }
}

fn pods_by_address_in(cluster: &Cluster) -> HashMap<IpAddr, &NamespacedName> {
    let own_address = |pod: &Pod| pod.spec.as_ref().is_none_or(|s| s.host_network != Some(true));
    let pods = cluster.pods().filter(|(_, pod)| own_address(pod) && life::stage(pod) != Stage::Ended);
    pods.flat_map(|(key, pod)| {
        let ips = pod.status.iter().flat_map(|s| s.pod_ips.iter().flatten());
        ips.filter_map(move |ip| Some((canonical_ip(ip.ip.parse().ok()?), key)))
    })
    .collect()
}

/// The endpoints that are no pods. They are on no network of pods, take no tunnel, no policy covers them, and nobody
/// knows what runs there: names of applications stay empty, as istiod leaves them.
pub(super) fn translate(context: &Context<'_>) -> Vec<Workload> {
    let mut workloads: BTreeMap<String, Workload> = BTreeMap::new();
    for other in &context.slices.others {
        let Some(object) =
            context.services_in(other.namespace).find(|s| s.metadata.name.as_deref() == Some(other.service))
        else {
            continue;
        };
        let slice_name = other.slice.metadata.name.as_deref().unwrap_or("");
        let uid = format!(
            "{}/discovery.k8s.io/EndpointSlice/{}/{slice_name}/{}",
            context.mesh.cluster_id, other.namespace, other.address
        );
        let workload = workloads.entry(uid.clone()).or_insert_with(|| outsider(other, uid, slice_name, context));
        let ports = SlicePorts(other.slice);
        let mappings = workload::mappings(object, |port| ports.port(port));
        workload.services.insert(service::key(object, context), mappings);
    }
    workloads.into_values().collect()
}

fn outsider(other: &Other<'_>, uid: String, slice_name: &str, context: &Context<'_>) -> Workload {
    let conditions = other.endpoint.conditions.as_ref();
    let node = other.endpoint.node_name.as_deref().unwrap_or("");
    let zone = other.endpoint.zone.as_deref().map(Arc::from);
    let locality = workload::locality(node, context);
    Workload {
        name: slice_name.into(),
        namespace: other.namespace.into(),
        addresses: vec![other.address],
        network: context.network.clone(),
        trust_domain: context.mesh.trust_domain.clone(),
        node: node.into(),
        // Not said means ready.
        healthy: conditions.and_then(|c| c.ready) != Some(false),
        cluster: context.mesh.cluster_id.clone(),
        locality: Locality { zone: zone.unwrap_or_else(|| locality.zone.clone()), ..locality },
        host_network: true,
        ..Workload::empty(uid)
    }
}
