//! The PROXY header (version 2) by which an application that is itself a waypoint learns who calls and what was asked
//! for (application tunnel, ambient contract 4.8). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_model::identity::SpiffeId;

use super::seen::source_of;

/// Begins every header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
/// TCP over IPv4, TCP over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
/// Type of the value that holds the caller's SPIFFE id. There is no other (trap 23).
const PEER_IDENTITY: u8 = 0xd0;

/// Where to dial the application, and as whom. On loopback, from loopback, so that nobody else can reach a listener
/// that believes such headers; else as any application.
pub(super) fn dial_at(from: SocketAddr, application: SocketAddr, localhost: bool) -> (Option<SocketAddr>, SocketAddr) {
    if !localhost {
        return (source_of(from, None, application), application);
    }
    let loopback = match application {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    (None, SocketAddr::new(loopback, application.port()))
}

/// The header of a connection from `source` that asked for `destination`. One address family holds both: where they
/// differ, the IPv4 one is written as IPv6 writes it (`::ffff:a.b.c.d`).
pub(crate) fn header(source: SocketAddr, destination: SocketAddr, peer: Option<&SpiffeId>) -> Vec<u8> {
    let identity = peer.map(ToString::to_string).unwrap_or_default();
    let (family, addresses) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (TCP4, [from.octets(), to.octets()].concat()),
        (from, to) => (TCP6, [v6(from).octets(), v6(to).octets()].concat()),
    };
    // An id has at most 2048 bytes, so that every length here fits in 16 bits.
    let value = if identity.is_empty() { 0 } else { 3 + identity.len() };
    let length = addresses.len() + 4 + value;
    let mut header = Vec::with_capacity(16 + length);
    header.extend(SIGNATURE);
    header.extend([PROXY, family]);
    header.extend((length as u16).to_be_bytes());
    header.extend(addresses);
    header.extend(source.port().to_be_bytes());
    header.extend(destination.port().to_be_bytes());
    if !identity.is_empty() {
        header.push(PEER_IDENTITY);
        header.extend((identity.len() as u16).to_be_bytes());
        header.extend(identity.as_bytes());
    }
    header
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn headers_byte_for_byte() {
        let id: SpiffeId = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let signature = "0d0a0d0a000d0a515549540a";
        let identity = hex(b"spiffe://td/ns/a/sa/b");
        for (name, from, to, peer, want) in [
            ("IPv4", "10.0.0.9:4000", "10.96.0.1:80", None, "21 11 000c 0a000009 0a600001 0fa0 0050"),
            (
                "IPv6",
                "[fd00::9]:4000",
                "[fd00:96::1]:80",
                None,
                "21 21 0024 fd000000000000000000000000000009 fd000096000000000000000000000001 0fa0 0050",
            ),
            (
                "one of each",
                "10.0.0.9:4000",
                "[fd00:96::1]:80",
                None,
                "21 21 0024 00000000000000000000ffff0a000009 fd000096000000000000000000000001 0fa0 0050",
            ),
            (
                "trap 23: the identity in 0xD0 and nothing in 0xD1",
                "10.0.0.9:4000",
                "10.96.0.1:80",
                Some(&id),
                &format!("21 11 0024 0a000009 0a600001 0fa0 0050 d0 0015 {identity}"),
            ),
        ] {
            let got = hex(&header(from.parse().unwrap(), to.parse().unwrap(), peer));
            assert_eq!(got, format!("{signature}{}", want.replace(' ', "")), "4.8: {name}");
        }
    }

    #[test]
    fn where_the_application_is_dialled() {
        for (name, application, localhost, source, to) in [
            ("on loopback", "10.0.0.1:15088", true, None, "127.0.0.1:15088"),
            ("on loopback, IPv6", "[fd00::1]:15088", true, None, "[::1]:15088"),
            ("on the pod's address, as the caller", "10.0.0.1:15088", false, Some("10.0.0.9:0"), "10.0.0.1:15088"),
        ] {
            let got = dial_at("10.0.0.9:4000".parse().unwrap(), application.parse().unwrap(), localhost);
            let source = source.map(|at| at.parse().unwrap());
            assert_eq!(got, (source, to.parse().unwrap()), "5.6: application tunnel {name}");
        }
    }
}
