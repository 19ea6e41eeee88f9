//! What a control plane says now, and what changed since before.
//!
//! Snapshots are immutable and shared: every session of every subscriber reads the same one, and what did not change is
//! the same in the next. Each remembers the last differences, so that a slow subscriber still gets one. A version is the hash of
//! a resource's bytes, so a control plane that restarts says the same versions and sends nothing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mesh_model::persistent::PersistentMap;
use mesh_model::resource::{Kind, Resource};
use mesh_model::shared;
use tokio::sync::watch;

use crate::audience::Audience;

/// Most publications that are remembered: a subscriber that has seen one of them is told the difference, one that is
/// further behind is compared with all that there is.
const STEPS: usize = 256;
/// Most names that all of them tell of, together.
const STEP_NAMES: usize = 64 * 1024;

/// One resource, encoded once for all subscribers.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Arc<str>,
    /// Changes exactly when the bytes do.
    pub version: Version,
    /// The resource itself, encoded.
    pub value: Box<[u8]>,
    /// Who is told of it.
    pub audience: Audience,
    /// Other names under which it may be asked for.
    pub aliases: Box<[Arc<str>]>,
    /// The services it is an endpoint of: who asks for them needs it too.
    endpoint_of: Box<[Arc<str>]>,
}

impl Entry {
    fn new(resource: &Resource, audience: Audience) -> Self {
        let value: Box<[u8]> = (*resource.encode()).into();
        let endpoint_of = match resource {
            // All endpoints of a service share its name.
            Resource::Workload(workload) => {
                workload.services.keys().map(|key| shared::text(&key.to_string())).collect()
            }
            Resource::Service(_) | Resource::Policy(_) | Resource::Routes(_) => Box::default(),
        };
        let aliases = resource.aliases().into_iter().map(Arc::from).collect();
        Self { name: resource.name().into(), version: Version::of(&value), value, audience, aliases, endpoint_of }
    }

    /// What it is found by, besides its name.
    fn ways(&self) -> impl Iterator<Item = &Arc<str>> {
        self.aliases.iter().chain(&self.endpoint_of)
    }
}

/// 128 bits of SHA-256: nobody can make two forms of one resource that pass for the same. Written in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(u128);

impl Version {
    /// Characters of its text.
    pub const LEN: usize = 32;

    fn of(bytes: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        Self(digest.as_ref().iter().take(16).fold(0, |version, byte| version << 8 | u128::from(*byte)))
    }

    /// Of a text that a subscriber declares. None for what is no version of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let is_ours = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != Self::LEN || !text.bytes().all(is_ours) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The resources of one kind at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Unique within the process; 0 only before anything was published.
    generation: u64,
    entries: PersistentMap<Arc<str>, Arc<Entry>>,
    /// Alias, or service of endpoints, with each name that it means.
    index: PersistentMap<(Arc<str>, Arc<str>), ()>,
    /// The last publications, the newest last.
    steps: Vec<Arc<Step>>,
}

/// What one publication changed.
#[derive(Debug)]
struct Step {
    /// The generation before it.
    from: u64,
    /// The names that differ.
    names: Vec<Arc<str>>,
}

#[cfg(test)]
thread_local! {
    /// How many names were looked up on this thread: what subscribers cost, counted.
    pub(crate) static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// What becomes of names: an entry, or None for one that goes.
type Changes = BTreeMap<Arc<str>, Option<Arc<Entry>>>;

impl Snapshot {
    /// The snapshot after `changes`, and how it differs; None when it does not.
    fn next(previous: &Self, changes: Changes) -> Option<(Self, Difference)> {
        let (mut entries, mut index) = (previous.entries.clone(), previous.index.clone());
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        for (name, entry) in changes {
            let before = entries.get_key_value(&name).map(|(name, entry)| (name.clone(), entry.clone()));
            // All else in an entry follows from its bytes.
            let same = match (&before, &entry) {
                (Some((_, before)), Some(entry)) => {
                    before.version == entry.version && before.audience == entry.audience
                }
                (None, None) => true,
                _ => false,
            };
            if same {
                continue;
            }
            let name = before.as_ref().map_or(name, |(name, _)| name.clone());
            for way in before.iter().flat_map(|(_, before)| before.ways()) {
                index.remove(&(way.clone(), name.clone()));
            }
            match entry {
                Some(mut entry) => {
                    if let Some(entry) = Arc::get_mut(&mut entry) {
                        entry.name = name.clone();
                    }
                    for way in entry.ways() {
                        index.insert((way.clone(), name.clone()), ());
                    }
                    entries.insert(name.clone(), entry);
                    changed.push(name);
                }
                None => {
                    entries.remove(&name);
                    removed.push(name);
                }
            }
        }
        let difference = Difference { changed: changed.len(), removed: removed.len() };
        if difference == Difference::default() && previous.generation > 0 {
            return None;
        }
        let mut names = changed;
        names.append(&mut removed);
        let generation = GENERATIONS.fetch_add(1, Ordering::Relaxed);
        let steps = steps(&previous.steps, Step { from: previous.generation, names });
        Some((Self { generation, entries, index, steps }, difference))
    }

    /// Unique for each state of each kind; 0 before anything was published.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// By name, in order.
    pub fn entries(&self) -> &PersistentMap<Arc<str>, Arc<Entry>> {
        &self.entries
    }

    /// The names that a key is another word for.
    fn known_as<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        self.index.equal_range(|(way, _)| (**way).cmp(key)).map(|((_, name), ())| &**name)
    }

    /// The resources that a key means: by name or alias, a service with its endpoints.
    pub fn resolve(&self, key: &str) -> Vec<(&Arc<str>, &Arc<Entry>)> {
        let mut names: BTreeSet<&str> = BTreeSet::from([key]);
        names.extend(self.known_as(key));
        // An alias may mean a service, which brings its endpoints.
        let more: Vec<&str> = names.iter().flat_map(|name| self.known_as(name)).collect();
        names.extend(more);
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + names.len());
        names.into_iter().filter_map(|name| self.entries.get_key_value(name)).collect()
    }

    /// How many resources a key means, at most: what [`Self::resolve`] costs; counted up to `enough`.
    pub fn weight(&self, key: &str, enough: usize) -> usize {
        let count = |key: &str| self.index.count_equal(|(way, _)| (**way).cmp(key));
        let direct = count(key);
        if direct >= enough {
            return 1 + direct;
        }
        1 + direct + self.known_as(key).map(count).sum::<usize>()
    }

    /// Whether one of `keys` means the resource of this name: what [`Self::resolve`] says, asked the other way round.
    pub fn meant(&self, name: &str, entry: &Entry, keys: impl Fn(&str) -> bool) -> bool {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        self.named(name, entry, &keys)
            || entry.endpoint_of.iter().any(|service| match self.entries.get(service) {
                Some(entry) => self.named(service, entry, &keys),
                None => keys(service),
            })
    }

    /// Whether one of `keys` is a name of this resource.
    pub fn named(&self, name: &str, entry: &Entry, keys: impl Fn(&str) -> bool) -> bool {
        keys(name) || entry.aliases.iter().any(|alias| keys(alias))
    }

    /// The names in which this differs from an earlier one, at most, each once; None when that is too long ago to know.
    pub fn changed_since(&self, earlier: &Self) -> Option<Vec<Arc<str>>> {
        Some(match self.steps_since(earlier)? {
            [step] => step.names.clone(),
            steps => steps.iter().flat_map(|step| &step.names).collect::<BTreeSet<_>>().into_iter().cloned().collect(),
        })
    }

    /// How many names [`Self::changed_since`] looks at.
    pub fn count_changed_since(&self, earlier: &Self) -> Option<usize> {
        Some(self.steps_since(earlier)?.iter().map(|step| step.names.len()).sum())
    }

    fn steps_since(&self, earlier: &Self) -> Option<&[Arc<Step>]> {
        if self.generation == earlier.generation {
            return Some(&[]);
        }
        // The one that is looked for is among the last, nearly always.
        let first = self.steps.iter().rposition(|step| step.from == earlier.generation)?;
        self.steps.get(first..)
    }
}

/// The steps to remember after one more.
fn steps(before: &[Arc<Step>], last: Step) -> Vec<Arc<Step>> {
    let mut names = last.names.len();
    let fits = |step: &&Arc<Step>| {
        names += step.names.len();
        names <= STEP_NAMES
    };
    let kept = before.iter().rev().take(STEPS - 1).take_while(fits).count();
    let kept = before.iter().skip(before.len() - kept).cloned();
    kept.chain([Arc::new(last)]).collect()
}

/// Everything a control plane says now. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// In the order of [`Kind::ALL`].
    kinds: [Option<Arc<Snapshot>>; Kind::ALL.len()],
}

impl Published {
    /// The resources of a kind; None before anything was published, which is not the same as nothing.
    pub fn of(&self, kind: Kind) -> Option<&Arc<Snapshot>> {
        Kind::ALL.iter().zip(&self.kinds).find(|(known, _)| **known == kind)?.1.as_ref()
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

    /// Replaces everything by `resources`, which are for everyone. Of several resources with one name the last counts.
    pub fn publish(&mut self, resources: impl IntoIterator<Item = Resource>) -> Difference {
        let before = self.sender.borrow().clone();
        let names = |kind| before.of(kind).map(|snapshot| snapshot.entries.keys().map(ToString::to_string));
        let all = Kind::ALL.into_iter().flat_map(|kind| names(kind).into_iter().flatten().map(move |n| (kind, n)));
        self.update(resources.into_iter().map(|resource| (resource, Audience::Everyone)), all)
    }

    /// Removes what is named and adds or replaces `resources`, each for its audience; one that is both is there. What is the same as before is
    /// not sent again; nothing is, when all is the same. Of several resources with one name the last counts. After the
    /// first call everything is published that there is: nothing, where nothing was said.
    pub fn update(
        &mut self,
        resources: impl IntoIterator<Item = (Resource, Audience)>,
        removed: impl IntoIterator<Item = (Kind, String)>,
    ) -> Difference {
        let mut changes = Kind::ALL.map(|_| Changes::new());
        let mut change = |kind: Kind, name: String, entry: Option<Arc<Entry>>| {
            let of_kind = Kind::ALL.iter().zip(&mut changes).find(|(known, _)| **known == kind);
            if let Some((_, changes)) = of_kind {
                changes.insert(name.into(), entry);
            }
        };
        for (kind, name) in removed {
            change(kind, name, None);
        }
        for (resource, audience) in resources {
            change(resource.kind(), resource.name(), Some(Arc::new(Entry::new(&resource, audience))));
        }
        let mut now = self.sender.borrow().clone();
        let (mut difference, mut news) = (Difference::default(), false);
        let nothing = Snapshot::default();
        for (snapshot, changes) in now.kinds.iter_mut().zip(changes) {
            if let Some((next, differs)) = Snapshot::next(snapshot.as_deref().unwrap_or(&nothing), changes) {
                difference.changed += differs.changed;
                difference.removed += differs.removed;
                *snapshot = Some(Arc::new(next));
                news = true;
            }
        }
        if news {
            self.sender.send_replace(now);
        }
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
        let changed = |now: &Snapshot, before: &Snapshot| {
            now.changed_since(before).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(changed(&second, &first), ["c", "b"]);
        assert!(Arc::ptr_eq(&first.entries()["a"], &second.entries()["a"]));
        assert_eq!(publisher.subscribe().borrow().of(Kind::Authorization).unwrap().generation(), policies);

        publisher.publish([resource(workload("a", "10.0.0.9"))]);
        let third = address(&publisher);
        assert_eq!(changed(&third, &second), ["a", "c"]);
        assert_eq!(changed(&third, &first), ["a", "b", "c"], "each once");
        assert_ne!(first.entries()["a"].version, third.entries()["a"].version);
    }

    #[test]
    fn what_changed_is_remembered_for_so_many_steps_and_names() {
        let mut publisher = Publisher::new();
        publisher.publish([]);
        let mut seen = vec![address(&publisher)];
        for n in 0..STEPS + 10 {
            publisher
                .update([(resource(workload("a", &format!("10.0.{}.{}", n >> 8, n & 255))), Audience::Everyone)], []);
            seen.push(address(&publisher));
        }
        let now = address(&publisher);
        let known = seen.iter().filter(|seen| now.changed_since(seen).is_some()).count();
        assert_eq!(known, STEPS + 1, "the last, and itself");
        assert_eq!(now.changed_since(&seen[20]), Some(vec!["a".into()]));
        let many = |names: usize| Step { from: 0, names: vec!["x".into(); names] };
        let half = steps(&[], many(STEP_NAMES / 2));
        let both = steps(&half, many(STEP_NAMES / 2));
        assert_eq!(both.len(), 2);
        assert_eq!(steps(&both, many(1)).len(), 2, "the oldest is forgotten");
        assert_eq!(steps(&both, many(2 * STEP_NAMES)).len(), 1, "the newest never is");
    }

    /// Difference by difference it becomes what it would be if all were published at once.
    #[test]
    fn updates_add_up_to_what_there_is() {
        let mut random = 3_u64;
        let mut below = move |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        let mut publisher = Publisher::new();
        publisher.publish([]);
        let mut there: BTreeMap<String, Workload> = BTreeMap::new();
        for step in 0..500 {
            let (mut upserts, mut removed) = (Vec::new(), Vec::new());
            for _ in 0..1 + below(3) {
                let uid = format!("w{}", below(6));
                if below(3) == 0 {
                    removed.push((Kind::Address, uid.clone()));
                    there.remove(&uid);
                } else {
                    let mut one = workload(&uid, &format!("10.0.0.{}", below(4)));
                    one.services.insert(NamespacedName::new("shop", format!("s{}", below(2))), Vec::new());
                    removed.retain(|(_, name)| *name != uid);
                    upserts.push(resource(one.clone()));
                    there.insert(uid, one);
                }
            }
            upserts.retain(|r| there.contains_key(&r.name()));
            let before = address(&publisher);
            publisher.update(upserts.into_iter().map(|resource| (resource, Audience::Everyone)), removed);
            let now = address(&publisher);
            let mut whole = Publisher::new();
            whole.publish(there.values().cloned().map(resource));
            let whole = address(&whole);
            assert!(now.entries().iter().eq(whole.entries().iter()), "step {step}");
            assert!(now.index.keys().eq(whole.index.keys()), "step {step}");
            let differ = |name: &&str| before.entries().get(*name) != now.entries().get(*name);
            let all: BTreeSet<&str> = before.entries().keys().chain(now.entries().keys()).map(|n| &**n).collect();
            let differ: BTreeSet<String> = all.into_iter().filter(differ).map(str::to_owned).collect();
            let said = now.changed_since(&before).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(differ, said, "step {step}");
        }
    }

    #[test]
    fn versions_outlive_the_process() {
        // A fixed input has a fixed version: a restarted control plane must say the same.
        let version = Version::of(b"abc");
        assert_eq!(version.to_string(), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(Version::parse("ba7816bf8f01cfea414140de5dae2223"), Some(version));
        for other in ["", "1", "BA7816bf8f01cfea414140de5dae2223", "+a7816bf8f01cfea414140de5dae2223"] {
            assert_eq!(Version::parse(other), None, "{other}");
        }
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
