//! What a pod's spec asks to be run, decided before anything is started.
mod cannot_run;
mod environment;
mod ignored;
mod probes;

pub(crate) use cannot_run::CannotRun;
pub(crate) use environment::{Given, hostname};
pub(crate) use ignored::ignored;
pub(crate) use probes::{Check, Hook, Hooks, HttpGet, Probe, Probes};

use environment::{environment, expand};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    /// Whether to start again after this end.
    pub(crate) fn again(self, success: bool) -> bool {
        match self {
            Restart::Always => true,
            Restart::OnFailure => !success,
            Restart::Never => false,
        }
    }
}

/// One program of a pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Program {
    /// The container's name.
    pub(crate) container: String,
    /// The file to run.
    pub(crate) program: PathBuf,
    /// As the user wrote it.
    pub(crate) name: String,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) directory: Option<PathBuf>,
    pub(crate) probes: Probes,
    pub(crate) hooks: Hooks,
}

/// An init container.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Init {
    /// It must end well before the next begins.
    ToItsEnd(Program),
    /// A sidecar (`restartPolicy: Always`): it must have started before the next begins, and is ended after the containers.
    Sidecar(Program),
}

/// All programs of a pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    /// One after the other, before the containers.
    pub(crate) first: Vec<Init>,
    pub(crate) programs: Vec<Program>,
    pub(crate) restart: Restart,
    pub(crate) grace: Duration,
}

/// A longer grace period is as good as none, and would be past the end of the clock.
const LONGEST_GRACE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Decides what to run.
pub(crate) fn plan(pod: &Pod, given: &Given<'_>) -> Result<Plan, CannotRun> {
    let spec = pod.spec.as_ref().filter(|s| !s.containers.is_empty()).ok_or(CannotRun::NoContainers)?;
    let restart = match spec.restart_policy.as_deref() {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    };
    let programs = spec.containers.iter().map(|c| program(pod, c, given)).collect::<Result<_, _>>()?;
    let first = spec.init_containers.iter().flatten().map(|c| init(pod, c, given)).collect::<Result<_, _>>()?;
    let grace = spec.termination_grace_period_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(30);
    Ok(Plan { first, programs, restart, grace: Duration::from_secs(grace).min(LONGEST_GRACE) })
}

fn init(pod: &Pod, container: &Container, given: &Given<'_>) -> Result<Init, CannotRun> {
    let program = program(pod, container, given)?;
    match container.restart_policy.as_deref() {
        None => Ok(Init::ToItsEnd(program)),
        Some("Always") => Ok(Init::Sidecar(program)),
        Some(policy) => Err(CannotRun::InitRestart { container: container.name.clone(), policy: policy.to_owned() }),
    }
}

fn program(pod: &Pod, container: &Container, given: &Given<'_>) -> Result<Program, CannotRun> {
    let env = environment(pod, container, given)?;
    let path = env.iter().find(|(k, _)| k == "PATH").map(|(_, v)| v.clone()).unwrap_or_default();
    let expand = |text: &String| self::expand(text, &env);
    let mut words = container.command.iter().flatten().map(expand);
    let name = words.next().ok_or_else(|| CannotRun::NoCommand { container: container.name.clone() })?;
    let args: Vec<String> = words.chain(container.args.iter().flatten().map(expand)).collect();
    let directory = container.working_dir.as_ref().map(PathBuf::from);
    if let Some(directory) = directory.as_ref().filter(|d| !d.is_dir()) {
        return Err(CannotRun::NoDirectory {
            container: container.name.clone(),
            directory: directory.display().to_string(),
        });
    }
    let program = find(&name, &path, directory.as_deref(), given.own_exe).ok_or_else(|| CannotRun::NoProgram {
        container: container.name.clone(),
        program: name.clone(),
        path: if name.contains('/') { "the path as given".into() } else { path },
    })?;
    let (probes, hooks) = (probes::probes(container)?, probes::hooks(container)?);
    Ok(Program { container: container.name.clone(), program, name, args, env, directory, probes, hooks })
}

/// Finds a program the way a shell does. `ambit` is ourselves.
fn find(name: &str, path: &str, directory: Option<&Path>, own_exe: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let runs = |p: &Path| p.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name == "ambit" {
        return Some(own_exe.to_owned());
    }
    if name.contains('/') {
        let full = directory.unwrap_or(Path::new("/")).join(name);
        return runs(&full).then_some(full);
    }
    path.split(':').filter(|d| !d.is_empty()).map(|d| Path::new(d).join(name)).find(|p| runs(p))
}

/// Pause before start number `attempt` (from 1) of a program that keeps ending; doubles from a second to a minute.
pub(crate) fn back_off(attempt: u32) -> Duration {
    Duration::from_secs(1 << attempt.saturating_sub(1).min(6)).min(Duration::from_secs(60))
}

#[cfg(test)]
mod tests;
