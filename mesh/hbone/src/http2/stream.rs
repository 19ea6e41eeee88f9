//! One stream of a connection: its windows, what has come for its application, and how far both directions have ended.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::{HeaderMap, StatusCode};
use rustix::net::{self, SendAncillaryBuffer, SendFlags};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::windows::{ReceiveWindow, SendWindow};
use super::{Code, Role};
use crate::broken::Broken;
use crate::count::Count;

/// Pieces of data that wait for their application are joined up to this: a byte to itself takes fifty.
const JOINED: usize = 16 << 10;

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

/// The streams of a connection by their ids.
pub(super) type Streams = HashMap<u32, Stream, BuildHasherDefault<IdHasher>>;

/// One stream. Its entry lives as long as its owner's handle.
pub(crate) struct Stream {
    send_window: SendWindow,
    receive_window: ReceiveWindow,
    /// Arrived, and not yet handed to the application.
    waiting: VecDeque<Vec<u8>>,
    /// Handed to the application's task, and not yet taken.
    handed: usize,
    /// Nothing that came earlier is still on its way to the application: the sink may be written to.
    sink_is_free: bool,
    sink: Option<Sink>,
    sink_error: Option<io::Error>,
    response: Option<(StatusCode, HeaderMap)>,
    /// The peer has sent the last of its bytes.
    received_end: bool,
    /// We have sent the last of ours.
    sent_end: bool,
    /// A final response has come, or has been sent.
    answered: bool,
    broken: Option<Broken>,
    /// Waits for room to send.
    sender: Option<Waker>,
    /// Waits for bytes, an answer, or the end.
    receiver: Option<Waker>,
    /// Waits for the peer to be gone, while bytes wait for the application.
    watcher: Option<Waker>,
}

impl Stream {
    /// A stream on which the peer lets us send as much, and we let it. `ended` says that the peer sends nothing.
    pub(super) fn new(send_window: i64, receive_window: i64, ended: bool) -> Self {
        Self {
            send_window: SendWindow::new(send_window),
            receive_window: ReceiveWindow::new(receive_window),
            waiting: VecDeque::new(),
            handed: 0,
            sink_is_free: true,
            sink: None,
            sink_error: None,
            response: None,
            received_end: ended,
            sent_end: false,
            answered: false,
            broken: None,
            sender: None,
            receiver: None,
            watcher: None,
        }
    }

    /// How it is broken, if it is.
    pub(super) fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// The peer has sent the last of its bytes.
    pub(super) fn has_received_end(&self) -> bool {
        self.received_end
    }

    /// We have sent the last of our bytes.
    pub(super) fn has_sent_end(&self) -> bool {
        self.sent_end
    }

    /// Both directions have ended.
    pub(super) fn is_complete(&self) -> bool {
        self.received_end && self.sent_end
    }

    /// A final response has come, or has been sent.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Breaks both directions. The first reason stays.
    pub(super) fn break_off(&mut self, broken: Broken) {
        if self.broken.is_none() {
            self.broken = Some(broken);
            self.wake();
        }
    }

    /// The connection is over. What arrived whole before that is whole.
    pub(super) fn connection_is_over(&mut self, broken: Broken) {
        if !self.is_complete() {
            self.break_off(broken);
        }
        self.wake();
    }

    fn wake(&mut self) {
        wake(&mut self.sender);
        wake(&mut self.receiver);
        wake(&mut self.watcher);
    }

    /// The final response has come. `end` says that nothing follows.
    pub(super) fn answer_came(&mut self, status: StatusCode, headers: HeaderMap, end: bool) {
        self.answered = true;
        self.received_end = end;
        self.response = Some((status, headers));
        self.wake();
    }

    /// The final response has been sent. `end` says that nothing follows.
    pub(super) fn answer_sent(&mut self, end: bool) {
        self.answered = true;
        self.sent_end = end;
    }

    /// The peer has sent the last of its bytes.
    pub(super) fn end_came(&mut self) {
        self.received_end = true;
        wake(&mut self.receiver);
        wake(&mut self.watcher);
    }

    /// We have sent the last of our bytes.
    pub(super) fn end_sent(&mut self) {
        self.sent_end = true;
        wake(&mut self.watcher);
    }

    /// Bytes that the application has not taken.
    pub(super) fn untaken(&self) -> usize {
        self.waiting.iter().map(Vec::len).sum::<usize>() + self.handed
    }

    /// What bytes that wait take up in memory.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn memory(&self) -> usize {
        self.waiting.iter().map(|piece| piece.capacity() + size_of::<Vec<u8>>()).sum()
    }

    /// `bytes` of DATA have come. False when the peer has sent more than it may.
    #[must_use]
    pub(super) fn receive(&mut self, bytes: usize) -> bool {
        self.receive_window.receive(bytes)
    }

    /// `bytes` have left our buffers. Returns the increment of the WINDOW_UPDATE that is due, if a quarter of `window` is.
    #[must_use]
    pub(super) fn give_back(&mut self, bytes: usize, window: u32) -> Option<u32> {
        self.receive_window.hold_back(bytes as u32);
        if self.receive_window.held_back() >= (window / 4).max(1) { self.release_window() } else { None }
    }

    /// As [`ReceiveWindow::release`], unless the peer sends no more anyway.
    #[must_use]
    pub(super) fn release_window(&mut self) -> Option<u32> {
        if self.received_end || self.broken.is_some() {
            return None;
        }
        self.receive_window.release()
    }

    /// The application has taken `bytes` of what was handed to its task.
    pub(super) fn took(&mut self, bytes: usize) {
        self.handed = self.handed.saturating_sub(bytes);
    }

    /// What the peer lets us send.
    pub(super) fn send_window(&self) -> i64 {
        self.send_window.open()
    }

    /// `bytes` of DATA have been sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.send_window.sent(bytes);
    }

    /// As [`SendWindow::grow`]; wakes who waits for room.
    #[must_use]
    pub(super) fn grow_send_window(&mut self, more: i64) -> bool {
        let grown = self.send_window.grow(more);
        wake(&mut self.sender);
        grown
    }

    /// Has `cx` woken when there may be room to send.
    pub(super) fn wait_for_room(&mut self, cx: &Context<'_>) {
        self.sender = Some(cx.waker().clone());
    }

    /// Wakes who waits for room to send.
    pub(super) fn wake_sender(&mut self) {
        wake(&mut self.sender);
    }

    /// Has bytes written to `sink` as they arrive.
    pub(super) fn pour_into(&mut self, sink: Sink) {
        self.sink = Some(sink);
    }

    /// Whether anybody waits for DATA.
    pub(super) fn takes_data(&self) -> bool {
        self.broken.is_none() && self.sink_error.is_none()
    }

    /// Takes `bytes` of DATA: writes them to the application's socket, as far as it takes them, and keeps the rest. `last`
    /// says that the stream ends with them. Returns how many were written; `None` when the socket has failed.
    pub(super) fn deliver(&mut self, slices: &[IoSlice<'_>], bytes: usize, last: bool) -> Option<usize> {
        let mut written = 0;
        if let Some(sink) = &self.sink
            && self.sink_is_free
            && self.waiting.is_empty()
        {
            match sink.write(slices, last) {
                Ok(n) => {
                    written = n;
                    sink.count.back(n);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => {
                    self.sink_error = Some(error);
                    wake(&mut self.receiver);
                    return None;
                }
            }
        }
        if written < bytes {
            self.keep(slices, written, bytes - written);
            wake(&mut self.receiver);
        }
        Some(written)
    }

    /// Keeps the last `bytes` of `slices` for the application, all but the first `skip`.
    fn keep(&mut self, slices: &[IoSlice<'_>], mut skip: usize, bytes: usize) {
        let joins = self.waiting.back().is_some_and(|last| last.len() + bytes <= JOINED);
        let last = if joins { self.waiting.pop_back() } else { None };
        let mut kept = last.unwrap_or_else(|| Vec::with_capacity(bytes));
        for slice in slices {
            let skipped = skip.min(slice.len());
            skip -= skipped;
            kept.extend_from_slice(&slice[skipped..]);
        }
        self.waiting.push_back(kept);
    }

    /// What has come and is not in the sink.
    pub(super) fn poll_incoming(&mut self, cx: &Context<'_>) -> Poll<Incoming> {
        if let Some(error) = self.sink_error.take() {
            return Poll::Ready(Incoming::SinkFailed(error));
        }
        // Bytes that came before a cut are handed over before it.
        if let Some(bytes) = self.waiting.pop_front() {
            // Until they are written, what comes after them must not overtake them.
            self.sink_is_free = false;
            self.handed += bytes.len();
            return Poll::Ready(Incoming::Bytes(bytes));
        }
        self.sink_is_free = true;
        if self.received_end {
            return Poll::Ready(Incoming::End);
        }
        match self.broken {
            Some(Broken::Reset(code)) if code == Code::None as u32 => Poll::Ready(Incoming::End),
            Some(broken) => Poll::Ready(Incoming::Broken(broken)),
            None => {
                self.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits for the answer to a request.
    pub(super) fn poll_response(&mut self, cx: &Context<'_>) -> Poll<Result<(StatusCode, HeaderMap), Broken>> {
        if let Some(response) = self.response.take() {
            return Poll::Ready(Ok(response));
        }
        match self.broken {
            Some(broken) => Poll::Ready(Err(broken)),
            None => {
                self.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits until it is broken: by its peer, or with its connection.
    pub(super) fn poll_broken(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.broken.is_some() {
            return Poll::Ready(());
        }
        self.receiver = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Tells whether somebody still waits for bytes that the application does not take; if so, wakes `cx` when that changes.
    pub(super) fn poll_left(&mut self, cx: &Context<'_>) -> Option<Left> {
        match self.broken {
            Some(Broken::Revoked) => Some(Left::Cut(Broken::Revoked)),
            Some(Broken::Reset(code)) if code == Code::None as u32 => Some(Left::Finished),
            Some(_) if self.received_end => Some(Left::Finished),
            Some(broken) => Some(Left::Cut(broken)),
            None if self.is_complete() => Some(Left::Finished),
            None => {
                self.watcher = Some(cx.waker().clone());
                None
            }
        }
    }
}

pub(super) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// Which ids streams have had (RFC 9113 5.1.1).
#[derive(Debug)]
pub(super) struct Ids {
    role: Role,
    /// The next stream we open.
    next_own: u32,
    /// The highest stream the peer has opened.
    last_peers: u32,
}

impl Ids {
    /// Those of a connection on which `role` is ours.
    pub(super) fn new(role: Role) -> Self {
        Self { role, next_own: 1, last_peers: 0 }
    }

    /// The id of a stream that we open.
    pub(super) fn open(&mut self) -> u32 {
        let id = self.next_own;
        self.next_own += 2;
        id
    }

    /// Whether there is one more for a stream of ours.
    pub(super) fn has_more(&self) -> bool {
        self.next_own < 0x7fff_ffff
    }

    /// The peer has opened a stream.
    pub(super) fn opened_by_peer(&mut self, id: u32) {
        self.last_peers = id;
    }

    /// The highest stream the peer has opened.
    pub(super) fn last_of_peer(&self) -> u32 {
        self.last_peers
    }

    /// True for a stream that nobody has opened yet.
    pub(super) fn is_idle(&self, id: u32) -> bool {
        match id % 2 == 1 {
            // Clients open the odd ones.
            true if self.role == Role::Client => id >= self.next_own,
            true => id > self.last_peers,
            false => true,
        }
    }
}

/// Streams that wait for room in the buffer or the connection's window.
#[derive(Debug, Default)]
pub(super) struct Blocked(Vec<u32>);

impl Blocked {
    pub(super) fn add(&mut self, id: u32) {
        if !self.0.contains(&id) {
            self.0.push(id);
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.0.retain(|blocked| *blocked != id);
    }

    /// All of them, which are then blocked no more.
    pub(super) fn take(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
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
