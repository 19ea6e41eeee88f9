//! The pod's own end of a connection that it opens.

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::socks::Reply;

/// What is said of one that is gone before the other end was there.
pub(super) const GONE: &str = "the application reset its connection before it was open";

/// Who is told, and how, what becomes of a connection: one that was captured is open or closed, and a SOCKS client is
/// told so. Dropped before the other end was there, it tells that it failed.
pub(crate) struct Near {
    /// Until it is given away.
    tcp: Option<TcpStream>,
    socks: bool,
}

impl Near {
    /// A captured connection.
    pub(super) fn captured(tcp: TcpStream) -> Self {
        Self { tcp: Some(tcp), socks: false }
    }

    /// A SOCKS client's, that has said what it wants.
    pub(super) fn socks(tcp: TcpStream) -> Self {
        Self { tcp: Some(tcp), socks: true }
    }

    /// Resolves when the application has broken its end off (a half-close is none: it may still want an answer).
    pub(super) async fn gone(&self) {
        match &self.tcp {
            Some(tcp) => drop(tcp.ready(Interest::ERROR).await),
            None => std::future::pending().await,
        }
    }

    /// The other end is there: from now on this is a connection like any other.
    pub(super) fn opened(mut self) -> TcpStream {
        self.tell(Reply::Succeeded);
        self.tcp.take().expect("given away only here, with self")
    }

    /// It will not be.
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

impl Drop for Near {
    fn drop(&mut self) {
        self.tell(Reply::Failed);
    }
}
