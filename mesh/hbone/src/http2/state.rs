//! One connection and its streams: what is known of both ends. No I/O but that of applications' sockets, which are
//! read from and written to where the bytes lie.
//!
//! Bounds: streams by [`crate::Settings`] (a stream counts until its owner lets go of it, however early the peer reset it);
//! bytes that applications have not taken by the receive windows; header blocks by [`MAX_BLOCK`] and by
//! [`crate::Settings::header_timeout`]; frames for nothing by [`super::flood`].

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::{HeaderMap, Method, StatusCode};
use rustix::net::{self, SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::flood::Allowance;
use super::frame::{flag, kind};
use super::hpack::Decoder;
use super::kept::Kept;
use super::outgoing::Outgoing;
use super::{Code, ConnectionError, DEFAULT_FRAME, DEFAULT_WINDOW, PREFACE};
use crate::Settings;
use crate::broken::{Broken, TunnelError};
use crate::count::Count;
use crate::tls::record::{RecordError, Sealer};

/// Longest header block taken, compressed, with all of its CONTINUATIONs.
pub(super) const MAX_BLOCK: usize = 64 << 10;
/// Largest header list taken, in the bytes of RFC 9113 6.5.2: what upstream takes. Each request that waits for its
/// answer holds one.
pub(super) const MAX_LIST: usize = 16 << 10;
/// Most that may wait to be sent to a peer that goes on asking for more: data is bounded by far less, and the rest are
/// answers to what it sends without reading them.
pub(super) const MAX_UNREAD: usize = 1 << 20;
/// Pieces of data that wait for their application are joined up to this: a byte to itself takes fifty.
const JOINED: usize = 16 << 10;

/// The name that RFC 9113 6.5.2 gives a setting.
pub(super) mod setting {
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Which end we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// Why a connection is over.
#[derive(Debug, Clone)]
pub(crate) enum Over {
    /// Both ends were done.
    Done,
    /// The peer broke the protocol.
    Protocol(ConnectionError),
    /// The transport or TLS failed.
    Transport(Rc<io::Error>),
    /// It left a PING unanswered.
    Unanswered,
    /// Whoever held it let go of it.
    Dropped,
    /// The peer's certificate was taken back.
    Revoked,
}

impl From<io::Error> for Over {
    /// What a transport failed with; one that is a tunnel itself may have been cut.
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(TunnelError::Revoked) => Self::Revoked,
            _ => Self::Transport(Rc::new(error)),
        }
    }
}

impl std::fmt::Display for Over {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("the connection is closed"),
            Self::Protocol(error) => error.fmt(f),
            Self::Transport(error) => error.fmt(f),
            Self::Unanswered => f.write_str("the peer does not answer PING"),
            Self::Dropped => f.write_str("the connection was given up"),
            Self::Revoked => f.write_str("the peer's certificate has been revoked"),
        }
    }
}

/// What comes to a stream's owner.
#[derive(Debug)]
pub(crate) enum Incoming {
    Bytes(Vec<u8>),
    /// There is nothing more to come.
    End,
    Broken(Broken),
    /// The application's socket failed.
    SinkFailed(io::Error),
}

/// How the peer of a stream has left while bytes of its wait for the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// In the middle: what is here is not all of it.
    Cut(Broken),
    /// After it had said all.
    Finished,
}

/// An application's socket, to which DATA is written where it lies.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) tcp: Rc<TcpStream>,
    pub(crate) count: Rc<dyn Count>,
}

impl Sink {
    /// Writes what the socket takes. The `last` bytes wait for the end, which is written next, and leave in its segment.
    fn write(&self, slices: &[IoSlice<'_>], last: bool) -> io::Result<usize> {
        let flags = if last { SendFlags::MORE | SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL };
        self.tcp.try_io(Interest::WRITABLE, || {
            Ok(match slices {
                // What most reads hold; it costs the kernel less than a list of one.
                [piece] => net::send(&*self.tcp, piece, flags)?,
                _ => net::sendmsg(&*self.tcp, slices, &mut SendAncillaryBuffer::default(), flags)?,
            })
        })
    }
}

/// A request as it came.
pub(crate) struct Request {
    pub(crate) stream: u32,
    pub(crate) method: Method,
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
}

/// One stream. Its entry lives as long as its owner's handle.
pub(crate) struct Stream {
    /// What the peer lets us send.
    pub(super) send_window: i64,
    /// What we let the peer send.
    pub(super) receive_window: i64,
    /// Taken by the application and not yet given back to the peer.
    pub(super) taken: u32,
    /// Arrived, and not yet handed to the application.
    pub(super) waiting: VecDeque<Vec<u8>>,
    /// Handed to the application's task, and not yet taken.
    pub(super) handed: usize,
    /// Nothing that came earlier is still on its way to the application: the sink may be written to.
    pub(super) sink_is_free: bool,
    pub(super) sink: Option<Sink>,
    pub(super) sink_error: Option<io::Error>,
    pub(super) response: Option<(StatusCode, HeaderMap)>,
    /// The peer has sent the last of its bytes.
    pub(super) received_end: bool,
    /// We have sent the last of ours.
    pub(super) sent_end: bool,
    /// A final response has come, or has been sent.
    pub(super) answered: bool,
    pub(super) broken: Option<Broken>,
    /// Waits for room to send.
    pub(super) sender: Option<Waker>,
    /// Waits for bytes, an answer, or the end.
    pub(super) receiver: Option<Waker>,
    /// Waits for the peer to be gone, while bytes wait for the application.
    pub(super) watcher: Option<Waker>,
}

impl Stream {
    fn new(send_window: i64, receive_window: i64) -> Self {
        Self {
            send_window,
            receive_window,
            taken: 0,
            waiting: VecDeque::new(),
            handed: 0,
            sink_is_free: true,
            sink: None,
            sink_error: None,
            response: None,
            received_end: false,
            sent_end: false,
            answered: false,
            broken: None,
            sender: None,
            receiver: None,
            watcher: None,
        }
    }

    pub(super) fn wake(&mut self) {
        wake(&mut self.sender);
        wake(&mut self.receiver);
        wake(&mut self.watcher);
    }

    /// Bytes that the application has not taken.
    pub(super) fn untaken(&self) -> usize {
        self.waiting.iter().map(Vec::len).sum::<usize>() + self.handed
    }
}

pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Hashes ids of streams, which are looked up for every frame. Peers choose them, but only as many as there may be
/// streams: who chooses them badly has a few hundred compared.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        // Fibonacci hashing: the upper half is mixed best.
        let mixed = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// Header block of which CONTINUATIONs are to come.
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) flags: u8,
    pub(super) bytes: Kept,
    /// When its HEADERS came.
    pub(super) since: tokio::time::Instant,
}

/// One connection.
pub(crate) struct State {
    pub(super) role: Role,
    pub(crate) settings: Rc<Settings>,
    pub(super) outgoing: Outgoing,
    pub(super) streams: HashMap<u32, Stream, BuildHasherDefault<IdHasher>>,
    /// The next stream we open.
    pub(super) next_own: u32,
    /// The highest stream the peer has opened.
    pub(super) last_peers: u32,
    pub(super) send_window: i64,
    pub(super) receive_window: i64,
    /// Taken by applications and not yet given back.
    pub(super) taken: u32,
    /// Streams' windows are shares of the connection's: so large each.
    pub(super) shares: Option<u32>,
    /// The most that the peer has let us send on the connection.
    pub(super) most_send_window: i64,
    pub(super) peer_window: i64,
    pub(super) peer_frame: usize,
    pub(super) peer_streams: usize,
    pub(super) decoder: Decoder,
    pub(super) block: Option<Block>,
    /// The client's preface and SETTINGS have come; SETTINGS, of a server.
    pub(super) greeted: bool,
    pub(super) preface_seen: usize,
    pub(super) allowance: Allowance,
    pub(super) requests: VecDeque<Request>,
    /// Waits for a request, the greeting, or the end.
    pub(super) acceptor: Option<Waker>,
    pub(super) driver: Option<Waker>,
    /// Streams that wait for room in the buffer or the connection's window.
    pub(super) blocked: Vec<u32>,
    /// The peer takes no new streams.
    pub(super) peer_goes_away: bool,
    pub(super) going_away: GoingAway,
    /// We open no more streams here: the connection has carried enough.
    pub(super) retired: bool,
    /// The handle of the connection is gone: it ends with its last stream, or, on a server, at once.
    pub(super) released: bool,
    pub(super) ping: Option<tokio::time::Instant>,
    pub(super) heard: bool,
    pub(super) over: Option<Over>,
}

/// How far our own leaving has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GoingAway {
    No,
    /// The peer knows; streams it opened before it knew are still taken.
    Announced,
    /// No stream is taken any more.
    Closed,
}

/// Payloads of our PINGs.
pub(super) const PING_ALIVE: [u8; 8] = *b"alive?\0\0";
pub(super) const PING_LEAVING: [u8; 8] = *b"leaving\0";

/// Shared by the driver, the handle of the connection, and every stream's.
pub(crate) type Shared = Rc<RefCell<State>>;

impl State {
    /// A connection that has said its greeting (into its buffer).
    pub(crate) fn new(role: Role, settings: Rc<Settings>, sealer: Sealer, now: Instant) -> Result<Self, RecordError> {
        let mut outgoing = Outgoing::new(sealer);
        if role == Role::Client {
            outgoing.bytes(PREFACE)?;
        }
        let role_setting = match role {
            Role::Client => (setting::ENABLE_PUSH, 0),
            Role::Server => (setting::MAX_CONCURRENT_STREAMS, settings.server_streams),
        };
        let mut payload = Vec::with_capacity(24);
        for (name, value) in [
            role_setting,
            (setting::INITIAL_WINDOW_SIZE, settings.stream_window),
            (setting::MAX_FRAME_SIZE, settings.frame_size),
            (setting::MAX_HEADER_LIST_SIZE, MAX_LIST as u32),
        ] {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        outgoing.frame(kind::SETTINGS, 0, 0, &payload)?;
        let more = settings.connection_window.saturating_sub(DEFAULT_WINDOW);
        if more > 0 {
            outgoing.frame(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes())?;
        }
        Ok(Self {
            role,
            outgoing,
            streams: HashMap::default(),
            next_own: 1,
            last_peers: 0,
            send_window: DEFAULT_WINDOW.into(),
            receive_window: settings.connection_window.max(DEFAULT_WINDOW).into(),
            taken: 0,
            shares: None,
            most_send_window: DEFAULT_WINDOW.into(),
            peer_window: DEFAULT_WINDOW.into(),
            peer_frame: DEFAULT_FRAME,
            peer_streams: settings.client_streams,
            decoder: Decoder::default(),
            block: None,
            greeted: false,
            preface_seen: 0,
            allowance: Allowance::new(now),
            requests: VecDeque::new(),
            acceptor: None,
            driver: None,
            blocked: Vec::new(),
            peer_goes_away: false,
            going_away: GoingAway::No,
            retired: false,
            released: false,
            ping: None,
            heard: false,
            over: None,
            settings,
        })
    }

    pub(super) fn stream(&mut self, id: u32) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    pub(super) fn new_stream(&mut self, id: u32) -> &mut Stream {
        let stream = Stream::new(self.peer_window, self.settings.stream_window.into());
        self.streams.entry(id).or_insert(stream)
    }

    /// Has the driver send what is waiting, and look whether it is done.
    pub(crate) fn drive(&mut self) {
        wake(&mut self.driver);
    }

    /// Appends a frame. What fails here fails for want of a working cipher: the connection is over. Once it is, nobody
    /// would send the frame, and it would keep a buffer.
    pub(super) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        if self.over.is_some() {
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

    pub(super) fn send_go_away(&mut self, last: u32, code: Code) {
        let mut payload = [0; 8];
        payload[..4].copy_from_slice(&last.to_be_bytes());
        payload[4..].copy_from_slice(&(code as u32).to_be_bytes());
        self.send(kind::GOAWAY, 0, 0, &payload);
    }

    /// Ends the connection and breaks its streams. The first reason stays.
    pub(crate) fn end(&mut self, why: Over) {
        if self.over.is_some() {
            return;
        }
        let broken = if matches!(why, Over::Revoked) { Broken::Revoked } else { Broken::Lost };
        self.over = Some(why);
        for stream in self.streams.values_mut() {
            // What arrived whole before the end is whole.
            let complete = stream.received_end && stream.sent_end;
            if stream.broken.is_none() && !complete {
                stream.broken = Some(broken);
            }
            stream.wake();
        }
        for request in std::mem::take(&mut self.requests) {
            self.streams.remove(&request.stream);
        }
        wake(&mut self.acceptor);
        self.drive();
    }

    /// Cuts the peer off, and everything it carries: its certificate was taken back.
    pub(crate) fn revoke(&mut self) {
        let last = self.last_peers;
        self.send_go_away(last, Code::None);
        self.end(Over::Revoked);
    }

    pub(crate) fn over(&self) -> Option<&Over> {
        self.over.as_ref()
    }

    /// Nothing more is asked of this connection.
    pub(super) fn is_done(&self) -> bool {
        let leaving = self.released || self.retired || self.going_away == GoingAway::Closed || self.peer_goes_away;
        leaving && self.streams.is_empty()
    }

    /// The owner of a stream lets go of it. What is not finished is broken off.
    pub(crate) fn release(&mut self, id: u32) {
        let Some(stream) = self.streams.remove(&id) else { return };
        let untaken = stream.untaken();
        self.blocked.retain(|blocked| *blocked != id);
        self.give_back_left(untaken as u32);
        if self.over.is_none() && stream.broken.is_none() && !(stream.sent_end && stream.received_end) {
            // A complete answer to a request that was not read to its end is no failure (RFC 9113 8.1).
            let code = if stream.sent_end { Code::None } else { Code::Cancel };
            self.send_reset(id, code);
        }
        if self.is_done() {
            self.drive();
        }
    }

    /// Streams that waited for room look again.
    pub(super) fn unblock(&mut self) {
        for id in std::mem::take(&mut self.blocked) {
            if let Some(stream) = self.streams.get_mut(&id) {
                wake(&mut stream.sender);
            }
        }
    }

    /// Asks the peer to open no more streams here. Open ones go on.
    pub(crate) fn go_away(&mut self) {
        if self.going_away == GoingAway::No && self.over.is_none() {
            self.going_away = GoingAway::Announced;
            self.send_go_away(0x7fff_ffff, Code::None);
            // When this is answered the peer has seen it: nothing it opens comes from before.
            self.send(kind::PING, 0, 0, &PING_LEAVING);
        }
    }

    /// Has new streams opened elsewhere, by whichever end opens them. Open ones go on.
    pub(crate) fn retire(&mut self) {
        match self.role {
            Role::Client => self.retired = true,
            Role::Server => self.go_away(),
        }
    }

    /// The handle of the connection is gone.
    pub(crate) fn release_connection(&mut self) {
        self.released = true;
        match self.role {
            Role::Server => self.end(Over::Dropped),
            Role::Client => self.drive(),
        }
    }

    /// Applies the settings of a SETTINGS frame.
    pub(super) fn apply(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        for entry in payload.chunks_exact(6) {
            let name = u16::from_be_bytes([entry[0], entry[1]]);
            let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            match name {
                // A server has nothing to push with, and says so (RFC 9113 6.5.2).
                setting::ENABLE_PUSH if value > u32::from(self.role == Role::Server) => {
                    return Err(ConnectionError::new(Code::Protocol, "SETTINGS_ENABLE_PUSH out of range"));
                }
                setting::MAX_CONCURRENT_STREAMS => self.peer_streams = value as usize,
                setting::INITIAL_WINDOW_SIZE => {
                    let window = i64::from(value);
                    if window > super::MAX_WINDOW {
                        return Err(ConnectionError::new(Code::FlowControl, "SETTINGS_INITIAL_WINDOW_SIZE too large"));
                    }
                    let change = window - self.peer_window;
                    self.peer_window = window;
                    for stream in self.streams.values_mut() {
                        stream.send_window += change;
                        if stream.send_window > super::MAX_WINDOW {
                            return Err(ConnectionError::new(Code::FlowControl, "window too large"));
                        }
                        wake(&mut stream.sender);
                    }
                }
                setting::MAX_FRAME_SIZE => {
                    if !(DEFAULT_FRAME as u32..1 << 24).contains(&value) {
                        return Err(ConnectionError::new(Code::Protocol, "SETTINGS_MAX_FRAME_SIZE out of range"));
                    }
                    self.peer_frame = value as usize;
                }
                // The table we encode with is empty whatever its size; the rest does not concern tunnels.
                _ => {}
            }
        }
        Ok(())
    }

    /// Has a stream's bytes written to `sink` as they arrive.
    pub(crate) fn pour_into(&mut self, id: u32, sink: Sink) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.sink = Some(sink);
        }
    }

    /// What has come to a stream and is not in its sink.
    pub(crate) fn poll_incoming(&mut self, id: u32, cx: &Context<'_>) -> Poll<Incoming> {
        let Some(stream) = self.streams.get_mut(&id) else { return Poll::Ready(Incoming::Broken(Broken::Lost)) };
        if let Some(error) = stream.sink_error.take() {
            return Poll::Ready(Incoming::SinkFailed(error));
        }
        // Bytes that came before a cut are handed over before it.
        if let Some(bytes) = stream.waiting.pop_front() {
            // Until they are written, what comes after them must not overtake them.
            stream.sink_is_free = false;
            stream.handed += bytes.len();
            return Poll::Ready(Incoming::Bytes(bytes));
        }
        stream.sink_is_free = true;
        if stream.received_end {
            return Poll::Ready(Incoming::End);
        }
        match stream.broken {
            Some(Broken::Reset(code)) if code == Code::None as u32 => Poll::Ready(Incoming::End),
            Some(broken) => Poll::Ready(Incoming::Broken(broken)),
            None => {
                stream.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits until a stream is broken: by its peer, or with its connection.
    pub(crate) fn poll_broken(&mut self, id: u32, cx: &Context<'_>) -> Poll<()> {
        match self.streams.get_mut(&id).filter(|stream| stream.broken.is_none()) {
            Some(stream) => {
                stream.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    /// Waits for the peer's first words.
    pub(crate) fn poll_greeting(&mut self, cx: &Context<'_>) -> Poll<Result<(), Over>> {
        match &self.over {
            _ if self.greeted => Poll::Ready(Ok(())),
            Some(over) => Poll::Ready(Err(over.clone())),
            None => {
                self.acceptor = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits for a request.
    pub(crate) fn poll_request(&mut self, cx: &Context<'_>) -> Poll<Result<Request, Over>> {
        match (self.requests.pop_front(), &self.over) {
            (Some(request), _) => Poll::Ready(Ok(request)),
            (None, Some(over)) => Poll::Ready(Err(over.clone())),
            (None, None) => {
                self.acceptor = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Hands DATA to its stream: to the application's socket, as far as it takes it. `last` says that the stream ends
    /// with it.
    pub(crate) fn deliver(&mut self, id: u32, slices: &[IoSlice<'_>], bytes: usize, last: bool) {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.broken.is_none() && s.sink_error.is_none()) else {
            // Nobody waits for it.
            return self.give_back(bytes as u32);
        };
        let mut written = 0;
        if let Some(sink) = &stream.sink
            && stream.sink_is_free
            && stream.waiting.is_empty()
        {
            match sink.write(slices, last) {
                Ok(n) => {
                    written = n;
                    sink.count.back(n);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => {
                    stream.sink_error = Some(error);
                    wake(&mut stream.receiver);
                    return self.give_back(bytes as u32);
                }
            }
        }
        if written < bytes {
            let more = bytes - written;
            let joins = stream.waiting.back().is_some_and(|last| last.len() + more <= JOINED);
            let last = if joins { stream.waiting.pop_back() } else { None };
            let mut kept = last.unwrap_or_else(|| Vec::with_capacity(more));
            let mut skip = written;
            for slice in slices {
                let skipped = skip.min(slice.len());
                skip -= skipped;
                kept.extend_from_slice(&slice[skipped..]);
            }
            stream.waiting.push_back(kept);
            wake(&mut stream.receiver);
            self.share_out();
        }
        if written > 0 {
            self.give_back_stream(id, written);
        }
    }

    /// True while another stream can be opened, and will be able to move bytes: half of the connection's windows has to be
    /// free, or the streams that are there move too much for one more, or nothing at all.
    pub(crate) fn has_room(&self) -> bool {
        let limit = self.settings.client_streams.min(self.peer_streams);
        // Before the peer has spoken its window is not known.
        let can_send = !self.greeted || self.send_window >= self.most_send_window / 2;
        self.takes_streams() && self.streams.len() < limit && can_send && self.shares.is_none()
    }

    /// True when the peer has said that it takes no stream at all.
    pub(crate) fn takes_none(&self) -> bool {
        self.greeted && self.peer_streams == 0
    }

    /// When the beginning of a header block came whose end is missing.
    pub(super) fn unfinished_block(&self) -> Option<tokio::time::Instant> {
        self.block.as_ref().map(|block| block.since)
    }

    /// Tells whether somebody still waits for bytes that the application does not take; if so, wakes `cx` when that changes.
    pub(crate) fn poll_left(&mut self, id: u32, cx: &Context<'_>) -> Option<Left> {
        let Some(stream) = self.streams.get_mut(&id) else { return Some(Left::Cut(Broken::Lost)) };
        match stream.broken {
            Some(Broken::Revoked) => Some(Left::Cut(Broken::Revoked)),
            Some(Broken::Reset(code)) if code == Code::None as u32 => Some(Left::Finished),
            Some(_) if stream.received_end => Some(Left::Finished),
            Some(broken) => Some(Left::Cut(broken)),
            None if stream.received_end && stream.sent_end => Some(Left::Finished),
            None => {
                stream.watcher = Some(cx.waker().clone());
                None
            }
        }
    }

    /// True until the peer or we want no more streams.
    pub(crate) fn takes_streams(&self) -> bool {
        self.over.is_none() && !self.peer_goes_away && !self.retired && self.next_own < 0x7fff_ffff
    }

    /// Streams that their owners hold.
    pub(crate) fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// The peer answered [`PING_LEAVING`], or time is up: what it opens from now on is refused.
    pub(super) fn close_to_new_streams(&mut self) {
        if self.going_away == GoingAway::Announced {
            self.going_away = GoingAway::Closed;
            let last = self.last_peers;
            self.send_go_away(last, Code::None);
        }
    }

    pub(super) fn end_flag(end: bool) -> u8 {
        if end { flag::END_STREAM } else { 0 }
    }
}
