//! What must hold for anything that a stranger sends to ztunnel; called by the seeded test beside this and by the targets in `fuzz/`.
#![allow(unreachable_pub, reason = "also a module of the crate in `fuzz/`")]

use std::time::Duration;

use ztunnel::dns::message::{self, Rcode, Unreadable};
use ztunnel::socks::{self, LONGEST, Read, Refused, Target};

/// A packet at a pod's DNS proxy: as a query, and as what a server answers to it. Nothing that is said to what cannot be
/// read is longer than it was. Whether it was a question.
pub fn dns(packet: &[u8]) -> bool {
    let mut aged = packet.to_vec();
    if let Some(lifetime) = message::lifetime(packet) {
        message::age(&mut aged, &lifetime, Duration::from_secs(1));
        assert_eq!(aged.len(), packet.len());
    }
    message::failed(packet);
    message::is_absence(packet);
    let query = match message::read(packet) {
        Err(Unreadable::Ignore(_)) => return false,
        Err(Unreadable::Malformed(_)) => {
            assert!(message::refuse(packet, None, Rcode::FormErr).len() <= packet.len());
            return false;
        }
        Ok(query) => query,
    };
    let id = u16::from_be_bytes(message::id(packet));
    let refusal = message::refuse(packet, Some(&query), Rcode::ServFail);
    assert!(refusal.len() <= packet.len(), "an amplifier");
    assert!(message::answers(&refusal, packet, id), "what we say answers what was asked");
    let Some(question) = &query.question else { return false };
    let addresses = [[10, 0, 0, 1].into(); 300];
    let ttl = Duration::from_secs(30);
    let answer = message::answer(packet, &query, &[&question.name], &addresses, ttl, query.udp_limit());
    assert!(answer.len() <= query.udp_limit(), "longer than the client can take");
    assert!(message::answers(&answer, packet, id));
    assert_eq!(message::lifetime(&answer).is_some(), answer[2] & 2 == 0, "whole, it may be remembered");
    let target = message::Target { name: question.name.clone(), port: 80, addresses: addresses[..3].to_vec() };
    let targets = vec![target; 40];
    let places = message::services(packet, &query, Some(&question.name), &targets, ttl, query.udp_limit());
    assert!(places.len() <= query.udp_limit(), "longer than the client can take");
    assert!(message::answers(&places, packet, id));
    true
}

/// What a SOCKS client says: never is more waited for than it has to say, and never is a byte read that is for the other
/// end. Whether it was a whole request.
pub fn socks(bytes: &[u8]) -> bool {
    hear(bytes, socks::greeting);
    let Some(Ok(target)) = hear(bytes, socks::request) else { return false };
    if let Target::Name(name, _) = &target {
        assert!(name.len() <= 253 && name.parse::<std::net::IpAddr>().is_err(), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)), "{name}");
        assert!(message::query(name, message::kind::A, 0).is_some(), "a name that could be asked for: {name}");
    }
    true
}

/// Reads as the conversation does; none if the client did not say enough.
fn hear<T>(bytes: &[u8], read: impl Fn(&[u8]) -> Result<Read<T>, Refused>) -> Option<Result<T, Refused>> {
    let mut length = 0;
    loop {
        match read(bytes.get(..length)?) {
            Ok(Read::Whole(message)) => return Some(Ok(message)),
            Err(refused) => return Some(Err(refused)),
            Ok(Read::More(more)) => {
                assert!(more > 0 && length + more <= LONGEST, "{more} more after {length}");
                length += more;
            }
        }
    }
}
