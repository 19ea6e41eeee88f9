//! One tunnel: bytes both ways, half-close, reset.

use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::{Reason, RecvStream, SendStream};

/// Why a tunnel broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// The peer reset it with this HTTP/2 reason.
    #[error("tunnel reset by the peer: {0}")]
    Reset(Reason),
    /// The connection under it ended.
    #[error("the connection that carried the tunnel was lost")]
    Lost,
}

impl From<h2::Error> for TunnelError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_remote() || error.is_reset() => Self::Reset(reason),
            _ => Self::Lost,
        }
    }
}

/// What keeps a connection's place taken while its tunnel lives; dropped with it.
pub(crate) type Guard = Option<Box<dyn std::any::Any>>;

/// One open tunnel.
pub struct Tunnel {
    /// Bytes to the peer.
    pub sender: Sender,
    /// Bytes from the peer.
    pub receiver: Receiver,
    _guard: Guard,
}

/// The sending half of a tunnel.
pub struct Sender(SendStream<Bytes>);

/// The receiving half of a tunnel.
pub struct Receiver(RecvStream);

impl Tunnel {
    pub(crate) fn new(send: SendStream<Bytes>, receive: RecvStream, guard: Guard) -> Self {
        Self { sender: Sender(send), receiver: Receiver(receive), _guard: guard }
    }
}

impl Sender {
    /// Sends all of `data`, waiting for the peer's window: the pause is what slows a fast sender down.
    ///
    /// # Errors
    /// When the tunnel broke; some of the data may have been sent.
    pub async fn send(&mut self, mut data: Bytes) -> Result<(), TunnelError> {
        while !data.is_empty() {
            self.0.reserve_capacity(data.len());
            // `poll_capacity` may report what was available already, in which case there is nothing to wait for.
            let granted = match self.0.capacity() {
                0 => match poll_fn(|cx| self.0.poll_capacity(cx)).await {
                    Some(granted) => granted?,
                    None => return Err(self.why_closed().await),
                },
                ready => ready,
            };
            let chunk = data.split_to(granted.min(data.len()));
            self.0.send_data(chunk, false)?;
        }
        Ok(())
    }

    /// Half-closes: the peer reads the end of this direction.
    ///
    /// # Errors
    /// When the tunnel is broken already.
    pub fn finish(&mut self) -> Result<(), TunnelError> {
        Ok(self.0.send_data(Bytes::new(), true)?)
    }

    /// Breaks the tunnel off in both directions.
    pub fn reset(&mut self) {
        self.0.send_reset(Reason::CANCEL);
    }

    async fn why_closed(&mut self) -> TunnelError {
        match poll_fn(|cx| self.0.poll_reset(cx)).await {
            Ok(reason) => TunnelError::Reset(reason),
            Err(_) => TunnelError::Lost,
        }
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
        match self.0.data().await {
            None => Ok(None),
            Some(Ok(data)) => Ok(Some(data)),
            Some(Err(error)) if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) => Ok(None),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// Gives the window of `bytes` back to the peer: the application has taken them.
    pub fn taken(&mut self, bytes: usize) {
        // Fails only when more is given back than was taken, or the stream is gone; the peer is then past caring.
        let _ = self.0.flow_control().release_capacity(bytes);
    }
}
