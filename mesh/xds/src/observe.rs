//! What is counted about a client's streams, without knowing how.

/// Why a stream to the control plane ended (`istio_xds_connection_terminations_total`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It could not be opened.
    ConnectionError,
    /// It failed while open.
    Error,
    /// Normal turnover, for example a server that is shutting down.
    Reconnect,
    /// The server ended it in order.
    Complete,
}

/// Counts.
pub trait Observer: Send + Sync + 'static {
    /// A response came, with so many bytes of resources.
    fn message(&self, type_url: &str, bytes: u64);
    /// A stream ended.
    fn ended(&self, end: End);
}

/// Counts nothing.
impl Observer for () {
    fn message(&self, _: &str, _: u64) {}
    fn ended(&self, _: End) {}
}
