//! Windows that many streams share, with applications that do not read.

use std::collections::HashMap;

use super::super::DEFAULT_WINDOW;
use super::*;

/// A client that sends all it may: what it knows of the server's windows.
struct Sender {
    server: Bare,
    connection: i64,
    initial: i64,
    /// What each stream's window is besides the initial one.
    streams: HashMap<u32, i64>,
}

impl Sender {
    fn new(settings: Settings) -> Self {
        let mut server = Bare::new(Role::Server, settings);
        server.feed(PREFACE).unwrap();
        server.feed(&frame(kind::SETTINGS, 0, 0, &[])).unwrap();
        let initial = DEFAULT_WINDOW.into();
        let mut sender = Self { server, connection: initial, initial, streams: HashMap::new() };
        sender.hear();
        sender
    }

    /// Hears what the server has said.
    fn hear(&mut self) {
        let said = self.server.said();
        let (mut parser, mut input) = (Parser::default(), &said[..]);
        while let Some(piece) = parser.next(&mut input, 1 << 20).unwrap() {
            let Piece::Frame { header, payload } = piece else { continue };
            match header.kind {
                kind::WINDOW_UPDATE => {
                    let more = i64::from(u32::from_be_bytes(payload[..].try_into().unwrap()));
                    match header.stream {
                        0 => self.connection += more,
                        id => *self.streams.get_mut(&id).unwrap() += more,
                    }
                }
                kind::SETTINGS => {
                    for entry in payload.chunks(6).filter(|entry| entry[..2] == [0, 4]) {
                        self.initial = u32::from_be_bytes(entry[2..].try_into().unwrap()).into();
                    }
                }
                _ => {}
            }
        }
    }

    fn open(&mut self, id: u32) {
        self.server.feed(&connect(id)).unwrap();
        self.server.asked().unwrap();
        self.server.accept(id);
        self.streams.insert(id, 0);
        self.hear();
    }

    /// Sends at most `bytes` on a stream, as far as the windows allow; returns how much.
    fn send(&mut self, id: u32, bytes: usize) -> usize {
        let room = (self.initial + self.streams[&id]).min(self.connection).max(0);
        let sent = bytes.min(room as usize).min(16_000);
        if sent > 0 {
            self.server.feed(&frame(kind::DATA, 0, id, &vec![b'x'; sent])).unwrap();
            self.connection -= sent as i64;
            *self.streams.get_mut(&id).unwrap() -= sent as i64;
            self.hear();
        }
        sent
    }

    /// The application takes all that has come.
    fn take(&mut self, id: u32) -> usize {
        let mut taken = 0;
        while let Some(Incoming::Bytes(bytes)) = self.server.take(id) {
            taken += bytes.len();
        }
        self.hear();
        taken
    }
}

/// However many applications stop reading, the others of the connection go on; and when they are gone all is as before.
#[test]
fn applications_that_do_not_read_leave_the_others_room() {
    for settings in [
        Settings::default(),
        Settings { connection_window: 65_535, stream_window: 65_535, ..Settings::default() },
        Settings { connection_window: 1 << 20, stream_window: 4 << 20, server_streams: 50, ..Settings::default() },
    ] {
        let streams = settings.server_streams.min(50);
        let mut sender = Sender::new(settings.clone());
        let ids: Vec<u32> = (0..streams).map(|n| 2 * n + 1).collect();
        let (good, stuck) = ids.split_first().unwrap();
        ids.iter().for_each(|id| sender.open(*id));
        // It has taken some that is not worth giving back by itself.
        sender.send(*good, settings.stream_window as usize / 5);
        sender.take(*good);
        for id in stuck {
            while sender.send(*id, usize::MAX) > 0 {}
        }
        let mut carried = 0;
        for _ in 0..10_000 {
            sender.send(*good, 1_000);
            carried += sender.take(*good);
        }
        assert!(carried >= 1_000_000, "{settings:?}: {carried} bytes have passed");
        stuck.iter().for_each(|id| sender.server.release(*id));
        sender.hear();
        assert_eq!(sender.initial, i64::from(settings.stream_window), "windows are whole again");
        assert!(sender.connection >= i64::from(settings.connection_window) / 2, "{}", sender.connection);
        let state = sender.server.shared.borrow();
        assert_eq!(state.untaken(), 0);
    }
}

/// A client that may open many streams and has opened a few does not keep room for those that it will not open.
#[test]
fn a_clients_shares_are_of_the_streams_that_it_has_opened() {
    for client_streams in [3, 100, 65_535] {
        let mut client = Bare::new(Role::Client, Settings { client_streams, ..Settings::default() });
        client.feed(&frame(kind::SETTINGS, 0, 0, &[])).unwrap();
        client.said();
        let mut said = Vec::new();
        for _ in 0..3 {
            let stream = client.open().unwrap();
            client.feed(&frame(kind::HEADERS, flag::END_HEADERS, stream, OK)).unwrap();
            for _ in 0..262 {
                client.feed(&frame(kind::DATA, 0, stream, &[0; 16_000])).unwrap();
            }
            said.extend(client.said());
        }
        let half = Settings::default().connection_window / 2;
        let (mut parser, mut input, mut shares) = (Parser::default(), &said[..], Vec::new());
        while let Some(piece) = parser.next(&mut input, 1 << 20).unwrap() {
            if let Piece::Frame { header, payload } = piece
                && header.kind == kind::SETTINGS
            {
                let window = payload.chunks(6).filter(|entry| entry[..2] == [0, 4]);
                shares.extend(window.map(|entry| u32::from_be_bytes(entry[2..].try_into().unwrap())));
            }
        }
        assert_eq!(shares, [half / 3], "of {client_streams} streams that it may open");
    }
}

#[test]
fn what_a_closed_stream_leaves_is_given_back_at_once() {
    let mut sender = Sender::new(Settings::default());
    sender.open(1);
    let before = sender.connection;
    for _ in 0..10 {
        assert_eq!(sender.send(1, 10_000), 10_000);
    }
    sender.server.release(1);
    sender.hear();
    assert_eq!(sender.connection, before);
}

/// A client opens no stream on a connection on which it could not send, or has not taken half of what came.
#[test]
fn a_connection_whose_window_is_used_up_has_no_room() {
    let (mut client, stream) = client();
    client.feed(&frame(kind::WINDOW_UPDATE, 0, 0, &1_000_000u32.to_be_bytes())).unwrap();
    client.feed(&frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0x10, 0, 0])).unwrap();
    client.feed(&frame(kind::HEADERS, flag::END_HEADERS, stream, OK)).unwrap();
    let room = |client: &Bare| client.shared.borrow().has_room();
    let mut sent = 0;
    while sent < 500_000 {
        assert!(room(&client), "{sent}");
        sent += client.send(stream, &[0; 10_000]);
        client.said();
    }
    while client.send(stream, &[0; 10_000]) > 0 {
        client.said();
    }
    assert!(!room(&client));
    client.feed(&frame(kind::WINDOW_UPDATE, 0, 0, &600_000u32.to_be_bytes())).unwrap();
    assert!(room(&client));
}

#[test]
fn a_connection_of_which_nobody_takes_what_comes_has_no_room() {
    let mut client = Bare::new(Role::Client, Settings::default());
    client.feed(&frame(kind::SETTINGS, 0, 0, &[])).unwrap();
    for expected in [true, true, false] {
        let stream = client.open().unwrap();
        client.feed(&frame(kind::HEADERS, flag::END_HEADERS, stream, OK)).unwrap();
        for _ in 0..262 {
            client.feed(&frame(kind::DATA, 0, stream, &[0; 16_000])).unwrap();
        }
        client.said();
        assert_eq!(client.shared.borrow().has_room(), expected, "after stream {stream}");
    }
    client.release(1);
    client.release(3);
    assert!(client.shared.borrow().has_room(), "what nobody takes is gone");
}
