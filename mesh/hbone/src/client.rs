//! One HTTP/2 connection to a proven peer; opens tunnels on it.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, Request, StatusCode};
use mesh_identity::peer_watch::PeerWatch;
use mesh_identity::tls;
use mesh_model::identity::SpiffeId;
use mesh_model::share::Source;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use crate::Settings;
use crate::broken::Broken;
use crate::connect::REASON_HEADER;
use crate::http2::Role;
use crate::http2::closing::Over;
use crate::http2::driver::Driver;
use crate::http2::state::Shared;
use crate::stream::{StreamHandle, Tunnel};
use crate::tls::handshake;
use crate::unfinished::Unfinished;

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
    /// The peer's certificate was taken back before it answered.
    #[error("the server's certificate has been revoked")]
    Revoked,
    /// The peer said that it takes no tunnels.
    #[error("the peer takes no tunnels: its HTTP/2 settings allow 0 streams on a connection")]
    NoTunnels,
    /// The peer was there and did not answer the request for a tunnel, or no connection had room in time.
    #[error("no answer to the request for a tunnel within {} s", limit.as_secs_f32())]
    OpenTimeout {
        /// How long it was waited for.
        limit: std::time::Duration,
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

/// A connection to one peer. Clones share it; it ends when they are gone and so are its tunnels.
#[derive(Clone)]
pub struct Client(Rc<Handle>);

struct Handle {
    connection: Shared,
    /// When the last tunnel ended.
    idle_since: Rc<Cell<Instant>>,
    peer: Option<SpiffeId>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.connection.borrow_mut().release_connection();
    }
}

/// Notes the end of a tunnel; dropped with it.
struct Use(Rc<Cell<Instant>>);

impl Drop for Use {
    fn drop(&mut self) {
        self.0.set(Instant::now());
    }
}

fn ended(over: Over) {
    tracing::debug!(%over, "HBONE connection ended");
}

impl Client {
    /// Proves the peer over `transport`, a TCP connection or a tunnel, and speaks HTTP/2 with it. Its driver runs as a
    /// task of the thread.
    ///
    /// # Errors
    /// When the peer cannot be proven or does not answer in time.
    pub async fn handshake<T>(
        transport: T,
        config: Arc<ClientConfig>,
        expected: &[SpiffeId],
        settings: &Settings,
    ) -> Result<Self, OpenError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (client, driver) = Self::prove(transport, config, expected, settings).await?;
        tokio::task::spawn_local(async move { ended(driver.await) });
        Ok(client)
    }

    /// [`Client::handshake`] with a peer that is cut off, and every tunnel to it, once its certificate is revoked.
    ///
    /// # Errors
    /// As [`Client::handshake`].
    pub async fn handshake_watched<T>(
        transport: T,
        mut watch: PeerWatch,
        expected: &[SpiffeId],
        settings: &Settings,
    ) -> Result<Self, OpenError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let config = watch.client_config(expected);
        if !watch.is_on() {
            return Self::handshake(transport, config, expected, settings).await;
        }
        let (client, mut driver) = Self::prove(transport, config, expected, settings).await?;
        let (connection, peer) = (client.0.connection.clone(), client.0.peer.clone());
        tokio::task::spawn_local(async move {
            tokio::select! {
                over = &mut driver => return ended(over),
                () = watch.revoked() => {}
            }
            let peer = peer.as_ref().map(tracing::field::display);
            tracing::warn!(peer, "the server's certificate is revoked: connection cut");
            connection.borrow_mut().revoke();
            ended(driver.await);
        });
        Ok(client)
    }

    async fn prove<T>(
        mut transport: T,
        config: Arc<ClientConfig>,
        expected: &[SpiffeId],
        settings: &Settings,
    ) -> Result<(Self, Driver<T>), OpenError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let tls_failed = |error| OpenError::Tls {
            expected: expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "),
            error: Arc::new(error),
        };
        // Who answers for an identity and is somebody else harms those who want that one, and nobody else.
        let nobody = || Source::address(Ipv4Addr::UNSPECIFIED.into());
        let server = expected.first().cloned().map_or_else(nobody, Source::Identity);
        let unfinished = |source| Unfinished::of(source, settings.unfinished_bytes);
        let proving = handshake::client(&mut transport, config, unfinished(server.clone()));
        let established = timeout(settings.handshake_timeout, proving)
            .await
            .map_err(|_| OpenError::HandshakeTimeout)?
            .map_err(tls_failed)?;
        let peer = established.certificates.as_deref().and_then(tls::peer_identity);
        let proven = unfinished(server);
        let driver =
            Driver::new(transport, Role::Client, Rc::new(settings.clone()), established, proven).map_err(tls_failed)?;
        let connection = driver.shared();
        let client = Self(Rc::new(Handle { connection, idle_since: Rc::new(Cell::new(Instant::now())), peer }));
        Ok((client, driver))
    }

    /// True while another tunnel can be opened on it.
    pub fn has_room(&self) -> bool {
        self.0.connection.borrow().has_room()
    }

    /// True when the peer has said that it takes no tunnels at all.
    pub(crate) fn takes_none(&self) -> bool {
        self.0.connection.borrow().takes_none()
    }

    /// Why nothing came of waiting for `limit`.
    pub(crate) fn timed_out(&self, limit: std::time::Duration) -> OpenError {
        if self.takes_none() { OpenError::NoTunnels } else { OpenError::OpenTimeout { limit } }
    }

    /// True when it takes no new tunnels any more.
    pub fn is_closed(&self) -> bool {
        !self.0.connection.borrow().takes_streams()
    }

    /// How long it has had no tunnel; `None` while it has one.
    pub fn idle(&self) -> Option<std::time::Duration> {
        (self.0.connection.borrow().open_streams() == 0).then(|| self.0.idle_since.get().elapsed())
    }

    /// Who the peer proved to be.
    pub fn peer(&self) -> Option<&SpiffeId> {
        self.0.peer.as_ref()
    }

    /// Opens a tunnel. Ask [`Client::has_room`] first.
    ///
    /// # Errors
    /// [`OpenError::Closed`] when the peer never looked at the request, so that it may be sent elsewhere.
    /// [`OpenError::OpenTimeout`] when it did not answer in time.
    pub async fn open(&mut self, request: &Request<()>) -> Result<Opened, OpenError> {
        let limit = self.0.connection.borrow().settings.open_timeout;
        match timeout(limit, self.ask(request)).await {
            Ok(opened) => opened,
            Err(_) => Err(self.timed_out(limit)),
        }
    }

    /// [`Client::open`] for as long as it takes.
    pub(crate) async fn ask(&mut self, request: &Request<()>) -> Result<Opened, OpenError> {
        if self.takes_none() {
            return Err(OpenError::NoTunnels);
        }
        let connection = &self.0.connection;
        let authority = request.uri().authority().map_or("", |authority| authority.as_str());
        let id =
            connection.borrow_mut().open(request.method(), authority, request.headers()).ok_or(OpenError::Closed)?;
        let handle = StreamHandle::new(connection.clone(), id, Some(Box::new(Use(self.0.idle_since.clone()))));
        let answer = poll_fn(|cx| connection.borrow_mut().poll_response(id, cx)).await;
        let (status, headers) = answer.map_err(|broken| match broken {
            // Nobody has answered yet, and nobody has sent a byte: another connection may serve it.
            Broken::Unprocessed if self.takes_none() => OpenError::NoTunnels,
            Broken::Unprocessed | Broken::Lost => OpenError::Closed,
            Broken::Revoked => OpenError::Revoked,
            Broken::Reset(code) => OpenError::Http2(format!("the peer reset the request with code {code}")),
        })?;
        if status != StatusCode::OK {
            let reason = headers.get(REASON_HEADER).and_then(|v| v.to_str().ok()).map(str::to_owned);
            return Err(OpenError::Refused { status, reason });
        }
        Ok(Opened { tunnel: Tunnel::new(handle), headers })
    }
}
