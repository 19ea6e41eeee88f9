//! `ambit waypoint list|status|apply|delete`: waypoints of a cluster.
use crate::cli::{Output, WaypointFor};
use crate::kubernetes::access::{Cluster, block_on};
use crate::kubernetes::read::{self, GATEWAYS, NAMESPACES};
use crate::kubernetes::status::{WAYPOINT_HEAD, Waypoint, waypoint_row};
use crate::kubernetes::view::view;
use crate::kubernetes::waypoint::{MANAGER, class_beside, enrolment, gateway};
use crate::status::{Width, table};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use mesh_kube::write::{self, WriteError};
use mesh_kube::{Client, Resource};
use mesh_model::labels::{DATAPLANE_MODE, DATAPLANE_MODE_AMBIENT, USE_WAYPOINT};
use serde_json::Value;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

/// Words by which this command is told from the program of the same name.
pub(crate) const WORDS: [&str; 4] = ["list", "status", "apply", "delete"];
/// How often it is looked whether a waypoint is ready.
const LOOK: Duration = Duration::from_millis(500);

/// Waypoints of a cluster: L7 proxies in the way to services.
#[derive(Debug, Parser)]
#[command(
    name = "ambit waypoint",
    max_term_width = 80,
    after_help = "\
Examples:
  ambit waypoint apply -n shop --enroll-namespace --wait
  ambit waypoint list -A
  ambit waypoint delete -n shop waypoint
Without a command, `ambit waypoint` is the proxy itself."
)]
pub(crate) struct WaypointCli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List waypoints, and what is attached to each.
    List(List),
    /// Say whether waypoints take requests. Exit code 3: one does not.
    Status(Status),
    /// Make a waypoint, or change one (server-side apply).
    Apply(Apply),
    /// Delete waypoints.
    Delete(Delete),
}

/// Where.
#[derive(Debug, Args)]
struct Place {
    #[command(flatten)]
    cluster: Cluster,
    /// Namespace of the waypoint.
    #[arg(short, long, default_value = "default")]
    namespace: String,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    place: Place,
    /// Those of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Args)]
struct Status {
    #[command(flatten)]
    place: Place,
    /// Those with these names; else all of the namespace.
    names: Vec<String>,
    #[command(flatten)]
    wait: Wait,
}

/// How long to wait.
#[derive(Debug, Args)]
struct Wait {
    /// Wait until it takes requests; exit code 1 if it does not in time.
    #[arg(short, long)]
    wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 90)]
    timeout: u64,
}

#[derive(Debug, Args)]
struct Apply {
    #[command(flatten)]
    place: Place,
    /// Its name.
    #[arg(long, default_value = "waypoint")]
    name: String,
    /// What it is in the way to; services, when this is not said.
    #[arg(long = "for", value_enum)]
    what_for: Option<WaypointFor>,
    /// The revision of the control plane that it is for; any, when this is
    /// not said.
    #[arg(short, long)]
    revision: Option<String>,
    /// Label the namespace, so that its services use it.
    #[arg(long)]
    enroll_namespace: bool,
    /// With --enroll-namespace: also where it uses another waypoint.
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Debug, Args)]
struct Delete {
    #[command(flatten)]
    place: Place,
    /// Their names.
    #[arg(required_unless_present = "all")]
    names: Vec<String>,
    /// Every waypoint of the namespace.
    #[arg(long, conflicts_with = "names")]
    all: bool,
}

/// The exit code where something is wrong.
const WRONG: u8 = 3;

pub(crate) fn run(cli: WaypointCli) -> Result<ExitCode> {
    match cli.command {
        Command::List(args) => block_on(list(args)),
        Command::Status(args) => block_on(status(args)),
        Command::Apply(args) => block_on(apply(args)),
        Command::Delete(args) => block_on(delete(args)),
    }
}

#[allow(clippy::print_stdout, reason = "this is what the command shows its user")]
fn say(text: &str) {
    println!("{text}");
}

/// The waypoints of a namespace, or of all.
async fn waypoints(client: &Client, namespace: Option<&str>) -> Result<Vec<Waypoint>> {
    let found = read::waypoints(client).await?;
    // Without the gateways there is nothing to say; what else is missing is only less.
    if let Some(right) = found.missing.iter().find(|right| right.contains(&GATEWAYS.to_string())) {
        bail!("you may not {right}");
    }
    let all = view(&found, "", SystemTime::now()).waypoints;
    Ok(all.into_iter().filter(|one| namespace.is_none_or(|namespace| one.namespace == namespace)).collect())
}

fn show(waypoints: &[Waypoint]) {
    let mut out = String::new();
    table(&mut out, &WAYPOINT_HEAD, waypoints.iter().map(waypoint_row).collect(), Width::Wide);
    say(out.trim_end());
}

async fn list(args: List) -> Result<ExitCode> {
    let client = args.place.cluster.client().await?;
    let namespace = (!args.all_namespaces).then_some(&*args.place.namespace);
    let all = waypoints(&client, namespace).await?;
    if args.output == Output::Json {
        say(&serde_json::to_string_pretty(&all)?);
    } else if all.is_empty() {
        let place = namespace.map_or("this cluster".to_owned(), |namespace| format!("namespace {namespace}"));
        say(&format!("no waypoints in {place}"));
    } else {
        show(&all);
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(args: Status) -> Result<ExitCode> {
    let client = args.place.cluster.client().await?;
    let namespace = &*args.place.namespace;
    let until = Instant::now() + Duration::from_secs(args.wait.timeout);
    loop {
        let mut all = waypoints(&client, Some(namespace)).await?;
        if let Some(missing) = args.names.iter().find(|name| !all.iter().any(|one| one.name == **name)) {
            bail!("there is no waypoint {namespace}/{missing}");
        }
        all.retain(|one| args.names.is_empty() || args.names.contains(&one.name));
        ensure!(!all.is_empty(), "no waypoints in namespace {namespace}");
        let well = all.iter().all(|one| one.programmed);
        if well || !args.wait.wait || Instant::now() >= until {
            show(&all);
            return Ok(match (well, args.wait.wait) {
                (true, _) => ExitCode::SUCCESS,
                (false, true) => ExitCode::FAILURE,
                (false, false) => ExitCode::from(WRONG),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn apply(args: Apply) -> Result<ExitCode> {
    let client = args.place.cluster.client().await?;
    let (namespace, name) = (&*args.place.namespace, &*args.name);
    let space: Value = write::get(&client, NAMESPACES, "", namespace).await.map_err(|error| match error {
        error if error.is_not_found() => anyhow::anyhow!("there is no namespace {namespace}"),
        error => refused("get", NAMESPACES, namespace, error),
    })?;
    let labels = &space["metadata"]["labels"];
    if let Some(other) = labels[USE_WAYPOINT].as_str().filter(|other| *other != name)
        && args.enroll_namespace
        && !args.overwrite
    {
        bail!("namespace {namespace} uses waypoint {other} (label {USE_WAYPOINT}); --overwrite makes it use {name}");
    }
    let there: Option<Value> = match write::get(&client, GATEWAYS, namespace, name).await {
        Ok(there) => Some(there),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(refused("get", GATEWAYS, namespace, error)),
    };
    let class = class_beside(there.as_ref()).map_err(|why| anyhow::anyhow!("{namespace}/{name}: {why}"))?;
    let what_for = args.what_for.map(WaypointFor::word);
    let object = gateway((namespace, name), class, what_for, args.revision.as_deref());
    let applied = write::apply(&client, (GATEWAYS, "v1"), (namespace, name), "", &object, (MANAGER, true)).await;
    applied.map_err(|error| match error {
        error if error.is_not_found() => {
            anyhow::anyhow!("this cluster has no Gateways: install Gateway API's kinds first")
        }
        error => refused("patch", GATEWAYS, namespace, error),
    })?;
    say(&format!("waypoint {namespace}/{name} applied"));
    if args.enroll_namespace {
        let labelled = write::merge(&client, NAMESPACES, ("", namespace), "", &enrolment(name), MANAGER).await;
        labelled.map_err(|error| refused("patch", NAMESPACES, namespace, error))?;
        say(&format!("namespace {namespace} labelled {USE_WAYPOINT}={name}"));
        if labels[DATAPLANE_MODE] != DATAPLANE_MODE_AMBIENT {
            say(&format!("note: the namespace is not in the mesh (label {DATAPLANE_MODE}={DATAPLANE_MODE_AMBIENT})"));
        }
    }
    if !args.wait.wait {
        return Ok(ExitCode::SUCCESS);
    }
    let until = Instant::now() + Duration::from_secs(args.wait.timeout);
    loop {
        let all = waypoints(&client, Some(namespace)).await?;
        let this = all.iter().find(|one| one.name == name);
        let this = this.with_context(|| format!("waypoint {namespace}/{name} is gone"))?;
        if this.programmed {
            say(&format!("waypoint {namespace}/{name} is ready"));
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= until {
            bail!("waypoint {namespace}/{name} is not ready after {} s: {}", args.wait.timeout, this.reason);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn delete(args: Delete) -> Result<ExitCode> {
    let client = args.place.cluster.client().await?;
    let namespace = &*args.place.namespace;
    // Only what is a waypoint: other Gateways may have the same name.
    let all = waypoints(&client, Some(namespace)).await?;
    let names = if args.all { all.iter().map(|one| one.name.clone()).collect() } else { args.names };
    ensure!(!names.is_empty(), "no waypoints in namespace {namespace}");
    let mut failed = false;
    for name in names {
        let Some(this) = all.iter().find(|one| one.name == name) else {
            say(&format!("there is no waypoint {namespace}/{name}"));
            failed = true;
            continue;
        };
        let deleted = write::delete(&client, GATEWAYS, namespace, &name).await;
        deleted.map_err(|error| refused("delete", GATEWAYS, namespace, error))?;
        say(&format!("waypoint {namespace}/{name} deleted"));
        if !this.namespaces.is_empty() || !this.services.is_empty() {
            let users = [&*this.namespaces, &*this.services].concat().join(", ");
            say(&format!(
                "note: {users} still name it: what has routes or policies refuses connections, the rest goes straight"
            ));
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the API server did not do; with the right, where that is what is missing.
fn refused(verb: &str, resource: Resource, namespace: &str, error: WriteError) -> anyhow::Error {
    match error {
        WriteError::Refused { code: 403, .. } if resource == NAMESPACES => {
            anyhow::anyhow!("you may not {verb} {resource} {namespace}")
        }
        WriteError::Refused { code: 403, .. } => {
            anyhow::anyhow!("you may not {verb} {resource} in namespace {namespace}")
        }
        error => anyhow::anyhow!("{resource}: {error}"),
    }
}
