//! One load: makes its connections, says it is ready, waits for the word, runs, says what came out, and stays until it
//! is let go. So whoever steers it can read the CPU clocks exactly around the run.
//!
//! On standard output: a line `ready`, then a line of JSON ([`Outcome`]). On standard input: a line to go on, then its end.
mod bulk;
mod hold;
mod requests;

use crate::cli::{Load, LoadKind};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::io::{BufRead as _, Write as _};
use std::time::Duration;

/// Longest wait for one answer; a proxy that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came out of a load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How long it really took.
    pub(crate) seconds: f64,
    /// Bytes of a bulk load; requests of the others.
    pub(crate) done: u64,
    /// What went wrong, counted; such requests are not in `done`.
    pub(crate) errors: u64,
    /// One of the errors.
    pub(crate) example: Option<String>,
    /// From sending a request (or opening its connection) to its whole answer.
    pub(crate) latency: Option<Latency>,
}

/// Percentiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
}

/// Runs one.
pub(crate) fn run(args: &Load) -> Result<()> {
    crate::launch::raise_descriptor_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let time = Duration::from_secs_f64(args.seconds);
    let outcome = match args.kind {
        LoadKind::Bulk => bulk::run(args.address(), time, wait_for_the_word)?,
        LoadKind::Hold { connections } => {
            // The connections stay open as long as we live, which is until standard input ends.
            let held = runtime.block_on(hold::open(args.address(), connections))?;
            wait_for_the_word()?;
            return wait_for_the_end(drop, held);
        }
        LoadKind::Http { connections } => {
            let clients = runtime.block_on(requests::connect_all(args.address(), connections))?;
            wait_for_the_word()?;
            runtime.block_on(requests::keep_alive(clients, time))
        }
        LoadKind::Connect { clients } => {
            runtime.block_on(requests::connect_all(args.address(), 1))?;
            wait_for_the_word()?;
            runtime.block_on(requests::connect_each(args.address(), clients, time))
        }
    };
    say(&serde_json::to_string(&outcome)?)?;
    wait_for_the_end(drop, ())
}

fn wait_for_the_word() -> Result<()> {
    say("ready")?;
    std::io::stdin().lock().read_line(&mut String::new()).context("nobody steers this load")?;
    Ok(())
}

fn wait_for_the_end<T>(let_go: impl FnOnce(T), held: T) -> Result<()> {
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())?;
    let_go(held);
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
