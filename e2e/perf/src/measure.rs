//! One case in one world: the load, and what everybody spent on it.
use crate::cases::{Case, Path};
use crate::cli::LoadKind;
use crate::load::Outcome;
use crate::processes::{self, Memory};
use crate::world::child::{self, Child};
use crate::world::{Kind, World};
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path as FilePath;
use std::process::ChildStdout;
use std::time::{Duration, Instant};

/// Where tunnels arrive in a pod.
const HBONE_PORT: u16 = 15008;
/// Where ztunnel takes over what a pod opens.
const OUTBOUND_PORT: u16 = 15001;
/// Longest wait for the first request of a world to pass.
const FIRST: Duration = Duration::from_secs(30);
/// Let a world come to rest before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// What was measured once.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) round: u32,
    pub(crate) world: Kind,
    pub(crate) case: String,
    /// By name, which has the unit.
    pub(crate) metrics: BTreeMap<&'static str, f64>,
    /// Requests that failed.
    pub(crate) errors: u64,
    /// One of the failures.
    pub(crate) example: Option<String>,
}

/// A load whose connections are made, waiting for the word.
struct Load {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Load {
    fn prepare(own: &FilePath, world: &World, path: Path, kind: LoadKind, seconds: f64) -> Result<Self> {
        let mut command = child::launch(own);
        command.args(["--pid", &world.client.pid.to_string(), "--"]).arg(own).arg("load");
        command.args(["--to", &world.server(path).ip.to_string(), "--seconds", &seconds.to_string()]);
        command.args(kind.arguments());
        let mut child = Child::steer(command)?;
        let answers = BufReader::new(child.process().stdout.take().context("a load without output")?);
        let mut load = Load { child, answers };
        let word = load.line()?;
        ensure!(word == "ready", "the load said `{word}`");
        Ok(load)
    }

    fn run(&mut self) -> Result<Outcome> {
        let input = self.child.process().stdin.as_mut().context("a load without input")?;
        input.write_all(b"\n")?;
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("the load said `{line}`"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            let mut why = String::new();
            if let Some(errors) = self.child.process().stderr.as_mut() {
                errors.read_to_string(&mut why)?;
            }
            bail!("the load failed: {}", why.trim());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// CPU seconds used so far.
struct Clocks {
    /// By the processes under test.
    proxies: f64,
    /// By everybody: also servers, load, and the kernel's threads for network work.
    total: f64,
}

impl Clocks {
    fn read(world: &World, others: &[u32]) -> Result<Self> {
        let sum = |pids: &mut dyn Iterator<Item = u32>| pids.map(processes::cpu_seconds).sum::<Result<f64>>();
        let proxies = sum(&mut world.proxies().iter().map(|p| p.pid))?;
        Ok(Clocks { proxies, total: proxies + sum(&mut others.iter().copied())? })
    }
}

/// Waits until connections pass on every path, and take the way they should: a mesh that is bypassed is as fast as none, and for a moment
/// peers may not know yet that a pod has joined.
pub(crate) fn prove(own: &FilePath, world: &World) -> Result<()> {
    let deadline = Instant::now() + FIRST;
    for path in [Path::Remote, Path::Same] {
        loop {
            let attempt = Load::prepare(own, world, path, LoadKind::Hold { connections: 1 }, 1.0)
                .with_context(|| format!("nothing passes in world `{}`", world.kind))
                .and_then(|_held| takes_its_way(world, path));
            match attempt {
                Ok(()) => break,
                Err(e) if Instant::now() > deadline => return Err(e.context(world.last_words())),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
    Ok(())
}

/// Looks at the sockets that are open while a connection is held.
fn takes_its_way(world: &World, path: Path) -> Result<()> {
    let tunnels = processes::connections(world.server(path).pid, HBONE_PORT);
    match (world.kind, path) {
        (Kind::Direct, _) => ensure!(tunnels == 0, "there is a tunnel in the world without a mesh"),
        // Two pods of one node meet in their ztunnel: the client's connection ends there.
        (Kind::Ambit | Kind::Before, Path::Same) => ensure!(
            processes::connections(world.client.pid, OUTBOUND_PORT) > 0,
            "in world `{}` the {path} path works without ztunnel",
            world.kind
        ),
        (Kind::Ambit | Kind::Before | Kind::Envoy, _) => ensure!(
            tunnels > 0,
            "in world `{}` the {path} path works without a tunnel to the server's port {HBONE_PORT}",
            world.kind
        ),
    }
    Ok(())
}

/// Measures.
pub(crate) fn case(own: &FilePath, world: &World, case: Case, seconds: f64, round: u32) -> Result<Row> {
    let mut load = Load::prepare(own, world, case.path, case.load, seconds)?;
    let mut others = vec![load.child.id(), world.server(case.path).pid];
    others.extend(processes::network_threads()?);
    let before = Clocks::read(world, &others)?;
    let outcome = load.run()?;
    let after = Clocks::read(world, &others)?;
    ensure!(outcome.done > 0, "nothing got through: {}", outcome.example.as_deref().unwrap_or("no error was seen"));
    let (proxies, total) = (after.proxies - before.proxies, after.total - before.total);
    if world.kind != Kind::Direct && total > 0.2 {
        ensure!(proxies > 0.0, "the proxies did nothing: the traffic went around them");
    }
    let proxies = (world.kind != Kind::Direct).then_some(proxies);
    let metrics = metrics(case.load, &outcome, proxies, total);
    let (errors, example) = (outcome.errors, outcome.example);
    Ok(Row { round, world: world.kind, case: case.to_string(), metrics, errors, example })
}

/// Names and units of what a load came to. `proxies` and `total` are CPU seconds.
fn metrics(load: LoadKind, outcome: &Outcome, proxies: Option<f64>, total: f64) -> BTreeMap<&'static str, f64> {
    let done = outcome.done as f64;
    let mut metrics = BTreeMap::new();
    let (rate, per_proxy, per_total, scale) = match load {
        LoadKind::Bulk => {
            metrics.insert("gbit_per_s", done * 8.0 / 1e9 / outcome.seconds);
            metrics.extend(proxies.map(|cpu| ("proxy_cpu_s_per_gb", cpu / done * 1e9)));
            metrics.insert("total_cpu_s_per_gb", total / done * 1e9);
            return metrics;
        }
        LoadKind::Connect { .. } => {
            ("connections_per_s", "proxy_cpu_us_per_connection", "total_cpu_us_per_connection", 1e6)
        }
        LoadKind::Http { .. } | LoadKind::Hold { .. } => {
            ("requests_per_s", "proxy_cpu_us_per_request", "total_cpu_us_per_request", 1e6)
        }
    };
    metrics.insert(rate, done / outcome.seconds);
    metrics.extend(proxies.map(|cpu| (per_proxy, cpu / done * scale)));
    metrics.insert(per_total, total / done * scale);
    if let Some(latency) = outcome.latency {
        metrics.extend([("p50_us", latency.p50), ("p90_us", latency.p90), ("p99_us", latency.p99)]);
    }
    metrics
}

/// Memory of the proxies that traffic between nodes passes through: idle, and with idle connections held.
pub(crate) fn memory(own: &FilePath, world: &World, connections: u32) -> Result<Row> {
    std::thread::sleep(REST);
    let idle = path_memory(world)?;
    let load = Load::prepare(own, world, Path::Remote, LoadKind::Hold { connections }, 1.0)?;
    std::thread::sleep(REST);
    let held = path_memory(world)?;
    drop(load);
    let metrics = BTreeMap::from([
        ("idle_mib", idle.resident / MIB),
        ("idle_anonymous_mib", idle.anonymous / MIB),
        ("held_mib", held.resident / MIB),
        ("held_anonymous_mib", held.anonymous / MIB),
        ("kib_per_connection", (held.anonymous - idle.anonymous) / 1024.0 / f64::from(connections)),
    ]);
    Ok(Row { round: 0, world: world.kind, case: "memory".into(), metrics, errors: 0, example: None })
}

const MIB: f64 = 1024.0 * 1024.0;

fn path_memory(world: &World) -> Result<Memory> {
    let mut sum = Memory { resident: 0.0, anonymous: 0.0 };
    for proxy in world.proxies().iter().filter(|p| p.on_remote_path) {
        let one = processes::memory(proxy.pid)?;
        sum.resident += one.resident;
        sum.anonymous += one.anonymous;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Latency;

    #[test]
    fn what_a_load_comes_to() {
        let outcome = Outcome {
            seconds: 2.0,
            done: 4_000_000_000,
            errors: 0,
            example: None,
            latency: Some(Latency { p50: 1.0, p90: 2.0, p99: 3.0 }),
        };
        let bulk = metrics(LoadKind::Bulk, &outcome, Some(2.0), 6.0);
        let expected = [("gbit_per_s", 16.0), ("proxy_cpu_s_per_gb", 0.5), ("total_cpu_s_per_gb", 1.5)];
        assert_eq!(bulk, BTreeMap::from(expected));
        let few = Outcome { done: 1000, ..outcome };
        let direct = metrics(LoadKind::Http { connections: 1 }, &few, None, 0.5);
        let expected = [
            ("requests_per_s", 500.0),
            ("total_cpu_us_per_request", 500.0),
            ("p50_us", 1.0),
            ("p90_us", 2.0),
            ("p99_us", 3.0),
        ];
        assert_eq!(direct, BTreeMap::from(expected));
    }
}
