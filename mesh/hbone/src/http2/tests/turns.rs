//! The driver of a connection over TLS: how long one turn of it may be, and how long it waits for a peer.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mesh_testkit::ca::TestCa;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::closing::Over;
use super::super::driver::{Driver, PIECES, TURN};
use super::super::state::Shared;
use super::*;
use crate::server::{AcceptError, Connection};
use crate::tls::handshake::{self, Established};
use crate::tls::record::{Content, Sealer};
use crate::unfinished::Unfinished;

fn id(name: &str) -> mesh_model::identity::SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap()
}

/// What a peer leaves unfinished, where nobody else holds any.
pub(super) fn nobody() -> Unfinished {
    Unfinished::of(mesh_model::share::Source::address([10, 0, 0, 1].into()), usize::MAX)
}

/// Both ends of TLS between two ends of memory.
pub(super) async fn proven() -> ((DuplexStream, Established), (DuplexStream, Established)) {
    let ca = TestCa::new();
    let (client, server) = (ca.credentials(&id("client")), ca.credentials(&id("server")));
    let (mut near, mut far) = tokio::io::duplex(1 << 20);
    let expected = [id("server")];
    let (near_end, far_end) = tokio::join!(
        handshake::client(&mut near, client.client_config(&expected), nobody()),
        handshake::server(&mut far, server.server_config(), nobody()),
    );
    ((near, near_end.unwrap()), (far, far_end.unwrap()))
}

/// A record that holds `plaintext`.
pub(super) fn seal(sealer: &mut Sealer, content: Content, plaintext: &[u8]) -> Vec<u8> {
    let mut record = vec![0; sealer.before()];
    record.extend_from_slice(plaintext);
    record.resize(record.len() + sealer.after(), 0);
    sealer.seal(&mut record, content).unwrap();
    record
}

pub(super) fn greeting() -> Vec<u8> {
    [PREFACE, &frame(kind::SETTINGS, 0, 0, &[])[..]].concat()
}

/// A peer that has a record of `frames` for each read there is room for, and reads whatever it is sent.
struct Endless {
    sealer: Sealer,
    frames: Vec<u8>,
    rest: Vec<u8>,
    /// Bytes read from it.
    read: Rc<Cell<usize>>,
}

impl AsyncRead for Endless {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while buffer.remaining() > 0 {
            if self.rest.is_empty() {
                let this = &mut *self;
                this.rest = seal(&mut this.sealer, Content::Data, &this.frames);
            }
            let now = self.rest.len().min(buffer.remaining());
            buffer.put_slice(&self.rest[..now]);
            self.rest.drain(..now);
            self.read.set(self.read.get() + now);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A server's driver with one tunnel open on it whose application takes nothing, and a peer that sends `frames` for ever;
/// the bytes it has read.
async fn endless(frames: Vec<u8>) -> (Driver<Endless>, Shared, Rc<Cell<usize>>) {
    let ((_, mut client), (_, server)) = LocalSet::new().run_until(proven()).await;
    let mut first = greeting();
    first.extend(connect(1));
    let first = seal(&mut client.sealer, Content::Data, &first);
    let read = Rc::new(Cell::new(0));
    let transport = Endless { sealer: client.sealer, frames, rest: Vec::new(), read: read.clone() };
    let server = Established { unread: first, ..server };
    let driver = Driver::new(transport, Role::Server, Rc::new(Settings::default()), server, nobody()).unwrap();
    let shared = driver.shared();
    let request = shared.borrow_mut().poll_request(&Context::from_waker(Waker::noop()));
    assert!(matches!(request, Poll::Ready(Ok(_))));
    shared.borrow_mut().respond(1, http::StatusCode::OK, &http::HeaderMap::new(), false).unwrap();
    (driver, shared, read)
}

/// Bytes that the tunnel's application takes, or would.
fn take(shared: &Shared) -> usize {
    let mut taken = 0;
    let mut state = shared.borrow_mut();
    while let Poll::Ready(Incoming::Bytes(bytes)) = state.poll_incoming(1, &Context::from_waker(Waker::noop())) {
        taken += bytes.len();
        state.took(1, bytes.len());
    }
    taken
}

#[tokio::test]
async fn a_turn_is_short_whatever_the_frames() {
    let most_frames = 4 * PIECES;
    for (name, frames, each, most) in [
        ("of one byte", frame(kind::DATA, 0, 1, b"x").repeat(1_600), 1, most_frames),
        ("of one byte in records of their own", frame(kind::DATA, 0, 1, b"x"), 1, most_frames),
        ("as large as a record", frame(kind::DATA, 0, 1, &[0; 16_000]), 16_000, 2 * TURN / 16_000),
    ] {
        let (mut driver, shared, _read) = endless(frames).await;
        for turn in 0..50 {
            let poll = Pin::new(&mut driver).poll(&mut Context::from_waker(Waker::noop()));
            assert!(poll.is_pending(), "{name}: {poll:?}");
            let frames = take(&shared) / each;
            assert!(frames <= most, "{name}: {frames} frames in turn {turn}");
        }
    }
}

/// Those whose frames are small and those whose are not: the portions follow.
#[tokio::test]
async fn bulk_is_read_in_large_portions() {
    let (mut driver, shared, read) = endless(frame(kind::DATA, 0, 1, &[0; 16_000])).await;
    for _ in 0..10 {
        let _ = Pin::new(&mut driver).poll(&mut Context::from_waker(Waker::noop()));
        take(&shared);
    }
    let before = read.get();
    let _ = Pin::new(&mut driver).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(read.get() - before, TURN, "one read is all of a turn");
}

/// A connection that always has more to read does not keep the thread from seeing what came to others.
#[tokio::test]
async fn events_of_others_are_seen_between_turns() {
    LocalSet::new()
        .run_until(async {
            let (mut driver, shared, _read) = endless(frame(kind::DATA, 0, 1, &[0; 16_000])).await;
            let turns = Rc::new(Cell::new(0));
            let counted = turns.clone();
            let driving = tokio::task::spawn_local(std::future::poll_fn(move |cx| {
                counted.set(counted.get() + 1);
                let poll = Pin::new(&mut driver).poll(cx);
                take(&shared);
                poll
            }));
            // What is written to the one is there for the other when that returns, whatever the machine is busy with.
            let (mut near, mut far) = tokio::net::UnixStream::pair().unwrap();
            let mut byte = [0];
            let mut worst = 0;
            for _ in 0..20 {
                near.write_all(b"x").await.unwrap();
                let before = turns.get();
                far.read_exact(&mut byte).await.unwrap();
                worst = worst.max(turns.get() - before);
            }
            driving.abort();
            assert!(worst <= 3, "{worst} turns of another before an event is seen");
        })
        .await;
}

/// A server's driver at work, and its peer's end of the connection.
struct Peer {
    far: DuplexStream,
    sealer: Sealer,
    driving: tokio::task::JoinHandle<Over>,
}

impl Peer {
    async fn new() -> Self {
        let ((near, client), (far, server)) = proven().await;
        let driver = Driver::new(far, Role::Server, Rc::new(Settings::default()), server, nobody()).unwrap();
        let mut peer = Self { far: near, sealer: client.sealer, driving: tokio::task::spawn_local(driver) };
        peer.say(&greeting()).await;
        peer
    }

    async fn say(&mut self, plaintext: &[u8]) {
        let record = seal(&mut self.sealer, Content::Data, plaintext);
        // Fails once it is over.
        let _ = self.far.write_all(&record).await;
    }

    /// Says `first`, and then `more`, byte by byte, each half second: how long that is put up with, at most a minute.
    async fn trickles(mut self, first: &[u8], more: impl Fn(u8) -> Vec<u8>) -> Option<(Duration, String)> {
        self.say(first).await;
        let began = Instant::now();
        for round in 0..120 {
            if let Ok(over) = timeout(Duration::from_millis(500), &mut self.driving).await {
                return Some((began.elapsed(), over.unwrap().to_string()));
            }
            self.say(&more(round)).await;
        }
        None
    }
}

/// Each byte is a sign of life, but a header block and a frame have their time.
#[tokio::test(start_paused = true)]
async fn what_is_begun_is_ended_in_time() {
    LocalSet::new()
        .run_until(async {
            let limit = Settings::default().header_timeout;
            let continuation = |_| frame(kind::CONTINUATION, 0, 1, &[0]);
            let whole = frame(kind::HEADERS, flag::END_HEADERS, 1, &[0; 1_000]);
            for (name, first, more) in [
                (
                    "CONTINUATIONs",
                    frame(kind::HEADERS, 0, 1, &[0]),
                    Box::new(continuation) as Box<dyn Fn(u8) -> Vec<u8>>,
                ),
                ("nothing after HEADERS", frame(kind::HEADERS, 0, 1, &[0]), Box::new(|_| vec![])),
                ("a frame byte by byte", whole[..10].to_vec(), Box::new(|_| vec![0])),
            ] {
                let ended = Peer::new().await.trickles(&first, more).await;
                let (after, why) = ended.unwrap_or_else(|| panic!("{name}: it is waited for for ever"));
                assert!(after >= limit && after <= limit + Duration::from_secs(1), "{name}: after {after:?}: {why}");
                assert!(why.contains("in time"), "{name}: {why}");
            }
            // Bytes of a tunnel come when they come.
            let data = frame(kind::DATA, 0, 1, &[0; 1_000]);
            let slow = [connect(1), data[..10].to_vec()].concat();
            assert_eq!(Peer::new().await.trickles(&slow, |_| vec![b'x']).await, None);
        })
        .await;
}

/// TLS and the greeting after it, each with a peer that says nothing more.
#[tokio::test(start_paused = true)]
async fn handshakes_have_their_time() {
    LocalSet::new()
        .run_until(async {
            let (ca, settings) = (TestCa::new(), Settings::default());
            let server = ca.credentials(&id("server"));
            let began = Instant::now();
            let (_silent, far) = tokio::io::duplex(1 << 16);
            let accepted = Connection::accept(far, server.server_config(), &settings);
            let error = timeout(Duration::from_secs(60), accepted).await.expect("in time").err().unwrap();
            assert!(matches!(error, AcceptError::Timeout), "{error}");
            assert_eq!(began.elapsed().as_secs(), settings.handshake_timeout.as_secs());

            let began = Instant::now();
            let (mut near, far) = tokio::io::duplex(1 << 16);
            let expected = [id("server")];
            let (_client, accepted) = tokio::join!(
                handshake::client(&mut near, ca.credentials(&id("client")).client_config(&expected), nobody()),
                timeout(Duration::from_secs(60), Connection::accept(far, server.server_config(), &settings)),
            );
            let error = accepted.expect("in time").err().unwrap();
            assert!(matches!(error, AcceptError::Timeout), "{error}");
            assert_eq!(began.elapsed().as_secs(), settings.handshake_timeout.as_secs());
            sleep(Duration::ZERO).await;
        })
        .await;
}

/// New keys are made for who uses them: data in between earns less than they cost.
#[tokio::test(start_paused = true)]
async fn key_changes_are_paid_for() {
    LocalSet::new()
        .run_until(async {
            let ((near, client), (far, server)) = proven().await;
            let driver = Driver::new(far, Role::Server, Rc::new(Settings::default()), server, nobody()).unwrap();
            let shared = driver.shared();
            let mut driving = tokio::task::spawn_local(driver);
            let Established { sealer, mut keys, .. } = client;
            let mut peer = Peer { far: near, sealer, driving: tokio::task::spawn_local(std::future::pending()) };
            peer.say(&[greeting(), connect(1)].concat()).await;
            let mut changes = 0;
            while !driving.is_finished() && changes < 2_000 {
                let update = seal(&mut peer.sealer, Content::Handshake, &[24, 0, 0, 1, 0]);
                let _ = peer.far.write_all(&update).await;
                peer.sealer = keys.next_sealer().unwrap();
                peer.say(&frame(kind::DATA, 0, 1, b"x")).await;
                changes += 1;
                tokio::task::yield_now().await;
            }
            let over = (&mut driving).await.unwrap();
            assert!(matches!(over, Over::Protocol(e) if e.code == Code::EnhanceYourCalm), "{over}");
            // 4,000 by the 8 that one costs less the 2 that a frame of data earns.
            assert!((600..750).contains(&changes), "{changes}");
            drop(shared);
        })
        .await;
}
