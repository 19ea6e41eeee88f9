//! One HTTP/2 connection to a proven peer; opens tunnels on it.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode};
use mesh_identity::tls;
use mesh_model::identity::SpiffeId;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::Settings;
use crate::connect::REASON_HEADER;
use crate::stream::Tunnel;

/// Why a tunnel could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// We have no certificate to prove ourselves with.
    #[error("no certificate: {0}")]
    Certificate(String),
    /// No TCP connection.
    #[error("connect to {peer}: {error}")]
    Connect {
        /// The peer's address.
        peer: std::net::SocketAddr,
        /// What the kernel said.
        error: Arc<io::Error>,
    },
    /// No TCP connection in time.
    #[error("connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008")]
    ConnectTimeout,
    /// The peer did not prove one of the expected identities, or did not accept ours.
    #[error("TLS with {expected}: {error}")]
    Tls {
        /// Who was expected.
        expected: String,
        /// What failed.
        error: Arc<io::Error>,
    },
    /// TLS or HTTP/2 took too long.
    #[error("TLS or HTTP/2 handshake timed out")]
    HandshakeTimeout,
    /// HTTP/2 could not be spoken.
    #[error("HTTP/2: {0}")]
    Http2(String),
    /// The peer said no.
    #[error("http status: {status}{}", reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default())]
    Refused {
        /// 401: denied by policy. 400: not for it. 503: it could not reach the application.
        status: StatusCode,
        /// The reason code that a server of ours adds.
        reason: Option<String>,
    },
    /// The connection ended before the peer looked at the request: another connection may serve it.
    #[error("the pooled connection was closed")]
    Closed,
}

/// The answer to an opened tunnel.
pub struct Opened {
    /// The tunnel.
    pub tunnel: Tunnel,
    /// Headers of the 200: baggage of the destination.
    pub headers: HeaderMap,
}

/// A connection to one peer. Clones share it.
#[derive(Clone)]
pub struct Client {
    requests: SendRequest<Bytes>,
    shared: Rc<Shared>,
}

struct Shared {
    /// Tunnels open now.
    open: Cell<usize>,
    /// Set when the connection takes no new tunnels: closed, going away, or given up.
    closed: Cell<bool>,
    /// When the last tunnel ended.
    idle_since: Cell<tokio::time::Instant>,
    own_limit: usize,
    peer: Option<SpiffeId>,
}

/// Frees a tunnel's place on the connection.
struct Place(Rc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.idle_since.set(tokio::time::Instant::now());
    }
}

impl Client {
    /// Proves the peer over `tcp` and speaks HTTP/2 with it. Its driver runs as a task of this thread's `LocalSet`.
    ///
    /// # Errors
    /// When the peer cannot be proven or does not speak HTTP/2.
    pub async fn handshake(
        tcp: TcpStream,
        tls: Arc<ClientConfig>,
        expected: &[SpiffeId],
        settings: &Settings,
    ) -> Result<Self, OpenError> {
        let limit = settings.handshake_timeout;
        // It sends no SNI; the peer chooses its certificate by listener.
        let name = tls::dial_name();
        let tls_failed = |error| OpenError::Tls {
            expected: expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
            error: Arc::new(error),
        };
        let stream = timeout(limit, TlsConnector::from(tls).connect(name, tcp))
            .await
            .map_err(|_| OpenError::HandshakeTimeout)?
            .map_err(tls_failed)?;
        let peer = stream.get_ref().1.peer_certificates().and_then(tls::peer_identity);
        let handshake = h2::client::Builder::new()
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_frame_size(settings.frame_size)
            .max_header_list_size(16 << 10)
            .initial_max_send_streams(settings.client_streams)
            .max_send_buffer_size(settings.stream_window as usize)
            .enable_push(false)
            .handshake(stream);
        let (requests, mut connection) = timeout(limit, handshake)
            .await
            .map_err(|_| OpenError::HandshakeTimeout)?
            .map_err(|e| OpenError::Http2(e.to_string()))?;
        let shared = Rc::new(Shared {
            open: Cell::new(0),
            closed: Cell::new(false),
            idle_since: Cell::new(tokio::time::Instant::now()),
            own_limit: settings.client_streams,
            peer,
        });
        let pings = connection.ping_pong();
        let (interval, deadline) = (settings.ping_interval, settings.ping_timeout);
        let ended = shared.clone();
        tokio::task::spawn_local(async move {
            tokio::select! {
                result = connection => if let Err(error) = result {
                    tracing::debug!(%error, "HBONE connection ended");
                },
                () = unanswered(pings, interval, deadline) => {
                    tracing::debug!("HBONE peer does not answer PING: connection dropped");
                }
            }
            ended.closed.set(true);
        });
        Ok(Self { requests, shared })
    }

    /// True while another tunnel can be opened on it.
    pub fn has_room(&self) -> bool {
        let limit = self.shared.own_limit.min(self.requests.current_max_send_streams());
        !self.shared.closed.get() && self.shared.open.get() < limit
    }

    /// True when it takes no new tunnels any more.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.get()
    }

    /// How long it has had no tunnel; `None` while it has one.
    pub fn idle(&self) -> Option<std::time::Duration> {
        (self.shared.open.get() == 0).then(|| self.shared.idle_since.get().elapsed())
    }

    /// Who the peer proved to be.
    pub fn peer(&self) -> Option<&SpiffeId> {
        self.shared.peer.as_ref()
    }

    /// Opens a tunnel. Ask [`Client::has_room`] first.
    ///
    /// # Errors
    /// [`OpenError::Closed`] when the peer never looked at the request, so that it may be sent elsewhere.
    pub async fn open(&mut self, request: Request<()>) -> Result<Opened, OpenError> {
        self.shared.open.set(self.shared.open.get() + 1);
        let place = Place(self.shared.clone());
        let sent = self.requests.send_request(request, false);
        let answered = match sent {
            Ok((response, sender)) => response.await.map(|response| (response, sender)),
            Err(error) => Err(error),
        };
        let (response, sender) = answered.map_err(|error| self.failed(&error))?;
        let (parts, receiver) = response.into_parts();
        if parts.status != StatusCode::OK {
            let reason = parts.headers.get(REASON_HEADER).and_then(|v| v.to_str().ok()).map(str::to_owned);
            return Err(OpenError::Refused { status: parts.status, reason });
        }
        Ok(Opened { tunnel: Tunnel::new(sender, receiver, Some(Box::new(place))), headers: parts.headers })
    }

    /// The peer looked at a stream unless it refused it (RFC 9113 8.7), went away before it, or the connection was
    /// closed under us.
    fn failed(&self, error: &h2::Error) -> OpenError {
        let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
        if refused || error.is_go_away() || error.is_io() || self.shared.closed.get() {
            self.shared.closed.set(true);
            return OpenError::Closed;
        }
        OpenError::Http2(error.to_string())
    }
}

/// Returns when the peer leaves a PING unanswered: it is gone without having said so.
pub(crate) async fn unanswered(
    pings: Option<h2::PingPong>,
    interval: std::time::Duration,
    deadline: std::time::Duration,
) {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(interval).await;
        match timeout(deadline, pings.ping(h2::Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection ends by itself with its own error.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}
