//! Wiring, in the order in which things need each other; no decisions. What differs between a machine and a cluster is in
//! `foundation`.

mod foundation;
mod publishing;
mod serving;
mod until_drained;
mod validating;
mod writing;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mesh_runtime::config::Env;
use mesh_runtime::log::{self, LogConfig, LogControl};
use mesh_runtime::memory;
use mesh_runtime::readiness::Readiness;
use mesh_runtime::shutdown::Shutdown;
use mesh_runtime::{drain, usage};
use mesh_xds::published::Published;
use mesh_xds::server::Discovery;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::foundation::Foundation;
use self::until_drained::until_drained;

use crate::ca::reload;
use crate::ca::serve::CertificateAuthority;
use crate::config::{self, Config};
use crate::debug;
use crate::held;
use crate::jwks::WithKeys;
use crate::metrics::{ControlMetrics, Seen};
use crate::mode::Part;
use crate::publish::Publication;
use crate::serve::connections::{ConnectionLimits, accept};
use crate::serve::gate::{Gate, Subscribers};
use crate::serve::{ServerCertificate, listen};
use crate::services::Services;
use crate::source::Source;
use crate::source::folder::Folder;
use crate::source::folder::follow::Follow;
use crate::source::folder::store::Store;
use crate::source::kubernetes::Kubernetes;
use crate::status::Status;

/// Directory in `STATE_DIR` of the last good version of what the folders say.
const LAST_GOOD: &str = "last-good";
/// How long subscribers have to leave when we stop; they live on what they know.
const DRAIN: Duration = Duration::from_secs(5);

const USAGE: &str = "\
Usage: istiod-lite [DIR... | --kubeconfig FILE]
Serves a mesh from Kubernetes YAML in the given directories, or from a cluster: in a pod, that is the one around it. Examples:
  TOKEN_PUBLIC_KEY=issuer.pem istiod-lite ./yaml
  istiod-lite --kubeconfig ~/.kube/config";

/// The life of the process. `args` are those after the program's name.
pub fn main(args: impl IntoIterator<Item = String>) -> ExitCode {
    let args: Vec<String> = args.into_iter().collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        #[allow(clippy::print_stdout, reason = "the answer to a question on the command line")]
        {
            print!("{}", usage::usage(USAGE, &config::every_setting()));
        }
        return ExitCode::SUCCESS;
    }
    let (folders, kubeconfig) = match arguments(args) {
        Ok(arguments) => arguments,
        Err(mistake) => {
            #[allow(clippy::print_stderr, reason = "the answer to a mistake on the command line")]
            {
                eprintln!("istiod-lite: {mistake}\n{USAGE}");
            }
            return ExitCode::from(2);
        }
    };
    match life(folders, kubeconfig) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            #[allow(clippy::print_stderr, reason = "logs may not be set up yet, and the user needs the reason")]
            {
                eprintln!("istiod-lite: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The folders, and the kubeconfig.
fn arguments(args: Vec<String>) -> Result<(Vec<PathBuf>, Option<String>), String> {
    let (mut folders, mut kubeconfig) = (Vec::new(), None);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.split_once('=') {
            _ if !arg.starts_with('-') => folders.push(PathBuf::from(arg)),
            Some(("--kubeconfig", file)) => kubeconfig = Some(file.to_owned()),
            None if arg == "--kubeconfig" => kubeconfig = Some(args.next().ok_or("--kubeconfig needs a file")?),
            _ => return Err(format!("there is no option {arg}")),
        }
    }
    if kubeconfig.is_some() && !folders.is_empty() {
        return Err("either directories or --kubeconfig: the objects are in one place".to_owned());
    }
    Ok((folders, kubeconfig))
}

fn life(folders: Vec<PathBuf>, kubeconfig: Option<String>) -> anyhow::Result<()> {
    let mut env = Env::process();
    if let Some(file) = kubeconfig {
        // Said now counts more than what was set before.
        let said: Env = [("KUBECONFIG".to_owned(), file), ("FOLDER".to_owned(), String::new())].into_iter().collect();
        env = said.over(env);
    }
    let log = log::init(&LogConfig::from_env(&env)?)?;
    let config = Config::from_env(&env, folders)?;
    tracing::info!("{config}");
    let files = mesh_runtime::open_files::raise();
    if files / 2 < config.connections as u64 {
        tracing::warn!(files, connections = config.connections, "more connections are allowed than files may be open");
    }
    memory::give_back().context("cannot start a thread")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start tokio")?;
    runtime.block_on(run(config, Some(log), Shutdown::new()))
}

/// Runs until `shutdown` is requested, or a signal asks for it. `log`: lets `/logging` change the level.
///
/// # Errors
/// When something it needs at start is not there; the message says which setting to change.
pub async fn run(config: Config, log: Option<LogControl>, shutdown: Shutdown) -> anyhow::Result<()> {
    let running = start(config, log, shutdown.clone()).await?;
    let reason = shutdown.wait().await.context("cannot wait for signals")?;
    tracing::info!("stopping: {reason}");
    running.stop().await;
    Ok(())
}

/// A control plane that is being served.
pub struct Running {
    /// Where proxies connect.
    pub address: SocketAddr,
    /// Where readiness is asked.
    pub health: Vec<SocketAddr>,
    /// Where `/metrics` is.
    pub metrics: Vec<SocketAddr>,
    /// Where the API server asks, on a cluster whose webhook has a configuration.
    pub webhook: Option<SocketAddr>,
    /// Where the debug pages are.
    pub debug: Vec<SocketAddr>,
    /// Tells when it is ready.
    pub readiness: Readiness,
    /// What subscribers are told, now and later.
    pub published: watch::Receiver<Published>,
    drain: drain::Trigger,
    server: JoinHandle<()>,
}

impl Running {
    /// Lets subscribers go, and ends.
    pub async fn stop(self) {
        // Dropping what publishes ends the sessions; the server then has nothing left to wait for.
        let drain::Drained { left } = self.drain.drain(DRAIN).await;
        if left > 0 {
            tracing::warn!(left, "still open at the end of the drain");
        }
        self.server.abort();
    }
}

/// Starts everything and returns; ready once the folders, or the cluster, have been read.
///
/// # Errors
/// When something it needs at start is not there; the message says which setting to change.
pub async fn start(config: Config, log: Option<LogControl>, shutdown: Shutdown) -> anyhow::Result<Running> {
    if let Some(access) = &config.cluster {
        let client = access.client().await.context("KUBECONFIG")?;
        let foundation = foundation::of_cluster(&config, client.clone()).await?;
        let metrics = ControlMetrics::default();
        let source = Kubernetes::new(&client, &config.mesh, foundation.first_start, &metrics.watches);
        return begin("cluster", source, foundation, metrics, config, log, shutdown).await;
    }
    let folders = |config: &Config, first_start: bool| {
        let store = Store::open(config.state.join(LAST_GOOD), first_start).context("STATE_DIR")?;
        let folder = Folder::new(config.folders.clone(), config.overlay.clone());
        let folder = folder.with_store(store, &config.mesh.root_namespace);
        Ok(Follow::new(folder, &config.folders, config.overlay.as_deref()))
    };
    start_from("folders", folders, config, log, shutdown).await
}

/// [`start`], from another source of objects; ready once that has said what there is. `name` is the source's in what is
/// said of readiness. `source` is told whether nothing that this control plane could have said before is in force.
///
/// # Errors
/// When something it needs at start is not there; the message says which setting to change.
pub async fn start_from<S: Source>(
    name: &'static str,
    source: impl FnOnce(&Config, bool) -> anyhow::Result<S>,
    config: Config,
    log: Option<LogControl>,
    shutdown: Shutdown,
) -> anyhow::Result<Running> {
    let foundation = foundation::of_machine(&config)?;
    let source = source(&config, foundation.first_start)?;
    begin(name, source, foundation, ControlMetrics::default(), config, log, shutdown).await
}

async fn begin<S: Source>(
    name: &'static str,
    source: S,
    Foundation { material, proof, first_start: _, plugged, client }: Foundation,
    measured: ControlMetrics,
    config: Config,
    log: Option<LogControl>,
    shutdown: Shutdown,
) -> anyhow::Result<Running> {
    let (trigger, drain) = drain::new();
    let readiness = Readiness::new();
    let part = readiness.register(name);

    let mut publication = Publication::new(config.mesh.clone());
    let (cluster, published) = (publication.cluster(), publication.published());
    let status = watch::Sender::new(Arc::new(Status::default()));
    let seen = Seen { cluster: cluster.clone(), status: status.subscribe(), material: material.subscribe() };
    let mut metrics = measured.register(seen);
    let debug_routes = debug::routes(cluster.clone(), published.clone(), status.subscribe());
    let told = published.clone();

    let listener = listen(config.listen).context("LISTEN_ADDRESS")?;
    let address = listener.local_addr()?;
    let certificate =
        ServerCertificate::new(material.subscribe(), config.server_names()).context("ISTIOD_CUSTOM_HOST")?;
    let tls = certificate.tls(b"h2")?;
    let shown = certificate.clone();
    tokio::spawn(until_drained(drain.clone(), certificate.keep_fresh()));

    let mut webhook = None;
    if let Some(client) = client {
        if let Some(settings) = &config.webhook {
            measured.admission.register(&mut metrics);
            let known = (&config.mesh, cluster.clone());
            let counts = measured.admission.clone();
            webhook = Some(validating::webhook(settings, known, &shown, counts, drain.clone()).await?);
        }
        measured.leader.register(&mut metrics);
        let known =
            writing::Known { cluster: cluster.clone(), status: status.subscribe(), material: material.subscribe() };
        writing::begin(&client, &config, known, measured.leader, &drain);
    }
    let authority = CertificateAuthority {
        material: material.subscribe(),
        cluster: cluster.clone(),
        trust_domain: config.mesh.trust_domain.clone(),
        trusted: config.trusted_accounts.clone(),
        lifetimes: config.lifetimes,
        metrics: measured.ca.clone(),
    };
    let subscribers = Subscribers { proxies: config.trusted_accounts.clone() };
    let discovery = Discovery::new(published, Arc::new(subscribers), config.subscribers).counted_in(measured.xds);
    if let Some(file) = config.acknowledged_file.clone() {
        let sent = publication.sent(config.trusted_accounts.clone());
        let acknowledged = discovery.acknowledged();
        tokio::spawn(until_drained(drain.clone(), async move { held::tell(sent, acknowledged, &file).await }));
    }
    if let Some(directory) = plugged {
        let here = config.cluster.is_none().then(|| config.state.clone());
        let follow = reload::follow(directory, here, material, measured.ca.clone());
        tokio::spawn(until_drained(drain.clone(), follow));
    }
    let certificates = config.mesh.mode.does(Part::Certificates).then(|| authority.into_service());
    let services = Services::new(Gate::new(proof, cluster), certificates, discovery, measured.ca);
    let connections = accept(listener, tls, ConnectionLimits::new(config.connections));
    let server = tokio::spawn(serving::grpc(services, connections, drain.clone()));

    let health = serving::health(&config, &readiness, drain.clone())?;
    let metrics = serving::metrics(&config, metrics, drain.clone())?;
    let debug = serving::debug(&config, debug_routes, log, shutdown, drain.clone())?;
    let source = WithKeys::new(source, &config.jwks, measured.jwks);
    tokio::spawn(until_drained(drain, publishing::follow(source, publication, status, config.status_file, part)));
    tracing::info!(%address, certificates = config.mesh.mode.does(Part::Certificates), "serving discovery");
    Ok(Running { address, health, metrics, webhook, debug, readiness, published: told, drain: trigger, server })
}
