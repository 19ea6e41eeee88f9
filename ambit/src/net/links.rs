//! The wires: a bridge as fabric, a veth to each node, a veth to each pod, and the routes between them.
use super::addressing::{self, Pair};
use crate::sys::namespace;
use anyhow::{Context, Result};
use mesh_netlink::routing::{Route, Routing};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// The interface every node and every pod has.
pub(crate) const ETH0: &str = "eth0";
const BRIDGE: &str = "fabric";

/// Whether this machine has IPv6 at all.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all").exists()
}

fn connect(netns: &OwnedFd) -> Result<Routing> {
    Routing::open_in(netns.as_fd()).context("cannot speak netlink in a network namespace")
}

/// Kernel settings of a namespace, before it gets interfaces that would take the defaults.
fn settle(netns: &OwnedFd, ipv6: bool, forwards: bool) -> Result<()> {
    const V4: [(&str, &str); 2] = [("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/default/rp_filter", "0")];
    // Addresses are ours to give: no neighbour needs to be asked whether it has them, which takes a second each.
    const V6: [(&str, &str); 4] = [
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/dad_transmits", "0"),
        ("ipv6/conf/all/disable_ipv6", "0"),
    ];
    let mut settings = V4.to_vec();
    if ipv6 {
        settings.extend(V6);
    }
    if forwards {
        settings.push(("ipv4/ip_forward", "1"));
        if ipv6 {
            settings.push(("ipv6/conf/all/forwarding", "1"));
        }
    } else {
        // Lets `ping` work without raw sockets; group 0 is the one that always exists.
        settings.push(("ipv4/ping_group_range", "0 0"));
    }
    namespace::in_netns(netns.as_fd(), || {
        for (key, value) in settings {
            let path = format!("/proc/sys/net/{key}");
            std::fs::write(&path, value)
                .map_err(|e| std::io::Error::new(e.kind(), format!("cannot write {value} to {path}: {e}")))?;
        }
        Ok(())
    })
    .context("cannot set the network's kernel settings")
}

/// Both addresses of a pair, or the one of the family that there is.
fn each(pair: Pair, ipv6: bool) -> impl Iterator<Item = IpAddr> {
    [IpAddr::from(pair.v4)].into_iter().chain(ipv6.then_some(pair.v6.into()))
}

fn length(address: IpAddr, (v4, v6): (u8, u8)) -> u8 {
    if address.is_ipv4() { v4 } else { v6 }
}

fn add_addresses(on: &Routing, interface: u32, pair: Pair, lengths: (u8, u8), ipv6: bool) -> Result<()> {
    for address in each(pair, ipv6) {
        on.add_address(interface, address, length(address, lengths))
            .with_context(|| format!("adding the address {address}"))?;
    }
    Ok(())
}

fn add_routes(on: &Routing, interface: u32, to: Pair, lengths: (u8, u8), via: Option<Pair>, ipv6: bool) -> Result<()> {
    for to in each(to, ipv6) {
        let gateway = via.map(|via| if to.is_ipv4() { via.v4.into() } else { via.v6.into() });
        let length = length(to, lengths);
        on.add_route(&Route::to(to, length).over(interface).via(gateway))
            .with_context(|| format!("adding the route to {to}/{length}"))?;
    }
    Ok(())
}

const EVERYWHERE: Pair = Pair { v4: Ipv4Addr::UNSPECIFIED, v6: Ipv6Addr::UNSPECIFIED };
const HOST: (u8, u8) = (32, 128);

fn index_of(on: &Routing, name: &str) -> Result<u32> {
    on.interface(name).with_context(|| format!("looking for interface {name}"))
}

/// The network between nodes.
#[derive(Debug)]
pub(crate) struct Fabric {
    netns: OwnedFd,
    ipv6: bool,
}

impl Fabric {
    /// Makes `netns` the fabric: a bridge with the control plane's address.
    pub(crate) fn make(netns: OwnedFd, ipv6: bool) -> Result<Self> {
        settle(&netns, ipv6, true)?;
        let links = connect(&netns)?;
        links.set_loopback_up().context("cannot bring the loopback up")?;
        links
            .add_bridge(BRIDGE)
            .context("cannot make a bridge; does this kernel have the `bridge` module? (as root: modprobe bridge)")?;
        let bridge = index_of(&links, BRIDGE)?;
        let own = Pair { v4: addressing::FABRIC_V4, v6: addressing::FABRIC_V6 };
        add_addresses(&links, bridge, own, (24, 64), ipv6)?;
        Ok(Fabric { netns, ipv6 })
    }

    /// The fabric's namespace.
    pub(crate) fn netns(&self) -> &OwnedFd {
        &self.netns
    }

    /// Whether there is IPv6.
    pub(crate) fn ipv6(&self) -> bool {
        self.ipv6
    }

    /// Connects node `k`'s namespace to the fabric and tells the fabric where its pods are.
    pub(crate) fn plug_node(&self, k: u8, node: &OwnedFd) -> Result<()> {
        settle(node, self.ipv6, true)?;
        let fabric = connect(&self.netns)?;
        let port = node_port(k);
        let bridge = index_of(&fabric, BRIDGE)?;
        fabric
            .add_veth(&port, ETH0, node.as_fd(), Some(bridge))
            .context("cannot make a veth pair; does this kernel have the `veth` module? (as root: modprobe veth)")?;
        let links = connect(node)?;
        links.set_loopback_up()?;
        let eth0 = index_of(&links, ETH0)?;
        add_addresses(&links, eth0, addressing::node(k), (24, 64), self.ipv6)?;
        links.set_up(eth0)?;
        let own = Pair { v4: addressing::FABRIC_V4, v6: addressing::FABRIC_V6 };
        // The fabric answers "unreachable" for what nobody has, service addresses without endpoints among them.
        add_routes(&links, eth0, EVERYWHERE, (0, 0), Some(own), self.ipv6)?;
        add_routes(&fabric, bridge, addressing::pod_network(k), (24, 64), Some(addressing::node(k)), self.ipv6)
    }

    /// Tells two nodes the way to each other's pods.
    pub(crate) fn introduce(&self, (a, a_ns): (u8, &OwnedFd), (b, b_ns): (u8, &OwnedFd)) -> Result<()> {
        for (from, to) in [(a_ns, b), (b_ns, a)] {
            let links = connect(from)?;
            let eth0 = index_of(&links, ETH0)?;
            add_routes(&links, eth0, addressing::pod_network(to), (24, 64), Some(addressing::node(to)), self.ipv6)?;
        }
        Ok(())
    }

    /// Connects a pod's namespace to its node. `serial` makes the interface's name, unique on the node.
    pub(crate) fn plug_pod(&self, k: u8, node: &OwnedFd, pod: &OwnedFd, address: Pair, serial: u64) -> Result<()> {
        settle(pod, self.ipv6, false)?;
        let links = connect(node)?;
        let port = pod_port(serial);
        links.add_veth(&port, ETH0, pod.as_fd(), None).context("cannot make a veth pair")?;
        let outside = index_of(&links, &port)?;
        let gateway = addressing::gateway(k);
        add_addresses(&links, outside, gateway, HOST, self.ipv6)?;

        let inside = connect(pod)?;
        inside.set_loopback_up()?;
        let eth0 = index_of(&inside, ETH0)?;
        add_addresses(&inside, eth0, address, HOST, self.ipv6)?;
        inside.set_up(eth0)?;
        add_routes(&inside, eth0, gateway, HOST, None, self.ipv6)?;
        add_routes(&inside, eth0, EVERYWHERE, (0, 0), Some(gateway), self.ipv6)?;
        // Last, so that nothing reaches the pod before it can answer.
        add_routes(&links, outside, address, HOST, None, self.ipv6)
    }

    /// Takes a pod's wire away, at once: its address may be somebody else's a moment later.
    pub(crate) fn unplug_pod(&self, node: &OwnedFd, serial: u64) -> Result<()> {
        connect(node)?.remove_interface(&pod_port(serial)).context("cannot remove a pod's veth")
    }
}

/// The fabric's end of node `k`'s wire: where a capture sees everything between nodes.
pub(crate) fn node_port(k: u8) -> String {
    format!("node{k}")
}

fn pod_port(serial: u64) -> String {
    format!("pod{serial}")
}
