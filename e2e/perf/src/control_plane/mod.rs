//! The control plane at scale: how long a change takes until the last subscriber has it, and what that costs.
//!
//! istiod-lite runs in this process, fed with objects as a watch would; the subscribers are this binary again, each with
//! a TLS connection and a stream of its own. They take in what comes without keeping it: a thousand tables of a hundred
//! thousand workloads are more than one machine holds.
//!
//! | module | question |
//! |---|---|
//! | `mesh` | which objects are there, and which changes (pure) |
//! | `feed` | a source of objects, and when each change was published |
//! | `subscribers` | who has what, and when: the other process |
//! | `report` | the table (pure) |
mod feed;
mod mesh;
mod report;
mod subscribers;

use crate::cli::ControlPlane;
use crate::world::child::Child;
use crate::{bench, machine, processes, statistics};
use anyhow::{Context, Result, ensure};
use feed::Watch;
use istiod_lite::Config;
use istiod_lite::app::{Running, start_from};
use istiod_lite::cluster::Change;
use mesh::Mesh;
use mesh_runtime::config::Env;
use mesh_runtime::shutdown::Shutdown;
use mesh_testkit::control_plane::{TokenIssuer, settings};
use report::{Costs, Figures};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep};

pub(crate) use report::{kept_section, with_section};
pub(crate) use subscribers::run as subscribe;

/// Single changes of each kind whose cost is taken.
const SINGLE: u32 = 200;
/// The same of those that touch a whole namespace.
const WIDE: u32 = 10;
/// Within this time, memory that is not needed any more is given back to the machine.
const SETTLES: Duration = Duration::from_secs(5);
/// After the last change, until nobody is waited for any more.
const REST: Duration = Duration::from_secs(10);

/// Runs it.
#[allow(clippy::print_stdout, reason = "this is what the command shows its user")]
pub(crate) fn run(args: &ControlPlane) -> Result<()> {
    if cfg!(debug_assertions) {
        bench::say("this is a debug build: its numbers say nothing about Ambit. Use `cargo run --release -p perf`");
    }
    let directory = tempfile::Builder::new().prefix("ambit-control-plane-").tempdir()?;
    crate::interrupt::remove_at_signal(directory.path().to_owned())?;
    mesh_runtime::open_files::raise();
    // As the program does.
    mesh_runtime::memory::give_back()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(measure(args, directory.path()))?;
    let table = report::table(args, &figures);
    println!("{table}");
    if let Some(file) = &args.write_docs {
        let page = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let page = with_section(&page, &report::section(args, &figures, &circumstances()));
        std::fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn circumstances() -> String {
    let build = if cfg!(debug_assertions) { " **This was a debug build: its numbers say nothing.**" } else { "" };
    format!(
        "Made by `cargo run --release -p perf -- control-plane --write-docs` on {}: {}, {} cores, Linux {}, load average \
         {:.1} before.{build}",
        machine::date(),
        machine::cpu(),
        machine::cores(),
        machine::kernel(),
        machine::load_average(),
    )
}

async fn measure(args: &ControlPlane, directory: &Path) -> Result<Figures> {
    let own = std::process::id();
    let mesh = Mesh { pods: args.pods, services: args.services, subscribers: args.subscribers };
    let issuer = TokenIssuer::new();
    let before = processes::memory(own)?.anonymous;
    let (feed, source, batches) = feed::new();
    bench::say(&format!("{} pods, {} services", args.pods, args.services));
    let began = (Instant::now(), cpu_seconds());
    feed.send(mesh.objects().map(Change::apply));
    let config = config(directory, &issuer)?;
    let running = start_from("objects", |_, _| Ok(source), config, None, Shutdown::new()).await?;
    let mut published = Watch::new(&running, batches);
    published.batch().await?;
    let first = (began.0.elapsed().as_secs_f64(), cpu_seconds() - began.1);
    // What was needed once is given back, by steps.
    sleep(SETTLES).await;
    let held = processes::memory(own)?.anonymous - before;
    let costs = costs(&mesh, &feed, &mut published).await?;

    bench::say(&format!("{} subscribers", args.subscribers));
    let mut subscribers = subscribers(args, directory, &issuer, &running)?;
    let began = Instant::now();
    subscribers.line().await.context("the subscribers never had everything")?;
    let synced = began.elapsed().as_secs_f64();
    let peak = processes::memory(own)?.anonymous;

    bench::say(&format!("{} changes a second for {} s", args.rate, args.seconds));
    let cpu = (cpu_seconds(), processes::cpu_seconds(subscribers.child.id())?);
    let marked = tokio::spawn(async move {
        let mut sent = Vec::new();
        // Until the control plane stops.
        while let Ok(batch) = published.batch().await {
            sent.extend(batch);
        }
        sent
    });
    let began = Instant::now();
    let mut changes = mesh.changes();
    let mut ticks = interval(Duration::from_secs_f64(1.0 / f64::from(args.rate)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while began.elapsed().as_secs_f64() < args.seconds {
        ticks.tick().await;
        feed.send_marked(changes.next().context("there is always another")?);
    }
    let took = began.elapsed().as_secs_f64();
    let cores = ((cpu_seconds() - cpu.0) / took, (processes::cpu_seconds(subscribers.child.id())? - cpu.1) / took);
    sleep(REST.min(Duration::from_secs_f64(args.seconds))).await;
    let heard = subscribers.end().await?;
    running.stop().await;
    let sent = marked.await?;
    let mut waits = report::convergence(&sent, &heard.last);
    ensure!(!waits.is_empty(), "no change was heard of by all subscribers");
    waits.sort_unstable_by(f64::total_cmp);
    let at = |share| statistics::percentile(&waits, share).unwrap_or(f64::NAN);
    Ok(Figures {
        first,
        held_per_workload: held / f64::from(args.pods),
        costs,
        synced,
        peak,
        changes: sent.len(),
        unheard: sent.len() - waits.len(),
        p50: at(0.5),
        p99: at(0.99),
        longest: at(1.0),
        cores,
        bytes: heard.bytes,
        responses: heard.responses,
    })
}

/// What single changes cost, while nobody listens: CPU of this process until each is published, in milliseconds.
async fn costs(mesh: &Mesh, feed: &feed::Sender, published: &mut Watch) -> Result<Costs> {
    let mut of = async |count: u32, change: &dyn Fn(u32) -> Change| {
        let began = cpu_seconds();
        for n in 0..count {
            feed.send([change(n)]);
            published.batch().await?;
        }
        anyhow::Ok((cpu_seconds() - began) * 1e3 / f64::from(count))
    };
    Ok(Costs {
        pod: of(SINGLE, &|n| Change::apply(mesh.pod(n % mesh.pods, n % 2 == 0))).await?,
        service: of(SINGLE, &|n| Change::apply(mesh.service(n % mesh.services, 9000 + n))).await?,
        authorization: of(WIDE, &|n| Change::apply(mesh.authorization_policy(n))).await?,
        peer_authentication: of(WIDE, &|n| Change::apply(mesh.peer_authentication(n % 2 == 0))).await?,
    })
}

/// Seconds of CPU of this process.
fn cpu_seconds() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

fn config(directory: &Path, issuer: &TokenIssuer) -> Result<Config> {
    let key = directory.join("issuer.pem");
    std::fs::write(&key, issuer.public_key_pem())?;
    let env: Env = settings(directory, &directory.join("state"), &key).into_iter().collect();
    Ok(Config::from_env(&env, Vec::new())?)
}

/// The other process.
struct Subscribers {
    child: Child,
    lines: tokio::sync::mpsc::Receiver<String>,
}

fn subscribers(args: &ControlPlane, directory: &Path, issuer: &TokenIssuer, running: &Running) -> Result<Subscribers> {
    let tokens = directory.join("tokens");
    std::fs::write(&tokens, mesh::tokens(args.subscribers, issuer).join("\n"))?;
    let mut command = Command::new(std::env::current_exe().context("cannot find our own program file")?);
    command.args(["subscribe", "--to", &running.address.to_string(), "--tokens"]).arg(tokens);
    command.arg("--root").arg(directory.join("state/root-cert.pem"));
    let mut child = Child::steer(command)?;
    let out = child.process().stdout.take().context("its output is ours")?;
    let errors = child.process().stderr.take().context("its errors are ours")?;
    let (sender, lines) = tokio::sync::mpsc::channel(4);
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        for line in BufReader::new(errors).lines().map_while(Result::ok) {
            bench::say(&line);
        }
    });
    Ok(Subscribers { child, lines })
}

impl Subscribers {
    async fn line(&mut self) -> Result<String> {
        self.lines.recv().await.context("the subscribers' process has ended")
    }

    /// Asks what they have heard.
    async fn end(&mut self) -> Result<subscribers::Heard> {
        let mut stdin = self.child.process().stdin.take().context("its input is ours")?;
        stdin.write_all(b"end\n")?;
        drop(stdin);
        Ok(serde_json::from_str(&self.line().await?)?)
    }
}
