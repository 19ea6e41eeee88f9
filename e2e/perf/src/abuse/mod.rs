//! The abuse run: attackers beside good callers, in namespaces of its own.
//!
//! A mesh of two nodes. `client` on the first node calls `victim` and `other`, both served by the second node's ztunnel, or
//! services of theirs that are behind a waypoint; a node asks the control plane for certificates. Each is measured at rest, during each attack, and beside a process that
//! takes the attackers' share of CPU and touches nothing: who fails, how long the slowest wait, what ztunnel,
//! istiod-lite and the waypoint hold before, during, and after the attackers have left. The attackers are a pod outside the mesh, with a
//! certificate of the mesh where the attack needs one, or a pod of the mesh that may call what it attacks.
//!
//! | module | question |
//! |---|---|
//! | `attacks` | what there is (pure) |
//! | `world` | the mesh, and the certificates that the run makes itself |
//! | `good` | the good callers: this binary again, inside a pod |
//! | `attacker`, `tunnels`, `control`, `tenant`, `tls` | the attackers: this binary again, inside a pod |
//! | `application` | what is called behind the waypoint |
//! | `neighbour` | what the attackers' CPU alone costs good callers |
//! | `goals` | what a row misses of what we promise (pure) |
//! | `report` | the tables (pure) |
//!
//! Every attack is bounded in time, connections and bytes, goes to addresses in these namespaces only, and ends with us.
pub(crate) mod application;
mod attacker;
pub(crate) mod attacks;
mod control;
mod goals;
mod good;
mod neighbour;
mod report;
mod tenant;
mod tls;
mod tunnels;
mod world;

use crate::cli::{Abuse, AbuseRole};
use crate::world::Pod;
use crate::world::child::{self, Child};
use crate::{bench, machine, processes};
use anyhow::{Context, Result, ensure};
use attacks::{At, Attack, By};
use report::{Caller, Callers, Course, Row};
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use world::{Memory, World};

/// Seconds that attackers go on for after the good callers.
const LONGER: f64 = 5.0;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A role inside the run.
pub(crate) fn play(role: &AbuseRole) -> Result<()> {
    match role {
        AbuseRole::Attack(args) => attacker::run(args),
        AbuseRole::Call(args) => good::call(args),
        AbuseRole::Ask(args) => good::ask(args),
        AbuseRole::Compute(args) => neighbour::run(args),
    }
}

/// Runs it.
#[allow(clippy::print_stdout, reason = "this is what the command shows its user")]
pub(crate) fn run(args: &Abuse) -> Result<()> {
    let chosen: Vec<Attack> = attacks::ALL.iter().copied().filter(|attack| attack.is_chosen(&args.only)).collect();
    ensure!(!chosen.is_empty(), "no attack is called anything like {}", args.only.join(" or "));
    let own = std::env::current_exe().context("cannot find our own program file")?;
    let directory = tempfile::Builder::new().prefix("ambit-abuse-").tempdir()?;
    crate::interrupt::remove_at_signal(directory.path().to_owned())?;
    let world = World::start(&own, directory.path(), args.seconds + LONGER)?;
    // The first connections of a mesh fetch certificates.
    let run = Run { args, own: &own, world: &world };
    for at in [At::Pod, At::Waypoint] {
        run.good_callers(at, 1.0)?;
    }
    let run = Watched { start: world.memory()?, run };
    let mut rows = Vec::new();
    for attack in chosen {
        bench::say(&format!("{attack}"));
        let row = run.one(attack).with_context(|| format!("{attack}: {}", world.last_words()))?;
        println!("{}", report::line(&row));
        rows.push(row);
    }
    drop(world);
    println!("\n{}\n{}", report::tables(&rows), report::verdict(&rows));
    if let Some(file) = &args.write_docs {
        std::fs::write(file, report::page(&rows, &circumstances()))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn circumstances() -> String {
    let build = if cfg!(debug_assertions) { " **This was a debug build: its times say little.**" } else { "" };
    format!(
        "Made by `cargo run --release -p perf -- abuse --write-docs` on {}: {}, {} cores, Linux {}.{build}",
        machine::date(),
        machine::cpu(),
        machine::cores(),
        machine::kernel()
    )
}

/// What does not change between attacks.
struct Run<'a> {
    args: &'a Abuse,
    own: &'a Path,
    world: &'a World,
}

/// A run of whose start the memory is known.
struct Watched<'a> {
    run: Run<'a>,
    start: Memory,
}

impl Watched<'_> {
    fn one(&self, attack: Attack) -> Result<Row> {
        let Self { run, start } = self;
        let seconds = run.args.seconds;
        let at_rest = run.good_callers(attack.at, seconds)?;
        let before = run.world.memory()?;
        let mut attackers = run.attackers(attack)?;
        let (cpu, began) = (attackers.cpu_seconds()?, Instant::now());
        let (attacked, peak) = run.good_callers_and_peak(attack.at, seconds)?;
        let share = (attackers.cpu_seconds()? - cpu) / began.elapsed().as_secs_f64();
        let summary = attackers.end()?;
        // The last of the rest is the neighbour's: what the attack left behind has been cleared away by then.
        let rest = Duration::from_secs_f64(run.args.rest);
        let (ended, neighbour) = (Instant::now(), Duration::from_secs_f64(seconds) + neighbour::MARGIN);
        std::thread::sleep(rest.saturating_sub(neighbour));
        let beside_neighbour = run.beside_neighbour(attack, share)?;
        std::thread::sleep(rest.saturating_sub(ended.elapsed()));
        let memory = Course { start: *start, before, peak, after: run.world.memory()? };
        Ok(Row { attack, summary, share, callers: Callers { at_rest, beside_neighbour, attacked }, memory })
    }
}

impl Run<'_> {
    fn good_callers(&self, at: At, seconds: f64) -> Result<[Caller; 3]> {
        Ok(self.good_callers_and_peak(at, seconds)?.0)
    }

    /// The good callers, beside a process where the attackers were, that takes this share of a core.
    fn beside_neighbour(&self, attack: Attack, share: f64) -> Result<[Caller; 3]> {
        let mut command = self.inside(self.attackers_pod(attack));
        let seconds = self.args.seconds + neighbour::MARGIN.as_secs_f64();
        command.args(["play", "compute", "--share", &share.to_string(), "--seconds", &seconds.to_string()]);
        let mut neighbour = Child::steer(command)?;
        let callers = self.good_callers(attack.at, self.args.seconds)?;
        wait(&mut neighbour, "the neighbour")?;
        let had: f64 = output(&mut neighbour)?.parse().context("the neighbour's share")?;
        bench::say(&format!("the attackers took {share:.2} of a core, the neighbour {had:.2}"));
        Ok(callers)
    }

    /// This binary, inside a pod; to be given its role.
    fn inside(&self, pod: &Pod) -> Command {
        let mut command = child::launch(self.own);
        command.args(["--pid", &pod.pid.to_string(), "--"]).arg(self.own);
        command
    }

    fn attackers_pod(&self, attack: Attack) -> &Pod {
        match attack.by {
            By::Stranger => &self.world.attacker,
            By::Client => &self.world.client,
            By::Tenant => &self.world.tenant,
        }
    }

    /// Where its attackers are sent.
    fn victim(&self, attack: Attack) -> IpAddr {
        match (attack.at, attack.by) {
            (At::Waypoint, By::Tenant) => self.world.attacked,
            (At::Waypoint, _) => self.world.waypoint,
            (At::Pod | At::ControlPlane, _) => self.world.victim.ip,
        }
    }

    /// To what is attacked at `at`, to the other one, and to the CA, all at once; with the most that was held meanwhile.
    fn good_callers_and_peak(&self, at: At, seconds: f64) -> Result<([Caller; 3], Memory)> {
        let seconds = seconds.to_string();
        let call = |to: SocketAddr| {
            let mut command = self.inside(&self.world.client);
            command.args(["play", "call", "--to", &to.to_string(), "--seconds", &seconds]);
            if at == At::Waypoint {
                command.arg("--http");
            }
            Child::steer(command)
        };
        let mut ask = child::launch(self.own);
        ask.args(["--pid", &self.world.near_ztunnel.to_string(), "--"]).arg(self.own);
        ask.args(["play", "ask", "--seconds", &seconds, "--root"]).arg(&self.world.root);
        ask.arg("--token").arg(&self.world.token);
        let [attacked, other] = self.world.called(at);
        let mut running = [call(attacked)?, call(other)?, Child::steer(ask)?];
        let mut peak = self.world.memory()?;
        while running.iter_mut().map(Child::ended).collect::<Result<Vec<_>>>()?.iter().any(Option::is_none) {
            peak = peak.most(self.world.memory()?);
            std::thread::sleep(LOOK);
        }
        let [attacked, other, ask] = &mut running;
        Ok(([outcome(attacked)?, outcome(other)?, outcome(ask)?], peak))
    }

    fn attackers(&self, attack: Attack) -> Result<Attackers> {
        // Longer than the callers, so that they see nothing else.
        let seconds = self.args.seconds + LONGER;
        let mut command = self.inside(self.attackers_pod(attack));
        command.args(["play", "attack", attack.name, "--seconds", &seconds.to_string(), "--files"]);
        command.arg(&self.world.files).arg("--token").arg(&self.world.token);
        command.args(["--victim", &self.victim(attack).to_string()]);
        let attackers = Attackers { child: Child::steer(command)? };
        // They have begun.
        std::thread::sleep(Duration::from_millis(500));
        Ok(attackers)
    }
}

/// Those of one attack.
struct Attackers {
    child: Child,
}

impl Attackers {
    /// CPU that they have used.
    fn cpu_seconds(&self) -> Result<f64> {
        processes::cpu_seconds(self.child.id())
    }

    /// Waits for their end; their summary.
    fn end(&mut self) -> Result<String> {
        wait(&mut self.child, "the attackers")?;
        output(&mut self.child)
    }
}

/// Waits for the end of a role that ends by itself.
fn wait(child: &mut Child, who: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while child.ended()?.is_none() {
        ensure!(Instant::now() < deadline, "{who}: still running after its time");
        std::thread::sleep(LOOK);
    }
    Ok(())
}

fn outcome(child: &mut Child) -> Result<Caller> {
    let line = output(child)?;
    serde_json::from_str(&line).with_context(|| format!("a good caller said `{line}`"))
}

fn output(child: &mut Child) -> Result<String> {
    let process = child.process();
    let (mut line, mut why) = (String::new(), String::new());
    process.stdout.take().context("a role without output")?.read_to_string(&mut line)?;
    process.stderr.take().context("a role without errors")?.read_to_string(&mut why)?;
    ensure!(!line.trim().is_empty(), "a role failed: {}", why.trim());
    Ok(line.trim().to_owned())
}
