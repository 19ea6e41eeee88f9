//! ztunnel's end: connect, take one request, acknowledge it, and so on.

use std::path::Path;
use std::time::Duration;

use crate::message::{self, DecodeError, Message, Request};
use crate::socket::{PacketSocket, RecvError};

/// The longest the agent may take to take a packet from us.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);

/// Why the conversation ended. All are mended by connecting again: the pods served stay served, and the next
/// conversation begins with a snapshot, which says again which they are.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No agent listens there (yet).
    #[error("no node agent at {path}: {source}")]
    Connect {
        /// The socket that was dialled.
        path: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The agent went away.
    #[error("the node agent closed the connection")]
    Closed,
    /// A packet that is no request. It has been refused.
    #[error("failure to read message: {0}")]
    Unreadable(String),
    /// The agent broke the order of the conversation: what it has said is no longer certain. It has been refused. Istio's
    /// ztunnel ends its process here; the connections of every pod of the node would end with ours.
    #[error("the node agent broke the protocol: {0}")]
    Violation(String),
    /// The socket failed.
    #[error("the connection to the node agent failed: {0}")]
    Io(#[from] std::io::Error),
}

/// A conversation with the agent. Dropping it ends the conversation; the pods served stay served.
pub struct ZtunnelEnd {
    socket: PacketSocket,
    snapshot_sent: bool,
    unanswered: bool,
}

impl ZtunnelEnd {
    /// Connects to the agent at `path` and says hello.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let socket = PacketSocket::connect(path)
            .map_err(|source| Error::Connect { path: path.display().to_string(), source })?;
        let end = Self { socket, snapshot_sent: false, unanswered: false };
        end.send(&message::encode_hello()).await?;
        Ok(end)
    }

    /// The next request. Answer it with [`ack`](Self::ack) before asking for another: the agent waits for it.
    ///
    /// Cancel-safe. Whatever is wrong with a packet has been refused before the error is returned.
    pub async fn next(&mut self) -> Result<Request, Error> {
        debug_assert!(!self.unanswered, "acknowledge a request before taking the next");
        let error = match self.socket.recv().await {
            Ok(packet) => {
                let request = message::decode(&packet.bytes)
                    .map_err(Error::from)
                    .and_then(|message| self.in_order(&message).map(|()| message))
                    .and_then(|message| message::attach(message, packet.descriptors).map_err(Into::into));
                match request {
                    Ok(request) => {
                        self.unanswered = true;
                        return Ok(request);
                    }
                    Err(error) => error,
                }
            }
            Err(RecvError::Closed) => return Err(Error::Closed),
            Err(RecvError::Io(error)) => return Err(Error::Io(error)),
            Err(error @ RecvError::Truncated) => Error::Unreadable(error.to_string()),
        };
        // Best effort: the conversation ends either way.
        let _ = self.send(&message::encode_ack(Err(&error.to_string()))).await;
        Err(error)
    }

    /// Answers the request last returned: done, or why not. After `Err` the pod counts as not served and the agent
    /// tries again.
    pub async fn ack(&mut self, outcome: Result<(), String>) -> Result<(), Error> {
        self.unanswered = false;
        self.send(&message::encode_ack(outcome.as_ref().map(|_| ()).map_err(String::as_str))).await
    }

    fn in_order(&mut self, message: &Message) -> Result<(), Error> {
        match message {
            Message::Keep { uid } if self.snapshot_sent => {
                Err(Error::Violation(format!("keep of pod {uid} after the snapshot")))
            }
            Message::SnapshotSent if self.snapshot_sent => Err(Error::Violation("a second snapshot".to_owned())),
            Message::SnapshotSent => {
                self.snapshot_sent = true;
                Ok(())
            }
            Message::Add { .. } | Message::Keep { .. } | Message::Del { .. } => Ok(()),
        }
    }

    async fn send(&self, packet: &[u8]) -> Result<(), Error> {
        match tokio::time::timeout(WRITE_DEADLINE, self.socket.send(packet, None)).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(Error::Io(std::io::ErrorKind::TimedOut.into())),
        }
    }
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        match error {
            // Readable, but a pod without a workload cannot be served.
            DecodeError::NoPodInfo { .. } => Self::Violation(error.to_string()),
            _ => Self::Unreadable(error.to_string()),
        }
    }
}
