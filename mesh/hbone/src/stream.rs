//! One tunnel: bytes both ways, half-close, reset.

use std::any::Any;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

pub use crate::broken::TunnelError;

use crate::broken::Broken;
use crate::http2::state::Shared;
use crate::http2::stream::{Incoming, Left, Sink};

/// What lives as long as a tunnel.
pub(crate) type Guard = Option<Box<dyn Any>>;

/// A stream's place on its connection. Dropped before both directions have ended, it resets the stream.
pub(crate) struct StreamHandle {
    connection: Shared,
    id: u32,
    _guard: Guard,
}

impl StreamHandle {
    pub(crate) fn new(connection: Shared, id: u32, guard: Guard) -> Self {
        Self { connection, id, _guard: guard }
    }

    /// Resolves when the stream is broken: by its peer, or with its connection.
    pub(crate) async fn broken(&self) {
        poll_fn(|cx| self.connection.borrow_mut().poll_broken(self.id, cx)).await;
    }

    pub(crate) fn respond(&self, status: StatusCode, headers: &HeaderMap, end: bool) -> Result<(), TunnelError> {
        Ok(self.connection.borrow_mut().respond(self.id, status, headers, end)?)
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.connection.borrow_mut().release(self.id);
    }
}

/// One open tunnel.
pub struct Tunnel {
    /// Bytes to the peer.
    pub sender: Sender,
    /// Bytes from the peer.
    pub receiver: Receiver,
}

/// The sending half of a tunnel.
pub struct Sender(Rc<StreamHandle>);

/// The receiving half of a tunnel.
pub struct Receiver(Rc<StreamHandle>);

impl Tunnel {
    pub(crate) fn new(handle: StreamHandle) -> Self {
        let handle = Rc::new(handle);
        Self { sender: Sender(handle.clone()), receiver: Receiver(handle) }
    }
}

impl Sender {
    /// Sends all of `data`, waiting for the peer's window: the pause is what slows a fast sender down.
    ///
    /// # Errors
    /// When the tunnel broke; some of the data may have been sent.
    pub async fn send(&mut self, mut data: Bytes) -> Result<(), TunnelError> {
        while !data.is_empty() {
            let room = self.room().await?;
            let sent = self.0.connection.borrow_mut().send_data(self.0.id, &data, room);
            let _ = data.split_to(sent);
        }
        Ok(())
    }

    /// Waits until the peer takes bytes; returns how many.
    pub(crate) async fn room(&self) -> Result<usize, TunnelError> {
        Ok(poll_fn(|cx| self.poll_room(cx)).await?)
    }

    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<usize, Broken>> {
        self.0.connection.borrow_mut().poll_room(self.0.id, cx)
    }

    /// Sends what of `data` can be sent now, and says how much; waits only where that is nothing.
    pub(crate) fn poll_send(&self, data: &[u8], cx: &Context<'_>) -> Poll<Result<usize, Broken>> {
        let room = ready!(self.poll_room(cx))?;
        match self.0.connection.borrow_mut().send_data(self.0.id, data, room) {
            0 => Poll::Ready(Err(Broken::Lost)),
            sent => Poll::Ready(Ok(sent)),
        }
    }

    /// Sends what `read` reads, at most `most` bytes, which [`Sender::room`] has granted. Nothing is copied.
    pub(crate) fn send_from(
        &self,
        most: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.0.connection.borrow_mut().send_from(self.0.id, most, read)
    }

    /// Half-closes: the peer reads the end of this direction.
    ///
    /// # Errors
    /// When the tunnel is broken already.
    pub fn finish(&mut self) -> Result<(), TunnelError> {
        Ok(self.0.connection.borrow_mut().finish(self.0.id)?)
    }

    /// Breaks the tunnel off in both directions.
    pub fn reset(&mut self) {
        self.0.connection.borrow_mut().reset(self.0.id);
    }
}

impl Receiver {
    /// The next bytes, `None` at the end of the direction. Their window stays taken until [`Receiver::taken`].
    ///
    /// A reset with `NO_ERROR` is the end (RFC 9113 8.1); any other is a cut, and said to be one: an application must
    /// not take half an answer for a whole one.
    ///
    /// # Errors
    /// When the tunnel broke.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, TunnelError> {
        match poll_fn(|cx| self.poll_incoming(cx)).await {
            Incoming::Bytes(bytes) => Ok(Some(bytes.into())),
            Incoming::End => Ok(None),
            Incoming::Broken(broken) => Err(broken.into()),
            Incoming::SinkFailed(_) => Err(TunnelError::Lost),
        }
    }

    pub(crate) fn poll_incoming(&self, cx: &Context<'_>) -> Poll<Incoming> {
        self.0.connection.borrow_mut().poll_incoming(self.0.id, cx)
    }

    /// How the peer has left, if it has; otherwise wakes `cx` when it does.
    pub(crate) fn poll_left(&self, cx: &Context<'_>) -> Option<Left> {
        self.0.connection.borrow_mut().poll_left(self.0.id, cx)
    }

    /// For how long an application may leave where they are what the peer has left to it.
    pub(crate) fn left_timeout(&self) -> std::time::Duration {
        self.0.connection.borrow().settings.left_timeout
    }

    /// Has bytes written to an application's socket as they arrive. What the socket does not take comes by
    /// [`Receiver::poll_incoming`], and so does everything after it until that is taken.
    pub(crate) fn pour_into(&self, sink: Sink) {
        self.0.connection.borrow_mut().pour_into(self.0.id, sink);
    }

    /// Gives the window of `bytes` back to the peer: the application has taken them.
    pub fn taken(&mut self, bytes: usize) {
        self.0.connection.borrow_mut().took(self.0.id, bytes);
    }
}
