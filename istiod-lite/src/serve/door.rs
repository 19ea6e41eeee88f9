//! Who may come in, and how long it may stay without having said who it is.
//!
//! A connection holds a descriptor and some tens of kilobytes from the moment it is accepted, long before anybody knows
//! whose it is. So all of them together are bounded, and those that have not proven anything yet once more; of both, a
//! source address may hold as much as is left for the others. Who has not proven itself in time is cut off: a
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
pub(crate) const PROOF: Duration = Duration::from_secs(10);
/// Connections that have not proven anything yet.
const UNPROVEN: usize = 1024;

/// The bounds.
pub struct Door {
    open: Arc<Shares>,
    unproven: Arc<Shares>,
    refused: Seldom,
}

impl Door {
    /// At most `connections` are open (`ISTIOD_MAX_CONNECTIONS`).
    pub fn new(connections: usize) -> Self {
        Self {
            open: Shares::new(connections),
            unproven: Shares::new(UNPROVEN),
            refused: Seldom::new(Duration::from_secs(10)),
        }
    }

    /// Lets somebody in.
    fn enter(&self, from: SocketAddr) -> Result<Guest, Full> {
        let source = Source::address(from.ip());
        let open = self.open.enter(&source)?;
        let unproven = self.unproven.enter(&source)?;
        let inside = Inside { from, proven: AtomicBool::new(false), unproven: Mutex::new(Some(unproven)), _open: open };
        Ok(Guest(Arc::new(inside)))
    }

    fn tell(&self, from: IpAddr, full: Full) {
        if let Some(many) = self.refused.now() {
            let (open, unproven) = (self.open.all(), self.unproven.all());
            tracing::warn!(%from, reason = %full, many, open, unproven, "connections refused");
        }
    }
}

/// Who is on a connection. Calls have it among their extensions.
#[derive(Clone)]
pub struct Guest(Arc<Inside>);

struct Inside {
    from: SocketAddr,
    proven: AtomicBool,
    unproven: Mutex<Option<Share>>,
    _open: Share,
}

impl Guest {
    /// Where it comes from.
    pub fn from(&self) -> SocketAddr {
        self.0.from
    }

    /// It has shown a good token: it may stay.
    pub fn prove(&self) {
        if !self.0.proven.swap(true, Ordering::Relaxed) {
            *self.0.unproven.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

/// A connection that ends by itself when nobody proves anything on it.
pub struct Guarded<S> {
    stream: S,
    guest: Guest,
    /// None once it is proven.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    fn new(stream: S, guest: Guest, until: Instant) -> Self {
        Self { stream, guest, until: Some(Box::pin(sleep_until(until))) }
    }

    /// Asked whenever something is read or written, so that it is asked again when the time has come.
    fn may_stay(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(until) = &mut self.until {
            if self.guest.0.proven.load(Ordering::Relaxed) {
                self.until = None;
            } else if until.as_mut().poll(cx).is_ready() {
                tracing::debug!(from = %self.guest.from(), "no call with a good token in time");
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.may_stay(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
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

impl<S> Connected for Guarded<S> {
    type ConnectInfo = Guest;

    fn connect_info(&self) -> Guest {
        self.guest.clone()
    }
}

/// Connections that finished their handshake.
pub type Connections = ReceiverStream<io::Result<Guarded<TlsStream<TcpStream>>>>;

/// Accepts connections for a gRPC server, until the stream is dropped.
pub fn accept(listener: TcpListener, tls: Arc<ServerConfig>, door: Door) -> Connections {
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
            // Who has to go is told at once, and leaves nothing behind: waiting in the kernel's queue it would keep out
            // those who come after it.
            let guest = match door.enter(from) {
                Ok(guest) => guest,
                Err(full) => {
                    door.tell(from.ip(), full);
                    // Fails only on a socket that is gone already.
                    let _ = tcp.set_zero_linger();
                    continue;
                }
            };
            // Answers are small, and somebody waits for each.
            let _ = tcp.set_nodelay(true);
            let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
            tokio::spawn(async move {
                let until = Instant::now() + PROOF;
                match timeout_at(until, acceptor.accept(tcp)).await {
                    // The server may be gone by now.
                    Ok(Ok(stream)) => drop(accepted.send(Ok(Guarded::new(stream, guest, until))).await),
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

    /// Half-open connections of one address leave room for others, and proven ones are counted as such no more.
    #[test]
    fn an_address_keeps_nobody_else_out() {
        let door = Door::new(10_000);
        let held: Vec<_> = std::iter::from_fn(|| door.enter(from("10.0.0.1")).ok()).collect();
        assert_eq!(held.len(), UNPROVEN / 2);
        let good = door.enter(from("10.0.0.2")).expect("the others have their room");
        good.prove();
        good.prove();
        assert_eq!((door.open.all(), door.unproven.all()), (UNPROVEN / 2 + 1, UNPROVEN / 2));
        held.iter().for_each(Guest::prove);
        assert_eq!(door.unproven.all(), 0);
        drop((held, good));
        assert_eq!(door.open.all(), 0);
    }

    #[test]
    fn all_connections_are_bounded_too() {
        let door = Door::new(8);
        let greedy = || {
            let guest = door.enter(from("10.0.0.1")).ok()?;
            guest.prove();
            Some(guest)
        };
        let held: Vec<_> = std::iter::from_fn(greedy).collect();
        assert_eq!(held.len(), 4);
        assert!(door.enter(from("10.0.0.2")).is_ok());
    }

    /// Virtual time.
    #[tokio::test(start_paused = true)]
    async fn who_proves_nothing_is_cut_off() {
        let door = Door::new(8);
        let (near, _far) = tokio::io::duplex(64);
        let mut silent = Guarded::new(near, door.enter(from("10.0.0.1")).unwrap(), Instant::now() + PROOF);
        let start = Instant::now();
        let ended = silent.read_u8().await.unwrap_err();
        assert_eq!((ended.kind(), start.elapsed()), (io::ErrorKind::TimedOut, PROOF));

        let (near, far) = tokio::io::duplex(64);
        let guest = door.enter(from("10.0.0.1")).unwrap();
        let mut proven = Guarded::new(near, guest.clone(), Instant::now() + PROOF);
        let waits = tokio::spawn(async move { proven.read_u8().await.map_err(|e| e.kind()) });
        tokio::time::sleep(PROOF / 2).await;
        guest.prove();
        tokio::time::sleep(100 * PROOF).await;
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
        let door = Arc::new(Door::new(8));
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let guarded = Guarded::new(near, door.enter(from("10.0.0.1")).unwrap(), Instant::now() + PROOF);
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
        assert_eq!((said.is_empty(), start.elapsed()), (false, PROOF), "it was greeted, and let go of");
        assert_eq!((door.open.all(), door.unproven.all()), (0, 0), "nothing of it is left");
    }
}
