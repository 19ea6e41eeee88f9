//! Thousands of mutated messages through decode, apply and decide, the same ones every time. `fuzz/` searches further.

mod properties;
// Not as a dependency: the tests of this crate need nothing but it.
#[allow(unreachable_pub, reason = "it is a module of the testkit")]
#[path = "../../testkit/src/random.rs"]
mod random;
mod samples;

use mesh_model::resource::{Kind, Resource};
use random::Random;

const ROUNDS: usize = 30_000;

/// One small damage: a byte or bit changed, a piece doubled, cut out or off, or another message's tail joined on.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len());
    let end = (at + 1 + random.below(8)).min(bytes.len());
    match random.below(12) {
        _ if bytes.is_empty() => bytes.push(random.next() as u8),
        // Mostly in place: what moves bytes breaks the lengths around them, and is refused at the door.
        0..=3 => bytes[at] ^= 1 << random.below(8),
        4..=6 => bytes[at] = random.next() as u8,
        7 => bytes.insert(at, random.next() as u8),
        8 => bytes.extend_from_within(at..end),
        9 => drop(bytes.drain(at..end)),
        10 => bytes.truncate(at),
        _ => bytes.extend_from_slice(&other[random.below(other.len())..]),
    }
}

#[test]
fn damaged_messages_are_refused_or_understood() {
    let seeds = samples::all().map(|r| r.encode().to_vec());
    let mut random = Random(2026);
    let mut understood = 0;
    for round in 0..ROUNDS {
        let mut bytes = seeds[round % seeds.len()].clone();
        let other = &seeds[random.below(seeds.len())];
        for _ in 0..=random.below(3) {
            mutate(&mut bytes, other, &mut random);
        }
        understood += properties::resource(&bytes);
        let mut caller = random.next().to_be_bytes().to_vec();
        caller.extend_from_slice(&bytes);
        properties::policy(&caller);
    }
    // Were nearly all refused at the door, the rest would not have been tried.
    assert!(understood > ROUNDS / 20, "only {understood} of {ROUNDS} were understood");
    assert!(understood < 2 * ROUNDS, "nothing was refused");
}

#[test]
fn damaged_names_are_refused_or_printed_as_they_were() {
    let seeds = [&b"spiffe://cluster.local/ns/shop/sa/cart"[..], b"shop/cart.shop.svc.cluster.local"];
    let mut random = Random(26);
    for round in 0..ROUNDS {
        let mut bytes = seeds[round % 2].to_vec();
        mutate(&mut bytes, seeds[1], &mut random);
        properties::names(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn damaged_targets_are_refused_or_canonical() {
    let seeds = [
        &b"/a/%2e%2e/b//c;d=e/./%7Ef?g=h&i#j\nShop.Example:8080"[..],
        b"http://shop.example/a/..;/%2f%5c%c3%a9\nshop.example",
        b"/..%2fa%2F.%2f/../..\n[fd00::1]:80",
    ];
    let mut random = Random(4);
    for round in 0..ROUNDS {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..=random.below(6) {
            mutate(&mut bytes, seeds[random.below(seeds.len())], &mut random);
        }
        properties::canonical_request(&bytes);
    }
}

#[test]
fn rules_are_found_as_by_looking_at_all_of_them() {
    let mut random = Random(7);
    for _ in 0..ROUNDS {
        let bytes: Vec<u8> = (0..96).map(|_| random.next() as u8).collect();
        properties::routes::select(&bytes);
    }
}

/// Every beginning of a message is a message, another message, or refused; never a panic.
#[test]
fn cut_short_anywhere() {
    for resource in samples::all() {
        let bytes = resource.encode();
        for end in 0..bytes.len() {
            assert_ne!(Resource::decode(resource.kind(), bytes.slice(..end)).ok(), Some(resource.clone()), "at {end}");
        }
    }
    assert!(Resource::decode(Kind::Address, Default::default()).is_err());
}

#[test]
fn damaged_tokens_are_refused_or_read_as_they_are() {
    // {"alg":"RS256","kid":"1"} and {"iss":"a","aud":"a","exp":2000000}
    const TOKEN: &str =
        "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJpc3MiOiJhIiwiYXVkIjoiYSIsImV4cCI6MjAwMDAwMH0.c2lnbmF0dXJl";
    let seeds =
        [TOKEN.to_owned(), format!("Bearer {TOKEN}"), format!("b=c; a={TOKEN}"), format!("b=c&a={TOKEN}&%61=x")];
    let mut random = Random(27);
    for round in 0..ROUNDS {
        let mut bytes = seeds[round % seeds.len()].clone().into_bytes();
        if round >= seeds.len() {
            mutate(&mut bytes, seeds[3].as_bytes(), &mut random);
        }
        properties::token(&bytes);
    }
}

#[test]
fn whatever_is_said_of_a_trace_the_next_hop_is_told_well() {
    const IDS: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
    let seeds = [
        format!("traceparent 00-{IDS}-01\ntracestate a=1,b@c=2"),
        format!("b3 {IDS}-d-00f067aa0ba902b7"),
        format!("x-b3-traceid {}\nx-b3-spanid {}\nx-b3-sampled 0\nx-b3-flags 1", &IDS[..32], &IDS[33..]),
        format!("traceparent 00-{IDS}-00\nb3 1\nx-b3-traceid 00f067aa0ba902b7\nx-b3-spanid 00f067aa0ba902b7"),
    ];
    let mut random = Random(31);
    for round in 0..ROUNDS {
        let mut bytes = seeds[round % seeds.len()].clone().into_bytes();
        if round >= seeds.len() {
            mutate(&mut bytes, seeds[3].as_bytes(), &mut random);
        }
        properties::traces::trace(&bytes);
    }
}
