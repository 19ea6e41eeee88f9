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
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::closing::Over;
use super::farewell::Farewell;
use super::frame::kind;
use super::input::{Input, hung_up};
use super::keep_alive::{KeepAlive, Look, PING_ALIVE};
use super::outgoing::KeyUsage;
use super::state::{Shared, State};
use super::{Code, ConnectionError, Role};
use crate::tls::handshake::Established;
use crate::tls::record::{Content, MAX_RECORD};
use crate::unfinished::Unfinished;

/// Most bytes of one read.
const READ: usize = 256 << 10;
/// Bytes of the first read. A read that comes back full doubles it.
const FIRST_READ: usize = 16 << 10;
/// Bytes of a read after one that brought many small pieces.
const SMALL_READ: usize = 4 << 10;
/// Bytes read before others of the thread have their turn.
pub(super) const TURN: usize = 256 << 10;
/// Records and frames taken apart before others of the thread have their turn; looked at after each read.
pub(super) const PIECES: usize = 512;
/// Why a connection of TLS 1.2 ends that has carried too much, and was not done when it was half of that.
const KEY_USED_UP: &str = "TLS 1.2 cannot change keys, and this one has sealed all that it may";
/// Why a connection ends that leaves its peer waiting for the rest of a frame.
const UNFINISHED: ConnectionError =
    ConnectionError::new(Code::EnhanceYourCalm, "a header block or frame is not finished in time");
/// Why a connection ends whose unfinished header block was given up for others.
const SHED: ConnectionError =
    ConnectionError::new(Code::EnhanceYourCalm, "a header block was left unfinished while others needed the memory");
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
    keep_alive: KeepAlive,
    greeting_due: tokio::time::Instant,
    /// Bytes of the next read.
    portion: usize,
    closing: bool,
    farewell: Farewell,
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
        let keep_alive = KeepAlive::new(settings.ping_interval, settings.ping_timeout, now);
        let clock = Box::pin(tokio::time::sleep_until(keep_alive.next_look()));
        let greeting_due = now + settings.handshake_timeout;
        let max_frame = settings.frame_size as usize;
        let state = State::new(role, settings, sealer, Instant::now()).map_err(io::Error::other)?;
        let shared = Rc::new(RefCell::new(state));
        let mut input = Input::new(opener, keys, max_frame);
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
            keep_alive,
            greeting_due,
            portion: FIRST_READ,
            closing: false,
            farewell: Farewell::default(),
        })
    }

    /// The connection, for its handle.
    pub(crate) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Reads what has come. Ready when there is nothing more to come.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        with_buffer(|buffer| {
            let (mut bytes, mut pieces) = (0, 0);
            while bytes < TURN && pieces < PIECES {
                let kept = self.input.kept();
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
                self.input.move_kept(&mut buffer[..kept]);
                self.keep_alive.heard();
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
                let sealer = self.input.next_sealer().map_err(io::Error::other)?;
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
            if self.keep_alive.next_look() <= now {
                self.look(now);
            }
            let next_look = self.keep_alive.next_look();
            self.clock.as_mut().reset(due.map_or(next_look, |due| due.min(next_look)));
        }
    }

    /// When the time is up of a header block, or of a frame that is handed over whole, that has not ended.
    fn unfinished_due(&self) -> Option<tokio::time::Instant> {
        let state = self.shared.borrow();
        let since = [self.input.unfinished_since(), state.unfinished.since()].into_iter().flatten().min()?;
        state.over().is_none().then(|| since + state.settings.header_timeout)
    }

    /// Looks whether the peer is there, and has greeted us in time.
    fn look(&mut self, now: tokio::time::Instant) {
        let mut state = self.shared.borrow_mut();
        let look = self.keep_alive.look(now);
        if !state.greeting.is_complete() && self.greeting_due <= now {
            let late = ConnectionError::new(Code::Protocol, "the peer sent no SETTINGS in time");
            return state.end(Over::Protocol(late));
        }
        match look {
            Look::Fine => {}
            Look::Ask => state.send(kind::PING, 0, 0, &PING_ALIVE),
            Look::Unanswered => state.end(Over::Unanswered),
        }
    }
}

/// The thread's buffer, lent.
fn with_buffer<R>(read: impl FnOnce(&mut [u8]) -> R) -> R {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.is_empty() {
            buffer.resize(READ + MAX_RECORD, 0);
        }
        read(buffer)
    })
}

/// Bytes to read next, after a read of `portion` brought `bytes` in so many `pieces`.
fn next_portion(portion: usize, bytes: usize, pieces: usize) -> usize {
    // Frames of tunnels that are used are larger than that, all in all.
    if pieces > SMALL_READ / 64 && bytes / pieces < 64 {
        SMALL_READ
    } else if bytes == portion && pieces > 0 {
        // Of a record that is not whole nobody knows yet what is in it.
        (portion * 2).min(READ)
    } else {
        portion
    }
}

/// Ends a connection; the peer is told if it is the one to blame.
fn fail(shared: &Shared, over: Over) {
    let mut state = shared.borrow_mut();
    if state.over().is_none()
        && let Over::Protocol(error) = &over
    {
        tracing::debug!(error = error.what, "HBONE peer broke the protocol: connection closed");
        state.send_go_away_now(error.code);
    }
    state.end(over);
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = Over;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Over> {
        let this = &mut *self;
        // What is to be sent because of what is read now is sent below: no need to be woken for it.
        this.shared.borrow_mut().driver_is_awake();
        if !this.closing {
            let _ = this.poll_read(cx);
            this.tick(cx);
            let kept = this.input.unfinished() + this.shared.borrow().unfinished.held();
            if this.unfinished.keep(kept, cx).is_err() {
                fail(&this.shared, Over::Protocol(SHED));
            }
        }
        {
            let mut state = this.shared.borrow_mut();
            if state.over().is_none() && state.is_done() {
                if !state.closing.has_peer_gone_away() {
                    state.send_go_away_now(Code::None);
                }
                state.end(Over::Done);
            }
            if let Some(over) = state.over()
                && !this.closing
            {
                let told = !over.is_left_to_the_transport();
                this.closing = true;
                this.input.forget();
                state.unfinished.forget();
                this.unfinished.forget();
                if told {
                    // close_notify; what fails here has no consequence any more.
                    let _ = state.outgoing.record(Content::Alert, &[1, 0]);
                }
                // One more round trip of the peer's silence is all it gets to take the rest, and to close its own direction.
                let limit = state.settings.ping_timeout.min(std::time::Duration::from_secs(5));
                this.clock.as_mut().reset(tokio::time::Instant::now() + limit);
            }
        }
        let written = this.poll_write(cx).map(|written| written.map_err(|error| fail(&this.shared, error.into())));
        let over = {
            let mut state = this.shared.borrow_mut();
            state.driver_waits(cx);
            state.over().cloned()
        };
        let Some(over) = over else { return Poll::Pending };
        let ended = match over {
            Over::Transport(_) | Over::Unanswered | Over::Revoked => true,
            Over::Done if written.is_ready() => {
                with_buffer(|buffer| this.farewell.poll(&mut this.transport, buffer, cx)).is_ready()
            }
            _ => written.is_ready(),
        };
        if ended || this.clock.as_mut().poll(cx).is_ready() { Poll::Ready(over) } else { Poll::Pending }
    }
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        self.shared.borrow_mut().end(Over::Dropped);
    }
}
