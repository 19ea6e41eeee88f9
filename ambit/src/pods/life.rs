//! One pod's life: let into the mesh if it belongs there, started, watched, restarted, stopped.
use super::output::Log;
use super::plan::{self, Check, Plan, Program};
use super::probe;
use super::sandbox::Sandbox;
use crate::mesh::plugin::Admission;
use crate::sys::children::{self, Child, Children, Exit};
use crate::sys::launch::{Launch, PodWalls};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

/// Kubernetes' word for where a pod is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Phase {
    /// Not started yet, or it cannot be.
    #[default]
    Pending,
    /// At least one program runs or will be started again.
    Running,
    /// All programs ended well and stay ended.
    Succeeded,
    /// All programs ended, one of them badly, and stay ended.
    Failed,
}

impl Phase {
    /// The word itself.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }
}

/// How one program of a pod is.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProgramState {
    pub(crate) container: String,
    /// While it runs.
    pub(crate) pid: Option<i32>,
    pub(crate) ready: bool,
    pub(crate) restarts: u32,
    /// How it ended for good.
    pub(crate) over: Option<Exit>,
    /// What is wrong at the moment, for people.
    pub(crate) trouble: Option<String>,
}

/// How a pod is.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodState {
    pub(crate) phase: Phase,
    /// Why it waits, if it does.
    pub(crate) waiting: Option<String>,
    pub(crate) programs: Vec<ProgramState>,
}

impl PodState {
    /// Ready as a whole.
    pub(crate) fn ready(&self) -> bool {
        self.phase == Phase::Running && !self.programs.is_empty() && self.programs.iter().all(|p| p.ready)
    }

    /// What is wrong at the moment, if anything.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.waiting
            .clone()
            .or_else(|| self.programs.iter().find_map(|p| p.trouble.as_ref().map(|t| format!("{}: {t}", p.container))))
    }

    fn settle(&mut self) {
        if self.programs.iter().all(|p| p.over.is_some()) {
            let good = self.programs.iter().all(|p| p.over.is_some_and(Exit::is_success));
            self.phase = if good { Phase::Succeeded } else { Phase::Failed };
        }
    }
}

/// A pod's state, shared between its life and who reports on it.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    state: Arc<Mutex<PodState>>,
    changed: Arc<Notify>,
}

impl Shared {
    /// `changed` is notified after every change.
    pub(crate) fn new(changed: Arc<Notify>) -> Self {
        Shared { state: Arc::default(), changed }
    }

    /// A copy of how it is now.
    pub(crate) fn get(&self) -> PodState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it.
    pub(crate) fn set(&self, change: impl FnOnce(&mut PodState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }
}

/// Everything a life needs.
pub(crate) struct Life {
    pub(crate) plan: Plan,
    pub(crate) hostname: String,
    pub(crate) ip: IpAddr,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) node: Arc<OwnedFd>,
    pub(crate) log: Log,
    pub(crate) children: Arc<Children>,
    pub(crate) shared: Shared,
    /// Whether the mesh must take it first.
    pub(crate) admission: watch::Receiver<Admission>,
    /// Becomes the longest time to wait when it must end.
    pub(crate) stop: watch::Receiver<Option<Duration>>,
}

impl Life {
    /// Lives until told to stop. When this returns no process of the pod is left.
    pub(crate) async fn live(self) {
        self.shared.set(|s| {
            s.programs = self
                .plan
                .programs
                .iter()
                .map(|p| ProgramState { container: p.container.clone(), ..ProgramState::default() })
                .collect();
        });
        if !self.be_admitted().await || !self.go_first().await {
            return;
        }
        self.shared.set(|s| {
            s.phase = Phase::Running;
            s.waiting = None;
        });
        let life = Arc::new(self);
        let mut programs = tokio::task::JoinSet::new();
        for number in 0..life.plan.programs.len() {
            let life = Arc::clone(&life);
            programs.spawn(async move { life.keep_running(number).await });
        }
        programs.join_all().await;
        life.stopped().await;
    }

    /// Fail closed: a pod that belongs to the mesh does not start before the node's agent has taken it. `false` if it
    /// was stopped while waiting.
    async fn be_admitted(&self) -> bool {
        let mut stop = self.stop.clone();
        let mut pause = Duration::from_millis(50);
        loop {
            let admission = self.admission.borrow().clone();
            let Err(why) = admission.ask().await else { return true };
            tracing::info!("pod {} waits: {why}", self.hostname);
            self.shared.set(|s| s.waiting = Some(why));
            tokio::select! {
                _ = stop.wait_for(Option::is_some) => return false,
                () = sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
            }
        }
    }

    /// Runs the init containers, one after the other. `false` if the pod must not go on.
    async fn go_first(&self) -> bool {
        for program in &self.plan.first {
            let mut attempt = 0;
            loop {
                let end = match self.start(program).await {
                    Err(e) => format!("cannot start: {e}"),
                    Ok(mut child) => tokio::select! {
                        exit = &mut child.ended => match exit.unwrap_or(Exit::Signal(libc::SIGKILL)) {
                            exit if exit.is_success() => break,
                            exit => format!("ended with {exit}"),
                        },
                        () = self.stopped() => {
                            self.end(child).await;
                            return false;
                        }
                    },
                };
                let why = format!("init container {} {end}", program.container);
                self.log.line(format!("--- ambit: {why}\n").as_bytes());
                let again = self.plan.restart.again(false);
                self.shared.set(|s| {
                    s.waiting = Some(why);
                    s.phase = if again { Phase::Pending } else { Phase::Failed };
                });
                attempt += 1;
                tokio::select! {
                    () = self.stopped() => return false,
                    () = sleep(plan::back_off(attempt)), if again => {}
                }
            }
        }
        true
    }

    async fn stopped(&self) {
        // An error means the owner is gone, which is a stop too.
        let _ = self.stop.clone().wait_for(Option::is_some).await;
    }

    async fn keep_running(&self, number: usize) {
        let program = &self.plan.programs[number];
        let mut quick_ends = 0;
        loop {
            let started = Instant::now();
            let end = match self.start(program).await {
                Ok(child) => match self.watch(number, child).await {
                    Some(exit) => Ok(exit),
                    None => return,
                },
                Err(e) => Err(format!("cannot start {}: {e}", program.name)),
            };
            let again = self.plan.restart.again(end.as_ref().is_ok_and(|e| e.is_success()));
            let said = match &end {
                Ok(exit) => format!("{} ended with {exit}", program.name),
                Err(why) => why.clone(),
            };
            self.log.line(format!("--- ambit: {said}\n").as_bytes());
            self.shared.set(|s| {
                let state = &mut s.programs[number];
                state.pid = None;
                state.ready = false;
                if again {
                    state.trouble = Some(said);
                    state.restarts += 1;
                } else {
                    state.trouble = (!end.as_ref().is_ok_and(|e| e.is_success())).then_some(said);
                    state.over = Some(end.unwrap_or(Exit::Code(127)));
                }
                s.settle();
            });
            if !again {
                return;
            }
            quick_ends = if started.elapsed() > Duration::from_secs(60) { 1 } else { quick_ends + 1 };
            tokio::select! {
                () = self.stopped() => return,
                () = sleep(plan::back_off(quick_ends)) => {}
            }
        }
    }

    async fn start(&self, program: &Program) -> std::io::Result<Child> {
        let prefix = if self.plan.programs.len() > 1 { format!("[{}] ", program.container) } else { String::new() };
        self.launch(program, &program.program.clone().into_os_string(), &program.args, self.log.pipe(&prefix)?).await
    }

    async fn launch(
        &self,
        program: &Program,
        file: &std::ffi::OsStr,
        args: &[String],
        output: OwnedFd,
    ) -> std::io::Result<Child> {
        self.children
            .start(Launch {
                program: file.into(),
                name: program.name.clone().into(),
                args: args.iter().map(Into::into).collect(),
                env: program.env.clone(),
                directory: program.directory.clone(),
                output,
                netns: Arc::clone(&self.sandbox.netns),
                pod: Some(PodWalls { mounts: Arc::clone(&self.sandbox.mounts), hostname: self.hostname.clone() }),
            })
            .await
    }

    /// Watches a running program. `None` if it had to be stopped.
    async fn watch(&self, number: usize, mut child: Child) -> Option<Exit> {
        let program = &self.plan.programs[number];
        self.shared.set(|s| {
            s.programs[number].pid = Some(child.pid);
            s.programs[number].ready = program.readiness.is_none();
            if program.readiness.is_none() {
                s.programs[number].trouble = None;
            }
        });
        tokio::select! {
            exit = &mut child.ended => Some(exit.unwrap_or(Exit::Signal(libc::SIGKILL))),
            never = self.keep_asking(number) => match never {},
            () = self.stopped() => {
                self.end(child).await;
                self.shared.set(|s| {
                    s.programs[number].pid = None;
                    s.programs[number].ready = false;
                });
                None
            }
        }
    }

    async fn end(&self, mut child: Child) {
        let limit = self.stop.borrow().unwrap_or_default().min(self.plan.grace);
        if children::handles_term(child.pid) {
            self.children.signal(child.pid, Signal::TERM);
            if timeout(limit, &mut child.ended).await.is_ok() {
                return;
            }
        }
        self.children.signal(child.pid, Signal::KILL);
        let _ = child.ended.await;
    }

    async fn keep_asking(&self, number: usize) -> std::convert::Infallible {
        let program = &self.plan.programs[number];
        let Some(readiness) = &program.readiness else { return std::future::pending().await };
        sleep(readiness.initial_delay).await;
        let (mut failures, mut was_ready) = (0, false);
        loop {
            let answer = match &readiness.check {
                Check::Exec { command } => self.ask_inside(program, command, readiness.timeout).await,
                check => probe::over_network(check.clone(), Arc::clone(&self.node), self.ip, readiness.timeout).await,
            };
            match answer {
                Ok(()) => {
                    failures = 0;
                    if !was_ready {
                        was_ready = true;
                        self.say_ready(number, None);
                    }
                }
                Err(why) => {
                    failures += 1;
                    if !was_ready || failures == readiness.failures {
                        was_ready = false;
                        self.say_ready(number, Some(format!("not ready: {why}")));
                    }
                }
            }
            // Until it is ready for the first time, people wait: ask often.
            sleep(if was_ready { readiness.period } else { Duration::from_millis(100) }).await;
        }
    }

    fn say_ready(&self, number: usize, trouble: Option<String>) {
        self.shared.set(|s| {
            let state = &mut s.programs[number];
            state.ready = trouble.is_none();
            state.trouble = trouble;
        });
    }

    async fn ask_inside(&self, program: &Program, command: &[String], limit: Duration) -> Result<(), String> {
        let (Some(file), args) = (command.first(), command.get(1..).unwrap_or_default()) else {
            return Err("its readinessProbe has an empty command".into());
        };
        let file = if file == "ambit" { crate::exe::own().into_os_string() } else { file.into() };
        let output = self.log.pipe("[probe] ").map_err(|e| e.to_string())?;
        let mut child = self.launch(program, &file, args, output).await.map_err(|e| e.to_string())?;
        match timeout(limit, &mut child.ended).await {
            Ok(Ok(exit)) if exit.is_success() => Ok(()),
            Ok(Ok(exit)) => Err(format!("its probe ended with {exit}")),
            Ok(Err(_)) => Err("its probe was lost".into()),
            Err(_) => {
                self.children.signal(child.pid, Signal::KILL);
                Err(format!("its probe took longer than {limit:?}"))
            }
        }
    }
}
