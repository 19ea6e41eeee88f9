//! The parts, wired in order. No decisions here.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Cursor};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use mesh_identity::ca_client::CaClient;
use mesh_identity::channel::{self, ChannelConfig};
use mesh_identity::revocation::{RevocationError, Revocations};
use mesh_identity::store::{Store, StoreOptions};
use mesh_identity::tls::TlsOptions;
use mesh_model::resource::Resource;
use mesh_runtime::access_log::AccessLog;
use mesh_runtime::config::{Env, FileOrInline};
use mesh_runtime::http_server::{self, Listeners};
use mesh_runtime::log::{self, LogConfig, LogControl};
use mesh_runtime::memory;
use mesh_runtime::metrics::{Metrics, TrafficMetrics, XdsMetrics};
use mesh_runtime::readiness::Readiness;
use mesh_runtime::shutdown::Shutdown;
use mesh_runtime::timestamp::Timestamp;
use mesh_runtime::{admin, drain, open_files, usage};
use mesh_xds::{demand, follow};

use crate::config::{self, Config, ControlPlane, Mode};
use crate::connections::Listed;
use crate::dns::Dns;
use crate::local_xds::Local;
use crate::metrics::{
    DrainMetrics, NameMetrics, PodMetrics, QuotaMetrics, ReasonMetrics, RevocationMetrics, UnfinishedMetrics,
    XdsCounters,
};
use crate::names::Names;
use crate::pods::Pods;
use crate::quota::Quota;
use crate::report::Telemetry;
use crate::shared::Shared;
use crate::worker::{self, Command, Handle};
use crate::{dump, local_xds, own, pages, pods, report, warm};

/// Most refused entries of local tables that are logged one by one.
const MAX_LOGGED: usize = 10;

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
    let names_asked = NameMetrics::register(&mut metrics);
    let unfinished = UnfinishedMetrics::register(&mut metrics);
    let files = open_files::raise();
    let quota = Quota::new(&config.limits, files, held.connections, held.handshakes);
    let revocation = RevocationMetrics::register(&mut metrics);
    let pod_metrics = PodMetrics::register(&mut metrics);
    let xds_metrics = XdsMetrics::register(&mut metrics);
    let drain_metrics = DrainMetrics::register(&mut metrics);
    access_log.register(&mut metrics);

    let ca = channel::connect(&control_channel(&config, &config.ca)?).context("CA_ADDRESS")?;
    let revocations = config.crl.as_deref().map(Revocations::of_file).unwrap_or_default();
    follow_revocations(&revocations, &readiness);
    let options = StoreOptions {
        lifetime: config.certificate_lifetime,
        tls: TlsOptions { tls12: config.tls12, post_quantum: config.post_quantum, revocations },
        ..StoreOptions::default()
    };
    let runtime = tokio::runtime::Handle::current();
    let ca = match config.mode {
        Mode::Shared => CaClient::new(ca, None),
        Mode::Dedicated(_) => CaClient::new(ca, None).for_itself(),
    };
    let certificates = Store::new(&runtime, Arc::new(ca), options);

    let life = readiness.register("life");
    life.ready();
    let tables_ready = readiness.register("tables");
    tables_ready.not_ready("waiting for the control plane's first complete answer");
    let (mut writer, tables) = follow::tables();
    if let Some(local) = &config.local_xds {
        writer.apply_local(local_tables(local)?);
    }

    let dns = config
        .dns
        .as_ref()
        .map(|dns| Dns::new(dns, tables.clone(), config.sockets.clone(), Path::new("/etc/resolv.conf"), &mut metrics));
    let (demand, demands) = match config.on_demand && config.xds.is_some() {
        true => Some(demand::demand(config.on_demand_unused)).unzip(),
        false => (None, None),
    };
    let shared = Arc::new(Shared {
        dns,
        tables: tables.clone(),
        demand,
        certificates: certificates.clone(),
        names: Names::default(),
        names_asked,
        telemetry: Arc::new(Telemetry {
            traffic,
            reasons,
            revocation,
            access_log,
            policy_info_logging: config.policy_info_logging,
        }),
        quota,
        unfinished,
        drain: draining.clone(),
        pooled: pod_metrics.pooled.clone(),
        config,
    });
    let config = &shared.config;
    let workers = (0..config.workers)
        .map(|number| worker::start(number, shared.clone()))
        .collect::<std::io::Result<Vec<Handle>>>()
        .context("starting the data threads")?;

    let agent = match config.mode {
        Mode::Shared => {
            let ready = readiness.register("node agent");
            ready.not_ready("waiting for the first tables");
            Some((Pods::new(&workers, config.clone(), pod_metrics.clone(), draining.clone()), ready))
        }
        Mode::Dedicated(_) => None,
    };
    let list = agent.as_ref().map(|(pods, _)| pods.list()).unwrap_or_default();
    let dedicated = list.clone();
    let commands: Vec<_> = workers.iter().map(|w| w.commands.clone()).collect();
    let dump_shared = shared.clone();
    let dump = move || config_dump(dump_shared.clone(), list.clone(), commands.clone());
    let routes = admin::routes(log, shutdown.clone(), dump).merge(pages::routes(config.ports.metrics));
    let metrics = Arc::new(metrics);
    let ports = config.ports;
    let until = draining.clone();
    serve(
        "ADMIN_PORT",
        move || Listeners::loopback(ports.admin),
        move |at| admin::serve("ztunnel", at, routes, until),
        &draining,
    )?;
    let until = draining.clone();
    let pages = metrics.routes();
    serve(
        "STATS_PORT",
        move || Listeners::wildcard(ports.metrics),
        move |at| http_server::serve(at, pages, until),
        &draining,
    )?;
    let (until, pages) = (draining.clone(), readiness.routes());
    serve(
        "READINESS_PORT",
        move || Listeners::wildcard(ports.readiness),
        move |at| http_server::serve(at, pages, until),
        &draining,
    )?;

    tokio::spawn(warm::follow(tables.clone(), config.mode.clone(), config.node.clone(), certificates));
    let dns_metrics = shared.dns.as_ref().map(|dns| dns.metrics().clone());
    tokio::spawn(report::gone::follow(shared.telemetry.traffic.clone(), dns_metrics, tables.clone()));

    let synced = tables.synced();
    match &config.xds {
        Some(xds) => {
            let channel = channel::connect(&control_channel(config, xds)?).context("XDS_ADDRESS")?;
            let node = config.node_info().to_node();
            tokio::spawn(mesh_xds::client::run(channel, node, writer, demands, Arc::new(XdsCounters(xds_metrics))));
        }
        // The file has said everything.
        None => writer.synced(),
    }
    let mut serving = Box::pin(pods::once_complete(synced, async {
        let served = match &config.mode {
            Mode::Shared => own::serve_own(config, &workers).context("serving ztunnel's own pod (SERVICE_ACCOUNT)"),
            Mode::Dedicated(pod) => own::serve_dedicated(config, pod, &workers, &pod_metrics, &dedicated)
                .context("serving the workload of PROXY_WORKLOAD_INFO"),
        };
        if let Err(error) = served {
            return error;
        }
        tables_ready.ready();
        let Some((pods, ready)) = agent else { return std::future::pending().await };
        match pods.follow(ready).await {}
    }));
    let reason = tokio::select! {
        reason = shutdown.wait() => reason.context("waiting for signals")?,
        error = &mut serving => return Err(error),
    };
    let deadline = SystemTime::now() + config.drain;
    drain_metrics.began(deadline);
    let until = Timestamp::from(deadline);
    life.not_ready(format!("draining until {until}"));
    tracing::info!(%reason, deadline = ?config.drain, %until, open = shared.drain.open(), "draining");
    let drained = tokio::select! {
        drained = drain.drain(config.drain) => drained,
        // Pods that go while their connections end are still heard of.
        never = async {
            (&mut serving).await;
            std::future::pending().await
        } => never,
    };
    drop(serving);
    match drained.left {
        0 => tracing::info!("drained: every connection finished"),
        left => tracing::warn!(left, "the drain deadline has passed: cutting what is left"),
    }
    for worker in workers {
        worker.join();
    }
    Ok(())
}

/// What `LOCAL_XDS_PATH` or `LOCAL_XDS` says; what means nothing is named in the log.
fn local_tables(local: &FileOrInline) -> Result<Vec<Resource>> {
    let (read, place) = match local {
        FileOrInline::File(path) => {
            let place = format!("LOCAL_XDS_PATH={}", path.display());
            (local_xds::read(File::open(path).with_context(|| place.clone())?), place)
        }
        FileOrInline::Inline(text) => (local_xds::read(Cursor::new(text)), "LOCAL_XDS".to_owned()),
    };
    let Local { resources, refused } = read.with_context(|| place.clone())?;
    for refused in refused.iter().take(MAX_LOGGED) {
        tracing::warn!(place, entry = refused.entry, reason = refused.reason, "entry of the local tables refused");
    }
    tracing::info!(place, resources = resources.len(), refused = refused.len(), "local tables read");
    Ok(resources)
}

/// Reads the revocation lists as they change. Not ready until they were good once: until then nobody is let in.
fn follow_revocations(revocations: &Revocations, readiness: &Readiness) {
    if !revocations.is_on() {
        return;
    }
    let ready = readiness.register("revocation lists");
    let told = move |outcome: Result<(), RevocationError>| match outcome {
        Ok(()) => {
            tracing::info!("certificate revocation lists are in force");
            ready.ready();
        }
        Err(error) => {
            tracing::error!(%error, "CRL_PATH: what was last good stays in force; before there was any, nobody is let in");
            // Those that were good once go on protecting.
            ready.still_pending(error.to_string());
        }
    };
    tokio::spawn(revocations.clone().follow(told));
}

/// A port is looked for this often while somebody else has it.
const PORT_RETRY: Duration = Duration::from_millis(10);

/// Serves pages of our own on a port. One that is in use is taken over when it is free: where predecessor and
/// successor share a network namespace, the one that drains still answers there. It is not waited for once we drain
/// ourselves.
fn serve<F, E>(
    setting: &'static str,
    bind: impl Fn() -> io::Result<Listeners> + Send + 'static,
    serve: impl FnOnce(Listeners) -> F + Send + 'static,
    draining: &drain::Watch,
) -> Result<()>
where
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send,
{
    let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let mut bound = match bind() {
        Err(error) if !in_use(&error) => return Err(error).context(setting),
        bound => bound,
    };
    if let Err(error) = &bound {
        tracing::warn!(setting, %error, "port in use: by a ztunnel that drains? It is served here once it is free");
    }
    let draining = draining.clone();
    tokio::spawn(async move {
        while bound.as_ref().is_err_and(in_use) {
            tokio::select! {
                () = tokio::time::sleep(PORT_RETRY) => bound = bind(),
                () = draining.closing() => return,
            }
        }
        let ended = match bound {
            Ok(listeners) => serve(listeners).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = ended {
            tracing::error!(setting, error, "not served");
        }
    });
    Ok(())
}

fn control_channel(config: &Config, to: &ControlPlane) -> Result<ChannelConfig> {
    Ok(ChannelConfig {
        address: to.address.parse().with_context(|| format!("address {:?}", to.address))?,
        roots: to.roots.clone(),
        server_name: to.hostname.clone(),
        token: config.token.clone(),
        cluster_id: config.cluster.clone(),
        headers: to.headers.clone(),
    })
}

async fn config_dump(
    shared: Arc<Shared>,
    list: pods::List,
    workers: Vec<tokio::sync::mpsc::UnboundedSender<Command>>,
) -> serde_json::Value {
    let mut open = Listed::default();
    for worker in workers {
        let (answer, receiver) = tokio::sync::oneshot::channel();
        // A worker that has ended has nothing open.
        if worker.send(Command::List(answer)).is_ok() {
            let Listed { come, going } = receiver.await.unwrap_or_default();
            open.come.extend(come);
            open.going.extend(going);
        }
    }
    let pods = pods::lock(&list).clone();
    let mut dump = shared.tables.read(dump::tables);
    dump.extend(dump::own(&shared.config, &pods, &open, &shared.certificates.list()));
    serde_json::Value::Object(dump.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
