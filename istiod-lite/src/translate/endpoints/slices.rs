//! What EndpointSlices say, and whose addresses they are.
//!
//! An endpoint that a slice gives to a pod is that pod, in whatever namespace; so is an address that a pod has, whether
//! the slice says so or not. Taken for somebody outside, the pod would be dialled in plaintext and without its identity.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{self as discovery, EndpointSlice};
use mesh_model::address::{NamespacedName, canonical_ip};

use super::inputs::{Candidate, Inputs, Outside, Owner, of_families};
use super::mirror;
use crate::cluster::relations::{SERVICE_NAME, counts_for, namespace, pod_named};
use crate::translate::ports;
use crate::translate::service_spec::{self, service_ports};

/// All slices, by what is asked of them.
pub(super) struct Slices<'a> {
    /// By namespace and service name.
    by_service: HashMap<(String, String), Vec<Cow<'a, EndpointSlice>>>,
    /// By namespace and name.
    pods: HashMap<NamespacedName, usize>,
    /// Pods on their node's network have no address of their own.
    by_address: HashMap<IpAddr, usize>,
}

impl<'a> Slices<'a> {
    pub(super) fn new(inputs: &Inputs<'a>) -> Self {
        let mut all = Self { by_service: HashMap::new(), pods: HashMap::new(), by_address: HashMap::new() };
        let mirrored = mirror::slices(inputs).into_iter().map(Cow::Owned);
        for slice in inputs.slices.iter().map(|slice| Cow::Borrowed(*slice)).chain(mirrored) {
            let label = slice.metadata.labels.as_ref().and_then(|l| l.get(SERVICE_NAME));
            let Some(name) = label.filter(|_| matches!(&*slice.address_type, "IPv4" | "IPv6")) else { continue };
            let key = (namespace(&slice.metadata).to_owned(), name.clone());
            all.by_service.entry(key).or_default().push(slice);
        }
        if all.by_service.is_empty() {
            return all;
        }
        for (place, pod) in inputs.pods.iter().enumerate() {
            all.pods.insert(pod.name.clone(), place);
            if !pod.host_network {
                all.by_address.extend(pod.addresses.iter().map(|ip| (*ip, place)));
            }
        }
        all
    }

    /// What slices say about a service.
    pub(super) fn candidates(&self, inputs: &Inputs<'_>, object: &Service) -> Vec<Candidate> {
        let key = (service_spec::namespace(object).to_owned(), object.metadata.name.clone().unwrap_or_default());
        let slices = self.by_service.get(&key).into_iter().flatten();
        let own = slices.filter(|slice| counts_for(slice, object));
        let endpoints = own.flat_map(|slice| slice.endpoints.iter().flatten().map(move |e| (&**slice, e)));
        endpoints.filter_map(|(slice, endpoint)| self.endpoint(inputs, object, slice, endpoint)).collect()
    }

    fn endpoint(
        &self,
        inputs: &Inputs<'_>,
        object: &Service,
        slice: &EndpointSlice,
        endpoint: &discovery::Endpoint,
    ) -> Option<Candidate> {
        // All addresses of one endpoint are the same application; the first is enough (as kube-proxy does).
        let ipv4 = slice.address_type == "IPv4";
        let address = endpoint.addresses.first()?.parse().ok().map(canonical_ip).filter(|ip| ip.is_ipv4() == ipv4)?;
        let owner = self.owner(slice, endpoint, address)?;
        let addresses = match owner {
            Owner::Pod(place) => {
                of_families(object, inputs.pods[place].addresses.iter().copied().filter(|ip| ip.is_ipv4() == ipv4))
            }
            Owner::Outside(_) => of_families(object, std::iter::once(address)),
        };
        if addresses.is_empty() {
            return None;
        }
        let conditions = endpoint.conditions.as_ref();
        // What is not said is taken for the best: ready, serving, not ending.
        let terminating = conditions.and_then(|c| c.terminating) == Some(true);
        let targets = service_ports(object).iter().enumerate();
        Some(Candidate {
            owner,
            selected: false,
            addresses,
            hostname: endpoint.hostname.clone().filter(|name| !name.is_empty()),
            ready: conditions.and_then(|c| c.ready) != Some(false),
            ending: terminating && conditions.and_then(|c| c.serving) != Some(false),
            targets: targets.filter_map(|(i, port)| Some((i, target(slice, port)?))).collect(),
        })
    }

    /// `None` for an address of a pod that is not there: it has ended, or never was.
    fn owner(&self, slice: &EndpointSlice, endpoint: &discovery::Endpoint, address: IpAddr) -> Option<Owner> {
        let named = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        let place = named.and_then(|target| {
            let (namespace, name) = pod_named(target, &slice.metadata)?;
            self.pods.get(&NamespacedName::new(namespace, name))
        });
        match (place.or_else(|| self.by_address.get(&address)), named) {
            (Some(place), _) => Some(Owner::Pod(*place)),
            (None, Some(_)) => None,
            (None, None) => Some(Owner::Outside(Outside {
                slice: slice.metadata.name.clone().unwrap_or_default(),
                node: endpoint.node_name.clone(),
                zone: endpoint.zone.clone(),
            })),
        }
    }
}

/// Ports meet by name and protocol; the only port of a service may have no name. A port without a number is none.
fn target(slice: &EndpointSlice, port: &ServicePort) -> Option<u16> {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let mut same = slice.ports.iter().flatten().filter(|p| {
        name(&p.name) == name(&port.name)
            && ports::protocol(p.protocol.as_deref()) == ports::protocol(port.protocol.as_deref())
    });
    same.find_map(|p| p.port).map(ports::number)
}
