//! Thousands of damaged DNS packets and SOCKS messages, the same ones every time. `fuzz/` searches further.

mod properties;

use mesh_testkit::random::Random;

const ROUNDS: usize = 30_000;

/// A query for an address, with EDNS and a cookie; and what a server answered to it, with a compressed name.
const SEEDS: [&[u8]; 3] = [
    b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01\x04cart\x04shop\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x0812345678",
    b"\x12\x34\x81\x80\0\x01\0\x01\0\x01\0\0\x04cart\x04shop\0\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\x0a\0\0\x01\
      \xc0\x0c\0\x06\0\x01\0\0\0\x1e\0\x16\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05",
    b"\xff\xff\x01\0\0\x01\0\0\0\0\0\0\x3faaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\0\0\x1c\0\x01",
];

/// Requests for an address of either family and for a name, and a greeting.
const SOCKS: [&[u8]; 4] = [
    b"\x05\x01\0\x01\x0a\0\0\x01\0\x50",
    b"\x05\x01\0\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\xbb",
    b"\x05\x01\0\x03\x09cart.shop\0\x50GET /",
    b"\x05\x03\x02\x01\0",
];

fn damage(random: &mut Random, seed: &[u8]) -> Vec<u8> {
    let mut packet = seed.to_vec();
    for _ in 0..random.below(4) {
        let at = random.below(packet.len());
        match random.below(6) {
            _ if packet.is_empty() => {}
            0 | 1 => packet[at] ^= 1 << random.below(8),
            2 | 3 => packet[at] = random.next() as u8,
            4 => packet.insert(at, random.next() as u8),
            _ => packet.truncate(at),
        }
    }
    packet
}

#[test]
fn damaged_packets_are_refused_or_understood() {
    let mut random = Random(2026);
    let mut questions = 0;
    for round in 0..ROUNDS {
        questions += usize::from(properties::dns(&damage(&mut random, SEEDS[round % SEEDS.len()])));
    }
    // Were nearly all refused at the door, the rest would not have been tried.
    assert!(questions > ROUNDS / 5, "{questions}");
}

#[test]
fn damaged_socks_messages_are_refused_or_understood() {
    let mut random = Random(1928);
    let mut requests = 0;
    for round in 0..ROUNDS {
        requests += usize::from(properties::socks(&damage(&mut random, SOCKS[round % SOCKS.len()])));
    }
    assert!(requests > ROUNDS / 5, "{requests}");
}
