//! Answers that say where a service is (SRV, RFC 2782).

use std::net::IpAddr;
use std::time::Duration;

use super::{CLASS_IN, Query, Rcode, Records, encode_name, kind, refuse};

/// Most targets in one answer: of some 300 bytes at most, so that they fit into the longest message.
const MAX_TARGETS: usize = 200;

/// One place where a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name, in full.
    pub name: String,
    /// Its port there.
    pub port: u16,
    /// Its addresses, so that nobody needs to ask.
    pub addresses: Vec<IpAddr>,
}

/// The answer with these places, all alike. Their addresses come along as far as they fit into `limit`: without them an
/// answer is whole, too.
pub fn services(
    packet: &[u8],
    query: &Query,
    alias: Option<&str>,
    targets: &[Target],
    ttl: Duration,
    limit: usize,
) -> Vec<u8> {
    let Some(question) = &query.question else { return refuse(packet, Some(query), Rcode::ServFail) };
    let mut out = Records::new(packet, query, question, ttl, limit);
    if let Some(name) = alias.and_then(encode_name) {
        out.alias(&name);
    }
    let targets: Vec<(&Target, Vec<u8>)> =
        targets.iter().take(MAX_TARGETS).filter_map(|t| Some((t, encode_name(&t.name)?))).collect();
    // Shares of a hundred, as the cluster's own DNS has them.
    let weight = u16::try_from(100 / targets.len().max(1)).unwrap_or(1).max(1);
    for (target, name) in &targets {
        let [priority, weight, port] = [0_u16, weight, target.port].map(u16::to_be_bytes);
        out.add(kind::SRV, &[&priority[..], &weight, &port, name].concat());
    }
    let mut additional: u16 = 0;
    let addresses = targets.iter().flat_map(|(target, name)| target.addresses.iter().map(move |ip| (name, ip)));
    for (name, address) in addresses.filter(|_| out.whole) {
        let (kind, data) = match address {
            IpAddr::V4(ip) => (kind::A, ip.octets().to_vec()),
            IpAddr::V6(ip) => (kind::AAAA, ip.octets().to_vec()),
        };
        let length = (data.len() as u16).to_be_bytes();
        let record = [&name[..], &kind.to_be_bytes(), &CLASS_IN.to_be_bytes(), &out.ttl.to_be_bytes(), &length, &data];
        let record = record.concat();
        if out.out.len() + record.len() > out.limit {
            break;
        }
        out.out.extend(record);
        additional += 1;
    }
    out.out[10..12].copy_from_slice(&additional.to_be_bytes());
    out.finish(query)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{query, read_answer, with_edns};
    use super::super::{HEADER, Record, counts, read, read_question, records};
    use super::*;

    fn target(name: &str, port: u16, addresses: &[&str]) -> Target {
        Target { name: name.into(), port, addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect() }
    }

    #[test]
    fn places_and_their_addresses() {
        let targets = [
            target("web-0.web.example", 8080, &["10.0.0.1", "fd00::1"]),
            target("web-1.web.example", 8081, &["10.0.0.2"]),
        ];
        for (packet, opt) in [
            (query(7, "_http._tcp.web.example", kind::SRV), 0),
            (with_edns(&query(7, "_http._tcp.web.example", kind::SRV), 1232), 1),
        ] {
            let asked = read(&packet).unwrap();
            let out = services(&packet, &asked, Some("_http._tcp.web"), &targets, Duration::from_secs(30), 512);
            assert_eq!(counts(&out), [1, 3, 0, 3 + opt]);
            let found: Vec<Vec<u8>> = records(&out, kind::SRV).into_iter().map(<[u8]>::to_vec).collect();
            let first = [&[0, 0, 0, 50, 0x1f, 0x90][..], b"\x05web-0\x03web\x07example\0"].concat();
            let second = [&[0, 0, 0, 50, 0x1f, 0x91][..], b"\x05web-1\x03web\x07example\0"].concat();
            assert_eq!(found, [first, second]);
            let mut at = read_question(&out).unwrap().end;
            let kinds: Vec<u16> = (0..6 + opt)
                .map(|_| {
                    let record = Record::at(&out, at).unwrap();
                    at = record.end;
                    record.kind
                })
                .collect();
            assert_eq!(kinds[..6], [kind::CNAME, kind::SRV, kind::SRV, kind::A, kind::AAAA, kind::A]);
            assert_eq!(at, out.len());
        }
    }

    #[test]
    fn what_does_not_fit() {
        let targets: Vec<Target> =
            (0..20).map(|i| target(&format!("web-{i}.web.example"), 80, &["10.0.0.1"])).collect();
        let packet = query(7, "_http._tcp.web.example", kind::SRV);
        let asked = read(&packet).unwrap();
        let out = services(&packet, &asked, None, &targets, Duration::from_secs(30), 512);
        assert!(read_answer(&out).1 && out.len() <= 512 && counts(&out)[3] == 0, "the client asks again over TCP");
        let out = services(&packet, &asked, None, &targets, Duration::from_secs(30), 65_535);
        assert_eq!((read_answer(&out).1, counts(&out)), (false, [1, 20, 0, 20]));
        let out = services(&packet, &asked, None, &targets[..10], Duration::from_secs(30), 512);
        assert_eq!((read_answer(&out).1, counts(&out)[1]), (false, 10), "addresses may be asked for");
        assert!(counts(&out)[3] < 10 && out.len() <= 512 && out.len() > HEADER);
        let none = services(&packet, &asked, None, &[], Duration::from_secs(30), 512);
        assert_eq!(counts(&none), [1, 0, 0, 0]);
    }
}
