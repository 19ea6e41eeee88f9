//! One connection and its streams: what is known of both ends. No I/O but that of applications' sockets, which are
//! read from and written to where the bytes lie.
//!
//! Each of its parts is a type that alone writes its fields; the rules between them are here, in [`super::receive`] (what
//! the peer says), [`super::send`] (what we say) and [`super::flow_control`] (what we let the peer send).
//!
//! Bounds: streams by [`crate::Settings`] (a stream counts until its owner lets go of it, however early the peer reset it);
//! bytes that applications have not taken by the receive windows; header blocks by [`super::header_block::MAX_BLOCK`] and by
//! [`crate::Settings::header_timeout`]; frames for nothing by [`super::flood`].

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::closing::{Closing, Over, PING_LEAVING};
use super::flood::Allowance;
use super::frame::kind;
use super::greeting::Greeting;
use super::header_block::Unfinished;
use super::hpack::Decoder;
use super::outgoing::Outgoing;
use super::requests::{Request, Requests};
use super::settings::{self, PeerSettings};
use super::stream::{Blocked, Ids, Incoming, Left, Sink, Stream, Streams, wake};
use super::windows::{ConnectionWindow, SendWindow};
use super::{Code, DEFAULT_WINDOW, PREFACE, Role};
use crate::Settings;
use crate::broken::Broken;
use crate::tls::record::{RecordError, Sealer};

/// Most that may wait to be sent to a peer that goes on asking for more: data is bounded by far less, and the rest are
/// answers to what it sends without reading them.
pub(super) const MAX_UNREAD: usize = 1 << 20;

/// One connection.
pub(crate) struct State {
    pub(super) role: Role,
    pub(crate) settings: Rc<Settings>,
    pub(super) outgoing: Outgoing,
    pub(super) streams: Streams,
    pub(super) ids: Ids,
    pub(super) send_window: SendWindow,
    pub(super) receive_window: ConnectionWindow,
    pub(super) peer: PeerSettings,
    pub(super) decoder: Decoder,
    pub(super) unfinished: Unfinished,
    pub(super) greeting: Greeting,
    pub(super) allowance: Allowance,
    pub(super) requests: Requests,
    pub(super) blocked: Blocked,
    pub(super) closing: Closing,
    /// The task that reads and sends.
    driver: Option<Waker>,
}

/// Shared by the driver, the handle of the connection, and every stream's.
pub(crate) type Shared = Rc<RefCell<State>>;

impl State {
    /// A connection that has said its greeting (into its buffer).
    pub(crate) fn new(role: Role, settings: Rc<Settings>, sealer: Sealer, now: Instant) -> Result<Self, RecordError> {
        let mut outgoing = Outgoing::new(sealer);
        if role == Role::Client {
            outgoing.bytes(PREFACE)?;
        }
        outgoing.frame(kind::SETTINGS, 0, 0, &settings::greeting(role, &settings))?;
        let more = settings.connection_window.saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            outgoing.frame(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes())?;
        }
        Ok(Self {
            role,
            outgoing,
            streams: Streams::default(),
            ids: Ids::new(role),
            send_window: SendWindow::new(DEFAULT_WINDOW.into()),
            receive_window: ConnectionWindow::new(&settings),
            peer: PeerSettings::new(settings.client_streams),
            decoder: Decoder::default(),
            unfinished: Unfinished::default(),
            greeting: Greeting::default(),
            allowance: Allowance::new(now),
            requests: Requests::default(),
            blocked: Blocked::default(),
            closing: Closing::new(),
            driver: None,
            settings,
        })
    }

    pub(super) fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    /// Adds a stream. `ended` says that the peer sends nothing on it.
    pub(super) fn new_stream(&mut self, id: u32, ended: bool) {
        let stream = Stream::new(self.peer.initial_window(), self.settings.stream_window.into(), ended);
        self.streams.entry(id).or_insert(stream);
    }

    /// Has the driver send what is waiting, and look whether it is done.
    pub(crate) fn drive(&mut self) {
        wake(&mut self.driver);
    }

    /// The driver is at work, and needs not be woken: it sends before it waits.
    pub(super) fn driver_is_awake(&mut self) {
        self.driver = None;
    }

    /// The driver waits for [`State::drive`].
    pub(super) fn driver_waits(&mut self, cx: &Context<'_>) {
        self.driver = Some(cx.waker().clone());
    }

    /// Appends a frame. What fails here fails for want of a working cipher: the connection is over. Once it is, nobody
    /// would send the frame, and it would keep a buffer.
    pub(super) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        if self.over().is_some() {
            return;
        }
        if let Err(error) = self.outgoing.frame(kind, flags, stream, payload) {
            self.end(Over::Transport(Rc::new(io::Error::other(error))));
        }
        self.drive();
    }

    pub(super) fn send_reset(&mut self, stream: u32, code: Code) {
        self.send(kind::RST_STREAM, 0, stream, &(code as u32).to_be_bytes());
    }

    /// Says which of the peer's streams was the last that is looked at.
    pub(super) fn send_go_away(&mut self, last: u32, code: Code) {
        let mut payload = [0; 8];
        payload[..4].copy_from_slice(&last.to_be_bytes());
        payload[4..].copy_from_slice(&(code as u32).to_be_bytes());
        self.send(kind::GOAWAY, 0, 0, &payload);
    }

    /// [`State::send_go_away`] after the last stream that the peer has opened so far.
    pub(super) fn send_go_away_now(&mut self, code: Code) {
        self.send_go_away(self.ids.last_of_peer(), code);
    }

    /// Ends the connection and breaks its streams. The first reason stays.
    pub(crate) fn end(&mut self, why: Over) {
        let broken = if matches!(why, Over::Revoked) { Broken::Revoked } else { Broken::Lost };
        if !self.closing.end(why) {
            return;
        }
        self.streams.values_mut().for_each(|stream| stream.connection_is_over(broken));
        for stream in self.requests.give_up() {
            self.streams.remove(&stream);
        }
        self.requests.wake();
        self.drive();
    }

    /// Cuts the peer off, and everything it carries: its certificate was taken back.
    pub(crate) fn revoke(&mut self) {
        self.send_go_away_now(Code::None);
        self.end(Over::Revoked);
    }

    /// Ends the connection without a word: the peer learns it when its transport is closed.
    pub(crate) fn give_up(&mut self) {
        self.end(Over::GivenUp);
    }

    pub(crate) fn over(&self) -> Option<&Over> {
        self.closing.over()
    }

    /// Nothing more is asked of this connection.
    pub(super) fn is_done(&self) -> bool {
        self.closing.has_begun() && self.streams.is_empty()
    }

    /// The owner of a stream lets go of it. What is not finished is broken off.
    pub(crate) fn release(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else { return };
        self.blocked.remove(id);
        self.give_back_left(stream.untaken() as u32);
        if self.over().is_none() && stream.broken().is_none() && !stream.is_complete() {
            // A complete answer to a request that was not read to its end is no failure (RFC 9113 8.1).
            let code = if stream.has_sent_end() { Code::None } else { Code::Cancel };
            self.send_reset(id, code);
        }
        if self.is_done() {
            self.drive();
        }
    }

    /// Streams that waited for room look again.
    pub(super) fn unblock(&mut self) {
        for id in self.blocked.take() {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.wake_sender();
            }
        }
    }

    /// Asks the peer to open no more streams here. Open ones go on.
    pub(crate) fn go_away(&mut self) {
        if self.closing.announce() {
            self.send_go_away(0x7fff_ffff, Code::None);
            // When this is answered the peer has seen it: nothing it opens comes from before.
            self.send(kind::PING, 0, 0, &PING_LEAVING);
        }
    }

    /// The peer answered [`PING_LEAVING`], or time is up: what it opens from now on is refused.
    pub(super) fn close_to_new_streams(&mut self) {
        if self.closing.close_to_new_streams() {
            self.send_go_away_now(Code::None);
        }
    }

    /// Has new streams opened elsewhere, by whichever end opens them. Open ones go on.
    pub(crate) fn retire(&mut self) {
        match self.role {
            Role::Client => self.closing.retire(),
            Role::Server => self.go_away(),
        }
    }

    /// The handle of the connection is gone.
    pub(crate) fn release_connection(&mut self) {
        self.closing.release();
        match self.role {
            Role::Server => self.end(Over::Dropped),
            Role::Client => self.drive(),
        }
    }

    /// Has a stream's bytes written to `sink` as they arrive.
    pub(crate) fn pour_into(&mut self, id: u32, sink: Sink) {
        if let Some(stream) = self.stream(id) {
            stream.pour_into(sink);
        }
    }

    /// What has come to a stream and is not in its sink.
    pub(crate) fn poll_incoming(&mut self, id: u32, cx: &Context<'_>) -> Poll<Incoming> {
        match self.stream(id) {
            Some(stream) => stream.poll_incoming(cx),
            None => Poll::Ready(Incoming::Broken(Broken::Lost)),
        }
    }

    /// Waits until a stream is broken: by its peer, or with its connection.
    pub(crate) fn poll_broken(&mut self, id: u32, cx: &Context<'_>) -> Poll<()> {
        self.stream(id).map_or(Poll::Ready(()), |stream| stream.poll_broken(cx))
    }

    /// Tells whether somebody still waits for bytes that the application does not take; if so, wakes `cx` when that changes.
    pub(crate) fn poll_left(&mut self, id: u32, cx: &Context<'_>) -> Option<Left> {
        self.stream(id).map_or(Some(Left::Cut(Broken::Lost)), |stream| stream.poll_left(cx))
    }

    /// Waits for the peer's first words.
    pub(crate) fn poll_greeting(&mut self, cx: &Context<'_>) -> Poll<Result<(), Over>> {
        match self.closing.over() {
            _ if self.greeting.is_complete() => Poll::Ready(Ok(())),
            Some(over) => Poll::Ready(Err(over.clone())),
            None => self.requests.wait(cx),
        }
    }

    /// Waits for a request. One that its caller has taken back already is nobody's work any more.
    pub(crate) fn poll_request(&mut self, cx: &Context<'_>) -> Poll<Result<Request, Over>> {
        while let Some(request) = self.requests.pop() {
            if self.streams.get(&request.stream).is_none_or(|stream| stream.broken().is_none()) {
                return Poll::Ready(Ok(request));
            }
            self.release(request.stream);
        }
        match self.closing.over() {
            Some(over) => Poll::Ready(Err(over.clone())),
            None => self.requests.wait(cx),
        }
    }

    /// Hands DATA to its stream: to the application's socket, as far as it takes it. `last` says that the stream ends
    /// with it.
    pub(crate) fn deliver(&mut self, id: u32, slices: &[IoSlice<'_>], bytes: usize, last: bool) {
        let stream = self.streams.get_mut(&id).filter(|stream| stream.takes_data());
        let Some(written) = stream.and_then(|stream| stream.deliver(slices, bytes, last)) else {
            // Nobody waits for it.
            return self.give_back(bytes as u32);
        };
        if written < bytes {
            self.share_out();
        }
        if written > 0 {
            self.give_back_stream(id, written);
        }
    }

    /// True while another stream can be opened, and will be able to move bytes: half of the connection's windows has to be
    /// free, or the streams that are there move too much for one more, or nothing at all.
    pub(crate) fn has_room(&self) -> bool {
        let limit = self.settings.client_streams.min(self.peer.streams());
        // Before the peer has spoken its window is not known.
        let can_send = !self.greeting.is_complete() || self.send_window.half_is_free();
        self.takes_streams() && self.streams.len() < limit && can_send && !self.receive_window.is_shared()
    }

    /// True when the peer has said that it takes no stream at all.
    pub(crate) fn takes_none(&self) -> bool {
        self.greeting.is_complete() && self.peer.streams() == 0
    }

    /// True until the peer or we want no more streams.
    pub(crate) fn takes_streams(&self) -> bool {
        self.closing.takes_own_streams() && self.ids.has_more()
    }

    /// Streams that their owners hold.
    pub(crate) fn open_streams(&self) -> usize {
        self.streams.len()
    }
}
