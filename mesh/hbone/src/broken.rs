//! Why a stream broke, and what that is to the tunnel on it.

/// Why a stream broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The peer reset it with this code.
    Reset(u32),
    /// The peer never looked at it and never will.
    Unprocessed,
    /// The connection under it is over.
    Lost,
    /// As before, because the peer's certificate was taken back.
    Revoked,
}

/// Why a tunnel broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// The peer reset it with this HTTP/2 error code (RFC 9113, section 7).
    #[error("tunnel reset by the peer, HTTP/2 error code {0}")]
    Reset(u32),
    /// The connection under it ended.
    #[error("the connection that carried the tunnel was lost")]
    Lost,
    /// The peer's certificate was taken back while the tunnel was open.
    #[error("connection closed because the server's certificate has been revoked")]
    Revoked,
    /// The connection under it ended, and why.
    #[error("{0}")]
    Connection(String),
}

impl From<Broken> for TunnelError {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Reset(code) => Self::Reset(code),
            Broken::Unprocessed | Broken::Lost => Self::Lost,
            Broken::Revoked => Self::Revoked,
        }
    }
}
