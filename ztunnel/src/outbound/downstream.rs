//! The downstream connection: the pod's own end of one that it opens.

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::socks::Reply;

/// The error of a connection whose downstream is gone before its upstream was open.
pub(super) const GONE: &str = "the application reset its connection before it was open";

/// A downstream connection whose upstream is not open yet. A captured one only stays open or is closed; a SOCKS client
/// gets a reply. Dropped before the upstream is open, it replies that the request failed.
pub(crate) struct Downstream {
    /// Until it is given away.
    tcp: Option<TcpStream>,
    socks: bool,
}

impl Downstream {
    /// A captured connection.
    pub(super) fn captured(tcp: TcpStream) -> Self {
        Self { tcp: Some(tcp), socks: false }
    }

    /// A SOCKS client's, that has said what it wants.
    pub(super) fn socks(tcp: TcpStream) -> Self {
        Self { tcp: Some(tcp), socks: true }
    }

    /// Resolves when the application has reset its end (a half-close is none: it may still want an answer).
    pub(super) async fn gone(&self) {
        match &self.tcp {
            Some(tcp) => drop(tcp.ready(Interest::ERROR).await),
            None => std::future::pending().await,
        }
    }

    /// The upstream is open: from now on this is a connection like any other.
    pub(super) fn opened(mut self) -> TcpStream {
        self.tell(Reply::Succeeded);
        self.tcp.take().expect("given away only here, with self")
    }

    /// The upstream will not be opened: a SOCKS client gets `reply`.
    pub(super) fn refuse(mut self, reply: Reply) {
        self.tell(reply);
        self.tcp = None;
    }

    /// So few bytes always have room in the buffer of a socket on which next to nothing was written.
    fn tell(&self, reply: Reply) {
        if let Some(tcp) = self.tcp.as_ref().filter(|_| self.socks)
            && let Err(error) = tcp.try_write(&reply.bytes())
        {
            tracing::debug!(%error, ?reply, "the SOCKS client was not told");
        }
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        self.tell(Reply::Failed);
    }
}
