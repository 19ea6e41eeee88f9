//! The server: what one subscriber has, wants, and is owed.
//!
//! One response of a kind is under way at a time. What changes meanwhile is not queued but found as a difference when
//! the answer has come, so a slow subscriber costs no more memory than a quick one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mesh_model::resource::Kind;
use mesh_proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource};
use prost_types::Any;

use super::WILDCARD;
use crate::published::{Entry, Published, Snapshot};

/// Most names one subscriber may ask for or declare, of each kind.
const MAX_NAMES: usize = 1_000_000;
/// Longest name, in bytes.
const MAX_NAME: usize = 4096;

/// One subscriber, for as long as its stream lasts.
#[derive(Debug, Default)]
pub struct Subscriber {
    node: Option<Node>,
    watches: BTreeMap<Kind, Watch>,
    nonces: u64,
}

/// One kind as one subscriber sees it.
#[derive(Debug)]
struct Watch {
    wildcard: bool,
    keys: BTreeSet<String>,
    has: Has,
    /// Keys asked for since the last response: each is answered, if only by "there is none".
    asked: BTreeSet<String>,
    /// The next response is due even when it is empty.
    owed: bool,
    /// What was looked at last.
    seen: Option<Arc<Snapshot>>,
    /// The nonce sent last, and whether its answer is outstanding.
    nonce: Option<String>,
    outstanding: bool,
    /// The generation up to which everything that is its business was taken in; 0 before the first.
    held: u64,
}

/// What the subscriber has.
#[derive(Debug)]
enum Has {
    /// Names to versions, declared or sent.
    Names(HashMap<Arc<str>, Arc<str>>),
    /// All of it: said without a copy of all names for each subscriber.
    All(Arc<Snapshot>),
}

/// What to send, and the names to remove.
type Difference<'a> = (Vec<(&'a Arc<str>, &'a Arc<Entry>)>, Vec<String>);

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
    /// Bounded, so that one subscriber cannot eat the memory.
    #[error("more than {MAX_NAMES} names of one kind, or a name longer than {MAX_NAME} bytes")]
    TooMuch,
}

impl Subscriber {
    /// Who it is, once it has said so.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// The generation of a kind up to which it has taken in everything that is its business; 0 before the first.
    pub fn held(&self, kind: Kind) -> u64 {
        self.watches.get(&kind).map_or(0, |watch| watch.held)
    }

    /// Whether an answer of it is outstanding.
    pub fn owes(&self) -> bool {
        self.watches.values().any(|watch| watch.outstanding)
    }

    /// Takes a request in.
    ///
    /// # Errors
    /// When the stream has to end.
    pub fn request(&mut self, request: DeltaDiscoveryRequest) -> Result<Meaning, Violation> {
        if self.node.is_none() {
            let node = request.node.unwrap_or_default();
            if node.id.split('~').count() != 4 {
                return Err(Violation::Node(node.id));
            }
            self.node = Some(node);
        }
        let Some(kind) = Kind::from_type_url(&request.type_url) else {
            return Ok(Meaning::UnknownType(request.type_url));
        };
        let names = request.resource_names_subscribe.iter().chain(request.initial_resource_versions.keys());
        if names.clone().count() > MAX_NAMES || names.into_iter().any(|name| name.len() > MAX_NAME) {
            return Err(Violation::TooMuch);
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
            watch.held = watch.seen.as_ref().map_or(0, |seen| seen.generation());
        }
        let changes = !request.resource_names_subscribe.is_empty() || !request.resource_names_unsubscribe.is_empty();
        watch.change(request.resource_names_subscribe, request.resource_names_unsubscribe);
        if watch.keys.len() > MAX_NAMES {
            return Err(Violation::TooMuch);
        }
        Ok(match request.error_detail {
            Some(detail) => Meaning::Rejected(kind, detail.message),
            None if changes || !answers => Meaning::Subscribed(kind),
            None => Meaning::Accepted(kind),
        })
    }

    /// The next response that is due, given what is published. Each is to be sent; then this is to be asked again.
    ///
    /// Policies go before the workloads they may cover: while policies are owed, workloads wait.
    pub fn respond(&mut self, published: &Published) -> Option<DeltaDiscoveryResponse> {
        for kind in Kind::ALL {
            let (Some(watch), Some(snapshot)) = (self.watches.get_mut(&kind), published.of(kind)) else { continue };
            if !watch.owed && watch.seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, snapshot)) {
                continue;
            }
            if watch.outstanding {
                return None;
            }
            let Some(mut response) = watch.respond(kind, snapshot) else {
                // Nothing of it is its business.
                watch.held = snapshot.generation();
                continue;
            };
            self.nonces += 1;
            response.nonce = self.nonces.to_string();
            response.system_version_info = snapshot.generation().to_string();
            watch.nonce = Some(response.nonce.clone());
            watch.outstanding = true;
            return Some(response);
        }
        None
    }
}

impl Watch {
    fn new(subscribe: Vec<String>, unsubscribe: &[String], declared: BTreeMap<String, String>) -> Self {
        let everything = |names: &[String]| names.iter().any(|name| name == WILDCARD);
        let wildcard = (subscribe.is_empty() || everything(&subscribe)) && !everything(unsubscribe);
        let keys: BTreeSet<_> = subscribe.into_iter().filter(|key| key != WILDCARD).collect();
        let has = declared.into_iter().map(|(name, version)| (name.into(), version.into())).collect();
        Self {
            wildcard,
            asked: keys.clone(),
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

    fn change(&mut self, subscribe: Vec<String>, unsubscribe: Vec<String>) {
        for key in subscribe {
            if key == WILDCARD {
                self.owed |= !self.wildcard;
                self.wildcard = true;
            } else {
                self.owed = true;
                self.asked.insert(key.clone());
                self.keys.insert(key);
            }
        }
        for key in unsubscribe {
            if key == WILDCARD {
                self.wildcard = false;
            } else if self.keys.remove(&key) {
                self.asked.remove(&key);
                self.give_up(&key);
            }
        }
        if !self.wildcard
            && let Has::All(snapshot) = &self.has
        {
            let wanted = self.keys.iter().flat_map(|key| snapshot.resolve(key));
            self.has = Has::Names(wanted.map(|(name, entry)| (name.clone(), entry.version.clone())).collect());
        }
    }

    /// What this key alone brought is the subscriber's no more, and is not updated.
    fn give_up(&mut self, key: &str) {
        let (Some(seen), Has::Names(names)) = (&self.seen, &mut self.has) else { return };
        let kept: BTreeSet<_> = self.keys.iter().flat_map(|key| seen.resolve(key)).map(|(name, _)| name).collect();
        for (name, _) in seen.resolve(key) {
            if !kept.contains(name) {
                names.remove(name);
            }
        }
    }

    /// What has to be said, or None if nothing.
    fn respond(&mut self, kind: Kind, snapshot: &Arc<Snapshot>) -> Option<DeltaDiscoveryResponse> {
        let (changed, mut removed) = if self.wildcard { self.all(snapshot) } else { self.on_demand(snapshot) };
        for key in std::mem::take(&mut self.asked) {
            if snapshot.resolve(&key).is_empty() && !removed.contains(&key) {
                removed.push(key);
            }
        }
        removed.sort_unstable();
        let owed = std::mem::take(&mut self.owed);
        self.seen = Some(snapshot.clone());
        if changed.is_empty() && removed.is_empty() && !owed {
            return None;
        }
        let resource = |(name, entry): (&Arc<str>, &Arc<Entry>)| Resource {
            name: name.to_string(),
            version: entry.version.to_string(),
            aliases: if self.wildcard { Vec::new() } else { entry.aliases.clone() },
            resource: Some(Any { type_url: kind.type_url().to_owned(), value: entry.bytes.to_vec() }),
        };
        Some(DeltaDiscoveryResponse {
            type_url: kind.type_url().to_owned(),
            resources: changed.into_iter().map(resource).collect(),
            removed_resources: removed,
            ..DeltaDiscoveryResponse::default()
        })
    }

    /// The difference for one who wants everything.
    fn all<'a>(&mut self, now: &'a Arc<Snapshot>) -> Difference<'a> {
        let entries = now.entries();
        let before = std::mem::replace(&mut self.has, Has::All(now.clone()));
        let gone = |name: &Arc<str>| !entries.contains_key(name);
        match &before {
            Has::Names(names) => (
                entries.iter().filter(|(name, entry)| names.get(*name) != Some(&entry.version)).collect(),
                names.keys().filter(|name| gone(name)).map(ToString::to_string).collect(),
            ),
            Has::All(before) => {
                let differs = |name: &Arc<str>, entry: &Arc<Entry>| {
                    before.entries().get(name).is_none_or(|old| old.version != entry.version)
                };
                match now.changed_since(before) {
                    Some(names) => (
                        names.iter().filter_map(|name| entries.get_key_value(name)).collect(),
                        names.iter().filter(|name| gone(name)).map(ToString::to_string).collect(),
                    ),
                    None => (
                        entries.iter().filter(|(name, entry)| differs(name, entry)).collect(),
                        before.entries().keys().filter(|name| gone(name)).map(ToString::to_string).collect(),
                    ),
                }
            }
        }
    }

    /// The difference for one who asks for keys: what the keys mean now, and what it has from before.
    fn on_demand<'a>(&mut self, now: &'a Arc<Snapshot>) -> Difference<'a> {
        let names = match &mut self.has {
            Has::Names(names) => names,
            // `change` has left names when everything was given up.
            Has::All(_) => return (Vec::new(), Vec::new()),
        };
        let mut removed: Vec<String> = Vec::new();
        let mut wanted: BTreeMap<&Arc<str>, &Arc<Entry>> = BTreeMap::new();
        names.retain(|name, _| match now.entries().get_key_value(name) {
            Some((name, entry)) => {
                wanted.insert(name, entry);
                true
            }
            None => {
                removed.push(name.to_string());
                false
            }
        });
        wanted.extend(self.keys.iter().flat_map(|key| now.resolve(key)));
        // Somebody waits for the keys just asked for: they are answered even with what is known.
        let asked: BTreeSet<&Arc<str>> =
            self.asked.iter().flat_map(|key| now.resolve(key)).map(|(name, _)| name).collect();
        let changed: Vec<_> = wanted
            .into_iter()
            .filter(|(name, entry)| asked.contains(name) || names.get(*name) != Some(&entry.version))
            .collect();
        names.extend(changed.iter().map(|(name, entry)| ((*name).clone(), entry.version.clone())));
        (changed, removed)
    }
}

#[cfg(test)]
mod tests;
