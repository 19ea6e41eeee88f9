//! Whom an object names, chooses or points at. Pure, and of one object alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Endpoints, ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::{NamespacedName, canonical_ip};
use mesh_model::labels;

use crate::resources::labels::Labelled;
use crate::resources::{DestinationRule, VirtualService, host};

/// The label that says whose endpoints a slice holds.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says who writes a slice.
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Who writes the slices of services with a selector. What it says follows from the pods, which are read themselves.
const CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// The namespace of an object, `default` when it says none.
pub(crate) fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or("default")
}

/// Whether a service has a selector; one without has the endpoints that are given for it.
pub fn has_selector(object: &Service) -> bool {
    selector(object).is_some_and(|selector| !selector.is_empty())
}

/// The labels that a service's pods have.
pub(crate) fn selector(object: &Service) -> Option<&BTreeMap<String, String>> {
    object.spec.as_ref().and_then(|s| s.selector.as_ref())
}

/// Whether a service's selector chooses a pod of its namespace.
pub(crate) fn selects(object: &Service, pod: &dyn Labelled) -> bool {
    has_selector(object) && selector(object).into_iter().flatten().all(|(k, v)| pod.label(k) == Some(v))
}

/// A port's protocol, TCP unless it says another.
pub(crate) fn protocol(said: Option<&str>) -> &str {
    said.filter(|p| !p.is_empty()).unwrap_or("TCP")
}

/// The service that a slice is about.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<NamespacedName> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(NamespacedName::new(namespace(&slice.metadata), name.as_str()))
}

/// Whether what a slice says counts for its service.
pub(crate) fn counts_for(slice: &EndpointSlice, object: &Service) -> bool {
    let managed_by = slice.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY));
    !(has_selector(object) && managed_by.is_some_and(|by| by == CONTROLLER))
}

/// The namespace and name of the pod that an endpoint of a slice or of Endpoints is.
pub(crate) fn pod_named<'k>(target: &'k ObjectReference, metadata: &'k ObjectMeta) -> Option<(&'k str, &'k str)> {
    let own = target.namespace.as_deref().filter(|n| !n.is_empty());
    Some((own.unwrap_or_else(|| namespace(metadata)), target.name.as_deref()?))
}

/// An endpoint as a slice or Endpoints points at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mention {
    /// By the pod's name.
    Pod(NamespacedName),
    /// By an address.
    Address(IpAddr),
}

/// Everything that a slice points at.
pub(crate) fn mentions_of_slice(slice: &EndpointSlice) -> BTreeSet<Mention> {
    let endpoints = slice.endpoints.iter().flatten();
    endpoints.flat_map(|e| mentions(e.addresses.first(), e.target_ref.as_ref(), &slice.metadata)).collect()
}

/// Everything that Endpoints point at.
pub(crate) fn mentions_of_endpoints(object: &Endpoints) -> BTreeSet<Mention> {
    let subsets = object.subsets.iter().flatten();
    let all = subsets.flat_map(|s| s.addresses.iter().chain(&s.not_ready_addresses).flatten());
    all.flat_map(|a| mentions(Some(&a.ip), a.target_ref.as_ref(), &object.metadata)).collect()
}

fn mentions(
    address: Option<&String>,
    target: Option<&ObjectReference>,
    metadata: &ObjectMeta,
) -> impl Iterator<Item = Mention> {
    let address = address.and_then(|text| text.parse().ok()).map(|ip| Mention::Address(canonical_ip(ip)));
    let pod = target.and_then(|target| pod_named(target, metadata));
    let pod = pod.map(|(namespace, name)| Mention::Pod(NamespacedName::new(namespace, name)));
    address.into_iter().chain(pod)
}

/// Whom a host names, of a DestinationRule or VirtualService.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    /// A Service, in whichever domain: a name without dots is one of the rule's namespace.
    Service(NamespacedName),
    /// All whose hostnames end so.
    Below(String),
    /// A name that is no Service's.
    Other,
}

/// Whom a DestinationRule's host names.
pub(crate) fn named_by(rule: &DestinationRule) -> Named {
    named(&rule.spec.host, namespace(&rule.metadata))
}

/// Whom a host names that is written in an object of a namespace.
pub(crate) fn named(host: &str, namespace: &str) -> Named {
    let host = host::normal(host);
    if let Some(below) = host.strip_prefix('*') {
        return Named::Below(below.to_owned());
    }
    match host.split('.').collect::<Vec<_>>()[..] {
        [name] => Named::Service(NamespacedName::new(namespace, name)),
        [name, namespace, "svc", ..] => Named::Service(NamespacedName::new(namespace, name)),
        _ => Named::Other,
    }
}

/// The services that a VirtualService is for: none where it is for gateways only.
pub(crate) fn hosts(object: &VirtualService) -> impl Iterator<Item = NamespacedName> {
    let own = namespace(&object.metadata);
    let hosts = object.spec.hosts.iter().filter(|_| object.spec.is_for_mesh());
    hosts.filter_map(move |host| match named(host, own) {
        Named::Service(service) => Some(service),
        Named::Below(_) | Named::Other => None,
    })
}

/// Whether an object belongs to a gateway or waypoint: it is not behind one.
pub(crate) fn is_gateway(object: &dyn Labelled) -> bool {
    label(object, labels::GATEWAY_NAME).is_some()
}

/// What the label `istio.io/use-waypoint` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Nothing: the namespace is asked.
    Nothing,
    /// None, whatever the namespace says.
    None,
    /// Namespace and name.
    Waypoint(NamespacedName),
}

/// The waypoint that an object of a namespace asks for.
pub(crate) fn waypoint(object: &dyn Labelled, namespace: &str) -> Asked {
    let label = |name| label(object, name);
    match label(labels::USE_WAYPOINT) {
        None => Asked::Nothing,
        Some(labels::USE_WAYPOINT_NONE) => Asked::None,
        Some(name) => {
            Asked::Waypoint(NamespacedName::new(label(labels::USE_WAYPOINT_NAMESPACE).unwrap_or(namespace), name))
        }
    }
}

/// A label that says something.
pub(crate) fn label<'a>(object: &'a dyn Labelled, name: &str) -> Option<&'a str> {
    object.label(name).filter(|value| !value.is_empty())
}
