//! What has to be said anew when an object changes. Pure.
//!
//! What depends on an object as it was, and what depends on it as it is: both, since an object that changes leaves some
//! and comes to others. It may be more than what differs in the end, never less: whoever publishes drops what is the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::labels;

use super::attachments::{self, Target};
use super::index::Index;
use super::relations::{self, Asked, Named};
use super::{Cluster, Kept};
use crate::resources::authorization_policy::Action;
use crate::resources::labels::{Labelled, Labels};
use crate::resources::{Key, KeySource, Kind, host};

/// What has to be said anew.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Authorization policies to translate.
    pub policies: BTreeSet<NamespacedName>,
    /// Request authentications to translate.
    pub authentications: BTreeSet<NamespacedName>,
    /// Peer authentications changed: they are decided on together.
    pub peer_authentications: bool,
    /// Namespaces of pods that came, went or have other labels: peer authentications say how many they are for.
    pub relabelled: BTreeSet<Arc<str>>,
    /// The labels changed by which Services name this control plane.
    pub revisions: bool,
    /// A Gateway changed that says where another network's is: they are decided on together.
    pub networks: bool,
    /// Services to translate.
    pub services: BTreeSet<NamespacedName>,
    /// Services whose endpoints to look for.
    pub endpoints: BTreeSet<NamespacedName>,
    /// Services all of whose endpoints to translate.
    pub members: BTreeSet<NamespacedName>,
    /// Gateways of which to say anew what is said of workloads behind them.
    pub gateways: BTreeSet<NamespacedName>,
    /// Pods to translate.
    pub pods: BTreeSet<NamespacedName>,
    /// Service entries changed: they are decided on together.
    pub entries_changed: bool,
    /// Service entries to translate.
    pub entries: BTreeSet<NamespacedName>,
    /// Services that came or went, or are of another type: a service entry may name their host.
    pub renamed: BTreeSet<NamespacedName>,
    /// Workload entries to translate.
    pub workload_entries: BTreeSet<NamespacedName>,
    /// Nodes that may be elsewhere now.
    pub nodes: BTreeSet<Arc<str>>,
    /// Objects of which something may have to be told to their authors.
    pub told: BTreeSet<Key>,
}

impl Affected {
    /// Adds what differs between two forms of one object, whoever depends on it.
    pub fn by_difference(&mut self, key: &Key, old: Option<&Kept>, new: Option<&Kept>) {
        match key.kind {
            Kind::Pod if pod_labels(old) != pod_labels(new) => {
                self.relabelled.insert(key.namespace.clone());
            }
            Kind::Service => {
                let label = |object: Option<&Kept>, name| object?.labels().label(name).map(str::to_owned);
                let differs = |name| label(old, name) != label(new, name);
                self.revisions |= differs(labels::REVISION) || differs(labels::TAG);
                if service_type(old) != service_type(new) {
                    self.renamed.insert(key.object());
                }
            }
            Kind::ServiceEntry => self.entries_changed = true,
            Kind::Gateway => {
                let is_remote = |object: &Kept| matches!(object, Kept::Gateway(gateway) if gateway.is_remote());
                self.networks |= old.into_iter().chain(new).any(is_remote);
            }
            _ => {}
        }
    }

    /// Adds what depends on an object as it is in this cluster.
    pub fn by_object(&mut self, cluster: &Cluster, index: &Index, key: &Key, object: &Kept) {
        let name = key.object();
        match object {
            Kept::Namespace(namespace) => {
                self.services.extend(cluster.services_in(&key.name).map(|(service, _)| service.clone()));
                // Whether a waypoint is theirs is said by both, and whether they are let to it, by the namespace.
                let asks = |object: &dyn Labelled| relations::waypoint(object, &key.name) != Asked::Nothing;
                let all = asks(&namespace.metadata);
                let pods = cluster.pods_in(&key.name).filter(|(_, pod)| all || asks(&***pod));
                for (pod, _) in pods {
                    self.pods.insert(pod.clone());
                    self.told.insert(Key::new(Kind::Pod, Some(&pod.namespace), &pod.name));
                }
                self.by_namespace(cluster, &key.name);
                self.told.insert(key.clone());
            }
            Kept::Node(_) => {
                self.pods.extend(cluster.keys_on_node(&key.name).cloned());
                self.nodes.insert(key.name.clone());
            }
            // Only certificates depend on them.
            Kept::ServiceAccount(_) => {}
            Kept::Pod(pod) => {
                let services = index.services_of(cluster, &name, pod);
                let has_subsets = |service: &&NamespacedName| index.attachments().may_have_subsets(cluster, service);
                self.services.extend(services.iter().filter(has_subsets).cloned());
                self.endpoints.extend(services);
                self.pods.insert(name);
                self.told.insert(key.clone());
            }
            Kept::Service(service) => {
                let entries = cluster.workload_entries_in(&key.namespace);
                let selected = entries.filter(|(_, entry)| relations::selects(service, &entry.metadata));
                self.workload_entries.extend(selected.map(|(entry, _)| entry.clone()));
                self.told.insert(key.clone());
                self.told.insert(Key { kind: Kind::Endpoints, ..key.clone() });
                let gateway = Key { kind: Kind::Gateway, ..key.clone() };
                self.told.insert(gateway);
                self.by_waypoint(cluster, index, &name);
                self.by_routes(cluster, index.attachments().routes_to(&name));
                self.by_limits(index.attachments().limiters_of(&name));
                if cluster.mesh_configs().any(|config| config.names(&name)) {
                    self.by_provider(cluster);
                }
                self.endpoints.insert(name.clone());
                self.members.insert(name.clone());
                self.services.insert(name);
            }
            Kept::EndpointSlice(slice) => {
                self.endpoints.extend(relations::service_of(slice));
                self.told.insert(key.clone());
            }
            Kept::Endpoints(_) => {
                self.endpoints.insert(name);
                self.told.insert(key.clone());
            }
            Kept::AuthorizationPolicy(policy) => {
                attachments::targets(policy).for_each(|target| self.by_target(cluster, index, target));
                self.policies.insert(name);
            }
            Kept::RequestAuthentication(object) => {
                let targets = attachments::targets_of_authentication(object);
                targets.for_each(|target| self.by_target(cluster, index, target));
                self.authentications.insert(name);
            }
            Kept::PeerAuthentication(_) => self.peer_authentications = true,
            Kept::GatewayClass(_) => {
                self.by_attached(index, &Target::Class(key.name.clone()));
                for gateway in index.attachments().gateways_of(&key.name) {
                    self.told.insert(Key::new(Kind::Gateway, Some(&gateway.namespace), &gateway.name));
                    self.by_waypoint(cluster, index, &gateway);
                }
            }
            Kept::Gateway(gateway) => {
                let class = Target::Class(gateway.spec.gateway_class_name.as_str().into());
                self.by_attached(index, &class);
                self.told.insert(key.clone());
                self.by_waypoint(cluster, index, &name);
            }
            Kept::HttpRoute(_)
            | Kept::GrpcRoute(_)
            | Kept::TcpRoute(_)
            | Kept::TlsRoute(_)
            | Kept::VirtualService(_) => {
                self.told.insert(key.clone());
                self.by_limits_of(index, key);
                self.services.extend(attachments::parents(object));
                self.entries.extend(attachments::entry_parents(object));
            }
            Kept::ServiceEntry(entry) => {
                self.told.insert(key.clone());
                self.entries.insert(name);
                for host in &entry.spec.hosts {
                    let host: Arc<str> = host::normal(host).into();
                    self.by_routes(cluster, index.attachments().routes_to_host(&host));
                }
                // It may have the host of a provider, and both are few.
                self.by_provider(cluster);
            }
            Kept::WorkloadEntry(entry) => {
                // Who is reached through a gateway is named by the services themselves.
                let is_named = !entry.spec.network.is_empty();
                let services = cluster.services_in(&key.namespace).filter(|(service, object)| {
                    relations::selects(object, &entry.metadata)
                        && (is_named || index.attachments().may_have_subsets(cluster, service))
                });
                self.services.extend(services.map(|(service, _)| service.clone()));
                let entries = cluster.service_entries_in(&key.namespace).filter(|(_, object)| {
                    let selector = object.spec.workload_selector.as_ref();
                    is_named && selector.is_some_and(|selector| selector.matches(&entry.metadata))
                });
                self.entries.extend(entries.map(|(name, _)| name.clone()));
                self.told.insert(key.clone());
                self.workload_entries.insert(name);
            }
            Kept::MeshConfig(_) => {
                self.told.insert(key.clone());
                self.by_provider(cluster);
                self.by_telemetry(cluster, index);
            }
            Kept::Telemetry(object) => {
                self.told.insert(key.clone());
                let mut targets = attachments::targets_of_telemetry(object).peekable();
                if targets.peek().is_none() {
                    self.by_telemetry(cluster, index);
                }
                for target in targets {
                    self.by_attached(index, &target);
                    self.by_target(cluster, index, target);
                }
            }
            Kept::TrafficPolicy(policy) => {
                self.told.insert(key.clone());
                for target in attachments::limited_by(policy) {
                    self.by_limits_of(index, &target);
                    match target.kind {
                        Kind::Service => drop(self.services.insert(target.object())),
                        Kind::Gateway => self.by_waypoint(cluster, index, &target.object()),
                        _ => {
                            let route = cluster.get(&target);
                            self.services.extend(route.iter().flat_map(attachments::parents));
                            self.entries.extend(route.iter().flat_map(attachments::entry_parents));
                        }
                    }
                }
            }
            Kept::DestinationRule(rule) => {
                self.told.insert(key.clone());
                match relations::named_by(rule) {
                    Named::Service(service) => drop(self.services.insert(service)),
                    // They are few, and seldom changed.
                    Named::Below(_) => {
                        self.services.extend(cluster.services().map(|(service, _)| service.clone()));
                    }
                    Named::Other => {}
                }
            }
        }
    }
}

impl Affected {
    /// Adds what policies target.
    pub(crate) fn by_target(&mut self, cluster: &Cluster, index: &Index, target: Target) {
        match target {
            Target::Service(service) => drop(self.services.insert(service)),
            Target::Entry(entry) => drop(self.entries.insert(entry)),
            Target::Gateway(gateway) => self.by_waypoint(cluster, index, &gateway),
            // It may be the class of one that is not there.
            Target::Class(class) => {
                self.gateways.extend(index.attachments().gateways_of(&class));
                index.asked_for().for_each(|waypoint| self.by_waypoint(cluster, index, waypoint));
            }
            Target::Other(_) => {}
        }
    }

    /// Adds what may depend on what is said of traces for a namespace or the whole mesh. It is seldom changed.
    fn by_telemetry(&mut self, cluster: &Cluster, index: &Index) {
        self.told.extend(
            cluster.telemetries().map(|(name, _)| Key::new(Kind::Telemetry, Some(&name.namespace), &name.name)),
        );
        self.gateways.extend(cluster.gateways().map(|(gateway, _)| gateway.clone()));
        index.asked_for().for_each(|waypoint| self.by_waypoint(cluster, index, waypoint));
    }

    /// Adds routes, and what follows them.
    fn by_routes<'a>(&mut self, cluster: &Cluster, routes: impl Iterator<Item = &'a Key>) {
        for route in routes {
            let object = cluster.get(route);
            self.told.insert(route.clone());
            self.services.extend(object.iter().flat_map(attachments::parents));
            self.entries.extend(object.iter().flat_map(attachments::entry_parents));
        }
    }

    /// Adds what is told of traffic policies.
    fn by_limits<'a>(&mut self, policies: impl Iterator<Item = &'a NamespacedName>) {
        self.told.extend(policies.map(|name| Key::new(Kind::TrafficPolicy, Some(&name.namespace), &name.name)));
    }

    /// Adds what is told of the traffic policies that target something.
    fn by_limits_of(&mut self, index: &Index, target: &Key) {
        self.by_limits(index.attachments().limits_of(target));
    }

    /// Adds policies of all kinds that target something.
    fn by_attached(&mut self, index: &Index, target: &Target) {
        self.policies.extend(index.attachments().policies_of(target).cloned());
        self.authentications.extend(index.attachments().authentications_of(target).cloned());
        let telemetries = index.attachments().telemetries_of(target);
        self.told.extend(telemetries.map(|name| Key::new(Kind::Telemetry, Some(&name.namespace), &name.name)));
    }

    /// Adds the request authentications that ask for keys, and what they target. Both are few, and keys seldom change.
    pub(crate) fn by_keys(&mut self, cluster: &Cluster, index: &Index, source: &KeySource) {
        for (name, object) in cluster.request_authentications() {
            if object.spec.jwt_rules.iter().any(|rule| rule.key_source().as_ref() == Some(source)) {
                let targets = attachments::targets_of_authentication(object);
                targets.for_each(|target| self.by_target(cluster, index, target));
                self.authentications.insert(name.clone());
            }
        }
    }

    /// Adds the policies that ask a provider of the mesh configuration.
    fn by_provider(&mut self, cluster: &Cluster) {
        let custom = cluster.authorization_policies().filter(|(_, policy)| policy.spec.action == Action::Custom);
        self.policies.extend(custom.map(|(key, _)| key.clone()));
    }

    /// Adds who asks for a waypoint, and what is attached to it.
    fn by_waypoint(&mut self, cluster: &Cluster, index: &Index, waypoint: &NamespacedName) {
        self.gateways.insert(waypoint.clone());
        self.by_attached(index, &Target::Gateway(waypoint.clone()));
        self.by_limits_of(index, &Key::new(Kind::Gateway, Some(&waypoint.namespace), &waypoint.name));
        for key in index.asking_for(waypoint) {
            self.told.insert(key.clone());
            match key.kind {
                Kind::Namespace => {
                    self.services.extend(cluster.services_in(&key.name).map(|(service, _)| service.clone()));
                    self.pods.extend(cluster.pods_in(&key.name).map(|(pod, _)| pod.clone()));
                    self.by_namespace(cluster, &key.name);
                }
                Kind::ServiceEntry => drop(self.entries.insert(key.object())),
                Kind::WorkloadEntry => drop(self.workload_entries.insert(key.object())),
                Kind::Pod => drop(self.pods.insert(key.object())),
                _ => drop(self.services.insert(key.object())),
            }
        }
    }

    /// Adds the entries of a namespace.
    fn by_namespace(&mut self, cluster: &Cluster, namespace: &str) {
        self.entries.extend(cluster.service_entries_in(namespace).map(|(entry, _)| entry.clone()));
        self.workload_entries.extend(cluster.workload_entries_in(namespace).map(|(entry, _)| entry.clone()));
    }

    /// Adds what is told of entries that are translated anew, and of what is attached to them.
    pub(crate) fn by_entries(&mut self, index: &Index) {
        for entry in &self.entries {
            for route in index.attachments().routes_of_entry(entry) {
                self.told.insert(route.clone());
                let policies = index.attachments().limits_of(route);
                self.told.extend(policies.map(|name| Key::new(Kind::TrafficPolicy, Some(&name.namespace), &name.name)));
            }
        }
        let of = |kind, name: &NamespacedName| Key::new(kind, Some(&name.namespace), &name.name);
        self.told.extend(self.entries.iter().map(|name| of(Kind::ServiceEntry, name)));
        self.told.extend(self.workload_entries.iter().map(|name| of(Kind::WorkloadEntry, name)));
    }

    /// Adds what is attached to services and entries that are translated anew, and what is told of services.
    pub(crate) fn by_services(&mut self, cluster: &Cluster, index: &Index) {
        for entry in self.entries.clone() {
            self.by_attached(index, &Target::Entry(entry));
        }
        // Routes to a subset say whether it is there, which is their services' waypoint's to know.
        let routes = self.services.iter().flat_map(|service| index.attachments().routes_to(service));
        let routes: BTreeSet<Key> = routes.filter(|key| key.kind == Kind::VirtualService).cloned().collect();
        for route in routes {
            self.services.extend(cluster.get(&route).iter().flat_map(attachments::parents));
            self.told.insert(route);
        }
        for service in &self.services {
            let target = Target::Service(service.clone());
            self.policies.extend(index.attachments().policies_of(&target).cloned());
            self.authentications.extend(index.attachments().authentications_of(&target).cloned());
            let telemetries = index.attachments().telemetries_of(&target);
            self.told.extend(telemetries.map(|name| Key::new(Kind::Telemetry, Some(&name.namespace), &name.name)));
            let key = Key::new(Kind::Service, Some(&service.namespace), &service.name);
            for limited in std::iter::once(&key).chain(index.attachments().routes_of(service)) {
                let policies = index.attachments().limits_of(limited);
                self.told.extend(policies.map(|name| Key::new(Kind::TrafficPolicy, Some(&name.namespace), &name.name)));
            }
            self.told.insert(key);
            self.told.extend(index.attachments().routes_of(service).cloned());
            self.told.extend(index.attachments().rules_of(service).cloned());
        }
    }
}

/// The type of a Service that is there.
fn service_type(object: Option<&Kept>) -> Option<Option<&str>> {
    match object {
        Some(Kept::Service(service)) => Some(service.spec.as_ref().and_then(|spec| spec.type_.as_deref())),
        _ => None,
    }
}

fn pod_labels(object: Option<&Kept>) -> Option<&Labels> {
    match object {
        Some(Kept::Pod(pod)) => Some(&pod.labels),
        _ => None,
    }
}
