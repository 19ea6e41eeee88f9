//! One owner for the ends of all our processes: as process 1 of the machine we must also reap processes that we did not start.
use super::launch::{self, Launch};
use rustix::process::{Pid, Signal, WaitOptions};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// Zero and nothing else.
    pub(crate) fn is_success(self) -> bool {
        self == Exit::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exit code {code}"),
            Exit::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// The processes we started and have not reaped yet.
#[derive(Debug, Default)]
pub(crate) struct Children {
    waiting: Mutex<HashMap<i32, oneshot::Sender<Exit>>>,
}

/// A started process.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its process id as we see it.
    pub(crate) pid: i32,
    /// Says how it ended.
    pub(crate) ended: oneshot::Receiver<Exit>,
}

impl Children {
    /// Starts a program and will report its end.
    pub(crate) async fn start(self: &Arc<Self>, launch: Launch) -> io::Result<Child> {
        let children = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            // Held across the start: no process may be reaped before it is known here, nor the half-started one
            // whose exec failed, which the standard library waits for itself.
            let mut waiting = children.waiting();
            let pid = i32::try_from(launch::start(launch)?).map_err(io::Error::other)?;
            let (sender, ended) = oneshot::channel();
            waiting.insert(pid, sender);
            Ok(Child { pid, ended })
        })
        .await
        .map_err(io::Error::other)?
    }

    /// Sends a signal, if the process is still there: never to a stranger that got its number.
    pub(crate) fn signal(&self, pid: i32, signal: Signal) {
        let waiting = self.waiting();
        if waiting.contains_key(&pid)
            && let Some(pid) = Pid::from_raw(pid)
        {
            // It may be a zombie that is not reaped yet; then there is nothing to end.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// Reaps processes until the runtime stops.
    pub(crate) async fn reap_forever(self: Arc<Self>) -> io::Result<()> {
        let mut deaths = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())?;
        loop {
            self.reap();
            deaths.recv().await;
        }
    }

    fn reap(&self) {
        let mut waiting = self.waiting();
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let exit = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => continue,
            };
            if let Some(sender) = waiting.remove(&pid.as_raw_nonzero().get()) {
                // The receiver is gone when its owner was stopped first.
                let _ = sender.send(exit);
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<i32, oneshot::Sender<Exit>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a process would do something of its own on SIGTERM. Process 1 of a pid namespace that has no handler does
/// not even die of it, so there is no use in waiting.
pub(crate) fn handles_term(pid: i32) -> bool {
    const TERM: u64 = 1 << (libc::SIGTERM - 1);
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & TERM != 0)
}
