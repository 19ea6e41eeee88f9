//! The small HTTP/1 server under admin, metrics and readiness: a table of routes, and bounds on everything a client can send or hold.
//!
//! It serves until the drain is *forced*, not until it starts: while connections finish, operators still want to look.

mod body;
pub(crate) mod gzip;
mod listeners;
mod router;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use body::{Body, Writer};
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
    let mut accepting = JoinSet::new();
    for listener in listeners.into_inner() {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        accepting.spawn(accept(listener, router.clone(), places.clone()));
    }
    // Dropping the set ends the accept loops, and they end their connections.
    drain.forced().await;
    Ok(())
}

async fn accept(listener: TcpListener, router: Arc<Router>, places: Arc<Semaphore>) {
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
        let router = router.clone();
        connections.spawn(async move {
            let _place = place;
            converse(stream, router).await;
        });
    }
}

async fn converse(stream: TcpStream, router: Arc<Router>) {
    let service = service_fn(|request| {
        let router = router.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&router, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS)
        .max_header_size(HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        tracing::debug!(%error, "connection ended early");
    }
}

async fn answer(router: &Router, request: http::Request<Incoming>) -> Response {
    let (head, body) = request.into_parts();
    match bounded(BODY_TIMEOUT, Limited::new(body, BODY_BYTES).collect()).await {
        Some(Ok(body)) => router.answer(Request::from_parts(head, body.to_bytes())).await,
        Some(Err(error)) if error.is::<LengthLimitError>() => {
            response(StatusCode::PAYLOAD_TOO_LARGE, "text/plain", Bytes::from_static(b"the body is too large\n"))
        }
        Some(Err(_)) => response(StatusCode::BAD_REQUEST, "text/plain", "the body could not be read\n"),
        None => response(StatusCode::REQUEST_TIMEOUT, "text/plain", "the body took too long\n"),
    }
}

async fn bounded<F: Future>(limit: Duration, work: F) -> Option<F::Output> {
    tokio::time::timeout(limit, pin!(work)).await.ok()
}
