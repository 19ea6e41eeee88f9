//! Which things belong to which: pairs, sorted. Pure.

use std::collections::BTreeSet;
use std::ops::Bound;

use mesh_model::address::NamespacedName;

use crate::resources::{Key, Kind};

/// Some things, each with some others: one sorted set, which takes little memory for things with few others.
#[derive(Debug)]
pub(crate) struct Pairs<A, B>(BTreeSet<(A, B)>);

impl<A, B> Default for Pairs<A, B> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

/// What sorts before, or with, everything else of its type.
pub(crate) trait Least {
    /// It.
    fn least() -> Self;
}

impl Least for NamespacedName {
    fn least() -> Self {
        Self::new("", "")
    }
}

impl Least for Key {
    fn least() -> Self {
        Self { kind: Kind::Namespace, namespace: "".into(), name: "".into() }
    }
}

impl<A: Ord + Clone, B: Ord + Least> Pairs<A, B> {
    /// Adds a pair.
    pub(crate) fn insert(&mut self, pair: (A, B)) {
        self.0.insert(pair);
    }

    /// Removes a pair.
    pub(crate) fn remove(&mut self, pair: &(A, B)) {
        self.0.remove(pair);
    }

    /// Adds or removes a pair.
    pub(crate) fn set(&mut self, pair: (A, B), is_there: bool) {
        if is_there {
            self.insert(pair);
        } else {
            self.remove(&pair);
        }
    }

    /// The others of one, in order.
    pub(crate) fn of(&self, one: &A) -> impl Iterator<Item = &B> {
        let from = (one.clone(), B::least());
        let end = one.clone();
        let all = self.0.range((Bound::Included(from), Bound::Unbounded));
        all.take_while(move |(first, _)| *first == end).map(|(_, other)| other)
    }

    /// Those that have others, each once, in order.
    pub(crate) fn firsts(&self) -> BTreeSet<&A> {
        self.0.iter().map(|(first, _)| first).collect()
    }

    /// The others, each once, in order.
    pub(crate) fn seconds(&self) -> BTreeSet<&B> {
        self.0.iter().map(|(_, second)| second).collect()
    }
}
