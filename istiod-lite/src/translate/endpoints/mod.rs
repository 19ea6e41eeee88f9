//! What services stand for: the endpoints of each, their ports, and which of them take traffic. Pure.
//!
//! The one place that decides it. The proxies' tables, `ambit status`, hosts files and the service addresses that the
//! nodes of `ambit up` translate are all made from its answer.
//!
//! | file | question |
//! |---|---|
//! | this one | which pods does a selector choose, and which endpoints take traffic? |
//! | `slices` | what do EndpointSlices say, and whose addresses are they? |
//! | `mirror` | which slices does an Endpoints object stand for? |
//!
//! An endpoint takes traffic on a port while it is ready. Where a port has no ready endpoint, those that end and still
//! serve take it: the rule of kube-proxy. A headless service has no kube-proxy in front: its names show ready endpoints.

mod mirror;
mod slices;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use mesh_model::address::NamespacedName;
use mesh_model::service::LoadBalancing;
use mesh_model::workload::Locality;

use super::{ports, service, workload};
use crate::cluster::Cluster;
use crate::cluster::index::Index;
use crate::cluster::pod::{Pod, Stage};
use crate::cluster::relations::selects;
use slices::Slices;

pub use crate::cluster::relations::has_selector;
pub use mirror::ignored as ignored_endpoints;

/// What decides which endpoints services have.
#[derive(Default)]
pub struct Inputs<'a> {
    /// As an API server keeps them: with their addresses' families.
    pub services: Vec<&'a Service>,
    /// Pods that have an address and have not ended.
    pub pods: Vec<Arc<Pod>>,
    /// All of them.
    pub slices: Vec<&'a EndpointSlice>,
    /// All of them.
    pub endpoints: Vec<&'a Endpoints>,
}

/// The endpoints of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceEndpoints {
    /// Pods that the selector chooses come first.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Whose addresses they are.
    pub owner: Owner,
    /// Chosen by the service's selector; else a slice names it.
    pub selected: bool,
    /// Of the service's families.
    pub addresses: Vec<IpAddr>,
    /// Its own name below the service's, if it has one.
    pub hostname: Option<String>,
    /// It takes traffic, and a headless service's names show it.
    pub in_use: bool,
    /// The ports of the service that it serves.
    pub ports: Vec<EndpointPort>,
}

/// Who an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// A pod: its place in [`Inputs::pods`].
    Pod(usize),
    /// Nobody the cluster knows.
    Outside(Outside),
}

/// What a slice says about an endpoint that is no pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Outside {
    /// The slice that names it; of several, the first.
    pub slice: String,
    /// Where it is, if the slice says so.
    pub node: Option<String>,
    /// Where it is, if the slice says so.
    pub zone: Option<String>,
}

/// A port of a service at one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointPort {
    /// The port's place in the service's `spec.ports`.
    pub port: usize,
    /// The number at the endpoint.
    pub target: u16,
    /// The endpoint takes traffic on it.
    pub in_use: bool,
}

/// What one selector, or one entry of a slice, says about an endpoint.
struct Said {
    owner: Owner,
    selected: bool,
    addresses: Vec<IpAddr>,
    hostname: Option<String>,
    ready: bool,
    /// Ends, and serves meanwhile.
    ending: bool,
    /// Places in the service's ports, and numbers at the endpoint.
    targets: Vec<(usize, u16)>,
}

/// Whether a pod may be an endpoint: it has an address, and has not ended.
fn is_there(pod: &Pod) -> bool {
    !matches!(pod.stage, Stage::Pending | Stage::Ended)
}

impl<'a> Inputs<'a> {
    /// What the cluster says.
    pub fn of(cluster: &'a Cluster) -> Self {
        Self {
            services: cluster.services().map(|(_, object)| &**object).collect(),
            pods: cluster.pods().map(|(_, pod)| pod).filter(|pod| is_there(pod)).cloned().collect(),
            slices: cluster.endpoint_slices().map(|(_, object)| &**object).collect(),
            endpoints: cluster.endpoints().map(|(_, object)| &**object).collect(),
        }
    }

    /// What the cluster says of one service: as much of it as decides on its endpoints.
    pub(crate) fn of_service(cluster: &'a Cluster, index: &Index, key: &NamespacedName) -> Self {
        let pods = index.pods_of(key).into_iter().filter_map(|pod| cluster.pod(pod));
        Self {
            services: cluster.service(key).map(|object| &**object).into_iter().collect(),
            pods: pods.filter(|pod| is_there(pod)).cloned().collect(),
            slices: index.slices_of(key).filter_map(|slice| Some(&**cluster.endpoint_slice(slice)?)).collect(),
            endpoints: cluster.endpoints_named(key).map(|object| &**object).into_iter().collect(),
        }
    }

    /// The endpoints of each service, in the services' order.
    pub fn resolve(&self) -> Vec<ServiceEndpoints> {
        let slices = Slices::new(self);
        let mut pods: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, pod) in self.pods.iter().enumerate() {
            pods.entry(&pod.name.namespace).or_default().push(place);
        }
        let of = |object: &Service| {
            if service::is_external_name(object) {
                return ServiceEndpoints::default();
            }
            let own = pods.get(service::namespace(object)).into_iter().flatten();
            let mut said: Vec<Said> = own.filter_map(|place| self.selected(object, *place)).collect();
            said.extend(slices.said(self, object));
            in_use(said, object)
        };
        self.services.iter().map(|object| of(object)).collect()
    }

    /// What a service's selector says about a pod of its namespace.
    fn selected(&self, object: &Service, place: usize) -> Option<Said> {
        let pod = &*self.pods[place];
        if !selects(object, pod) {
            return None;
        }
        let addresses = of_families(object, pod.addresses.iter().copied());
        if addresses.is_empty() {
            return None;
        }
        let named = pod.dns_name.as_ref();
        let named = named.filter(|name| Some(&*name.subdomain) == object.metadata.name.as_deref());
        let targets = service_ports(object).iter().enumerate();
        Some(Said {
            owner: Owner::Pod(place),
            selected: true,
            addresses,
            hostname: named.map(|name| name.hostname.to_string()),
            ready: pod.is_ready() || publishes_not_ready(object),
            ending: pod.stage == Stage::Ending { serving: true },
            targets: targets.filter_map(|(i, p)| Some((i, ports::target_in_pod(p, pod)?))).collect(),
        })
    }
}

impl Endpoint {
    /// Takes in what is said about the same endpoint elsewhere.
    fn merge(&mut self, other: Endpoint) {
        self.selected |= other.selected;
        self.in_use |= other.in_use;
        self.hostname = self.hostname.take().or(other.hostname);
        for address in other.addresses {
            if !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
        for port in other.ports {
            match self.ports.iter_mut().find(|p| (p.port, p.target) == (port.port, port.target)) {
                Some(known) => known.in_use |= port.in_use,
                None => self.ports.push(port),
            }
        }
    }

    /// Both name a port, and not by the same number.
    fn contradicts(&self, other: &Endpoint) -> bool {
        self.ports.iter().any(|a| other.ports.iter().any(|b| a.port == b.port && a.target != b.target))
    }
}

/// Decides who takes traffic, and brings together what is said about one endpoint.
fn in_use(said: Vec<Said>, object: &Service) -> ServiceEndpoints {
    let has_port = |said: &Said, port: usize| said.targets.iter().any(|(p, _)| *p == port);
    let ready_somewhere: Vec<bool> =
        (0..service_ports(object).len()).map(|port| said.iter().any(|s| s.ready && has_port(s, port))).collect();
    let last_resort = !is_headless(object);
    let mut found = ServiceEndpoints::default();
    let mut places: HashMap<Result<usize, IpAddr>, usize> = HashMap::new();
    for said in said {
        let ports = said.targets.iter().map(|(port, target)| EndpointPort {
            port: *port,
            target: *target,
            in_use: said.ready || said.ending && last_resort && !ready_somewhere[*port],
        });
        let ports: Vec<EndpointPort> = ports.collect();
        let in_use = said.ready || ports.iter().any(|p| p.in_use);
        let Said { owner, selected, addresses, hostname, .. } = said;
        let key = match owner {
            Owner::Pod(place) => Ok(place),
            Owner::Outside(_) => Err(addresses[0]),
        };
        let endpoint = Endpoint { owner, selected, addresses, hostname, in_use, ports };
        match places.get(&key).map(|place| &mut found.endpoints[*place]) {
            // Two applications at one address outside: each slice is an endpoint of its own.
            Some(known) if key.is_ok() || !known.contradicts(&endpoint) => known.merge(endpoint),
            _ => {
                places.insert(key, found.endpoints.len());
                found.endpoints.push(endpoint);
            }
        }
    }
    found
}

/// What an endpoint of a service is known by, in proxies' tables too: the uid of its workload.
pub fn uid(inputs: &Inputs<'_>, object: &Service, endpoint: &Endpoint, cluster_id: &str) -> String {
    match &endpoint.owner {
        Owner::Pod(place) => workload::uid(&inputs.pods[*place].name, cluster_id),
        Owner::Outside(outside) => format!(
            "{cluster_id}/discovery.k8s.io/EndpointSlice/{}/{}/{}",
            service::namespace(object),
            outside.slice,
            endpoint.addresses[0]
        ),
    }
}

/// Which of its endpoints a service of this namespace prefers.
pub fn preferences(object: &Service, namespace: Option<&Namespace>) -> LoadBalancing {
    service::load_balancing(object, namespace)
}

/// Where a node is.
pub fn locality(node: Option<&Node>) -> Locality {
    workload::locality_of(node)
}

/// The ports of a service, in its order.
pub fn service_ports(object: &Service) -> &[ServicePort] {
    object.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default()
}

/// Whether a service has no address of its own by wish.
pub fn is_headless(object: &Service) -> bool {
    object.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Whether a service's own pods are endpoints before they are ready, and while they end.
pub fn publishes_not_ready(object: &Service) -> bool {
    object.spec.as_ref().is_some_and(|s| s.publish_not_ready_addresses == Some(true))
}

/// The addresses that a service's families allow. Families that nobody knows allow all.
fn of_families(object: &Service, addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let families = object.spec.as_ref().map(service::ip_families).unwrap_or_default();
    addresses.filter(|ip| families.allow(*ip)).collect()
}

#[cfg(test)]
mod tests;
