//! Permits of what carries nothing: connections at rest, and handshakes that are not done. Where a new connection finds no
//! room, it gets one of these, the oldest of the greediest source first.
//!
//! A permit is kept here while its connection carries nothing. The connection takes it back when it has something to
//! carry, or is notified that it has lost it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_model::share::Source;
use tokio::sync::Notify;

/// How the holder of a permit is related to the source that needs one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kin {
    /// It is the same source.
    Own,
    /// It is of the same group, which has one share together.
    Group,
    Other,
}

/// How much a source holds, with its group first: that is what is compared first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Holds {
    pub(super) group: usize,
    pub(super) own: usize,
}

/// A source, or a pod, that may lose a permit to the newcomer.
pub(super) struct Candidate<T> {
    pub(super) of: T,
    pub(super) holds: Holds,
    pub(super) kin: Kin,
}

/// The candidate that loses a permit to the newcomer: the one that holds most, of those that hold more than the newcomer
/// will with one more. The newcomer itself may be that one.
pub(super) fn greediest<T>(candidates: impl Iterator<Item = Candidate<T>>, newcomer: Holds) -> Option<T> {
    let gives = |c: &Candidate<T>| match c.kin {
        Kin::Own => true,
        Kin::Group => c.holds.own > newcomer.own + 1,
        Kin::Other => c.holds.group > newcomer.group + 1,
    };
    candidates.filter(gives).max_by_key(|c| c.holds).map(|c| c.of)
}

/// The spare permits of one pod; a permit `P` is given back when it is dropped.
pub(super) struct Spare<P>(Mutex<Inner<P>>);

struct Inner<P> {
    next: u64,
    /// By age: a higher number is younger. A source that has none is not here.
    of: HashMap<Source, BTreeMap<u64, Entry<P>>>,
}

struct Entry<P> {
    permit: P,
    ended: Arc<Notify>,
}

/// A permit that is spare; if it is still here, it is given back when this is dropped.
pub(crate) struct Spared<P> {
    all: Arc<Spare<P>>,
    source: Source,
    number: u64,
}

impl<P> Spare<P> {
    /// None yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner { next: 0, of: HashMap::new() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<P>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `permit`, of `source`; `ended` is notified when it is given to another.
    pub(super) fn add(self: Arc<Self>, permit: P, source: Source, ended: Arc<Notify>) -> Spared<P> {
        let number = {
            let mut inner = self.inner();
            let number = inner.next;
            inner.next += 1;
            inner.of.entry(source.clone()).or_default().insert(number, Entry { permit, ended });
            number
        };
        Spared { all: self, source, number }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inner().of.is_empty()
    }

    /// Drops the oldest permit of the source that `choose` picks among those that have some here. False when it picks none.
    pub(super) fn end_oldest(&self, choose: impl FnOnce(&mut dyn Iterator<Item = &Source>) -> Option<Source>) -> bool {
        let oldest = {
            let mut inner = self.inner();
            choose(&mut inner.of.keys()).and_then(|source| inner.remove(&source, None))
        };
        // The permit is given back without the lock: its share has one of its own.
        oldest.is_some_and(|Entry { permit, ended }| {
            drop(permit);
            ended.notify_one();
            true
        })
    }
}

impl<P> Inner<P> {
    /// Takes the entry of that number out, or the oldest.
    fn remove(&mut self, source: &Source, number: Option<u64>) -> Option<Entry<P>> {
        let entries = self.of.get_mut(source)?;
        let entry = match number {
            Some(number) => entries.remove(&number),
            None => entries.pop_first().map(|(_, entry)| entry),
        };
        if entries.is_empty() {
            self.of.remove(source);
        }
        entry
    }
}

impl<P> Spared<P> {
    /// Takes the permit back. `None` when it was given to another.
    pub(crate) fn take(self) -> Option<P> {
        self.remove().map(|entry| entry.permit)
    }

    fn remove(&self) -> Option<Entry<P>> {
        self.all.inner().remove(&self.source, Some(self.number))
    }
}

impl<P> Drop for Spared<P> {
    fn drop(&mut self) {
        drop(self.remove());
    }
}
