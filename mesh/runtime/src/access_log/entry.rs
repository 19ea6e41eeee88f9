//! What a line says: one connection, both of its ends, and how it ended.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tracing::Level;

/// What happened to a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Event {
    /// It ended: INFO, or ERROR if [`Entry::error`] is set.
    #[default]
    Complete,
    /// It was opened: DEBUG.
    Opened,
    /// It failed before anything was known of it: WARN. Set only the addresses, the direction, the error and its reason.
    Failed,
}

/// Seen from the pod this proxy stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the pod.
    Inbound,
    /// From the pod.
    Outbound,
}

/// One end of a connection. Absent and empty values are left out of the line.
#[derive(Clone, Copy, Default)]
pub struct Peer<'a> {
    /// Address and port. An inbound destination keeps port 15008.
    pub addr: Option<SocketAddr>,
    /// The pod's name.
    pub workload: Option<&'a str>,
    /// Its namespace.
    pub namespace: Option<&'a str>,
    /// `spiffe://…`, only if proven by mTLS.
    pub identity: Option<&'a dyn fmt::Display>,
    /// Its cluster.
    pub cluster: Option<&'a str>,
}

/// A request and its answer, of a proxy that reads them.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, with its query, as the caller sent it; cut if it is long.
    pub path: &'a str,
    /// `Host` or `:authority`.
    pub authority: &'a str,
    /// `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'a str,
    /// The status that the caller was answered.
    pub status: u16,
    /// The route and its rule, if one matched.
    pub route: Option<&'a dyn fmt::Display>,
}

/// What the line says. Everything is borrowed: it lives only while the line is formatted.
#[derive(Clone, Copy, Default)]
pub struct Entry<'a> {
    /// What happened.
    pub event: Event,
    /// Who connected.
    pub src: Peer<'a>,
    /// Who was connected to.
    pub dst: Peer<'a>,
    /// `dst.hbone_addr`: the target inside the tunnel.
    pub hbone_addr: Option<&'a dyn fmt::Display>,
    /// `dst.service`: the service's hostname.
    pub service: Option<&'a str>,
    /// Which way.
    pub direction: Option<Direction>,
    /// Bytes that this side sent: the client of an outbound connection, the server of an inbound one.
    pub bytes_sent: Option<u64>,
    /// Bytes that it received.
    pub bytes_recv: Option<u64>,
    /// From accept to end; printed in whole milliseconds.
    pub duration: Option<Duration>,
    /// Why it failed.
    pub error: Option<&'a dyn fmt::Display>,
    /// What was asked in it, of a line that is about a request.
    pub request: Option<Request<'a>>,
    /// Ours: the policy that decided, `namespace/name`.
    pub policy: Option<&'a dyn fmt::Display>,
    /// Ours: the audit policies that matched, `namespace/name`.
    pub audit: Option<&'a dyn fmt::Display>,
    /// Ours: a reason code that stays the same between versions.
    pub reason: Option<&'a str>,
    /// Ours: the `traceparent` that was sent with the tunnel.
    pub trace: Option<&'a dyn fmt::Display>,
    /// `traceID`: the trace that the request belongs to.
    pub trace_id: Option<&'a dyn fmt::Display>,
}

impl Entry<'_> {
    /// The level at which its line is logged.
    pub(super) fn level(&self) -> Level {
        match (self.event, self.error.is_some()) {
            (Event::Complete, false) => Level::INFO,
            (Event::Complete, true) => Level::ERROR,
            (Event::Opened, _) => Level::DEBUG,
            (Event::Failed, _) => Level::WARN,
        }
    }
}

impl Direction {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}
