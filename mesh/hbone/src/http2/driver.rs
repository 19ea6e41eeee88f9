//! The task of a connection: reads records, opens them, hands what they hold to the streams, and sends what they
//! want sent.
//!
//! It reads into a buffer of the thread, so that a connection that is not being read holds none; of what was read only
//! the beginning of a record that is not whole is kept.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::frame::{Parser, Piece, kind};
use super::outgoing::Wear;
use super::state::{Over, PING_ALIVE, Role, Shared, State};
use super::{Code, ConnectionError};
use crate::tls::handshake::{Established, Keys};
use crate::tls::record::{self, Content, MAX_RECORD, Opener};

/// Most bytes of one read.
const READ: usize = 256 << 10;
/// Reads before other work of the thread has its turn.
const READS: usize = 4;
/// Pieces that are handed to an application at once.
const SLICES: usize = 24;
/// Key changes in a row that bring no data.
const KEY_CHANGES: u32 = 16;
/// Why a connection of TLS 1.2 ends that has carried too much, and was not done when it was half of that.
const WORN: &str = "TLS 1.2 cannot change keys, and this one has sealed all that it may";
/// Longest handshake message after the handshake: tickets, which are not used.
const MAX_MESSAGE: usize = 16 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Drives one connection until it is over.
pub(crate) struct Driver<T> {
    transport: T,
    shared: Shared,
    input: Input,
    clock: Pin<Box<Sleep>>,
    greeting_due: Option<tokio::time::Instant>,
    closing: bool,
}

/// The receiving side.
struct Input {
    opener: Opener,
    keys: Keys,
    parser: Parser,
    /// The beginning of a record.
    partial: Vec<u8>,
    /// The beginning of a handshake message.
    message: Vec<u8>,
    key_changes: u32,
    max_frame: usize,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// A driver of an established connection, and what was read past the handshake dealt with.
    pub(crate) fn new(
        transport: T,
        role: Role,
        settings: Rc<crate::Settings>,
        established: Established,
    ) -> io::Result<Self> {
        let Established { sealer, opener, keys, plaintext, unread, .. } = established;
        let now = tokio::time::Instant::now();
        let clock = Box::pin(tokio::time::sleep(settings.ping_interval));
        let greeting_due = Some(now + settings.handshake_timeout);
        let max_frame = settings.frame_size as usize;
        let state = State::new(role, settings, sealer, Instant::now()).map_err(io::Error::other)?;
        let shared = Rc::new(RefCell::new(state));
        let mut input = Input {
            opener,
            keys,
            parser: Parser::default(),
            partial: Vec::new(),
            message: Vec::new(),
            key_changes: 0,
            max_frame,
        };
        let mut first = Ok(());
        if !plaintext.is_empty() {
            first = input.plaintext(&shared, &plaintext);
        }
        let mut unread = unread;
        if first.is_ok() && !unread.is_empty() {
            first = input.records(&shared, &mut unread);
        }
        if let Err(over) = first {
            fail(&shared, over);
        }
        Ok(Self { transport, shared, input, clock, greeting_due, closing: false })
    }

    /// The connection, for its handle.
    pub(crate) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Reads what has come. Ready when there is nothing more to come.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.is_empty() {
                buffer.resize(READ + MAX_RECORD, 0);
            }
            for _ in 0..READS {
                let kept = self.input.partial.len();
                let space = kept..kept + READ;
                let mut read = ReadBuf::new(&mut buffer[space]);
                if let Err(error) = ready!(Pin::new(&mut self.transport).poll_read(cx, &mut read)) {
                    fail(&self.shared, error.into());
                    return Poll::Ready(());
                }
                let new = read.filled().len();
                if new == 0 {
                    fail(&self.shared, hung_up());
                    return Poll::Ready(());
                }
                buffer[..kept].copy_from_slice(&self.input.partial);
                // Given back, not kept: most connections are at rest most of the time.
                self.input.partial = Vec::new();
                {
                    let mut state = self.shared.borrow_mut();
                    state.heard = true;
                    state.ping = None;
                }
                if let Err(over) = self.input.records(&self.shared, &mut buffer[..kept + new]) {
                    fail(&self.shared, over);
                    return Poll::Ready(());
                }
            }
            // Others have their turn; then more.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    /// Sends what waits. Ready when all of it is sent.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.borrow_mut();
        match state.outgoing.wear(state.settings.records_per_key) {
            Wear::Fine => {}
            Wear::Change => {
                // RFC 8446 4.6.3: said under the old key, not asking the peer for the same.
                state.outgoing.record(Content::Handshake, &[24, 0, 0, 1, 0]).map_err(io::Error::other)?;
                let sealer = self.input.keys.next_sealer().map_err(io::Error::other)?;
                state.outgoing.change_key(sealer);
            }
            Wear::Leave => state.retire(),
            Wear::End => return Poll::Ready(Err(io::Error::other(WORN))),
        }
        let was_ready = state.outgoing.is_ready();
        let mut result = Poll::Ready(Ok(()));
        while state.outgoing.waiting() > 0 {
            let bytes = state.outgoing.sealed().map_err(io::Error::other)?;
            match Pin::new(&mut self.transport).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => state.outgoing.sent(written),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    state.outgoing.blocked();
                    result = Poll::Pending;
                    break;
                }
            }
        }
        if state.outgoing.is_ready() && (!was_ready || !state.blocked.is_empty()) {
            state.unblock();
        }
        result
    }

    /// Looks after the peer's being there.
    fn tick(&mut self, cx: &mut Context<'_>) {
        while self.clock.as_mut().poll(cx).is_ready() {
            let mut state = self.shared.borrow_mut();
            let (interval, limit) = (state.settings.ping_interval, state.settings.ping_timeout);
            let now = tokio::time::Instant::now();
            if !state.greeted && self.greeting_due.is_some_and(|due| due <= now) {
                return state
                    .end(Over::Protocol(ConnectionError::new(Code::Protocol, "the peer sent no SETTINGS in time")));
            }
            match state.ping {
                Some(sent) if sent.elapsed() >= limit => return state.end(Over::Unanswered),
                Some(_) => {}
                None if state.heard => state.heard = false,
                None => {
                    state.ping = Some(now);
                    state.send(kind::PING, 0, 0, &PING_ALIVE);
                }
            }
            drop(state);
            self.clock.as_mut().reset(now + interval.min(limit));
        }
    }
}

fn hung_up() -> Over {
    Over::Transport(Rc::new(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection")))
}

/// Ends a connection; the peer is told if it is the one to blame.
fn fail(shared: &Shared, over: Over) {
    let mut state = shared.borrow_mut();
    if state.over().is_none()
        && let Over::Protocol(error) = &over
    {
        tracing::debug!(error = error.what, "HBONE peer broke the protocol: connection closed");
        let last = state.last_peers;
        state.send_go_away(last, error.code);
    }
    state.end(over);
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = Over;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Over> {
        let this = &mut *self;
        // What is to be sent because of what is read now is sent below: no need to be woken for it.
        this.shared.borrow_mut().driver = None;
        if !this.closing {
            this.tick(cx);
            let _ = this.poll_read(cx);
        }
        {
            let mut state = this.shared.borrow_mut();
            if state.over().is_none() && state.is_done() {
                let last = state.last_peers;
                if !state.peer_goes_away {
                    state.send_go_away(last, Code::None);
                }
                state.end(Over::Done);
            }
            if state.over().is_some() && !this.closing {
                this.closing = true;
                // close_notify; what fails here has no consequence any more.
                let _ = state.outgoing.record(Content::Alert, &[1, 0]);
                // One more round trip of the peer's silence is all it gets to take the rest.
                let limit = state.settings.ping_timeout.min(std::time::Duration::from_secs(5));
                this.clock.as_mut().reset(tokio::time::Instant::now() + limit);
            }
        }
        let written = this.poll_write(cx).map(|written| written.map_err(|error| fail(&this.shared, error.into())));
        let mut state = this.shared.borrow_mut();
        state.driver = Some(cx.waker().clone());
        match state.over() {
            None => Poll::Pending,
            Some(over)
                if written.is_ready() || matches!(over, Over::Transport(_) | Over::Unanswered | Over::Revoked) =>
            {
                Poll::Ready(over.clone())
            }
            Some(over) => match this.clock.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(over.clone()),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        self.shared.borrow_mut().end(Over::Dropped);
    }
}

impl Input {
    /// Opens every whole record of `bytes`; keeps the rest.
    fn records(&mut self, shared: &Shared, bytes: &mut [u8]) -> Result<(), Over> {
        let mut batch = Batch::default();
        let mut rest = bytes;
        loop {
            let length = record::record_length(rest).map_err(tls)?;
            let Some(length) = length.filter(|length| *length <= rest.len()) else {
                self.partial.extend_from_slice(rest);
                batch.flush(shared);
                return Ok(());
            };
            let (record, later) = rest.split_at_mut(length);
            rest = later;
            let (content, range) = self.opener.open(record).map_err(tls)?;
            let record: &[u8] = record;
            match content {
                Content::Data => {
                    if !self.message.is_empty() {
                        // RFC 8446 5.1: nothing comes between the records of one message.
                        return Err(tls(record::RecordError::Unexpected));
                    }
                    match range.is_empty() {
                        true => shared.borrow_mut().spend(1).map_err(Over::Protocol)?,
                        false => self.key_changes = 0,
                    }
                    self.frames(shared, &record[range], &mut batch)?;
                }
                // RFC 8446 5.1: only data may be empty.
                _ if range.is_empty() => return Err(tls(record::RecordError::Unexpected)),
                Content::Handshake => self.handshake(shared, &record[range])?,
                Content::Alert => {
                    batch.flush(shared);
                    return Err(alert(&record[range]));
                }
            }
        }
    }

    /// Takes plaintext that rustls has opened.
    fn plaintext(&mut self, shared: &Shared, plaintext: &[u8]) -> Result<(), Over> {
        let mut batch = Batch::default();
        self.frames(shared, plaintext, &mut batch)?;
        batch.flush(shared);
        Ok(())
    }

    fn frames<'b>(&mut self, shared: &Shared, plaintext: &'b [u8], batch: &mut Batch<'b>) -> Result<(), Over> {
        frames(&mut self.parser, self.max_frame, shared, plaintext, batch).map_err(Over::Protocol)
    }

    /// Handshake messages after the handshake (RFC 8446 4.6): new keys; tickets are of no use to us.
    fn handshake(&mut self, shared: &Shared, bytes: &[u8]) -> Result<(), Over> {
        self.message.extend_from_slice(bytes);
        while let Some(header) = self.message.first_chunk::<4>() {
            let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
            let kind = header[0];
            if length > MAX_MESSAGE {
                return Err(tls(record::RecordError::TooLong));
            }
            let Some(message) = self.message.get(4..4 + length) else { return Ok(()) };
            match (kind, message) {
                // NewSessionTicket
                (4, _) if shared.borrow().role == Role::Client => {
                    shared.borrow_mut().spend(16).map_err(Over::Protocol)?;
                }
                // KeyUpdate
                (24, [asks @ 0..=1]) => {
                    let asks = *asks == 1;
                    // Keys are derived anew: more work than for most frames.
                    shared.borrow_mut().spend(8).map_err(Over::Protocol)?;
                    self.key_changes += 1;
                    if self.key_changes > KEY_CHANGES || self.message.len() != 5 {
                        return Err(tls(record::RecordError::Unexpected));
                    }
                    self.opener = self.keys.next_opener().map_err(tls)?;
                    if asks {
                        let mut state = shared.borrow_mut();
                        state.outgoing.record(Content::Handshake, &[24, 0, 0, 1, 0]).map_err(tls)?;
                        let sealer = self.keys.next_sealer().map_err(tls)?;
                        state.outgoing.change_key(sealer);
                        state.drive();
                    }
                }
                _ => return Err(tls(record::RecordError::Unexpected)),
            }
            self.message.drain(..4 + length);
        }
        Ok(())
    }
}

/// Cuts plaintext into frames and hands them to the connection; DATA is gathered in `batch`.
pub(crate) fn frames<'b>(
    parser: &mut Parser,
    max_frame: usize,
    shared: &Shared,
    mut plaintext: &'b [u8],
    batch: &mut Batch<'b>,
) -> Result<(), ConnectionError> {
    shared.borrow_mut().preface(&mut plaintext)?;
    while let Some(piece) = parser.next(&mut plaintext, max_frame)? {
        match piece {
            Piece::Data { stream, payload, counted, whole, end } => {
                let wanted = shared.borrow_mut().data(stream, payload.len(), counted, whole)?;
                if wanted && !payload.is_empty() {
                    batch.add(shared, stream, payload);
                }
                if end {
                    batch.flush_last(shared, stream);
                    shared.borrow_mut().end_of(stream);
                }
            }
            Piece::Frame { header, payload } => {
                batch.flush(shared);
                shared.borrow_mut().frame(header, payload)?;
            }
        }
    }
    Ok(())
}

fn tls(error: record::RecordError) -> Over {
    Over::Transport(Rc::new(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// An alert ends the connection, whatever it says (RFC 8446 6).
fn alert(alert: &[u8]) -> Over {
    match alert {
        // close_notify
        [_, 0] => hung_up(),
        [_, code] => {
            let what = format!("the peer ended TLS with alert {code}");
            Over::Transport(Rc::new(io::Error::new(io::ErrorKind::ConnectionAborted, what)))
        }
        _ => tls(record::RecordError::Unexpected),
    }
}

/// Pieces of one stream's DATA that are handed over together.
#[derive(Default)]
pub(crate) struct Batch<'b> {
    stream: u32,
    slices: Vec<IoSlice<'b>>,
    bytes: usize,
}

impl<'b> Batch<'b> {
    fn add(&mut self, shared: &Shared, stream: u32, payload: &'b [u8]) {
        if stream != self.stream || self.slices.len() == SLICES {
            self.flush(shared);
        }
        self.stream = stream;
        self.bytes += payload.len();
        self.slices.push(IoSlice::new(payload));
    }

    pub(crate) fn flush(&mut self, shared: &Shared) {
        self.hand_over(shared, false);
    }

    /// As [`Batch::flush`], before `stream` ends.
    fn flush_last(&mut self, shared: &Shared, stream: u32) {
        self.hand_over(shared, stream == self.stream);
    }

    fn hand_over(&mut self, shared: &Shared, last: bool) {
        if self.bytes > 0 {
            shared.borrow_mut().deliver(self.stream, &self.slices, self.bytes, last);
            self.slices.clear();
            self.bytes = 0;
        }
    }
}
