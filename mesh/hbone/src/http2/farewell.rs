//! The end of a transport whose connection is done: our direction is closed first, and what the peer still says is taken
//! until it closes its own.
//!
//! A socket that is closed over bytes that nobody has read resets the connection (RFC 1122, 4.2.2.13), and a peer that
//! is reset loses what it has received and not read yet, such as the last bytes of a tunnel. It needs only to say
//! WINDOW_UPDATE after our last byte for that.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reads of one turn. Nothing is done with what they bring, so that they cost little.
const READS: usize = 4;

/// How far it has come.
#[derive(Debug, Default)]
pub(super) struct Farewell {
    shut: bool,
}

impl Farewell {
    /// Ready when the peer has closed its direction, or the transport has failed. `buffer` is for what nobody will see. The caller
    /// bounds the time.
    pub(super) fn poll<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        transport: &mut T,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if !self.shut {
            if ready!(Pin::new(&mut *transport).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            self.shut = true;
        }
        for _ in 0..READS {
            let mut read = ReadBuf::new(buffer);
            if ready!(Pin::new(&mut *transport).poll_read(cx, &mut read)).is_err() || read.filled().is_empty() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
