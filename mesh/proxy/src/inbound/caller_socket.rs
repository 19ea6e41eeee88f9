//! The socket of a caller, which closes later where we end the connection because of the caller ([`crate::late_close`]).

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::late_close::LateClose;

/// Says whether a connection's socket closes later: it does while the caller has proven nothing, and where the connection ends because of
/// what its caller does or holds. When this is dropped otherwise, it does not: both ends are done, or the pod or the proxy ends.
pub(super) struct Ending {
    late: Rc<Cell<bool>>,
    because_of_the_caller: bool,
}

impl Ending {
    /// Of a connection whose caller has proven nothing yet.
    pub(super) fn new() -> Self {
        Self { late: Rc::new(Cell::new(true)), because_of_the_caller: false }
    }

    /// The connection ends now, because of its caller.
    pub(super) fn because_of_the_caller(mut self) {
        self.because_of_the_caller = true;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.late.set(self.because_of_the_caller);
    }
}

/// The socket.
pub(super) struct CallerSocket {
    /// None once it is dropped.
    tcp: Option<TcpStream>,
    late: Rc<Cell<bool>>,
    close: Arc<LateClose>,
}

impl CallerSocket {
    /// Of a connection that ends as `ending` says; `close` has those that close later.
    pub(super) fn new(tcp: TcpStream, ending: &Ending, close: Arc<LateClose>) -> Self {
        Self { tcp: Some(tcp), late: ending.late.clone(), close }
    }

    fn with<T>(&mut self, poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &mut self.tcp {
            Some(tcp) => poll(Pin::new(tcp)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl Drop for CallerSocket {
    fn drop(&mut self) {
        if self.late.get()
            && let Some(tcp) = self.tcp.take()
        {
            self.close.close(tcp);
        }
    }
}

impl AsyncRead for CallerSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|tcp| tcp.poll_read(cx, buffer))
    }
}

impl AsyncWrite for CallerSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|tcp| tcp.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|tcp| tcp.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|tcp| tcp.poll_shutdown(cx))
    }
}
