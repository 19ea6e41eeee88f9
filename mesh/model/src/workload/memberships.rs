//! The services that a workload is an endpoint of.

use std::fmt;
use std::ops::Index;
use std::sync::{Arc, LazyLock, Mutex};

use super::PortMapping;
use crate::address::NamespacedName;
use crate::shared::{self, Shared};

type List = [(NamespacedName, Box<[PortMapping]>)];

static LISTS: Shared<List> = LazyLock::new(Mutex::default);

/// Services that a workload is an endpoint of, each with the workload's own ports for it. A sorted list of which all
/// workloads with the same services hold one copy: it is cheap to clone, and made anew by each change.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Memberships(Arc<List>);

impl Memberships {
    /// The ports for a service, if it is an endpoint of it.
    pub fn get(&self, service: &NamespacedName) -> Option<&[PortMapping]> {
        let position = self.0.binary_search_by(|(key, _)| key.cmp(service)).ok()?;
        self.0.get(position).map(|(_, ports)| &**ports)
    }

    /// Whether it is an endpoint of a service.
    pub fn contains_key(&self, service: &NamespacedName) -> bool {
        self.get(service).is_some()
    }

    /// The services, in order.
    pub fn keys(&self) -> impl Iterator<Item = &NamespacedName> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The services, in order, with the ports for each.
    pub fn iter(&self) -> impl Iterator<Item = (&NamespacedName, &[PortMapping])> {
        self.0.iter().map(|(key, ports)| (key, &**ports))
    }

    /// How many services.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is an endpoint of nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Becomes an endpoint of a service, or one with other ports. For many services, collect them instead.
    pub fn insert(&mut self, service: NamespacedName, ports: Vec<PortMapping>) {
        let mut list = self.0.to_vec();
        list.push((service, ports.into()));
        *self = Self::of(list);
    }

    /// Of one service said twice, the last counts.
    fn of(mut list: Vec<(NamespacedName, Box<[PortMapping]>)>) -> Self {
        list.reverse();
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        list.dedup_by(|(a, _), (b, _)| a == b);
        match list.is_empty() {
            true => Self::default(),
            false => Self(shared::one(&LISTS, &list, |list| list.into())),
        }
    }
}

impl FromIterator<(NamespacedName, Vec<PortMapping>)> for Memberships {
    fn from_iter<I: IntoIterator<Item = (NamespacedName, Vec<PortMapping>)>>(services: I) -> Self {
        Self::of(services.into_iter().map(|(key, ports)| (key, ports.into())).collect())
    }
}

impl<const N: usize> From<[(NamespacedName, Vec<PortMapping>); N]> for Memberships {
    fn from(services: [(NamespacedName, Vec<PortMapping>); N]) -> Self {
        services.into_iter().collect()
    }
}

impl Index<&NamespacedName> for Memberships {
    type Output = [PortMapping];

    /// Panics when it is no endpoint of the service: for tests.
    fn index(&self, service: &NamespacedName) -> &[PortMapping] {
        self.get(service).expect("an endpoint of the service")
    }
}

impl fmt::Debug for Memberships {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::AppProtocol;

    fn port(service_port: u16) -> Vec<PortMapping> {
        vec![PortMapping { service_port, target_port: 1, app_protocol: AppProtocol::Unknown }]
    }

    #[test]
    fn it_is_a_sorted_map() {
        let key = |name: &str| NamespacedName::new("shop", name);
        let mut services: Memberships = [(key("b"), port(1)), (key("a"), port(2)), (key("b"), port(3))].into();
        assert_eq!(services.keys().map(|k| &*k.name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(services[&key("b")], port(3)[..], "the last counts");
        services.insert(key("c"), Vec::new());
        services.insert(key("a"), port(4));
        assert_eq!((services.len(), &services[&key("a")]), (3, &port(4)[..]));
        assert_eq!(services.get(&key("c")), Some(&[][..]));
        assert_eq!(services.get(&key("d")), None);
        assert!(Memberships::default().is_empty());
    }

    #[test]
    fn workloads_with_the_same_services_hold_one_copy() {
        let of = |n| Memberships::from([(NamespacedName::new("memberships", "one"), port(n))]);
        assert!(Arc::ptr_eq(&of(1).0, &of(1).0.clone()) && of(1) == of(1) && of(1) != of(2));
        let held = of(1);
        assert!(Arc::ptr_eq(&held.0, &of(1).0));
    }
}
