//! The abuse run: attackers beside good callers, in namespaces of its own.
//!
//! A mesh of two nodes. `client` on the first node calls `victim` and `other`, both served by the second node's ztunnel;
//! a node asks the control plane for certificates. Each is measured at rest and then during each attack: who fails, how
//! long the slowest wait, what ztunnel and istiod-lite hold before, during, and after the attackers have left. The
//! attackers are a pod outside the mesh, with a certificate of the mesh where the attack needs one.
//!
//! | module | question |
//! |---|---|
//! | `attacks` | what there is (pure) |
//! | `world` | the mesh, and the certificates that the run makes itself |
//! | `good` | the good callers: this binary again, inside a pod |
//! | `attacker`, `tunnels`, `control`, `tls` | the attackers: this binary again, inside a pod |
//! | `report` | the table (pure) |
//!
//! Every attack is bounded in time, connections and bytes, goes to addresses in these namespaces only, and ends with us.
mod attacker;
pub(crate) mod attacks;
mod control;
mod good;
mod report;
mod tls;
mod tunnels;
mod world;

use crate::cli::{Abuse, AbuseRole};
use crate::world::child::{self, Child};
use crate::{bench, machine};
use anyhow::{Context, Result, ensure};
use attacks::{Attack, By};
use report::{Caller, Row};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use world::World;

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A role inside the run.
pub(crate) fn play(role: &AbuseRole) -> Result<()> {
    match role {
        AbuseRole::Attack(args) => attacker::run(args),
        AbuseRole::Call(args) => good::call(args),
        AbuseRole::Ask(args) => good::ask(args),
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
    let world = World::start(&own, directory.path())?;
    let run = Run { args, own: &own, world: &world };
    // The first connections of a mesh fetch certificates.
    run.good_callers(1.0)?;
    let mut rows = Vec::new();
    for attack in chosen {
        bench::say(&format!("{attack}"));
        let row = run.one(attack).with_context(|| format!("{attack}: {}", world.last_words()))?;
        println!("{}", report::line(&row));
        rows.push(row);
    }
    drop(world);
    println!("\n{}", report::table(&rows));
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

impl Run<'_> {
    fn one(&self, attack: Attack) -> Result<Row> {
        let calm = self.good_callers(self.args.seconds)?;
        let before = self.world.memory()?;
        let mut attackers = self.attackers(attack)?;
        let (callers, peak) = self.good_callers_and_peak(self.args.seconds)?;
        let said = attackers.end()?;
        std::thread::sleep(Duration::from_secs_f64(self.args.rest));
        let after = self.world.memory()?;
        Ok(Row { attack, said, calm, callers, before, peak, after })
    }

    fn good_callers(&self, seconds: f64) -> Result<[Caller; 3]> {
        Ok(self.good_callers_and_peak(seconds)?.0)
    }

    /// To the attacked pod, to the other pod, and to the CA, all at once; with the most that was held meanwhile.
    fn good_callers_and_peak(&self, seconds: f64) -> Result<([Caller; 3], world::Memory)> {
        let seconds = seconds.to_string();
        let call = |to: SocketAddr| {
            let mut command = child::launch(self.own);
            command.args(["--pid", &self.world.client.pid.to_string(), "--"]).arg(self.own);
            command.args(["play", "call", "--to", &to.to_string(), "--seconds", &seconds]);
            Child::steer(command)
        };
        let mut ask = child::launch(self.own);
        ask.args(["--pid", &self.world.near_ztunnel.to_string(), "--"]).arg(self.own);
        ask.args(["play", "ask", "--seconds", &seconds, "--root"]).arg(&self.world.root);
        ask.arg("--token").arg(&self.world.token);
        let callers = [call(self.world.echo(&self.world.victim))?, call(self.world.echo(&self.world.other))?];
        let [victim, other] = callers;
        let mut running = [victim, other, Child::steer(ask)?];
        let mut peak = self.world.memory()?;
        while running.iter_mut().map(Child::ended).collect::<Result<Vec<_>>>()?.iter().any(Option::is_none) {
            peak = peak.most(self.world.memory()?);
            std::thread::sleep(LOOK);
        }
        let [victim, other, ask] = &mut running;
        Ok(([outcome(victim)?, outcome(other)?, outcome(ask)?], peak))
    }

    fn attackers(&self, attack: Attack) -> Result<Attackers> {
        let pod = match attack.by {
            By::Stranger => &self.world.attacker,
            By::Client => &self.world.client,
        };
        // Longer than the callers, so that they see nothing else.
        let seconds = self.args.seconds + 5.0;
        let mut command = child::launch(self.own);
        command.args(["--pid", &pod.pid.to_string(), "--"]).arg(self.own);
        command.args(["play", "attack", attack.name, "--seconds", &seconds.to_string(), "--files"]);
        command.arg(&self.world.files).arg("--token").arg(&self.world.token);
        command.args(["--victim", &self.world.victim.ip.to_string()]);
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
    /// Waits for their end; what they say they did.
    fn end(&mut self) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.child.ended()?.is_none() {
            ensure!(Instant::now() < deadline, "the attackers do not end");
            std::thread::sleep(LOOK);
        }
        said(&mut self.child)
    }
}

fn outcome(child: &mut Child) -> Result<Caller> {
    let line = said(child)?;
    serde_json::from_str(&line).with_context(|| format!("a good caller said `{line}`"))
}

fn said(child: &mut Child) -> Result<String> {
    let process = child.process();
    let (mut line, mut why) = (String::new(), String::new());
    process.stdout.take().context("a role without output")?.read_to_string(&mut line)?;
    process.stderr.take().context("a role without errors")?.read_to_string(&mut why)?;
    ensure!(!line.trim().is_empty(), "a role failed: {}", why.trim());
    Ok(line.trim().to_owned())
}
