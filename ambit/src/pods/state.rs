//! How a pod and its programs are.
use crate::sys::children::Exit;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

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

/// The state of one pod: its life changes it, and whoever reports on the pod reads it.
#[derive(Debug, Clone)]
pub(crate) struct StateHandle {
    state: Arc<Mutex<PodState>>,
    changed: Arc<Notify>,
}

impl StateHandle {
    /// `changed` is notified after every change.
    pub(crate) fn new(changed: Arc<Notify>) -> Self {
        StateHandle { state: Arc::default(), changed }
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
