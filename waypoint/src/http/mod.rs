//! Requests in a tunnel: who speaks HTTP with the caller, and what happens to each request.
//!
//! | file | holds |
//! |---|---|
//! | this one | a connection of a caller, HTTP/1 or HTTP/2 |
//! | `pipeline` | the order of all that happens to a request |
//! | `form` | the canonical form of a request |
//! | `hop`, `mirror` | the service that a backend is; copies |
//! | `forward` | a request to one of its endpoints, and its answer |
//! | `replay` | what may be sent again |
//! | `written` | how a request is written to an endpoint |
//! | `headers` | what may not pass, and what the waypoint says of the caller |
//! | `answer` | what the waypoint answers itself |
//! | `upgrade` | what follows when both ends have agreed on another protocol |
//! | `body` | bodies that pass through |
//! | `report` | metrics and access log of each request |
//! | `counted` | the label sets of requests' metrics |
//! | `limits` | the bounds |

pub(crate) mod answer;
pub(crate) mod body;
mod counted;
mod form;
mod forward;
mod headers;
mod hop;
pub(crate) mod limits;
mod mirror;
mod pipeline;
mod replay;
mod report;
mod upgrade;
mod written;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_hbone::connect::Baggage;
use mesh_hbone::duplex::Duplex;
use mesh_model::address::Authority;
use mesh_model::identity::SpiffeId;
use mesh_model::policy::Facts;
use mesh_model::workload::Workload;
use mesh_proxy::report::{Party, Traffic};
use mesh_runtime::access_log::Direction;
use mesh_runtime::metrics::Reporter;

use self::upgrade::Agreed;
use crate::sniff::Peeked;
use crate::target::Target;
use crate::upstream::LocalExecutor;
use crate::worker::Worker;

/// Who speaks HTTP in a tunnel, and to whom.
pub(crate) struct Caller {
    pub(crate) worker: Rc<Worker>,
    /// The waypoint's own workload.
    pub(crate) waypoint: Arc<Workload>,
    /// The service that the tunnel asks for.
    pub(crate) target: Target,
    /// The address that the tunnel came from: the caller's pod.
    pub(crate) from: SocketAddr,
    /// The identity that the caller has proven.
    pub(crate) identity: Rc<SpiffeId>,
    /// Its workload, if the tables have one of that address and identity.
    pub(crate) workload: Option<Arc<Workload>>,
    /// Both ends of an HTTP/1 connection have agreed on another protocol.
    agreed: Cell<Option<Agreed>>,
}

impl Caller {
    /// A caller that has asked for nothing yet.
    pub(crate) fn new(
        (worker, waypoint, target): (Rc<Worker>, Arc<Workload>, Target),
        from: SocketAddr,
        (identity, workload): (Rc<SpiffeId>, Option<Arc<Workload>>),
    ) -> Self {
        Self { worker, waypoint, target, from, identity, workload, agreed: Cell::new(None) }
    }

    /// What policies judge: who asks, from where, for which port of the service.
    pub(crate) fn facts(&self) -> Facts {
        Facts { source_ip: self.from.ip(), source: Some((*self.identity).clone()), destination: self.target.dialled }
    }

    /// What is reported of a hop to `to`, which is `destination`.
    pub(crate) fn traffic(&self, to: SocketAddr, destination: Option<&Arc<Workload>>) -> Traffic {
        Traffic {
            direction: Direction::Inbound,
            reporter: Reporter::Waypoint,
            from: self.from,
            to,
            hbone_to: Some(Authority::Address(self.target.dialled)),
            source: match &self.workload {
                Some(workload) => Party::workload(workload, Some(&self.identity)),
                None => Party::told(&Baggage::default(), &self.identity),
            },
            destination: Party::known(destination),
            service: Some(self.target.service.clone()),
            secured: true,
            trace: None,
        }
    }
}

/// Speaks HTTP/1 with the caller until one of them ends.
pub(crate) async fn http1(caller: Rc<Caller>, stream: Peeked<Duplex>) {
    let service = service_fn(|request| {
        let caller = caller.clone();
        // hyper moves it, and a connection is as large as the largest thing it ever awaits in place.
        Box::pin(async move { Ok::<_, Infallible>(pipeline::serve(&caller, request).await) })
    });
    let mut builder = http1::Builder::new();
    builder
        .preserve_header_case(true)
        .half_close(true)
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIME)
        .max_headers(limits::HEADERS)
        .max_header_size(limits::HEADER_BYTES);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut draining = pin!(caller.worker.context.proxy.drain.started());
    let mut drains = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
            () = &mut draining, if !drains => {
                drains = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        return tracing::debug!(from = %caller.from, %error, "a caller's HTTP/1 connection broke");
    }
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    match caller.agreed.take() {
        Some(agreed) => agreed.carry(stream, parts.read_buf).await,
        None => upgrade::end(stream).await,
    }
}

/// Speaks HTTP/2 with the caller until one of them ends.
pub(crate) async fn http2(caller: Rc<Caller>, stream: Peeked<Duplex>) {
    let service = service_fn(|request| {
        let caller = caller.clone();
        // hyper moves it, and a connection is as large as the largest thing it ever awaits in place.
        Box::pin(async move { Ok::<_, Infallible>(pipeline::serve(&caller, request).await) })
    });
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(limits::PING_EVERY)
        .keep_alive_timeout(limits::PING_TIME)
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(limits::HEADER_BYTES as u32)
        .max_pending_accept_reset_streams(limits::RESETS)
        .max_local_error_reset_streams(limits::RESETS)
        .initial_stream_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CONNECTION_WINDOW);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut draining = pin!(caller.worker.context.proxy.drain.started());
    let mut drains = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            () = &mut draining, if !drains => {
                drains = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(from = %caller.from, %error, "a caller's HTTP/2 connection broke");
    }
}
