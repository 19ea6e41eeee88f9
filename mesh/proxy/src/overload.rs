//! Connections for which there is no room: reported, and ended with a reset.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::share::Source;
use mesh_runtime::access_log::Direction;
use tokio::net::TcpStream;

use crate::quota::{Full, Permit, PodQuota};
use crate::report::{Report, Telemetry};

/// A permit for the connection `tcp`, from `from` to `to`, of `source` or of the pod itself. Where there is none, this
/// reports it and has `tcp` end with a reset when it is dropped, so that its peer does not take the end for an answer.
pub fn admit(
    telemetry: &Arc<Telemetry>,
    quota: &PodQuota,
    direction: Direction,
    tcp: &TcpStream,
    (from, to): (SocketAddr, SocketAddr),
    source: Option<&Source>,
) -> Option<Permit> {
    match quota.connection(source) {
        Ok(permit) => Some(permit),
        Err(full) => {
            shed(telemetry, direction, tcp, (from, to), full);
            None
        }
    }
}

/// Reports that there is no room for a connection, and has it end with a reset when it is dropped.
pub(crate) fn shed(
    telemetry: &Arc<Telemetry>,
    direction: Direction,
    tcp: &TcpStream,
    (from, to): (SocketAddr, SocketAddr),
    full: Full,
) {
    Report::attempt(telemetry, direction, from, to).failed(full.code(), &full);
    // Fails only on a socket that is gone already.
    let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
}
