//! One connection to an endpoint on which HTTP is spoken.

use std::cell::Cell;
use std::error::Error as _;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::endpoint::Unreachable;
use super::stream::Stream;
use crate::body::Body;
use crate::limits;

/// Requests at once on one HTTP/2 connection; where its peer allows fewer, the others wait.
const MOST_STREAMS: usize = 100;
/// An HTTP/2 endpoint that answers no PING is gone.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What is spoken to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum HttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS.
    Http2,
}

/// The stream of a connection that was upgraded, and what was read of it already.
pub(crate) type UpgradedStream = (Stream, Bytes);

/// A connection to an endpoint. One of HTTP/1 carries one request at a time.
pub(crate) enum Connection {
    /// HTTP/1, and where its stream comes when it is upgraded.
    Http1(http1::SendRequest<Body>, oneshot::Receiver<UpgradedStream>),
    /// HTTP/2, and how many requests it carries.
    Http2(http2::SendRequest<Body>, Rc<Cell<usize>>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// Nothing was sent: another connection may have it.
    #[error("nothing was sent: {0}")]
    Unsent(hyper::Error),
    /// The endpoint ends its connection in order, and has not taken it (RFC 9113, 8.7).
    #[error("not taken, its endpoint leaves: {0}")]
    Leaves(hyper::Error),
    /// The endpoint has refused its stream, and so has not taken it (RFC 9113, 8.7): as it does when it has too many.
    #[error("not taken, its endpoint refused it: {0}")]
    RefusedStream(hyper::Error),
    /// Something was sent, and what came of it is not known.
    #[error("{0}")]
    Sent(hyper::Error),
}

impl SendError {
    fn of(mut error: TrySendError<Request<Body>>) -> Self {
        let unsent = error.take_message().is_some();
        let error = error.into_error();
        if unsent {
            return Self::Unsent(error);
        }
        // What the endpoint says, and not what we or a caller do.
        let h2 = error.source().and_then(|source| source.downcast_ref::<h2::Error>()).filter(|h2| h2.is_remote());
        match h2.map(|h2| (h2.is_go_away(), h2.is_reset(), h2.reason())) {
            Some((true, _, Some(Reason::NO_ERROR))) => Self::Leaves(error),
            Some((_, true, Some(Reason::REFUSED_STREAM))) => Self::RefusedStream(error),
            _ => Self::Sent(error),
        }
    }
}

/// Spawns on the data thread.
#[derive(Clone, Copy)]
pub(crate) struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}

impl Connection {
    /// Speaks HTTP on a stream. Its driver is a task of the thread.
    ///
    /// # Errors
    /// When the endpoint does not speak it.
    pub(crate) async fn begin(stream: Stream, version: HttpVersion) -> Result<Self, Unreachable> {
        let failed = |error| Unreachable::Handshake(Arc::new(error));
        let io = TokioIo::new(stream);
        match version {
            HttpVersion::Http1 => {
                let mut builder = http1::Builder::new();
                builder
                    .preserve_header_case(true)
                    .max_headers(limits::HEADERS)
                    .max_header_size(limits::HEADER_BYTES)
                    .max_buf_size(limits::BUFFER);
                let (sender, mut connection) = builder.handshake(io).await.map_err(failed)?;
                let (hand, handed) = oneshot::channel();
                spawn_local(async move {
                    let ended = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
                    if let Err(error) = &ended {
                        tracing::debug!(%error, "connection to an endpoint broke");
                        return;
                    }
                    let parts = connection.into_parts();
                    // Nobody waits for it unless it was upgraded.
                    if let Err((mut stream, _)) = hand.send((parts.io.into_inner(), parts.read_buf)) {
                        let _ = stream.shutdown().await;
                    }
                });
                Ok(Self::Http1(sender, handed))
            }
            HttpVersion::Http2 => {
                let mut builder = http2::Builder::new(LocalExecutor);
                builder
                    .timer(TokioTimer::new())
                    .keep_alive_interval(PING_EVERY)
                    .keep_alive_timeout(PING_TIMEOUT)
                    .max_header_list_size(limits::HEADER_BYTES as u32)
                    .initial_stream_window_size(limits::STREAM_WINDOW)
                    .initial_connection_window_size(limits::CONNECTION_WINDOW);
                let (sender, connection) = builder.handshake(io).await.map_err(failed)?;
                spawn_local(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "HTTP/2 connection to an endpoint broke");
                    }
                });
                Ok(Self::Http2(sender, Rc::default()))
            }
        }
    }

    /// It can take a request now.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::Http1(sender, _) => sender.is_ready(),
            Self::Http2(sender, carried) => !sender.is_closed() && carried.get() < MOST_STREAMS,
        }
    }

    /// Nobody uses it.
    pub(crate) fn is_unused(&self) -> bool {
        match self {
            Self::Http1(sender, _) => sender.is_ready(),
            Self::Http2(_, carried) => carried.get() == 0,
        }
    }

    /// Waits until one of HTTP/1 can take a request; whether it ever can.
    pub(super) async fn ready(&mut self) -> bool {
        match self {
            Self::Http1(sender, _) => sender.ready().await.is_ok(),
            Self::Http2(sender, _) => sender.ready().await.is_ok(),
        }
    }

    /// It has ended.
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender, _) => sender.is_closed(),
            Self::Http2(sender, _) => sender.is_closed(),
        }
    }

    /// Sends a request, and waits for the head of the answer.
    ///
    /// # Errors
    /// Whether anything of it was sent.
    pub(crate) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        let sent = match self {
            Self::Http1(sender, _) => sender.try_send_request(request).await,
            Self::Http2(sender, _) => sender.try_send_request(request).await,
        };
        sent.map_err(SendError::of)
    }
}
