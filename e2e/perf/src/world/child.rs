//! Processes of ours. Each is started through `launch`, so that it ends with us however we end.
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a process may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// `perf launch`, to be given the rest of its arguments.
pub(crate) fn launch(own: &Path) -> Command {
    let mut command = Command::new(own);
    command.arg("launch");
    command
}

/// A process that is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
}

impl Child {
    /// Starts it with its output in a file.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Child { process: command.spawn().context("cannot start a process")? })
    }

    /// Starts it with its input and output in our hands.
    pub(crate) fn steer(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Child { process: command.spawn().context("cannot start a process")? })
    }

    /// Its process id; `launch` becomes the program, so it is the program's.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The process itself, for its pipes.
    pub(crate) fn process(&mut self) -> &mut std::process::Child {
        &mut self.process
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.try_wait().context("cannot wait for a process")
    }

    fn end(&mut self) -> io::Result<()> {
        drop(self.process.stdin.take());
        if self.process.try_wait()?.is_some() {
            return Ok(());
        }
        if let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + PATIENCE;
        while self.process.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.process.kill()?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It ends with us at the latest, by the death signal it was started with.
        let _ = self.end();
    }
}
