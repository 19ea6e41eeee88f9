//! What is served on which port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mesh_runtime::http_server::{self, Listeners};
use mesh_runtime::log::LogControl;
use mesh_runtime::metrics::Metrics;
use mesh_runtime::readiness::Readiness;
use mesh_runtime::shutdown::Shutdown;
use mesh_runtime::{admin, drain};
use serde_json::json;
use tonic::transport::Server;

use crate::config::Config;
use crate::serve::connections::Connections;
use crate::services::Services;

/// Calls on one connection: a ztunnel has its tables and at most 8 certificates on their way.
const STREAMS: u32 = 64;
/// Bytes that a call, and all calls of a connection, may send ahead of being read.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Bytes of a call's headers, unpacked: the longest token, and what comes with it.
const HEADERS: u32 = 24 * 1024;

pub(super) async fn grpc(services: Services, connections: Connections, drain: drain::Watch) {
    // The drain waits for this to end.
    let _token = drain.token();
    let server = Server::builder()
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADERS)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)));
    let stopping = drain.started();
    if let Err(error) = server.serve_with_incoming_shutdown(services, connections, stopping).await {
        tracing::error!(%error, "serving proxies ended");
    }
}

pub(super) fn health(config: &Config, readiness: &Readiness, drain: drain::Watch) -> anyhow::Result<Vec<SocketAddr>> {
    let listeners = Listeners::wildcard(config.health_port).context("HEALTH_PORT")?;
    let addresses = listeners.addrs();
    tokio::spawn(http_server::serve(listeners, readiness.routes(), drain));
    Ok(addresses)
}

/// `/metrics`, for whoever scrapes.
pub(super) fn metrics(config: &Config, metrics: Metrics, drain: drain::Watch) -> anyhow::Result<Vec<SocketAddr>> {
    let listeners = Listeners::wildcard(config.monitoring_port).context("MONITORING_PORT")?;
    let addresses = listeners.addrs();
    tokio::spawn(http_server::serve(listeners, Arc::new(metrics).routes(), drain));
    Ok(addresses)
}

pub(super) fn debug(
    config: &Config,
    mut routes: http_server::Router,
    log: Option<LogControl>,
    shutdown: Shutdown,
    drain: drain::Watch,
) -> anyhow::Result<Vec<SocketAddr>> {
    let listeners = Listeners::loopback(config.debug_port).context("DEBUG_PORT")?;
    let addresses = listeners.addrs();
    if let Some(log) = log {
        let dump = json!({ "config": config.to_string() });
        routes = routes.merge(admin::routes(log, shutdown, move || std::future::ready(dump.clone())));
    }
    tokio::spawn(admin::serve("istiod-lite", listeners, routes, drain));
    Ok(addresses)
}
