//! What RFC 9113 forbids and a peer that keeps to it never does.

use super::super::frame::Header;
use super::*;

/// `:method: CONNECT`, `:authority: a:1`, and a field of a static name or one of its own.
fn connect_with(more: &[u8]) -> Vec<u8> {
    [CONNECT, more].concat()
}

fn headers(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flags | flag::END_HEADERS, stream, block)
}

fn setting(name: u8, value: u8) -> Vec<u8> {
    frame(kind::SETTINGS, 0, 0, &[0, name, 0, 0, 0, value])
}

/// What becomes of a peer.
#[derive(Debug, PartialEq)]
enum Fate {
    /// It goes on.
    Taken,
    /// Its stream is reset with this code.
    Reset(u32),
    /// Its connection ends with this code.
    Ended(Code),
}

/// Feeds `frames`; the stream that may be reset by them is `id`.
fn fate(end: &mut Bare, id: u32, frames: &[u8]) -> Fate {
    match end.feed(frames) {
        Err(error) => Fate::Ended(error.code),
        Ok(()) => {
            let said = end.said();
            let (mut parser, mut input) = (Parser::default(), &said[..]);
            while let Some(piece) = parser.next(&mut input, 1 << 14).unwrap() {
                if let Piece::Frame { header: Header { kind: kind::RST_STREAM, stream, .. }, payload } = piece
                    && stream == id
                {
                    return Fate::Reset(u32::from_be_bytes(payload[..].try_into().unwrap()));
                }
            }
            Fate::Taken
        }
    }
}

const PROTOCOL: Fate = Fate::Reset(Code::Protocol as u32);

#[test]
fn what_a_client_must_not_say() {
    let end = flag::END_STREAM;
    let mut wrong = Vec::new();
    for (name, id, frames, expected) in [
        ("a request", 9, connect(9), Fate::Taken),
        ("one below an earlier one", 5, [connect(7), connect(5)].concat(), Fate::Ended(Code::Protocol)),
        ("one on a stream that was", 7, [connect(7), connect(9), connect(3)].concat(), Fate::Ended(Code::Protocol)),
        ("no push", 0, setting(2, 0), Fate::Taken),
        ("push, if it must be", 0, setting(2, 1), Fate::Taken),
        ("push of two", 0, setting(2, 2), Fate::Ended(Code::Protocol)),
        ("trailers", 9, [connect(9), headers(end, 9, b"\x00\x01x\x01y")].concat(), Fate::Taken),
        ("a pseudo-field in trailers", 9, [connect(9), headers(end, 9, b"\x84")].concat(), PROTOCOL),
        ("a status in trailers", 9, [connect(9), headers(end, 9, OK)].concat(), PROTOCOL),
        ("broken trailers", 9, [connect(9), headers(end, 9, b"\x00\x01X\x01y")].concat(), PROTOCOL),
        ("trailers that end nothing", 9, [connect(9), headers(0, 9, b"\x00\x01x\x01y")].concat(), PROTOCOL),
        ("te: trailers", 9, headers(0, 9, &connect_with(b"\x00\x02te\x08trailers")), Fate::Taken),
        ("te: gzip", 9, headers(0, 9, &connect_with(b"\x00\x02te\x04gzip")), PROTOCOL),
        ("te: trailers, gzip", 9, headers(0, 9, &connect_with(b"\x00\x02te\x0etrailers, gzip")), PROTOCOL),
        ("CONNECT with a path", 9, headers(0, 9, b"\x02\x07CONNECT\x84\x01\x03a:1"), PROTOCOL),
        ("CONNECT with a scheme", 9, headers(0, 9, b"\x02\x07CONNECT\x87\x01\x03a:1"), PROTOCOL),
        ("a CONNECT of RFC 8441", 9, headers(0, 9, b"\x02\x07CONNECT\x00\x09:protocol\x01x\x01\x03a:1"), PROTOCOL),
        ("a GET, to be refused by others", 9, headers(0, 9, b"\x82\x87\x84\x01\x03a:1"), Fate::Taken),
        ("two paths", 9, headers(0, 9, b"\x82\x87\x84\x84\x01\x03a:1"), PROTOCOL),
        ("two schemes", 9, headers(0, 9, b"\x82\x87\x87\x84\x01\x03a:1"), PROTOCOL),
    ] {
        let mut server = server(Settings::default());
        let fate = fate(&mut server, id, &frames);
        wrong.extend((fate != expected).then(|| format!("{name}: {fate:?}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// RFC 9113 4.3: a header block is one piece, whatever frames it comes in, and 3.4: SETTINGS are the first of all.
#[test]
fn nothing_comes_between_the_parts_of_a_header_block_nor_before_settings() {
    let begun = |frames: Vec<u8>| [frame(kind::HEADERS, 0, 9, &CONNECT[..9]), frames].concat();
    let rest = |id| frame(kind::CONTINUATION, flag::END_HEADERS, id, &CONNECT[9..]);
    let mut wrong = Vec::new();
    for (name, frames, expected) in [
        ("its rest", begun(rest(9)), Fate::Taken),
        ("another's rest", begun(rest(11)), Fate::Ended(Code::Protocol)),
        ("a rest of nothing", rest(9), Fate::Ended(Code::Protocol)),
        ("another block", begun(connect(11)), Fate::Ended(Code::Protocol)),
        ("SETTINGS", begun(setting(2, 0)), Fate::Ended(Code::Protocol)),
        ("PING", begun(frame(kind::PING, 0, 0, &[0; 8])), Fate::Ended(Code::Protocol)),
        ("WINDOW_UPDATE", begun(frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])), Fate::Ended(Code::Protocol)),
        ("its own reset", begun(frame(kind::RST_STREAM, 0, 9, &[0; 4])), Fate::Ended(Code::Protocol)),
        ("a frame that nobody knows", begun(frame(0x7f, 0, 0, b"x")), Fate::Ended(Code::Protocol)),
    ] {
        let fate = fate(&mut server(Settings::default()), 9, &frames);
        wrong.extend((fate != expected).then(|| format!("{name}: {fate:?}")));
    }
    for (name, first) in [("PING", frame(kind::PING, 0, 0, &[0; 8])), ("a request", connect(1))] {
        let mut server = Bare::new(Role::Server, Settings::default());
        server.feed(PREFACE).unwrap();
        let fate = fate(&mut server, 1, &first);
        wrong.extend((fate != Fate::Ended(Code::Protocol)).then(|| format!("{name} first: {fate:?}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Trailers may be on their way when their stream ends on our side.
#[test]
fn trailers_of_what_is_over_are_let_pass() {
    let mut server = server(Settings::default());
    server.feed(&connect(1)).unwrap();
    server.release(1);
    let trailers = headers(flag::END_STREAM, 1, b"\x00\x01x\x01y");
    server.said();
    assert_eq!(fate(&mut server, 1, &trailers), Fate::Taken);
}

#[test]
fn what_a_server_must_not_say() {
    let mut wrong = Vec::new();
    let answered = |more: Vec<u8>| [headers(0, 1, OK), more].concat();
    for (name, frames, expected) in [
        ("an answer", headers(0, 1, OK), Fate::Taken),
        ("one with a method", headers(0, 1, b"\x88\x02\x07CONNECT"), PROTOCOL),
        ("one with a path", headers(0, 1, b"\x88\x84"), PROTOCOL),
        ("one with te", headers(0, 1, b"\x88\x00\x02te\x04gzip"), PROTOCOL),
        ("no push", setting(2, 0), Fate::Taken),
        ("push", setting(2, 1), Fate::Ended(Code::Protocol)),
        ("trailers", answered(headers(flag::END_STREAM, 1, b"\x00\x01x\x01y")), Fate::Taken),
        ("a second status", answered(headers(flag::END_STREAM, 1, OK)), PROTOCOL),
        ("trailers that end nothing", answered(headers(0, 1, b"\x00\x01x\x01y")), PROTOCOL),
    ] {
        let (mut client, stream) = client();
        let fate = fate(&mut client, stream, &frames);
        wrong.extend((fate != expected).then(|| format!("{name}: {fate:?}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
