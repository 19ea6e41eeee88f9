//! Changes of objects → what differs of what they mean: [`translate`](super::translate()), kept up to date.
//!
//! ```text
//! changes ──▶ cluster, index ──▶ affected ──▶ endpoints of the services among it ──▶ pods of which they say something else
//!                                    └───────────────────────────────────────────────────────┴──▶ each translated alone
//! ```
//!
//! A change costs as much as there is that depends on it, not as much as there is. What is the same as before may be
//! among what this gives: whoever publishes compares.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use mesh_model::address::NamespacedName;
use mesh_model::resource::{Kind, Resource};
use mesh_model::route::ServiceRoutes;
use mesh_model::workload::Workload;
use mesh_xds::audience::Audience;

use super::condition::PolicyStatus;
use super::context::{Context, Guards};
use super::endpoints::{self, Endpoint, Inputs, Owner};
use super::entries;
use super::entries::defined::{Entries, Entry};
use super::guard::OfPods;
use super::mesh::Mesh;
use super::networks::Networks;
use super::peer_authentication::Modes;
use super::policy::Policies;
use super::request_authentication::Authentications;
use super::revision::Revisions;
use super::world::World;
use super::{behind, guard, names, networks, outsider, routes, service, told, workload};
use crate::cluster::affected::Affected;
use crate::cluster::attachments;
use crate::cluster::index::Index;
use crate::cluster::pairs::Pairs;
use crate::cluster::{Change, Cluster};
use crate::resources;
use crate::resources::gateway_api::gateway::REMOTE_CLASS;
use crate::resources::labels::Labelled;

/// What differs.
#[derive(Debug, Default)]
pub struct Delta {
    /// New or different, or the same as before.
    pub resources: Vec<Resource>,
    /// The same, for the proxies of some waypoints.
    pub for_waypoints: Vec<(Resource, Audience)>,
    /// Gone, or never there.
    pub removed: Vec<(Kind, String)>,
    /// Something else is told to users.
    pub statuses_changed: bool,
    /// The pods that this is about: of each that proxies know there is a resource.
    pub pods: BTreeSet<NamespacedName>,
    /// The services that this is about.
    pub services: BTreeSet<NamespacedName>,
}

/// A cluster and what it means.
pub struct Translator {
    mesh: Mesh,
    cluster: Cluster,
    index: Index,
    networks: Networks,
    revisions: Revisions,
    policies: Policies,
    authentications: Authentications,
    modes: Modes,
    guards: Guards,
    pod_guards: OfPods,
    entries: Entries,
    members: Members,
    policy_statuses: BTreeMap<NamespacedName, PolicyStatus>,
    authentication_statuses: BTreeMap<NamespacedName, PolicyStatus>,
    mode_statuses: Vec<PolicyStatus>,
    entry_statuses: BTreeMap<NamespacedName, PolicyStatus>,
    workload_entry_statuses: BTreeMap<NamespacedName, PolicyStatus>,
    told: BTreeMap<told::Position, PolicyStatus>,
    /// Of changes that were taken in and not yet translated.
    affected: Affected,
}

impl Translator {
    /// Of a cluster without objects.
    pub fn new(mesh: Mesh) -> Self {
        let cluster = Cluster::default();
        let revisions = Revisions::new(&cluster, &mesh);
        Self {
            networks: Networks::new(&cluster, &mesh),
            policies: Policies::new(&mesh),
            authentications: Authentications::default(),
            modes: Modes::new(&cluster, &mesh, &revisions, &mut Vec::new()),
            revisions,
            mesh,
            cluster,
            index: Index::default(),
            guards: Guards::new(),
            pod_guards: OfPods::default(),
            entries: Entries::default(),
            members: Members::default(),
            policy_statuses: BTreeMap::new(),
            authentication_statuses: BTreeMap::new(),
            mode_statuses: Vec::new(),
            entry_statuses: BTreeMap::new(),
            workload_entry_statuses: BTreeMap::new(),
            told: BTreeMap::new(),
            affected: Affected::default(),
        }
    }

    /// What Kubernetes says, with the changes that were taken in.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// For the users: what becomes of every policy, and what is not followed.
    pub fn statuses(&self) -> Vec<PolicyStatus> {
        let policies = self.policy_statuses.values().chain(self.authentication_statuses.values());
        let policies = policies.chain(&self.mode_statuses);
        let entries = self.entry_statuses.values().chain(self.workload_entry_statuses.values());
        policies.chain(self.told.values()).chain(entries).cloned().collect()
    }

    /// Takes changes in. What follows from them is said by the next [`Self::translate`].
    pub fn take(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            if let Change::Keys(source, fetched) = change {
                if self.cluster.take_keys(&source, fetched) {
                    self.affected.by_keys(&self.cluster, &self.index, &source);
                }
                continue;
            }
            for (key, new) in self.cluster.steps(change) {
                let old = self.cluster.get(&key);
                if old == new {
                    continue;
                }
                let (old, affected) = (old.as_ref(), &mut self.affected);
                affected.by_difference(&key, old, new.as_ref());
                if let Some(old) = old {
                    affected.by_object(&self.cluster, &self.index, &key, old);
                }
                match &new {
                    Some(object) => self.cluster.apply(object.clone()),
                    None => self.cluster.delete(&key),
                }
                self.index.update(&self.cluster, &key, old, new.as_ref());
                if let Some(new) = &new {
                    affected.by_object(&self.cluster, &self.index, &key, new);
                }
            }
        }
    }

    /// What the changes come to that were taken in since the last time.
    pub fn translate(&mut self) -> Delta {
        let mut affected = std::mem::take(&mut self.affected);
        let mut delta = Delta::default();
        let mut outside = BTreeSet::new();
        self.look_at_the_whole(&mut affected);
        self.networks(&mut affected, &mut outside, &mut delta);
        affected.by_services(&self.cluster, &self.index);
        self.policies(&mut affected, &mut delta);
        self.authentications(&affected, &mut delta);
        self.modes(&mut affected, &mut delta);
        let entries_before = self.entries(&mut affected);
        affected.by_entries(&self.index);
        self.guards(&mut affected, &mut delta);
        let Affected { services, endpoints, members, mut pods, nodes, told, gateways, .. } = affected;
        let (service_entries, workload_entries) = (affected.entries, affected.workload_entries);
        for key in &endpoints {
            let inputs = Inputs::of_service(&self.cluster, &self.index, key);
            let differ = self.members.replace(key, &inputs, &self.mesh.cluster_id, members.contains(key));
            pods.extend(differ.pods);
            outside.extend(differ.outside);
        }
        for node in &nodes {
            outside.extend(self.members.on_node(node));
        }
        for key in told {
            self.tell(&key, &mut delta);
        }
        let context = self.context();
        let (mut of_entries, mut of_workloads) = (Vec::new(), Vec::new());
        for key in &service_entries {
            let names = |entry: &Entry| entries::names(entry, &self.mesh.cluster_id);
            delta.removed.extend(entries_before.get(key).into_iter().flat_map(|entry| names(entry)));
            let now = self.entries.get(key);
            delta.removed.extend(now.into_iter().flat_map(|entry| names(entry)));
            delta.resources.extend(now.into_iter().flat_map(|entry| entries::resources(entry, &context)));
            delta.for_waypoints.extend(now.into_iter().flat_map(|entry| entries::for_waypoint(entry, &context)));
            of_entries.push((key.clone(), now.map(|entry| entries::status(entry, &context))));
        }
        for key in &workload_entries {
            let object = self.cluster.workload_entry(key);
            let found = object.map(|object| entries::workload_entry(key, object, &self.revisions, &context));
            let (found, status) = found.map_or((None, None), |(found, status)| (found, Some(status)));
            delta.workload(found, || entries::uid_of_workload_entry(key, &self.mesh.cluster_id));
            of_workloads.push((key.clone(), status));
        }
        for key in &services {
            let found = self.cluster.service(key).map(|object| service::translate(object, &context));
            let other = |name: &NamespacedName| {
                found.as_ref().is_none_or(|found| found.key() != *name) && !self.entries.define(name)
            };
            let gone = names::of_service(key, &self.mesh).into_iter().filter(other);
            delta.removed.extend(gone.map(|name| (Kind::Address, name.to_string())));
            delta.resources.extend(found.map(|found| Resource::Service(Arc::new(found))));
            let found = self.cluster.service(key).and_then(|object| routes::of_service(object, &context));
            match found {
                Some((routes, waypoint)) => {
                    delta.for_waypoints.push((Resource::Routes(Arc::new(routes)), Audience::Waypoint(waypoint)));
                }
                None => {
                    let gone = names::of_service(key, &self.mesh).into_iter().filter(|name| !self.entries.define(name));
                    delta.removed.extend(gone.map(|name| (Kind::Routes, name.to_string())));
                }
            }
        }
        for key in &gateways {
            let found = self.cluster.gateway(key).and_then(|gateway| behind::of_gateway(key, gateway, &context));
            match found {
                Some(routes) => {
                    let routes = Resource::Routes(Arc::new(routes));
                    delta.for_waypoints.push((routes, Audience::Waypoint(key.clone())));
                }
                None => delta.removed.push((Kind::Routes, ServiceRoutes::of_workloads(key).to_string())),
            }
        }
        let mut of_pods = Vec::with_capacity(pods.len());
        for key in &pods {
            let said = self.members.of_pod(key, &self.cluster);
            let found = self.cluster.pod(key).and_then(|pod| workload::translate(pod, &said, &context));
            let (found, guard) = found.map_or((None, None), |(workload, guard)| (Some(workload), guard));
            of_pods.push((key, guard));
            let uid = || names::uid(key, &self.mesh.cluster_id);
            delta.workload(found, uid);
        }
        for uid in outside {
            let said = self.members.of_outside(&uid, &self.cluster);
            delta.workload(outsider::translate(&uid, &said, &context), || uid.to_string());
        }
        of_pods.into_iter().for_each(|(key, guard)| self.pod_guards.set(key, guard));
        let (there, gone) = self.pod_guards.changed();
        delta.resources.extend(there.into_iter().map(Resource::Policy));
        delta.removed.extend(gone.into_iter().map(|name| (Kind::Authorization, name.to_string())));
        for (key, status) in of_entries {
            delta.statuses_changed |= set(&mut self.entry_statuses, key, status);
        }
        for (key, status) in of_workloads {
            delta.statuses_changed |= set(&mut self.workload_entry_statuses, key, status);
        }
        (delta.pods, delta.services) = (pods, services);
        delta
    }

    /// What keeps callers from going around waypoints.
    fn guards(&mut self, affected: &mut Affected, delta: &mut Delta) {
        // Their ports are their pods' to say, where they have names.
        let all: Vec<NamespacedName> = affected.services.union(&affected.endpoints).cloned().collect();
        for key in all {
            let found = self.cluster.service(&key).and_then(|object| guard::of_service(object, &self.context()));
            let name = guard::key(&key);
            if found.is_some() != self.guards.contains_key(&key) {
                affected.endpoints.insert(key.clone());
                affected.members.insert(key.clone());
            }
            match found.map(Arc::new) {
                Some(policy) => {
                    delta.resources.push(Resource::Policy(policy.clone()));
                    self.guards.insert(key, policy);
                }
                None => {
                    if self.guards.remove(&key).is_some() {
                        delta.removed.push((Kind::Authorization, name.to_string()));
                    }
                }
            }
        }
    }

    fn context(&self) -> Context<'_> {
        Context {
            world: self.world(),
            policies: &self.policies,
            authentications: &self.authentications,
            modes: &self.modes,
            guards: &self.guards,
            entries: &self.entries,
        }
    }

    fn world(&self) -> World<'_> {
        World {
            cluster: &self.cluster,
            mesh: &self.mesh,
            network: self.networks.own.clone(),
            networks: &self.networks,
            attachments: self.index.attachments(),
        }
    }

    /// What all objects say in common, and who depends on it.
    fn look_at_the_whole(&mut self, affected: &mut Affected) {
        if affected.revisions {
            let revisions = Revisions::new(&self.cluster, &self.mesh);
            if revisions != self.revisions {
                self.revisions = revisions;
                affected.policies.extend(self.cluster.authorization_policies().map(|(key, _)| key.clone()));
                for (key, object) in self.cluster.request_authentications() {
                    affected.authentications.insert(key.clone());
                    let targets = attachments::targets_of_authentication(object);
                    targets.for_each(|target| affected.by_target(&self.cluster, &self.index, target));
                }
                affected.peer_authentications = true;
                affected.entries_changed = true;
                affected.workload_entries.extend(self.cluster.workload_entries().map(|(key, _)| key.clone()));
            }
        }
    }

    /// This cluster's own network, and the gateways of others.
    fn networks(&mut self, affected: &mut Affected, outside: &mut BTreeSet<Arc<str>>, delta: &mut Delta) {
        let is_other = networks::own(&self.cluster, &self.mesh) != self.networks.own;
        if !affected.networks && !is_other {
            return;
        }
        let now = Networks::new(&self.cluster, &self.mesh);
        let before = std::mem::replace(&mut self.networks, now);
        if is_other {
            affected.services.extend(self.cluster.services().map(|(key, _)| key.clone()));
            affected.pods.extend(self.cluster.pods().map(|(key, _)| key.clone()));
            affected.entries.extend(self.cluster.service_entries().map(|(key, _)| key.clone()));
            affected.workload_entries.extend(self.cluster.workload_entries().map(|(key, _)| key.clone()));
            outside.extend(self.members.all_outside());
        }
        let differing = self.networks.differing(&before);
        let entries = self.cluster.service_entries();
        let entries =
            entries.filter(|(_, object)| object.spec.endpoints.iter().any(|own| differing.contains(&*own.network)));
        affected.entries.extend(entries.map(|(key, _)| key.clone()));
        let entries = self.cluster.workload_entries().filter(|(_, object)| differing.contains(&*object.spec.network));
        affected.workload_entries.extend(entries.map(|(key, _)| key.clone()));
        let gateways = self.index.attachments().gateways_of(REMOTE_CLASS);
        affected.told.extend(
            gateways.iter().map(|key| resources::Key::new(resources::Kind::Gateway, Some(&key.namespace), &key.name)),
        );
        delta.removed.extend(before.workloads().map(|workload| (Kind::Address, workload.uid.to_string())));
        delta.resources.extend(self.networks.workloads().cloned().map(Resource::Workload));
    }

    fn policies(&mut self, affected: &mut Affected, delta: &mut Delta) {
        for key in &affected.policies {
            let object = self.cluster.authorization_policy(key).map(|object| &**object);
            let world = World {
                cluster: &self.cluster,
                mesh: &self.mesh,
                network: self.networks.own.clone(),
                networks: &self.networks,
                attachments: self.index.attachments(),
            };
            let updated = self.policies.update(key, object, &world, &self.revisions);
            let told = |condition| told::of_policy(resources::Kind::AuthorizationPolicy, key, condition);
            let status = updated.condition.map(told);
            delta.statuses_changed |= set(&mut self.policy_statuses, key.clone(), status);
            match (self.policies.sent().get(key), self.policies.targeted().get(key)) {
                (Some(policy), _) => delta.resources.push(Resource::Policy(policy.clone())),
                (None, Some(targeted)) => {
                    delta.for_waypoints.push((Resource::Policy(targeted.policy.clone()), targeted.audience()));
                }
                (None, None) => delta.removed.push((Kind::Authorization, key.to_string())),
            }
            if updated.reselected.is_empty() {
                continue;
            }
            // Those of the root namespace mean pods everywhere.
            let everywhere = key.namespace == self.mesh.root_namespace;
            let all = self.cluster.pods().filter(|_| everywhere);
            let own = self.cluster.pods_in(&key.namespace).filter(|_| !everywhere);
            let meant =
                all.chain(own).filter(|(_, pod)| updated.reselected.iter().any(|selector| selector.matches(&***pod)));
            affected.pods.extend(meant.map(|(key, _)| key.clone()));
            let is_meant = |name: &NamespacedName, labels: &dyn Labelled| {
                (everywhere || name.namespace == key.namespace)
                    && updated.reselected.iter().any(|selector| selector.matches(labels))
            };
            let entries = self.cluster.service_entries().filter(|(name, object)| is_meant(name, &object.metadata));
            affected.entries.extend(entries.map(|(name, _)| name.clone()));
            let entries = self.cluster.workload_entries().filter(|(name, object)| is_meant(name, &object.metadata));
            affected.workload_entries.extend(entries.map(|(name, _)| name.clone()));
        }
    }

    fn authentications(&mut self, affected: &Affected, delta: &mut Delta) {
        for key in &affected.authentications {
            let object = self.cluster.request_authentication(key).map(|object| &**object);
            let world = World {
                cluster: &self.cluster,
                mesh: &self.mesh,
                network: self.networks.own.clone(),
                networks: &self.networks,
                attachments: self.index.attachments(),
            };
            let condition = self.authentications.update(key, object, &world, &self.revisions);
            let told = |condition| told::of_policy(resources::Kind::RequestAuthentication, key, condition);
            delta.statuses_changed |= set(&mut self.authentication_statuses, key.clone(), condition.map(told));
        }
    }

    fn modes(&mut self, affected: &mut Affected, delta: &mut Delta) {
        let contested = || affected.relabelled.iter().any(|namespace| self.modes.is_contested(namespace));
        if !affected.peer_authentications && !contested() {
            return;
        }
        let mut statuses = Vec::new();
        let modes = Modes::new(&self.cluster, &self.mesh, &self.revisions, &mut statuses);
        delta.statuses_changed |= statuses != self.mode_statuses;
        self.mode_statuses = statuses;
        let before = std::mem::replace(&mut self.modes, modes);
        let sent: Vec<_> = self.modes.sent().collect();
        let gone = before.sent().filter(|old| !sent.iter().any(|new| new.key() == old.key()));
        delta.removed.extend(gone.map(|policy| (Kind::Authorization, policy.key().to_string())));
        delta.resources.extend(sent.into_iter().map(Resource::Policy));
        let differing = self.modes.differing(&before);
        match &differing {
            None => affected.pods.extend(self.cluster.pods().map(|(key, _)| key.clone())),
            Some(namespaces) => {
                let pods = namespaces.iter().flat_map(|namespace| self.cluster.pods_in(namespace));
                affected.pods.extend(pods.map(|(key, _)| key.clone()));
            }
        }
        let differs = |key: &&NamespacedName| differing.as_ref().is_none_or(|all| all.contains(&key.namespace));
        let entries = self.cluster.service_entries().map(|(key, _)| key).filter(differs);
        affected.entries.extend(entries.cloned());
        let entries = self.cluster.workload_entries().map(|(key, _)| key).filter(differs);
        affected.workload_entries.extend(entries.cloned());
    }

    /// Decides on service entries, and adds what they select. Gives what they were.
    fn entries(&mut self, affected: &mut Affected) -> Entries {
        let is_named = |service: &NamespacedName| self.entries.name(&names::hostname(service, &self.mesh).name);
        if !affected.entries_changed && !affected.renamed.iter().any(is_named) {
            return Entries::default();
        }
        let now = Entries::new(&self.cluster, &self.mesh, &self.revisions);
        let before = std::mem::replace(&mut self.entries, now);
        affected.entries.extend(self.entries.differing(&before).cloned());
        for key in &affected.entries {
            for entry in [before.get(key), self.entries.get(key)].into_iter().flatten() {
                let pods = self.cluster.pods_in(&key.namespace).filter(|(_, pod)| entry.selects(&***pod));
                affected.pods.extend(pods.map(|(key, _)| key.clone()));
                let workloads = self.cluster.workload_entries_in(&key.namespace);
                let workloads = workloads.filter(|(_, workload)| entry.selects(&workload.metadata));
                affected.workload_entries.extend(workloads.map(|(key, _)| key.clone()));
            }
        }
        before
    }

    fn tell(&mut self, key: &crate::resources::Key, delta: &mut Delta) {
        let mut now: BTreeMap<_, _> = told::of(key, &self.world()).into_iter().collect();
        for part in told::parts(key.kind) {
            let position = (*part, key.object());
            let status = now.remove(&position);
            delta.statuses_changed |= set(&mut self.told, position, status);
        }
    }
}

impl Delta {
    fn workload(&mut self, found: Option<Workload>, uid: impl FnOnce() -> String) {
        match found {
            Some(workload) => self.resources.push(Resource::Workload(Arc::new(workload))),
            None => self.removed.push((Kind::Address, uid())),
        }
    }
}

/// Sets or removes; whether that made a difference.
fn set<K: Ord, V: PartialEq>(all: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    let same = all.get(&key) == value.as_ref();
    match value {
        Some(value) => drop(all.insert(key, value)),
        None => drop(all.remove(&key)),
    }
    !same
}

/// Which endpoints each service has, and of which services each endpoint is one.
#[derive(Default)]
struct Members {
    found: HashMap<NamespacedName, Found>,
    /// Pods, each with the services that it is an endpoint of.
    services_of: Pairs<NamespacedName, NamespacedName>,
    /// The same of endpoints that are no pods, by uid.
    outside: Pairs<Arc<str>, NamespacedName>,
}

/// The endpoints of one service.
#[derive(Default)]
struct Found {
    /// What a service says is the same of nearly all its pods: it is kept once.
    pods: BTreeMap<NamespacedName, Arc<Endpoint>>,
    /// Each with its uid, in the order in which slices say them.
    outside: Vec<(Arc<str>, Endpoint)>,
}

/// Of which endpoints a service says something else.
struct Differ {
    pods: Vec<NamespacedName>,
    outside: Vec<Arc<str>>,
}

/// What services say of an endpoint, in their order.
type Sayings<'a> = Vec<(&'a Service, &'a Endpoint)>;

impl Members {
    /// Looks for the endpoints of a service anew. `all`: whatever it says of them counts as different, because what it
    /// says of itself is.
    fn replace(&mut self, key: &NamespacedName, inputs: &Inputs<'_>, cluster_id: &str, all: bool) -> Differ {
        let mut now = Found::default();
        let (mut named, mut said) = (Vec::new(), HashSet::new());
        for (object, found) in inputs.services.iter().zip(inputs.resolve()) {
            for endpoint in found.endpoints {
                if let Owner::Pod(place) = endpoint.owner {
                    // Its place means something among these inputs only, and its addresses are the pod's to say.
                    let endpoint = Endpoint { owner: Owner::Pod(0), addresses: Vec::new(), ..endpoint };
                    let one = said.get(&endpoint).cloned().unwrap_or_else(|| Arc::new(endpoint));
                    said.insert(one.clone());
                    named.push((inputs.pods[place].name.clone(), one));
                } else {
                    now.outside.push((endpoints::uid(inputs, object, &endpoint, cluster_id).into(), endpoint));
                }
            }
        }
        // Made of a list, it is as small as it can be.
        now.pods = named.into_iter().collect();
        let before = self.found.remove(key).unwrap_or_default();
        let mut pods = Vec::new();
        for pod in before.pods.keys().filter(|pod| !now.pods.contains_key(*pod)) {
            self.services_of.remove(&(pod.clone(), key.clone()));
            pods.push(pod.clone());
        }
        for (pod, endpoint) in &now.pods {
            let known = before.pods.get(pod);
            if known.is_none() {
                self.services_of.insert((pod.clone(), key.clone()));
            }
            if all || known != Some(endpoint) {
                pods.push(pod.clone());
            }
        }
        let mut outside = Vec::new();
        if all || before.outside != now.outside {
            for (uid, _) in &before.outside {
                self.outside.remove(&(uid.clone(), key.clone()));
                outside.push(uid.clone());
            }
            for (uid, _) in &now.outside {
                self.outside.insert((uid.clone(), key.clone()));
                outside.push(uid.clone());
            }
        }
        if !now.pods.is_empty() || !now.outside.is_empty() {
            self.found.insert(key.clone(), now);
        }
        Differ { pods, outside }
    }

    fn of_pod<'a>(&'a self, pod: &NamespacedName, cluster: &'a Cluster) -> Sayings<'a> {
        let services = self.services_of.of(pod);
        let said = |key| Some((&**cluster.service(key)?, &**self.found.get(key)?.pods.get(pod)?));
        services.filter_map(said).collect()
    }

    fn of_outside<'a>(&'a self, uid: &Arc<str>, cluster: &'a Cluster) -> Sayings<'a> {
        let mut said = Vec::new();
        for key in self.outside.of(uid) {
            let (Some(object), Some(found)) = (cluster.service(key), self.found.get(key)) else { continue };
            let own = found.outside.iter().filter(|(known, _)| known == uid);
            said.extend(own.map(|(_, endpoint)| (&**object, endpoint)));
        }
        said
    }

    fn all_outside(&self) -> impl Iterator<Item = Arc<str>> {
        self.outside.firsts().into_iter().cloned()
    }

    /// Endpoints that are no pods, and on a node.
    fn on_node(&self, node: &str) -> Vec<Arc<str>> {
        let is_there = |uid: &Arc<str>, endpoint: &Endpoint| match &endpoint.owner {
            Owner::Outside(outside) if outside.node.as_deref() == Some(node) => Some(uid.clone()),
            _ => None,
        };
        let keys: BTreeSet<_> = self.outside.seconds();
        let found = keys.into_iter().filter_map(|key| self.found.get(key));
        found.flat_map(|found| found.outside.iter().filter_map(|(uid, e)| is_there(uid, e))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::{self, Object};

    /// What stays of endpoints that are gone shows in no answer, only in memory.
    #[test]
    fn nothing_is_left_of_endpoints_that_are_gone() {
        let of = |kind, value| Object::from_value(kind, &value).unwrap();
        let metadata = json!({"name": "a", "labels": {"app": "web"}});
        let status = json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]});
        let pod = of(resources::Kind::Pod, json!({"metadata": metadata, "spec": {"containers": []}, "status": status}));
        let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
        let service = of(resources::Kind::Service, json!({"metadata": {"name": "web"}, "spec": spec}));
        let metadata = json!({"name": "s", "labels": {"kubernetes.io/service-name": "web"}});
        let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}]});
        let slice = of(resources::Kind::EndpointSlice, slice);
        for first_gone in [&pod, &service, &slice] {
            let mut translator = Translator::new(Mesh::default());
            translator.take([&pod, &service, &slice].map(|object| Change::apply(object.clone())));
            assert_eq!(translator.translate().resources.len(), 3);
            let members = &translator.members;
            assert_eq!((members.services_of.firsts().len(), members.outside.firsts().len()), (1, 1));
            for gone in [first_gone, &pod, &service, &slice] {
                translator.take([Change::Delete(gone.key())]);
                translator.translate();
            }
            let members = &translator.members;
            assert!(members.services_of.firsts().is_empty() && members.outside.firsts().is_empty());
            assert!(members.found.is_empty() && translator.statuses().is_empty());
        }
    }
}
