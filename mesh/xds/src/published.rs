//! What a control plane says now, and what changed since before.
//!
//! Snapshots are immutable and shared: every session of every subscriber reads the same one. A version is the hash of
//! a resource's bytes, so a control plane that restarts says the same versions and sends nothing twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use mesh_model::resource::{Kind, Resource};
use mesh_proto::discovery;
use prost::Message;
use prost_types::Any;
use tokio::sync::watch;

/// One resource, encoded once for all subscribers.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Changes exactly when the bytes do.
    pub version: Arc<str>,
    /// The resource as it is in responses, with its name and version, but without other names: those only come to who
    /// asks for names.
    pub wire: Bytes,
    /// Other names under which it may be asked for.
    pub aliases: Vec<String>,
    /// The services it is an endpoint of: who asks for them needs it too.
    endpoint_of: Vec<String>,
}

impl Entry {
    fn new(resource: &Resource) -> Self {
        let bytes = resource.encode();
        let version = version(&bytes);
        let wire = discovery::Resource {
            name: resource.name(),
            version: version.to_string(),
            aliases: Vec::new(),
            resource: Some(Any { type_url: resource.kind().type_url().to_owned(), value: bytes.to_vec() }),
        };
        let endpoint_of = match resource {
            Resource::Workload(workload) => workload.services.keys().map(ToString::to_string).collect(),
            Resource::Service(_) | Resource::Policy(_) => Vec::new(),
        };
        Self { version, wire: wire.encode_to_vec().into(), aliases: resource.aliases(), endpoint_of }
    }
}

/// 128 bits of SHA-256: nobody can make two forms of one resource that pass for the same.
fn version(bytes: &[u8]) -> Arc<str> {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// The resources of one kind at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Unique within the process; 0 only before anything was published.
    generation: u64,
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    /// Alias, or service of endpoints, to names.
    index: HashMap<String, Vec<Arc<str>>>,
    /// The generation before this one, and the names that differ from it.
    since: (u64, Vec<Arc<str>>),
}

#[cfg(test)]
thread_local! {
    /// How many names were looked up on this thread: what subscribers cost, counted.
    pub(crate) static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

static GENERATIONS: AtomicU64 = AtomicU64::new(1);

impl Snapshot {
    fn next(previous: &Self, resources: BTreeMap<Arc<str>, Arc<Entry>>) -> Option<Self> {
        let mut changed: Vec<Arc<str>> = resources
            .iter()
            .filter(|(name, entry)| previous.entries.get(*name).is_none_or(|old| !Arc::ptr_eq(old, entry)))
            .map(|(name, _)| name.clone())
            .collect();
        changed.extend(previous.entries.keys().filter(|name| !resources.contains_key(*name)).cloned());
        if changed.is_empty() && previous.generation > 0 {
            return None;
        }
        let mut index: HashMap<String, Vec<Arc<str>>> = HashMap::new();
        for (name, entry) in &resources {
            for key in entry.aliases.iter().chain(&entry.endpoint_of) {
                index.entry(key.clone()).or_default().push(name.clone());
            }
        }
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        Some(Self { generation, entries: resources, index, since: (previous.generation, changed) })
    }

    /// Unique for each state of each kind; 0 before anything was published.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// By name, in order.
    pub fn entries(&self) -> &BTreeMap<Arc<str>, Arc<Entry>> {
        &self.entries
    }

    /// The resources that a key means: by name or alias, a service with its endpoints.
    pub fn resolve(&self, key: &str) -> Vec<(&Arc<str>, &Arc<Entry>)> {
        let mut names: BTreeSet<&str> = BTreeSet::from([key]);
        names.extend(self.index.get(key).into_iter().flatten().map(|name| &**name));
        // An alias may mean a service, which brings its endpoints.
        let more: Vec<&str> = names.iter().filter_map(|name| self.index.get(*name)).flatten().map(|n| &**n).collect();
        names.extend(more);
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + names.len());
        names.into_iter().filter_map(|name| self.entries.get_key_value(name)).collect()
    }

    /// How many resources a key means, at most: what [`Self::resolve`] costs.
    pub fn weight(&self, key: &str) -> usize {
        let direct = self.index.get(key).map_or(&[][..], Vec::as_slice);
        let more: usize = direct.iter().filter_map(|name| self.index.get(&**name)).map(Vec::len).sum();
        1 + direct.len() + more
    }

    /// Whether one of `keys` means the resource of this name: what [`Self::resolve`] says, asked the other way round.
    pub fn meant(&self, name: &str, entry: &Entry, keys: impl Fn(&str) -> bool) -> bool {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        self.named(name, entry, &keys)
            || entry.endpoint_of.iter().any(|service| match self.entries.get(service.as_str()) {
                Some(entry) => self.named(service, entry, &keys),
                None => keys(service),
            })
    }

    /// Whether one of `keys` is a name of this resource.
    pub fn named(&self, name: &str, entry: &Entry, keys: impl Fn(&str) -> bool) -> bool {
        keys(name) || entry.aliases.iter().any(|alias| keys(alias))
    }

    /// The names in which this differs from an earlier one, at most; None when that is too long ago to know.
    pub fn changed_since(&self, earlier: &Self) -> Option<&[Arc<str>]> {
        if self.generation == earlier.generation {
            return Some(&[]);
        }
        (self.since.0 == earlier.generation).then_some(&self.since.1)
    }
}

/// Everything a control plane says now. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Published {
    kinds: BTreeMap<Kind, Arc<Snapshot>>,
}

impl Published {
    /// The resources of a kind; None before anything was published, which is not the same as nothing.
    pub fn of(&self, kind: Kind) -> Option<&Arc<Snapshot>> {
        self.kinds.get(&kind)
    }
}

/// Who decides what is published. Not cloned: there is one.
#[derive(Debug)]
pub struct Publisher {
    sender: watch::Sender<Published>,
}

/// How a publication differs from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Difference {
    /// New or changed.
    pub changed: usize,
    /// Gone.
    pub removed: usize,
}

impl Default for Publisher {
    fn default() -> Self {
        Self::new()
    }
}

impl Publisher {
    /// Has published nothing yet: subscribers wait.
    pub fn new() -> Self {
        Self { sender: watch::Sender::new(Published::default()) }
    }

    /// What is published, now and later.
    pub fn subscribe(&self) -> watch::Receiver<Published> {
        self.sender.subscribe()
    }

    /// Replaces everything by `resources`. What is the same as before is not sent again; nothing is, when all is the
    /// same. Of several resources with one name the last counts.
    pub fn publish(&mut self, resources: impl IntoIterator<Item = Resource>) -> Difference {
        let before = self.sender.borrow().clone();
        let mut entries: BTreeMap<Kind, BTreeMap<Arc<str>, Arc<Entry>>> =
            Kind::ALL.into_iter().map(|kind| (kind, BTreeMap::new())).collect();
        for resource in resources {
            let (kind, name) = (resource.kind(), resource.name());
            let entry = Entry::new(&resource);
            let old = before.of(kind).and_then(|snapshot| snapshot.entries.get_key_value(name.as_str()));
            let (name, entry) = match old {
                // Everything in an entry follows from its bytes.
                Some((name, old)) if old.version == entry.version => (name.clone(), old.clone()),
                _ => (name.into(), Arc::new(entry)),
            };
            entries.entry(kind).or_default().insert(name, entry);
        }
        let nothing = Arc::new(Snapshot::default());
        let mut difference = Difference::default();
        let mut now = before.clone();
        for (kind, entries) in entries {
            let previous = before.of(kind).unwrap_or(&nothing);
            if let Some(snapshot) = Snapshot::next(previous, entries) {
                let removed = snapshot.since.1.iter().filter(|name| !snapshot.entries.contains_key(*name)).count();
                difference.removed += removed;
                difference.changed += snapshot.since.1.len() - removed;
                now.kinds.insert(kind, Arc::new(snapshot));
            }
        }
        self.sender.send_if_modified(|published| {
            let same = Kind::ALL.iter().all(|kind| match (published.of(*kind), now.of(*kind)) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (old, new) => old.is_none() && new.is_none(),
            });
            *published = now;
            !same
        });
        difference
    }
}

#[cfg(test)]
mod tests {
    use mesh_model::address::{NamespacedName, NetworkAddress};
    use mesh_model::workload::Workload;

    use super::*;

    fn workload(uid: &str, ip: &str) -> Workload {
        Workload { addresses: vec![ip.parse().unwrap()], namespace: "shop".into(), ..Workload::empty(uid) }
    }

    fn resource(workload: Workload) -> Resource {
        Resource::Workload(Arc::new(workload))
    }

    fn address(publisher: &Publisher) -> Arc<Snapshot> {
        publisher.subscribe().borrow().of(Kind::Address).unwrap().clone()
    }

    fn names(snapshot: &Snapshot, key: &str) -> Vec<String> {
        snapshot.resolve(key).into_iter().map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn nothing_published_is_not_an_empty_publication() {
        let mut publisher = Publisher::new();
        let mut published = publisher.subscribe();
        assert!(published.borrow().of(Kind::Address).is_none());
        assert_eq!(publisher.publish([]), Difference::default());
        assert!(published.has_changed().unwrap());
        for kind in Kind::ALL {
            assert!(published.borrow_and_update().of(kind).unwrap().entries().is_empty());
        }
        publisher.publish([]);
        assert!(!published.has_changed().unwrap(), "the same again is no news");
    }

    #[test]
    fn only_what_changed_is_new() {
        let mut publisher = Publisher::new();
        publisher.publish([resource(workload("a", "10.0.0.1")), resource(workload("b", "10.0.0.2"))]);
        let first = address(&publisher);
        let policies = publisher.subscribe().borrow().of(Kind::Authorization).unwrap().generation();
        let difference = publisher.publish([resource(workload("a", "10.0.0.1")), resource(workload("c", "10.0.0.3"))]);
        assert_eq!(difference, Difference { changed: 1, removed: 1 });
        let second = address(&publisher);
        let changed: Vec<_> = second.changed_since(&first).unwrap().iter().map(|n| &**n).collect();
        assert_eq!(changed, ["c", "b"]);
        assert!(Arc::ptr_eq(&first.entries()["a"], &second.entries()["a"]));
        assert_eq!(publisher.subscribe().borrow().of(Kind::Authorization).unwrap().generation(), policies);

        publisher.publish([resource(workload("a", "10.0.0.9"))]);
        let third = address(&publisher);
        assert!(third.changed_since(&first).is_none(), "two steps are too far");
        assert_ne!(first.entries()["a"].version, third.entries()["a"].version);
    }

    #[test]
    fn versions_outlive_the_process() {
        // A fixed input has a fixed version: a restarted control plane must say the same.
        assert_eq!(&*version(b"abc"), "ba7816bf8f01cfea414140de5dae2223");
    }

    #[test]
    fn keys_mean_names_addresses_and_services_with_their_endpoints() {
        let key = NamespacedName::new("shop", "cart.shop.svc.cluster.local");
        let endpoint = |uid, ip| {
            let mut workload = workload(uid, ip);
            workload.services.insert(key.clone(), Vec::new());
            resource(workload)
        };
        let mut service = mesh_proto::workload::Service {
            name: "cart".into(),
            namespace: "shop".into(),
            hostname: "cart.shop.svc.cluster.local".into(),
            ..Default::default()
        };
        let vip = NetworkAddress { network: "".into(), ip: "10.96.0.1".parse().unwrap() };
        service.addresses.push(mesh_proto::workload::NetworkAddress {
            address: bytes::Bytes::from_static(&[10, 96, 0, 1]),
            ..Default::default()
        });
        let service = Resource::Service(Arc::new(service.try_into().unwrap()));
        let mut publisher = Publisher::new();
        publisher.publish([
            endpoint("a", "10.0.0.1"),
            endpoint("b", "10.0.0.2"),
            service,
            resource(workload("c", "10.0.0.3")),
        ]);
        let snapshot = address(&publisher);
        let with_endpoints = ["a", "b", "shop/cart.shop.svc.cluster.local"];
        for (asked, expected) in [
            ("c", &["c"][..]),
            ("/10.0.0.3", &["c"]),
            ("/10.0.0.1", &["a"]),
            ("shop/cart.shop.svc.cluster.local", &with_endpoints),
            (&vip.to_string(), &with_endpoints),
            ("/10.0.0.4", &[]),
            ("other/10.0.0.1", &[]),
        ] {
            assert_eq!(names(&snapshot, asked), expected, "{asked}");
        }
    }
}
