//! The small HTTP/1 server under admin, metrics and readiness: a table of routes, and bounds on everything a client can send or hold.
//!
//! It serves until the drain is *forced*, not until it starts: while connections finish, operators still want to look.

mod body;
mod bounds;
pub(crate) mod gzip;
mod listeners;
mod router;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use body::{Body, Writer};
pub use bounds::Bounds;
pub use listeners::Listeners;
pub(crate) use router::query_pairs;
pub use router::{Request, Response, Router, response};

use crate::drain;

/// Connections served at once, over all listeners of one server; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// How long a client may take to send its headers, and how long it may idle between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The most a connection may last: a client that reads slowly, or not at all, gives its place back.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(600);
const HEADERS: usize = 64;
const HEADER_BYTES: usize = 16 << 10;
const BODY_BYTES: usize = 64 << 10;

/// Serves `router` on `listeners` until `drain` is forced. Runs on the current runtime; spawn it.
///
/// # Errors
/// If a listener cannot be handed to the runtime.
pub async fn serve(listeners: Listeners, router: Router, drain: drain::Watch) -> io::Result<()> {
    let router = Arc::new(router);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let bounds = Bounds::new(BODY_BYTES, CONNECTIONS * BODY_BYTES);
    let mut accepting = JoinSet::new();
    for listener in listeners.into_inner() {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        accepting.spawn(accept(listener, router.clone(), places.clone(), bounds.clone()));
    }
    // Dropping the set ends the accept loops, and they end their connections.
    drain.forced().await;
    Ok(())
}

async fn accept(listener: TcpListener, router: Arc<Router>, places: Arc<Semaphore>, bounds: Bounds) {
    let mut connections = JoinSet::new();
    loop {
        // Before accepting: who cannot be served yet costs no descriptor.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Mostly: out of descriptors. They come back; spinning would not help them.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let (router, bounds) = (router.clone(), bounds.clone());
        connections.spawn(async move {
            let _place = place;
            converse(stream, router, bounds).await;
        });
    }
}

/// Serves `router` on a connection that is open already, for example after a TLS handshake, until it ends.
pub async fn converse<S>(stream: S, router: Arc<Router>, bounds: Bounds)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let keep_alive = bounds.keep_alive;
    let service = service_fn(|request| {
        let (router, bounds) = (router.clone(), bounds.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(&router, &bounds, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS)
        .max_header_size(HEADER_BYTES)
        .keep_alive(keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        tracing::debug!(%error, "connection ended early");
    }
}

async fn answer(router: &Router, bounds: &Bounds, request: http::Request<Incoming>) -> Response {
    let (head, body) = request.into_parts();
    let read = async {
        let room = bounds.room(body.size_hint().exact()).await?;
        Some((room, Limited::new(body, bounds.body).collect().await))
    };
    match bounded(BODY_TIMEOUT, read).await {
        Some(Some((_room, Ok(body)))) => router.answer(Request::from_parts(head, body.to_bytes())).await,
        Some(Some((_, Err(error)))) if !error.is::<LengthLimitError>() => {
            response(StatusCode::BAD_REQUEST, "text/plain", "the body could not be read\n")
        }
        Some(_) => response(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", "the body is too large\n"),
        None => response(StatusCode::REQUEST_TIMEOUT, "text/plain", "the body took too long\n"),
    }
}

async fn bounded<F: Future>(limit: Duration, work: F) -> Option<F::Output> {
    tokio::time::timeout(limit, pin!(work)).await.ok()
}
