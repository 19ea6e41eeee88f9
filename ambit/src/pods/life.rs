//! One pod's life: let into the mesh if it belongs there, started, watched, restarted, stopped.
use super::container::{Container, End, PodContext};
use super::plan::{self, Init, Program};
use super::state::{Phase, ProgramState};
use crate::mesh::plugin::Admission;
use crate::sys::children::Exit;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

/// Everything a life needs.
pub(crate) struct Life {
    pub(crate) pod: Arc<PodContext>,
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
        let state = |program: &Program, sidecar| ProgramState {
            container: program.container.clone(),
            sidecar,
            ..ProgramState::default()
        };
        let containers = self.pod.plan.programs.iter().map(|program| state(program, false));
        self.pod.state.set(|s| s.programs = containers.chain(self.sidecars().map(|p| state(p, true))).collect());
        let mut sidecars = Vec::new();
        if self.be_admitted().await && self.begin(&mut sidecars).await {
            self.pod.state.set(|s| {
                s.phase = Phase::Running;
                s.waiting = None;
            });
            self.run_containers().await;
        }
        while let Some(sidecar) = sidecars.pop() {
            sidecar.end.send_replace(End::By(self.deadline()));
            // A panic there is logged; the pod goes on ending.
            let _ = sidecar.task.await;
        }
        self.stopped().await;
    }

    /// The init containers that go on beside the containers, in their order; `programs` of the state lists them last.
    fn sidecars(&self) -> impl Iterator<Item = &Program> {
        self.pod.plan.first.iter().filter_map(|first| match first {
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
            tracing::info!("pod {} waits: {why}", self.pod.hostname);
            self.pod.state.set(|s| s.waiting = Some(why));
            tokio::select! {
                _ = stop.wait_for(Option::is_some) => return false,
                () = sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
            }
        }
    }

    /// Goes through the init containers, one after the other. `false` if the pod must not go on.
    async fn begin(&self, sidecars: &mut Vec<Sidecar>) -> bool {
        for first in &self.pod.plan.first {
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

    async fn run_to_its_end(&self, program: &Program) -> bool {
        let container = Container::new(Arc::clone(&self.pod), program.clone(), None);
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
            self.pod.log.line(format!("--- ambit: {why}\n").as_bytes());
            let again = self.pod.plan.restart.again(false);
            self.pod.state.set(|s| {
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
    async fn start_sidecar(&self, program: &Program, sidecars: &mut Vec<Sidecar>) -> bool {
        let number = self.pod.plan.programs.len() + sidecars.len();
        let (end, ending) = watch::channel(End::NotYet);
        let (started, mut has_started) = watch::channel(false);
        let container = Container::new(Arc::clone(&self.pod), program.clone(), Some(number));
        let again = plan::Restart::Always;
        let task = tokio::spawn(async move { container.keep_running(again, ending, &started).await });
        sidecars.push(Sidecar { end, task });
        self.pod.state.set(|s| s.waiting = Some(format!("sidecar {} has not started yet", program.container)));
        tokio::select! {
            started = has_started.wait_for(|started| *started) => started.is_ok(),
            () = self.stopped() => false,
        }
    }

    /// Runs the containers until all of them have ended, by themselves or because the pod must.
    async fn run_containers(&self) {
        let (end, ending) = watch::channel(End::NotYet);
        let mut containers = JoinSet::new();
        for (number, program) in self.pod.plan.programs.iter().enumerate() {
            let container = Container::new(Arc::clone(&self.pod), program.clone(), Some(number));
            let (ending, again) = (ending.clone(), self.pod.plan.restart);
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
        Instant::now() + stop.map_or(self.pod.plan.grace, |patience| patience.min(self.pod.plan.grace))
    }
}
