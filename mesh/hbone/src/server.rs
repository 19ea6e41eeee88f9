//! Accept, prove the caller, hand each tunnel over.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use mesh_identity::tls;
use mesh_model::identity::SpiffeId;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::Settings;
use crate::connect::REASON_HEADER;
use crate::stream::Tunnel;

/// Why a caller was not let as far as asking.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It could not prove itself.
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    /// It proved itself, but not by a SPIFFE id.
    #[error("the caller's certificate names no SPIFFE id")]
    NoIdentity,
    /// It does not speak HTTP/2.
    #[error("HTTP/2: {0}")]
    Http2(#[source] h2::Error),
    /// It took too long.
    #[error("TLS or HTTP/2 handshake timed out")]
    Timeout,
}

/// A connection from a proven caller.
pub struct Connection {
    inner: h2::server::Connection<TlsStream<TcpStream>, Bytes>,
    /// Who is calling.
    pub peer: SpiffeId,
}

/// What a caller asks for: answer it with [`Asked::accept`] or [`Asked::refuse`].
pub struct Asked {
    /// The request's method; only CONNECT is a tunnel.
    pub method: Method,
    /// The `:authority`, as sent; empty if there was none.
    pub authority: String,
    /// Headers of the request.
    pub headers: HeaderMap,
    receiver: RecvStream,
    respond: SendResponse<Bytes>,
}

impl Connection {
    /// Proves the caller over `tcp` and speaks HTTP/2 with it.
    ///
    /// # Errors
    /// When it cannot be proven, or does not speak HTTP/2, or takes too long.
    pub async fn accept(tcp: TcpStream, config: Arc<ServerConfig>, settings: &Settings) -> Result<Self, AcceptError> {
        let limit = settings.handshake_timeout;
        let stream = timeout(limit, TlsAcceptor::from(config).accept(tcp))
            .await
            .map_err(|_| AcceptError::Timeout)?
            .map_err(AcceptError::Tls)?;
        let peer =
            stream.get_ref().1.peer_certificates().and_then(tls::peer_identity).ok_or(AcceptError::NoIdentity)?;
        let handshake = h2::server::Builder::new()
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_frame_size(settings.frame_size)
            .max_header_list_size(64 << 10)
            .max_concurrent_streams(settings.server_streams)
            .max_send_buffer_size(400 << 10)
            .handshake(stream);
        let inner = timeout(limit, handshake).await.map_err(|_| AcceptError::Timeout)?.map_err(AcceptError::Http2)?;
        Ok(Self { inner, peer })
    }

    /// PINGs for [`unanswered`]; once.
    pub fn pings(&mut self) -> Option<h2::PingPong> {
        self.inner.ping_pong()
    }

    /// What the caller asks for next. It must be awaited for the connection's tunnels to move. `None` when the
    /// connection has ended and so have its tunnels.
    ///
    /// # Errors
    /// When the connection broke; its tunnels break too.
    pub async fn next(&mut self) -> Option<Result<Asked, h2::Error>> {
        let (request, respond) = match self.inner.accept().await? {
            Ok(asked) => asked,
            Err(error) => return Some(Err(error)),
        };
        let (parts, receiver) = request.into_parts();
        Some(Ok(Asked {
            method: parts.method,
            authority: parts.uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default(),
            headers: parts.headers,
            receiver,
            respond,
        }))
    }

    /// Asks the caller to open no more tunnels here (GOAWAY). Open ones go on; [`Connection::next`] ends with the last.
    pub fn go_away(&mut self) {
        self.inner.graceful_shutdown();
    }
}

/// Returns when the caller leaves a PING unanswered: it is gone without having said so.
pub async fn unanswered(pings: Option<h2::PingPong>, settings: &Settings) {
    crate::client::unanswered(pings, settings.ping_interval, settings.ping_timeout).await;
}

impl Asked {
    /// Opens the tunnel. `baggage` describes the destination; empty leaves it out.
    ///
    /// # Errors
    /// When the caller is gone.
    pub fn accept(mut self, baggage: &str) -> Result<Tunnel, h2::Error> {
        let mut response = Response::new(());
        if !baggage.is_empty()
            && let Ok(value) = HeaderValue::from_str(baggage)
        {
            response.headers_mut().insert("baggage", value);
        }
        let sender = self.respond.send_response(response, false)?;
        Ok(Tunnel::new(sender, self.receiver, None))
    }

    /// Says no: a status without body, and the reason code for servers and clients of ours.
    pub fn refuse(mut self, status: StatusCode, reason: &'static str) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        response.headers_mut().insert(REASON_HEADER, HeaderValue::from_static(reason));
        // A caller that is gone needs no answer.
        let _ = self.respond.send_response(response, true);
    }
}
