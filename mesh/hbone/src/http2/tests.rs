//! What a peer may say to a connection, frame by frame, and what it must not come to.

mod bounds;
mod driver;
mod ends;
mod rules;
mod turns;
mod windows;

use std::io::{ErrorKind, Read};
use std::rc::Rc;

use mesh_testkit::frames::frame;
use tokio::net::TcpStream;

use super::bare::Bare;
use super::frame::{Parser, Piece, flag, kind};
use super::state::MAX_UNREAD;
use super::stream::{Incoming, Sink};
use super::{Code, PREFACE, Role};
use crate::Settings;
use crate::carry::Count;

struct Uncounted;

impl Count for Uncounted {
    fn forth(&self, _: usize) {}
    fn back(&self, _: usize) {}
}

/// `:method: CONNECT`, `:authority: a:1`.
const CONNECT: &[u8] = b"\x02\x07CONNECT\x01\x03a:1";
/// `:status: 200`
const OK: &[u8] = b"\x88";

pub(crate) fn connect(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, flag::END_HEADERS, stream, CONNECT)
}

/// A server that has been greeted.
pub(crate) fn server(settings: Settings) -> Bare {
    let mut server = Bare::new(Role::Server, settings);
    server.feed(PREFACE).unwrap();
    server.feed(&frame(kind::SETTINGS, 0, 0, &[])).unwrap();
    server.said();
    server
}

/// A client that has been greeted, with a stream open.
fn client() -> (Bare, u32) {
    let mut client = Bare::new(Role::Client, Settings::default());
    client.feed(&frame(kind::SETTINGS, 0, 0, &[])).unwrap();
    let stream = client.open().unwrap();
    client.said();
    (client, stream)
}

/// Feeds `frames` until the connection refuses; how many it took and the code.
fn flood(end: &mut Bare, frames: impl Iterator<Item = Vec<u8>>) -> (usize, Option<Code>) {
    for (taken, frame) in frames.enumerate() {
        if let Err(error) = end.feed(&frame) {
            return (taken, Some(error.code));
        }
    }
    (usize::MAX, None)
}

#[test]
fn floods_that_are_paid_for_by_data_end_when_nobody_reads_the_answers() {
    let mut server = server(Settings::default());
    server.feed(&connect(1)).unwrap();
    let (stream, ..) = server.asked().unwrap();
    server.accept(stream);
    let mut round = frame(kind::DATA, 0, 1, b"x");
    round.extend(frame(kind::PING, 0, 0, &[0; 8]));
    let mut most = 0;
    let (_, code) = flood(&mut server, (0..1_000_000).map(|_| round.clone()));
    most = most.max(server.held().0);
    assert_eq!(code, Some(Code::EnhanceYourCalm));
    assert!(most < MAX_UNREAD + (64 << 10), "{most} bytes wait for a peer that does not read");
}

#[test]
fn padding_in_pieces_and_data_for_nobody_earn_nothing() {
    let mut server = server(Settings::default());
    server.feed(&connect(1)).unwrap();
    let (stream, ..) = server.asked().unwrap();
    server.accept(stream);
    let padding = frame(kind::DATA, flag::PADDED, 1, &[255; 256].map(|_| 255));
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    let (rounds, code) = flood(
        &mut server,
        (0..1_000_000).flat_map(|_| {
            // Each frame in pieces of its own records.
            padding.chunks(16).map(<[u8]>::to_vec).chain([ping.clone()]).collect::<Vec<_>>()
        }),
    );
    assert_eq!(code, Some(Code::EnhanceYourCalm), "after {rounds}");
    assert!(rounds < 60_000, "{rounds}");
}

#[test]
fn single_bytes_that_wait_take_little_more_than_themselves() {
    let mut server = server(Settings::default());
    server.feed(&connect(1)).unwrap();
    let (stream, ..) = server.asked().unwrap();
    server.accept(stream);
    for _ in 0..200_000 {
        server.feed(&frame(kind::DATA, 0, 1, b"x")).unwrap();
    }
    let (.., held) = server.held();
    assert!(held < 3 * 200_000, "200,000 bytes take {held}");
    let mut taken = 0;
    while let Some(Incoming::Bytes(bytes)) = server.take(stream) {
        taken += bytes.len();
    }
    assert_eq!(taken, 200_000);
}

#[test]
fn each_entry_of_settings_is_paid_for() {
    let mut server = server(Settings::default());
    let window = [0, 4, 0, 1, 0, 0].repeat(1_000);
    let (taken, code) = flood(&mut server, (0..100).map(|_| frame(kind::SETTINGS, 0, 0, &window)));
    assert_eq!(code, Some(Code::EnhanceYourCalm));
    assert!(taken <= 4, "{taken} frames of 1,000 entries");
}

/// Go's HTTP/2 gives windows back by every 4 KiB.
#[test]
fn a_peer_that_gives_its_window_back_in_small_steps_is_welcome() {
    let mut server = server(Settings::default());
    server.feed(&frame(kind::SETTINGS, 0, 0, &[0, 4, 0x40, 0, 0, 0])).unwrap();
    server.feed(&frame(kind::WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes())).unwrap();
    server.feed(&connect(1)).unwrap();
    let (stream, ..) = server.asked().unwrap();
    server.accept(stream);
    let data = vec![0; 64 << 10];
    for sent in 0..2_000 {
        let mut round = 0;
        while round < data.len() {
            let sent = server.send(stream, &data[round..]);
            assert!(sent > 0);
            round += sent;
            server.said();
        }
        for _ in 0..round / 4096 {
            for id in [0, 1] {
                let step = frame(kind::WINDOW_UPDATE, 0, id, &4096u32.to_be_bytes());
                server.feed(&step).unwrap_or_else(|e| panic!("after {sent} rounds: {e}"));
            }
        }
    }
}

/// Nobody begins what is not wanted any more.
#[test]
fn a_request_that_is_taken_back_before_anybody_took_it_is_nobodys_work() {
    let mut server = server(Settings::default());
    let taken_back = |id| [connect(id), frame(kind::RST_STREAM, 0, id, &8_u32.to_be_bytes())].concat();
    server.feed(&[taken_back(1), connect(3), taken_back(5), taken_back(7)].concat()).unwrap();
    assert_eq!(server.asked().unwrap().0, 3);
    assert!(server.asked().is_none());
    assert_eq!(server.shared.borrow().streams.keys().copied().collect::<Vec<_>>(), [3], "the others are gone");
}

#[test]
fn large_header_blocks_are_paid_for_by_their_size() {
    let mut server = server(Settings::default());
    // Trailers of a stream that is over: the cheapest there are.
    server.feed(&connect(1)).unwrap();
    server.release(1);
    let mut block = vec![0, 1, b'x', 0x7f, 0x81, 0x77];
    block.resize(block.len() + 15_360, b'v');
    let (taken, code) = flood(&mut server, (0..1_000).map(|_| frame(kind::HEADERS, flag::END_HEADERS, 1, &block)));
    assert_eq!(code, Some(Code::EnhanceYourCalm));
    assert!(taken < 300, "{taken}");
}

/// A peer that never opens its connection window, and tunnels that come and go behind it.
#[test]
fn streams_that_waited_for_room_are_forgotten_with_their_owners() {
    let mut server = server(Settings::default());
    for round in 0..5_000 {
        let id = 2 * round + 1;
        server.feed(&connect(id)).unwrap();
        server.asked().unwrap();
        server.accept(id);
        while server.send(id, &[0; 1 << 14]) > 0 {}
        server.release(id);
    }
    assert!(server.shared.borrow().blocked.len() <= 1);
}

#[test]
fn what_breaks_the_rules_ends_the_connection_or_the_stream() {
    for (name, frames, expected) in [
        ("GOAWAY of four bytes", frame(kind::GOAWAY, 0, 0, &[0; 4]), Err(Code::FrameSize)),
        ("DATA on an idle stream", frame(kind::DATA, 0, 1, b"x"), Err(Code::Protocol)),
        ("DATA on a server's stream", frame(kind::DATA, 0, 2, b"x"), Err(Code::Protocol)),
        ("DATA on stream 0", frame(kind::DATA, 0, 0, b"x"), Err(Code::Protocol)),
        ("RST_STREAM of an idle stream", frame(kind::RST_STREAM, 0, 1, &[0; 4]), Err(Code::Protocol)),
        ("WINDOW_UPDATE of an idle stream", frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), Err(Code::Protocol)),
        ("WINDOW_UPDATE by nothing", frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4]), Err(Code::Protocol)),
        ("a window past its largest", frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]), Err(Code::FlowControl)),
        ("SETTINGS with such a window", frame(kind::SETTINGS, 0, 0, &[0, 4, 255, 0, 0, 0]), Err(Code::FlowControl)),
        ("SETTINGS of seven bytes", frame(kind::SETTINGS, 0, 0, &[0; 7]), Err(Code::FrameSize)),
        ("SETTINGS with a tiny frame size", frame(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]), Err(Code::Protocol)),
        ("an acknowledgement with content", frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]), Err(Code::FrameSize)),
        ("PING of seven bytes", frame(kind::PING, 0, 0, &[0; 7]), Err(Code::FrameSize)),
        ("PUSH_PROMISE", frame(kind::PUSH_PROMISE, 0, 1, &[0; 4]), Err(Code::Protocol)),
        ("CONTINUATION of nothing", frame(kind::CONTINUATION, 0, 1, &[]), Err(Code::Protocol)),
        ("HEADERS on a server's stream", frame(kind::HEADERS, flag::END_HEADERS, 2, CONNECT), Err(Code::Protocol)),
        ("an index of nothing", frame(kind::HEADERS, flag::END_HEADERS, 1, &[0xff, 0]), Err(Code::Compression)),
        ("unknown types", frame(0xfa, 0xff, 7, b"whatever"), Ok(0)),
        ("a request with a status", frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x02\x07CONNECT\x88"), Ok(0)),
        ("a request without a method", frame(kind::HEADERS, flag::END_HEADERS, 1, b"\x01\x03a:1"), Ok(0)),
        ("a request", connect(1), Ok(1)),
    ] {
        let mut server = server(Settings::default());
        let taken = server.feed(&frames).map(|()| server.held().1);
        assert_eq!(taken.map_err(|e| e.code), expected, "{name}");
    }
}

#[test]
fn data_before_a_broken_answer_breaks_its_stream_alone() {
    let (mut client, stream) = client();
    let other = client.open().unwrap();
    client.feed(&frame(kind::HEADERS, flag::END_HEADERS, stream, b"\x00\x01X\x01y")).unwrap();
    client.feed(&frame(kind::DATA, 0, stream, b"sent before it heard")).unwrap();
    client.feed(&frame(kind::HEADERS, flag::END_HEADERS, other, OK)).unwrap();
    assert_eq!(client.answer(other), Some(http::StatusCode::OK));
}

#[test]
fn no_byte_is_taken_before_the_answer() {
    let (mut client, stream) = client();
    assert_eq!(client.feed(&frame(kind::DATA, 0, stream, b"x")).unwrap_err().code, Code::Protocol);
}

/// After its end a connection asks for no buffer: nobody would send what is in it.
#[test]
fn nothing_is_said_after_the_end() {
    let mut server = server(Settings { connection_window: 65_535, stream_window: 65_535, ..Settings::default() });
    server.feed(&connect(1)).unwrap();
    let (stream, ..) = server.asked().unwrap();
    server.accept(stream);
    server.feed(&frame(kind::DATA, 0, 1, &[0; 16_000])).unwrap();
    server.feed(&frame(kind::DATA, 0, 1, &[0; 16_000])).unwrap();
    server.said();
    server.end(super::ConnectionError::new(Code::Protocol, "enough"));
    while let Some(Incoming::Bytes(_)) = server.take(stream) {}
    assert_eq!(server.held().0, 0);
}

#[test]
fn a_connections_window_is_whole_again_when_all_is_taken() {
    let mut server = server(Settings::default());
    let window = server.shared.borrow().receive_window.granted();
    for id in [1, 3, 5, 7] {
        server.feed(&connect(id)).unwrap();
        server.asked().unwrap();
        server.accept(id);
    }
    let padded = |id| {
        let mut payload = vec![100];
        payload.extend_from_slice(&[b'x'; 200]);
        payload.extend_from_slice(&[0; 100]);
        frame(kind::DATA, flag::PADDED, id, &payload)
    };
    for id in [1, 3, 5, 7] {
        for _ in 0..10 {
            server.feed(&padded(id)).unwrap();
        }
    }
    // Taken; let go of with bytes waiting; reset by the peer; half taken.
    while let Some(Incoming::Bytes(_)) = server.take(1) {}
    server.release(3);
    server.feed(&padded(3)).unwrap();
    server.feed(&frame(kind::RST_STREAM, 0, 5, &[0, 0, 0, 8])).unwrap();
    server.feed(&padded(5)).unwrap();
    server.release(5);
    server.take(7);
    server.release(7);
    server.release(1);
    let state = server.shared.borrow();
    assert_eq!(state.receive_window.granted(), window);
}

#[test]
fn what_we_say_is_made_of_whole_frames() {
    let mut server = server(Settings::default());
    server.feed(&connect(1)).unwrap();
    let (stream, ..) = server.asked().unwrap();
    server.accept(stream);
    server.send(stream, &[1; 40_000]);
    server.finish(stream);
    let said = server.said();
    let (mut parser, mut input, mut kinds) = (Parser::default(), &said[..], Vec::new());
    while let Some(piece) = parser.next(&mut input, 16_384).unwrap() {
        kinds.push(match piece {
            Piece::Frame { header, .. } => header.kind,
            Piece::Data { .. } => kind::DATA,
        });
    }
    assert_eq!(kinds, [kind::HEADERS, kind::DATA, kind::DATA]);
}

/// What the fuzz targets check, with seeded noise and frames in it, on every build.
#[test]
fn noise_of_a_seed() {
    let random = std::cell::RefCell::new(mesh_testkit::random::Random(2026));
    let next = || random.borrow_mut().next();
    for _ in 0..20_000 {
        let mut bytes = vec![next() as u8];
        for _ in 0..next() % 24 {
            let payload: Vec<u8> = match next() % 4 {
                0 => CONNECT.to_vec(),
                1 => OK.to_vec(),
                _ => (0..next() % 40).map(|_| next() as u8).collect(),
            };
            let flags = [0, 1, 4, 5, 8, 12][next() as usize % 6];
            bytes.extend(frame(next() as u8 % 11, flags, next() as u32 % 12, &payload));
        }
        crate::fuzzing::frames(&bytes);
        crate::fuzzing::hpack(&bytes);
        // Between portions of 33 bytes the applications have their turns.
        let steps = bytes.chunks(33).flat_map(|chunk| [32 | next() as u8 & 7].into_iter().chain(chunk.to_vec()));
        crate::fuzzing::connection(&steps.skip(1).collect::<Vec<u8>>());
    }
}

/// A stream's last bytes wait for its end, if that has come with them, and leave in one segment with it; others do not
/// wait.
#[tokio::test]
async fn the_last_bytes_leave_with_the_end() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let near = Rc::new(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
    let mut far = listener.accept().unwrap().0;
    far.set_nonblocking(true).unwrap();
    near.set_nodelay(true).unwrap();
    near.writable().await.unwrap();
    let mut server = server(Settings::default());
    server.feed(&connect(1)).unwrap();
    let (stream, ..) = server.asked().unwrap();
    server.accept(stream);
    server.shared.borrow_mut().pour_into(stream, Sink { tcp: near.clone(), count: Rc::new(Uncounted) });
    let mut read = || {
        let mut buffer = [0; 16];
        far.read(&mut buffer).map(|read| buffer[..read].to_vec()).map_err(|error| error.kind())
    };
    server.feed(&frame(kind::DATA, 0, stream, b"first")).unwrap();
    assert_eq!(read(), Ok(b"first".to_vec()));
    let mut rest = frame(kind::DATA, 0, stream, b"last");
    rest.extend(frame(kind::DATA, flag::END_STREAM, stream, &[]));
    server.feed(&rest).unwrap();
    assert_eq!(read(), Err(ErrorKind::WouldBlock));
    assert!(matches!(server.take(stream), Some(Incoming::End)));
    socket2::SockRef::from(&*near).shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!((read(), read()), (Ok(b"last".to_vec()), Ok(Vec::new())));
}
