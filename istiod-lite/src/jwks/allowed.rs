//! Which addresses keys may be fetched from. Pure.
//!
//! Whoever may write a RequestAuthentication has the control plane ask an address of their choice: what answers there trusts
//! callers by where they are must not be among them (SSRF). It is judged by the address that is dialled, after names were resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// What is not asked unless a setting allows it, and why.
const REFUSED: [(&str, &str); 15] = [
    ("0.0.0.0/8", "of this host"),
    ("::/128", "of this host"),
    ("127.0.0.0/8", "loopback"),
    ("::1/128", "loopback"),
    ("169.254.0.0/16", "link-local, where clouds have credentials of machines"),
    ("fe80::/10", "link-local"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("ff00::/8", "multicast"),
    ("100.100.100.200/32", "a cloud's metadata"),
    ("168.63.129.16/32", "a cloud's metadata"),
    ("192.0.0.192/32", "a cloud's metadata"),
    ("fd00:ec2::254/128", "a cloud's metadata"),
    ("fd20:ce::254/128", "a cloud's metadata"),
    ("fd00:c1::a9fe:a9fe/128", "a cloud's metadata"),
];

/// Which addresses keys may be fetched from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// `BLOCKED_CIDRS_IN_JWKS_URIS`: these are refused, too, whatever else is said.
    pub blocked: Vec<IpNet>,
    /// `ALLOWED_CIDRS_IN_JWKS_URIS`: of what is refused unless it is named, this is not.
    pub excepted: Vec<IpNet>,
}

impl Allowed {
    /// Why an address is not asked; None: it may be.
    pub fn why_not(&self, ip: IpAddr) -> Option<String> {
        // An IPv4 address in the clothes of IPv6 is what it is.
        let all = || std::iter::once(ip).chain(embedded(ip));
        if let Some(net) = self.blocked.iter().find(|net| all().any(|ip| net.contains(&ip))) {
            return Some(format!("{ip} is of {net} (BLOCKED_CIDRS_IN_JWKS_URIS)"));
        }
        all().filter(|ip| !self.excepted.iter().any(|net| net.contains(ip))).find_map(|inner| {
            let (_, what) =
                REFUSED.iter().find(|(net, _)| net.parse::<IpNet>().is_ok_and(|net| net.contains(&inner)))?;
            Some(format!("{ip} is {what}: not asked unless ALLOWED_CIDRS_IN_JWKS_URIS has it"))
        })
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped or compatible (RFC 4291 2.5.5), by NAT64 (RFC 6052), by 6to4 (RFC 3056).
fn embedded(ip: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(ip) = ip else { return None };
    let octets = ip.octets();
    let v4 = |at: usize| Some(IpAddr::V4(Ipv4Addr::new(octets[at], octets[at + 1], octets[at + 2], octets[at + 3])));
    match ip.segments() {
        _ if ip == Ipv6Addr::UNSPECIFIED || ip == Ipv6Addr::LOCALHOST => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => v4(12),
        [0x2002, ..] => v4(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_trusts_its_neighbours_is_not_asked() {
        let net = |text: &str| vec![text.parse().unwrap()];
        let none = Allowed::default();
        let blocks = Allowed { blocked: net("10.0.0.0/8"), ..Allowed::default() };
        let excepts = Allowed { excepted: net("127.0.0.0/8"), ..Allowed::default() };
        let both = Allowed { blocked: net("127.0.0.1/32"), excepted: net("127.0.0.0/8") };
        for (rules, ip, expected) in [
            // Where issuers are: on the internet, and in the cluster.
            (&none, "93.184.216.34", true),
            (&none, "2606:2800:220:1::1", true),
            (&none, "10.96.0.7", true),
            (&none, "192.168.1.1", true),
            (&none, "fd00:10:96::7", true),
            (&none, "169.254.169.254", false),
            (&none, "::ffff:169.254.169.254", false),
            (&none, "64:ff9b::a9fe:a9fe", false),
            (&none, "2002:a9fe:a9fe::1", false),
            (&none, "::169.254.169.254", false),
            (&none, "fe80::1", false),
            (&none, "fd00:ec2::254", false),
            (&none, "100.100.100.200", false),
            (&none, "168.63.129.16", false),
            (&none, "127.0.0.1", false),
            (&none, "::1", false),
            (&none, "::ffff:127.0.0.1", false),
            (&none, "0.0.0.0", false),
            (&none, "::", false),
            (&none, "224.0.0.1", false),
            (&blocks, "10.96.0.7", false),
            (&blocks, "::ffff:10.96.0.7", false),
            (&blocks, "192.168.1.1", true),
            (&excepts, "127.0.0.1", true),
            (&excepts, "::1", false),
            (&excepts, "169.254.169.254", false),
            (&both, "127.0.0.1", false),
            (&both, "127.0.0.2", true),
        ] {
            let why = rules.why_not(ip.parse().unwrap());
            assert_eq!(why.is_none(), expected, "{ip} by {rules:?}: {why:?}");
        }
    }
}
