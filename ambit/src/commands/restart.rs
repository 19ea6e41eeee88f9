//! `ambit restart`.
use crate::cli::Restart;
use crate::control::{self, Ask};
use crate::run_dir::RunDir;
use crate::status::ProgramStatus;
use anyhow::{Context, Result, bail};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Longer than the mesh gives a new instance to be ready, and an old one to end.
const PATIENCE: Duration = Duration::from_secs(70);

/// Returns once the new instance is ready. The old one may still be finishing its connections.
#[allow(clippy::print_stdout, reason = "this is what the command shows its user")]
pub(super) fn run(args: &Restart) -> Result<ExitCode> {
    let run = RunDir::of(&args.which.name)?;
    let name = &args.program;
    let look = || -> Result<Option<ProgramStatus>> {
        Ok(control::status(&run)?.programs.into_iter().find(|p| p.name == *name))
    };
    let before = look()?;
    control::ask(&run, &Ask::Restart { program: name.clone() })?;
    let before = before.with_context(|| format!("there was no program {name}"))?;
    if let Some(pid) = before.draining {
        println!(
            "{name}: waits until the one before (process {pid}) has finished its connections, or its time to do so is over"
        );
    }
    let mut deadline = Instant::now() + PATIENCE;
    loop {
        let now = look()?.with_context(|| format!("there is no program {name} any more"))?;
        if let Some(why) = now.not_replaced {
            bail!("{name} is not replaced, the one that ran goes on: {why}. See: ambit logs {name}");
        }
        if now.restarts > before.restarts && now.pid.is_some() && now.ready {
            match now.draining {
                Some(_) => println!("{name} is replaced; the one before it finishes its connections"),
                None => println!("{name} is replaced"),
            }
            return Ok(ExitCode::SUCCESS);
        }
        if before.draining.is_some() && now.draining == before.draining {
            // It has a time limit of its own.
            deadline = Instant::now() + PATIENCE;
        }
        if Instant::now() > deadline {
            bail!("{name} was not ready {PATIENCE:?} after it was to be replaced. See: ambit logs {name}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
