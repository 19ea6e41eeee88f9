//! A tunnel as a stream of bytes both ways, so that another HBONE connection can be spoken inside it (double HBONE,
//! ambient contract 4.7).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::broken::Broken;
use crate::http2::stream::Incoming;
use crate::stream::{Tunnel, TunnelError};

/// A tunnel that is read and written like a socket. Dropped before both directions have ended, it resets the tunnel.
pub struct Duplex {
    tunnel: Tunnel,
    /// Received, and read up to `read`.
    unread: Vec<u8>,
    read: usize,
}

impl Duplex {
    /// Takes the tunnel over.
    pub fn new(tunnel: Tunnel) -> Self {
        Self { tunnel, unread: Vec::new(), read: 0 }
    }
}

fn broken(broken: Broken) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, TunnelError::from(broken))
}

impl AsyncRead for Duplex {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read == this.unread.len() {
            match ready!(this.tunnel.receiver.poll_incoming(cx)) {
                Incoming::Bytes(bytes) => (this.unread, this.read) = (bytes, 0),
                // The TLS inside tells a cut from an end by itself.
                Incoming::End => return Poll::Ready(Ok(())),
                Incoming::Broken(why) => return Poll::Ready(Err(broken(why))),
                Incoming::SinkFailed(error) => return Poll::Ready(Err(error)),
            }
        }
        let rest = &this.unread[this.read..];
        let taken = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..taken]);
        this.read += taken;
        this.tunnel.receiver.taken(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.tunnel.sender.poll_send(data, cx).map_err(broken)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's own task writes as fast as the socket takes it.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Fails only on a tunnel that is broken already: then there is nobody to tell.
        let _ = self.get_mut().tunnel.sender.finish();
        Poll::Ready(Ok(()))
    }
}
