use super::*;

/// A query for one name. The letters' case stays.
pub(crate) fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut packet = id.to_be_bytes().to_vec();
    packet.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    packet.extend(encode_name(name).unwrap());
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&CLASS_IN.to_be_bytes());
    packet
}

/// The same, able to take this much over UDP.
pub(crate) fn with_edns(query: &[u8], payload: u16) -> Vec<u8> {
    let mut packet = query.to_vec();
    packet[11] = 1;
    packet.extend_from_slice(&[0, 0, 41]);
    packet.extend_from_slice(&payload.to_be_bytes());
    packet.extend_from_slice(&[0; 6]);
    packet
}

/// The same, with an EDNS cookie.
pub(crate) fn with_edns_option(query: &[u8]) -> Vec<u8> {
    let mut packet = with_edns(query, 1232);
    let length = packet.len();
    packet[length - 1] = 12;
    packet.extend_from_slice(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    packet
}

/// A name, a type, a TTL and the data.
pub(crate) type TestRecord<'a> = (&'a str, u16, u32, &'a [u8]);

/// What a server says to a query. It does not compress names, as ours does: others need not.
pub(crate) fn response(query: &[u8], rcode: u8, answers: &[TestRecord<'_>], authority: &[TestRecord<'_>]) -> Vec<u8> {
    let mut out = query[..read_question(query).unwrap().end].to_vec();
    out[2] |= 0x80;
    out[3] = 0x80 | rcode;
    out[6..8].copy_from_slice(&(answers.len() as u16).to_be_bytes());
    out[8..10].copy_from_slice(&(authority.len() as u16).to_be_bytes());
    out[10..12].fill(0);
    for (name, kind, ttl, data) in answers.iter().chain(authority) {
        out.extend(encode_name(name).unwrap());
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(data);
    }
    out
}

/// What a client reads in an answer: its addresses, and whether it is only a part.
pub(crate) fn read_answer(answer: &[u8]) -> (Vec<IpAddr>, bool) {
    let mut at = read_question(answer).unwrap().end;
    let mut addresses = Vec::new();
    for _ in 0..counts(answer)[1] {
        let record = Record::at(answer, at).unwrap();
        at = record.end;
        match record.kind {
            kind::A => addresses.push(<[u8; 4]>::try_from(record.data).unwrap().into()),
            kind::AAAA => addresses.push(<[u8; 16]>::try_from(record.data).unwrap().into()),
            _ => {}
        }
    }
    (addresses, answer[2] & 2 != 0)
}

fn addresses(count: u8) -> Vec<IpAddr> {
    (0..count).map(|i| [10, 0, 0, i].into()).collect()
}

#[test]
fn queries_are_read() {
    let plain = query(7, "Cart.Shop", kind::A);
    let asked = read(&plain).unwrap();
    let question = asked.question.clone().unwrap();
    assert_eq!((question.name.as_str(), question.kind, question.class), ("cart.shop", kind::A, CLASS_IN));
    assert_eq!((asked.edns, asked.udp_limit()), (None, 512));
    for (payload, limit) in [(0, 512), (1232, 1232), (65_535, 4096)] {
        assert_eq!(read(&with_edns(&plain, payload)).unwrap().udp_limit(), limit);
    }
    assert!(read(&with_edns_option(&plain)).unwrap().edns.unwrap().options);
    // The root, a dot inside of a label, and what is no text: none can be taken for a hostname.
    let mut root = query(7, "x", kind::A);
    root.splice(12..15, [0]);
    assert_eq!(read(&root).unwrap().question.unwrap().name, "");
    let mut dot = query(7, "a-b", kind::A);
    dot[14] = b'.';
    assert_eq!(read(&dot).unwrap().question.unwrap().name, "a\\046b");
}

#[test]
fn what_is_no_query() {
    let good = query(7, "a.example", kind::A);
    let edited = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    let ignored = |packet: &[u8]| matches!(read(packet), Err(Unreadable::Ignore(_)));
    let malformed = |packet: &[u8]| matches!(read(packet), Err(Unreadable::Malformed(_)));
    assert!(ignored(&[]) && ignored(&good[..11]));
    assert!(ignored(&edited(2, 0x81)), "an answer: two proxies must not talk to each other for ever");
    assert!(malformed(&edited(5, 2)), "two questions");
    assert!(malformed(&good[..good.len() - 1]), "cut off");
    assert!(malformed(&edited(12, 0xc0)), "a pointer in the first name");
    assert!(malformed(&edited(11, 1)), "a record that is not there");
    assert!(malformed(&[&good[..], &[0; MAX_QUERY]].concat()), "too long");
    let twice = with_edns(&with_edns(&good, 512), 512);
    assert!(malformed(&[&twice[..11], &[2], &twice[12..]].concat()), "EDNS twice");
    let long = [&good[..12], &[63; 64 * 4], &[0, 0, 1, 0, 1]].concat();
    assert!(malformed(&long), "a name of more than 255 bytes");
    // An update is read no further: it is forwarded as it is.
    assert_eq!(read(&edited(2, 0x28)).unwrap(), Query { question: None, edns: None });
    assert_eq!(read(&edited(5, 0)).unwrap().question, None);
}

#[test]
fn answers_echo_id_and_question_and_are_authoritative() {
    let packet = query(0xbeef, "CaRt.shop", kind::A);
    let asked = read(&packet).unwrap();
    let out = answer(&packet, &asked, &[], &addresses(2), Duration::from_secs(30), 512);
    assert_eq!(out[..2], [0xbe, 0xef]);
    // QR, AA, RD as asked, RA; NOERROR.
    assert_eq!(out[2..4], [0x85, 0x80]);
    assert_eq!(counts(&out), [1, 2, 0, 0]);
    assert_eq!(out[12..packet.len()], packet[12..], "the letters' case, too: clients check it");
    let first = Record::at(&out, packet.len()).unwrap();
    assert_eq!((first.kind, first.class, first.ttl), (kind::A, CLASS_IN, 30));
    assert_eq!(read_answer(&out), (addresses(2), false));

    let edns = with_edns(&packet, 1232);
    let out = answer(&edns, &read(&edns).unwrap(), &[], &[], Duration::from_secs(30), 512);
    assert_eq!((counts(&out), rcode(&out)), ([1, 0, 0, 1], 0), "no address is an answer; EDNS is answered with EDNS");
    assert_eq!(Record::at(&out, packet.len()).unwrap().kind, kind::OPT);
}

#[test]
fn an_alias_carries_the_addresses() {
    let packet = query(1, "www.example.shop.svc.cluster.local", kind::A);
    let asked = read(&packet).unwrap();
    let out = answer(&packet, &asked, &["www.example"], &addresses(1), Duration::from_secs(30), 512);
    let alias = Record::at(&out, packet.len()).unwrap();
    assert_eq!((alias.kind, alias.data), (kind::CNAME, encode_name("www.example").unwrap().as_slice()));
    let address = Record::at(&out, alias.end).unwrap();
    assert_eq!(out[alias.end..alias.end + 2], pointer(alias.end - alias.data.len()).to_be_bytes());
    assert_eq!((address.kind, address.end), (kind::A, out.len()));
}

#[test]
fn what_does_not_fit_is_said_to_be_missing() {
    let packet = query(1, "many.shop", kind::A);
    let asked = read(&packet).unwrap();
    let many = addresses(200);
    let (over_udp, part) =
        read_answer(&answer(&packet, &asked, &[], &many, Duration::from_secs(30), asked.udp_limit()));
    assert!(part && over_udp.len() == 30, "{}", over_udp.len());
    let large = with_edns(&packet, 4096);
    let asked = read(&large).unwrap();
    let out = answer(&large, &asked, &[], &many, Duration::from_secs(30), asked.udp_limit());
    assert!(out.len() <= asked.udp_limit());
    assert_eq!(read_answer(&out), (many, false));
    let most: Vec<IpAddr> = (0..5000_u16).map(|i| [0, 0, 0, 0, 0, 0, 0, i].into()).collect();
    let out = answer(&packet, &read(&packet).unwrap(), &[], &most, Duration::from_secs(30), 65_535);
    assert_eq!((read_answer(&out).0.len(), read_answer(&out).1), (MAX_ADDRESSES, false));
}

#[test]
fn a_refusal_is_never_longer_than_the_query() {
    let plain = query(1, "a.example", kind::A);
    for packet in [plain.clone(), with_edns(&plain, 1232), with_edns_option(&plain)] {
        let asked = read(&packet).unwrap();
        let out = refuse(&packet, Some(&asked), Rcode::ServFail);
        assert!(out.len() <= packet.len() && rcode(&out) == 2 && is_response(&out));
    }
    assert_eq!(refuse(&plain[..20], None, Rcode::FormErr).len(), HEADER);
}

#[test]
fn only_the_answer_to_the_question_is_one() {
    let asked = query(1, "a.example", kind::A);
    let good = response(&query(9, "A.EXAMPLE", kind::A), 0, &[("a.example", 1, 60, &[192, 0, 2, 1])], &[]);
    assert!(answers(&good, &asked, 9), "a server may write the name in its own letters");
    assert!(!answers(&good, &asked, 8), "another id");
    assert!(!answers(&query(9, "a.example", kind::A), &asked, 9), "a question");
    assert!(!answers(&response(&query(9, "b.example", kind::A), 0, &[], &[]), &asked, 9), "another name");
    assert!(!answers(&response(&query(9, "a.example", kind::AAAA), 0, &[], &[]), &asked, 9), "another type");
    assert!(!answers(&good[..11], &asked, 9) && !answers(&[], &asked, 9));
    let mut bare = good[..12].to_vec();
    bare[4..12].fill(0);
    assert!(!answers(&bare, &asked, 9), "nothing at all");
    bare[3] = 0x81;
    assert!(answers(&bare, &asked, 9), "a server that could not read the question");
}

#[test]
fn the_shortest_ttl_counts() {
    let asked = query(1, "a.example", kind::A);
    let address = [192, 0, 2, 1];
    let two = [("a.example", 5, 300, &[0][..]), ("b.example", 1, 20, &address)];
    assert_eq!(lifetime(&response(&asked, 0, &two, &[])).unwrap().lasts, Duration::from_secs(20));
    let high_bit = [("a.example", 1, 0x8000_0001, &address[..])];
    assert_eq!(lifetime(&response(&asked, 0, &high_bit, &[])), None);
    // OPT has no TTL: its flags stand there.
    let mut edns = with_edns(&response(&asked, 0, &two[..1], &[]), 1232);
    let before = edns.clone();
    let lifetime = lifetime(&edns).unwrap();
    age(&mut edns, &lifetime, Duration::from_secs(1));
    assert_eq!(edns.iter().zip(&before).filter(|(a, b)| a != b).count(), 1);
}

#[test]
fn an_alias_that_does_not_fit_is_said_to_be_missing() {
    let label = "a".repeat(63);
    let long = [label.as_str(); 3].join(".") + "." + &"a".repeat(60);
    let packet = query(1, &long, kind::A);
    let asked = read(&packet).unwrap();
    let out = answer(&packet, &asked, &[&long], &addresses(1), Duration::from_secs(30), asked.udp_limit());
    assert!(out.len() <= 512 && read_answer(&out) == (vec![], true) && counts(&out)[1] == 0);
}
