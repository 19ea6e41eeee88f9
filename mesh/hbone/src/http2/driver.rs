//! The task of a connection: reads records, opens them, hands what they hold to the streams, and sends what they
//! want sent.
//!
//! It reads into a buffer of the thread, so that a connection that is not being read holds none; of what was read only
//! the beginning of a record that is not whole is kept.
//!
//! One turn of it takes a fraction of a millisecond, whatever the peer sends: bytes are counted ([`TURN`]), and so are the
//! pieces that they come in ([`PIECES`]), because a frame of one byte costs as much as one of a thousand. Whoever sends small
//! pieces is read in small portions. After its turn the thread looks for events of others first.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::frame::{Parser, Piece, kind};
use super::kept::Kept;
use super::outgoing::KeyUsage;
use super::state::{Over, PING_ALIVE, Role, Shared, State};
use super::{Code, ConnectionError};
use crate::tls::handshake::{Established, Keys};
use crate::tls::record::{self, Content, MAX_RECORD, Opener};
use crate::unfinished::Unfinished;

/// Most bytes of one read.
const READ: usize = 256 << 10;
/// Bytes of the first read, and of one after many small pieces. A read that comes back full doubles it.
const FIRST_READ: usize = 32 << 10;
/// Bytes read before others of the thread have their turn.
pub(super) const TURN: usize = 256 << 10;
/// Records and frames taken apart before others of the thread have their turn; looked at after each read.
pub(super) const PIECES: usize = 2_048;
/// Pieces that are handed to an application at once.
const SLICES: usize = 256;
/// Key changes in a row that bring no data.
const KEY_CHANGES: u32 = 16;
/// Why a connection of TLS 1.2 ends that has carried too much, and was not done when it was half of that.
const KEY_USED_UP: &str = "TLS 1.2 cannot change keys, and this one has sealed all that it may";
/// Why a connection ends that leaves its peer waiting for the rest of a frame.
const UNFINISHED: ConnectionError =
    ConnectionError::new(Code::EnhanceYourCalm, "a header block or frame is not finished in time");
/// Why a connection ends whose unfinished header block was given up for others.
const SHED: ConnectionError =
    ConnectionError::new(Code::EnhanceYourCalm, "a header block was left unfinished while others needed the memory");
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
    unfinished: Unfinished,
    clock: Pin<Box<Sleep>>,
    /// When to look whether the peer is there.
    next_look: tokio::time::Instant,
    greeting_due: tokio::time::Instant,
    /// Bytes of the next read.
    portion: usize,
    closing: bool,
}

/// The receiving side.
struct Input {
    opener: Opener,
    keys: Keys,
    parser: Parser,
    /// The beginning of a record.
    partial: Kept,
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
        unfinished: Unfinished,
    ) -> io::Result<Self> {
        let Established { sealer, opener, keys, plaintext, unread, .. } = established;
        let now = tokio::time::Instant::now();
        let next_look = now + settings.ping_interval;
        let clock = Box::pin(tokio::time::sleep_until(next_look));
        let greeting_due = now + settings.handshake_timeout;
        let max_frame = settings.frame_size as usize;
        let state = State::new(role, settings, sealer, Instant::now()).map_err(io::Error::other)?;
        let shared = Rc::new(RefCell::new(state));
        let mut input = Input {
            opener,
            keys,
            parser: Parser::default(),
            partial: Kept::default(),
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
            first = input.records(&shared, &mut unread).map(|_| ());
        }
        if let Err(over) = first {
            fail(&shared, over);
        }
        Ok(Self {
            transport,
            shared,
            input,
            unfinished,
            clock,
            next_look,
            greeting_due,
            portion: FIRST_READ,
            closing: false,
        })
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
            let (mut bytes, mut pieces) = (0, 0);
            while bytes < TURN && pieces < PIECES {
                let kept = self.input.partial.len();
                let portion = self.portion;
                let mut read = ReadBuf::new(&mut buffer[kept..kept + portion]);
                if let Err(error) = ready!(Pin::new(&mut self.transport).poll_read(cx, &mut read)) {
                    fail(&self.shared, error.into());
                    return Poll::Ready(());
                }
                let new = read.filled().len();
                if new == 0 {
                    fail(&self.shared, hung_up());
                    return Poll::Ready(());
                }
                // Given back, not kept: most connections are at rest most of the time.
                buffer[..kept].copy_from_slice(&self.input.partial.take());
                {
                    let mut state = self.shared.borrow_mut();
                    state.heard = true;
                    state.ping = None;
                }
                match self.input.records(&self.shared, &mut buffer[..kept + new]) {
                    Ok(taken_apart) => {
                        bytes += new;
                        pieces += taken_apart;
                        self.portion = next_portion(portion, new, taken_apart);
                    }
                    Err(over) => {
                        fail(&self.shared, over);
                        return Poll::Ready(());
                    }
                }
            }
            // Woken after the thread has looked for events, not before.
            let _ = pin!(tokio::task::yield_now()).poll(cx);
            Poll::Pending
        })
    }

    /// Sends what waits. Ready when all of it is sent.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.borrow_mut();
        match state.outgoing.key_usage(state.settings.records_per_key) {
            KeyUsage::WithinLimit => {}
            KeyUsage::Change => {
                // RFC 8446 4.6.3: said under the old key, not asking the peer for the same.
                state.outgoing.record(Content::Handshake, &[24, 0, 0, 1, 0]).map_err(io::Error::other)?;
                let sealer = self.input.keys.next_sealer().map_err(io::Error::other)?;
                state.outgoing.change_key(sealer);
            }
            KeyUsage::Leave => state.retire(),
            KeyUsage::End => return Poll::Ready(Err(io::Error::other(KEY_USED_UP))),
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

    /// Ends a connection whose peer is gone, or does not finish what it has begun.
    fn tick(&mut self, cx: &mut Context<'_>) {
        let due = self.unfinished_due();
        if let Some(due) = due.filter(|due| *due < self.clock.deadline()) {
            self.clock.as_mut().reset(due);
        }
        while self.clock.as_mut().poll(cx).is_ready() {
            let now = tokio::time::Instant::now();
            if due.is_some_and(|due| due <= now) {
                return fail(&self.shared, Over::Protocol(UNFINISHED));
            }
            if self.next_look <= now {
                self.look(now);
            }
            self.clock.as_mut().reset(due.map_or(self.next_look, |due| due.min(self.next_look)));
        }
    }

    /// When the time is up of a header block, or of a frame that is handed over whole, that has not ended.
    fn unfinished_due(&self) -> Option<tokio::time::Instant> {
        let state = self.shared.borrow();
        let since = [self.input.parser.unfinished(), state.unfinished_block()].into_iter().flatten().min()?;
        state.over().is_none().then(|| since + state.settings.header_timeout)
    }

    /// Looks after the peer's being there.
    fn look(&mut self, now: tokio::time::Instant) {
        let mut state = self.shared.borrow_mut();
        let (interval, limit) = (state.settings.ping_interval, state.settings.ping_timeout);
        self.next_look = now + interval.min(limit);
        if !state.greeted && self.greeting_due <= now {
            let late = ConnectionError::new(Code::Protocol, "the peer sent no SETTINGS in time");
            return state.end(Over::Protocol(late));
        }
        match state.ping {
            Some(sent) if now.duration_since(sent) >= limit => state.end(Over::Unanswered),
            Some(_) => {}
            None if state.heard => state.heard = false,
            None => {
                state.ping = Some(now);
                state.send(kind::PING, 0, 0, &PING_ALIVE);
            }
        }
    }
}

/// Bytes to read next, after a read of `portion` brought `bytes` in so many `pieces`.
fn next_portion(portion: usize, bytes: usize, pieces: usize) -> usize {
    // Frames of tunnels that are used are larger than that, all in all.
    if pieces > FIRST_READ / 64 && bytes / pieces < 64 {
        FIRST_READ
    } else if bytes == portion {
        (portion * 2).min(READ)
    } else {
        portion
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
            let _ = this.poll_read(cx);
            this.tick(cx);
            let kept = this.input.unfinished(&this.shared);
            if this.unfinished.keep(kept, cx).is_err() {
                fail(&this.shared, Over::Protocol(SHED));
            }
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
                this.input.forget();
                state.block = None;
                this.unfinished.forget();
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
    /// What is kept of messages and frames that are not whole.
    fn unfinished(&self, shared: &Shared) -> usize {
        let block = shared.borrow().block.as_ref().map_or(0, |block| block.bytes.held());
        self.parser.held() + self.message.capacity() + block
    }

    /// Gives back what nobody will finish.
    fn forget(&mut self) {
        (self.parser, self.partial, self.message) = (Parser::default(), Kept::default(), Vec::new());
    }

    /// Opens every whole record of `bytes`; keeps the rest. Returns how many records and frames there were.
    fn records(&mut self, shared: &Shared, bytes: &mut [u8]) -> Result<usize, Over> {
        let mut batch = Batch::default();
        let mut rest = bytes;
        let mut records = 0;
        loop {
            let length = record::record_length(rest).map_err(tls)?;
            let Some(length) = length.filter(|length| *length <= rest.len()) else {
                self.partial.add(rest);
                batch.flush(shared);
                return Ok(records + batch.pieces);
            };
            records += 1;
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
        batch.pieces += 1;
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
    /// Frames, and parts of DATA frames, so far, of any kind.
    pieces: usize,
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
