//! `ambit status`.
use crate::cli::{Output, StatusArgs};
use crate::control;
use crate::run_dir::RunDir;
use crate::status::{Status, Width};
use anyhow::Result;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[allow(clippy::print_stdout, reason = "this is what the command shows its user")]
pub(super) fn run(args: &StatusArgs) -> Result<ExitCode> {
    let run = RunDir::of(&args.which.name)?;
    let deadline = args.wait.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let status = loop {
        let status = control::status(&run);
        let done = status.as_ref().is_ok_and(|s| s.ready) || deadline.is_none_or(|d| Instant::now() > d);
        if done {
            break status?;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    match args.output {
        Output::Table => print!("{}", status.for_terminal(Width::Narrow)),
        Output::Wide => print!("{}", status.for_terminal(Width::Wide)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
    }
    if args.wait.is_some() && !status.ready { Ok(ExitCode::FAILURE) } else { Ok(well(&status)) }
}

/// The exit code of a mesh that runs and of whose folder something is refused.
const REFUSED: u8 = 3;

/// Whether a mesh that runs is as its folder says.
pub(super) fn well(status: &Status) -> ExitCode {
    if status.alarm().is_some() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS }
}
