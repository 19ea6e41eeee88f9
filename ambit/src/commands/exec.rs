//! `ambit exec`: enters the pod's namespaces itself, so that the command has the caller's own terminal.
use crate::cli::Exec;
use crate::control::{self, Answer, Ask};
use crate::manifest::pod_key;
use crate::run_dir::RunDir;
use crate::sys::{caps, launch, namespace};
use anyhow::{Context, Result, bail};
use rustix::thread::LinkNameSpaceType;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitCode};

pub(super) fn run(args: &Exec) -> Result<ExitCode> {
    let run = RunDir::of(&args.which.name)?;
    let (namespace, pod) = pod_key(&args.namespace, &args.pod);
    let ask = Ask::Enter { namespace, pod, container: args.container.clone() };
    let (answer, fds) = control::ask(&run, &ask)?;
    let (Answer::Entered { env, directory }, [user, net, mounts, host_name, processes]) = (answer, fds.as_slice())
    else {
        bail!("the answer of the mesh does not say where the pod is; is it of another version of ambit?");
    };
    // An ordinary user has no rights over the other namespaces before entering the user namespace that owns them.
    if !caps::has_sys_admin() {
        namespace::enter(user.as_fd(), LinkNameSpaceType::User).context("cannot enter the mesh's user namespace")?;
    }
    namespace::enter(processes.as_fd(), LinkNameSpaceType::ProcessID).context("cannot enter the pod's processes")?;
    namespace::enter(net.as_fd(), LinkNameSpaceType::Network).context("cannot enter the pod's network")?;
    namespace::enter_host_name(host_name.as_fd()).context("cannot enter the pod's host name")?;
    namespace::enter_mounts(mounts.as_fd()).context("cannot enter the pod's files")?;

    let (program, rest) = args.command.split_first().context("no command given")?;
    let file = if program == "ambit" { crate::exe::own() } else { program.into() };
    let mut command = Command::new(file);
    command.args(rest).env_clear().envs(env).current_dir(directory.unwrap_or_else(|| "/".into()));
    for name in ["TERM", "COLORTERM"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    launch::die_with_parent(&mut command);
    launch::with_pod_capabilities(&mut command);
    // Ctrl-C is for the command, which gets it from the terminal itself; we stay for its exit code.
    launch::ignore_terminal_signals(&mut command)?;
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(not_started(&program.to_string_lossy(), &args.pod, &error)),
    };
    let status = child.wait()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// The exit codes are a shell's: 127 for a program that is not there, 126 for one that cannot be executed.
#[allow(clippy::print_stderr, reason = "the last word of a command to its user")]
fn not_started(program: &str, pod: &str, error: &std::io::Error) -> ExitCode {
    eprintln!("ambit: cannot run {program} in pod {pod}: {error}");
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}
