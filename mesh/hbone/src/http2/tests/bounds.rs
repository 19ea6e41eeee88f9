//! Where each bound is: what is just within it passes, and one more does not.

use super::super::header_block::MAX_BLOCK;
use super::super::kept::SLACK;
use super::super::settings::MAX_LIST;
use mesh_testkit::frames::field;

use super::*;

fn reset(stream: u32, code: Code) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &(code as u32).to_be_bytes())
}

/// A stream of `server` that its application has let in.
fn let_in(server: &mut Bare, id: u32) {
    server.feed(&connect(id)).unwrap();
    server.asked().unwrap();
    server.accept(id);
}

#[test]
fn a_header_block_is_no_longer_than_it_may_be() {
    let mut server = server(Settings::default());
    let piece = vec![0; 1_000];
    server.feed(&frame(kind::HEADERS, 0, 1, &piece)).unwrap();
    let (more, code) = flood(&mut server, (0..1_000).map(|_| frame(kind::CONTINUATION, 0, 1, &piece)));
    assert_eq!((more, code), (MAX_BLOCK / 1_000 - 1, Some(Code::EnhanceYourCalm)));
}

/// What arrives byte by byte takes up what has arrived, not twice that and not what was announced.
#[test]
fn unfinished_headers_take_up_no_more_than_was_sent() {
    let mut continued = server(Settings::default());
    continued.feed(&frame(kind::HEADERS, 0, 1, &[0; 40_000])).unwrap();
    for sent in 40_001..43_000 {
        continued.feed(&frame(kind::CONTINUATION, 0, 1, &[0])).unwrap();
        assert!(continued.unfinished() <= sent + SLACK, "{} for {sent}", continued.unfinished());
    }
    let mut partial = server(Settings::default());
    let whole = frame(kind::HEADERS, 0, 1, &[0; 60_000]);
    for (sent, pieces) in whole[..59_000].chunks(100).enumerate() {
        partial.feed(pieces).unwrap();
        let sent = (sent + 1) * 100;
        assert!(partial.unfinished() <= sent + SLACK, "{} for {sent}", partial.unfinished());
    }
}

#[test]
fn a_header_list_is_no_larger_than_it_may_be() {
    // RFC 9113 6.5.2: names, values, and 32 for each of the fields.
    let others = ":method".len() + "CONNECT".len() + ":authority".len() + "a:1".len() + "x".len() + 3 * 32;
    for (value, taken) in [(MAX_LIST - others, true), (MAX_LIST - others + 1, false)] {
        let mut server = server(Settings::default());
        let block = [CONNECT, &field("x", &vec![b'v'; value])].concat();
        server.feed(&frame(kind::HEADERS, flag::END_HEADERS, 1, &block)).unwrap();
        assert_eq!(server.asked().is_some(), taken, "{value}");
        if !taken {
            assert_eq!(server.said(), reset(1, Code::EnhanceYourCalm));
        }
    }
    let mut server = server(Settings::default());
    let block = [CONNECT, &field("x", &[b'v'; 16_000]).repeat(4), &field("y", &[b'v'; 1_500])].concat();
    let error = server.feed(&frame(kind::HEADERS, flag::END_HEADERS, 1, &block)).unwrap_err();
    assert_eq!(error.code, Code::EnhanceYourCalm, "four times as much ends the connection");
}

#[test]
fn there_are_no_more_streams_than_there_may_be() {
    let mut server = server(Settings { server_streams: 3, ..Settings::default() });
    for id in [1, 3, 5] {
        let_in(&mut server, id);
    }
    server.said();
    server.feed(&connect(7)).unwrap();
    assert_eq!((server.said(), server.held().1), (reset(7, Code::RefusedStream), 3));
    // One that the peer has reset counts until its owner lets go of it.
    server.feed(&reset(1, Code::Cancel)).unwrap();
    server.feed(&connect(9)).unwrap();
    assert_eq!((server.said(), server.held().1), (reset(9, Code::RefusedStream), 3));
    server.release(1);
    let_in(&mut server, 11);
}

#[test]
fn nobody_sends_more_than_a_window() {
    let settings = || Settings { stream_window: 20_000, connection_window: 65_535, ..Settings::default() };
    let data = |id, bytes: usize| frame(kind::DATA, 0, id, &vec![b'x'; bytes]);
    for (name, sent, more) in [
        ("a stream's", vec![(1, 16_000), (1, 4_000)], 1),
        ("the connection's", vec![(1, 20_000), (3, 20_000), (5, 20_000), (7, 5_535)], 7),
    ] {
        let mut server = server(settings());
        for id in [1, 3, 5, 7] {
            let_in(&mut server, id);
        }
        for (id, bytes) in sent {
            server.feed(&data(id, bytes)).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        assert_eq!(server.feed(&data(more, 1)).unwrap_err().code, Code::FlowControl, "{name}");
    }
}

#[test]
fn nothing_comes_after_an_end() {
    let end = frame(kind::DATA, flag::END_STREAM, 1, b"x");
    let trailers = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &field("x", b"y"));
    for first in [&end, &trailers] {
        for (name, then) in [("DATA", frame(kind::DATA, 0, 1, b"y")), ("HEADERS", trailers.clone())] {
            let mut server = server(Settings::default());
            let_in(&mut server, 1);
            server.feed(first).unwrap();
            assert_eq!(server.feed(&then).unwrap_err().code, Code::StreamClosed, "{name}");
        }
    }
}

/// Rounds of what carries nothing until the connection has enough of them: 4,000 by what one costs.
#[test]
fn everything_that_carries_nothing_has_its_price() {
    let odd = |round: u32| 2 * round + 1;
    let none = Settings { server_streams: 0, ..Settings::default() };
    let window = |id: u32, more: u32| frame(kind::WINDOW_UPDATE, 0, id, &more.to_be_bytes());
    type Round = Box<dyn Fn(u32) -> Vec<u8>>;
    let rows: [(&str, Settings, Vec<u8>, Round, usize); 12] = [
        ("PING", Settings::default(), vec![], Box::new(|_| frame(kind::PING, 0, 0, &[0; 8])), 1),
        ("SETTINGS", Settings::default(), vec![], Box::new(|_| frame(kind::SETTINGS, 0, 0, &[])), 1),
        ("an entry of SETTINGS", Settings::default(), vec![], Box::new(|_| frame(kind::SETTINGS, 0, 0, &[0; 6])), 2),
        ("windows", Settings::default(), vec![], Box::new(move |_| window(0, 1)), 1),
        ("PRIORITY", Settings::default(), vec![], Box::new(|_| frame(kind::PRIORITY, 0, 1, &[0; 5])), 1),
        ("unknown", Settings::default(), vec![], Box::new(|_| frame(99, 0, 1, &[0; 5])), 1),
        ("empty DATA", Settings::default(), connect(1), Box::new(|_| frame(kind::DATA, 0, 1, &[])), 1),
        (
            "CONTINUATION",
            Settings::default(),
            frame(kind::HEADERS, 0, 1, CONNECT),
            Box::new(|_| frame(kind::CONTINUATION, 0, 1, &[])),
            1,
        ),
        (
            "requests taken back",
            Settings::default(),
            vec![],
            Box::new(move |r| [connect(odd(r)), reset(odd(r), Code::Cancel)].concat()),
            4 + 8,
        ),
        ("requests refused for their number", none, vec![], Box::new(move |r| connect(odd(r))), 4 + 4),
        (
            "broken requests",
            Settings::default(),
            vec![],
            Box::new(move |r| frame(kind::HEADERS, flag::END_HEADERS, odd(r), b"\x01\x03a:1")),
            4 + 8,
        ),
        (
            "streams made to be reset",
            Settings::default(),
            vec![],
            Box::new(move |r| [connect(odd(r)), window(odd(r), 0)].concat()),
            4 + 1 + 8,
        ),
    ];
    let mut wrong = Vec::new();
    for (name, settings, first, round, cost) in rows {
        let mut server = server(settings);
        server.feed(&first).unwrap();
        let (mut taken, mut code) = (0, None);
        while code.is_none() && taken < 10_000 {
            code = server.feed(&round(taken as u32)).err().map(|e| e.code);
            // Nobody is kept waiting by requests, and all answers are read.
            while let Some((id, ..)) = server.asked() {
                server.release(id);
            }
            server.said();
            taken += 1;
        }
        wrong.extend(priced(name, taken, code, cost));
    }
    let (mut client, stream) = client();
    let early = frame(kind::HEADERS, flag::END_HEADERS, stream, b"\x08\x03103");
    let (taken, code) = flood(&mut client, (0..10_000).map(|_| early.clone()));
    wrong.extend(priced("answers before the answer", taken, code, 1));
    // Opened and let go of by its owner at once: no reset to be paid for, but it was opened.
    let mut server = server(Settings::default());
    let (mut taken, mut code) = (0, None);
    while code.is_none() && taken < 10_000 {
        code = server.feed(&connect(odd(taken as u32))).err().map(|e| e.code);
        while let Some((id, ..)) = server.asked() {
            server.release(id);
        }
        server.said();
        taken += 1;
    }
    wrong.extend(priced("opened streams", taken, code, 4));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What is wrong with a price, if anything.
pub(super) fn priced(name: &str, taken: usize, code: Option<Code>, cost: usize) -> Option<String> {
    let expected = 4_000 / cost;
    // What came first cost a little, and while they came time has earned a little.
    let right = (expected - 6..expected + expected / 5 + 5).contains(&taken) && code == Some(Code::EnhanceYourCalm);
    (!right).then(|| format!("{name}: {taken} of them, expected {expected}, {code:?}"))
}
