//! Opening a tunnel: what is asked of whom, what is told of it, and what a failure means.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use mesh_hbone::client::{Client, OpenError};
use mesh_hbone::connect::{self, Context};
use mesh_hbone::pool::Key;
use mesh_identity::peer_watch::PeerWatch;
use mesh_identity::store::CertificateError;
use mesh_identity::tls::is_revoked;
use mesh_model::destination::TunnelTo;
use mesh_model::reason::ReasonCode;
use mesh_model::workload::Workload;
use mesh_proxy::report::{Party, Traffic};
use mesh_runtime::access_log::Direction;
use mesh_runtime::metrics::{Reporter, ResponseFlags};
use mesh_runtime::trace::TraceParent;

use crate::pod::Pod;
use crate::serving::Worker;
use crate::shared::Shared;
use crate::sockets;

/// What is told of a tunnel.
pub(super) fn traffic(
    client: &Arc<Workload>,
    from: SocketAddr,
    key: &Key,
    to: &TunnelTo,
    trace: TraceParent,
) -> Traffic {
    Traffic {
        direction: Direction::Outbound,
        reporter: Reporter::Source,
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

/// The CONNECT of a tunnel. `network` is ours, for the inner one of two only (trap 15).
pub(super) fn request(
    shared: &Shared,
    pod: &Pod,
    client: &Arc<Workload>,
    from: SocketAddr,
    to: &TunnelTo,
    trace: &TraceParent,
    network: Option<&str>,
) -> Result<Request<()>, http::Error> {
    let baggage = shared.config.baggage.then(|| pod.baggage(client));
    connect::request(
        &to.authority.to_string(),
        &Context {
            baggage: baggage.as_deref().unwrap_or_default(),
            client: Some(from),
            host: to.service.as_ref().map(|s| &*s.hostname),
            traceparent: &trace.to_string(),
            network,
        },
    )
}

/// A new connection for the pool: from inside the pod's namespace, so that the peer sees the pod's address.
pub(super) async fn connect_to(worker: &Worker, pod: &Pod, key: &Key) -> Result<Client, OpenError> {
    let shared = &worker.shared;
    let credentials = shared.certificates.get(&key.source).await.map_err(no_certificate)?;
    let tcp = pod.dialler.dial(None, key.peer, &pod.sockets).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::TimedOut => OpenError::ConnectTimeout,
        _ => OpenError::Connect { peer: key.peer, error: Arc::new(error) },
    })?;
    let tcp = tcp.opened();
    sockets::keep_alive(&tcp, &pod.sockets);
    Client::handshake_watched(tcp, PeerWatch::new(credentials), &key.expected, &shared.config.hbone).await
}

pub(super) fn no_certificate(error: CertificateError) -> OpenError {
    OpenError::Certificate(error.to_string())
}

/// The flag that metrics carry and the stable code of a failure to open; documented in `docs/reasons.md`.
pub(super) fn classify(error: &OpenError) -> (ResponseFlags, ReasonCode) {
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
