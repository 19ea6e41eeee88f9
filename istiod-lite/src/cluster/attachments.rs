//! What is attached to services and waypoints: routes, destination rules, and policies with `targetRefs`. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_model::address::NamespacedName;

use super::pairs::{Least, Pairs};
use super::relations::{Named, named, named_by};
use super::{Cluster, Kept};
use crate::resources::authorization_policy::{AuthorizationPolicy, TargetRef};
use crate::resources::gateway_api::backend_ref::BackendRef;
use crate::resources::gateway_api::common::{ParentRef, WeightedBackend};
use crate::resources::gateway_api::http_filter::HttpFilter;
use crate::resources::gateway_api::stream_route::{StreamBackendRef, StreamRouteRule};
use crate::resources::gateway_api::{self, GrpcRoute, HttpRoute};
use crate::resources::traffic_policy::PolicyTargetRef;
use crate::resources::{Key, Kind, RequestAuthentication, Telemetry, TrafficPolicy, VirtualService, host};

/// What a policy targets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A Service.
    Service(NamespacedName),
    /// A ServiceEntry: all its hosts.
    Entry(NamespacedName),
    /// A Gateway.
    Gateway(NamespacedName),
    /// All Gateways of a class.
    Class(Arc<str>),
    /// What no waypoint stands for: its kind.
    Other(Arc<str>),
}

/// Who is attached to whom.
#[derive(Debug, Default)]
pub(crate) struct Attachments {
    /// Services, each with the routes that have it as their parent.
    children: Pairs<NamespacedName, Key>,
    /// ServiceEntries, each with the routes that have it as their parent.
    children_of_entries: Pairs<NamespacedName, Key>,
    /// Hosts, each with the routes that send requests to it by that name.
    senders_to_hosts: Pairs<Arc<str>, Key>,
    /// Services, each with the routes that send requests to it.
    senders: Pairs<NamespacedName, Key>,
    /// Services, each with the DestinationRules that name it.
    rules: Pairs<NamespacedName, Key>,
    /// DestinationRules with subsets for all of a domain.
    wide: BTreeSet<Key>,
    /// What policies target.
    policies: Pairs<Target, NamespacedName>,
    /// What request authentications target.
    authentications: Pairs<Target, NamespacedName>,
    /// What telemetries target.
    telemetries: Pairs<Target, NamespacedName>,
    /// What traffic policies target.
    limits: Pairs<Key, NamespacedName>,
    /// What those of them target that have limits.
    limited: Pairs<Key, NamespacedName>,
    /// Services, each with the traffic policies that ask it to count.
    limiters: Pairs<NamespacedName, NamespacedName>,
    /// Classes, each with its Gateways.
    gateways: Pairs<Arc<str>, NamespacedName>,
}

impl Attachments {
    /// Of everything that there is.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let mut all = Self::default();
        for key in cluster.all_keys() {
            all.update(&key, None, cluster.get(&key).as_ref());
        }
        all
    }

    /// Takes a change of one object in.
    pub(crate) fn update(&mut self, key: &Key, old: Option<&Kept>, new: Option<&Kept>) {
        let attached = [
            Kind::AuthorizationPolicy,
            Kind::RequestAuthentication,
            Kind::Gateway,
            Kind::HttpRoute,
            Kind::GrpcRoute,
            Kind::TcpRoute,
            Kind::TlsRoute,
            Kind::DestinationRule,
            Kind::VirtualService,
            Kind::Telemetry,
            Kind::TrafficPolicy,
        ];
        if !attached.contains(&key.kind) {
            return;
        }
        for (object, is_there) in [(old, false), (new, true)] {
            let Some(object) = object else { continue };
            let (parents, backends) = (parents(object), backends(object));
            for (pairs, services) in [(&mut self.children, parents), (&mut self.senders, backends)] {
                for service in services {
                    pairs.set((service, key.clone()), is_there);
                }
            }
            for entry in entry_parents(object) {
                self.children_of_entries.set((entry, key.clone()), is_there);
            }
            for host in backend_hosts(object) {
                self.senders_to_hosts.set((host, key.clone()), is_there);
            }
            match object {
                Kept::AuthorizationPolicy(policy) => {
                    for target in targets(policy) {
                        self.policies.set((target, key.object()), is_there);
                    }
                }
                Kept::RequestAuthentication(object) => {
                    for target in targets_of_authentication(object) {
                        self.authentications.set((target, key.object()), is_there);
                    }
                }
                Kept::Telemetry(object) => {
                    for target in targets_of_telemetry(object) {
                        self.telemetries.set((target, key.object()), is_there);
                    }
                }
                Kept::TrafficPolicy(policy) => {
                    for target in limited_by(policy) {
                        if policy.has_limits() {
                            self.limited.set((target.clone(), key.object()), is_there);
                        }
                        self.limits.set((target, key.object()), is_there);
                    }
                    for service in limiters_of(policy) {
                        self.limiters.set((service, key.object()), is_there);
                    }
                }
                Kept::Gateway(gateway) => {
                    self.gateways.set((gateway.spec.gateway_class_name.as_str().into(), key.object()), is_there);
                }
                Kept::DestinationRule(rule) => match named_by(rule) {
                    Named::Service(service) => self.rules.set((service, key.clone()), is_there),
                    Named::Below(_) if is_there && !rule.spec.subsets.is_empty() => drop(self.wide.insert(key.clone())),
                    Named::Below(_) => drop(self.wide.remove(key)),
                    Named::Other => {}
                },
                _ => {}
            }
        }
    }

    /// The routes that have a service as their parent.
    pub(crate) fn routes_of(&self, service: &NamespacedName) -> impl Iterator<Item = &Key> {
        self.children.of(service)
    }

    /// The routes that have a ServiceEntry as their parent.
    pub(crate) fn routes_of_entry(&self, entry: &NamespacedName) -> impl Iterator<Item = &Key> {
        self.children_of_entries.of(entry)
    }

    /// The routes that send requests to a host by its name.
    pub(crate) fn routes_to_host(&self, host: &Arc<str>) -> impl Iterator<Item = &Key> {
        self.senders_to_hosts.of(host)
    }

    /// The routes that send requests to a service.
    pub(crate) fn routes_to(&self, service: &NamespacedName) -> impl Iterator<Item = &Key> {
        self.senders.of(service)
    }

    /// The DestinationRules that name a service.
    pub(crate) fn rules_of(&self, service: &NamespacedName) -> impl Iterator<Item = &Key> {
        self.rules.of(service)
    }

    /// Whether a service may have subsets: who is in them is said with its routes.
    pub(crate) fn may_have_subsets(&self, cluster: &Cluster, service: &NamespacedName) -> bool {
        let has_some =
            |key: &Key| cluster.destination_rule(&key.object()).is_some_and(|rule| !rule.spec.subsets.is_empty());
        !self.wide.is_empty() || self.rules_of(service).any(has_some)
    }

    /// The policies that target something.
    pub(crate) fn policies_of(&self, target: &Target) -> impl Iterator<Item = &NamespacedName> {
        self.policies.of(target)
    }

    /// The request authentications that target something.
    pub(crate) fn authentications_of(&self, target: &Target) -> impl Iterator<Item = &NamespacedName> {
        self.authentications.of(target)
    }

    /// The telemetries that target something.
    pub(crate) fn telemetries_of(&self, target: &Target) -> impl Iterator<Item = &NamespacedName> {
        self.telemetries.of(target)
    }

    /// The traffic policies that target something.
    pub(crate) fn limits_of(&self, target: &Key) -> impl Iterator<Item = &NamespacedName> {
        self.limits.of(target)
    }

    /// The traffic policies that ask a service to count.
    pub(crate) fn limiters_of(&self, service: &NamespacedName) -> impl Iterator<Item = &NamespacedName> {
        self.limiters.of(service)
    }

    /// Whether a traffic policy limits what is sent to a Service or Gateway.
    pub(crate) fn is_limited(&self, target: &Target) -> bool {
        let (kind, name) = match target {
            Target::Service(name) => (Kind::Service, name),
            Target::Gateway(name) => (Kind::Gateway, name),
            Target::Entry(_) | Target::Class(_) | Target::Other(_) => return false,
        };
        self.limited.of(&Key::new(kind, Some(&name.namespace), &name.name)).next().is_some()
    }

    /// Whether a policy of any kind that is enforced targets something.
    pub(crate) fn has_policies(&self, target: &Target) -> bool {
        self.policies_of(target).next().is_some()
            || self.authentications_of(target).next().is_some()
            || self.is_limited(target)
    }

    /// The Gateways of a class.
    pub(crate) fn gateways_of(&self, class: &str) -> Vec<NamespacedName> {
        self.gateways.of(&class.into()).cloned().collect()
    }
}

impl Least for Target {
    fn least() -> Self {
        Self::Service(NamespacedName::least())
    }
}

/// What a policy targets, in its order. Kinds that are looked up are of the right group.
pub(crate) fn targets(policy: &AuthorizationPolicy) -> impl Iterator<Item = Target> {
    let namespace = super::relations::namespace(&policy.metadata);
    target_refs(policy).map(move |reference| target(reference, namespace))
}

/// What a request authentication targets, in its order.
pub(crate) fn targets_of_authentication(object: &RequestAuthentication) -> impl Iterator<Item = Target> {
    let namespace = super::relations::namespace(&object.metadata);
    refs_of_authentication(object).map(move |reference| target(reference, namespace))
}

/// What a traffic policy targets, in its order.
pub(crate) fn limited_by(policy: &TrafficPolicy) -> impl Iterator<Item = Key> {
    let namespace = super::relations::namespace(&policy.metadata);
    policy.spec.target_refs.iter().filter_map(move |reference| limited(reference, namespace))
}

/// What a target of a traffic policy in `namespace` is.
pub(crate) fn limited(reference: &PolicyTargetRef, namespace: &str) -> Option<Key> {
    let kind = match (&*reference.group, &*reference.kind) {
        ("" | "core", "Service") => Kind::Service,
        (gateway_api::GROUP, "Gateway") => Kind::Gateway,
        (gateway_api::GROUP, "HTTPRoute") => Kind::HttpRoute,
        (gateway_api::GROUP, "GRPCRoute") => Kind::GrpcRoute,
        _ => return None,
    };
    Some(Key::new(kind, Some(namespace), &reference.name))
}

/// The Services that a traffic policy asks to count.
fn limiters_of(policy: &TrafficPolicy) -> BTreeSet<NamespacedName> {
    let namespace = super::relations::namespace(&policy.metadata);
    policy.global().map(|(_, limit)| limit.service.object(namespace)).collect()
}

/// What a telemetry targets, in its order.
pub(crate) fn targets_of_telemetry(object: &Telemetry) -> impl Iterator<Item = Target> {
    let namespace = super::relations::namespace(&object.metadata);
    refs_of_telemetry(object).map(move |reference| target(reference, namespace))
}

/// As they are written.
pub(crate) fn refs_of_telemetry(object: &Telemetry) -> impl Iterator<Item = &TargetRef> {
    object.spec.target_ref.iter().chain(&object.spec.target_refs)
}

/// As they are written.
pub(crate) fn refs_of_authentication(object: &RequestAuthentication) -> impl Iterator<Item = &TargetRef> {
    object.spec.target_ref.iter().chain(&object.spec.target_refs)
}

/// As they are written.
pub(crate) fn target_refs(policy: &AuthorizationPolicy) -> impl Iterator<Item = &TargetRef> {
    policy.spec.target_ref.iter().chain(&policy.spec.target_refs)
}

/// A policy is for what is in its own namespace.
pub(crate) fn target(reference: &TargetRef, namespace: &str) -> Target {
    let own = || NamespacedName::new(namespace, reference.name.as_str());
    let elsewhere = reference.namespace.as_deref().is_some_and(|other| !other.is_empty() && other != namespace);
    match (&*reference.group, &*reference.kind) {
        _ if elsewhere => Target::Other(reference.kind.as_str().into()),
        ("" | "core", "Service") => Target::Service(own()),
        ("networking.istio.io", "ServiceEntry") => Target::Entry(own()),
        (gateway_api::GROUP, "Gateway") => Target::Gateway(own()),
        (gateway_api::GROUP, "GatewayClass") => Target::Class(reference.name.as_str().into()),
        (_, kind) => Target::Other(kind.into()),
    }
}

/// The Service that a parentRef of a route in `namespace` names.
pub(crate) fn parent(reference: &ParentRef, namespace: &str) -> Option<NamespacedName> {
    let own = reference.namespace.as_deref().filter(|name| !name.is_empty());
    reference.is_service().then(|| NamespacedName::new(own.unwrap_or(namespace), reference.name.as_str()))
}

/// The ServiceEntry that a parentRef of a route in `namespace` names.
pub(crate) fn entry_parent(reference: &ParentRef, namespace: &str) -> Option<NamespacedName> {
    let own = reference.namespace.as_deref().filter(|name| !name.is_empty());
    reference.is_entry().then(|| NamespacedName::new(own.unwrap_or(namespace), reference.name.as_str()))
}

/// The service entries that are a route's parents.
pub(crate) fn entry_parents(object: &Kept) -> BTreeSet<NamespacedName> {
    let (refs, namespace) = match object {
        Kept::HttpRoute(route) => (&route.spec.parent_refs, super::relations::namespace(&route.metadata)),
        Kept::GrpcRoute(route) => (&route.spec.parent_refs, super::relations::namespace(&route.metadata)),
        Kept::TcpRoute(route) => (&route.spec.parent_refs, super::relations::namespace(&route.metadata)),
        Kept::TlsRoute(route) => (&route.spec.parent_refs, super::relations::namespace(&route.metadata)),
        _ => return BTreeSet::new(),
    };
    refs.iter().filter_map(|reference| entry_parent(reference, namespace)).collect()
}

/// The hosts that a route sends requests to by name, in normal form.
fn backend_hosts(object: &Kept) -> BTreeSet<Arc<str>> {
    let refs = match object {
        Kept::HttpRoute(route) => of_http(route),
        Kept::GrpcRoute(route) => of_grpc(route),
        Kept::TcpRoute(route) => of_stream(&route.spec.rules),
        Kept::TlsRoute(route) => of_stream(&route.spec.rules),
        _ => return BTreeSet::new(),
    };
    refs.iter().filter(|reference| reference.is_hostname()).map(|one| host::normal(&one.name).into()).collect()
}

/// The Service that a backendRef of a route in `namespace` names, as an object or by its full hostname.
pub(crate) fn backend(reference: &BackendRef, namespace: &str) -> Option<NamespacedName> {
    if reference.is_hostname() {
        // Names are whole: one without dots is nobody's.
        let named = Some(named(&reference.name, namespace)).filter(|_| reference.name.contains('.'));
        return match named {
            Some(Named::Service(service)) => Some(service),
            _ => None,
        };
    }
    let own = reference.namespace.as_deref().filter(|name| !name.is_empty());
    reference.is_service().then(|| NamespacedName::new(own.unwrap_or(namespace), reference.name.as_str()))
}

/// The services that are a route's parents.
pub(crate) fn parents(object: &Kept) -> BTreeSet<NamespacedName> {
    let (refs, namespace) = match object {
        Kept::HttpRoute(route) => (&route.spec.parent_refs, super::relations::namespace(&route.metadata)),
        Kept::GrpcRoute(route) => (&route.spec.parent_refs, super::relations::namespace(&route.metadata)),
        Kept::TcpRoute(route) => (&route.spec.parent_refs, super::relations::namespace(&route.metadata)),
        Kept::TlsRoute(route) => (&route.spec.parent_refs, super::relations::namespace(&route.metadata)),
        Kept::VirtualService(object) => return super::relations::hosts(object).collect(),
        _ => return BTreeSet::new(),
    };
    refs.iter().filter_map(|reference| parent(reference, namespace)).collect()
}

/// The services that a route sends requests to, mirrors included.
fn backends(object: &Kept) -> BTreeSet<NamespacedName> {
    let (refs, namespace) = match object {
        Kept::HttpRoute(route) => (of_http(route), super::relations::namespace(&route.metadata)),
        Kept::GrpcRoute(route) => (of_grpc(route), super::relations::namespace(&route.metadata)),
        Kept::TcpRoute(route) => (of_stream(&route.spec.rules), super::relations::namespace(&route.metadata)),
        Kept::TlsRoute(route) => (of_stream(&route.spec.rules), super::relations::namespace(&route.metadata)),
        Kept::VirtualService(object) => return destinations_of(object),
        _ => return BTreeSet::new(),
    };
    refs.iter().filter_map(|reference| backend(reference, namespace)).collect()
}

/// The services that a VirtualService for the mesh sends requests to.
fn destinations_of(object: &VirtualService) -> BTreeSet<NamespacedName> {
    let namespace = super::relations::namespace(&object.metadata);
    let destinations = object.spec.http.iter().flat_map(|rule| rule.destinations());
    let services =
        destinations.filter(|_| object.spec.is_for_mesh()).filter_map(|to| match named(&to.host, namespace) {
            Named::Service(service) => Some(service),
            Named::Below(_) | Named::Other => None,
        });
    services.collect()
}

/// Every backendRef of an HTTPRoute, in its order.
pub(crate) fn of_http(route: &HttpRoute) -> Vec<BackendRef> {
    let rules = route.spec.rules.iter().flatten();
    rules.flat_map(|rule| of_rule(&rule.backend_refs, &rule.filters)).collect()
}

/// Every backendRef of a GRPCRoute, in its order.
pub(crate) fn of_grpc(route: &GrpcRoute) -> Vec<BackendRef> {
    route.spec.rules.iter().flat_map(|rule| of_rule(&rule.backend_refs, &rule.filters)).collect()
}

/// Every backendRef of a TCPRoute or TLSRoute, in its order.
pub(crate) fn of_stream(rules: &[StreamRouteRule]) -> Vec<BackendRef> {
    rules.iter().flat_map(|rule| rule.backend_refs.iter().map(StreamBackendRef::reference)).collect()
}

fn of_rule(backends: &[WeightedBackend], filters: &[HttpFilter]) -> Vec<BackendRef> {
    let mirror = |filter: &HttpFilter| filter.request_mirror.as_ref().map(|mirror| mirror.backend_ref.clone());
    let own = backends.iter().flat_map(|b| std::iter::once(b.reference()).chain(b.filters.iter().filter_map(mirror)));
    own.chain(filters.iter().filter_map(mirror)).collect()
}
