//! The server: what one subscriber has, wants, and is owed.
//!
//! One response of a kind is under way at a time. What changes meanwhile is not queued but found as a difference when
//! the answer has come, so a slow subscriber costs no more memory than a quick one.
//!
//! What a subscriber asks for costs no more than it has to: what is new is found by looking at what changed, not at all
//! that was ever asked for ([`Subscriber::work`] says how much there is to look at). Many names that are asked for at
//! once are answered in parts ([`PART`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use mesh_model::resource::Kind;
use mesh_proto::discovery::DeltaDiscoveryRequest;

use super::WILDCARD;
use crate::audience::Role;
use crate::node;
use crate::published::{Entry, Published, Snapshot, Version};

mod response;

pub use response::{Chunks, Response};

/// Longest name, in bytes: the longest of Kubernetes' and Istio's is a ServiceEntry's endpoint with a host name, and
/// takes some 700.
pub const MAX_NAME: usize = 1024;
/// Most names of one request that one response answers. What is left is answered by the next.
pub const PART: usize = 4096;
/// What a name costs besides its bytes, in the tables that hold it: an entry, its version, and its share of a table that
/// grows.
const NAME_COST: usize = 128;

/// One subscriber, for as long as its stream lasts.
#[derive(Debug, Default)]
pub struct Subscriber {
    introduced: Option<Introduced>,
    watches: BTreeMap<Kind, Watch>,
    nonces: u64,
}

/// What is kept of what a subscriber says of itself.
#[derive(Debug)]
struct Introduced {
    namespace: Option<Box<str>>,
    role: Role,
}

/// One kind as one subscriber sees it.
#[derive(Debug)]
struct Watch {
    wildcard: bool,
    keys: HashSet<Arc<str>>,
    has: Has,
    /// Keys that were not answered since they were asked for: each is, if only by "there is none".
    asked: BTreeSet<Arc<str>>,
    /// The next response is due even when it is empty.
    owed: bool,
    /// What was looked at last.
    seen: Option<Arc<Snapshot>>,
    /// The nonce sent last, and whether its answer is outstanding.
    nonce: Option<String>,
    outstanding: bool,
    /// The generation up to which everything that is its business was taken in; 0 before the first.
    held: u64,
    /// The bytes of `keys`, and of the names in `has`.
    bytes: usize,
}

/// What the subscriber has.
#[derive(Debug)]
enum Has {
    /// Names to versions, declared or sent; None is one that is none of ours.
    Names(HashMap<Arc<str>, Option<Version>>),
    /// All of it: said without a copy of all names for each subscriber.
    All(Arc<Snapshot>),
}

/// What to send, and the names to remove.
type Difference = (Vec<Arc<Entry>>, BTreeSet<String>);

/// What a request meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// The subscription began or changed.
    Subscribed(Kind),
    /// The last response was accepted.
    Accepted(Kind),
    /// Resources of the last response were refused; the others were taken.
    Rejected(Kind, String),
    /// An answer to an older response: dropped, as a whole.
    Stale(Kind),
    /// Of a type we do not serve: dropped.
    UnknownType(String),
}

/// Why a stream has to end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Subscribers say who they are, first of all.
    #[error("the first request needs a node with an id of the form type~ip~name.namespace~domain; it is {0:?}")]
    Node(String),
    /// Nothing is called so.
    #[error("a name of {0} bytes; none is longer than {MAX_NAME}")]
    LongName(usize),
}

impl Subscriber {
    /// Whether it has said who it is.
    pub fn introduced(&self) -> bool {
        self.introduced.is_some()
    }

    /// The namespace it says it is of.
    pub fn namespace(&self) -> Option<&str> {
        self.introduced.as_ref()?.namespace.as_deref()
    }

    /// What it is; a ztunnel, until it has said so.
    pub fn role(&self) -> Role {
        self.introduced.as_ref().map(|introduced| introduced.role.clone()).unwrap_or_default()
    }

    /// It has asked for something, and no answer to what it was sent is outstanding.
    pub fn has_answered(&self) -> bool {
        !self.watches.is_empty() && self.watches.values().all(|watch| !watch.outstanding)
    }

    /// What the names that it asked for or declared take, in bytes.
    pub fn cost(&self) -> usize {
        self.watches.values().map(Watch::cost).sum()
    }

    /// The generation of a kind up to which it has taken in everything that is its business; 0 before the first.
    pub fn held(&self, kind: Kind) -> u64 {
        self.watches.get(&kind).map_or(0, |watch| watch.held)
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// When the stream has to end.
    pub fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<Meaning, Violation> {
        if self.introduced.is_none() {
            let node = request.node.unwrap_or_default();
            if node.id.split('~').count() != 4 {
                return Err(Violation::Node(node.id.chars().take(MAX_NAME).collect()));
            }
            let namespace = node::namespace_of(&node).map(Into::into);
            self.introduced = Some(Introduced { namespace, role: Role::of(&node) });
        }
        let Some(kind) = Kind::from_type_url(&request.type_url) else {
            return Ok(Meaning::UnknownType(request.type_url));
        };
        let mut names = request.resource_names_subscribe.iter().chain(request.initial_resource_versions.keys());
        if let Some(long) = names.find(|name| name.len() > MAX_NAME) {
            return Err(Violation::LongName(long.len()));
        }
        let Some(watch) = self.watches.get_mut(&kind) else {
            // Whatever nonce it carries is of an earlier stream.
            let declared = request.initial_resource_versions;
            let watch = Watch::new(request.resource_names_subscribe, &request.resource_names_unsubscribe, declared);
            self.watches.insert(kind, watch);
            return Ok(Meaning::Subscribed(kind));
        };
        let answers = !request.response_nonce.is_empty();
        if answers {
            if watch.nonce.as_ref() != Some(&request.response_nonce) {
                return Ok(Meaning::Stale(kind));
            }
            watch.outstanding = false;
            if request.error_detail.is_none() {
                watch.held = watch.seen.as_ref().map_or(0, |seen| seen.generation());
            }
        }
        let changes = !request.resource_names_subscribe.is_empty() || !request.resource_names_unsubscribe.is_empty();
        watch.change(request.resource_names_subscribe, request.resource_names_unsubscribe);
        Ok(match request.error_detail {
            Some(detail) => Meaning::Rejected(kind, detail.message),
            None if changes || !answers => Meaning::Subscribed(kind),
            None => Meaning::Accepted(kind),
        })
    }

    /// How many names and resources [`Self::respond`] has to look at now, at most; counted up to `enough`.
    pub fn work(&self, published: &Published, enough: usize) -> usize {
        let due = self.watches.iter().filter_map(|(kind, watch)| Some((watch, published.of(*kind)?)));
        let mut work = 0;
        for (watch, snapshot) in due.filter(|(watch, _)| !watch.outstanding) {
            work += watch.work(snapshot, enough);
            if work >= enough {
                break;
            }
        }
        work
    }

    /// The next response that is due, given what is published. Each is to be sent; then this is to be asked again.
    ///
    /// Policies go before the workloads they may cover: while policies are owed, workloads wait.
    pub fn respond(&mut self, published: &Published) -> Option<Response> {
        let role = self.role();
        for kind in Kind::ALL {
            let (Some(watch), Some(snapshot)) = (self.watches.get_mut(&kind), published.of(kind)) else { continue };
            if !watch.due(snapshot) {
                continue;
            }
            if watch.outstanding {
                return None;
            }
            let Some((changed, removed)) = watch.respond(snapshot, &role) else {
                // Nothing of it is its business.
                watch.held = snapshot.generation();
                continue;
            };
            self.nonces += 1;
            let nonce = self.nonces.to_string();
            watch.nonce = Some(nonce.clone());
            watch.outstanding = true;
            let (generation, aliases) = (snapshot.generation(), !watch.wildcard);
            return Some(Response {
                kind,
                generation,
                nonce,
                changed,
                removed: removed.into_iter().collect(),
                aliases,
            });
        }
        None
    }
}

impl Watch {
    fn new(subscribe: Vec<String>, unsubscribe: &[String], declared: BTreeMap<String, String>) -> Self {
        let everything = |names: &[String]| names.iter().any(|name| name == WILDCARD);
        let wildcard = (subscribe.is_empty() || everything(&subscribe)) && !everything(unsubscribe);
        let keys: HashSet<Arc<str>> = subscribe.into_iter().filter(|key| key != WILDCARD).map(Into::into).collect();
        let declared = declared.into_iter().map(|(name, version)| (name.into(), Version::parse(&version)));
        let has: HashMap<Arc<str>, Option<Version>> = declared.collect();
        Self {
            wildcard,
            bytes: keys.iter().chain(has.keys()).map(|name| name.len()).sum(),
            asked: keys.iter().cloned().collect(),
            keys,
            has: Has::Names(has),
            // Subscribers are ready only when every kind was answered: silence would keep them waiting.
            owed: true,
            seen: None,
            nonce: None,
            outstanding: false,
            held: 0,
        }
    }

    fn cost(&self) -> usize {
        let has = match &self.has {
            Has::Names(names) => names.len(),
            Has::All(_) => 0,
        };
        self.bytes + (self.keys.len() + has) * NAME_COST
    }

    fn change(&mut self, subscribe: Vec<String>, unsubscribe: Vec<String>) {
        for key in subscribe {
            if key == WILDCARD {
                self.owed |= !self.wildcard;
                self.wildcard = true;
                continue;
            }
            self.owed = true;
            let key: Arc<str> = key.into();
            if self.keys.insert(key.clone()) {
                self.bytes += key.len();
            }
            self.asked.insert(key);
        }
        let mut gone = Vec::new();
        for key in unsubscribe {
            if key == WILDCARD {
                self.wildcard = false;
            } else if self.keys.remove(key.as_str()) {
                self.bytes -= key.len();
                self.asked.remove(key.as_str());
                gone.push(key);
            }
        }
        self.give_up(&gone);
        if !self.wildcard
            && let Has::All(snapshot) = &self.has
        {
            let wanted = self.keys.iter().flat_map(|key| snapshot.resolve(key));
            let wanted: HashMap<_, _> = wanted.map(|(name, entry)| (name.clone(), Some(entry.version))).collect();
            self.bytes += wanted.keys().map(|name| name.len()).sum::<usize>();
            self.has = Has::Names(wanted);
        }
    }

    /// What these keys alone brought is the subscriber's no more, and is not updated.
    fn give_up(&mut self, gone: &[String]) {
        let (Some(seen), Has::Names(names)) = (&self.seen, &mut self.has) else { return };
        for (name, entry) in gone.iter().flat_map(|key| seen.resolve(key)) {
            if !seen.meant(name, entry, |key| self.keys.contains(key)) && names.remove(name).is_some() {
                self.bytes -= name.len();
            }
        }
    }

    fn due(&self, snapshot: &Arc<Snapshot>) -> bool {
        self.owed || self.seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, snapshot))
    }

    /// The names that changed since the last look; None when that is too long ago to know.
    fn changed(&self, snapshot: &Snapshot) -> Option<Vec<Arc<str>>> {
        self.seen.as_ref().and_then(|seen| snapshot.changed_since(seen))
    }

    fn work(&self, snapshot: &Arc<Snapshot>, enough: usize) -> usize {
        if !self.due(snapshot) {
            return 0;
        }
        let changed = self.seen.as_ref().and_then(|seen| snapshot.count_changed_since(seen));
        let look = match (changed, &self.has) {
            (Some(changed), _) => changed,
            (None, Has::All(before)) => before.entries().len() + snapshot.entries().len(),
            (None, Has::Names(names)) if self.wildcard => names.len() + snapshot.entries().len(),
            (None, Has::Names(names)) => names.len() + self.keys.len(),
        };
        let mut work = look;
        for key in self.asked.iter().take(PART) {
            if work >= enough {
                break;
            }
            work += snapshot.weight(key, enough);
        }
        work
    }

    /// What has to be said, or None if nothing.
    fn respond(&mut self, snapshot: &Arc<Snapshot>, role: &Role) -> Option<Difference> {
        let asked: Vec<Arc<str>> = self.asked.iter().take(PART).cloned().collect();
        self.asked = if asked.len() < PART { BTreeSet::new() } else { self.asked.split_off(&asked[PART - 1]) };
        if let Some(last) = asked.last() {
            self.asked.remove(last);
        }
        let (changed, mut removed) =
            if self.wildcard { self.all(snapshot, role) } else { self.on_demand(snapshot, &asked, role) };
        let unknown = |key: &&Arc<str>| told(snapshot.resolve(key), role).next().is_none();
        removed.extend(asked.iter().filter(unknown).map(ToString::to_string));
        let owed = std::mem::replace(&mut self.owed, !self.asked.is_empty());
        self.seen = Some(snapshot.clone());
        (owed || !changed.is_empty() || !removed.is_empty()).then_some((changed, removed))
    }

    /// The difference for one who wants everything.
    fn all(&mut self, now: &Arc<Snapshot>, role: &Role) -> Difference {
        let entries = now.entries();
        let before = std::mem::replace(&mut self.has, Has::All(now.clone()));
        let of = |snapshot: &Snapshot, name: &Arc<str>| {
            snapshot.entries().get(name).filter(|entry| entry.audience.includes(role)).cloned()
        };
        let gone = |name: &Arc<str>| of(now, name).is_none();
        match &before {
            Has::Names(names) => {
                self.bytes -= names.keys().map(|name| name.len()).sum::<usize>();
                let differs = |(name, entry): &(&Arc<str>, &Arc<Entry>)| names.get(*name) != Some(&Some(entry.version));
                (
                    told(entries.iter(), role).filter(differs).map(|(_, entry)| entry.clone()).collect(),
                    names.keys().filter(|name| gone(name)).map(ToString::to_string).collect(),
                )
            }
            Has::All(before) => {
                let differs = |name: &Arc<str>, entry: &Arc<Entry>| {
                    of(before, name).is_none_or(|old| old.version != entry.version)
                };
                match now.changed_since(before) {
                    Some(names) => {
                        // What went back to what it was, or came and went, is no difference.
                        let now = told(names.iter().filter_map(|name| Some((name, entries.get(name)?))), role);
                        let went = |name: &&Arc<str>| gone(name) && of(before, name).is_some();
                        (
                            now.filter(|(name, entry)| differs(name, entry)).map(|(_, entry)| entry.clone()).collect(),
                            names.iter().filter(went).map(ToString::to_string).collect(),
                        )
                    }
                    None => (
                        told(entries.iter(), role)
                            .filter(|(name, entry)| differs(name, entry))
                            .map(|(_, entry)| entry.clone())
                            .collect(),
                        told(before.entries().iter(), role)
                            .map(|(name, _)| name)
                            .filter(|name| gone(name))
                            .map(ToString::to_string)
                            .collect(),
                    ),
                }
            }
        }
    }

    /// The difference for one who asks for keys: what the keys mean now, and what it has from before. Somebody waits for
    /// the keys just asked for: they are answered even with what is known.
    fn on_demand(&mut self, now: &Arc<Snapshot>, asked: &[Arc<str>], role: &Role) -> Difference {
        let changed = self.changed(now);
        let Has::Names(names) = &mut self.has else {
            // `change` has left names when everything was given up.
            return Difference::default();
        };
        let mut removed = BTreeSet::new();
        let mut differs: BTreeMap<&Arc<str>, &Arc<Entry>> = BTreeMap::new();
        match changed {
            Some(changed) => {
                for name in &changed {
                    let entry = now.entries().get_key_value(name);
                    let Some((name, entry)) = entry.filter(|(_, entry)| entry.audience.includes(role)) else {
                        if names.remove(name).is_some() {
                            self.bytes -= name.len();
                            removed.insert(name.to_string());
                        }
                        continue;
                    };
                    let asked_for = |key: &str| self.keys.contains(key);
                    if names.contains_key(name) || now.meant(name, entry, asked_for) {
                        differs.insert(name, entry);
                    }
                    // A service that has another name by now, which was asked for, brings endpoints that did not change.
                    if now.named(name, entry, asked_for) {
                        let more = told(now.resolve(name), role);
                        differs.extend(more.filter(|(name, _)| !names.contains_key(*name)));
                    }
                }
            }
            None => {
                let bytes = &mut self.bytes;
                names.retain(|name, version| match now.entries().get_key_value(name) {
                    Some((name, entry)) if entry.audience.includes(role) => {
                        if *version != Some(entry.version) {
                            differs.insert(name, entry);
                        }
                        true
                    }
                    _ => {
                        *bytes -= name.len();
                        removed.insert(name.to_string());
                        false
                    }
                });
                let meant = told(self.keys.iter().flat_map(|key| now.resolve(key)), role);
                differs.extend(meant.filter(|(name, entry)| names.get(*name) != Some(&Some(entry.version))));
            }
        }
        differs.retain(|name, entry| names.get(*name) != Some(&Some(entry.version)));
        differs.extend(told(asked.iter().flat_map(|key| now.resolve(key)), role));
        for (name, entry) in &differs {
            if names.insert((*name).clone(), Some(entry.version)).is_none() {
                self.bytes += name.len();
            }
        }
        (differs.into_values().cloned().collect(), removed)
    }
}

/// Those of which a subscriber of this role is told.
fn told<'a>(
    entries: impl IntoIterator<Item = (&'a Arc<str>, &'a Arc<Entry>)>,
    role: &Role,
) -> impl Iterator<Item = (&'a Arc<str>, &'a Arc<Entry>)> {
    entries.into_iter().filter(|(_, entry)| entry.audience.includes(role))
}

#[cfg(test)]
mod tests;
