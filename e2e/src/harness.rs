//! The test harness: trials, the meshes they share, and what is told when one fails.
use crate::cluster;
use crate::gateway;
use crate::mesh::Mesh;
use crate::upstream;
use anyhow::{Result, anyhow};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use std::fmt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// Tells an `ambit up` of the kit which process it must not outlive.
pub(crate) const PARENT: &str = "AMBIT_E2E_PARENT";
/// Set to make every skipped trial a failure: for machines that are known to have everything.
pub const REQUIRE: &str = "AMBIT_E2E_REQUIRE";

/// What a mesh's report begins with, to tell it from causes.
pub(crate) const REPORT: &str = "=== ";

/// Why a trial could not be made here. It counts as ignored.
#[derive(Debug)]
pub struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// The error that skips a trial, because the machine lacks something.
pub fn skip(why: &str) -> anyhow::Error {
    anyhow!(Skip(why.to_owned()))
}

/// Skips the trial unless a program is on this machine.
///
/// # Errors
/// [`skip`].
pub fn need_program(name: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if found { Ok(()) } else { Err(skip(&format!("`{name}` is not on this machine"))) }
}

/// All trials of a test binary.
#[derive(Default)]
pub struct Suite {
    trials: Vec<Trial>,
    /// What names of trials begin with.
    prefix: String,
}

/// A mesh that is started by the first trial that needs it, and ends after the last.
#[derive(Clone)]
pub struct SharedMesh {
    inner: Arc<Inner>,
}

struct Inner {
    start: Box<dyn Fn() -> Result<Mesh> + Send + Sync>,
    mesh: Mutex<Option<Mesh>>,
}

impl SharedMesh {
    /// Not started yet.
    pub fn new(start: impl Fn() -> Result<Mesh> + Send + Sync + 'static) -> Self {
        SharedMesh { inner: Arc::new(Inner { start: Box::new(start), mesh: Mutex::new(None) }) }
    }

    fn with(&self, trial: impl FnOnce(&Mesh) -> Result<()>) -> Result<()> {
        // A trial that panicked leaves a mesh that still serves the others.
        let mut slot = self.inner.mesh.lock().unwrap_or_else(PoisonError::into_inner);
        let mesh = match &mut *slot {
            Some(mesh) => mesh,
            empty => empty.insert((self.inner.start)()?),
        };
        trial(mesh).map_err(|e| if e.is::<Skip>() { e } else { e.context(mesh.report()) })
    }
}

impl Suite {
    /// Adds trials under names that begin with `prefix`: the same ones, made elsewhere.
    pub fn under(&mut self, prefix: &str, add: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.prefix, prefix.to_owned());
        add(self);
        self.prefix = before;
    }

    /// Adds a trial that makes its own meshes, if any.
    pub fn trial(&mut self, name: &str, trial: fn() -> Result<()>) {
        let told = self.prefix.clone() + name;
        self.trials.push(Trial::ignorable_test(told.clone(), move || conclude(&told, trial())));
    }

    /// Adds a trial on a shared mesh. Trials of one mesh run one after the other, in this order.
    pub fn on(&mut self, mesh: &SharedMesh, name: &str, trial: fn(&Mesh) -> Result<()>) {
        let (mesh, told) = (mesh.clone(), self.prefix.clone() + name);
        self.trials.push(Trial::ignorable_test(told.clone(), move || {
            let outcome = conclude(&told, mesh.with(trial));
            // The last one ends the mesh.
            drop(mesh);
            outcome
        }));
    }
}

#[allow(clippy::print_stderr, reason = "what was not tested must be seen")]
fn conclude(name: &str, outcome: Result<()>) -> Result<Completion, Failed> {
    match outcome {
        Ok(()) => Ok(Completion::Completed),
        Err(e) => match e.downcast_ref::<Skip>() {
            Some(why) if std::env::var_os(REQUIRE).is_none() => {
                eprintln!("SKIPPED {name}: {why}");
                Ok(Completion::ignored_with(why))
            }
            _ => Err(told(&e).into()),
        },
    }
}

/// What is there to know, and at its end what went wrong.
fn told(error: &anyhow::Error) -> String {
    let (reports, causes): (Vec<String>, Vec<String>) =
        error.chain().map(ToString::to_string).partition(|cause| cause.starts_with(REPORT));
    format!("{}\n{}", reports.concat(), causes.join(": "))
}

/// Does what `ambit` does, if this process was started under that name. Call it first.
pub fn as_ambit() -> Option<ExitCode> {
    let called = std::env::args_os().next().unwrap_or_default();
    // The mesh's programs are called `ambit@MESH/PROGRAM`.
    let is_program = called.to_string_lossy().starts_with("ambit@");
    let is_ambit = called == "/proc/self/exe" || Path::new(&called).file_name().is_some_and(|name| name == "ambit");
    let is_plugin = node_agent::plugin::is_called(&called);
    (is_ambit || is_program || is_plugin).then(|| {
        end_with_parent();
        upstream::in_place_of_istiod_lite();
        ambit::main_from(std::env::args_os())
    })
}

/// The whole `main` of a test binary: its trials; or `ambit`, when it is started under that name.
pub fn main(fill: impl FnOnce(&mut Suite)) -> ExitCode {
    if let Some(code) = as_ambit().or_else(gateway::as_gateway).or_else(cluster::shell::as_shell) {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // One at a time: trials measure and wait, and meshes are many processes.
    arguments.test_threads.get_or_insert(1);
    let mut suite = Suite::default();
    fill(&mut suite);
    libtest_mimic::run(&arguments, suite.trials).exit_code()
}

/// A mesh must not outlive the test that was killed before it could end it.
fn end_with_parent() {
    let parent = std::env::var(PARENT).ok().and_then(|p| p.parse().ok());
    let ours = rustix::process::getppid().map(|p| p.as_raw_nonzero().get());
    if parent.is_some() && parent == ours {
        // Where the kernel refuses, a killed test leaves its mesh behind for `ambit down`.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    }
}
