//! What kube-proxy does, for traffic the mesh has not captured: on each node, a service address is translated to one of
//! its endpoints, at random or the one that the client keeps to.
use super::services::{Frontend, Protocol};
use anyhow::{Context, Result};
use mesh_netlink::nftables::{Base, ChainType, End, Hook, Nftables, Operator, Rule, Transaction, Transport, priority};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

const TABLE: &str = "ambit-services";
const SERVICES: &str = "services";
const HAIRPIN: &str = "postrouting";

/// Replaces all translations of a node in one transaction: no packet sees half of them.
pub(crate) fn apply(node: &OwnedFd, frontends: &[Frontend]) -> Result<()> {
    let nft = Nftables::open_in(node.as_fd()).context("cannot speak nftables")?;
    nft.commit(plan(frontends)?).context(
        "cannot program service addresses; does this kernel have nftables with nat? (as root: modprobe nft_nat)",
    )
}

fn plan(frontends: &[Frontend]) -> Result<Transaction> {
    let mut change = Transaction::new().remove_table(TABLE).add_table(TABLE).add_chain(TABLE, SERVICES);
    let nat = |hook, priority| Base { kind: ChainType::Nat, hook, priority };
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        change = change.add_base_chain(TABLE, name, nat(hook, priority::DSTNAT));
        change = change.add_rule(TABLE, name, &Rule::new().jump(SERVICES));
    }
    change = change.add_base_chain(TABLE, HAIRPIN, nat(Hook::Postrouting, priority::SRCNAT));
    for frontend in frontends {
        for (client, backend) in &frontend.kept {
            let rule = to_frontend(frontend).address(End::Source, Operator::Equal, *client);
            change = change.add_rule(TABLE, SERVICES, &rule.dnat(backend.0, backend.1));
        }
        let total = frontend.backends.len();
        for (position, backend) in frontend.backends.iter().enumerate() {
            let remaining = u32::try_from(total - position)?;
            let mut rule = to_frontend(frontend);
            if remaining > 1 {
                // Each rule takes its fair share of what reached it; the last takes the rest.
                rule = rule.one_in(remaining);
            }
            change = change.add_rule(TABLE, SERVICES, &rule.dnat(backend.0, backend.1));
        }
    }
    let mut endpoints: Vec<IpAddr> = frontends.iter().flat_map(|f| f.backends.iter().map(|b| b.0)).collect();
    endpoints.sort();
    endpoints.dedup();
    for endpoint in endpoints {
        // A pod that reaches itself through a service would not accept packets from its own address.
        let itself = Rule::new().address(End::Source, Operator::Equal, endpoint);
        let itself = itself.address(End::Destination, Operator::Equal, endpoint);
        change = change.add_rule(TABLE, HAIRPIN, &itself.masquerade());
    }
    Ok(change)
}

fn to_frontend(frontend: &Frontend) -> Rule {
    let protocol = match frontend.protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    };
    let rule = Rule::new().address(End::Destination, Operator::Equal, frontend.address);
    rule.port(protocol, End::Destination, Operator::Equal, frontend.port)
}
