//! The wires: a bridge on the machine of the control plane, a veth to each node, and routes to the pods of each.
use super::machine::Machine;
use anyhow::{Context, Result};
use mesh_netlink::routing::{Route, Routing};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;

/// The control plane's address.
pub const CONTROL: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);
/// The addresses of all pods.
pub const PODS: &str = "10.244.0.0/16";
/// The bridge that carries everything between nodes.
pub const BRIDGE: &str = "fabric";
const ETH0: &str = "eth0";
const SUBNET: u8 = 16;

/// The address of a node, by its number from 1.
pub fn node(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 18, 0, 10 + number)
}

/// The first address of a node's pods; they have 256.
pub fn pods(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, number, 0)
}

/// Makes the bridge.
pub(super) fn lay(control: &Machine) -> Result<()> {
    settle(control)?;
    let routing = open(control)?;
    routing.add_bridge(BRIDGE).context("cannot make a bridge")?;
    routing.add_address(routing.interface(BRIDGE)?, CONTROL.into(), SUBNET).context("cannot give it an address")
}

/// Connects a node to the bridge, and lets everybody reach its pods. `others` are the numbers of the nodes before it.
pub(super) fn connect(control: &Machine, node: &Machine, number: u8, others: &[(u8, &Machine)]) -> Result<()> {
    settle(node)?;
    let (fabric, own) = (open(control)?, open(node)?);
    let bridge = fabric.interface(BRIDGE)?;
    fabric.add_veth(node.name(), ETH0, node.netns()?.as_fd(), Some(bridge)).context("cannot make a veth")?;
    let eth0 = own.interface(ETH0)?;
    own.set_up(eth0)?;
    own.add_address(eth0, self::node(number).into(), SUBNET)?;
    // There is nothing out there; but programs look for the default route to learn which address is theirs.
    own.add_route(&Route::to(Ipv4Addr::UNSPECIFIED.into(), 0).over(eth0).via(Some(CONTROL.into())))?;
    reach(&fabric, number)?;
    for (other, machine) in others {
        reach(&own, *other)?;
        reach(&open(machine)?, number)?;
    }
    Ok(())
}

/// Lets a machine reach the pods of a node.
fn reach(from: &Routing, number: u8) -> Result<()> {
    let gateway: IpAddr = node(number).into();
    from.add_route(&Route::to(pods(number).into(), 24).via(Some(gateway)))
        .with_context(|| format!("cannot route to the pods of node {number}"))
}

fn open(machine: &Machine) -> Result<Routing> {
    Routing::open_in(machine.netns()?.as_fd()).with_context(|| format!("no netlink in {}", machine.name()))
}

fn settle(machine: &Machine) -> Result<()> {
    open(machine)?.set_loopback_up()?;
    let set = "echo 1 >/proc/sys/net/ipv4/ip_forward; for each in all default; do \
               echo 0 >/proc/sys/net/ipv4/conf/$each/rp_filter; done";
    machine.run(&["sh", "-ec", set])?.good().map(drop)
}
