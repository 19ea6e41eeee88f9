//! The driver of a connection over TLS: what it says by itself, and what it does with keys.

use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::{JoinHandle, LocalSet, spawn_local, yield_now};
use tokio::time::Instant;

use super::super::closing::Over;
use super::super::driver::Driver;
use super::super::keep_alive::PING_ALIVE;
use super::super::state::Shared;
use super::turns::{greeting, nobody, proven, seal};
use super::*;
use crate::tls::handshake::{Established, Keys};
use crate::tls::record::{Content, Opener, Sealer, record_length};

/// A server's driver at work, and a client by hand at the other end.
struct Ends {
    far: DuplexStream,
    sealer: Sealer,
    opener: Opener,
    keys: Keys,
    state: Shared,
    driving: JoinHandle<Over>,
}

impl Ends {
    async fn new(settings: Settings) -> Self {
        let ((far, client), (near, server)) = proven().await;
        let driver = Driver::new(near, Role::Server, Rc::new(settings), server, nobody()).unwrap();
        let state = driver.shared();
        let Established { sealer, opener, keys, .. } = client;
        Self { far, sealer, opener, keys, state, driving: spawn_local(driver) }
    }

    /// Ends that have greeted each other, with a tunnel on stream 1 and another on 3.
    async fn with_tunnels(settings: Settings) -> Self {
        let mut ends = Self::new(settings).await;
        ends.say(&[greeting(), connect(1), connect(3)].concat()).await;
        for id in [1, 3] {
            std::future::poll_fn(|cx| ends.state.borrow_mut().poll_request(cx)).await.unwrap_or_else(|e| panic!("{e}"));
            let none = http::HeaderMap::new();
            ends.state.borrow_mut().respond(id, http::StatusCode::OK, &none, false).unwrap();
        }
        ends
    }

    async fn record(&mut self, content: Content, plaintext: &[u8]) {
        let record = seal(&mut self.sealer, content, plaintext);
        // Fails once it is over.
        let _ = self.far.write_all(&record).await;
    }

    async fn say(&mut self, frames: &[u8]) {
        self.record(Content::Data, frames).await;
    }

    /// The next record; `None` at the end.
    async fn hear(&mut self) -> Option<(Content, Vec<u8>)> {
        let mut record = vec![0; 5];
        self.far.read_exact(&mut record).await.ok()?;
        let length = record_length(&record).unwrap().unwrap();
        record.resize(length, 0);
        self.far.read_exact(&mut record[5..]).await.unwrap();
        let (content, range) = self.opener.open(&mut record).unwrap();
        Some((content, record[range].to_vec()))
    }

    /// Hears until something of this content comes that contains `what`.
    async fn until(&mut self, content: Content, what: &[u8]) {
        loop {
            let (came, plaintext) = self.hear().await.expect("more");
            if came == content && plaintext.windows(what.len()).any(|window| window == what) {
                return;
            }
        }
    }

    async fn over(self) -> Over {
        self.driving.await.unwrap()
    }

    /// Bytes that have come to a stream.
    async fn came(&self, id: u32) -> Vec<u8> {
        match std::future::poll_fn(|cx| self.state.borrow_mut().poll_incoming(id, cx)).await {
            Incoming::Bytes(bytes) => {
                self.state.borrow_mut().took(id, bytes.len());
                bytes
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_asked_and_then_given_up() {
    LocalSet::new()
        .run_until(async {
            let settings = Settings::default();
            let mut ends = Ends::with_tunnels(settings.clone()).await;
            let began = Instant::now();
            let ping = frame(kind::PING, 0, 0, &PING_ALIVE);
            // It is asked, answers, and is asked again.
            for _ in 0..3 {
                ends.until(Content::Data, &ping).await;
                ends.say(&frame(kind::PING, flag::ACK, 0, &PING_ALIVE)).await;
            }
            assert!(began.elapsed() >= 3 * settings.ping_interval);
            ends.until(Content::Data, &ping).await;
            let asked = Instant::now();
            assert!(matches!(ends.over().await, Over::Unanswered));
            assert_eq!(asked.elapsed().as_secs(), settings.ping_timeout.as_secs());
            // Who goes on talking is not asked.
            let mut ends = Ends::with_tunnels(settings.clone()).await;
            for _ in 0..40 {
                tokio::time::sleep(Duration::from_secs(2)).await;
                ends.say(&frame(kind::DATA, 0, 1, b"x")).await;
                ends.came(1).await;
            }
            let mut heard = Vec::new();
            while let Ok(Some((_, bytes))) = tokio::time::timeout(Duration::from_millis(1), ends.hear()).await {
                heard.extend(bytes);
            }
            assert!(!heard.is_empty());
            assert!(!heard.windows(ping.len()).any(|window| window == ping));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_has_to_greet_in_time() {
    LocalSet::new()
        .run_until(async {
            let settings = Settings { ping_interval: Duration::from_secs(3), ..Settings::default() };
            let mut ends = Ends::new(settings.clone()).await;
            let began = Instant::now();
            // A part of the greeting, and nothing more.
            ends.say(&greeting()[..30]).await;
            let over = ends.over().await;
            assert!(over.to_string().contains("no SETTINGS in time"), "{over}");
            let took = began.elapsed();
            assert!(took >= settings.handshake_timeout && took <= settings.handshake_timeout * 2, "{took:?}");
        })
        .await;
}

/// RFC 9113 5.4.1: who breaks the protocol is told, and TLS is ended in order.
#[tokio::test]
async fn who_breaks_the_protocol_is_told() {
    LocalSet::new()
        .run_until(async {
            let mut ends = Ends::with_tunnels(Settings::default()).await;
            ends.say(&frame(kind::DATA, 0, 99, b"x")).await;
            let payload = [3u32.to_be_bytes(), (Code::Protocol as u32).to_be_bytes()].concat();
            ends.until(Content::Data, &frame(kind::GOAWAY, 0, 0, &payload)).await;
            assert_eq!(ends.hear().await, Some((Content::Alert, vec![1, 0])), "close_notify");
            assert_eq!(ends.hear().await, None);
            assert!(matches!(ends.over().await, Over::Protocol(e) if e.code == Code::Protocol));
        })
        .await;
}

/// Who is to calm down, or carried nothing while others needed its place, gets GOAWAY, and learns of the end when the transport is closed.
#[tokio::test]
async fn who_takes_too_much_is_not_told_that_it_is_over() {
    LocalSet::new()
        .run_until(async {
            let only_data = async |ends: &mut Ends| {
                while let Some((content, _)) = ends.hear().await {
                    assert_eq!(content, Content::Data, "no close_notify");
                }
            };
            let mut ends = Ends::with_tunnels(Settings::default()).await;
            ends.state.borrow_mut().go_away();
            ends.state.borrow_mut().give_up();
            only_data(&mut ends).await;
            assert!(matches!(ends.over().await, Over::GivenUp));

            let mut ends = Ends::with_tunnels(Settings::default()).await;
            for _ in 0..10 {
                ends.say(&frame(kind::PING, 0, 0, &[0; 8]).repeat(900)).await;
            }
            only_data(&mut ends).await;
            assert!(matches!(ends.over().await, Over::Protocol(e) if e.code == Code::EnhanceYourCalm));
        })
        .await;
}

/// Its last stream is done, and nothing more is asked of it.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_done_says_so_and_lets_its_peer_end() {
    LocalSet::new()
        .run_until(async {
            for peer_leaves in [false, true] {
                let mut ends = Ends::with_tunnels(Settings::default()).await;
                let last = |last: u32| [last.to_be_bytes(), [0; 4]].concat();
                if peer_leaves {
                    ends.say(&frame(kind::GOAWAY, 0, 0, &last(0))).await;
                } else {
                    ends.state.borrow_mut().go_away();
                    ends.until(Content::Data, &frame(kind::GOAWAY, 0, 0, &last(0x7fff_ffff))).await;
                    ends.say(&frame(kind::PING, flag::ACK, 0, b"leaving\0")).await;
                    ends.until(Content::Data, &frame(kind::GOAWAY, 0, 0, &last(3))).await;
                }
                // What it says comes after what it was told.
                ends.say(&frame(kind::DATA, 0, 3, b"x")).await;
                ends.came(3).await;
                ends.state.borrow_mut().release(1);
                yield_now().await;
                assert!(!ends.driving.is_finished());
                ends.state.borrow_mut().release(3);
                let mut heard = Vec::new();
                while let Some((content, bytes)) = ends.hear().await {
                    heard.push((content, bytes));
                }
                assert_eq!(heard.last(), Some(&(Content::Alert, vec![1, 0])));
                let goaway = frame(kind::GOAWAY, 0, 0, &last(3));
                let told = heard.iter().any(|(_, bytes)| bytes.windows(goaway.len()).any(|window| window == goaway));
                assert_eq!(told, !peer_leaves, "one that leaves by itself is not told");
                // What the peer still says resets nothing, and its own end is waited for, a while.
                let window = 1_u32.to_be_bytes();
                ends.say(&frame(kind::WINDOW_UPDATE, 0, 0, &window)).await;
                yield_now().await;
                assert!(!ends.driving.is_finished());
                let since = Instant::now();
                if peer_leaves {
                    ends.far.shutdown().await.unwrap();
                    assert!(matches!(ends.over().await, Over::Done));
                    assert_eq!(since.elapsed(), Duration::ZERO);
                } else {
                    assert!(matches!(ends.over().await, Over::Done));
                    assert_eq!(since.elapsed().as_secs(), 5);
                }
            }
        })
        .await;
}

/// A peer that reads nothing keeps a buffer of its own for the little that waits, and none of the thread's.
#[tokio::test]
async fn a_little_that_waits_for_the_peer_takes_up_little() {
    LocalSet::new()
        .run_until(async {
            let mut ends = Ends::with_tunnels(Settings::default()).await;
            let window = (4_u32 << 20).to_be_bytes();
            ends.say(&[0, 1].map(|id| frame(kind::WINDOW_UPDATE, 0, id, &window)).concat()).await;
            // Small steps: what the transport does not take is less than one of them.
            const STEP: usize = 4 << 10;
            let waiting = loop {
                for _ in 0..4 {
                    yield_now().await;
                }
                let mut state = ends.state.borrow_mut();
                match state.outgoing.waiting() {
                    0 => assert_eq!(state.send_data(1, &[0; STEP], STEP), STEP),
                    waiting => break waiting,
                }
            };
            assert!(!ends.driving.is_finished());
            assert_eq!(ends.state.borrow().outgoing.takes_up(), waiting);
        })
        .await;
}

/// RFC 8446 4.6.3: whoever asks for it gets new keys, under the old one; and each end changes its own.
#[tokio::test]
async fn keys_are_changed_when_the_peer_asks_and_when_they_are_used_up() {
    LocalSet::new()
        .run_until(async {
            let settings = Settings { records_per_key: 40, ..Settings::default() };
            let mut ends = Ends::with_tunnels(settings).await;
            // The peer changes its own, and asks for ours.
            ends.record(Content::Handshake, &[24, 0, 0, 1, 1]).await;
            ends.sealer = ends.keys.next_sealer().unwrap();
            ends.until(Content::Handshake, &[24, 0, 0, 1, 0]).await;
            ends.opener = ends.keys.next_opener().unwrap();
            ends.say(&[frame(kind::DATA, 0, 1, b"under the new"), frame(kind::PING, 0, 0, b"new key?")].concat()).await;
            assert_eq!(ends.came(1).await, b"under the new");
            ends.until(Content::Data, &frame(kind::PING, flag::ACK, 0, b"new key?")).await;
            // One that asks for nothing gets none.
            ends.record(Content::Handshake, &[24, 0, 0, 1, 0]).await;
            ends.sealer = ends.keys.next_sealer().unwrap();
            for round in 0..100u8 {
                let ping = [round; 8];
                ends.say(&frame(kind::PING, 0, 0, &ping)).await;
                let (content, bytes) = ends.hear().await.unwrap();
                if content == Content::Handshake {
                    assert_eq!(bytes, [24, 0, 0, 1, 0]);
                    assert!(round >= 30, "a key that may be used 40 times is changed after {round}");
                    ends.opener = ends.keys.next_opener().unwrap();
                    ends.until(Content::Data, &frame(kind::PING, flag::ACK, 0, &ping)).await;
                    return;
                }
                assert_eq!(bytes, frame(kind::PING, flag::ACK, 0, &ping));
            }
            panic!("the key is never changed");
        })
        .await;
}

#[tokio::test]
async fn what_must_not_come_beside_data() {
    LocalSet::new()
        .run_until(async {
            let changes = |n: usize| vec![(Content::Handshake, vec![24, 0, 0, 1, 0]); n];
            for (name, records, ends_it) in [
                ("16 key changes without data", changes(16), false),
                ("17", changes(17), true),
                ("a key change of three bytes", vec![(Content::Handshake, vec![24, 0, 0, 1])], false),
                ("a key change that asks for two", vec![(Content::Handshake, vec![24, 0, 0, 1, 2])], true),
                ("two key changes in a record", vec![(Content::Handshake, [24, 0, 0, 1, 0].repeat(2))], true),
                ("a ticket of a client", vec![(Content::Handshake, vec![4, 0, 0, 1, 0])], true),
                ("a long message", vec![(Content::Handshake, vec![4, 0, 0x40, 1, 0])], true),
                (
                    "data within a message",
                    vec![(Content::Handshake, vec![24, 0, 0]), (Content::Data, frame(kind::PING, 0, 0, &[0; 8]))],
                    true,
                ),
                ("an empty message", vec![(Content::Handshake, vec![])], true),
                ("an empty record", vec![(Content::Data, vec![])], false),
                ("the end of TLS", vec![(Content::Alert, vec![1, 0])], true),
                ("another alert", vec![(Content::Alert, vec![2, 80])], true),
            ] {
                let mut ends = Ends::with_tunnels(Settings::default()).await;
                for (content, plaintext) in records {
                    ends.record(content, &plaintext).await;
                    if plaintext == [24, 0, 0, 1, 0] {
                        ends.sealer = ends.keys.next_sealer().unwrap();
                    }
                }
                for _ in 0..20 {
                    yield_now().await;
                }
                assert_eq!(ends.driving.is_finished(), ends_it, "{name}");
            }
        })
        .await;
}

/// DATA of several streams in one record, more pieces than are handed over at once, and frames between them.
#[tokio::test]
async fn each_stream_gets_its_own() {
    LocalSet::new()
        .run_until(async {
            let mut ends = Ends::with_tunnels(Settings::default()).await;
            let mut frames = Vec::new();
            let (mut first, mut second) = (Vec::new(), Vec::new());
            for round in 0..700u32 {
                let (id, expected) = if round % 300 < 290 { (1, &mut first) } else { (3, &mut second) };
                expected.extend_from_slice(&round.to_be_bytes());
                frames.extend(frame(kind::DATA, 0, id, &round.to_be_bytes()));
                if round % 211 == 0 {
                    frames.extend(frame(kind::PING, 0, 0, &[0; 8]));
                }
            }
            frames.extend(frame(kind::DATA, flag::END_STREAM, 3, b""));
            frames.extend(frame(kind::DATA, flag::END_STREAM, 1, b"last"));
            first.extend_from_slice(b"last");
            ends.say(&frames).await;
            for (id, expected) in [(1, first), (3, second)] {
                let mut came = Vec::new();
                while came.len() < expected.len() {
                    came.extend(ends.came(id).await);
                }
                assert_eq!(came, expected, "{id}");
                let end = ends
                    .state
                    .borrow_mut()
                    .poll_incoming(id, &std::task::Context::from_waker(std::task::Waker::noop()));
                assert!(matches!(end, Poll::Ready(Incoming::End)), "{id}: {end:?}");
            }
        })
        .await;
}
