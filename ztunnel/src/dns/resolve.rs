//! Names that ztunnel itself has to know for a pod: asked of the pod's own DNS proxy, so that they mean what they mean to
//! the pod.

use std::net::{IpAddr, Ipv6Addr};

use super::message::{self, kind};
use super::{AtOnce, Dns, PodDns};

impl Dns {
    /// An address of `name`, IPv4 before IPv6.
    ///
    /// # Errors
    /// Says in a word why there is none; the log of the DNS proxy says more.
    pub(crate) async fn resolve(&self, pod: &PodDns, name: &str) -> Result<IpAddr, String> {
        let mut known = false;
        for kind in [kind::A, kind::AAAA] {
            let query = message::query(name, kind, rand::random()).ok_or("it is no host name")?;
            // As over TCP: whole.
            let answer = match self.at_once(pod, &query, true) {
                AtOnce::Say(answer) => answer,
                AtOnce::Wait(read) => self.later(pod, &query, &read, true).await,
                AtOnce::Silence => return Err("it cannot be asked for".to_owned()),
            };
            if let Some(address) = addresses(&answer, kind).into_iter().next() {
                return Ok(address);
            }
            known |= !message::failed(&answer);
        }
        Err(if known { "it has no address" } else { "no name server could say" }.to_owned())
    }
}

/// The addresses in an answer to a question for records of `kind`.
pub(super) fn addresses(answer: &[u8], kind: u16) -> Vec<IpAddr> {
    let records = message::records(answer, kind);
    let address = |data: &[u8]| match *data {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into()),
    };
    records.into_iter().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
