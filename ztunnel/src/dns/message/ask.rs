//! Asking, where ztunnel itself wants to know: a query, and what its answer holds.

use std::net::{IpAddr, Ipv6Addr};

use super::{CLASS_IN, HEADER, Record, counts, encode_name, read_question};

/// A question for records of `kind`; none for what is no name.
pub fn query(name: &str, kind: u16, id: u16) -> Option<Vec<u8>> {
    let mut out = id.to_be_bytes().to_vec();
    // Recursion desired, one question.
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&encode_name(name)?);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(out)
}

/// What an answer holds in records of `kind`, as far as it can be read.
pub fn records(answer: &[u8], kind: u16) -> Vec<&[u8]> {
    let Some(question) = (answer.len() >= HEADER).then(|| read_question(answer)).flatten() else { return Vec::new() };
    let [_, answers, ..] = counts(answer);
    let (mut found, mut at) = (Vec::new(), question.end);
    for _ in 0..answers {
        let Some(record) = Record::at(answer, at) else { break };
        if record.kind == kind && record.class == CLASS_IN {
            found.push(record.data);
        }
        at = record.end;
    }
    found
}

/// The addresses in an answer to a question for records of `kind`.
pub fn addresses(answer: &[u8], kind: u16) -> Vec<IpAddr> {
    let records = records(answer, kind);
    let address = |data: &[u8]| match *data {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
    };
    records.into_iter().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{self as message, kind};
    use super::*;

    #[test]
    fn addresses_are_read_past_aliases() {
        let ip: IpAddr = "192.0.2.7".parse().unwrap();
        let query = message::query("Cart.shop", kind::A, 7).unwrap();
        let read = message::read(&query).unwrap();
        assert_eq!(read.question.as_ref().unwrap().name, "cart.shop");
        let answer = message::answer(&query, &read, &["other.example"], &[ip], Duration::from_secs(1), 512);
        assert_eq!(addresses(&answer, kind::A), [ip]);
        assert_eq!(addresses(&answer, kind::AAAA), [] as [IpAddr; 0]);
        let cut = &answer[..answer.len() - 1];
        assert_eq!(addresses(cut, kind::A), [] as [IpAddr; 0], "half a record is none");
        let v6 = message::query("cart.shop", kind::AAAA, 7).unwrap();
        let read = message::read(&v6).unwrap();
        let answer = message::answer(&v6, &read, &[], &["2001:db8::1".parse().unwrap()], Duration::ZERO, 512);
        assert_eq!(addresses(&answer, kind::AAAA), ["2001:db8::1".parse::<IpAddr>().unwrap()]);
        assert!(message::query("", kind::A, 7).is_none() && message::query(&"a".repeat(64), kind::A, 7).is_none());
    }
}
