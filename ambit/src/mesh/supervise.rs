//! Keeping one of the mesh's programs running.
use super::readiness::{self, Readiness};
use crate::exe;
use crate::pods::output::Log;
use crate::pods::plan::{Check, HttpGet};
use crate::pods::probe;
use crate::sys::children::{Child, Children, Exit};
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
    /// What `ps` shows in place of `ambit`: with the names of the mesh and of the program.
    pub(crate) title: String,
    /// Arguments of `ambit`: `["ztunnel"]`.
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) netns: Arc<OwnedFd>,
    pub(crate) log: Log,
    /// How long an instance that was told to end may take: longer than it gives its own connections.
    pub(crate) grace: Duration,
    /// What one running instance has for itself. With two of them the program can be replaced without a gap: the new
    /// instance runs beside the old one until it is ready.
    pub(crate) instances: Vec<Instance>,
}

/// What two instances of a program must not share.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    /// More settings.
    pub(crate) env: Vec<(String, String)>,
    /// Where it says that it is ready.
    pub(crate) readiness: Readiness,
}

impl From<Readiness> for Instance {
    fn from(readiness: Readiness) -> Self {
        Instance { env: Vec::new(), readiness }
    }
}

/// How a program is.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProgramState {
    /// While it runs.
    pub(crate) pid: Option<i32>,
    pub(crate) ready: bool,
    /// What it says while it runs and is not ready, once that has taken a moment.
    pub(crate) not_ready: Option<String>,
    pub(crate) restarts: u32,
    /// How it ended the last time, or why it did not start.
    pub(crate) last_end: Option<String>,
    /// The instance before this one, while it finishes its connections.
    pub(crate) draining: Option<i32>,
    /// Why it could not be replaced when that was last wished.
    pub(crate) not_replaced: Option<String>,
}

/// A supervised program.
#[derive(Debug)]
pub(crate) struct Supervised {
    pub(crate) name: String,
    state: Arc<Mutex<ProgramState>>,
    wish: Arc<Notify>,
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
        let (name, wish) = (program.name.clone(), Arc::new(Notify::new()));
        let supervisor = Supervisor { program, children, changed, state: Arc::clone(&state), wish: Arc::clone(&wish) };
        let done = tokio::spawn(supervisor.keep_running(stop));
        Supervised { name, state, wish, done }
    }

    /// Asks for a new instance in place of the one that runs. Its state says whether that succeeded.
    pub(crate) fn replace(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).not_replaced = None;
        self.wish.notify_one();
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

/// How long a new instance may take to be ready before the old one stays.
const READY: Duration = Duration::from_secs(30);
/// How long a program may take to end, unless it needs longer: what Kubernetes gives a pod.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
/// How long the last line of a program that has ended may take to arrive.
const LAST_LINE: Duration = Duration::from_secs(1);

/// An instance that runs.
struct Running {
    child: Child,
    last_line: tokio::task::JoinHandle<Option<String>>,
}

impl Running {
    /// How it ended by itself; its last line of output is given as the reason.
    async fn ended(&mut self) -> String {
        let exit = (&mut self.child.ended).await.unwrap_or(Exit::Signal(libc::SIGKILL));
        match timeout(LAST_LINE, &mut self.last_line).await {
            Ok(Ok(Some(line))) if !exit.is_success() => format!("{exit}: {line}"),
            _ => exit.to_string(),
        }
    }
}

/// How long a program may be not ready before it is asked why, and then each time again.
const EXPLAIN: Duration = Duration::from_secs(1);

/// What keeps one program running.
struct Supervisor {
    program: Program,
    children: Arc<Children>,
    changed: Arc<Notify>,
    state: Arc<Mutex<ProgramState>>,
    wish: Arc<Notify>,
}

/// A process that is killed unless it is kept.
struct Trial {
    child: Option<Running>,
    children: Arc<Children>,
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(running) = &self.child {
            self.children.signal(running.child.pid, Signal::KILL);
        }
    }
}

impl Supervisor {
    async fn keep_running(self, mut stop: watch::Receiver<Option<Duration>>) {
        let mut quick_ends = 0;
        let mut side = 0;
        let mut draining = None;
        loop {
            let started = Instant::now();
            let end = match self.start(side).await {
                Err(e) => format!("cannot start: {e}"),
                Ok(child) => match self.watch(child, &mut side, &mut draining, &mut stop).await {
                    Some(end) => end,
                    None => return,
                },
            };
            let name = &self.program.name;
            tracing::warn!("{name} ended: {end}");
            self.program.log.line(format!("--- ambit: {name} ended: {end}; it is started again\n").as_bytes());
            self.set(|s| {
                s.pid = None;
                s.ready = false;
                s.not_ready = None;
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

    /// Watches over an instance, and over its successors, until one ends by itself: says how. `None` when all was to
    /// stop, and has.
    async fn watch(
        &self,
        mut running: Running,
        side: &mut usize,
        draining: &mut Option<tokio::task::JoinHandle<()>>,
        stop: &mut watch::Receiver<Option<Duration>>,
    ) -> Option<String> {
        loop {
            self.set(|s| s.pid = Some(running.child.pid));
            let instances = &self.program.instances;
            let other = (*side + 1) % instances.len();
            let replaced = tokio::select! {
                end = running.ended() => return Some(end),
                never = self.keep_asking(instances[*side].readiness) => match never {},
                limit = told_to_stop(stop) => {
                    self.end(&mut running.child, limit).await;
                    return None;
                }
                successor = async {
                    self.wish.notified().await;
                    if instances.len() == 1 { Ok(None) } else { self.successor(other, draining).await.map(Some) }
                } => successor,
            };
            match replaced {
                // Both cannot run: the old one has to end first.
                Ok(None) => {
                    self.end(&mut running.child, self.program.grace).await;
                    match self.start(*side).await {
                        Ok(next) => running = next,
                        Err(e) => return Some(format!("cannot start: {e}")),
                    }
                    self.set(|s| (s.ready, s.restarts) = (false, s.restarts + 1));
                }
                Ok(Some(next)) => {
                    *side = other;
                    let old = std::mem::replace(&mut running, next);
                    self.set(|s| {
                        s.restarts += 1;
                        s.draining = Some(old.child.pid);
                    });
                    *draining = Some(self.drain(old.child));
                }
                Err(why) => {
                    tracing::warn!("{} is not replaced: {why}", self.program.name);
                    self.set(|s| s.not_replaced = Some(why.clone()));
                }
            }
        }
    }

    /// Starts the next instance and waits until it is ready.
    async fn successor(
        &self,
        side: usize,
        draining: &mut Option<tokio::task::JoinHandle<()>>,
    ) -> Result<Running, String> {
        if let Some(draining) = draining {
            // It has this side. A panic in it is logged by the runtime.
            let _ = draining.await;
        }
        *draining = None;
        let child = self.start(side).await.map_err(|e| format!("the new one cannot be started: {e}"))?;
        let mut trial = Trial { child: Some(child), children: Arc::clone(&self.children) };
        let mut answer = Err("it was not asked yet".to_owned());
        let ready = async {
            while answer.is_err() {
                sleep(Duration::from_millis(30)).await;
                answer = self.ask(self.program.instances[side].readiness).await;
            }
        };
        let ended = async {
            match &mut trial.child {
                Some(running) => running.ended().await,
                None => std::future::pending().await,
            }
        };
        let failed = tokio::select! {
            () = ready => None,
            end = ended => Some(format!("the new one ended: {end}")),
            () = sleep(READY) => Some(format!("the new one was not ready after {READY:?}")),
        };
        match (failed, trial.child.take()) {
            (None, Some(child)) => Ok(child),
            (why, child) => {
                trial.child = child;
                let said = answer.err().map_or_else(String::new, |e| format!(" ({e})"));
                Err(why.unwrap_or_default() + &said)
            }
        }
    }

    /// Lets an instance that has a successor finish.
    fn drain(&self, mut old: Child) -> tokio::task::JoinHandle<()> {
        let (children, state, changed) =
            (Arc::clone(&self.children), Arc::clone(&self.state), Arc::clone(&self.changed));
        let grace = self.program.grace;
        tokio::spawn(async move {
            let end = end(&children, &mut old, grace).await;
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            state.last_end = Some(end);
            state.draining = None;
            changed.notify_one();
        })
    }

    async fn end(&self, child: &mut Child, limit: Duration) {
        let end = end(&self.children, child, limit).await;
        self.set(|s| s.last_end = Some(end.clone()));
    }

    fn set(&self, change: impl Fn(&mut ProgramState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    async fn ask(&self, readiness: Readiness) -> Result<(), String> {
        let get = HttpGet { port: readiness.port, path: readiness.path.into(), ..HttpGet::default() };
        let check = Check::Http(get);
        let loopback = Ipv4Addr::LOCALHOST.into();
        probe::over_network(check, Arc::clone(&self.program.netns), loopback, Duration::from_secs(1)).await
    }

    async fn keep_asking(&self, readiness: Readiness) -> std::convert::Infallible {
        let (mut was_ready, mut since, mut said) = (None, Instant::now(), None);
        loop {
            let ready = self.ask(readiness).await.is_ok();
            if was_ready != Some(ready) {
                was_ready = Some(ready);
                (since, said) = (Instant::now(), None);
                self.set(|s| (s.ready, s.not_ready) = (ready, None));
            }
            // What starts has nothing to explain.
            if !ready && since.elapsed() > EXPLAIN {
                since = Instant::now();
                let says = Some(readiness::why_not(readiness, Arc::clone(&self.program.netns)).await);
                if says != said {
                    said = says;
                    self.set(|s| s.not_ready.clone_from(&said));
                }
            }
            // Until it is ready, people wait.
            sleep(Duration::from_millis(if ready { 1000 } else { 30 })).await;
        }
    }

    async fn start(&self, side: usize) -> std::io::Result<Running> {
        let program = &self.program;
        let own = program.instances[side].env.iter();
        let (output, last_line) = program.log.pipe_to_last("")?;
        let child = self
            .children
            .start(Launch {
                program: exe::own(),
                name: program.title.clone().into(),
                args: program.args.iter().map(Into::into).collect(),
                env: program.env.iter().chain(own).cloned().collect(),
                directory: None,
                output,
                netns: Arc::clone(&program.netns),
                pod: None,
            })
            .await?;
        Ok(Running { child, last_line })
    }
}

/// Asks a process to end, and makes it end after `limit`; says how it ended.
async fn end(children: &Children, child: &mut Child, limit: Duration) -> String {
    children.signal(child.pid, Signal::TERM);
    let exit = match timeout(limit, &mut child.ended).await {
        Ok(exit) => exit,
        Err(_) => {
            children.signal(child.pid, Signal::KILL);
            (&mut child.ended).await
        }
    };
    exit.unwrap_or(Exit::Signal(libc::SIGKILL)).to_string()
}

/// Resolves once it should stop, with how long it may take.
async fn told_to_stop(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    // If the sender is gone, the owner is gone: stop at once.
    stop.wait_for(Option::is_some).await.map_or(Duration::ZERO, |limit| limit.unwrap_or_default())
}
