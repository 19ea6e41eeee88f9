//! Which hosts each ServiceEntry defines: all of them are decided on together. Pure.
//!
//! Of several objects of a namespace that define a host one counts: a Kubernetes Service, else the oldest. Where several
//! namespaces do, each has its own, and the Service, else the oldest, is what the other namespaces see first.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::shared;
use mesh_model::workload::PortMapping;

use super::addresses;
use super::ports::mappings;
use crate::cluster::Cluster;
use crate::mode::Part;
use crate::resources::labels::Labelled;
use crate::resources::service_entry::HostAddress;
use crate::resources::{Key, Kind, ServiceEntry, host};
use crate::translate::condition::Condition;
use crate::translate::mesh::Mesh;
use crate::translate::revision::Revisions;
use crate::translate::service_spec::is_external_name;

/// All service entries of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    all: BTreeMap<NamespacedName, Arc<Entry>>,
    /// Those that select Pods and WorkloadEntries, by namespace.
    selectors: HashMap<Arc<str>, Vec<Arc<Entry>>>,
    /// Every host that is defined, by namespace.
    defined: HashSet<NamespacedName>,
    /// Every host that is named.
    named: HashSet<Arc<str>>,
}

/// A service entry, and what becomes of it among the others.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: NamespacedName,
    pub(crate) object: Arc<ServiceEntry>,
    /// Why nothing is made of it.
    pub(crate) left_out: Option<Condition>,
    /// The hosts that it defines, each once.
    pub(crate) hosts: Vec<Host>,
    /// Those that it names and another object defines.
    pub(crate) taken: Vec<(Arc<str>, Key)>,
    /// What `status.addresses` has to say, if it says something else.
    pub(crate) addresses: Option<Vec<HostAddress>>,
}

/// A host that a service entry defines.
#[derive(Debug, PartialEq)]
pub(crate) struct Host {
    /// In normal form.
    pub(crate) name: Arc<str>,
    /// Namespaces that have none of their own see this one.
    pub(crate) canonical: bool,
    /// What was allocated to it.
    pub(crate) allocated: Vec<IpAddr>,
}

impl Entries {
    /// Decides on all of them.
    pub(crate) fn new(cluster: &Cluster, mesh: &Mesh, revisions: &Revisions) -> Self {
        let mut all: Vec<_> = cluster.service_entries().collect();
        let age = |object: &ServiceEntry| object.metadata.creation_timestamp.clone().map(|t| t.0);
        // Without a creation time, as in a folder, the name decides; objects with a time are older.
        all.sort_by_key(|(key, object)| (age(object).is_none(), age(object), *key));
        let left_out: Vec<_> = all.iter().map(|(_, object)| left_out(object, revisions)).collect();
        let asks = all.iter().zip(&left_out);
        // What another control plane has allocated counts where we allocate nothing.
        let allocates = mesh.mode.does(Part::Addresses);
        let asks = asks.map(|((key, object), left_out)| (*key, &***object, allocates && left_out.is_none()));
        let mut allocated = addresses::allocate(asks, mesh.pools);

        let mut entries = Self::default();
        // By namespace and host, and by host.
        let mut owners: HashMap<NamespacedName, &NamespacedName> = HashMap::new();
        let mut canonical: HashSet<Arc<str>> = HashSet::new();
        for ((key, object), left_out) in all.iter().copied().zip(left_out) {
            let mut entry = Entry {
                key: key.clone(),
                object: object.clone(),
                left_out,
                hosts: Vec::new(),
                taken: Vec::new(),
                addresses: None,
            };
            let mut allocated = allocated.remove(key).unwrap_or_default();
            if entry.left_out.is_none() {
                entry.addresses = allocated.to_write.take();
            }
            for written in &object.spec.hosts {
                let name = normal(written);
                entries.named.insert(name.clone());
                let defined = NamespacedName::new(key.namespace.clone(), name.clone());
                let service = service_named(&name, cluster, mesh);
                if entry.left_out.is_some() || owners.get(&defined) == Some(&key) {
                    continue;
                }
                if let Some(service) = service.as_ref().filter(|service| service.namespace == key.namespace) {
                    entry.taken.push((name, Key::new(Kind::Service, Some(&service.namespace), &service.name)));
                    continue;
                }
                if let Some(owner) = owners.get(&defined) {
                    entry.taken.push((name, Key::new(Kind::ServiceEntry, Some(&owner.namespace), &owner.name)));
                    continue;
                }
                owners.insert(defined.clone(), key);
                entries.defined.insert(defined);
                let canonical = service.is_none() && !is_private(&entry) && canonical.insert(name.clone());
                let allocated = allocated.by_host.remove(written.as_str()).unwrap_or_default();
                entry.hosts.push(Host { name, canonical, allocated });
            }
            let entry = Arc::new(entry);
            if object.spec.workload_selector.is_some() && !entry.hosts.is_empty() {
                entries.selectors.entry(key.namespace.clone()).or_default().push(entry.clone());
            }
            entries.all.insert(key.clone(), entry);
        }
        entries
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.all.values()
    }

    /// One of them.
    pub(crate) fn get(&self, key: &NamespacedName) -> Option<&Arc<Entry>> {
        self.all.get(key)
    }

    /// Those of which something else holds.
    pub(crate) fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a NamespacedName> {
        let same = |key: &NamespacedName| match (self.all.get(key), other.all.get(key)) {
            (Some(a), Some(b)) => Arc::ptr_eq(&a.object, &b.object) && a.is_as(b) || a == b,
            _ => false,
        };
        let gone = other.all.keys().filter(|key| !self.all.contains_key(*key));
        self.all.keys().filter(move |key| !same(key)).chain(gone)
    }

    /// Whether one of them defines this host in its namespace.
    pub(crate) fn define(&self, service: &NamespacedName) -> bool {
        self.defined.contains(service)
    }

    /// Whether one of them names this host.
    pub(crate) fn name(&self, host: &str) -> bool {
        self.named.contains(host)
    }

    /// Those of a namespace that select something with these labels.
    pub(crate) fn selecting<'a>(
        &'a self,
        namespace: &str,
        object: &'a dyn Labelled,
    ) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.selectors.get(namespace).into_iter().flatten().filter(|entry| entry.selects(object))
    }
}

impl Entry {
    fn is_as(&self, other: &Self) -> bool {
        (&self.left_out, &self.hosts, &self.taken, &self.addresses)
            == (&other.left_out, &other.hosts, &other.taken, &other.addresses)
    }

    /// Whether it selects something of its namespace with these labels.
    pub(crate) fn selects(&self, object: &dyn Labelled) -> bool {
        self.object.spec.workload_selector.as_ref().is_some_and(|selector| selector.matches(object))
    }

    /// What its endpoints are selected for: its services, and their ports at something that has numbers of its own for some.
    pub(crate) fn memberships<'a>(
        &'a self,
        own: impl Fn(&str) -> Option<u16> + Copy + 'a,
    ) -> impl Iterator<Item = (NamespacedName, Vec<PortMapping>)> + 'a {
        let key = |host: &Host| NamespacedName::new(self.key.namespace.clone(), host.name.clone());
        self.hosts.iter().map(move |host| (key(host), mappings(&self.object, own)))
    }
}

/// Why nothing is made of an object.
fn left_out(object: &ServiceEntry, revisions: &Revisions) -> Option<Condition> {
    let exported = object.spec.export_to.iter().any(|namespace| namespace == "~");
    let hidden =
        || Condition::ignored("NotExported", "exportTo: [\"~\"] shows it to nobody: proxies are not told of it");
    revisions.left_to_another(&object.metadata).or_else(|| exported.then(hidden))
}

/// A host in normal form.
pub(crate) fn normal(host: &str) -> Arc<str> {
    shared::text(&host::normal(host))
}

/// Seen by its own namespace only.
pub(crate) fn is_private(entry: &Entry) -> bool {
    let own = |namespace: &String| namespace == "." || **namespace == *entry.key.namespace;
    let export = &entry.object.spec.export_to;
    !export.is_empty() && export.iter().all(own)
}

/// The Kubernetes Service that has this hostname.
fn service_named(host: &str, cluster: &Cluster, mesh: &Mesh) -> Option<NamespacedName> {
    let (name, namespace) = host.strip_suffix(&*mesh.domain)?.strip_suffix(".svc.")?.rsplit_once('.')?;
    let key = NamespacedName::new(namespace, name);
    let service = cluster.service(&key)?;
    (!is_external_name(service)).then_some(key)
}
