//! Keeping one of the mesh's programs running.
use crate::exe;
use crate::pods::output::Log;
use crate::pods::plan::Check;
use crate::pods::probe;
use crate::sys::children::{Children, Exit};
use crate::sys::launch::Launch;
use rustix::process::Signal;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

/// A program of the mesh and how it is started.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// For people and for its log: `ztunnel-node1`.
    pub(crate) name: String,
    /// Arguments of `ambit`: `["ztunnel"]`.
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) netns: Arc<OwnedFd>,
    pub(crate) log: Log,
    /// Where it says that it is ready.
    pub(crate) readiness: Readiness,
}

/// An HTTP endpoint on the loopback of the program's network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Readiness {
    pub(crate) port: u16,
    pub(crate) path: &'static str,
}

/// How a program is.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProgramState {
    /// While it runs.
    pub(crate) pid: Option<i32>,
    pub(crate) ready: bool,
    pub(crate) restarts: u32,
    /// How it ended the last time, or why it did not start.
    pub(crate) last_end: Option<String>,
}

/// A supervised program.
#[derive(Debug)]
pub(crate) struct Supervised {
    pub(crate) name: String,
    state: Arc<Mutex<ProgramState>>,
    done: tokio::task::JoinHandle<()>,
}

impl Supervised {
    /// Starts it and keeps it running until `stop` says otherwise. `changed` is notified when its state changes.
    pub(crate) fn start(
        program: Program,
        children: Arc<Children>,
        changed: Arc<Notify>,
        stop: watch::Receiver<Option<Duration>>,
    ) -> Self {
        let state = Arc::<Mutex<ProgramState>>::default();
        let name = program.name.clone();
        let done = tokio::spawn(keep_running(program, children, changed, stop, Arc::clone(&state)));
        Supervised { name, state, done }
    }

    /// How it is now.
    pub(crate) fn state(&self) -> ProgramState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has stopped.
    pub(crate) async fn stopped(self) {
        // A panic in the supervisor is logged by the runtime; the machine's end takes the program along.
        let _ = self.done.await;
    }
}

/// Pause before a restart; doubles from a tenth of a second to five.
fn back_off(quick_ends: u32) -> Duration {
    Duration::from_millis(100 << quick_ends.min(6)).min(Duration::from_secs(5))
}

async fn keep_running(
    program: Program,
    children: Arc<Children>,
    changed: Arc<Notify>,
    mut stop: watch::Receiver<Option<Duration>>,
    state: Arc<Mutex<ProgramState>>,
) {
    let set = |change: &dyn Fn(&mut ProgramState)| {
        change(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_one();
    };
    let mut quick_ends = 0;
    loop {
        let started = Instant::now();
        let end = match start(&program, &children).await {
            Err(e) => format!("cannot start: {e}"),
            Ok(mut child) => {
                set(&|s| s.pid = Some(child.pid));
                tokio::select! {
                    exit = &mut child.ended => exit.unwrap_or(Exit::Signal(libc::SIGKILL)).to_string(),
                    never = keep_asking(&program, &set) => match never {},
                    limit = told_to_stop(&mut stop) => {
                        children.signal(child.pid, Signal::TERM);
                        if timeout(limit, &mut child.ended).await.is_err() {
                            children.signal(child.pid, Signal::KILL);
                            let _ = child.ended.await;
                        }
                        return;
                    }
                }
            }
        };
        tracing::warn!("{} ended: {end}", program.name);
        program.log.line(format!("--- ambit: {} ended: {end}; it is started again\n", program.name).as_bytes());
        set(&|s| {
            s.pid = None;
            s.ready = false;
            s.restarts += 1;
            s.last_end = Some(end.clone());
        });
        quick_ends = if started.elapsed() > Duration::from_secs(10) { 0 } else { quick_ends + 1 };
        tokio::select! {
            _ = told_to_stop(&mut stop) => return,
            () = sleep(back_off(quick_ends)) => {}
        }
    }
}

async fn keep_asking(program: &Program, set: &impl Fn(&dyn Fn(&mut ProgramState))) -> std::convert::Infallible {
    let check = Check::Http { port: program.readiness.port, path: program.readiness.path.into(), host: None };
    let mut was_ready = false;
    loop {
        let loopback = Ipv4Addr::LOCALHOST.into();
        let answer =
            probe::over_network(check.clone(), Arc::clone(&program.netns), loopback, Duration::from_secs(1)).await;
        if answer.is_ok() != was_ready {
            was_ready = answer.is_ok();
            set(&|s| s.ready = was_ready);
        }
        // Until it is ready, people wait.
        sleep(Duration::from_millis(if was_ready { 1000 } else { 30 })).await;
    }
}

/// Resolves once it should stop, with how long it may take.
async fn told_to_stop(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    // Nobody left to tell us means stop at once.
    stop.wait_for(Option::is_some).await.map_or(Duration::ZERO, |limit| limit.unwrap_or_default())
}

async fn start(program: &Program, children: &Arc<Children>) -> std::io::Result<crate::sys::children::Child> {
    children
        .start(Launch {
            program: exe::own(),
            name: "ambit".into(),
            args: program.args.iter().map(Into::into).collect(),
            env: program.env.clone(),
            directory: None,
            output: program.log.pipe("")?,
            netns: Arc::clone(&program.netns),
            pod: None,
        })
        .await
}
