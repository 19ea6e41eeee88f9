//! A stream to an endpoint, whichever way it goes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use mesh_hbone::duplex::Duplex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::permit::Permit;

/// A stream to an endpoint.
pub(crate) struct Stream {
    way: Way,
    /// It is counted for as long as it lives.
    _permit: Option<Permit>,
}

enum Way {
    Tunnel(Duplex),
    Plain(TcpStream),
}

impl Stream {
    /// Through a tunnel.
    pub(super) fn tunnel(tunnel: Duplex) -> Self {
        Self { way: Way::Tunnel(tunnel), _permit: None }
    }

    /// Plainly, to an endpoint outside the mesh.
    pub(super) fn plain(tcp: TcpStream) -> Self {
        Self { way: Way::Plain(tcp), _permit: None }
    }

    /// Keeps what it was counted by.
    pub(super) fn counted(self, permit: Permit) -> Self {
        Self { _permit: Some(permit), ..self }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Tunnel(stream) => Pin::new(stream).poll_read(cx, buffer),
            Way::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().way {
            Way::Tunnel(stream) => Pin::new(stream).poll_write(cx, data),
            Way::Plain(stream) => Pin::new(stream).poll_write(cx, data),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
            Way::Plain(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().way {
            Way::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
            Way::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
