//! Accept, prove the caller, hand each tunnel over.

use std::future::poll_fn;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode};
use mesh_identity::tls;
use mesh_model::identity::SpiffeId;
use mesh_model::reason::ReasonCode;
use mesh_model::share::Source;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::Settings;
use crate::connect::{BAGGAGE, REASON_HEADER};
use crate::http2::Role;
use crate::http2::closing::Over;
use crate::http2::driver::Driver;
use crate::http2::requests::Request;
use crate::http2::state::Shared;
use crate::stream::{StreamHandle, Tunnel, TunnelError};
use crate::tls::handshake;
use crate::unfinished::Unfinished;

/// Why a caller was not let as far as asking.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// It could not prove itself.
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    /// It proved itself, but not by a SPIFFE id.
    #[error("the caller's certificate names no SPIFFE id")]
    NoIdentity,
    /// It does not speak HTTP/2, or hung up.
    #[error("HTTP/2: {0}")]
    Http2(String),
    /// It took too long.
    #[error("TLS or HTTP/2 handshake timed out")]
    Timeout,
}

/// Requests handed out before others of the thread have their turn: each begins a task, and a peer can send hundreds at once.
const AT_ONCE: u32 = 32;

/// A connection from a proven caller. Dropped, it breaks its tunnels off.
pub struct Connection {
    connection: Shared,
    /// Requests that were handed out since others had their turn.
    taken: u32,
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
    stream: StreamHandle,
}

impl Connection {
    /// Proves the caller over `transport` and speaks HTTP/2 with it. Its driver runs as a task of the
    /// thread.
    ///
    /// # Errors
    /// When it cannot be proven, or does not speak HTTP/2, or takes too long.
    pub async fn accept<T>(transport: T, config: Arc<ServerConfig>, settings: &Settings) -> Result<Self, AcceptError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        Self::accept_from(Source::address(Ipv4Addr::UNSPECIFIED.into()), transport, config, settings).await
    }

    /// [`Connection::accept`], of a caller whose source is known: what it leaves unfinished is of that source's share
    /// ([`crate::unfinished`]), and of its identity's once it has proven one.
    ///
    /// # Errors
    /// As [`Connection::accept`].
    pub async fn accept_from<T>(
        source: Source,
        mut transport: T,
        config: Arc<ServerConfig>,
        settings: &Settings,
    ) -> Result<Self, AcceptError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let limit = settings.handshake_timeout;
        let unfinished = |source| Unfinished::of(source, settings.unfinished_bytes);
        let established = timeout(limit, handshake::server(&mut transport, config, unfinished(source)))
            .await
            .map_err(|_| AcceptError::Timeout)?
            .map_err(AcceptError::Tls)?;
        let peer = established.certificates.as_deref().and_then(tls::peer_identity).ok_or(AcceptError::NoIdentity)?;
        let proven = unfinished(Source::Identity(peer.clone()));
        let driver = Driver::new(transport, Role::Server, Rc::new(settings.clone()), established, proven)
            .map_err(AcceptError::Tls)?;
        let accepted = Self { connection: driver.shared(), taken: 0, peer };
        tokio::task::spawn_local(async move {
            let over = driver.await;
            tracing::debug!(%over, "HBONE connection ended");
        });
        let greeting = poll_fn(|cx| accepted.connection.borrow_mut().poll_greeting(cx));
        match timeout(limit, greeting).await {
            Err(_) => Err(AcceptError::Timeout),
            Ok(Err(over)) => Err(AcceptError::Http2(over.to_string())),
            Ok(Ok(())) => Ok(accepted),
        }
    }

    /// What the caller asks for next. `None` when the connection has ended and so have its tunnels.
    ///
    /// # Errors
    /// When the connection broke; its tunnels are broken too.
    pub async fn next(&mut self) -> Option<Result<Asked, TunnelError>> {
        if self.taken == AT_ONCE {
            self.taken = 0;
            tokio::task::yield_now().await;
        }
        let next = poll_fn(|cx| self.connection.borrow_mut().poll_request(cx)).await;
        match next {
            Ok(Request { stream, method, authority, headers }) => {
                self.taken += 1;
                let stream = StreamHandle::new(self.connection.clone(), stream, None);
                Some(Ok(Asked { method, authority, headers, stream }))
            }
            Err(Over::Done) => None,
            Err(over) => Some(Err(TunnelError::Connection(over.to_string()))),
        }
    }

    /// Asks the caller to open no more tunnels here (GOAWAY). Open ones go on; [`Connection::next`] ends with the last.
    pub fn go_away(&mut self) {
        self.connection.borrow_mut().go_away();
    }

    /// Ends the connection because of its caller, and does not say so: the caller learns it when the transport, which is dropped, is
    /// closed. What was said before, GOAWAY above all, is still sent.
    pub fn give_up(self) {
        self.connection.borrow_mut().give_up();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connection.borrow_mut().release_connection();
    }
}

impl Asked {
    /// Opens the tunnel. `baggage` describes the destination; empty leaves it out.
    ///
    /// # Errors
    /// When the caller is gone.
    pub fn accept(self, baggage: &str) -> Result<Tunnel, TunnelError> {
        let mut headers = HeaderMap::new();
        if !baggage.is_empty()
            && let Ok(value) = HeaderValue::from_str(baggage)
        {
            headers.insert(&BAGGAGE, value);
        }
        self.stream.respond(StatusCode::OK, &headers, false)?;
        Ok(Tunnel::new(self.stream))
    }

    /// Resolves when the caller no longer waits for an answer: it has reset the request, or its connection has ended.
    pub async fn withdrawn(&self) {
        self.stream.broken().await;
    }

    /// Says no: a status without body, and the reason code for servers and clients of ours.
    pub fn refuse(self, status: StatusCode, reason: ReasonCode) {
        let mut headers = HeaderMap::new();
        headers.insert(REASON_HEADER, HeaderValue::from_static(reason.as_str()));
        // A caller that is gone needs no answer.
        let _ = self.stream.respond(status, &headers, true);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use tokio::task::{spawn_local, yield_now};

    use super::*;
    use crate::http2::tests::{connect, server};

    /// A caller that asks for a hundred tunnels at once does not have a hundred tasks of its own run before anybody else's.
    #[tokio::test]
    async fn others_of_the_thread_go_on_between_requests() {
        mesh_testkit::hbone::on_one_thread(async {
            let mut server = server(Settings::default());
            (0..100).for_each(|n| server.feed(&connect(2 * n + 1)).unwrap());
            let peer = mesh_testkit::hbone::id("caller");
            let mut connection = Connection { connection: server.shared.clone(), taken: 0, peer };
            let begun = Rc::new(Cell::new(0_u32));
            let counted = begun.clone();
            spawn_local(async move {
                while let Some(Ok(_asked)) = connection.next().await {
                    counted.set(counted.get() + 1);
                }
            });
            let (mut before, mut most) = (0, 0);
            while begun.get() < 100 {
                yield_now().await;
                most = most.max(begun.get() - before);
                before = begun.get();
            }
            assert!(most <= AT_ONCE, "{most} requests were taken between two turns of another task");
        })
        .await;
    }
}
