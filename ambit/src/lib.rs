//! The users' command: runs any program of the mesh, or the whole mesh on this machine.
//!
//! `ambit up -f DIR` makes a *machine* (namespaces nothing outlives), a *fabric* with *nodes* on it, and *pods* behind
//! the nodes whose commands are real processes; next to them run the mesh's programs, each started as `ambit NAME`.
//! Begin with [`main_from`], then `machine` (the outside), `init` (process 1 inside) and `reconciler` (what should run).
//!
//! | module | question |
//! |---|---|
//! | `cli`, `commands` | what was asked, and doing it |
//! | `prerequisites` | can this machine run a mesh, and what is missing? |
//! | `machine`, `init` | the namespaces around it all, from outside and from inside |
//! | `run_dir` | where its files are; is it alive? |
//! | `manifest` | the user's YAML |
//! | `reconciler` | what should run, what does, and bringing the two together |
//! | `node`, `net` | nodes, wires, addresses, service translation |
//! | `pods` | pods as processes |
//! | `mesh` | the mesh's programs and the files between them and us |
//! | `control`, [`status`] | questions from outside, and the answers |
//! | [`kubernetes`] | the same of a mesh on a cluster |
//! | `install` | brings a mesh to a cluster, by the Helm charts that are in this program |
//! | [`capture`] | what is visible on a wire |
//! | `sys` | namespaces, processes: the only unsafe code |
//! | `demo` | the story, and whether it is true |
//! | `tool` | small clients and servers to put into pods |
pub mod capture;
mod cli;
mod commands;
mod control;
mod demo;
mod exe;
mod init;
mod install;
pub mod kubernetes;
mod machine;
mod manifest;
mod mesh;
mod net;
mod node;
mod pods;
mod prerequisites;
mod reconciler;
mod run_dir;
pub mod status;
mod sys;
mod tool;
mod uid;

pub use exe::OVERRIDE as EXE_OVERRIDE;
pub use pods::probe::unverified::tls_to_anyone;

use std::ffi::OsString;
use std::process::ExitCode;

/// The directory of a running mesh: logs, and what its programs tell each other by files.
///
/// # Errors
/// That is no name of a mesh.
pub fn files_of(mesh: &str) -> anyhow::Result<std::path::PathBuf> {
    Ok(run_dir::RunDir::of(mesh)?.root().to_owned())
}

/// Does what the command line says, `args[0]` being the program's own name. Returns its exit code; `up` returns when
/// the mesh has ended.
///
/// Must be called on the main thread of a process that has no others yet: namespaces demand it.
pub fn main_from(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    if args.first().is_some_and(|name| node_agent::plugin::is_called(name)) {
        return node_agent::plugin::main();
    }
    let cli = match cli::Cli::read(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are "errors" that go to standard output with code 0. If even that fails, the output is closed.
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    match commands::run(cli.command) {
        Ok(code) => code,
        Err(e) => {
            say_error(&e);
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr, reason = "the last word of a command to its user")]
fn say_error(e: &anyhow::Error) {
    eprintln!("ambit: {e:#}");
}
