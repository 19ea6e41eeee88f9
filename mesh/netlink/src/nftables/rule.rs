//! Rules, put together from conditions and what happens then.

use std::net::IpAddr;

use super::expression::{CtKey, Expression, MetaKey, Operator, Part, Verdict};
use super::set::Set;
use crate::message::address_bytes;

/// Bytes of an interface's name as the kernel compares it.
const NAME: usize = 16;

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// Which end of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// A rule: conditions, all of which must hold, and what happens then. A condition on an address or a port implies its family
/// or its protocol: that condition is put before it, once, as nftables' own program does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    expressions: Vec<Expression>,
}

impl Rule {
    /// A rule without conditions.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it is made of.
    pub fn expressions(&self) -> &[Expression] {
        &self.expressions
    }

    /// With one more expression.
    #[must_use]
    pub fn then(mut self, expression: Expression) -> Self {
        self.expressions.push(expression);
        self
    }

    fn compare(self, load: Expression, operator: Operator, with: impl Into<Vec<u8>>) -> Self {
        self.then(load).then(Expression::Compare(operator, with.into()))
    }

    /// `load` equals `value`, unless an earlier condition says so.
    fn implied(self, key: MetaKey, value: u8) -> Self {
        let implied = [Expression::Meta(key), Expression::Compare(Operator::Equal, vec![value])];
        if self.expressions.windows(2).any(|pair| pair == implied) {
            return self;
        }
        self.compare(Expression::Meta(key), Operator::Equal, [value])
    }

    fn masked(self, load: Expression, operator: Operator, mask: &[u8], with: &[u8]) -> Self {
        let zero = vec![0; mask.len()];
        let bits = Expression::Bitwise { mask: mask.to_vec(), xor: zero };
        self.then(load).then(bits).then(Expression::Compare(operator, with.to_vec()))
    }

    /// The transport protocol.
    #[must_use]
    pub fn transport(self, protocol: Transport) -> Self {
        self.implied(MetaKey::Transport, protocol.number())
    }

    /// A port.
    #[must_use]
    pub fn port(self, protocol: Transport, end: End, operator: Operator, port: u16) -> Self {
        let offset = match end {
            End::Source => 0,
            End::Destination => 2,
        };
        let load = Expression::Payload { part: Part::Transport, offset, len: 2 };
        self.transport(protocol).compare(load, operator, port.to_be_bytes())
    }

    fn load_address(self, end: End, v6: bool) -> Self {
        let family = if v6 { libc::NFPROTO_IPV6 } else { libc::NFPROTO_IPV4 };
        let (offset, len) = match (v6, end) {
            (false, End::Source) => (12, 4),
            (false, End::Destination) => (16, 4),
            (true, End::Source) => (8, 16),
            (true, End::Destination) => (24, 16),
        };
        self.implied(MetaKey::Family, u8::try_from(family).expect("families are below 256")).then(Expression::Payload {
            part: Part::Network,
            offset,
            len,
        })
    }

    /// An address.
    #[must_use]
    pub fn address(self, end: End, operator: Operator, is: IpAddr) -> Self {
        self.load_address(end, is.is_ipv6()).then(Expression::Compare(operator, address_bytes(is)))
    }

    /// An address that is in a set.
    #[must_use]
    pub fn address_in(self, end: End, set: Set) -> Self {
        self.load_address(end, set.v6).then(Expression::Lookup(set.name.to_owned()))
    }

    /// The name of the interface by which it came in.
    #[must_use]
    pub fn in_interface(self, operator: Operator, name: &str) -> Self {
        self.compare(Expression::Meta(MetaKey::InInterface), operator, interface(name))
    }

    /// The name of the interface by which it leaves.
    #[must_use]
    pub fn out_interface(self, operator: Operator, name: &str) -> Self {
        self.compare(Expression::Meta(MetaKey::OutInterface), operator, interface(name))
    }

    /// The user whose socket sends it.
    #[must_use]
    pub fn user(self, uid: u32) -> Self {
        self.compare(Expression::Meta(MetaKey::User), Operator::Equal, uid.to_ne_bytes())
    }

    /// The packet's mark, as far as the mask's bits go.
    #[must_use]
    pub fn mark(self, operator: Operator, mark: u32, mask: u32) -> Self {
        self.masked(Expression::Meta(MetaKey::Mark), operator, &mask.to_ne_bytes(), &mark.to_ne_bytes())
    }

    /// The connection's mark, as far as the mask's bits go.
    #[must_use]
    pub fn connection_mark(self, operator: Operator, mark: u32, mask: u32) -> Self {
        self.masked(Expression::Ct(CtKey::Mark), operator, &mask.to_ne_bytes(), &mark.to_ne_bytes())
    }

    /// A TCP packet that opens a connection: of SYN and ACK it has SYN alone.
    #[must_use]
    pub fn opens(self) -> Self {
        let (syn, ack) = (0x02, 0x10);
        let flags = Expression::Payload { part: Part::Transport, offset: 13, len: 1 };
        self.transport(Transport::Tcp).masked(flags, Operator::Equal, &[syn | ack], &[syn])
    }

    /// One packet in so many, by chance.
    #[must_use]
    pub fn one_in(self, many: u32) -> Self {
        self.compare(Expression::Random(many), Operator::Equal, 0_u32.to_ne_bytes())
    }

    /// Counts the packet.
    #[must_use]
    pub fn counter(self) -> Self {
        self.then(Expression::Counter)
    }

    /// Decides.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.then(Expression::Verdict(verdict))
    }

    /// Asks this chain.
    #[must_use]
    pub fn jump(self, chain: &str) -> Self {
        self.verdict(Verdict::Jump(chain.to_owned()))
    }

    /// To this port, on this machine.
    #[must_use]
    pub fn redirect(self, port: u16) -> Self {
        self.then(Expression::Load(port.to_be_bytes().to_vec())).then(Expression::Redirect)
    }

    /// The packet gets its connection's mark.
    #[must_use]
    pub fn restore_mark(self) -> Self {
        self.then(Expression::Ct(CtKey::Mark)).then(Expression::SetMeta(MetaKey::Mark))
    }

    /// The connection gets this mark; bits outside of the mask stay.
    #[must_use]
    pub fn set_connection_mark(self, mark: u32, mask: u32) -> Self {
        let bits =
            Expression::Bitwise { mask: (!mask).to_ne_bytes().to_vec(), xor: (mark & mask).to_ne_bytes().to_vec() };
        let set = Expression::SetCt { key: CtKey::Mark, original: false };
        self.then(Expression::Ct(CtKey::Mark)).then(bits).then(set)
    }

    /// The connection is tracked in this zone; if `original`, only what its opener sends.
    #[must_use]
    pub fn set_zone(self, zone: u16, original: bool) -> Self {
        let set = Expression::SetCt { key: CtKey::Zone, original };
        self.then(Expression::Load(zone.to_ne_bytes().to_vec())).then(set)
    }

    /// The connection comes from this address.
    #[must_use]
    pub fn snat(self, to: IpAddr) -> Self {
        let translate = Expression::Translate { destination: false, v6: to.is_ipv6(), port: false };
        self.then(Expression::Load(address_bytes(to))).then(translate)
    }

    /// The connection goes to this address and port.
    #[must_use]
    pub fn dnat(self, to: IpAddr, port: u16) -> Self {
        let translate = Expression::Translate { destination: true, v6: to.is_ipv6(), port: true };
        self.then(Expression::Load(address_bytes(to))).then(Expression::LoadPort(port)).then(translate)
    }

    /// The connection comes from the address of the interface by which it leaves.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.then(Expression::Masquerade)
    }
}

/// # Panics
/// If the name is longer than an interface's can be.
fn interface(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}
