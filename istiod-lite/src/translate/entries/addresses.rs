//! Addresses of hosts that were given none (Istio's `PILOT_ENABLE_IP_AUTOALLOCATE`). Pure.
//!
//! What an object's `status.addresses` says stays; where two say the same address, the older object keeps it. A host without an
//! address takes the one that its namespace and name hash to, or the next that is free: so it has the same one after a restart
//! where nobody writes a status, as in a folder, unless two hosts hash to one address and the older of them came or went.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest::{SHA256, digest};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mesh_model::address::NamespacedName;
use mesh_model::labels;

use crate::resources::labels::Labelled;
use crate::resources::service_entry::{HostAddress, Resolution, block};
use crate::resources::{ServiceEntry, host};

/// Where addresses are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    /// `PILOT_IP_AUTOALLOCATE_IPV4_PREFIX`.
    pub ipv4: Ipv4Net,
    /// `PILOT_IP_AUTOALLOCATE_IPV6_PREFIX`.
    pub ipv6: Ipv6Net,
}

impl Default for Pools {
    /// `240.240.0.0/16` and `2001:2::/48`, as Istio has them.
    fn default() -> Self {
        Self {
            ipv4: Ipv4Net::new_assert(Ipv4Addr::new(240, 240, 0, 0), 16),
            ipv6: Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0), 48),
        }
    }
}

/// What one object gets.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Allocated<'a> {
    /// By host, as it is written; IPv4 first.
    pub(super) by_host: HashMap<&'a str, Vec<IpAddr>>,
    /// What its status has to say, if that is something else.
    pub(super) to_write: Option<Vec<HostAddress>>,
}

/// The hosts of an object that addresses are allocated to.
pub(super) fn hosts(object: &ServiceEntry) -> BTreeSet<&str> {
    let spec = &object.spec;
    let refused =
        object.metadata.label(labels::ENABLE_AUTOALLOCATE_IP).is_some_and(|l| l.eq_ignore_ascii_case("false"));
    if refused || !spec.addresses.is_empty() || spec.resolution == Resolution::None {
        return BTreeSet::new();
    }
    // An address of a wildcard does not say which name was asked for.
    let one = |host: &&str| spec.resolution == Resolution::DynamicDns || !host::is_wildcard(host);
    spec.hosts.iter().map(String::as_str).filter(one).collect()
}

/// What every object gets. They come oldest first, each with whether it is for this control plane; of the others, what they have
/// is nobody else's.
pub(super) fn allocate<'a>(
    objects: impl Iterator<Item = (&'a NamespacedName, &'a ServiceEntry, bool)>,
    pools: Option<Pools>,
) -> HashMap<NamespacedName, Allocated<'a>> {
    let Some(pools) = pools else { return HashMap::new() };
    let objects: Vec<_> = objects.collect();
    let mut taken = Taken::default();
    for address in objects.iter().flat_map(|(_, object, _)| &object.spec.addresses).filter_map(|text| block(text)) {
        taken.given(address, pools);
    }
    let mut all: HashMap<NamespacedName, Allocated<'a>> = HashMap::new();
    for (key, object, _) in &objects {
        let asking = hosts(object);
        let of_object = all.entry((*key).clone()).or_default();
        for HostAddress { value, host } in &object.status.addresses {
            if let Some(host) = asking.get(host.as_str()).filter(|_| taken.take(*value)) {
                of_object.by_host.entry(host).or_default().push(*value);
            }
        }
    }
    for (key, object, ours) in objects {
        let (asking, of_object) = (hosts(object), all.entry(key.clone()).or_default());
        if !ours {
            continue;
        }
        for host in &asking {
            let has = of_object.by_host.entry(host).or_default();
            for pool in [IpNet::V4(pools.ipv4), IpNet::V6(pools.ipv6)] {
                if !has.iter().any(|ip| ip.is_ipv4() == pool.addr().is_ipv4()) {
                    has.extend(taken.next(pool, key, host));
                }
            }
            has.sort_unstable();
        }
        // In the order of the spec, each host once.
        let mut seen = HashSet::new();
        let written = object.spec.hosts.iter().filter(|host| asking.contains(host.as_str()) && seen.insert(*host));
        let of_host =
            |host: &'a String| of_object.by_host.get(host.as_str()).into_iter().flatten().map(move |ip| (host, *ip));
        let wanted = written.flat_map(of_host).map(|(host, value)| HostAddress { value, host: host.clone() });
        let wanted: Vec<_> = wanted.collect();
        of_object.to_write = (wanted != object.status.addresses).then_some(wanted);
    }
    all
}

/// Addresses that somebody has.
#[derive(Default)]
struct Taken {
    single: HashSet<IpAddr>,
    /// Blocks that users gave and that are in the way: few.
    blocks: Vec<IpNet>,
}

impl Taken {
    fn given(&mut self, block: IpNet, pools: Pools) {
        let overlaps = |pool: &IpNet| pool.contains(&block) || block.contains(pool);
        if block.prefix_len() == block.max_prefix_len() {
            self.single.insert(block.addr());
        } else if [IpNet::V4(pools.ipv4), IpNet::V6(pools.ipv6)].iter().any(overlaps) {
            self.blocks.push(block);
        }
    }

    /// Whether nobody has had it.
    fn take(&mut self, ip: IpAddr) -> bool {
        !self.blocks.iter().any(|block| block.contains(&ip)) && self.single.insert(ip)
    }

    /// A free one; none where a pool has no more.
    fn next(&mut self, pool: IpNet, key: &NamespacedName, host: &str) -> Option<IpAddr> {
        let bits = u32::from(pool.max_prefix_len() - pool.prefix_len());
        // Neither the first address of the pool nor the last. Of a pool that is larger, a part is enough.
        let usable = (1_u128 << bits.min(64)).checked_sub(2).filter(|usable| *usable > 0)?;
        let hash = digest(&SHA256, format!("{}/{host}", key.namespace).as_bytes());
        let hash: u128 = hash.as_ref().iter().take(8).fold(0, |sum, byte| sum << 8 | u128::from(*byte));
        let at = |offset: u128| match pool.network() {
            IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() | u32::try_from(offset).unwrap_or(0))),
            IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits() | offset)),
        };
        // As many as this cannot all be taken, but by a block.
        let tries = usable.min(1 << 20);
        (0..tries).map(|step| at(1 + (hash + step) % usable)).find(|ip| self.take(*ip))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::resources::{Kind, Object};

    fn entry(name: &str, spec: Value, said: &[(&str, &str)]) -> (NamespacedName, ServiceEntry) {
        let said: Vec<Value> = said.iter().map(|(host, value)| json!({"host": host, "value": value})).collect();
        let value =
            json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec, "status": {"addresses": said}});
        let Object::ServiceEntry(entry) = Object::from_value(Kind::ServiceEntry, &value).unwrap() else { panic!() };
        (NamespacedName::new("shop", name), (*entry).clone())
    }

    fn dns(host: &str) -> Value {
        json!({"hosts": [host], "resolution": "DNS"})
    }

    /// Each host's addresses, and whether something is to be written.
    fn of(entries: &[(NamespacedName, ServiceEntry)], pools: Pools) -> Vec<(String, Vec<String>, bool)> {
        let objects = entries.iter().map(|(key, object)| (key, object, true));
        let all = allocate(objects, Some(pools));
        let one = |(key, object): &(NamespacedName, ServiceEntry)| {
            let found = &all[key];
            let of_host = |host: &String| {
                let ips = found.by_host.get(host.as_str()).into_iter().flatten().map(ToString::to_string).collect();
                (host.clone(), ips, found.to_write.is_some())
            };
            object.spec.hosts.iter().map(of_host).collect::<Vec<_>>()
        };
        entries.iter().flat_map(one).collect()
    }

    #[test]
    fn who_gets_some() {
        let static_ = |more: Value| {
            let mut spec = json!({"hosts": ["a.com", "b.com"], "resolution": "STATIC"});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        for (spec, expected) in [
            (static_(json!({})), 4),
            (static_(json!({"hosts": ["a.com", "a.com", "*.a.com"]})), 2),
            (static_(json!({"addresses": ["10.0.0.1"]})), 0),
            (static_(json!({"resolution": "NONE"})), 0),
            (json!({"hosts": ["*.a.com"], "resolution": "DYNAMIC_DNS"}), 2),
        ] {
            let (key, object) = entry("e", spec.clone(), &[]);
            let all = allocate([(&key, &object, true)].into_iter(), Some(Pools::default()));
            let written = all[&key].to_write.as_deref().map_or(0, <[_]>::len);
            assert_eq!(written, expected, "{spec}");
            // Said, there is nothing more to say.
            let mut said = object.clone();
            said.status.addresses = all[&key].to_write.clone().unwrap_or_default();
            let again = allocate([(&key, &said, true)].into_iter(), Some(Pools::default()));
            assert_eq!((&again[&key].by_host, &again[&key].to_write), (&all[&key].by_host, &None), "{spec}");
            let others = allocate([(&key, &object, false)].into_iter(), Some(Pools::default()));
            assert!(others[&key].by_host.is_empty() && others[&key].to_write.is_none(), "another control plane's");
        }
        let (key, mut object) = entry("e", dns("a.com"), &[("a.com", "240.240.0.1")]);
        object.metadata.labels = Some([(labels::ENABLE_AUTOALLOCATE_IP.to_owned(), "False".to_owned())].into());
        let all = allocate([(&key, &object, true)].into_iter(), Some(Pools::default()));
        assert_eq!(all[&key].to_write.as_deref(), Some(&[][..]), "what was allocated is taken away");
        assert!(allocate([(&key, &object, true)].into_iter(), None).is_empty());
    }

    #[test]
    fn what_is_said_stays_and_nobody_has_what_another_has() {
        let a = entry("a", dns("a.com"), &[("a.com", "240.240.7.7"), ("a.com", "2001:2::7")]);
        let b = entry("b", dns("b.com"), &[("b.com", "240.240.7.7"), ("old.com", "240.240.9.9")]);
        let given = entry("g", json!({"hosts": ["g.com"], "addresses": ["240.240.8.8"], "resolution": "STATIC"}), &[]);
        let c = entry("c", dns("c.com"), &[("c.com", "240.240.8.8"), ("c.com", "2001:2::8")]);
        let found = of(&[a.clone(), b, given, c], Pools::default());
        assert_eq!(found[0], ("a.com".into(), vec!["240.240.7.7".into(), "2001:2::7".into()], false));
        assert!(found[1].2 && found[1].1.len() == 2 && found[1].1[0] != "240.240.7.7", "{found:?}");
        assert_eq!((found[2].1.len(), found[2].2), (0, false));
        assert!(
            found[3].1[0] != "240.240.8.8" && found[3].1[1] == "2001:2::8",
            "what a user gave is the user's: {found:?}"
        );
        // The same whoever else is there.
        let alone = of(&[entry("x", dns("b.com"), &[])], Pools::default());
        assert_eq!(alone[0].1, found[1].1);
    }

    #[test]
    fn a_pool_may_be_used_up() {
        let pools = Pools { ipv4: "198.18.0.0/29".parse().unwrap(), ipv6: "fd00::/127".parse().unwrap() };
        let entries: Vec<_> = (0..8).map(|i| entry(&format!("e{i}"), dns(&format!("{i}.com")), &[])).collect();
        let found = of(&entries, pools);
        let ips: HashSet<_> = found.iter().flat_map(|(_, ips, _)| ips).collect();
        assert_eq!(ips.len(), 6, "none twice, neither the first nor the last: {found:?}");
        assert_eq!(found.iter().filter(|(_, ips, _)| ips.is_empty()).count(), 2);
        let many: Vec<_> = (0..3000).map(|i| entry(&format!("e{i}"), dns(&format!("{i}.com")), &[])).collect();
        let found = of(&many, Pools::default());
        let ips: HashSet<_> = found.iter().flat_map(|(_, ips, _)| ips).collect();
        assert_eq!(ips.len(), 6000);
    }
}
