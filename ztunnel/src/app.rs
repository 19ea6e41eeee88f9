//! The parts, wired in order. No decisions here.
//!
//! | file | holds |
//! |---|---|
//! | this one | the command line, and the wiring |
//! | `control` | what comes from the control plane |
//! | `admin` | the ports on which ztunnel speaks of itself |
//! | `life` | waiting for the tables, serving, draining |

mod admin;
mod control;
mod life;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_model::tables::Tables;
use mesh_proxy::context::ProxyContext;
use mesh_proxy::hostnames::Hostnames;
use mesh_proxy::metrics::{DrainMetrics, HboneMetrics, QuotaMetrics, ReasonMetrics, RevocationMetrics};
use mesh_proxy::quota::Quota;
use mesh_proxy::report::{self, Telemetry};
use mesh_proxy::warm;
use mesh_runtime::access_log::AccessLog;
use mesh_runtime::config::Env;
use mesh_runtime::log::{self, LogConfig, LogControl};
use mesh_runtime::memory;
use mesh_runtime::metrics::{Metrics, TrafficMetrics, XdsMetrics};
use mesh_runtime::readiness::Readiness;
use mesh_runtime::shutdown::Shutdown;
use mesh_runtime::{drain, open_files, usage};
use mesh_xds::{demand, follow};

use crate::config::{self, Config, Mode};
use crate::context::WorkerContext;
use crate::dns::{self, Dns};
use crate::metrics::{HostnameMetrics, PodMetrics};
use crate::pods::Pods;
use crate::worker::{self, Handle};
use admin::Admin;
use life::Process;

/// Runs ztunnel with the process's environment. Arguments are upstream's: nothing, or `proxy ztunnel`; `version`
/// prints the version.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    const USAGE: &str = "\
Usage: ztunnel [proxy ztunnel | version]
The node's L4 proxy. `proxy ztunnel` is what Istio's manifests say, and the
same as nothing. Example, with tables from a file instead of a control plane:
  XDS_ADDRESS= LOCAL_XDS_PATH=mesh.yaml ztunnel";
    let arguments: Vec<String> = arguments.collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["proxy"] | ["proxy", "ztunnel"] => {}
        ["version" | "--version"] => {
            return say(&format!("ambit ztunnel {}", env!("CARGO_PKG_VERSION")), ExitCode::SUCCESS);
        }
        ["help" | "--help" | "-h"] | ["proxy", "--help" | "-h"] | ["proxy", "ztunnel", "--help" | "-h"] => {
            let settings = Env::default();
            // Only which settings are read matters here.
            let _ = config::check(&settings);
            return tell(&usage::usage(USAGE, &settings));
        }
        _ => return say(USAGE, ExitCode::from(2)),
    }
    let env = Env::process();
    match start(env) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            say(&format!("ztunnel: {error:#}"), ExitCode::FAILURE)
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

fn start(env: Env) -> Result<()> {
    let env = &config::with_mesh_config(env, Path::new(config::MESH_CONFIG))?;
    let config = Config::from_env(env)?;
    let log_config = LogConfig::from_env(env)?;
    let log = log::init(&log_config)?;
    let access_log = AccessLog::stdout(log_config.format).context("starting the access log")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?config, "starting");
    for setting in config::ignored(env) {
        tracing::warn!(setting, "this setting is not supported and changes nothing");
    }
    memory::give_back().context("starting a thread")?;
    // Control work: the control plane, certificates, the node agent, admin. The data path has threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()
        .context("starting the control threads")?;
    let result = runtime.block_on(run(config, log, access_log.clone()));
    access_log.flush(Duration::from_secs(1));
    // Whatever it still waits for, such as a file that cannot be read, nobody needs any more.
    runtime.shutdown_background();
    result
}

async fn run(config: Config, log: LogControl, access_log: AccessLog) -> Result<()> {
    let shutdown = Shutdown::new();
    let readiness = Readiness::new();
    let (drain, draining) = drain::new();

    let mut metrics = Metrics::new("ztunnel", env!("CARGO_PKG_VERSION"));
    metrics.watch_runtime(tokio::runtime::Handle::current());
    let traffic = TrafficMetrics::register(&mut metrics);
    let reasons = ReasonMetrics::register(&mut metrics);
    let held = QuotaMetrics::register(&mut metrics);
    let hostname_metrics = HostnameMetrics::register(&mut metrics);
    let hbone_metrics = HboneMetrics::register(&mut metrics);
    let quota = Quota::new(&config.limits, open_files::raise(), held.connections, held.handshakes);
    tokio::spawn(quota.close_late());
    let revocation = RevocationMetrics::register(&mut metrics);
    let pod_metrics = PodMetrics::register(&mut metrics);
    let xds_metrics = XdsMetrics::register(&mut metrics);
    let drain_metrics = DrainMetrics::register(&mut metrics);
    access_log.register(&mut metrics);
    let policy_info_logging = config.policy_info_logging;
    let telemetry = Arc::new(Telemetry { traffic, reasons, revocation, access_log, policy_info_logging });

    let certificates = control::certificates(&config, &readiness)?;
    let life = readiness.register("life");
    life.ready();
    let tables_ready = readiness.register("tables");
    tables_ready.not_ready("waiting for the control plane's first complete answer");
    let (mut writer, tables) = follow::tables_of(&config.cluster);
    if let Some(local) = &config.local_xds {
        writer.apply_local(control::local_tables(local)?);
    }
    let (demand, demands) = match config.on_demand && config.xds.is_some() {
        true => Some(demand::demand(config.on_demand_unused)).unzip(),
        false => (None, None),
    };

    let dns = config
        .dns
        .as_ref()
        .map(|dns| Dns::new(dns, tables.clone(), config.sockets.clone(), Path::new("/etc/resolv.conf"), &mut metrics));
    let proxy = ProxyContext {
        tables: tables.clone(),
        demand,
        certificates: certificates.clone(),
        telemetry,
        quota,
        hbone: config.hbone.clone(),
        hbone_metrics,
        drain: draining.clone(),
        cluster: config.cluster.clone(),
        network: config.network.clone(),
    };
    let context = Arc::new(WorkerContext { proxy, config, hostnames: Hostnames::default(), hostname_metrics, dns });
    let config = &context.config;
    let workers = (0..config.workers)
        .map(|number| worker::start(number, context.clone()))
        .collect::<std::io::Result<Vec<Handle>>>()
        .context("starting the data threads")?;
    let agent = match config.mode {
        Mode::Shared => {
            let ready = readiness.register("node agent");
            ready.not_ready("waiting for the first tables");
            Some((Pods::new(&workers, config.clone(), pod_metrics.clone(), draining), ready))
        }
        Mode::Dedicated(_) => None,
    };
    let list = agent.as_ref().map(|(pods, _)| pods.list()).unwrap_or_default();

    let admin = Admin { log, shutdown: shutdown.clone(), list: list.clone() };
    admin::serve(&context, &workers, admin, metrics, &readiness)?;
    let (mode, node) = (config.mode.clone(), config.node.clone());
    let identities = move |tables: &Tables| match &mode {
        Mode::Shared => warm::identities_on(tables, &node),
        Mode::Dedicated(pod) => warm::identity_of(tables, pod),
    };
    tokio::spawn(warm::follow(tables.clone(), certificates, identities));
    if let Some(dns) = &context.dns {
        tokio::spawn(dns::gone::follow(dns.metrics().clone(), tables.clone()));
    }
    tokio::spawn(report::gone::follow(context.proxy.telemetry.traffic.clone(), tables));
    control::follow_tables(config, writer, demands, xds_metrics)?;
    let process = Process { context, workers, agent, list, pod_metrics, drain_metrics, life, tables: tables_ready };
    process.run(shutdown, drain).await
}
