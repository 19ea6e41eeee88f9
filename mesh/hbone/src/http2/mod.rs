//! HTTP/2 (RFC 9113) as far as tunnels need it: CONNECT, DATA both ways, flow control, and what keeps a connection
//! healthy. Frames are written into the TLS record in which they leave and read from the one in which they came.
//!
//! | module | holds |
//! |---|---|
//! | [`frame`] | cut frames out of bytes (pure) |
//! | [`hpack`] | header compression (pure) |
//! | [`head`] | header blocks of requests and responses (pure) |
//! | [`flood`] | flood accounting: how much a peer may make us work for nothing (pure) |
//! | [`kept`] | beginnings of what has not arrived whole |
//! | [`outgoing`] | frames and records on their way out |
//! | [`greeting`], [`settings`] | what each end says first |
//! | [`header_block`] | a header block that comes in pieces |
//! | [`windows`] | flow-control windows, and when a connection's is shared (pure) |
//! | [`stream`] | one stream: its windows, its bytes, its ends |
//! | [`requests`] | requests that nobody has taken yet |
//! | [`closing`] | how a connection comes to its end (pure) |
//! | [`state`] | one connection and its streams |
//! | [`receive`], [`send`], [`flow_control`] | what the peer says to it, what we say, and what we let the peer send |
//! | [`input`] | records and frames that come in |
//! | [`keep_alive`] | whether the peer is still there (pure) |
//! | [`farewell`] | the end of a transport whose connection is done |
//! | [`driver`] | the task that moves the bytes |

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod bare;
pub(crate) mod closing;
pub(crate) mod driver;
mod farewell;
pub(crate) mod flood;
mod flow_control;
pub(crate) mod frame;
mod greeting;
pub(crate) mod head;
mod header_block;
pub(crate) mod hpack;
mod input;
mod keep_alive;
pub(crate) mod kept;
pub(crate) mod outgoing;
mod receive;
pub(crate) mod requests;
mod send;
mod settings;
pub(crate) mod state;
pub(crate) mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod windows;

/// Which end we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// Error codes (RFC 9113, section 7) that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    None = 0,
    Protocol = 1,
    FlowControl = 3,
    StreamClosed = 5,
    FrameSize = 6,
    RefusedStream = 7,
    Cancel = 8,
    Compression = 9,
    EnhanceYourCalm = 11,
}

/// What ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("HTTP/2: {what}")]
pub(crate) struct ConnectionError {
    /// Told to the peer.
    pub(crate) code: Code,
    /// Told to the operator.
    pub(crate) what: &'static str,
}

impl ConnectionError {
    pub(crate) const fn new(code: Code, what: &'static str) -> Self {
        Self { code, what }
    }
}

/// What a client says first (section 3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Flow-control windows before anybody says otherwise (section 6.9.2).
pub(crate) const DEFAULT_WINDOW: u32 = 65_535;
/// Largest window (section 6.9.1).
pub(crate) const MAX_WINDOW: i64 = 0x7fff_ffff;
/// Largest payload of a frame before anybody says otherwise (section 4.2).
pub(crate) const DEFAULT_FRAME: usize = 16_384;
