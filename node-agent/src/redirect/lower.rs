//! A rule of ours as the kernel's expressions. Pure.

use mesh_netlink::nftables::{self as nft, Base, ChainType, Operator, Transport, Verdict, priority};

use super::rules::{Action, ChainKind, End, Hook, Is, MARK_MASK, Match, Protocol, Rule, Table, chain_kind};

/// The rule's body.
pub(super) fn rule(rule: &Rule) -> nft::Rule {
    action(rule.matches.iter().fold(nft::Rule::new(), matched).counter(), rule.action)
}

/// The base chain at a hook of a table.
pub(super) fn base_chain(table: Table, hook: Hook) -> Base {
    Base {
        kind: match chain_kind(table, hook) {
            ChainKind::Nat => ChainType::Nat,
            ChainKind::Filter => ChainType::Filter,
            ChainKind::Route => ChainType::Route,
        },
        hook: match hook {
            Hook::Prerouting => nft::Hook::Prerouting,
            Hook::Output => nft::Hook::Output,
        },
        priority: match table {
            Table::Nat => priority::DSTNAT,
            Table::Mangle => priority::MANGLE,
            Table::Raw => priority::RAW,
        },
    }
}

fn matched(rule: nft::Rule, condition: &Match) -> nft::Rule {
    match condition {
        Match::Protocol(protocol) => rule.transport(transport(*protocol)),
        Match::Port(protocol, end, is, port) => rule.port(transport(*protocol), end_of(*end), operator(*is), *port),
        Match::Address(end, is, address) => rule.address(end_of(*end), operator(*is), *address),
        Match::InInterface(name) => rule.in_interface(Operator::Equal, name),
        Match::OutInterface(is, name) => rule.out_interface(operator(*is), name),
        Match::PacketMark(is, mark) => rule.mark(operator(*is), *mark, MARK_MASK),
        Match::ConnectionMark(mark) => rule.connection_mark(Operator::Equal, *mark, MARK_MASK),
        Match::Opens => rule.opens(),
    }
}

fn action(rule: nft::Rule, action: Action) -> nft::Rule {
    match action {
        Action::Redirect(port) => rule.redirect(port),
        Action::Accept => rule.verdict(Verdict::Accept),
        Action::Return => rule.verdict(Verdict::Return),
        Action::RestoreMark => rule.restore_mark(),
        Action::Zone(zone) => rule.set_zone(zone, false),
        Action::OriginalZone(zone) => rule.set_zone(zone, true),
        Action::SetConnectionMark(mark) => rule.set_connection_mark(mark, MARK_MASK),
    }
}

fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
    }
}

fn end_of(end: End) -> nft::End {
    match end {
        End::Source => nft::End::Source,
        End::Destination => nft::End::Destination,
    }
}

fn operator(is: Is) -> Operator {
    match is {
        Is::Equal => Operator::Equal,
        Is::Not => Operator::Differs,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use mesh_netlink::nftables::{CtKey, Expression, MetaKey, Part};

    use super::super::{ProbePorts, Settings, rules};
    use super::*;

    /// What the kernel is told and what people are shown are made apart from the same rule; this reads the one back as the
    /// other would say it, so that neither drifts. Conditions that a later one implies are left out, as nftables does.
    #[test]
    fn what_is_sent_reads_as_what_is_shown() {
        for (dns_capture, probe_ports) in [(false, ProbePorts::Only(vec![80, 8080])), (true, ProbePorts::Any)] {
            let settings = Settings {
                ipv6: true,
                inbound_capture: true,
                dns_capture,
                outbound_interfaces: vec!["tap0".to_owned()],
                probe_ports,
            };
            for shown in rules::rules(&settings) {
                assert_eq!(read(rule(&shown).expressions()), shown.to_string());
            }
        }
    }

    fn number(bytes: &[u8]) -> u32 {
        u32::from_ne_bytes(bytes.try_into().unwrap())
    }

    fn port(bytes: &[u8]) -> u16 {
        u16::from_be_bytes(bytes.try_into().unwrap())
    }

    fn read(mut list: &[Expression]) -> String {
        use Expression as E;
        let (mut said, mut l4) = (Vec::new(), "");
        while !list.is_empty() {
            let signs = |operator: &Operator| if *operator == Operator::Equal { ("", "==") } else { ("!= ", "!=") };
            let (line, used) = match list {
                [E::Meta(MetaKey::Transport), E::Compare(Operator::Equal, with), rest @ ..] => {
                    l4 = if with[..] == [6] { "tcp" } else { "udp" };
                    // The port or the flags that follow say it.
                    let implied = matches!(rest, [E::Payload { part: Part::Transport, .. }, ..]);
                    (if implied { String::new() } else { format!("meta l4proto {l4}") }, 2)
                }
                [
                    E::Meta(MetaKey::Family),
                    E::Compare(Operator::Equal, _),
                    E::Payload { part: Part::Network, .. },
                    ..,
                ] => (String::new(), 2),
                [E::Payload { part: Part::Network, offset, .. }, E::Compare(operator, with), ..] => {
                    let (family, address) = match <[u8; 4]>::try_from(&with[..]) {
                        Ok(v4) => ("ip", Ipv4Addr::from(v4).to_string()),
                        Err(_) => ("ip6", Ipv6Addr::from(<[u8; 16]>::try_from(&with[..]).unwrap()).to_string()),
                    };
                    let end = if [12, 8].contains(offset) { 's' } else { 'd' };
                    (format!("{family} {end}addr {}{address}", signs(operator).0), 2)
                }
                [E::Payload { part: Part::Transport, offset, len: 2 }, E::Compare(operator, with), ..] => {
                    let end = if *offset == 0 { 's' } else { 'd' };
                    (format!("{l4} {end}port {}{}", signs(operator).0, port(with)), 2)
                }
                [
                    E::Payload { part: Part::Transport, offset: 13, len: 1 },
                    E::Bitwise { mask, xor },
                    E::Compare(Operator::Equal, with),
                    ..,
                ] if (&mask[..], &xor[..], &with[..]) == (&[0x12], &[0], &[0x02]) => {
                    ("tcp flags & (syn | ack) == syn".to_owned(), 3)
                }
                [E::Meta(MetaKey::Mark), E::Bitwise { mask, .. }, E::Compare(operator, with), ..] => {
                    let (mask, mark) = (number(mask), number(with));
                    (format!("meta mark & {mask:#010x} {} {mark:#010x}", signs(operator).1), 3)
                }
                [E::Ct(CtKey::Mark), E::Bitwise { mask, .. }, E::Compare(operator, with), ..] => {
                    let (mask, mark) = (number(mask), number(with));
                    (format!("ct mark & {mask:#010x} {} {mark:#010x}", signs(operator).1), 3)
                }
                [E::Ct(CtKey::Mark), E::Bitwise { mask, xor }, E::SetCt { key: CtKey::Mark, original: false }, ..] => {
                    let (mask, mark) = (number(mask), number(xor));
                    (format!("ct mark set ct mark & {:#010x} | {mark:#010x}", mask | mark), 3)
                }
                [E::Ct(CtKey::Mark), E::SetMeta(MetaKey::Mark), ..] => ("meta mark set ct mark".to_owned(), 2),
                [E::Meta(key), E::Compare(operator, name), ..] => {
                    let which = if *key == MetaKey::InInterface { "iifname" } else { "oifname" };
                    let name = std::str::from_utf8(name).unwrap().trim_end_matches('\0');
                    (format!("{which} {}\"{name}\"", signs(operator).0), 2)
                }
                [E::Load(zone), E::SetCt { key: CtKey::Zone, original }, ..] => {
                    let zone = u16::from_ne_bytes(zone[..].try_into().unwrap());
                    (format!("ct {}zone set {zone}", if *original { "original " } else { "" }), 2)
                }
                [E::Load(to), E::Redirect, ..] => (format!("redirect to :{}", port(to)), 2),
                [E::Counter, ..] => ("counter".to_owned(), 1),
                [E::Verdict(Verdict::Accept), ..] => ("accept".to_owned(), 1),
                [E::Verdict(Verdict::Return), ..] => ("return".to_owned(), 1),
                other => panic!("nothing that is shown reads so: {other:?}"),
            };
            said.extend((!line.is_empty()).then_some(line));
            list = &list[used..];
        }
        said.join(" ")
    }
}
