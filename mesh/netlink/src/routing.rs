//! Interfaces, addresses, routes, and the rules that choose a routing table (`rtnetlink(7)`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::message::{Attributes, Message, address_bytes, attribute, c_string, number};
use crate::socket::{Error, Socket};

// Numbers of attributes: linux/if_link.h, if_addr.h, rtnetlink.h, fib_rules.h, veth.h.
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_TABLE: u16 = 15;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
/// `FR_ACT_TO_TBL`: look the route up in a table.
const TO_TABLE: u8 = 1;
/// Bytes of `struct rtmsg` and of `struct fib_rule_hdr`.
const FIXED: usize = 12;

/// The two kinds of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    fn number(self) -> u8 {
        let number = match self {
            Self::V4 => libc::AF_INET,
            Self::V6 => libc::AF_INET6,
        };
        u8::try_from(number).expect("families are below 256")
    }

    fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn everywhere(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// A route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Where it leads: an address and the length of its prefix in bits.
    pub to: (IpAddr, u8),
    /// Everything it leads to is on this machine (`type local`).
    pub local: bool,
    /// The next machine on the way.
    pub gateway: Option<IpAddr>,
    /// The interface, by its index.
    pub interface: Option<u32>,
    /// The routing table; 254 is the main one.
    pub table: u32,
}

impl Route {
    /// A route of the main table, to an address and the length of its prefix in bits.
    pub fn to(address: IpAddr, prefix: u8) -> Self {
        Self { to: (address, prefix), local: false, gateway: None, interface: None, table: libc::RT_TABLE_MAIN.into() }
    }

    /// The same by way of a gateway, if there is one.
    pub fn via(self, gateway: Option<IpAddr>) -> Self {
        Self { gateway, ..self }
    }

    /// The same over an interface, by its index.
    pub fn over(self, interface: u32) -> Self {
        Self { interface: Some(interface), ..self }
    }

    /// All addresses of a family, delivered on this machine over an interface, in a table of its own.
    pub fn everything_local(family: Family, interface: u32, table: u32) -> Self {
        Self { local: true, table, ..Self::to(family.everywhere(), 0) }.over(interface)
    }

    fn message(&self, kind: u16, flags: i32) -> Message {
        let (address, prefix) = self.to;
        let scope = match (self.local, self.gateway) {
            (true, _) => libc::RT_SCOPE_HOST,
            (false, None) => libc::RT_SCOPE_LINK,
            (false, Some(_)) => libc::RT_SCOPE_UNIVERSE,
        };
        let scope = if address.is_ipv6() { libc::RT_SCOPE_UNIVERSE } else { scope };
        // Of any scope, made by anybody.
        let removes = kind == libc::RTM_DELROUTE;
        let scope = if removes { libc::RT_SCOPE_NOWHERE } else { scope };
        let protocol = if removes { libc::RTPROT_UNSPEC } else { libc::RTPROT_BOOT };
        let route = if self.local { libc::RTN_LOCAL } else { libc::RTN_UNICAST };
        let mut fixed = [0; FIXED];
        fixed[..2].copy_from_slice(&[Family::of(address).number(), prefix]);
        fixed[5..8].copy_from_slice(&[protocol, scope, route]);
        let mut message = Message::new(kind, flags, &fixed).with(RTA_TABLE, self.table.to_ne_bytes());
        if prefix > 0 {
            message = message.with(RTA_DST, address_bytes(address));
        }
        if let Some(gateway) = self.gateway {
            message = message.with(RTA_GATEWAY, address_bytes(gateway));
        }
        if let Some(interface) = self.interface {
            message = message.with(RTA_OIF, interface.to_ne_bytes());
        }
        message
    }

    fn read(body: &[u8]) -> Option<Self> {
        let (fixed, attributes) = body.split_at_checked(FIXED)?;
        let family = if fixed[0] == Family::V4.number() { Family::V4 } else { Family::V6 };
        let to = attribute(attributes, RTA_DST).map_or(Some(family.everywhere()), address)?;
        let table = attribute(attributes, RTA_TABLE).and_then(number).unwrap_or_else(|| fixed[4].into());
        Some(Self {
            to: (to, fixed[1]),
            local: fixed[7] == libc::RTN_LOCAL,
            gateway: attribute(attributes, RTA_GATEWAY).and_then(address),
            interface: attribute(attributes, RTA_OIF).and_then(number),
            table,
        })
    }
}

/// A rule that sends packets with a mark to a routing table (`ip rule add fwmark MARK/MASK lookup TABLE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkRule {
    /// The kind of addresses it is for.
    pub family: Family,
    /// Its place among the rules: the lowest is asked first.
    pub priority: u32,
    /// The packet's mark.
    pub mark: u32,
    /// The bits of the mark that count.
    pub mask: u32,
    /// The routing table.
    pub table: u32,
}

impl MarkRule {
    fn message(&self, kind: u16, flags: i32) -> Message {
        let mut fixed = [0; FIXED];
        fixed[0] = self.family.number();
        fixed[7] = TO_TABLE;
        Message::new(kind, flags, &fixed)
            .with(FRA_PRIORITY, self.priority.to_ne_bytes())
            .with(FRA_FWMARK, self.mark.to_ne_bytes())
            .with(FRA_FWMASK, self.mask.to_ne_bytes())
            .with(FRA_TABLE, self.table.to_ne_bytes())
    }

    /// `None` for a rule that asks for no mark.
    fn read(body: &[u8]) -> Option<Self> {
        let (fixed, attributes) = body.split_at_checked(FIXED)?;
        let field = |kind| attribute(attributes, kind).and_then(number);
        Some(Self {
            family: if fixed[0] == Family::V4.number() { Family::V4 } else { Family::V6 },
            priority: field(FRA_PRIORITY).unwrap_or(0),
            mark: field(FRA_FWMARK)?,
            mask: field(FRA_FWMASK)?,
            table: field(FRA_TABLE).unwrap_or_else(|| fixed[4].into()),
        })
    }
}

/// The routing of a network namespace.
#[derive(Debug)]
pub struct Routing(Socket);

impl Routing {
    /// Reaches it.
    pub fn open_in(netns: BorrowedFd<'_>) -> Result<Self, Error> {
        Socket::open_in(netns, None).map(Self)
    }

    /// The index of the interface of this name.
    pub fn interface(&self, name: &str) -> Result<u32, Error> {
        let asked = Message::new(libc::RTM_GETLINK, 0, &link(0, 0)).with(IFLA_IFNAME, c_string(name));
        self.0.get(asked, |body| number(body.get(4..8)?))
    }

    /// Makes a bridge, up.
    pub fn add_bridge(&self, name: &str) -> Result<(), Error> {
        let kind = Attributes::new().with(IFLA_INFO_KIND, c_string("bridge"));
        self.0.request(new_link(name, up()).nest(IFLA_LINKINFO, kind))
    }

    /// Makes a pair of interfaces, this end up (and a port of the bridge with the index `master`), the other, `peer`, in
    /// another namespace and down.
    pub fn add_veth(
        &self,
        name: &str,
        peer: &str,
        peer_netns: BorrowedFd<'_>,
        master: Option<u32>,
    ) -> Result<(), Error> {
        let other = Attributes::after(&link(0, 0))
            .with(IFLA_IFNAME, c_string(peer))
            .with(IFLA_NET_NS_FD, peer_netns.as_fd().as_raw_fd().to_ne_bytes());
        let kind = Attributes::new()
            .with(IFLA_INFO_KIND, c_string("veth"))
            .nest(IFLA_INFO_DATA, Attributes::new().nest(VETH_INFO_PEER, other));
        let mut message = new_link(name, up()).nest(IFLA_LINKINFO, kind);
        if let Some(master) = master {
            message = message.with(IFLA_MASTER, master.to_ne_bytes());
        }
        self.0.request(message)
    }

    /// Brings an interface up, by its index.
    pub fn set_up(&self, interface: u32) -> Result<(), Error> {
        self.0.request(Message::new(libc::RTM_NEWLINK, 0, &link(interface, up())))
    }

    /// Brings the loopback up: the first interface of every namespace.
    pub fn set_loopback_up(&self) -> Result<(), Error> {
        self.set_up(LOOPBACK)
    }

    /// Removes an interface, by its name. That there is none is no failure.
    pub fn remove_interface(&self, name: &str) -> Result<(), Error> {
        let message = Message::new(libc::RTM_DELLINK, 0, &link(0, 0)).with(IFLA_IFNAME, c_string(name));
        removed(self.0.request(message)).map(drop)
    }

    /// Gives an interface an address, with the length of its prefix in bits. An IPv6 one is usable at once, without asking
    /// the neighbours whether they have it.
    pub fn add_address(&self, interface: u32, address: IpAddr, prefix: u8) -> Result<(), Error> {
        let no_questions = u8::try_from(libc::IFA_F_NODAD).expect("a flag of the first byte");
        let flags = if address.is_ipv6() { no_questions } else { 0 };
        let mut fixed = [0; 8];
        fixed[..3].copy_from_slice(&[Family::of(address).number(), prefix, flags]);
        fixed[4..].copy_from_slice(&interface.to_ne_bytes());
        let message = Message::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &fixed)
            .with(IFA_LOCAL, address_bytes(address))
            .with(IFA_ADDRESS, address_bytes(address));
        self.0.request(message)
    }

    /// Adds a route.
    pub fn add_route(&self, route: &Route) -> Result<(), Error> {
        self.0.request(route.message(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL))
    }

    /// Adds a route, in place of the one that leads there in its table.
    pub fn replace_route(&self, route: &Route) -> Result<(), Error> {
        self.0.request(route.message(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE))
    }

    /// Removes a route, whoever made it; whether there was one.
    pub fn remove_route(&self, route: &Route) -> Result<bool, Error> {
        removed(self.0.request(route.message(libc::RTM_DELROUTE, 0)))
    }

    /// The routes of a family in a table.
    pub fn routes(&self, family: Family, table: u32) -> Result<Vec<Route>, Error> {
        let mut fixed = [0; FIXED];
        fixed[0] = family.number();
        let mut all = self.0.dump(&Message::new(libc::RTM_GETROUTE, 0, &fixed), Route::read)?;
        all.retain(|route| route.table == table);
        Ok(all)
    }

    /// Adds a rule. That it is there already is no failure.
    pub fn add_rule(&self, rule: &MarkRule) -> Result<(), Error> {
        match self.0.request(rule.message(libc::RTM_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_EXCL)) {
            Err(error) if error.is_already_exists() => Ok(()),
            added => added,
        }
    }

    /// Removes a rule; whether there was one. There may be several of the same.
    pub fn remove_rule(&self, rule: &MarkRule) -> Result<bool, Error> {
        removed(self.0.request(rule.message(libc::RTM_DELRULE, 0)))
    }

    /// The rules of a family that ask for a mark.
    pub fn mark_rules(&self, family: Family) -> Result<Vec<MarkRule>, Error> {
        let mut fixed = [0; FIXED];
        fixed[0] = family.number();
        self.0.dump(&Message::new(libc::RTM_GETRULE, 0, &fixed), MarkRule::read)
    }
}

/// The index of the loopback interface: the first of every namespace.
pub const LOOPBACK: u32 = 1;

fn removed(done: Result<(), Error>) -> Result<bool, Error> {
    match done {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

fn up() -> u32 {
    u32::try_from(libc::IFF_UP).expect("interface flags are positive")
}

/// `struct ifinfomsg`: the interface's index, and the flags that shall be set.
fn link(index: u32, flags: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..].copy_from_slice(&flags.to_ne_bytes());
    fixed
}

fn new_link(name: &str, flags: u32) -> Message {
    let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    Message::new(libc::RTM_NEWLINK, create, &link(0, flags)).with(IFLA_IFNAME, c_string(name))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::messages;

    fn body(message: Message) -> Vec<u8> {
        let bytes = message.finish(1);
        messages(&bytes).next().unwrap().body.to_vec()
    }

    #[test]
    fn a_route_is_read_as_it_is_written() {
        let (v4, v6): (IpAddr, IpAddr) = ("10.1.0.0".parse().unwrap(), "fd00::".parse().unwrap());
        for route in [
            Route::to(v4, 24).over(7),
            Route::to(v6, 64).via(Some("fd00::1".parse().unwrap())).over(7),
            Route::to(Ipv4Addr::UNSPECIFIED.into(), 0).via(Some("10.1.0.1".parse().unwrap())),
            Route::everything_local(Family::V4, LOOPBACK, 100),
            Route::everything_local(Family::V6, LOOPBACK, 100),
        ] {
            assert_eq!(Route::read(&body(route.message(libc::RTM_NEWROUTE, 0))), Some(route));
        }
    }

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        for family in [Family::V4, Family::V6] {
            let rule = MarkRule { family, priority: 32764, mark: 0x111, mask: 0xfff, table: 1000 };
            assert_eq!(MarkRule::read(&body(rule.message(libc::RTM_NEWRULE, 0))), Some(rule));
        }
    }
}
