//! The ports on which ztunnel speaks of itself: admin, metrics, readiness.

use std::sync::Arc;

use anyhow::Result;
use mesh_proxy::connections::OpenConnections;
use mesh_proxy::dump;
use mesh_runtime::http_server::{self, Listeners};
use mesh_runtime::log::LogControl;
use mesh_runtime::metrics::Metrics;
use mesh_runtime::readiness::Readiness;
use mesh_runtime::shutdown::Shutdown;
use mesh_runtime::{admin, own_port};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::config::{Config, Mode};
use crate::context::WorkerContext;
use crate::worker::{Command, Handle};
use crate::{pages, pods};

/// What the admin port shows and changes.
pub(super) struct Admin {
    pub(super) log: LogControl,
    pub(super) shutdown: Shutdown,
    /// The pods that are served.
    pub(super) list: pods::List,
}

/// Serves all three ports until ztunnel drains.
pub(super) fn serve(
    context: &Arc<WorkerContext>,
    workers: &[Handle],
    Admin { log, shutdown, list }: Admin,
    metrics: Metrics,
    readiness: &Readiness,
) -> Result<()> {
    let (ports, draining) = (context.config.ports, &context.proxy.drain);
    let commands: Vec<_> = workers.iter().map(|w| w.commands.clone()).collect();
    let dump_context = context.clone();
    let dump = move || config_dump(dump_context.clone(), list.clone(), commands.clone());
    let routes = admin::routes(log, shutdown, dump).merge(pages::routes(ports.metrics));
    let until = draining.clone();
    own_port::serve(
        "ADMIN_PORT",
        move || Listeners::loopback(ports.admin),
        move |at| admin::serve("ztunnel", at, routes, until),
        draining,
    )?;
    let (until, pages) = (draining.clone(), Arc::new(metrics).routes());
    own_port::serve(
        "STATS_PORT",
        move || Listeners::wildcard(ports.metrics),
        move |at| http_server::serve(at, pages, until),
        draining,
    )?;
    let (until, pages) = (draining.clone(), readiness.routes());
    own_port::serve(
        "READINESS_PORT",
        move || Listeners::wildcard(ports.readiness),
        move |at| http_server::serve(at, pages, until),
        draining,
    )?;
    Ok(())
}

async fn config_dump(
    context: Arc<WorkerContext>,
    list: pods::List,
    workers: Vec<mpsc::UnboundedSender<Command>>,
) -> serde_json::Value {
    let mut open = OpenConnections::default();
    for worker in workers {
        let (answer, receiver) = oneshot::channel();
        // A worker that has ended has nothing open.
        if worker.send(Command::List(answer)).is_ok() {
            let OpenConnections { inbound, outbound } = receiver.await.unwrap_or_default();
            open.inbound.extend(inbound);
            open.outbound.extend(outbound);
        }
    }
    let pods = pods::lock(&list).clone();
    let mut dump = context.proxy.tables.read(dump::tables);
    dump.extend(dump::held(&pods, &open, &context.proxy.certificates.list()));
    dump.extend([
        ("config", shown(&context.config)),
        ("version", json!({ "version": env!("CARGO_PKG_VERSION"), "buildStatus": "Ambit" })),
    ]);
    serde_json::Value::Object(dump.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// The settings that the dump shows.
fn shown(config: &Config) -> serde_json::Value {
    json!({
        "proxyMode": match config.mode { Mode::Shared => "Shared", Mode::Dedicated(_) => "Dedicated" },
        "proxy": config.proxy,
        "dnsProxy": config.dns.is_some(),
        "socks5": config.socks,
        "node": config.node,
        "clusterId": config.cluster,
        "network": config.network,
        "xdsAddress": config.xds.as_ref().map(|xds| &xds.address),
        "caAddress": config.ca.address,
        "xdsOnDemand": config.on_demand,
        "workers": config.workers,
        "secretTtlSeconds": config.certificate_lifetime.as_secs(),
        "drainSeconds": config.drain.as_secs(),
    })
}
