//! Who names, chooses or points at an object: what `relations` says of each object, the other way round. Pure.
//!
//! It is kept beside a [`Cluster`] and told of each change of it ([`Index::update`]), which costs as much as the one
//! object has relations. Only a service with another selector looks at all pods of its namespace.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use mesh_model::address::NamespacedName;

use super::attachments::Attachments;
use super::pairs::Pairs;
use super::pod::{Pod, Stage};
use super::relations::{self, Asked, Mention};
use super::{Cluster, Kept};
use crate::resources::labels::Labelled;
use crate::resources::{Key, Kind};

/// A label's name and value.
type Label = (Arc<str>, Arc<str>);

/// Services, by the first label of their selector.
type ByLabel = BTreeMap<Label, BTreeSet<NamespacedName>>;

/// Who points at whom.
#[derive(Debug, Default)]
pub struct Index {
    /// By namespace.
    selectors: HashMap<Arc<str>, ByLabel>,
    /// Services, each with the names of the pods of its namespace that it selects.
    selected: HashMap<NamespacedName, BTreeSet<Arc<str>>>,
    /// Addresses of pods that have them to themselves.
    addresses: Pairs<IpAddr, NamespacedName>,
    /// Services, each with the slices about it.
    slices: Pairs<NamespacedName, NamespacedName>,
    /// What slices and Endpoints of a service point at.
    mentions: HashMap<NamespacedName, BTreeSet<Mention>>,
    /// The same the other way round.
    mentioned: Pairs<Mention, NamespacedName>,
    /// Waypoints, each with who asks for it.
    waypoints: Pairs<NamespacedName, Key>,
    /// Routes and policies.
    attachments: Attachments,
}

impl Index {
    /// Takes a change in that `cluster` has taken in: of one object, from `old` to `new`.
    pub fn update(&mut self, cluster: &Cluster, key: &Key, old: Option<&Kept>, new: Option<&Kept>) {
        let name = key.object();
        self.attachments.update(key, old, new);
        if let Some(object) = old {
            for waypoint in waypoints(object) {
                self.waypoints.remove(&(waypoint, key.clone()));
            }
            match object {
                Kept::Pod(pod) => self.remove_pod(cluster, &name, pod),
                Kept::Service(object) => self.remove_selector(&name, object, new),
                Kept::EndpointSlice(slice) => {
                    if let Some(service) = relations::service_of(slice) {
                        self.slices.remove(&(service.clone(), name.clone()));
                        self.mention(cluster, &service);
                    }
                }
                _ => {}
            }
        }
        if let Some(object) = new {
            for waypoint in waypoints(object) {
                self.waypoints.insert((waypoint, key.clone()));
            }
            match object {
                Kept::Pod(pod) => self.add_pod(cluster, name.clone(), pod),
                Kept::Service(object) => self.add_selector(cluster, &name, object, old),
                Kept::EndpointSlice(slice) => {
                    if let Some(service) = relations::service_of(slice) {
                        self.slices.insert((service.clone(), name.clone()));
                        self.mention(cluster, &service);
                    }
                }
                _ => {}
            }
        }
        if matches!(key.kind, Kind::Service | Kind::Endpoints) {
            self.mention(cluster, &name);
        }
    }

    fn remove_pod(&mut self, cluster: &Cluster, name: &NamespacedName, pod: &Pod) {
        for service in self.selecting(cluster, &name.namespace, pod) {
            if let Some(pods) = self.selected.get_mut(&service) {
                pods.remove(&name.name);
                if pods.is_empty() {
                    self.selected.remove(&service);
                }
            }
        }
        for address in addresses(pod) {
            self.addresses.remove(&(address, name.clone()));
        }
    }

    fn add_pod(&mut self, cluster: &Cluster, name: NamespacedName, pod: &Pod) {
        for service in self.selecting(cluster, &name.namespace, pod) {
            self.selected.entry(service).or_default().insert(name.name.clone());
        }
        for address in addresses(pod) {
            self.addresses.insert((address, name.clone()));
        }
    }

    fn remove_selector(&mut self, name: &NamespacedName, object: &Service, new: Option<&Kept>) {
        let Some(first) = first_label(object).filter(|_| !has_selector_of(new, object)) else { return };
        if let Some(by_label) = self.selectors.get_mut(&name.namespace) {
            if let Some(services) = by_label.get_mut(&first) {
                services.remove(name);
                if services.is_empty() {
                    by_label.remove(&first);
                }
            }
            if by_label.is_empty() {
                self.selectors.remove(&name.namespace);
            }
        }
        self.selected.remove(name);
    }

    fn add_selector(&mut self, cluster: &Cluster, name: &NamespacedName, object: &Service, old: Option<&Kept>) {
        let Some(first) = first_label(object).filter(|_| !has_selector_of(old, object)) else { return };
        self.selectors.entry(name.namespace.clone()).or_default().entry(first).or_default().insert(name.clone());
        let pods = cluster.pods_in(&name.namespace).filter(|(_, pod)| relations::selects(object, &***pod));
        let pods: BTreeSet<_> = pods.map(|(pod, _)| pod.name.clone()).collect();
        if !pods.is_empty() {
            self.selected.insert(name.clone(), pods);
        }
    }

    /// Says anew what the slices and Endpoints of a service point at.
    fn mention(&mut self, cluster: &Cluster, service: &NamespacedName) {
        let mut now = BTreeSet::new();
        if let Some(object) = cluster.service(service) {
            let slices = self.slices.of(service).filter_map(|key| cluster.endpoint_slice(key));
            for slice in slices.filter(|slice| relations::counts_for(slice, object)) {
                now.append(&mut relations::mentions_of_slice(slice));
            }
            if let Some(endpoints) = cluster.endpoints_named(service).filter(|_| !relations::has_selector(object)) {
                now.append(&mut relations::mentions_of_endpoints(endpoints));
            }
        }
        let before = match now.is_empty() {
            true => self.mentions.remove(service),
            false => self.mentions.insert(service.clone(), now.clone()),
        };
        let before = before.unwrap_or_default();
        for gone in before.difference(&now) {
            self.mentioned.remove(&(gone.clone(), service.clone()));
        }
        for new in now.difference(&before) {
            self.mentioned.insert((new.clone(), service.clone()));
        }
    }

    /// The services whose selector chooses a pod.
    fn selecting(&self, cluster: &Cluster, namespace: &str, pod: &Pod) -> Vec<NamespacedName> {
        let Some(by_label) = self.selectors.get(namespace) else { return Vec::new() };
        let labels = pod.labels.iter();
        let some = labels.filter_map(|(key, value)| by_label.get(&(key.clone(), value.clone()))).flatten();
        let all = some.filter(|service| cluster.service(service).is_some_and(|object| relations::selects(object, pod)));
        all.cloned().collect()
    }

    /// The services that a pod may be an endpoint of.
    pub(super) fn services_of(&self, cluster: &Cluster, name: &NamespacedName, pod: &Pod) -> BTreeSet<NamespacedName> {
        let mut services: BTreeSet<_> = self.selecting(cluster, &name.namespace, pod).into_iter().collect();
        services.extend(self.mentioned.of(&Mention::Pod(name.clone())).cloned());
        for address in addresses(pod) {
            services.extend(self.mentioned.of(&Mention::Address(address)).cloned());
        }
        services
    }

    /// The pods that may be endpoints of a service.
    pub(crate) fn pods_of(&self, service: &NamespacedName) -> BTreeSet<NamespacedName> {
        let own = |name: &Arc<str>| NamespacedName { namespace: service.namespace.clone(), name: name.clone() };
        let mut pods: BTreeSet<_> = self.selected.get(service).into_iter().flatten().map(own).collect();
        for mention in self.mentions.get(service).into_iter().flatten() {
            match mention {
                Mention::Pod(pod) => drop(pods.insert(pod.clone())),
                Mention::Address(address) => pods.extend(self.addresses.of(address).cloned()),
            }
        }
        pods
    }

    /// The slices about a service, in order.
    pub(crate) fn slices_of(&self, service: &NamespacedName) -> impl Iterator<Item = &NamespacedName> {
        self.slices.of(service)
    }

    /// Who asks for a waypoint.
    pub(super) fn asking_for(&self, waypoint: &NamespacedName) -> impl Iterator<Item = &Key> {
        self.waypoints.of(waypoint)
    }

    /// The waypoints that somebody asks for.
    pub(super) fn asked_for(&self) -> impl Iterator<Item = &NamespacedName> {
        self.waypoints.firsts().into_iter()
    }

    /// Routes and policies that are attached to something.
    pub(crate) fn attachments(&self) -> &Attachments {
        &self.attachments
    }
}

/// The addresses at which a pod is found; none that it shares with its node, and none before or after its life.
fn addresses(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let addresses = match pod.stage {
        Stage::Pending | Stage::Ended => &[],
        _ if pod.host_network => &[],
        _ => &*pod.addresses,
    };
    addresses.iter().copied()
}

/// The waypoints that an object asks for: for itself, and of a service entry for endpoints that it lists.
fn waypoints(object: &Kept) -> Vec<NamespacedName> {
    let key = object.key();
    let namespace = match key.kind {
        Kind::Namespace => &key.name,
        Kind::Pod | Kind::Service | Kind::ServiceEntry | Kind::WorkloadEntry => &key.namespace,
        _ => return Vec::new(),
    };
    let asked = |labels: &dyn Labelled| match relations::waypoint(labels, namespace) {
        Asked::Waypoint(waypoint) => Some(waypoint),
        Asked::Nothing | Asked::None => None,
    };
    let mut all: Vec<_> = asked(object.labels()).into_iter().collect();
    if let Kept::ServiceEntry(entry) = object {
        all.extend(entry.spec.endpoints.iter().filter_map(|endpoint| asked(&endpoint.labels)));
    }
    all
}

fn first_label(object: &Service) -> Option<Label> {
    let (key, value) = relations::selector(object)?.iter().next()?;
    Some((key.as_str().into(), value.as_str().into()))
}

/// Whether another form of a service has the same selector.
fn has_selector_of(other: Option<&Kept>, object: &Service) -> bool {
    matches!(other, Some(Kept::Service(other)) if relations::selector(other) == relations::selector(object))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::Object;

    /// What stays of an object that is gone shows in no answer, only in memory.
    #[test]
    fn nothing_is_left_of_what_is_gone() {
        let of = |kind, value| Kept::from(Object::from_value(kind, &value).unwrap());
        let pod = |app: &str, ip: &str| {
            let metadata = json!({"name": "a", "labels": {"app": app, "istio.io/use-waypoint": app}});
            let status = json!({"phase": "Running", "podIPs": [{"ip": ip}]});
            of(Kind::Pod, json!({"metadata": metadata, "spec": {"containers": []}, "status": status}))
        };
        let service = |selector| {
            of(
                Kind::Service,
                json!({"metadata": {"name": "web"}, "spec": {"selector": selector, "ports": [{"port": 80}]}}),
            )
        };
        let slice = |name: &str, ip: &str| {
            let metadata = json!({"name": name, "labels": {"kubernetes.io/service-name": "web"}});
            let endpoint = json!({"addresses": [ip], "targetRef": {"kind": "Pod", "name": "a"}});
            of(
                Kind::EndpointSlice,
                json!({"metadata": metadata, "addressType": "IPv4", "endpoints": [endpoint], "ports": [{"port": 80}]}),
            )
        };
        let steps = [
            service(json!({"app": "x"})),
            pod("x", "10.0.0.1"),
            slice("s1", "10.0.0.1"),
            slice("s2", "10.0.0.2"),
            pod("y", "10.0.0.2"),
            service(json!({"app": "y"})),
            slice("s1", "10.0.0.3"),
            service(json!({})),
        ];
        let keys: BTreeSet<Key> = steps.iter().map(Kept::key).collect();
        for first_gone in &keys {
            let (mut cluster, mut index) = (Cluster::default(), Index::default());
            let mut set = |key: &Key, new: Option<&Kept>| {
                let old = cluster.get(key);
                match new {
                    Some(new) => cluster.apply(new.clone()),
                    None => cluster.delete(key),
                }
                index.update(&cluster, key, old.as_ref(), new);
                format!("{index:?}")
            };
            for step in &steps {
                assert_ne!(set(&step.key(), Some(step)), format!("{:?}", Index::default()));
            }
            let rest = keys.iter().filter(|key| *key != first_gone);
            let last = std::iter::once(first_gone).chain(rest).map(|key| set(key, None)).last();
            assert_eq!(last, Some(format!("{:?}", Index::default())), "{first_gone} first");
        }
    }
}
