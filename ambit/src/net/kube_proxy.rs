//! What kube-proxy does, for traffic the mesh has not captured: on each node, a service address is translated to one of
//! its endpoints, at random or the one that the client keeps to.
use super::services::{Frontend, Protocol};
use anyhow::{Context, Result};
use nlink::netlink::nftables::{
    BaseChain, Chain, CmpOp, Expr, Family, Field, Match, NatHook, NumgenKind, Priority, Register, Rule, Transaction,
};
use nlink::netlink::{Connection, Nftables};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

const TABLE: &str = "ambit-services";
const SERVICES: &str = "services";
const HAIRPIN: &str = "postrouting";

/// Replaces all translations of a node in one transaction: no packet sees half of them.
pub(crate) async fn apply(node: &OwnedFd, frontends: &[Frontend]) -> Result<()> {
    let nft = Connection::<Nftables>::new_in(node.as_fd()).context(
        "cannot speak nftables; does this kernel have the `nf_tables` module? (as root: modprobe nf_tables)",
    )?;
    let exists = nft.list_tables().await.context("cannot list nftables")?.iter().any(|t| t.name == TABLE);
    let mut change = nft.transaction();
    if exists {
        change = change.del_table(TABLE, Family::Inet);
    }
    plan(change.add_table(TABLE, Family::Inet), frontends)?
        .commit(&nft)
        .await
        .context("cannot program service addresses (nftables)")
}

fn plan(mut change: Transaction, frontends: &[Frontend]) -> Result<Transaction> {
    change = change.add_chain(Chain::new(TABLE, SERVICES)?.family(Family::Inet));
    for (name, hook) in [("prerouting", NatHook::Prerouting), ("output", NatHook::Output)] {
        change = change
            .add_chain(Chain::new(TABLE, name)?.family(Family::Inet).base(BaseChain::nat(hook, Priority::DstNat)))
            .add_rule(Rule::new(TABLE, name).try_jump(SERVICES)?);
    }
    change = change.add_chain(
        Chain::new(TABLE, HAIRPIN)?.family(Family::Inet).base(BaseChain::nat(NatHook::Postrouting, Priority::SrcNat)),
    );
    for frontend in frontends {
        for (client, backend) in &frontend.kept {
            let rule = to_frontend(Rule::new(TABLE, SERVICES), frontend);
            let rule = match client {
                IpAddr::V4(v4) => rule.match_saddr_v4(*v4, 32),
                IpAddr::V6(v6) => rule.match_saddr_v6(*v6, 128),
            };
            change = change.add_rule(translate(rule, backend));
        }
        let total = frontend.backends.len();
        for (position, backend) in frontend.backends.iter().enumerate() {
            let remaining = u32::try_from(total - position)?;
            let mut rule = to_frontend(Rule::new(TABLE, SERVICES), frontend);
            if remaining > 1 {
                // Each rule takes its fair share of what reached it; the last takes the rest.
                rule = rule
                    .then(Expr::Numgen { dreg: Register::R0, kind: NumgenKind::Random, modulus: remaining, offset: 0 })
                    .then(Expr::Cmp { sreg: Register::R0, op: CmpOp::Eq, data: 0u32.to_ne_bytes().to_vec() });
            }
            change = change.add_rule(translate(rule, backend));
        }
    }
    let mut endpoints: Vec<IpAddr> = frontends.iter().flat_map(|f| f.backends.iter().map(|b| b.0)).collect();
    endpoints.sort();
    endpoints.dedup();
    for endpoint in endpoints {
        // A pod that reaches itself through a service would not accept packets from its own address.
        let rule = Rule::new(TABLE, HAIRPIN);
        change = change.add_rule(match endpoint {
            IpAddr::V4(v4) => rule.match_saddr_v4(v4, 32).match_daddr_v4(v4, 32).masquerade(),
            IpAddr::V6(v6) => rule.match_saddr_v6(v6, 128).match_daddr_v6(v6, 128).masquerade(),
        });
    }
    Ok(change)
}

fn translate(rule: Rule, (address, port): &(IpAddr, u16)) -> Rule {
    match address {
        IpAddr::V4(v4) => rule.dnat(*v4, Some(*port)),
        IpAddr::V6(v6) => rule.dnat_v6(*v6, Some(*port)),
    }
}

fn to_frontend(rule: Rule, frontend: &Frontend) -> Rule {
    let rule = match frontend.address {
        IpAddr::V4(v4) => rule.match_daddr_v4(v4, 32),
        IpAddr::V6(v6) => rule.match_daddr_v6(v6, 128),
    };
    let field = match frontend.protocol {
        Protocol::Tcp => Field::TcpDport,
        Protocol::Udp => Field::UdpDport,
    };
    rule.then(Match::eq(field, frontend.port))
}
