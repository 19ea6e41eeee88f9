//! The parts, wired in order. No decisions here.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_control::ca_client::CaClient;
use mesh_identity::store::{Authority, Store, StoreOptions};
use mesh_identity::tls::TlsOptions;
use mesh_model::address::NamespacedName;
use mesh_model::resource::{Kind, Resource};
use mesh_model::tables::Tables;
use mesh_proxy::connections::OpenConnections;
use mesh_proxy::context::ProxyContext;
use mesh_proxy::hostnames::Hostnames;
use mesh_proxy::metrics::{DrainMetrics, HboneMetrics, QuotaMetrics, ReasonMetrics, RevocationMetrics};
use mesh_proxy::quota::Quota;
use mesh_proxy::report::{self, Telemetry};
use mesh_proxy::{control, drain as draining, dump, warm};
use mesh_runtime::access_log::AccessLog;
use mesh_runtime::config::Env;
use mesh_runtime::http_server::{self, Listeners};
use mesh_runtime::log::{self, LogConfig, LogControl};
use mesh_runtime::metrics::{Metrics, RequestMetrics, TrafficMetrics, XdsMetrics};
use mesh_runtime::readiness::Readiness;
use mesh_runtime::shutdown::Shutdown;
use mesh_runtime::{admin, drain, memory, open_files, own_port, usage};
use mesh_xds::follow;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use crate::config::{self, Config};
use crate::context::WaypointContext;
use crate::leaving;
use crate::rate_limit::{RateLimitMetrics, RateLimits};
use crate::spans::{SpanMetrics, Spans, exporter};
use crate::upstream::{Clock, ServicePorts, UpstreamMetrics};
use crate::worker::{self, Command, Handle};

/// Runs a waypoint with the process's environment. Arguments are upstream's: nothing, or `proxy waypoint`; `version`
/// prints the version.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    const USAGE: &str = "\
Usage: waypoint [proxy waypoint | version]
The L7 proxy of a Gateway. The control plane starts it; by hand:
  GATEWAY_NAME=way POD_NAME=way-1 POD_NAMESPACE=shop SERVICE_ACCOUNT=way waypoint";
    let arguments: Vec<String> = arguments.collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["proxy", "waypoint"] => {}
        ["version" | "--version"] => {
            return say(&format!("ambit waypoint {}", env!("CARGO_PKG_VERSION")), ExitCode::SUCCESS);
        }
        ["help" | "--help" | "-h"] | ["proxy", "waypoint", "--help" | "-h"] => {
            let settings = Env::default();
            // Only which settings are read matters here.
            let _ = config::check(&settings);
            return tell(&usage::usage(USAGE, &settings));
        }
        _ => return say(USAGE, ExitCode::from(2)),
    }
    match start(&Env::process(), Origin::ControlPlane) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            say(&format!("waypoint: {error:#}"), ExitCode::FAILURE)
        }
    }
}

#[allow(clippy::print_stdout, reason = "the answer to a question on the command line")]
fn tell(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
}

#[allow(clippy::print_stderr, reason = "for the person who started it; the log may not be up")]
fn say(text: &str, code: ExitCode) -> ExitCode {
    eprintln!("{text}");
    code
}

/// Where a waypoint has its tables and its certificates from.
pub enum Origin {
    /// The control plane, as `XDS_ADDRESS` and `CA_ADDRESS` say.
    ControlPlane,
    /// Whoever starts it, once and for all: a bench.
    Given {
        /// Workloads, services, policies and routes.
        resources: Vec<Resource>,
        /// Who signs its certificate.
        authority: Arc<dyn Authority>,
    },
}

/// Runs a waypoint with these settings until somebody asks for its end.
///
/// # Errors
/// When it cannot serve.
pub fn start(env: &Env, origin: Origin) -> Result<()> {
    let config = Config::from_env(env)?;
    let log_config = LogConfig::from_env(env)?;
    let log = log::init(&log_config)?;
    let access_log = AccessLog::stdout(log_config.format).context("starting the access log")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?config, "starting");
    memory::give_back().context("starting a thread")?;
    // Control work: the control plane, certificates, admin. Requests have threads of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("starting the control threads")?;
    let result = runtime.block_on(run(config, origin, log, access_log.clone()));
    access_log.flush(Duration::from_secs(1));
    runtime.shutdown_background();
    result
}

async fn run(config: Config, origin: Origin, log: LogControl, access_log: AccessLog) -> Result<()> {
    let (shutdown, readiness) = (Shutdown::new(), Readiness::new());
    let (trigger, watch) = drain::new();

    let mut metrics = Metrics::new("waypoint", env!("CARGO_PKG_VERSION"));
    metrics.watch_runtime(tokio::runtime::Handle::current());
    let traffic = TrafficMetrics::register(&mut metrics);
    let requests = RequestMetrics::register(&mut metrics);
    let ports = ServicePorts::new(UpstreamMetrics::register(&mut metrics), Clock::started());
    let rate_limits = RateLimits::new(RateLimitMetrics::register(&mut metrics));
    let (spans, queue) = Spans::new(SpanMetrics::register(&mut metrics));
    let reasons = ReasonMetrics::register(&mut metrics);
    let held = QuotaMetrics::register(&mut metrics);
    let hbone_metrics = HboneMetrics::register(&mut metrics);
    let quota = Quota::new(&config.limits, open_files::raise(), held.connections, held.handshakes);
    tokio::spawn(quota.close_late());
    let revocation = RevocationMetrics::register(&mut metrics);
    let xds_metrics = XdsMetrics::register(&mut metrics);
    let drain_metrics = DrainMetrics::register(&mut metrics);
    access_log.register(&mut metrics);
    let policy_info_logging = config.policy_info_logging;
    let telemetry = Arc::new(Telemetry { traffic, reasons, revocation, access_log, policy_info_logging });

    let revocations = control::revocations(config.crl.as_deref(), &readiness);
    let options = StoreOptions {
        lifetime: config.certificate_lifetime,
        tls: TlsOptions { revocations, ..TlsOptions::default() },
        ..StoreOptions::default()
    };
    let life = readiness.register("life");
    life.ready();
    let tables_ready = readiness.register("tables");
    tables_ready.not_ready("waiting for the control plane's first complete answer");
    let (mut writer, tables) = follow::tables_of(&config.cluster);
    let (certificates, xds) = match origin {
        Origin::ControlPlane => {
            let ca = CaClient::new(config.ca.channel("CA_ADDRESS", &config.token, &config.cluster)?, None);
            let xds = config.xds.channel("XDS_ADDRESS", &config.token, &config.cluster)?;
            (control::certificates(ca.for_itself(), options), Some((xds, config.node_info())))
        }
        Origin::Given { resources, authority } => {
            writer.apply_local(resources);
            (Store::new(&tokio::runtime::Handle::current(), authority, options), None)
        }
    };

    let proxy = ProxyContext {
        tables: tables.clone(),
        demand: None,
        certificates: certificates.clone(),
        telemetry: telemetry.clone(),
        quota,
        hbone: config.hbone.clone(),
        hbone_metrics,
        drain: watch.clone(),
        cluster: config.cluster.clone(),
        network: config.network.clone(),
    };
    let context = Arc::new(WaypointContext {
        proxy,
        requests: requests.clone(),
        ports,
        rate_limits,
        hostnames: Hostnames::default(),
        endpoints_on_loopback: false,
        spans,
        gateway: NamespacedName::new(config.pod.namespace.as_str(), config.gateway.as_str()),
        config,
    });
    let exporter = exporter::start(context.clone(), queue);
    let config = &context.config;
    let (pod, own) = (Arc::new(config.pod.clone()), config.pod.clone());
    tokio::spawn(warm::follow(tables.clone(), certificates, move |tables: &Tables| warm::identity_of(tables, &own)));
    tokio::spawn(report::gone::follow(telemetry.traffic.clone(), tables.clone()));
    tokio::spawn(report::gone::follow_requests(requests, tables));
    control::follow_tables(xds, &Kind::ALL, writer, None, xds_metrics);
    let workers = (0..config.workers)
        .map(|number| worker::start(number, context.clone(), pod.clone()))
        .collect::<std::io::Result<Vec<Handle>>>()
        .context("starting the data threads")?;
    serve_own_ports(&context, &workers, (log, shutdown.clone()), metrics, &readiness)?;
    let serving = async {
        // Whoever is served must be judged by complete tables.
        if context.proxy.tables.synced().wait_for(|synced| *synced).await.is_err() {
            return std::future::pending().await;
        }
        for worker in &workers {
            let listener = worker::listen(config.ports.hbone, config.ipv6).context("HBONE_PORT")?;
            // A worker ends only with the process.
            let _ = worker.commands.send(Command::Serve(listener));
        }
        tables_ready.ready();
        tracing::info!(gateway = config.gateway, port = config.ports.hbone, "serving");
        std::future::pending::<Result<()>>().await
    };
    let reason = tokio::select! {
        reason = shutdown.wait() => reason.context("waiting for signals")?,
        failed = serving => return failed,
    };
    life.not_ready("about to drain");
    leaving::heard(&context.proxy.tables, &config.pod, config.drain).await;
    draining::drain(trigger, &watch, &reason, config.drain, &drain_metrics, &life).await;
    for worker in workers {
        worker.join();
    }
    // After the last request, whose spans are among them.
    exporter.end().await;
    Ok(())
}

/// Serves admin, metrics and readiness until it drains.
fn serve_own_ports(
    context: &Arc<WaypointContext>,
    workers: &[Handle],
    (log, shutdown): (LogControl, Shutdown),
    metrics: Metrics,
    readiness: &Readiness,
) -> Result<()> {
    let (ports, draining) = (context.config.ports, &context.proxy.drain);
    let commands: Vec<_> = workers.iter().map(|worker| worker.commands.clone()).collect();
    let of = context.clone();
    let routes = admin::routes(log, shutdown, move || config_dump(of.clone(), commands.clone()));
    let until = draining.clone();
    let serve = move |at| admin::serve("waypoint", at, routes, until);
    own_port::serve("ADMIN_PORT", move || Listeners::loopback(ports.admin), serve, draining)?;
    let (until, pages) = (draining.clone(), Arc::new(metrics).routes());
    let serve = move |at| http_server::serve(at, pages, until);
    own_port::serve("STATS_PORT", move || Listeners::wildcard(ports.metrics), serve, draining)?;
    let (until, pages) = (draining.clone(), readiness.routes());
    let serve = move |at| http_server::serve(at, pages, until);
    own_port::serve("READINESS_PORT", move || Listeners::wildcard(ports.readiness), serve, draining)?;
    Ok(())
}

async fn config_dump(context: Arc<WaypointContext>, workers: Vec<mpsc::UnboundedSender<Command>>) -> serde_json::Value {
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
    let config = &context.config;
    let pods = [("waypoint".into(), Arc::new(config.pod.clone()))].into();
    let mut dump = context.proxy.tables.read(dump::tables);
    dump.extend(dump::held(&pods, &open, &context.proxy.certificates.list()));
    let shown = json!({
        "gateway": format!("{}/{}", config.pod.namespace, config.gateway),
        "clusterId": config.cluster,
        "network": config.network,
        "xdsAddress": config.xds.address,
        "caAddress": config.ca.address,
        "workers": config.workers,
        "drainSeconds": config.drain.as_secs(),
    });
    let version = json!({ "version": env!("CARGO_PKG_VERSION"), "buildStatus": "Ambit" });
    dump.extend([
        ("upstreams", context.ports.dump()),
        ("rateLimits", context.rate_limits.dump()),
        ("config", shown),
        ("version", version),
    ]);
    serde_json::Value::Object(dump.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
