//! HBONE: tunnels through HTTP/2 CONNECT over mutual TLS.
//!
//! | module | holds |
//! |---|---|
//! | [`connect`] | the CONNECT request: authority, baggage, forwarded; parse and build (pure) |
//! | [`client`] | one HTTP/2 connection to a proven peer; opens tunnels on it |
//! | [`pool`] | reuse of such connections per source identity and destination |
//! | [`server`] | accept, prove the caller, hand each tunnel over |
//! | [`stream`] | one tunnel: bytes both ways, half-close, reset |
//! | [`duplex`] | a tunnel as a stream, to speak another HBONE inside |
//! | [`carry`] | carry bytes between two streams, count them, pass half-closes on |
//! | [`unfinished`] | what all connections of a thread may keep of messages that are not whole |
//!
//! A connection and all of its tunnels live on one thread: every future here may be `!Send`, tasks are spawned on
//! the thread itself (`spawn_local`). Begin with [`pool`] for the way out and [`server`] for the way in.
//!
//! HTTP/2 and the TLS records are our own (decision 15): frames are written into the record in which they leave, and
//! bytes handed to the application's socket from the record in which they came. rustls does the handshakes and the
//! keys.
//!
//! Memory bound of one connection: what its applications have not taken, at most its receive window
//! ([`Settings::connection_window`]); what its peer does not read, at most one buffer of some 350 KiB; the beginning of
//! one record and of one frame or header block (144 KiB); its peer's header table (4 KiB). Before that, while its peer
//! is a stranger, at most [`MAX_HANDSHAKE_BYTES`] of what it has sent. One at rest holds none of these: buffers belong
//! to the thread and are lent while bytes move.

mod broken;
pub mod carry;
pub mod client;
pub mod connect;
mod count;
pub mod duplex;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod http2;
mod pipe;
pub mod pool;
pub mod server;
pub mod stream;
mod tls;
mod turn;
pub mod unfinished;

use std::time::Duration;

/// Most bytes that a caller's first TLS message may have; what one holds who sends it and nothing more. A hello has some
/// hundred bytes, with a post-quantum key 1,800.
pub const MAX_HELLO_BYTES: usize = 16 << 10;
/// Most bytes that a peer may send in a TLS handshake, and that one holds: a hello, certificates of
/// [`mesh_identity::shown::MAX_BYTES`], and their proof.
pub const MAX_HANDSHAKE_BYTES: usize = 48 << 10;

/// HTTP/2 settings of both ends (ambient contract 4.4). Sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Receive window of a tunnel, `HTTP2_STREAM_WINDOW_SIZE`.
    pub stream_window: u32,
    /// Receive window of a connection, `HTTP2_CONNECTION_WINDOW_SIZE`.
    pub connection_window: u32,
    /// Largest frame taken, `HTTP2_FRAME_SIZE`.
    pub frame_size: u32,
    /// Tunnels that a server takes on one connection.
    pub server_streams: u32,
    /// Tunnels that a client opens on one connection, `POOL_MAX_STREAMS_PER_CONNECTION`; the peer may allow fewer.
    pub client_streams: usize,
    /// An unused connection is closed after this, `POOL_UNUSED_RELEASE_TIMEOUT`.
    pub unused_release: Duration,
    /// Pause between two PINGs.
    pub ping_interval: Duration,
    /// A PING unanswered for this long ends the connection: its peer is gone.
    pub ping_timeout: Duration,
    /// TCP connect, TLS and HTTP/2 handshake, each.
    pub handshake_timeout: Duration,
    /// All that opening a tunnel takes: a connection, if there has to be one, and the peer's answer.
    pub open_timeout: Duration,
    /// A header block, or any frame but DATA, from its first byte to its last.
    pub header_timeout: Duration,
    /// How long an application may take none of the bytes that are left to it once nobody waits for that any more.
    pub left_timeout: Duration,
    /// Records that one key may seal: AES-GCM begins to leak at 2^24.5 (RFC 8446 5.5). TLS 1.3 then has a new key. TLS
    /// 1.2 has none: its connection takes no new tunnels from half of it, and ends there whatever it carries.
    pub records_per_key: u64,
    /// What all connections of a thread keep of handshake messages and header blocks that are not whole ([`unfinished`]).
    pub unfinished_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream_window: 4 << 20,
            connection_window: 16 << 20,
            frame_size: 1 << 20,
            server_streams: 200,
            client_streams: 100,
            unused_release: Duration::from_secs(300),
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
            open_timeout: Duration::from_secs(30),
            header_timeout: Duration::from_secs(10),
            left_timeout: Duration::from_secs(120),
            records_per_key: 1 << 24,
            unfinished_bytes: 16 << 20,
        }
    }
}
