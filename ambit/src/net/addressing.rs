//! Which address everything has.
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// The fabric's own address; istiod-lite listens there.
pub(crate) const FABRIC_V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// The fabric's own IPv6 address.
pub(crate) const FABRIC_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, 1);
/// More nodes than this do not fit the fabric's network.
pub(crate) const MOST_NODES: u8 = 200;

/// An IPv4 address and its IPv6 twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Pair {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

impl Pair {
    /// Both, IPv4 first; one where the machine has no IPv6.
    pub(crate) fn list(self, ipv6: bool) -> Vec<IpAddr> {
        if ipv6 { vec![self.v4.into(), self.v6.into()] } else { vec![self.v4.into()] }
    }
}

/// Node `k`'s address on the fabric; nodes count from 1.
pub(crate) fn node(k: u8) -> Pair {
    Pair {
        v4: Ipv4Addr::new(172, 30, 0, 10 + k),
        v6: Ipv6Addr::new(0xfd00, 0x172, 0x30, 0, 0, 0, 0, 0x10 + u16::from(k)),
    }
}

/// The gateway node `k` is to its pods.
pub(crate) fn gateway(k: u8) -> Pair {
    pod(k, 1)
}

/// The network of node `k`'s pods: its addresses, to be used with lengths 24 and 64.
pub(crate) fn pod_network(k: u8) -> Pair {
    pod(k, 0)
}

fn pod(k: u8, host: u8) -> Pair {
    Pair {
        v4: Ipv4Addr::new(10, 244, k, host),
        v6: Ipv6Addr::new(0xfd00, 0x10, 0x244, u16::from(k), 0, 0, 0, u16::from(host)),
    }
}

/// Why there is no address to give.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum NoAddress {
    #[error("node {node} already has all {POD_HOSTS} pods its network has addresses for")]
    PodsFull { node: u8 },
    #[error("all {SERVICE_HOSTS} service addresses are in use")]
    ServicesFull,
    #[error("{address} is not an address of node {node}'s pods; take one of 10.244.{node}.2 to 10.244.{node}.254")]
    NotOnNode { address: IpAddr, node: u8 },
    #[error("{address} is in use by another pod")]
    Taken { address: IpAddr },
    #[error("annotation {FIXED_IP}: `{text}` is not an IP address")]
    NotAnAddress { text: String },
}

/// The first host number that is a pod's; the one before is the gateway's.
const FIRST_HOST: u8 = 2;
const POD_HOSTS: u8 = 253;
const SERVICE_HOSTS: u16 = 65_000;

/// Annotation on a Pod: it must have this address, and this IPv6 address if there is a second.
pub(crate) const FIXED_IP: &str = "ambit.dev/pod-ip";

/// Addresses of one node's pods. An address given back is given out again only after all others.
#[derive(Debug)]
pub(crate) struct PodPool {
    node: u8,
    /// Where the next search begins, counted from the first address.
    turn: u8,
    taken: BTreeSet<u8>,
}

impl PodPool {
    /// The pool of node `k`.
    pub(crate) fn new(k: u8) -> Self {
        PodPool { node: k, turn: 0, taken: BTreeSet::new() }
    }

    /// An address for a new pod: `wanted` (the annotation's text), or the next in turn.
    pub(crate) fn take(&mut self, wanted: Option<&str>) -> Result<Pair, NoAddress> {
        let host = match wanted {
            Some(text) => return self.take_wanted(text),
            None => self.next().ok_or(NoAddress::PodsFull { node: self.node })?,
        };
        self.turn = (host - FIRST_HOST + 1) % POD_HOSTS;
        self.taken.insert(host);
        Ok(pod(self.node, host))
    }

    /// Gives a pod's address back.
    pub(crate) fn give_back(&mut self, pair: Pair) {
        self.taken.remove(&pair.v4.octets()[3]);
    }

    fn next(&self) -> Option<u8> {
        (self.turn..POD_HOSTS).chain(0..self.turn).map(|n| FIRST_HOST + n).find(|host| !self.taken.contains(host))
    }

    fn take_wanted(&mut self, text: &str) -> Result<Pair, NoAddress> {
        let mut pair = None;
        for part in text.split(',') {
            let address: IpAddr =
                part.trim().parse().map_err(|_| NoAddress::NotAnAddress { text: part.trim().to_owned() })?;
            let outside = NoAddress::NotOnNode { address, node: self.node };
            let host = match address {
                IpAddr::V4(v4) => v4.octets()[3],
                IpAddr::V6(v6) => u8::try_from(v6.segments()[7]).map_err(|_| outside_of(address, self.node))?,
            };
            let candidate = pod(self.node, host);
            if !(FIRST_HOST..FIRST_HOST + POD_HOSTS).contains(&host)
                || (address != candidate.v4 && address != candidate.v6)
            {
                return Err(outside);
            }
            if self.taken.contains(&host) {
                return Err(NoAddress::Taken { address });
            }
            pair.get_or_insert(candidate);
        }
        let pair = pair.ok_or_else(|| NoAddress::NotAnAddress { text: text.to_owned() })?;
        self.taken.insert(pair.v4.octets()[3]);
        Ok(pair)
    }
}

fn outside_of(address: IpAddr, node: u8) -> NoAddress {
    NoAddress::NotOnNode { address, node }
}

/// Cluster addresses of services.
#[derive(Debug, Default)]
pub(crate) struct ServicePool {
    last: u16,
    taken: BTreeSet<IpAddr>,
}

impl ServicePool {
    /// Marks addresses the user chose, so that they are not given to another service.
    pub(crate) fn reserve(&mut self, address: IpAddr) {
        self.taken.insert(address);
    }

    /// The next free address and its twin.
    pub(crate) fn take(&mut self) -> Result<Pair, NoAddress> {
        for _ in 0..SERVICE_HOSTS {
            self.last = if self.last >= SERVICE_HOSTS { 1 } else { self.last + 1 };
            let [high, low] = self.last.to_be_bytes();
            let pair = Pair {
                v4: Ipv4Addr::new(10, 96, high, low),
                v6: Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, self.last),
            };
            if !self.taken.contains(&pair.v4.into()) && !self.taken.contains(&pair.v6.into()) {
                self.taken.insert(pair.v4.into());
                self.taken.insert(pair.v6.into());
                return Ok(pair);
            }
        }
        Err(NoAddress::ServicesFull)
    }

    /// Gives an address back.
    pub(crate) fn give_back(&mut self, address: IpAddr) {
        self.taken.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_not_reused_at_once() {
        let mut pool = PodPool::new(1);
        let first = pool.take(None).unwrap();
        assert_eq!(first.v4, Ipv4Addr::new(10, 244, 1, 2));
        assert_eq!(first.v6, "fd00:10:244:1::2".parse::<Ipv6Addr>().unwrap());
        pool.give_back(first);
        assert_eq!(pool.take(None).unwrap().v4, Ipv4Addr::new(10, 244, 1, 3));
    }

    #[test]
    fn a_full_pool_says_so_and_wraps_when_it_can() {
        let mut pool = PodPool::new(2);
        let all: Vec<Pair> = (0..POD_HOSTS).map(|_| pool.take(None).unwrap()).collect();
        assert_eq!(all.last().unwrap().v4, Ipv4Addr::new(10, 244, 2, 254));
        assert_eq!(pool.take(None), Err(NoAddress::PodsFull { node: 2 }));
        pool.give_back(all[7]);
        assert_eq!(pool.take(None), Ok(all[7]));
    }

    #[test]
    fn wanted_addresses() {
        let cases = [
            ("10.244.1.9", Ok(9)),
            ("10.244.1.10, fd00:10:244:1::a", Ok(10)),
            ("fd00:10:244:1::b", Ok(11)),
            (
                "10.244.2.9",
                Err("10.244.2.9 is not an address of node 1's pods; take one of 10.244.1.2 to 10.244.1.254"),
            ),
            (
                "10.244.1.1",
                Err("10.244.1.1 is not an address of node 1's pods; take one of 10.244.1.2 to 10.244.1.254"),
            ),
            ("10.244.1.9", Err("10.244.1.9 is in use by another pod")),
            ("nine", Err("annotation ambit.dev/pod-ip: `nine` is not an IP address")),
        ];
        let mut pool = PodPool::new(1);
        for (text, expected) in cases {
            let got = pool.take(Some(text)).map(|p| p.v4.octets()[3]).map_err(|e| e.to_string());
            assert_eq!(got, expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn services_avoid_reserved_addresses() {
        let mut pool = ServicePool::default();
        pool.reserve("10.96.0.1".parse().unwrap());
        assert_eq!(pool.take().unwrap().v4, Ipv4Addr::new(10, 96, 0, 2));
    }
}
