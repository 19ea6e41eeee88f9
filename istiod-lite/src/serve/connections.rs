//! How many connections there may be, and how long one may be open without a call with a good token.
//!
//! A connection holds a descriptor and some tens of kilobytes from the moment it is accepted, long before anybody knows
//! whose it is. So all of them together are bounded, and those that are not authenticated yet once more; of both, a
//! source address may hold as much as is left for the others. A connection that is not authenticated in time is closed: a
//! handshake, a greeting and one call with a good token are a matter of milliseconds.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use mesh_model::share::{Full, Share, Shares, Source};
use rustls::server::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::seldom::Seldom;

/// How long a connection may take from being accepted to its first call with a good token.
pub(crate) const AUTHENTICATION: Duration = Duration::from_secs(10);
/// Connections that are not authenticated yet.
const UNAUTHENTICATED: usize = 1024;

/// The bounds.
pub struct ConnectionLimits {
    open: Arc<Shares>,
    unauthenticated: Arc<Shares>,
    refused: Seldom,
}

impl ConnectionLimits {
    /// At most `connections` are open (`ISTIOD_MAX_CONNECTIONS`).
    pub fn new(connections: usize) -> Self {
        Self {
            open: Shares::new(connections),
            unauthenticated: Shares::new(UNAUTHENTICATED),
            refused: Seldom::new(Duration::from_secs(10)),
        }
    }

    /// Counts one more connection.
    fn admit(&self, from: SocketAddr) -> Result<ConnectionInfo, Full> {
        let source = Source::address(from.ip());
        let open = self.open.enter(&source)?;
        let unauthenticated = self.unauthenticated.enter(&source)?;
        let state = ConnectionState {
            from,
            authenticated: AtomicBool::new(false),
            unauthenticated: Mutex::new(Some(unauthenticated)),
            _open: open,
        };
        Ok(ConnectionInfo(Arc::new(state)))
    }

    fn tell(&self, from: IpAddr, full: Full) {
        if let Some(many) = self.refused.now() {
            let (open, unauthenticated) = (self.open.all(), self.unauthenticated.all());
            tracing::warn!(%from, reason = %full, many, open, unauthenticated, "connections refused");
        }
    }
}

/// A connection. Calls have it among their extensions.
#[derive(Clone)]
pub struct ConnectionInfo(Arc<ConnectionState>);

struct ConnectionState {
    from: SocketAddr,
    authenticated: AtomicBool,
    unauthenticated: Mutex<Option<Share>>,
    _open: Share,
}

impl ConnectionInfo {
    /// Where it comes from.
    pub fn from(&self) -> SocketAddr {
        self.0.from
    }

    /// A call on it had a good token: it may stay open.
    pub fn authenticated(&self) {
        if !self.0.authenticated.swap(true, Ordering::Relaxed) {
            *self.0.unauthenticated.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// A connection that ends by itself when it is not authenticated in time.
pub struct DeadlineStream<S> {
    stream: S,
    info: ConnectionInfo,
    /// None once it is authenticated.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> DeadlineStream<S> {
    fn new(stream: S, info: ConnectionInfo, until: Instant) -> Self {
        Self { stream, info, until: Some(Box::pin(sleep_until(until))) }
    }

    /// Asked whenever something is read or written, so that it is asked again when the time has come.
    fn may_stay(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(until) = &mut self.until {
            if self.info.0.authenticated.load(Ordering::Relaxed) {
                self.until = None;
            } else if until.as_mut().poll(cx).is_ready() {
                tracing::debug!(from = %self.info.from(), "no call with a good token in time");
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for DeadlineStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.may_stay(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for DeadlineStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.may_stay(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.may_stay(cx)?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.may_stay(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.may_stay(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S> Connected for DeadlineStream<S> {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

/// Connections that finished their handshake.
pub type Connections = ReceiverStream<io::Result<DeadlineStream<TlsStream<TcpStream>>>>;

/// Accepts connections for a gRPC server, until the stream is dropped.
pub fn accept(listener: TcpListener, tls: Arc<ServerConfig>, limits: ConnectionLimits) -> Connections {
    let (accepted, stream) = mpsc::channel(1);
    let acceptor = TlsAcceptor::from(tls);
    tokio::spawn(async move {
        loop {
            let connection = tokio::select! {
                connection = listener.accept() => connection,
                () = accepted.closed() => return,
            };
            let (tcp, from) = match connection {
                Ok(connection) => connection,
                Err(error) => {
                    // Out of descriptors, mostly: trying again at once would only burn the processor.
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // A connection too many is reset at once: waiting in the kernel's queue it would keep out those that come
            // after it.
            let info = match limits.admit(from) {
                Ok(info) => info,
                Err(full) => {
                    limits.tell(from.ip(), full);
                    // Fails only on a socket that is gone already.
                    let _ = tcp.set_zero_linger();
                    continue;
                }
            };
            // Answers are small, and somebody waits for each.
            let _ = tcp.set_nodelay(true);
            let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
            tokio::spawn(async move {
                let until = Instant::now() + AUTHENTICATION;
                match timeout_at(until, acceptor.accept(tcp)).await {
                    // The server may be gone by now.
                    Ok(Ok(stream)) => drop(accepted.send(Ok(DeadlineStream::new(stream, info, until))).await),
                    Ok(Err(error)) => tracing::debug!(%from, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%from, "TLS handshake took too long"),
                }
            });
        }
    });
    ReceiverStream::new(stream)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn from(text: &str) -> SocketAddr {
        SocketAddr::from((text.parse::<IpAddr>().unwrap(), 1))
    }

    /// Half-open connections of one address leave room for others, and authenticated ones are counted as such no more.
    #[test]
    fn an_address_keeps_nobody_else_out() {
        let limits = ConnectionLimits::new(10_000);
        let held: Vec<_> = std::iter::from_fn(|| limits.admit(from("10.0.0.1")).ok()).collect();
        assert_eq!(held.len(), UNAUTHENTICATED / 2);
        let good = limits.admit(from("10.0.0.2")).expect("the others have their room");
        good.authenticated();
        good.authenticated();
        assert_eq!((limits.open.all(), limits.unauthenticated.all()), (UNAUTHENTICATED / 2 + 1, UNAUTHENTICATED / 2));
        held.iter().for_each(ConnectionInfo::authenticated);
        assert_eq!(limits.unauthenticated.all(), 0);
        drop((held, good));
        assert_eq!(limits.open.all(), 0);
    }

    #[test]
    fn all_connections_are_bounded_too() {
        let limits = ConnectionLimits::new(8);
        let greedy = || {
            let info = limits.admit(from("10.0.0.1")).ok()?;
            info.authenticated();
            Some(info)
        };
        let held: Vec<_> = std::iter::from_fn(greedy).collect();
        assert_eq!(held.len(), 4);
        assert!(limits.admit(from("10.0.0.2")).is_ok());
    }

    /// Virtual time.
    #[tokio::test(start_paused = true)]
    async fn who_proves_nothing_is_cut_off() {
        let limits = ConnectionLimits::new(8);
        let (near, _far) = tokio::io::duplex(64);
        let mut silent =
            DeadlineStream::new(near, limits.admit(from("10.0.0.1")).unwrap(), Instant::now() + AUTHENTICATION);
        let start = Instant::now();
        let ended = silent.read_u8().await.unwrap_err();
        assert_eq!((ended.kind(), start.elapsed()), (io::ErrorKind::TimedOut, AUTHENTICATION));

        let (near, far) = tokio::io::duplex(64);
        let info = limits.admit(from("10.0.0.1")).unwrap();
        let mut authenticated = DeadlineStream::new(near, info.clone(), Instant::now() + AUTHENTICATION);
        let waits = tokio::spawn(async move { authenticated.read_u8().await.map_err(|e| e.kind()) });
        tokio::time::sleep(AUTHENTICATION / 2).await;
        info.authenticated();
        tokio::time::sleep(100 * AUTHENTICATION).await;
        assert!(!waits.is_finished(), "it may stay");
        drop(far);
        assert_eq!(waits.await.unwrap(), Err(io::ErrorKind::UnexpectedEof));
    }

    /// Answers nothing.
    #[derive(Clone)]
    struct Nobody;

    impl tonic::codegen::Service<http::Request<tonic::body::Body>> for Nobody {
        type Response = http::Response<tonic::body::Body>;
        type Error = std::convert::Infallible;
        type Future = std::future::Pending<Result<Self::Response, Self::Error>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
            std::future::pending()
        }
    }

    /// Virtual time: the server lets go of a connection that greets and then says nothing.
    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_closed_by_the_server() {
        let limits = Arc::new(ConnectionLimits::new(8));
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let guarded =
            DeadlineStream::new(near, limits.admit(from("10.0.0.1")).unwrap(), Instant::now() + AUTHENTICATION);
        let incoming = tokio_stream::iter([Ok::<_, io::Error>(guarded)]);
        let server = tonic::transport::Server::builder();
        tokio::spawn(
            server.serve_with_incoming(Nobody, tokio_stream::StreamExt::chain(incoming, tokio_stream::pending())),
        );
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        tokio::io::AsyncWriteExt::write_all(&mut far, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat())
            .await
            .unwrap();
        let (start, mut said) = (Instant::now(), Vec::new());
        far.read_to_end(&mut said).await.unwrap();
        assert_eq!((said.is_empty(), start.elapsed()), (false, AUTHENTICATION), "it was greeted, and let go of");
        assert_eq!((limits.open.all(), limits.unauthenticated.all()), (0, 0), "nothing of it is left");
    }
}
