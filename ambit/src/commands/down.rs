//! `ambit down`.
use crate::cli::Down;
use crate::control::{self, Ask};
use crate::run_dir::RunDir;
use anyhow::{Result, bail};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Longer than a machine takes to end in good order.
const PATIENCE: Duration = Duration::from_secs(20);

#[allow(clippy::print_stdout, reason = "this is what the command shows its user")]
pub(super) fn run(args: &Down) -> Result<ExitCode> {
    let run = RunDir::of(&args.which.name)?;
    if !run.is_running()? {
        println!("mesh `{}` is not running", run.name());
        return Ok(ExitCode::SUCCESS);
    }
    control::ask(&run, &Ask::Down)?;
    let deadline = Instant::now() + PATIENCE;
    while run.is_running()? {
        if Instant::now() > deadline {
            bail!("mesh `{}` did not end in {PATIENCE:?}; end its `ambit up` process with SIGKILL", run.name());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("mesh `{}` has ended", run.name());
    Ok(ExitCode::SUCCESS)
}
