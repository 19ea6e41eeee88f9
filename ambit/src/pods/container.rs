//! One container of a pod: started, asked how it is, started again, ended.
use super::output::Log;
use super::plan::{self, Check, Hook, Plan, Probe, Program, Restart};
use super::probe;
use super::sandbox::Sandbox;
use super::state::{ProgramState, StateHandle};
use crate::sys::children::{self, Child, Children, Exit};
use crate::sys::launch::{Launch, PodWalls};
use rustix::process::Signal;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// What a program gets after its preStop hook at least, as from a kubelet.
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// Until it is ready for the first time, people wait: ask often.
const EAGER: Duration = Duration::from_millis(100);

/// Whether a container must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    NotYet,
    /// By then, at the latest.
    By(Instant),
}

impl End {
    /// Waits until it must end: it is told to, or the sender is gone.
    async fn told(ending: &mut watch::Receiver<End>) -> Instant {
        match ending.wait_for(|end| *end != End::NotYet).await.map(|end| *end) {
            Ok(End::By(deadline)) => deadline,
            _ => Instant::now(),
        }
    }
}

/// What all containers of a pod have in common.
pub(crate) struct PodContext {
    pub(crate) plan: Plan,
    pub(crate) hostname: String,
    pub(crate) ip: IpAddr,
    pub(crate) sandbox: Arc<Sandbox>,
    /// It is a program of the mesh: it reads what the mesh's programs tell each other, which is hidden from other pods.
    pub(crate) of_the_mesh: bool,
    pub(crate) node: Arc<OwnedFd>,
    pub(crate) log: Log,
    pub(crate) children: Arc<Children>,
    pub(crate) state: StateHandle,
}

/// A container of a pod.
pub(super) struct Container {
    pod: Arc<PodContext>,
    program: Program,
    /// Its place in the pod's state, unless it is an init container that runs to its end.
    number: Option<usize>,
}

/// How a run of a program ended.
enum Ended {
    /// By itself, or because it was no longer alive.
    Itself(Exit, Option<String>),
    /// It was told to.
    Told,
}

impl Container {
    pub(super) fn new(pod: Arc<PodContext>, program: Program, number: Option<usize>) -> Self {
        Self { pod, program, number }
    }

    /// Runs the program, and again as `restart` says, until it is over or told to end. `started` becomes true once it has
    /// started: its startup probe has passed, or it runs and has none.
    pub(super) async fn keep_running(
        &self,
        restart: Restart,
        mut ending: watch::Receiver<End>,
        started: &watch::Sender<bool>,
    ) {
        let mut quick_ends = 0;
        loop {
            let began = Instant::now();
            let end = match self.start().await {
                Ok(child) => match self.watch(child, &mut ending, started).await {
                    Ended::Itself(exit, why) => Ok((exit, why)),
                    Ended::Told => return,
                },
                Err(e) => Err(format!("cannot start {}: {e}", self.program.name)),
            };
            let success = end.as_ref().is_ok_and(|(exit, why)| exit.is_success() && why.is_none());
            let again = restart.again(success);
            let said = match &end {
                Ok((exit, None)) => format!("{} ended with {exit}", self.program.name),
                Ok((_, Some(why))) => format!("{} was ended: {why}", self.program.name),
                Err(why) => why.clone(),
            };
            self.say(&said);
            self.set(|state| {
                state.pid = None;
                state.ready = false;
                if again {
                    state.trouble = Some(said);
                    state.restarts += 1;
                } else {
                    state.trouble = (!success).then_some(said);
                    state.over = Some(end.map_or(Exit::Code(127), |(exit, _)| exit));
                }
            });
            if !again {
                return;
            }
            quick_ends = if began.elapsed() > Duration::from_secs(60) { 1 } else { quick_ends + 1 };
            tokio::select! {
                _ = End::told(&mut ending) => return,
                () = sleep(plan::back_off(quick_ends)) => {}
            }
        }
    }

    /// Starts the program.
    pub(super) async fn start(&self) -> std::io::Result<Child> {
        let several = self.pod.plan.programs.len() + self.pod.plan.first.len() > 1;
        let prefix = if several { format!("[{}] ", self.program.container) } else { String::new() };
        let file = self.program.program.clone().into_os_string();
        self.launch(&file, &self.program.args, self.pod.log.pipe(&prefix)?).await
    }

    async fn launch(&self, file: &OsStr, args: &[String], output: OwnedFd) -> std::io::Result<Child> {
        let pod = &self.pod;
        pod.children
            .start(Launch {
                program: file.into(),
                name: self.program.name.clone().into(),
                args: args.iter().map(Into::into).collect(),
                env: self.program.env.clone(),
                directory: self.program.directory.clone(),
                output,
                netns: Arc::clone(&pod.sandbox.netns),
                pod: (!pod.of_the_mesh)
                    .then(|| PodWalls { mounts: Arc::clone(&pod.sandbox.mounts), hostname: pod.hostname.clone() }),
            })
            .await
    }

    /// Watches a running program until it ends, is no longer alive, or is told to end.
    async fn watch(&self, mut child: Child, ending: &mut watch::Receiver<End>, started: &watch::Sender<bool>) -> Ended {
        let pid = child.pid;
        self.set(|state| state.pid = Some(pid));
        let why = tokio::select! {
            exit = &mut child.ended => return Ended::Itself(exit.unwrap_or(Exit::Signal(libc::SIGKILL)), None),
            why = self.attend(started) => why,
            deadline = End::told(ending) => {
                // It may serve to the end: a kubelet goes on asking whether it is ready, and nothing else.
                tokio::select! {
                    _ = self.end(child, deadline) => {}
                    never = self.keep_asking_ready() => match never {},
                }
                self.set(|state| (state.pid, state.ready) = (None, false));
                return Ended::Told;
            }
        };
        self.set(|state| state.ready = false);
        let exit = self.end(child, Instant::now() + self.pod.plan.grace).await;
        Ended::Itself(exit, Some(why))
    }

    /// Does and asks what belongs to a running container; returns why it must be started again.
    async fn attend(&self, started: &watch::Sender<bool>) -> String {
        if let Some(hook) = &self.program.hooks.post_start
            && let Err(why) = self.run(hook).await
        {
            return format!("its postStart hook failed: {why}");
        }
        if let Some(probe) = &self.program.probes.startup
            && let Err(why) = self.wait_for_start(probe).await
        {
            return why;
        }
        started.send_replace(true);
        if self.program.probes.readiness.is_none() {
            self.say_ready(None);
        }
        tokio::select! {
            why = self.stay_alive() => why,
            never = self.keep_asking_ready() => match never {},
        }
    }

    /// Asks more often than a kubelet, because people wait; it has as long as a kubelet gives it.
    async fn wait_for_start(&self, probe: &Probe) -> Result<(), String> {
        sleep(probe.initial_delay).await;
        let (began, patience) = (Instant::now(), probe.period.saturating_mul(probe.failures));
        loop {
            let Err(why) = self.ask(&probe.check, probe.timeout).await else { return Ok(()) };
            if began.elapsed() >= patience {
                return Err(format!("its startupProbe failed: {why}"));
            }
            self.say_ready(Some(format!("has not started: {why}")));
            sleep(EAGER.min(probe.period)).await;
        }
    }

    /// Returns why the program counts as dead.
    async fn stay_alive(&self) -> String {
        let Some(probe) = &self.program.probes.liveness else { return std::future::pending().await };
        sleep(probe.initial_delay).await;
        let mut failures = 0;
        loop {
            match self.ask(&probe.check, probe.timeout).await {
                Ok(()) => failures = 0,
                Err(why) => {
                    failures += 1;
                    if failures >= probe.failures {
                        return format!("its livenessProbe failed: {why}");
                    }
                }
            }
            sleep(probe.period).await;
        }
    }

    async fn keep_asking_ready(&self) -> Infallible {
        let Some(probe) = &self.program.probes.readiness else { return std::future::pending().await };
        sleep(probe.initial_delay).await;
        let (mut failures, mut successes, mut was_ready) = (0, 0, false);
        loop {
            match self.ask(&probe.check, probe.timeout).await {
                Ok(()) => {
                    (failures, successes) = (0, successes + 1);
                    if !was_ready && successes >= probe.successes {
                        was_ready = true;
                        self.say_ready(None);
                    }
                }
                Err(why) => {
                    (failures, successes) = (failures + 1, 0);
                    if !was_ready || failures == probe.failures {
                        was_ready = false;
                        self.say_ready(Some(format!("not ready: {why}")));
                    }
                }
            }
            sleep(if was_ready { probe.period } else { EAGER }).await;
        }
    }

    /// Ends a running program: its preStop hook, SIGTERM, and SIGKILL when `deadline` has come.
    pub(super) async fn end(&self, mut child: Child, deadline: Instant) -> Exit {
        let mut deadline = deadline;
        if let Some(hook) = &self.program.hooks.pre_stop {
            tokio::select! {
                exit = &mut child.ended => return exit.unwrap_or(Exit::Signal(libc::SIGKILL)),
                done = self.run(hook) => if let Err(why) = done {
                    self.say(&format!("the preStop hook failed: {why}"));
                },
                () = sleep_until(deadline) => self.say("the preStop hook took longer than the grace period"),
            }
            deadline = deadline.max(Instant::now() + LEAST_GRACE);
        }
        if children::handles_term(child.pid) {
            self.pod.children.signal(child.pid, Signal::TERM);
            if let Ok(exit) = timeout_at(deadline, &mut child.ended).await {
                return exit.unwrap_or(Exit::Signal(libc::SIGKILL));
            }
        }
        self.pod.children.signal(child.pid, Signal::KILL);
        child.ended.await.unwrap_or(Exit::Signal(libc::SIGKILL))
    }

    async fn run(&self, hook: &Hook) -> Result<(), String> {
        match hook {
            Hook::Sleep(time) => {
                sleep(*time).await;
                Ok(())
            }
            Hook::Check(check) => self.ask(check, self.pod.plan.grace.max(LEAST_GRACE)).await,
        }
    }

    async fn ask(&self, check: &Check, limit: Duration) -> Result<(), String> {
        match check {
            Check::Exec { command } => self.ask_inside(command, limit).await,
            check => probe::over_network(check.clone(), Arc::clone(&self.pod.node), self.pod.ip, limit).await,
        }
    }

    async fn ask_inside(&self, command: &[String], limit: Duration) -> Result<(), String> {
        let (Some(file), args) = (command.first(), command.get(1..).unwrap_or_default()) else {
            return Err("the command is empty".into());
        };
        let file = if file == "ambit" { crate::exe::own().into_os_string() } else { file.into() };
        let output = self.pod.log.pipe("[probe] ").map_err(|e| e.to_string())?;
        let mut child = Stopped(self, Some(self.launch(&file, args, output).await.map_err(|e| e.to_string())?));
        let Some(running) = &mut child.1 else { return Err("lost".into()) };
        match tokio::time::timeout(limit, &mut running.ended).await {
            Ok(ended) => {
                child.1 = None;
                match ended {
                    Ok(exit) if exit.is_success() => Ok(()),
                    Ok(exit) => Err(format!("{} ended with {exit}", command.join(" "))),
                    Err(_) => Err(format!("{} was lost", command.join(" "))),
                }
            }
            Err(_) => Err(format!("{} took longer than {limit:?}", command.join(" "))),
        }
    }

    fn say_ready(&self, trouble: Option<String>) {
        self.set(|state| {
            state.ready = trouble.is_none();
            state.trouble = trouble;
        });
    }

    fn say(&self, what: &str) {
        self.pod.log.line(format!("--- ambit: {what}\n").as_bytes());
    }

    fn set(&self, change: impl FnOnce(&mut ProgramState)) {
        let Some(number) = self.number else { return };
        self.pod.state.set(|s| {
            if let Some(state) = s.programs.get_mut(number) {
                change(state);
            }
            s.settle();
        });
    }
}

/// A command of a probe or hook; killed when the probe or hook is dropped.
struct Stopped<'a>(&'a Container, Option<Child>);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if let Some(child) = &self.1 {
            self.0.pod.children.signal(child.pid, Signal::KILL);
        }
    }
}
