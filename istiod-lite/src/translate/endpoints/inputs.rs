//! What decides on endpoints, and what an endpoint is.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use mesh_model::address::NamespacedName;

use crate::cluster::Cluster;
use crate::cluster::index::Index;
use crate::cluster::pod::{Pod, Stage};
use crate::translate::service_spec::ip_families;

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

/// An endpoint, as one selector or one entry of a slice has it: whether it takes traffic is not decided yet.
pub(super) struct Candidate {
    pub(super) owner: Owner,
    pub(super) selected: bool,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) hostname: Option<String>,
    pub(super) ready: bool,
    /// Ends, and serves meanwhile.
    pub(super) ending: bool,
    /// Places in the service's ports, and numbers at the endpoint.
    pub(super) targets: Vec<(usize, u16)>,
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
        let pods = index.pods_of(key).into_iter().filter_map(|pod| cluster.pod(&pod));
        Self {
            services: cluster.service(key).map(|object| &**object).into_iter().collect(),
            pods: pods.filter(|pod| is_there(pod)).cloned().collect(),
            slices: index.slices_of(key).filter_map(|slice| Some(&**cluster.endpoint_slice(slice)?)).collect(),
            endpoints: cluster.endpoints_named(key).map(|object| &**object).into_iter().collect(),
        }
    }
}

impl Endpoint {
    /// Takes in what is said about the same endpoint elsewhere.
    pub(super) fn merge(&mut self, other: Endpoint) {
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
    pub(super) fn contradicts(&self, other: &Endpoint) -> bool {
        self.ports.iter().any(|a| other.ports.iter().any(|b| a.port == b.port && a.target != b.target))
    }
}

/// Whether a pod may be an endpoint: it has an address, and has not ended.
fn is_there(pod: &Pod) -> bool {
    !matches!(pod.stage, Stage::Pending | Stage::Ended)
}

/// The addresses that a service's families allow. Families that nobody knows allow all.
pub(super) fn of_families(object: &Service, addresses: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let families = object.spec.as_ref().map(ip_families).unwrap_or_default();
    addresses.filter(|ip| families.allow(*ip)).collect()
}
