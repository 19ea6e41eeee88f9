//! A rule of ours as the kernel's expressions. Pure.

use nlink::netlink::nftables as nft;

use super::rules::{
    Action, ChainKind, End, Hook, INBOUND_MARK, Is, MARK_MASK, Match, Protocol, Rule, Table, chain_kind,
};

/// The family of all tables.
pub(super) const FAMILY: nft::Family = nft::Family::Inet;

/// The rule's body.
pub(super) fn rule(rule: &Rule) -> nft::RuleSpec {
    let spec = rule.matches.iter().fold(nft::RuleSpec::new(), |spec, condition| spec.then(matched(condition)));
    action(spec.then(nft::Stmt::Counter), rule.action)
}

/// The base chain at a hook of a table.
pub(super) fn base_chain(table: Table, hook: Hook) -> nft::BaseChain {
    let priority = match table {
        Table::Nat => nft::Priority::DstNat,
        Table::Mangle => nft::Priority::Mangle,
        Table::Raw => nft::Priority::Raw,
    };
    match (chain_kind(table, hook), hook) {
        (ChainKind::Nat, Hook::Prerouting) => nft::BaseChain::nat(nft::NatHook::Prerouting, priority),
        (ChainKind::Nat, Hook::Output) => nft::BaseChain::nat(nft::NatHook::Output, priority),
        (ChainKind::Filter, Hook::Prerouting) => nft::BaseChain::filter(nft::FilterHook::Prerouting, priority),
        (ChainKind::Filter, Hook::Output) => nft::BaseChain::filter(nft::FilterHook::Output, priority),
        (ChainKind::Route, _) => nft::BaseChain::route(priority),
    }
    // Said aloud so that what the kernel reports can be compared with it.
    .policy(nft::Policy::Accept)
}

/// A rule that the kernel holds, as nftables prints it without its counters' values. Empty if it is none that we would make.
pub(super) fn text_of(rule: &nft::RuleInfo) -> String {
    text(&nft::RuleSpec::lift(&rule.expressions(), rule.family)).unwrap_or_default()
}

fn text(spec: &nft::RuleSpec) -> Option<String> {
    if let [rest @ .., nft::Item::Expr(nft::Expr::Immediate { data, .. }), nft::Item::Expr(last)] = spec.items()
        && *last == set_original_zone()
    {
        let zone = u16::from_ne_bytes(data.as_slice().try_into().ok()?);
        let rest: nft::RuleSpec = rest.iter().cloned().collect();
        return Some(format!("{} ct original zone set {zone}", rest.nft_syntax_stateless(FAMILY)?));
    }
    spec.nft_syntax_stateless(FAMILY)
}

/// Sets the zone in which the connection's original direction is tracked, from the first register. The library models no
/// `ct set` with a direction, so these are the attributes as the kernel takes and dumps them (`nft_ct_set_dump`).
fn set_original_zone() -> nft::Expr {
    let original = 0_u8;
    let attributes = [
        attribute(nft::NFTA_CT_SREG, &nft::Register::R0.wire().to_be_bytes()),
        attribute(nft::NFTA_CT_KEY, &(nft::CtKey::Zone as u32).to_be_bytes()),
        attribute(nft::NFTA_CT_DIRECTION, &[original]),
    ];
    nft::RawExpr::new("ct", attributes.concat()).into()
}

/// A netlink attribute: its length, its type and its value, padded to four bytes.
///
/// # Panics
/// If the value is longer than an attribute can be: they are ours, and short.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("our attributes are short");
    let mut attribute = [&len.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

fn matched(condition: &Match) -> nft::Match {
    use nft::Field;
    let masked = |mark: u32| nft::Value::Masked { value: mark.into(), mask: MARK_MASK.into() };
    match condition {
        Match::Protocol(protocol) => nft::Match::eq(Field::L4Proto, number(*protocol)),
        Match::Port(protocol, end, is, port) => {
            let field = match (protocol, end) {
                (Protocol::Tcp, End::Source) => Field::TcpSport,
                (Protocol::Tcp, End::Destination) => Field::TcpDport,
                (Protocol::Udp, End::Source) => Field::UdpSport,
                (Protocol::Udp, End::Destination) => Field::UdpDport,
            };
            nft::Match::new(field, op(*is), *port)
        }
        Match::Address(end, is, address) => {
            let field = match (address.is_ipv4(), end) {
                (true, End::Source) => Field::Ip4Saddr,
                (true, End::Destination) => Field::Ip4Daddr,
                (false, End::Source) => Field::Ip6Saddr,
                (false, End::Destination) => Field::Ip6Daddr,
            };
            nft::Match::new(field, op(*is), *address)
        }
        Match::InInterface(name) => nft::Match::eq(Field::Iifname, name.as_str()),
        Match::OutInterface(is, name) => nft::Match::new(Field::Oifname, op(*is), *name),
        Match::PacketMark(is, mark) => nft::Match::new(Field::Mark, op(*is), masked(*mark)),
        Match::Opens => {
            let (opens, mask) = (nft::TcpFlags::SYN, nft::TcpFlags::SYN | nft::TcpFlags::ACK);
            let masked = nft::Value::Masked { value: opens.0.into(), mask: mask.0.into() };
            nft::Match::eq(Field::TcpFlags, masked)
        }
        Match::ConnectionMark(mark) => nft::Match::eq(Field::CtMark, masked(*mark)),
    }
}

fn action(spec: nft::RuleSpec, action: Action) -> nft::RuleSpec {
    match action {
        Action::Redirect(port) => spec.then(nft::Stmt::Redirect(Some(port))),
        Action::Accept => spec.then(nft::Verdict::Accept),
        Action::Return => spec.then(nft::Verdict::Return),
        Action::RestoreMark => spec.then(nft::Stmt::RestoreMarkFromCt),
        Action::Zone(zone) => spec.then(nft::Stmt::SetCtZone(zone)),
        Action::OriginalZone(zone) => spec
            .then(nft::Expr::Immediate { dreg: nft::Register::R0, data: zone.to_ne_bytes().to_vec() })
            .then(set_original_zone()),
        // ct mark := (ct mark & !mask) ^ mark: the bits of others stay.
        Action::SetConnectionMark(mark) => {
            debug_assert_eq!(mark & !MARK_MASK, 0, "{INBOUND_MARK:#x} is within the mask");
            let register = nft::Register::R0;
            spec.then(nft::Expr::Ct { dreg: register, key: nft::CtKey::Mark })
                .then(nft::Expr::Bitwise {
                    sreg: register,
                    dreg: register,
                    len: 4,
                    mask: (!MARK_MASK).to_ne_bytes().to_vec(),
                    xor: mark.to_ne_bytes().to_vec(),
                })
                .then(nft::Expr::CtSet { key: nft::CtKey::Mark, sreg: register })
        }
    }
}

fn op(is: Is) -> nft::MatchOp {
    match is {
        Is::Equal => nft::MatchOp::Eq,
        Is::Not => nft::MatchOp::Ne,
    }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, rules};
    use super::*;

    /// Our text is what nftables itself would print for what we send: neither can drift from the other.
    #[test]
    fn what_is_sent_reads_as_what_is_shown() {
        let settings = Settings {
            ipv6: true,
            inbound_capture: true,
            dns_capture: true,
            outbound_interfaces: vec!["tap0".to_owned()],
        };
        for shown in rules::rules(&settings) {
            assert_eq!(text(&rule(&shown)), Some(shown.to_string()));
        }
    }
}
