//! What was said by an API server: which objects are good, which are rejected, and what that changes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use mesh_kube::Event;

use super::kinds::{self, Read};
use crate::cluster::Change;
use crate::resources::{Key, Kind, Object};
use crate::source::{Rejected, closed};

/// What was said of all kinds.
pub(super) struct Book {
    root_namespace: String,
    /// What we have not seen ourselves may be in force.
    unsure: bool,
    kinds: BTreeMap<Kind, OfKind>,
    /// The policies that close what nobody is sure of.
    closed: BTreeSet<Key>,
}

/// What was said of one kind.
#[derive(Default)]
struct OfKind {
    /// Objects that serve: as they are, or as they were last good.
    serving: BTreeSet<Key>,
    rejected: BTreeMap<Key, Wrong>,
}

struct Wrong {
    rejected: Rejected,
    /// It may have been in force as something that nobody knows.
    unsure: bool,
}

impl Book {
    pub(super) fn new(root_namespace: &str, first_start: bool) -> Self {
        let (kinds, closed) = (BTreeMap::new(), BTreeSet::new());
        Self { root_namespace: root_namespace.to_owned(), unsure: !first_start, kinds, closed }
    }

    /// Everything was said once of every kind.
    pub(super) fn is_whole(&self) -> bool {
        self.kinds.len() == kinds::ALL.len()
    }

    /// What is rejected now, in order.
    pub(super) fn rejected(&self) -> impl Iterator<Item = &Rejected> {
        self.kinds.values().flat_map(|of_kind| of_kind.rejected.values()).map(|wrong| &wrong.rejected)
    }

    /// Takes an event in.
    pub(super) fn take(&mut self, kind: Kind, event: Event<Read>, changes: &mut Vec<Change>) {
        // Whether anything was in force before is only asked of what is wrong when we look for the first time: from then on we
        // know what serves.
        let first = self.unsure && !self.kinds.contains_key(&kind);
        let of_kind = self.kinds.entry(kind).or_default();
        match event {
            Event::All(all) => {
                let stays: BTreeSet<Key> = all
                    .iter()
                    .map(|read| match read {
                        Ok(object) => object.key(),
                        Err(rejected) => kinds::key(kind, rejected),
                    })
                    .collect();
                of_kind.rejected.retain(|key, _| stays.contains(key));
                // What goes, goes first, so that an address can change hands.
                let gone: Vec<Key> = of_kind.serving.difference(&stays).cloned().collect();
                changes.extend(gone.into_iter().map(|key| of_kind.remove(key)));
                changes.extend(all.into_iter().filter_map(|read| of_kind.apply(kind, read, first)));
            }
            Event::Apply(read) => changes.extend(of_kind.apply(kind, read, first)),
            Event::Delete(meta) => {
                let key = Key::new(kind, Some(&meta.namespace), &meta.name);
                changes.push(of_kind.remove(key));
            }
        }
    }

    /// Closes what nobody is sure of, and opens what was mended.
    pub(super) fn close(&mut self, changes: &mut Vec<Change>) {
        let unsure = self.kinds.values().flat_map(|of_kind| of_kind.rejected.values()).filter(|wrong| wrong.unsure);
        let wanted: Vec<Object> = closed::policies(unsure.map(|wrong| &wrong.rejected), &self.root_namespace).collect();
        let keys: BTreeSet<Key> = wanted.iter().map(Object::key).collect();
        let new = wanted.into_iter().filter(|object| !self.closed.contains(&object.key()));
        changes.extend(new.map(Change::apply));
        changes.extend(self.closed.difference(&keys).cloned().map(Change::Delete));
        self.closed = keys;
    }
}

impl OfKind {
    fn apply(&mut self, kind: Kind, read: Read, first: bool) -> Option<Change> {
        let mut rejected = match read {
            Ok(object) => {
                let key = object.key();
                self.rejected.remove(&key);
                self.serving.insert(key);
                return Some(Change::Apply(object));
            }
            Err(rejected) => *rejected,
        };
        let key = kinds::key(kind, &rejected);
        rejected.last_good_kept = self.serving.contains(&key);
        let unsure = first || self.rejected.get(&key).is_some_and(|wrong| wrong.unsure);
        if unsure {
            closed::tell(&mut rejected);
        }
        self.rejected.insert(key, Wrong { rejected, unsure });
        None
    }

    fn remove(&mut self, key: Key) -> Change {
        self.serving.remove(&key);
        self.rejected.remove(&key);
        Change::Delete(key)
    }
}

#[cfg(test)]
mod tests {
    use mesh_kube::Meta;
    use serde_json::json;

    use super::*;
    use crate::source::Origin;

    fn good(kind: Kind, name: &str) -> Read {
        Ok(Object::from_value(kind, &json!({"metadata": {"name": name, "namespace": "shop"}})).unwrap().into())
    }

    fn bad(kind: Kind, name: &str) -> Read {
        Err(Box::new(Rejected {
            origin: Origin::Cluster { resource_version: "1".into(), generation: 1 },
            kind: Some(kind.as_str().to_owned()),
            namespace: Some("shop".to_owned()),
            name: Some(name.to_owned()),
            field: None,
            message: "wrong".to_owned(),
            last_good_kept: false,
        }))
    }

    fn gone(name: &str) -> Event<Read> {
        Event::Delete(Meta { namespace: "shop".into(), name: name.into(), ..Meta::default() })
    }

    /// What an event comes to, in one word each, and which objects are rejected: `!` where the last good version serves.
    fn step(book: &mut Book, kind: Kind, event: Event<Read>) -> (Vec<String>, Vec<String>) {
        let mut changes = Vec::new();
        book.take(kind, event, &mut changes);
        book.close(&mut changes);
        let word = |change: &Change| match change {
            Change::Apply(object) => format!("+{}", object.key().name),
            Change::Delete(key) => format!("-{}", key.name),
            Change::Replace(..) | Change::Keys(..) => panic!("not said here"),
        };
        let wrong = |r: &Rejected| {
            format!("{}{}", if r.last_good_kept { "!" } else { "" }, r.name.as_deref().unwrap_or_default())
        };
        (changes.iter().map(word).collect(), book.rejected().map(wrong).collect())
    }

    fn words<const N: usize, const M: usize>(changes: [&str; N], rejected: [&str; M]) -> (Vec<String>, Vec<String>) {
        (changes.map(str::to_owned).to_vec(), rejected.map(str::to_owned).to_vec())
    }

    const POLICY: Kind = Kind::AuthorizationPolicy;

    #[test]
    fn what_is_wrong_is_left_out_alone_and_its_last_good_version_serves() {
        let mut book = Book::new("istio-system", true);
        let all = Event::All(vec![good(POLICY, "a"), bad(POLICY, "b"), good(POLICY, "c")]);
        assert_eq!(step(&mut book, POLICY, all), words(["+a", "+c"], ["b"]));
        assert_eq!(step(&mut book, POLICY, Event::Apply(bad(POLICY, "a"))), words([], ["!a", "b"]));
        // Everything is said again: what is wrong still serves, and what went unseen goes.
        let all = Event::All(vec![bad(POLICY, "a"), good(POLICY, "d")]);
        assert_eq!(step(&mut book, POLICY, all), words(["-c", "+d"], ["!a"]));
        assert_eq!(step(&mut book, POLICY, Event::Apply(good(POLICY, "a"))), words(["+a"], []));
        assert_eq!(step(&mut book, POLICY, Event::Apply(bad(POLICY, "a"))), words([], ["!a"]));
        assert_eq!(step(&mut book, POLICY, gone("a")), words(["-a"], []));
        assert_eq!(step(&mut book, POLICY, Event::All(Vec::new())), words(["-d"], []));
    }

    #[test]
    fn where_nobody_knows_what_was_in_force_its_namespace_is_closed_until_it_is_mended() {
        let closed = "istiod-lite-closed";
        let mut book = Book::new("istio-system", false);
        let all = Event::All(vec![bad(POLICY, "a"), good(POLICY, "b")]);
        assert_eq!(step(&mut book, POLICY, all), words(["+b", &format!("+{closed}")], ["a"]));
        assert!(book.rejected().next().unwrap().message.contains("is refused until it is mended"));
        // Wrong in another way, and said again: as before.
        assert_eq!(step(&mut book, POLICY, Event::Apply(bad(POLICY, "a"))), words([], ["a"]));
        let all = Event::All(vec![bad(POLICY, "a"), good(POLICY, "b")]);
        assert_eq!(step(&mut book, POLICY, all), words(["+b"], ["a"]));
        // What is new and wrong changes nothing, and pods are no policies.
        assert_eq!(step(&mut book, POLICY, Event::Apply(bad(POLICY, "new"))), words([], ["a", "new"]));
        assert_eq!(step(&mut book, Kind::Pod, Event::All(vec![bad(Kind::Pod, "p")])), words([], ["p", "a", "new"]));
        let mended = step(&mut book, POLICY, Event::Apply(good(POLICY, "a")));
        assert_eq!(mended, words(["+a", &format!("-{closed}")], ["p", "new"]));
        // Deleted is as good as mended.
        let mut book = Book::new("istio-system", false);
        step(&mut book, POLICY, Event::All(vec![bad(POLICY, "a")]));
        assert_eq!(step(&mut book, POLICY, gone("a")), words(["-a", &format!("-{closed}")], []));
    }

    #[test]
    fn it_is_whole_once_every_kind_was_read() {
        let mut book = Book::new("istio-system", true);
        for kind in kinds::ALL {
            assert!(!book.is_whole());
            book.take(kind, Event::All(Vec::new()), &mut Vec::new());
        }
        assert!(book.is_whole());
    }
}
