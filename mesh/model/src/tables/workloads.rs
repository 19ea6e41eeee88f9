//! Workloads by uid, by address, by pod name and by hostname.

use std::net::IpAddr;
use std::sync::Arc;

use super::index::Index;
use crate::address::NamespacedName;
use crate::workload::{Tunnel, Workload};

#[derive(Default, Debug)]
pub(super) struct Workloads {
    /// The indexes below hold places in this.
    slots: Vec<Option<Slot>>,
    /// Places that are empty.
    free: Vec<u32>,
    by_uid: Index,
    /// By network and address: of several with one address, as around the reuse of a pod's address, the one that was
    /// heard of last is the best of equals.
    by_address: Index,
    /// By namespace and name.
    by_pod: Index,
    /// By namespace and hostname, those that have one: gateways and outside endpoints.
    by_hostname: Index,
    /// Counts those heard of.
    heard: u64,
}

#[derive(Debug)]
struct Slot {
    workload: Arc<Workload>,
    heard: u64,
}

/// More is better.
fn rank(workload: &Workload) -> (bool, bool) {
    (workload.uid.contains("//Pod/"), workload.tunnel == Tunnel::Hbone)
}

impl Workloads {
    fn at(&self, place: u32) -> Option<&Slot> {
        self.slots.get(place as usize)?.as_ref()
    }

    fn place(&self, uid: &str) -> Option<u32> {
        self.by_uid.find(&uid, |place| self.at(place).is_some_and(|slot| *slot.workload.uid == *uid))
    }

    pub(super) fn by_uid(&self, uid: &str) -> Option<&Arc<Workload>> {
        Some(&self.at(self.place(uid)?)?.workload)
    }

    pub(super) fn by_address(&self, network: &str, ip: IpAddr) -> Option<&Arc<Workload>> {
        let owns = |slot: &&Slot| *slot.workload.network == *network && slot.workload.addresses.contains(&ip);
        let mut owners = self.by_address.candidates(&(network, ip)).filter_map(|place| self.at(place)).filter(owns);
        let mut best = owners.next()?;
        for other in owners {
            // Of equals the newer: when a pod's address is used again, the newer pod is the one that answers.
            if (rank(&other.workload), other.heard) > (rank(&best.workload), best.heard) {
                best = other;
            }
        }
        Some(&best.workload)
    }

    pub(super) fn by_pod(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_pod
            .candidates(&(namespace, name))
            .filter_map(|place| Some(&self.at(place)?.workload))
            .filter(move |w| *w.namespace == *namespace && *w.name == *name)
    }

    pub(super) fn by_hostname(&self, key: &NamespacedName) -> Option<&Arc<Workload>> {
        let named = |w: &&Arc<Workload>| w.namespace == key.namespace && w.hostname == key.name;
        let found = self.by_hostname.candidates(&(&*key.namespace, &*key.name));
        found.filter_map(|place| Some(&self.at(place)?.workload)).find(named)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.slots.iter().flatten().map(|slot| &slot.workload)
    }

    /// The uid must not be in the table.
    pub(super) fn insert(&mut self, workload: Arc<Workload>) {
        let place = self.free.pop().unwrap_or(self.slots.len() as u32);
        self.by_uid.insert(&&*workload.uid, place);
        for ip in addresses(&workload) {
            self.by_address.insert(&(&*workload.network, *ip), place);
        }
        self.by_pod.insert(&(&*workload.namespace, &*workload.name), place);
        if !workload.hostname.is_empty() {
            self.by_hostname.insert(&(&*workload.namespace, &*workload.hostname), place);
        }
        self.heard += 1;
        let slot = Some(Slot { workload, heard: self.heard });
        match self.slots.get_mut(place as usize) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
    }

    pub(super) fn remove(&mut self, uid: &str) -> Option<Arc<Workload>> {
        let place = self.place(uid)?;
        let old = self.slots.get_mut(place as usize)?.take()?.workload;
        self.by_uid.remove(&uid, place);
        for ip in addresses(&old) {
            self.by_address.remove(&(&*old.network, *ip), place);
        }
        self.by_pod.remove(&(&*old.namespace, &*old.name), place);
        if !old.hostname.is_empty() {
            self.by_hostname.remove(&(&*old.namespace, &*old.hostname), place);
        }
        self.free.push(place);
        if self.free.len() == self.slots.len() {
            *self = Self::default();
        }
        Some(old)
    }
}

/// The addresses it is found by: none on the node's own network, which it shares with others.
fn addresses(workload: &Workload) -> &[IpAddr] {
    if workload.host_network { &[] } else { &workload.addresses }
}
