//! What services stand for: the endpoints of each, their ports, and which of them take traffic. Pure.
//!
//! The one place that decides it. The proxies' tables, `ambit status`, hosts files and the service addresses that the
//! nodes of `ambit up` translate are all made from its answer.
//!
//! | file | question |
//! |---|---|
//! | `inputs` | what decides, and what is an endpoint? |
//! | this one | which pods does a selector choose, and which endpoints take traffic? |
//! | `slices` | what do EndpointSlices say, and whose addresses are they? |
//! | `mirror` | which slices does an Endpoints object stand for? |
//!
//! An endpoint takes traffic on a port while it is ready. Where a port has no ready endpoint, those that end and still
//! serve take it: the rule of kube-proxy. A headless service has no kube-proxy in front: its names show ready endpoints.

mod inputs;
mod mirror;
mod slices;

use std::collections::HashMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use mesh_model::service::LoadBalancing;
use mesh_model::workload::Locality;

use super::service_spec::{is_external_name, namespace};
use super::{locality, names, ports, service};
use crate::cluster::pod::Stage;
use crate::cluster::relations::selects;
use inputs::{Candidate, of_families};
use slices::Slices;

pub use super::service_spec::{is_headless, publishes_not_ready, service_ports};
pub use crate::cluster::relations::has_selector;
pub use inputs::{Endpoint, EndpointPort, Inputs, Outside, Owner, ServiceEndpoints};
pub use mirror::ignored as ignored_endpoints;

impl Inputs<'_> {
    /// The endpoints of each service, in the services' order.
    pub fn resolve(&self) -> Vec<ServiceEndpoints> {
        let slices = Slices::new(self);
        let mut pods: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, pod) in self.pods.iter().enumerate() {
            pods.entry(&pod.name.namespace).or_default().push(place);
        }
        let of = |object: &Service| {
            if is_external_name(object) {
                return ServiceEndpoints::default();
            }
            let own = pods.get(namespace(object)).into_iter().flatten();
            let mut candidates: Vec<Candidate> = own.filter_map(|place| self.selected(object, *place)).collect();
            candidates.extend(slices.candidates(self, object));
            in_use(candidates, object)
        };
        self.services.iter().map(|object| of(object)).collect()
    }

    /// What a service's selector says about a pod of its namespace.
    fn selected(&self, object: &Service, place: usize) -> Option<Candidate> {
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
        Some(Candidate {
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

/// Decides who takes traffic, and brings together what is said about one endpoint.
fn in_use(candidates: Vec<Candidate>, object: &Service) -> ServiceEndpoints {
    let has_port = |candidate: &Candidate, port: usize| candidate.targets.iter().any(|(p, _)| *p == port);
    let ready_somewhere: Vec<bool> =
        (0..service_ports(object).len()).map(|port| candidates.iter().any(|c| c.ready && has_port(c, port))).collect();
    let last_resort = !is_headless(object);
    let mut found = ServiceEndpoints::default();
    let mut places: HashMap<Result<usize, IpAddr>, usize> = HashMap::new();
    for candidate in candidates {
        let ports = candidate.targets.iter().map(|(port, target)| EndpointPort {
            port: *port,
            target: *target,
            in_use: candidate.ready || candidate.ending && last_resort && !ready_somewhere[*port],
        });
        let ports: Vec<EndpointPort> = ports.collect();
        let in_use = candidate.ready || ports.iter().any(|p| p.in_use);
        let Candidate { owner, selected, addresses, hostname, .. } = candidate;
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
        Owner::Pod(place) => names::uid(&inputs.pods[*place].name, cluster_id),
        Owner::Outside(outside) => format!(
            "{cluster_id}/discovery.k8s.io/EndpointSlice/{}/{}/{}",
            namespace(object),
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
    locality::of(node)
}

#[cfg(test)]
mod tests;
