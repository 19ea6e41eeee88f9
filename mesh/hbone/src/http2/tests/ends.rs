//! How streams and connections end, what is said of it, and who is woken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::super::closing::{Over, PING_LEAVING};
use super::super::frame::Header;
use super::super::state::State;
use super::*;
use crate::broken::Broken;

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn go_away(last: u32, code: Code) -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), (code as u32).to_be_bytes()].concat())
}

/// A server with a tunnel on stream 1.
fn tunnel() -> Bare {
    let mut server = server(Settings::default());
    server.feed(&connect(1)).unwrap();
    server.asked().unwrap();
    server.accept(1);
    server.said();
    server
}

/// A client with a tunnel on stream 1.
fn opened() -> Bare {
    let (mut client, stream) = client();
    client.feed(&frame(kind::HEADERS, flag::END_HEADERS, stream, OK)).unwrap();
    assert!(client.answer(stream).is_some());
    client
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Waits = fn(&mut State, &Context<'_>) -> bool;
type Happens = Box<dyn Fn(&mut Bare)>;

/// What the peer says.
fn says(frames: Vec<u8>) -> Happens {
    Box::new(move |end| end.feed(&frames).unwrap())
}

/// The connection is over.
fn is_over() -> Happens {
    Box::new(|end| end.end(super::super::ConnectionError::new(Code::Protocol, "enough")))
}

#[test]
fn who_waits_is_woken() {
    let bytes: Waits = |state, cx| state.poll_incoming(1, cx).is_pending();
    let broken: Waits = |state, cx| state.poll_broken(1, cx).is_pending();
    let room: Waits = |state, cx| state.poll_room(1, cx).is_pending();
    let left: Waits = |state, cx| state.poll_left(1, cx).is_none();
    let request: Waits = |state, cx| state.poll_request(cx).is_pending();
    let greeting: Waits = |state, cx| state.poll_greeting(cx).is_pending();
    let answer: Waits = |state, cx| state.poll_response(1, cx).is_pending();
    let new = || Bare::new(Role::Server, Settings::default());
    let asking = || client().0;
    let greeted = || server(Settings::default());
    // All of the connection's window is used, or all of the stream's.
    let full = || {
        let mut end = tunnel();
        end.feed(&window(1, 1_000_000)).unwrap();
        while end.send(1, &[0; 10_000]) > 0 {
            end.said();
        }
        end
    };
    let stream_full = || {
        let mut end = tunnel();
        end.feed(&window(0, 1_000_000)).unwrap();
        while end.send(1, &[0; 10_000]) > 0 {
            end.said();
        }
        end
    };
    // More waits for the transport than streams may add to.
    let unsent = || {
        let mut end = tunnel();
        end.feed(&[window(0, 1_000_000), window(1, 1_000_000)].concat()).unwrap();
        while end.send(1, &[0; 10_000]) > 0 {}
        end
    };
    let data = |flags, payload: &[u8]| says(frame(kind::DATA, flags, 1, payload));
    let headers = |flags: u8, block: &[u8]| says(frame(kind::HEADERS, flag::END_HEADERS | flags, 1, block));
    let trailers = b"\x00\x01x\x01y";
    type Row = (&'static str, Box<dyn Fn() -> Bare>, Waits, Happens);
    let rows: Vec<Row> = vec![
        ("bytes: DATA", Box::new(tunnel), bytes, data(0, b"x")),
        ("bytes: the end", Box::new(tunnel), bytes, data(flag::END_STREAM, b"")),
        ("bytes: trailers", Box::new(tunnel), bytes, headers(flag::END_STREAM, trailers)),
        ("bytes: broken trailers", Box::new(tunnel), bytes, headers(0, trailers)),
        ("bytes: a reset", Box::new(tunnel), bytes, says(reset(1, 8))),
        ("bytes: a window by nothing", Box::new(tunnel), bytes, says(window(1, 0))),
        ("bytes: the connection's end", Box::new(tunnel), bytes, is_over()),
        ("broken: a reset", Box::new(tunnel), broken, says(reset(1, 8))),
        ("broken: the connection's end", Box::new(tunnel), broken, is_over()),
        ("room: the connection's window", Box::new(full), room, says(window(0, 10))),
        ("room: the stream's window", Box::new(stream_full), room, says(window(1, 10))),
        ("room: SETTINGS", Box::new(stream_full), room, says(frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 2, 0, 0]))),
        ("room: what waited is sent", Box::new(unsent), room, Box::new(|end| drop(end.said()))),
        ("room: a reset", Box::new(full), room, says(reset(1, 8))),
        ("room: the connection's end", Box::new(full), room, is_over()),
        ("left: a reset", Box::new(tunnel), left, says(reset(1, 8))),
        ("left: the end", Box::new(tunnel), left, data(flag::END_STREAM, b"")),
        ("left: our own end", Box::new(tunnel), left, Box::new(|end| end.finish(1))),
        ("request", Box::new(greeted), request, says(connect(1))),
        ("request: the connection's end", Box::new(greeted), request, is_over()),
        ("greeting", Box::new(new), greeting, says([&PREFACE[..], &frame(kind::SETTINGS, 0, 0, &[])].concat())),
        ("greeting: the connection's end", Box::new(new), greeting, is_over()),
        ("answer", Box::new(asking), answer, headers(0, OK)),
        ("answer: a broken one", Box::new(asking), answer, headers(0, b"\x88\x84")),
        ("answer: a reset", Box::new(asking), answer, says(reset(1, 7))),
        ("answer: GOAWAY", Box::new(asking), answer, says(go_away(0, Code::None))),
        ("answer: the connection's end", Box::new(asking), answer, is_over()),
    ];
    let mut wrong = Vec::new();
    for (name, end, waits, happens) in rows {
        let (mut end, woken) = (end(), Arc::new(Woken::default()));
        let waker = Waker::from(woken.clone());
        if !waits(&mut end.shared.borrow_mut(), &Context::from_waker(&waker)) {
            wrong.push(format!("{name}: does not wait"));
        }
        happens(&mut end);
        if woken.0.load(Ordering::Relaxed) == 0 {
            wrong.push(format!("{name}: is not woken"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_driver_is_woken_for_whatever_is_to_be_sent() {
    type Row = (&'static str, fn() -> Bare, Happens);
    let rows: Vec<Row> = vec![
        ("an answer to PING", tunnel, says(frame(kind::PING, 0, 0, &[0; 8]))),
        ("bytes", tunnel, Box::new(|end| assert!(end.send(1, b"x") > 0))),
        ("an end", tunnel, Box::new(|end| end.finish(1))),
        ("a reset", tunnel, Box::new(|end| end.shared.borrow_mut().reset(1))),
        ("the connection's end", tunnel, is_over()),
        ("the last stream's end", last_stream, Box::new(|end| end.release(1))),
        ("the peer's leaving", last_stream, says(go_away(1, Code::None))),
        ("the handle's end", opened, Box::new(|end| end.shared.borrow_mut().release_connection())),
    ];
    for (name, end, happens) in rows {
        let (mut end, woken) = (end(), Arc::new(Woken::default()));
        let waker = Waker::from(woken.clone());
        end.shared.borrow_mut().driver_waits(&Context::from_waker(&waker));
        happens(&mut end);
        assert!(woken.0.load(Ordering::Relaxed) > 0, "{name}");
    }
}

/// A client whose peer has gone away, and whose last stream has ended both ways.
fn last_stream() -> Bare {
    let mut client = opened();
    client.feed(&[go_away(1, Code::None), frame(kind::DATA, flag::END_STREAM, 1, b"")].concat()).unwrap();
    client.finish(1);
    client.said();
    client
}

#[test]
fn what_a_stream_leaves_unfinished_is_said() {
    let cancel = reset(1, Code::Cancel as u32);
    let rows: Vec<(&str, Happens, Vec<u8>)> = vec![
        ("neither has ended", Box::new(|_| {}), cancel.clone()),
        ("the peer has ended", says(frame(kind::DATA, flag::END_STREAM, 1, b"")), cancel),
        ("we have ended", Box::new(|end| end.finish(1)), reset(1, Code::None as u32)),
        (
            "both have ended",
            Box::new(|end| {
                end.feed(&frame(kind::DATA, flag::END_STREAM, 1, b"")).unwrap();
                end.finish(1);
            }),
            vec![],
        ),
        ("the peer has reset it", says(reset(1, 2)), vec![]),
        ("the connection is over", is_over(), vec![]),
    ];
    for (name, before, said) in rows {
        let mut end = tunnel();
        before(&mut end);
        end.said();
        end.release(1);
        assert_eq!(end.said(), said, "{name}");
        assert_eq!(end.held().1, 0, "{name}");
    }
}

#[test]
fn a_reset_says_why() {
    let mut end = tunnel();
    end.feed(&[frame(kind::DATA, 0, 1, b"before"), reset(1, 8), frame(kind::DATA, 0, 1, b"after")].concat()).unwrap();
    end.feed(&reset(1, 7)).unwrap();
    assert!(matches!(end.take(1), Some(Incoming::Bytes(bytes)) if bytes == b"before"));
    assert!(matches!(end.take(1), Some(Incoming::Broken(Broken::Reset(8)))), "the first reason stays");
    assert_eq!(end.send(1, b"x"), 0);
    let mut end = tunnel();
    end.feed(&[frame(kind::DATA, 0, 1, b"all"), reset(1, 0)].concat()).unwrap();
    assert!(matches!(end.take(1), Some(Incoming::Bytes(bytes)) if bytes == b"all"));
    assert!(matches!(end.take(1), Some(Incoming::End)), "RFC 9113 8.1: no error");
    let mut end = tunnel();
    end.feed(&reset(1, 7)).unwrap();
    assert!(matches!(end.take(1), Some(Incoming::Broken(Broken::Unprocessed))));
    // Our own.
    let mut end = tunnel();
    end.shared.borrow_mut().reset(1);
    assert_eq!(end.said(), reset(1, 8));
    end.shared.borrow_mut().reset(1);
    end.finish(1);
    assert_eq!(end.said(), b"", "nothing follows");
    let mut end = tunnel();
    end.feed(&frame(kind::DATA, flag::END_STREAM, 1, b"")).unwrap();
    end.finish(1);
    end.said();
    end.shared.borrow_mut().reset(1);
    assert_eq!(end.said(), b"", "what has ended is not reset");
}

/// How the peer has left, while bytes wait.
#[test]
fn who_has_left_and_how() {
    use super::super::stream::Left;
    let left = |end: &Bare| end.shared.borrow_mut().poll_left(1, &Context::from_waker(Waker::noop()));
    let end_stream = || frame(kind::DATA, flag::END_STREAM, 1, b"x");
    let rows: Vec<(&str, Happens, Option<Left>)> = vec![
        ("it is there", Box::new(|_| {}), None),
        ("it has said all, and listens", says(end_stream()), None),
        ("reset", says(reset(1, 8)), Some(Left::Cut(Broken::Reset(8)))),
        ("reset without an error", says(reset(1, 0)), Some(Left::Finished)),
        ("reset after it had said all", says([end_stream(), reset(1, 8)].concat()), Some(Left::Finished)),
        ("the connection is lost", is_over(), Some(Left::Cut(Broken::Lost))),
        ("revoked", Box::new(|end| end.shared.borrow_mut().revoke()), Some(Left::Cut(Broken::Revoked))),
        (
            "revoked after it had said all",
            Box::new(|end| {
                end.feed(&frame(kind::DATA, flag::END_STREAM, 1, b"x")).unwrap();
                end.shared.borrow_mut().revoke();
            }),
            Some(Left::Cut(Broken::Revoked)),
        ),
        (
            "both have said all",
            Box::new(|end| {
                end.feed(&frame(kind::DATA, flag::END_STREAM, 1, b"x")).unwrap();
                end.finish(1);
            }),
            Some(Left::Finished),
        ),
        ("let go of", Box::new(|end| end.release(1)), Some(Left::Cut(Broken::Lost))),
    ];
    for (name, happens, expected) in rows {
        let mut end = tunnel();
        happens(&mut end);
        assert_eq!(left(&end), expected, "{name}");
    }
}

#[test]
fn a_server_that_goes_away_takes_what_was_under_way() {
    let mut end = tunnel();
    end.shared.borrow_mut().go_away();
    let leaving = frame(kind::PING, 0, 0, &PING_LEAVING);
    assert_eq!(end.said(), [go_away(0x7fff_ffff, Code::None), leaving.clone()].concat());
    end.shared.borrow_mut().go_away();
    assert_eq!(end.said(), b"", "once");
    end.feed(&[connect(3), frame(kind::PING, flag::ACK, 0, b"whatever")].concat()).unwrap();
    assert!(end.asked().is_some(), "it did not know yet");
    end.said();
    let known = frame(kind::PING, flag::ACK, 0, &PING_LEAVING);
    end.feed(&known).unwrap();
    assert_eq!(end.said(), go_away(3, Code::None));
    end.feed(&[known, connect(5)].concat()).unwrap();
    assert_eq!((end.said(), end.asked()), (reset(5, 7), None), "it knows");
    end.accept(3);
    end.feed(&frame(kind::DATA, 0, 1, b"x")).unwrap();
    assert!(matches!(end.take(1), Some(Incoming::Bytes(_))), "open ones go on");
    end.release(3);
    assert!(!end.shared.borrow().is_done());
    end.release(1);
    assert!(end.shared.borrow().is_done());
    // One that is over has nothing to say.
    let mut over = tunnel();
    is_over()(&mut over);
    over.said();
    over.shared.borrow_mut().go_away();
    assert_eq!(over.said(), b"");
}

#[test]
fn a_client_whose_peer_goes_away_asks_elsewhere() {
    let (mut end, first) = client();
    let second = end.open().unwrap();
    end.feed(&go_away(first, Code::None)).unwrap();
    assert!(matches!(end.take(second), Some(Incoming::Broken(Broken::Unprocessed))));
    assert_eq!(end.open(), None);
    assert!(!end.shared.borrow().has_room());
    end.feed(&frame(kind::HEADERS, flag::END_HEADERS, first, OK)).unwrap();
    assert_eq!(end.answer(first), Some(http::StatusCode::OK), "it was looked at");
    end.release(second);
    assert!(!end.shared.borrow().is_done());
    end.release(first);
    assert!(end.shared.borrow().is_done());
    // A server's peer that goes away opens no more; what it has opened goes on.
    let mut end = tunnel();
    end.feed(&go_away(0, Code::None)).unwrap();
    assert!(end.take(1).is_none());
    assert!(end.send(1, b"x") > 0);
    // One that has carried enough, and one that nobody holds.
    for end_of in [State::retire as fn(&mut State), State::release_connection] {
        let mut end = opened();
        end_of(&mut end.shared.borrow_mut());
        assert!(!end.shared.borrow().is_done());
        end.release(1);
        assert!(end.shared.borrow().is_done());
    }
    let end = opened();
    end.shared.borrow_mut().retire();
    assert!(!end.shared.borrow().takes_streams());
}

#[test]
fn the_end_of_a_connection_breaks_what_is_unfinished() {
    for (over, broken) in [(Over::Dropped, Broken::Lost), (Over::Revoked, Broken::Revoked)] {
        let mut end = tunnel();
        end.feed(&[connect(3), connect(5), connect(7)].concat()).unwrap();
        for id in [3, 5] {
            assert_eq!(end.asked().map(|(stream, ..)| stream), Some(id));
            end.accept(id);
        }
        end.feed(&[reset(3, 8), frame(kind::DATA, flag::END_STREAM, 5, b"all")].concat()).unwrap();
        end.finish(5);
        let name = over.to_string();
        end.shared.borrow_mut().end(over);
        end.shared.borrow_mut().end(Over::Done);
        assert_eq!(end.shared.borrow().over().map(ToString::to_string), Some(name), "the first reason stays");
        assert!(matches!(end.take(1), Some(Incoming::Broken(b)) if b == broken));
        assert!(matches!(end.take(3), Some(Incoming::Broken(Broken::Reset(8)))), "it was broken before");
        assert!(matches!(end.take(5), Some(Incoming::Bytes(_))));
        assert!(matches!(end.take(5), Some(Incoming::End)), "it is whole");
        let waits = end.shared.borrow_mut().poll_request(&Context::from_waker(Waker::noop()));
        assert!(matches!(waits, Poll::Ready(Err(_))), "nobody answers any more");
        assert_eq!(end.held().1, 3, "what nobody has taken is gone");
        assert_eq!((end.open(), end.send(1, b"x")), (None, 0));
    }
    let mut end = tunnel();
    end.shared.borrow_mut().revoke();
    assert_eq!(end.said(), go_away(1, Code::None));
    assert!(matches!(end.shared.borrow().over(), Some(Over::Revoked)));
    let server = tunnel();
    server.shared.borrow_mut().release_connection();
    assert!(matches!(server.shared.borrow().over(), Some(Over::Dropped)));
}

/// Frames that `end` has said, by kind and stream.
fn kinds(end: &mut Bare) -> Vec<(u8, u8, u32)> {
    let said = end.said();
    let (mut parser, mut input, mut kinds) = (Parser::default(), &said[..], Vec::new());
    while let Some(piece) = parser.next(&mut input, 1 << 14).unwrap() {
        kinds.push(match piece {
            Piece::Frame { header: Header { kind, flags, stream, .. }, .. } => (kind, flags, stream),
            Piece::Data { stream, end, .. } => (kind::DATA, u8::from(end), stream),
        });
    }
    kinds
}

#[test]
fn what_is_said_for_a_stream() {
    let (mut client, stream) = client();
    let second = client.open().unwrap();
    assert_eq!((stream, second), (1, 3));
    assert_eq!(kinds(&mut client), [(kind::HEADERS, flag::END_HEADERS, 3)]);
    let long = http::Method::CONNECT;
    let mut headers = http::HeaderMap::new();
    headers.insert("x", "v".repeat(17_000).parse().unwrap());
    assert_eq!(client.shared.borrow_mut().open(&long, "a:1", &headers), None, "no peer would take it");
    assert!(kinds(&mut client).is_empty());
    let mut server = server(Settings::default());
    server.feed(&[connect(1), connect(3)].concat()).unwrap();
    let (status, none) = (http::StatusCode::FORBIDDEN, http::HeaderMap::new());
    server.shared.borrow_mut().respond(1, status, &none, true).unwrap();
    server.finish(1);
    server.accept(3);
    server.finish(3);
    server.finish(3);
    let whole = flag::END_HEADERS | flag::END_STREAM;
    let expected =
        [(kind::HEADERS, whole, 1), (kind::HEADERS, flag::END_HEADERS, 3), (kind::DATA, flag::END_STREAM, 3)];
    assert_eq!(kinds(&mut server), expected);
    // An answer without anything that follows ends the way back.
    let (mut client, stream) = self::client();
    client.feed(&frame(kind::HEADERS, whole, stream, OK)).unwrap();
    assert!(matches!(client.take(stream), Some(Incoming::End)));
    assert_eq!(client.answer(stream), Some(http::StatusCode::OK));
    // And so does a request.
    let mut server = self::server(Settings::default());
    server.feed(&frame(kind::HEADERS, whole, 1, CONNECT)).unwrap();
    assert!(matches!(server.take(1), Some(Incoming::End)));
    // SETTINGS are acknowledged, and those of a client that has greeted change what it may be sent.
    server.said();
    server.feed(&frame(kind::SETTINGS, 0, 0, &[])).unwrap();
    server.feed(&frame(kind::SETTINGS, flag::ACK, 0, &[])).unwrap();
    assert_eq!(kinds(&mut server), [(kind::SETTINGS, flag::ACK, 0)]);
}

/// RFC 9113 6.9: windows are the peer's to say, within their bounds.
#[test]
fn windows_that_the_peer_grants() {
    let initial = |bytes: u32| {
        let [a, b, c, d] = bytes.to_be_bytes();
        frame(kind::SETTINGS, 0, 0, &[0, 4, a, b, c, d])
    };
    let sends = |end: &mut Bare| {
        let mut sent = 0;
        loop {
            match end.send(1, &[0; 100_000]) {
                0 => return sent,
                more => sent += more,
            }
            end.said();
        }
    };
    let mut end = tunnel();
    end.feed(&window(0, 1 << 20)).unwrap();
    assert_eq!(sends(&mut end), 65_535);
    end.feed(&window(1, 100)).unwrap();
    assert_eq!(sends(&mut end), 100);
    end.feed(&initial(65_535 + 1_000)).unwrap();
    assert_eq!(sends(&mut end), 1_000);
    end.feed(&initial(1_000)).unwrap();
    end.feed(&window(1, 65_535)).unwrap();
    assert_eq!(sends(&mut end), 0, "it owes 66,535 - 1,000");
    end.feed(&window(1, 2)).unwrap();
    assert_eq!(sends(&mut end), 2);
    // One that is too large for a stream breaks the stream, and another for the connection ends that.
    for (name, frames, code) in
        [("of a stream", window(1, 0x7fff_ffff), Code::FlowControl), ("by nothing", window(1, 0), Code::Protocol)]
    {
        let mut end = tunnel();
        end.feed(&[window(1, 100), frames].concat()).unwrap();
        assert_eq!(end.said(), reset(1, code as u32), "{name}");
        assert!(matches!(end.take(1), Some(Incoming::Broken(Broken::Reset(c))) if c == code as u32), "{name}");
    }
    for (name, frames, error) in [
        ("as large as may be", window(0, 0x7fff_ffff - 65_535), None),
        ("one more", window(0, 0x7fff_ffff - 65_534), Some(Code::FlowControl)),
        ("SETTINGS as large as may be", initial(0x7fff_ffff), None),
        ("SETTINGS of one more", initial(0x8000_0000), Some(Code::FlowControl)),
        (
            "SETTINGS that make a stream's too large",
            [window(1, 1), initial(0x7fff_ffff)].concat(),
            Some(Code::FlowControl),
        ),
    ] {
        let mut end = tunnel();
        assert_eq!(end.feed(&frames).err().map(|e| e.code), error, "{name}");
    }
}

/// Windows of streams that send no more, or are broken, are not given back.
#[test]
fn nothing_is_given_back_to_who_sends_no_more() {
    let settings = || Settings { stream_window: 40_000, connection_window: 16 << 20, ..Settings::default() };
    let data = |flags| frame(kind::DATA, flags, 1, &[0; 16_000]);
    for (name, frames, expected) in [
        ("it goes on", data(0), vec![(kind::WINDOW_UPDATE, 0, 1)]),
        ("it has ended", data(flag::END_STREAM), vec![]),
        ("it is broken", [data(0), reset(1, 8)].concat(), vec![]),
    ] {
        let mut end = server(settings());
        end.feed(&connect(1)).unwrap();
        end.asked().unwrap();
        end.accept(1);
        end.said();
        end.feed(&frames).unwrap();
        assert!(matches!(end.take(1), Some(Incoming::Bytes(_))));
        assert_eq!(kinds(&mut end), expected, "{name}");
    }
}

/// What carries nothing and is about what is gone has its price, too.
#[test]
fn what_is_said_of_what_is_gone_has_its_price() {
    let trailers = |flags: u8| frame(kind::HEADERS, flag::END_HEADERS | flags, 1, b"\x00\x01x\x01y");
    for (name, frames, cost) in [
        ("GOAWAY", go_away(0x7fff_ffff, Code::None), 1),
        ("a reset of a stream that is gone", reset(1, 8), 1),
        ("trailers of a stream that is gone", trailers(flag::END_STREAM), 1),
    ] {
        let mut end = tunnel();
        end.release(1);
        let (taken, code) = flood(&mut end, (0..10_000).map(|_| frames.clone()));
        assert_eq!(super::bounds::priced(name, taken, code, cost), None);
    }
    // One that is broken, and one that is broken again and again.
    for (name, id, frames, cost) in [
        ("answers on a broken stream", 1, frame(kind::HEADERS, flag::END_HEADERS, 1, OK), 1),
        ("a reset of a broken stream", 1, reset(1, 8), 1),
    ] {
        let (mut client, _) = client();
        client.feed(&reset(id, 8)).unwrap();
        let (taken, code) = flood(&mut client, (0..10_000).map(|_| frames.clone()));
        assert_eq!(super::bounds::priced(name, taken, code, cost), None);
    }
    let mut server = tunnel();
    let (taken, code) = flood(&mut server, (0..10_000).map(|_| trailers(0)));
    assert_eq!(super::bounds::priced("broken trailers", taken, code, 8), None);
    let mut server = tunnel();
    let (taken, code) = flood(&mut server, (0..10_000).map(|_| window(1, 0)));
    assert_eq!(super::bounds::priced("windows by nothing", taken, code, 1 + 8), None);
}

/// RFC 9113 8.1: what comes before the answer ends nothing, and is not an answer.
#[test]
fn answers_before_the_answer() {
    for (name, flags, block, last) in [
        ("100", 0, &b"\x08\x03100"[..], false),
        ("103", 0, b"\x08\x03103", false),
        ("101, of which HTTP/2 has none", 0, b"\x08\x03101", true),
        ("103 that ends its stream", flag::END_STREAM, b"\x08\x03103", true),
    ] {
        let (mut client, stream) = client();
        client.feed(&frame(kind::HEADERS, flag::END_HEADERS | flags, stream, block)).unwrap();
        if !last {
            assert_eq!(client.answer(stream), None, "{name}");
            client.feed(&frame(kind::HEADERS, flag::END_HEADERS, stream, OK)).unwrap();
            assert_eq!(client.answer(stream), Some(http::StatusCode::OK), "{name}");
        } else {
            assert!(
                client.answer(stream).is_some_and(|status| status.is_informational()),
                "{name}: nothing better comes"
            );
        }
    }
}
