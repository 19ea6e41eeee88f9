//! Workloads by uid, by address and by pod name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::NetworkAddress;
use crate::workload::{Tunnel, Workload};

#[derive(Default, Debug)]
pub(super) struct Workloads {
    by_uid: HashMap<Arc<str>, Arc<Workload>>,
    /// Best first; more than one only when addresses collide, as around the reuse of a pod's address.
    by_address: HashMap<NetworkAddress, Vec<Arc<Workload>>>,
    /// By namespace, then name.
    by_pod: HashMap<Arc<str>, ByName>,
}

/// Pods of one namespace.
type ByName = HashMap<Arc<str>, Vec<Arc<Workload>>>;

/// Lower is better.
fn rank(workload: &Workload) -> u8 {
    let pod = workload.uid.contains("//Pod/");
    match (pod, workload.tunnel == Tunnel::Hbone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, true) => 2,
        (false, false) => 3,
    }
}

impl Workloads {
    pub(super) fn by_uid(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.by_uid.get(uid)
    }

    pub(super) fn by_address(&self, network: &str, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.by_address.get(&NetworkAddress { network: network.into(), ip })?.first()
    }

    pub(super) fn by_pod(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_pod.get(namespace).and_then(|names| names.get(name)).into_iter().flatten()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_uid.values()
    }

    /// The uid must not be in the table.
    pub(super) fn insert(&mut self, workload: Arc<Workload>) {
        for address in addresses(&workload) {
            let owners = self.by_address.entry(address).or_default();
            // Before its equals: when a pod's address is used again, the newer pod is the one that answers.
            let position = owners.partition_point(|other| rank(other) < rank(&workload));
            owners.insert(position, workload.clone());
        }
        self.by_pod
            .entry(workload.namespace.clone())
            .or_default()
            .entry(workload.name.clone())
            .or_default()
            .push(workload.clone());
        self.by_uid.insert(workload.uid.clone(), workload);
    }

    pub(super) fn remove(&mut self, uid: &str) -> Option<Arc<Workload>> {
        let old = self.by_uid.remove(uid)?;
        for address in addresses(&old) {
            if let Some(owners) = self.by_address.get_mut(&address) {
                owners.retain(|w| w.uid != old.uid);
                if owners.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
        if let Some(names) = self.by_pod.get_mut(&old.namespace) {
            if let Some(pods) = names.get_mut(&old.name) {
                pods.retain(|w| w.uid != old.uid);
                if pods.is_empty() {
                    names.remove(&old.name);
                }
            }
            if names.is_empty() {
                self.by_pod.remove(&old.namespace);
            }
        }
        Some(old)
    }
}

/// The addresses it is found by: none on the node's own network, which it shares with others.
fn addresses(workload: &Workload) -> impl Iterator<Item = NetworkAddress> + '_ {
    let own = if workload.host_network { &[][..] } else { &workload.addresses[..] };
    own.iter().map(|ip| NetworkAddress { network: workload.network.clone(), ip: *ip })
}
