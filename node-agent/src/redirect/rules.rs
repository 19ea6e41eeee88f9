//! The rules of a pod's network namespace, as data and as text. Pure.
//!
//! Three nftables tables of family `inet`, as Istio's node agent makes them in its nftables form, so that either agent
//! can take over the other's pods. Beside them, marks and one routing table let ztunnel talk to the application from
//! an address that is not the pod's own:
//!
//! ztunnel dials the application from the client's address. That packet carries [`ZTUNNEL_MARK`] and loops back in
//! over `lo`, where mangle stamps its connection with [`INBOUND_MARK`]. The application's reply gets the mark back in
//! output, and the mark routes it to table [`ROUTING_TABLE`], whose only route is `local`: back to ztunnel instead of
//! out to the client.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{ProbePorts, Settings};

/// Where ztunnel takes what the pod sends out.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where ztunnel takes plaintext that comes in.
pub const INBOUND_PLAINTEXT_PORT: u16 = 15006;
/// Where ztunnel takes HBONE; reached without redirection.
pub const HBONE_PORT: u16 = 15008;
/// Where ztunnel takes DNS.
pub const DNS_PROXY_PORT: u16 = 15053;
/// The packet mark of every socket ztunnel makes in a pod's namespace: never redirected again.
pub const ZTUNNEL_MARK: u32 = 0x539;
/// The mark of connections ztunnel made to the application, and of the application's replies.
pub const INBOUND_MARK: u32 = 0x111;
/// The bits of a mark that are ours.
pub const MARK_MASK: u32 = 0xfff;
/// The routing table that [`INBOUND_MARK`] selects; it delivers everything locally.
pub const ROUTING_TABLE: u32 = 100;
/// The priority of the ip rule that selects it.
pub const ROUTING_RULE_PRIORITY: u32 = 32764;
/// What the kubelet's probes come from: the host rewrites them so that they can be told from other traffic.
pub const PROBE_ADDRESS_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 7, 127);
/// The same for IPv6.
pub const PROBE_ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff);
/// Conntrack zone of ztunnel's own DNS, so that its ports do not collide with those of the application's queries.
const DNS_ZONE: u16 = 1;
/// Conntrack zone of the connections that ztunnel opens to other machines. The kernel remembers one that nobody answered for
/// two minutes after ztunnel has let go of its port, and asks the nat table about the first packet of a connection only: in
/// one zone, an application that connected to the same place from that port would be taken for ztunnel and leave in the clear.
const DIALS_ZONE: u16 = 2;
const DNS: u16 = 53;

/// A table. All are of family `inet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Redirects new connections.
    Nat,
    /// Marks connections and packets.
    Mangle,
    /// Chooses conntrack zones.
    Raw,
}

impl Table {
    /// All of them. Removal takes all, whatever the settings were.
    pub const ALL: [Self; 3] = [Self::Nat, Self::Mangle, Self::Raw];

    /// Its name in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "istio-ambient-nat",
            Self::Mangle => "istio-ambient-mangle",
            Self::Raw => "istio-ambient-raw",
        }
    }
}

/// Where on a packet's way a rule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Packets that arrive, before routing.
    Prerouting,
    /// Packets the pod itself makes.
    Output,
}

impl Hook {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Prerouting, Self::Output];

    /// The base chain at this hook. It only jumps to [`chain`](Self::chain).
    pub fn base_chain(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Output => "output",
        }
    }

    /// The chain that holds the rules of this hook.
    pub fn chain(self) -> &'static str {
        match self {
            Self::Prerouting => "istio-prerouting",
            Self::Output => "istio-output",
        }
    }
}

/// What a base chain is for. The kernel treats each kind differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Looks at the first packet of each connection.
    Nat,
    /// Looks at every packet.
    Filter,
    /// As filter, and routes a packet again whose mark it changed.
    Route,
}

/// The kind of base chain at a hook of a table.
pub fn chain_kind(table: Table, hook: Hook) -> ChainKind {
    match (table, hook) {
        (Table::Nat, _) => ChainKind::Nat,
        // The mark is set in output, after the first routing decision: only a route chain makes a second one.
        (Table::Mangle, Hook::Output) => ChainKind::Route,
        (Table::Mangle, Hook::Prerouting) | (Table::Raw, _) => ChainKind::Filter,
    }
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// The sense of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// Is the value.
    Equal,
    /// Is not the value.
    Not,
}

/// One condition. All conditions of a rule must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The transport protocol.
    Protocol(Protocol),
    /// A port of this protocol.
    Port(Protocol, End, Is, u16),
    /// An address. Implies its family: an IPv6 packet never meets a condition about an IPv4 address.
    Address(End, Is, IpAddr),
    /// The interface by which it came in.
    InInterface(String),
    /// The interface by which it leaves.
    OutInterface(Is, &'static str),
    /// The packet's mark, under [`MARK_MASK`].
    PacketMark(Is, u32),
    /// The connection's mark, under [`MARK_MASK`].
    ConnectionMark(u32),
    /// A TCP packet that opens a connection. Connection tracking begins with the first rules of a namespace, and takes
    /// the next packet of a connection that is open already for the first of a new one: redirected, that connection
    /// would be reset the moment its pod joins.
    Opens,
}

/// What happens to a packet that meets all conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To this port on the pod itself; the original destination stays known to conntrack.
    Redirect(u16),
    /// Pass, unchanged.
    Accept,
    /// Leave this chain.
    Return,
    /// Mark the connection, under [`MARK_MASK`].
    SetConnectionMark(u32),
    /// Give the packet its connection's whole mark.
    RestoreMark,
    /// Track the connection in this zone.
    Zone(u16),
    /// Track what the opener of the connection sends in this zone. The answers, which nothing tells from those to others, are
    /// found in the default zone.
    OriginalZone(u16),
}

/// One rule. Every rule also counts its packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The table it is in.
    pub table: Table,
    /// The hook whose chain it is in.
    pub hook: Hook,
    /// What must hold.
    pub matches: Vec<Match>,
    /// What happens then.
    pub action: Action,
}

/// The rules that ztunnel needs to serve a pod, and that redirect nothing: what it sends to the application from a
/// foreign address comes back to it, and what it dials is tracked as its own. They are the whole set's, without what
/// captures.
pub fn serving_rules(settings: &Settings) -> Vec<Rule> {
    let serves = |rule: &Rule| rule.table == Table::Mangle || matches!(rule.action, Action::OriginalZone(_));
    rules(settings).into_iter().filter(serves).collect()
}

/// The rules of a pod that is captured, in the order in which each chain holds them.
pub fn rules(settings: &Settings) -> Vec<Rule> {
    use Action::{Accept, OriginalZone, Redirect, RestoreMark, Return, SetConnectionMark, Zone};
    use End::{Destination, Source};
    use Hook::{Output, Prerouting};
    use Is::{Equal, Not};
    use Match::{Address, ConnectionMark, InInterface, Opens, OutInterface, PacketMark, Port};
    use Protocol::{Tcp, Udp};
    use Table::{Mangle, Nat, Raw};

    // (the pod's loopback, the probes' source), once per family: a condition on an address fits one family only.
    let mut families: Vec<(IpAddr, IpAddr)> = vec![(Ipv4Addr::LOCALHOST.into(), PROBE_ADDRESS_V4.into())];
    if settings.ipv6 {
        families.push((Ipv6Addr::LOCALHOST.into(), PROBE_ADDRESS_V6.into()));
    }
    let tcp = || Match::Protocol(Tcp);
    let not_from_ztunnel = || PacketMark(Not, ZTUNNEL_MARK);

    let mut rules = Vec::new();
    let mut rule = |table, hook, matches, action| rules.push(Rule { table, hook, matches, action });

    // Machines inside the pod: what they send is the pod's outbound.
    for name in &settings.outbound_interfaces {
        rule(Nat, Prerouting, vec![InInterface(name.clone()), tcp()], Redirect(OUTBOUND_PORT));
        rule(Nat, Prerouting, vec![InInterface(name.clone()), tcp()], Return);
    }
    // What ztunnel sends to the application from a foreign address, as it comes in again over lo.
    rule(Mangle, Prerouting, vec![PacketMark(Equal, ZTUNNEL_MARK)], SetConnectionMark(INBOUND_MARK));
    // Probes pass ztunnel by, or STRICT would kill the pod. Who sends them nobody can tell from what else the node sends.
    let probed: Vec<Match> = match &settings.probe_ports {
        _ if !settings.inbound_capture => Vec::new(),
        ProbePorts::Any => vec![tcp()],
        ProbePorts::Only(ports) => ports.iter().map(|port| Port(Tcp, Destination, Equal, *port)).collect(),
    };
    for (_, probe) in &families {
        for port in &probed {
            rule(Nat, Prerouting, vec![Address(Source, Equal, *probe), port.clone()], Accept);
        }
        rule(Nat, Output, vec![Address(Destination, Equal, *probe), tcp()], Accept);
    }
    if settings.inbound_capture {
        for (loopback, _) in &families {
            let matches = vec![
                Address(Destination, Not, *loopback),
                Port(Tcp, Destination, Not, HBONE_PORT),
                Opens,
                not_from_ztunnel(),
            ];
            rule(Nat, Prerouting, matches, Redirect(INBOUND_PLAINTEXT_PORT));
        }
    }
    rule(Mangle, Output, vec![ConnectionMark(INBOUND_MARK)], RestoreMark);
    let dials = vec![OutInterface(Not, "lo"), tcp(), PacketMark(Equal, ZTUNNEL_MARK)];
    rule(Raw, Output, dials, OriginalZone(DIALS_ZONE));
    if settings.dns_capture {
        let query = || Port(Udp, Destination, Equal, DNS);
        rule(Nat, Output, vec![OutInterface(Not, "lo"), query(), not_from_ztunnel()], Redirect(DNS_PROXY_PORT));
        for (loopback, _) in &families {
            let matches = vec![
                Address(Destination, Not, *loopback),
                Port(Tcp, Destination, Equal, DNS),
                Opens,
                not_from_ztunnel(),
            ];
            rule(Nat, Output, matches, Redirect(DNS_PROXY_PORT));
        }
        rule(Raw, Output, vec![query(), PacketMark(Equal, ZTUNNEL_MARK)], Zone(DNS_ZONE));
        rule(Raw, Prerouting, vec![Port(Udp, Source, Equal, DNS), not_from_ztunnel()], Zone(DNS_ZONE));
    }
    // Replies of the application to ztunnel.
    rule(Nat, Output, vec![tcp(), PacketMark(Equal, INBOUND_MARK)], Accept);
    for (loopback, _) in &families {
        // The pod calling its own address stays inside the pod.
        rule(Nat, Output, vec![Address(Destination, Not, *loopback), OutInterface(Equal, "lo")], Accept);
    }
    for (loopback, _) in &families {
        let matches = vec![Address(Destination, Not, *loopback), Opens, not_from_ztunnel()];
        rule(Nat, Output, matches, Redirect(OUTBOUND_PORT));
    }
    rules
}

/// The whole rule set as text, in nftables' own language, for people to read and to compare.
pub fn to_text(rules: &[Rule]) -> String {
    let mut text = String::new();
    for table in Table::ALL.into_iter().filter(|table| rules.iter().any(|rule| rule.table == *table)) {
        text.push_str(&format!("table inet {} {{\n", table.name()));
        for hook in Hook::ALL {
            text.push_str(&format!("\tchain {} {{\n", hook.chain()));
            for rule in rules.iter().filter(|rule| rule.table == table && rule.hook == hook) {
                text.push_str(&format!("\t\t{rule}\n"));
            }
            text.push_str("\t}\n");
        }
        text.push_str("}\n");
    }
    text
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.matches {
            write!(f, "{condition} ")?;
        }
        write!(f, "counter {}", self.action)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::Port(protocol, end, is, port) => write!(f, "{protocol} {}port {is}{port}", end.letter()),
            Self::Address(end, is, address) => {
                let family = if address.is_ipv4() { "ip" } else { "ip6" };
                write!(f, "{family} {}addr {is}{address}", end.letter())
            }
            Self::InInterface(name) => write!(f, "iifname \"{name}\""),
            Self::OutInterface(is, name) => write!(f, "oifname {is}\"{name}\""),
            Self::PacketMark(is, mark) => write!(f, "meta mark & {MARK_MASK:#010x} {} {mark:#010x}", is.sign()),
            Self::Opens => f.write_str("tcp flags & (syn | ack) == syn"),
            Self::ConnectionMark(mark) => write!(f, "ct mark & {MARK_MASK:#010x} == {mark:#010x}"),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redirect(port) => write!(f, "redirect to :{port}"),
            Self::Accept => f.write_str("accept"),
            Self::Return => f.write_str("return"),
            // nft counts a bit that is set among those kept.
            Self::SetConnectionMark(mark) => {
                write!(f, "ct mark set ct mark & {:#010x} | {mark:#010x}", !MARK_MASK | mark)
            }
            Self::RestoreMark => f.write_str("meta mark set ct mark"),
            Self::Zone(zone) => write!(f, "ct zone set {zone}"),
            Self::OriginalZone(zone) => write!(f, "ct original zone set {zone}"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Is {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "",
            Self::Not => "!= ",
        })
    }
}

impl Is {
    fn sign(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::Not => "!=",
        }
    }
}

impl End {
    fn letter(self) -> char {
        match self {
            Self::Source => 's',
            Self::Destination => 'd',
        }
    }
}

#[cfg(test)]
mod tests;
