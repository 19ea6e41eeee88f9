//! The benchmark: pods talking directly, through Ambit, and through Envoy, measured side by side in one run.
//!
//! Three *worlds* of the same shape are up at once, each a machine of `ambit up` with its own networks: `direct` has no
//! mesh, `ambit` is the real mesh, `envoy` has one Envoy per pod behind the same redirection. Every *case* is run in
//! every world in turn, the order rotates, and ratios are taken within one round: what disturbs the machine then
//! disturbs all sides of a ratio.
//!
//! | module | question |
//! |---|---|
//! | `cli` | what was asked |
//! | `cases` | what is measured, in which order (pure) |
//! | `world` | three pods on two nodes, and the proxies between them |
//! | `interrupt` | leaving nothing behind at Ctrl-C |
//! | `launch` | starting a program inside a pod's namespaces |
//! | `load`, `serve`, `wire` | the load and its servers: this binary again, inside the pods |
//! | `processes` | CPU and memory of a process, from `/proc` |
//! | `measure` | one case in one world |
//! | `statistics` | medians, spreads, ratios within a round (pure) |
//! | `report` | the tables, the JSON, the page in `docs` |
//! | `abuse` | another run: attackers beside good callers |
//! | `control_plane` | another run: a large mesh and many subscribers |
//!
//! Begin with `bench::run`. A first word that is none of ours is a command of `ambit`, which is how the worlds start
//! their programs.
mod abuse;
mod bench;
mod cases;
mod cli;
mod control_plane;
mod interrupt;
mod launch;
mod load;
mod machine;
mod measure;
mod processes;
mod report;
mod serve;
mod statistics;
mod wire;
mod world;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let first = std::env::args().nth(1);
    if first.as_deref().is_some_and(is_for_ambit) {
        return ambit::main_from(std::env::args_os());
    }
    let cli = cli::Cli::parse();
    let done = match &cli.role {
        None => bench::run(&cli.bench),
        Some(cli::Role::Abuse(args)) => abuse::run(args),
        Some(cli::Role::Play(role)) => abuse::play(role),
        Some(cli::Role::ControlPlane(args)) => control_plane::run(args),
        Some(cli::Role::Subscribe(args)) => control_plane::subscribe(args),
        Some(cli::Role::Serve(args)) => serve::run(args),
        Some(cli::Role::Load(args)) => load::run(args),
        Some(cli::Role::Launch(args)) => launch::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say_error(&e);
            ExitCode::FAILURE
        }
    }
}

/// Whether the first argument is a command of `ambit`, not an option or a role of ours.
fn is_for_ambit(first: &str) -> bool {
    !first.starts_with('-') && !cli::ROLES.contains(&first)
}

#[allow(clippy::print_stderr, reason = "the last word of a command to its user")]
fn say_error(e: &anyhow::Error) {
    eprintln!("perf: {e:#}");
}
