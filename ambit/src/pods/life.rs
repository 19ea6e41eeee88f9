//! One pod's life: let into the mesh if it belongs there, started, watched, restarted, stopped.
use super::container::{Container, End};
use super::output::Log;
use super::plan::{self, Init, Plan, Program};
use super::sandbox::Sandbox;
use crate::mesh::plugin::Admission;
use crate::sys::children::{Children, Exit};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

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
    /// An init container that runs beside the others.
    pub(crate) sidecar: bool,
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

    /// A pod is over when its containers are. Sidecars do not keep it, but while one still runs the pod has not ended: it
    /// has its address and its identity, and the mesh knows it.
    pub(super) fn settle(&mut self) {
        let containers = || self.programs.iter().filter(|p| !p.sidecar);
        let sidecars_ended = self.programs.iter().all(|p| !p.sidecar || p.pid.is_none());
        if sidecars_ended && containers().all(|p| p.over.is_some()) {
            let good = containers().all(|p| p.over.is_some_and(Exit::is_success));
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

/// A sidecar that runs.
struct Sidecar {
    end: watch::Sender<End>,
    task: JoinHandle<()>,
}

impl Life {
    /// Lives until told to stop. When this returns no process of the pod is left.
    ///
    /// The order is a kubelet's: init containers one after the other, of which sidecars go on beside the containers; at the end
    /// the containers first, then the sidecars from the last to the first.
    pub(crate) async fn live(self) {
        let life = Arc::new(self);
        let state = |program: &Program, sidecar| ProgramState {
            container: program.container.clone(),
            sidecar,
            ..ProgramState::default()
        };
        let containers = life.plan.programs.iter().map(|program| state(program, false));
        life.shared.set(|s| s.programs = containers.chain(life.sidecars().map(|p| state(p, true))).collect());
        let mut sidecars = Vec::new();
        if life.be_admitted().await && life.begin(&mut sidecars).await {
            life.shared.set(|s| {
                s.phase = Phase::Running;
                s.waiting = None;
            });
            life.run_containers().await;
        }
        while let Some(sidecar) = sidecars.pop() {
            sidecar.end.send_replace(End::By(life.deadline()));
            // A panic there is logged; the pod goes on ending.
            let _ = sidecar.task.await;
        }
        life.stopped().await;
    }

    /// The init containers that go on beside the containers, in their order; `programs` of the state lists them last.
    fn sidecars(&self) -> impl Iterator<Item = &Program> {
        self.plan.first.iter().filter_map(|first| match first {
            Init::Sidecar(program) => Some(program),
            Init::ToItsEnd(_) => None,
        })
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

    /// Goes through the init containers, one after the other. `false` if the pod must not go on.
    async fn begin(self: &Arc<Self>, sidecars: &mut Vec<Sidecar>) -> bool {
        for first in &self.plan.first {
            let going_on = match first {
                Init::ToItsEnd(program) => self.run_to_its_end(program).await,
                Init::Sidecar(program) => self.start_sidecar(program, sidecars).await,
            };
            if !going_on {
                return false;
            }
        }
        true
    }

    async fn run_to_its_end(self: &Arc<Self>, program: &Program) -> bool {
        let container = Container::new(Arc::clone(self), program.clone(), None);
        let mut attempt = 0;
        loop {
            let end = match container.start().await {
                Err(e) => format!("cannot start: {e}"),
                Ok(mut child) => tokio::select! {
                    exit = &mut child.ended => match exit.unwrap_or(Exit::Signal(libc::SIGKILL)) {
                        exit if exit.is_success() => return true,
                        exit => format!("ended with {exit}"),
                    },
                    () = self.stopped() => {
                        container.end(child, self.deadline()).await;
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

    /// Starts a sidecar and waits until it has started (its startup probe, if it has one).
    async fn start_sidecar(self: &Arc<Self>, program: &Program, sidecars: &mut Vec<Sidecar>) -> bool {
        let number = self.plan.programs.len() + sidecars.len();
        let (end, ending) = watch::channel(End::NotYet);
        let (started, mut has_started) = watch::channel(false);
        let container = Container::new(Arc::clone(self), program.clone(), Some(number));
        let again = plan::Restart::Always;
        let task = tokio::spawn(async move { container.keep_running(again, ending, &started).await });
        sidecars.push(Sidecar { end, task });
        self.shared.set(|s| s.waiting = Some(format!("sidecar {} has not started yet", program.container)));
        tokio::select! {
            started = has_started.wait_for(|started| *started) => started.is_ok(),
            () = self.stopped() => false,
        }
    }

    /// Runs the containers until all of them have ended, by themselves or because the pod must.
    async fn run_containers(self: &Arc<Self>) {
        let (end, ending) = watch::channel(End::NotYet);
        let mut containers = JoinSet::new();
        for (number, program) in self.plan.programs.iter().enumerate() {
            let container = Container::new(Arc::clone(self), program.clone(), Some(number));
            let (ending, again) = (ending.clone(), self.plan.restart);
            containers.spawn(async move { container.keep_running(again, ending, &watch::Sender::new(false)).await });
        }
        tokio::select! {
            () = async { while containers.join_next().await.is_some() {} } => return,
            () = self.stopped() => { end.send_replace(End::By(self.deadline())); }
        }
        containers.join_all().await;
    }

    async fn stopped(&self) {
        // An error means the owner is gone, which is a stop too.
        let _ = self.stop.clone().wait_for(Option::is_some).await;
    }

    /// Until when the pod's programs may go on, if they must end now.
    fn deadline(&self) -> Instant {
        let stop = self.stop.borrow();
        Instant::now() + stop.map_or(self.plan.grace, |patience| patience.min(self.plan.grace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_ended_when_nothing_of_it_runs() {
        let program = |sidecar, pid, over| ProgramState { sidecar, pid, over, ..ProgramState::default() };
        let (good, bad) = (Some(Exit::Code(0)), Some(Exit::Code(3)));
        for (programs, expected) in [
            (vec![program(false, Some(1), None)], Phase::Running),
            (vec![program(false, None, good)], Phase::Succeeded),
            (vec![program(false, None, good), program(false, None, bad)], Phase::Failed),
            (vec![program(false, None, good), program(false, Some(2), None)], Phase::Running),
            // A sidecar that runs on is still somebody; one that has ended, or waits to be started again, is not.
            (vec![program(false, None, good), program(true, Some(2), None)], Phase::Running),
            (vec![program(false, None, good), program(true, None, None)], Phase::Succeeded),
            // Told to end, it has not ended by itself: it is what it was until it is gone.
            (vec![program(false, None, None)], Phase::Running),
        ] {
            let mut state = PodState { phase: Phase::Running, waiting: None, programs };
            state.settle();
            assert_eq!(state.phase, expected, "{:?}", state.programs);
        }
    }
}
