//! Endpoints (v1) → EndpointSlices, as the API server's mirroring controller does it: Patroni and other operators write
//! Endpoints for services without a selector.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::inputs::Inputs;
use crate::cluster::relations::{SERVICE_NAME, has_selector, namespace};
use crate::translate::service_spec;

/// Label on Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation on Endpoints that are a lock for choosing a leader.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// The slices that all Endpoints stand for.
pub(super) fn slices(inputs: &Inputs<'_>) -> Vec<EndpointSlice> {
    let meant = inputs.endpoints.iter().filter(|object| !is_apart(object));
    let mirrored = meant.filter(|object| ignored(object, of(object, &inputs.services)).is_none());
    mirrored.flat_map(|object| mirror(object)).collect()
}

/// Whether Endpoints are not meant to be anybody's endpoints.
fn is_apart(object: &Endpoints) -> bool {
    let labels = object.metadata.labels.as_ref();
    let annotations = object.metadata.annotations.as_ref();
    labels.and_then(|l| l.get(SKIP)).is_some_and(|value| value == "true")
        || annotations.is_some_and(|a| a.contains_key(LEADER))
}

/// Why Endpoints that are meant to be a service's say nothing, given the Service of their name.
pub fn ignored(object: &Endpoints, of: Option<&Service>) -> Option<&'static str> {
    match of {
        _ if is_apart(object) => None,
        None => Some("there is no Service of this name in the namespace: give it the Service's name"),
        Some(of) if has_selector(of) => {
            Some("the Service of this name has a selector, which alone decides: take the selector away, or these")
        }
        Some(of) if service_spec::is_external_name(of) => Some("the Service of this name is an ExternalName"),
        Some(_) => None,
    }
}

fn of<'a>(object: &Endpoints, services: &[&'a Service]) -> Option<&'a Service> {
    let same = |s: &&Service| {
        s.metadata.name == object.metadata.name && service_spec::namespace(s) == namespace(&object.metadata)
    };
    services.iter().copied().find(same)
}

/// One slice for each subset and family.
fn mirror(object: &Endpoints) -> Vec<EndpointSlice> {
    let subsets = object.subsets.iter().flatten();
    subsets.flat_map(|subset| ["IPv4", "IPv6"].map(|family| slice(object, subset, family))).collect()
}

fn slice(object: &Endpoints, subset: &EndpointSubset, family: &str) -> EndpointSlice {
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    let of_family =
        |address: &EndpointAddress| address.ip.parse().is_ok_and(|ip: IpAddr| ip.is_ipv4() == (family == "IPv4"));
    let name = object.metadata.name.clone().unwrap_or_default();
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(namespace(&object.metadata).to_owned()),
            labels: Some([(SERVICE_NAME.to_owned(), name)].into()),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: Some(
            ready
                .chain(not_ready)
                .filter(|(a, _)| of_family(a))
                .map(|(address, ready)| endpoint(address, ready))
                .collect(),
        ),
        ports: Some(subset.ports.iter().flatten().map(port).collect()),
    }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

fn port(port: &k8s_openapi::api::core::v1::EndpointPort) -> EndpointPort {
    EndpointPort {
        app_protocol: port.app_protocol.clone(),
        name: port.name.clone(),
        port: Some(port.port),
        protocol: port.protocol.clone(),
    }
}
