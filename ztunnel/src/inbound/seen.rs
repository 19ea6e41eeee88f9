//! Whom an application sees.

use std::net::SocketAddr;

/// The address the application shall see: the caller's, unless that is its own; with `port`, or if it is none any.
pub(super) fn source_of(from: SocketAddr, port: Option<u16>, application: SocketAddr) -> Option<SocketAddr> {
    let seen = from.ip() != application.ip() && from.is_ipv4() == application.is_ipv4();
    seen.then(|| SocketAddr::new(from.ip(), port.unwrap_or(0)))
}
