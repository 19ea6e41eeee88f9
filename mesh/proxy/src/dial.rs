//! Opening a tunnel: the key it may share a connection by, its CONNECT, its report, and the classes of its errors.

pub mod across;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::Request;
use mesh_hbone::Settings;
use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::pool::Key;
use mesh_identity::peer_watch::PeerWatch;
use mesh_identity::store::{CertificateError, Store};
use mesh_identity::tls::is_revoked;
use mesh_model::destination::TunnelTo;
use mesh_model::identity::SpiffeId;
use mesh_model::reason::ReasonCode;
use mesh_model::workload::Workload;
use mesh_runtime::access_log::Direction;
use mesh_runtime::metrics::{Reporter, ResponseFlags};
use mesh_runtime::trace::TraceParent;
use tokio::net::TcpStream;

use crate::report::{Party, Traffic};

/// What a connection of the pool may be reused for: one that `source` opens from `source_ip` to the peer of `to`.
pub fn key(source: SpiffeId, source_ip: IpAddr, to: &TunnelTo) -> Key {
    Key { source, source_ip, expected: to.expected.clone(), peer: to.peer, workload: to.workload.uid.clone() }
}

/// The report by `reporter` of a tunnel that `client`, at `from`, opens.
pub fn traffic(
    reporter: Reporter,
    client: &Arc<Workload>,
    from: SocketAddr,
    key: &Key,
    to: &TunnelTo,
    trace: TraceParent,
) -> Traffic {
    Traffic {
        direction: Direction::Outbound,
        reporter,
        from,
        to: to.peer,
        hbone_to: Some(to.authority.clone()),
        source: Party::workload(client, Some(&key.source)),
        destination: Party::workload(&to.workload, to.expected.first()),
        service: to.service.clone(),
        secured: true,
        trace: Some(trace),
    }
}

/// The CONNECT of a tunnel for a client at `from`, whom `baggage` describes. `network` is ours, for the inner one of two
/// only (trap 15).
///
/// # Errors
/// When something of it cannot stand in a request.
pub fn request(
    baggage: &str,
    from: SocketAddr,
    to: &TunnelTo,
    trace: &TraceParent,
    network: Option<&str>,
) -> Result<Request<()>, http::Error> {
    connect::request(
        &to.authority.to_string(),
        &Context {
            baggage,
            client: Some(from),
            host: to.service.as_ref().map(|s| &*s.hostname),
            traceparent: &trace.to_string(),
            network,
        },
    )
}

/// A new connection for the pool: gets the certificate of the source, awaits `dial`, and has the peer prove one of the
/// identities that `key` expects.
///
/// # Errors
/// Says which of these failed.
pub async fn connect(
    certificates: &Store,
    key: &Key,
    settings: &Settings,
    dial: impl Future<Output = io::Result<TcpStream>>,
) -> Result<Client, OpenError> {
    let credentials = certificates.get(&key.source).await.map_err(no_certificate)?;
    let tcp = dial.await.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => OpenError::ConnectTimeout,
        _ => OpenError::Connect { peer: key.peer, error: Arc::new(error) },
    })?;
    Client::handshake_watched(tcp, PeerWatch::new(credentials), &key.expected, settings).await
}

/// The error of a tunnel for whose source the store has no certificate.
pub fn no_certificate(error: CertificateError) -> OpenError {
    OpenError::Certificate(error.to_string())
}

/// The flag that metrics carry and the stable code of a failure to open; documented in `docs/reasons.md`.
pub fn classify(error: &OpenError) -> (ResponseFlags, ReasonCode) {
    match error {
        OpenError::Certificate(_) => (ResponseFlags::IdentityError, ReasonCode::NoCertificate),
        OpenError::Connect { .. } => (ResponseFlags::Connect, ReasonCode::ConnectFailed),
        OpenError::ConnectTimeout => (ResponseFlags::NetworkPolicy, ReasonCode::ConnectTimeout),
        OpenError::Tls { error, .. } if is_revoked(&**error) => (ResponseFlags::CertRevoked, ReasonCode::CertRevoked),
        OpenError::Revoked => (ResponseFlags::CertRevoked, ReasonCode::CertRevoked),
        OpenError::Tls { .. } => (ResponseFlags::TlsFailure, ReasonCode::TlsFailed),
        OpenError::HandshakeTimeout => (ResponseFlags::H2HandshakeFailure, ReasonCode::HandshakeTimeout),
        OpenError::Http2(_) => (ResponseFlags::H2HandshakeFailure, ReasonCode::Http2Failed),
        OpenError::Refused { status, .. } if *status == http::StatusCode::UNAUTHORIZED => {
            (ResponseFlags::Connect, ReasonCode::RefusedByPolicy)
        }
        OpenError::Refused { .. } => (ResponseFlags::Connect, ReasonCode::RefusedByPeer),
        OpenError::Closed => (ResponseFlags::Connect, ReasonCode::PeerClosed),
        OpenError::OpenTimeout { .. } => (ResponseFlags::Connect, ReasonCode::TunnelTimeout),
        OpenError::NoTunnels => (ResponseFlags::Connect, ReasonCode::PeerTakesNoTunnels),
    }
}
