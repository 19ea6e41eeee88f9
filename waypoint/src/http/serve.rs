//! A connection of a caller, HTTP/1 or HTTP/2.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_hbone::duplex::Duplex;

use super::caller::Caller;
use super::heads::{Heads, Http1, Http2};
use super::{pipeline, upgrade};
use crate::limits;
use crate::sniff::Peeked;
use crate::upstream::LocalExecutor;

/// Speaks HTTP/1 with the caller until one of them ends.
pub(crate) async fn http1(caller: Rc<Caller>, stream: Peeked<Duplex>) {
    let heads = Http1::of(&caller);
    let service = service_fn(|request| {
        let (caller, served) = (caller.clone(), heads.whole());
        // hyper moves it, and a connection is as large as the largest thing it ever awaits in place.
        Box::pin(async move {
            Ok::<_, Infallible>(pipeline::serve(&caller, request).await.map(|body| body.holding(served)))
        })
    });
    let mut builder = http1::Builder::new();
    builder
        .preserve_header_case(true)
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIME)
        .max_headers(limits::HEADERS)
        .max_header_size(limits::HEADER_BYTES)
        .max_buf_size(limits::BUFFER);
    let mut connection = builder.serve_connection(TokioIo::new(Heads::new(stream, heads.clone())), service);
    let mut draining = pin!(caller.sends_away(false));
    let mut drains = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
            () = &mut draining, if !drains => {
                drains = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(error) = ended {
        return tracing::debug!(from = %caller.from, %error, "a caller's HTTP/1 connection broke");
    }
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().into_inner();
    match caller.agreed.take() {
        Some(carry) => carry(stream, parts.read_buf).await,
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
    let stream = Heads::new(stream, Http2::of(&caller));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut draining = pin!(caller.sends_away(true));
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
