//! Services by key, by address and by hostname, and the endpoints of each.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::index::Index;
use crate::address::{NamespacedName, NetworkAddress};
use crate::service::Service;
use crate::workload::Workload;

#[derive(Default, Debug)]
pub(super) struct Services {
    by_key: HashMap<NamespacedName, Arc<Service>>,
    by_address: HashMap<NetworkAddress, Vec<Arc<Service>>>,
    /// Blocks are few: they are searched in turn.
    blocks: Vec<(Arc<str>, IpNet, Arc<Service>)>,
    by_hostname: HashMap<Arc<str>, Vec<Arc<Service>>>,
    /// Kept apart from the services, because a workload may arrive before the services it names.
    endpoints: HashMap<NamespacedName, Endpoints>,
}

/// A list for choosing from, and where each endpoint stands in it by its uid, so that removal does not search.
#[derive(Default, Debug)]
struct Endpoints {
    list: Vec<Arc<Workload>>,
    position: Index,
    edition: Edition,
}

/// What a list of endpoints is told by from what it was before it changed. Equal ones are of the same list, as long as one of them is
/// kept.
#[derive(Clone, Debug, Default)]
pub struct Edition(Arc<()>);

impl PartialEq for Edition {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Endpoints {
    fn add(&mut self, workload: Arc<Workload>) {
        self.edition = Edition::default();
        self.position.insert(&&*workload.uid, self.list.len() as u32);
        self.list.push(workload);
    }

    fn remove(&mut self, uid: &str) {
        let at = |position| self.list.get(position as usize);
        let Some(position) = self.position.find(&uid, |p| at(p).is_some_and(|w| *w.uid == *uid)) else { return };
        self.edition = Edition::default();
        self.position.remove(&uid, position);
        self.list.swap_remove(position as usize);
        if let Some(moved) = self.list.get(position as usize) {
            self.position.renumber(&&*moved.uid, self.list.len() as u32, position);
        }
    }
}

impl Services {
    pub(super) fn by_key(&self, key: &NamespacedName) -> Option<&Arc<Service>> {
        self.by_key.get(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.by_key.values()
    }

    pub(super) fn by_address(&self, network: &str, ip: IpAddr, namespace: &str) -> Option<&Arc<Service>> {
        let exact = self.by_address.get(&NetworkAddress { network: network.into(), ip });
        if let Some(service) = preferred(exact.into_iter().flatten(), namespace) {
            return Some(service);
        }
        // Of the blocks that hold the address: own namespace, then the longer prefix, then the canonical service.
        self.blocks
            .iter()
            .filter(|(n, block, service)| **n == *network && block.contains(&ip) && visible(service, namespace))
            .max_by_key(|(_, block, service)| (*service.namespace == *namespace, block.prefix_len(), service.canonical))
            .map(|(_, _, service)| service)
    }

    pub(super) fn by_hostname(&self, hostname: &str, namespace: &str) -> Option<&Arc<Service>> {
        preferred(self.by_hostname.get(hostname).into_iter().flatten(), namespace)
    }

    pub(super) fn named(&self, hostname: &str, namespace: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.by_hostname.get(hostname).into_iter().flatten().filter(move |service| visible(service, namespace))
    }

    pub(super) fn endpoints(&self, service: &NamespacedName) -> &[Arc<Workload>] {
        self.endpoints.get(service).map_or(&[], |e| &e.list)
    }

    pub(super) fn edition(&self, service: &NamespacedName) -> Option<&Edition> {
        self.endpoints.get(service).map(|endpoints| &endpoints.edition)
    }

    pub(super) fn insert(&mut self, service: Arc<Service>) {
        let key = service.key();
        if self.by_key.get(&key).is_some_and(|old| *old == service) {
            return;
        }
        self.remove(&key);
        for vip in &service.vips {
            match vip.prefix {
                None => self.by_address.entry(vip.address.clone()).or_default().push(service.clone()),
                // The length was checked against the family when the service was decoded.
                Some(length) => {
                    if let Ok(block) = IpNet::new(vip.address.ip, length) {
                        self.blocks.push((vip.address.network.clone(), block, service.clone()));
                    }
                }
            }
        }
        self.by_hostname.entry(service.hostname.clone()).or_default().push(service.clone());
        self.by_key.insert(key, service);
    }

    pub(super) fn remove(&mut self, key: &NamespacedName) {
        let Some(old) = self.by_key.remove(key) else { return };
        let other = |service: &Arc<Service>| !Arc::ptr_eq(service, &old);
        for vip in &old.vips {
            if let Some(list) = self.by_address.get_mut(&vip.address) {
                list.retain(other);
                if list.is_empty() {
                    self.by_address.remove(&vip.address);
                }
            }
        }
        self.blocks.retain(|(_, _, service)| other(service));
        if let Some(list) = self.by_hostname.get_mut(&old.hostname) {
            list.retain(other);
            if list.is_empty() {
                self.by_hostname.remove(&old.hostname);
            }
        }
    }

    /// A workload becomes an endpoint of the services it names.
    pub(super) fn attach(&mut self, workload: &Arc<Workload>) {
        for key in workload.services.keys() {
            self.endpoints.entry(key.clone()).or_default().add(workload.clone());
        }
    }

    /// A workload is no endpoint any more.
    pub(super) fn detach(&mut self, workload: &Workload) {
        for key in workload.services.keys() {
            let Some(endpoints) = self.endpoints.get_mut(key) else { continue };
            endpoints.remove(&workload.uid);
            if endpoints.list.is_empty() {
                self.endpoints.remove(key);
            }
        }
    }
}

fn visible(service: &Service, namespace: &str) -> bool {
    !service.private || *service.namespace == *namespace
}

/// Own namespace, then canonical, then the first.
fn preferred<'a>(services: impl Iterator<Item = &'a Arc<Service>>, namespace: &str) -> Option<&'a Arc<Service>> {
    services.filter(|s| visible(s, namespace)).min_by_key(|s| (*s.namespace != *namespace, !s.canonical))
}
