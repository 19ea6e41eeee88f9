//! Starting a program inside namespaces.
use super::{caps, namespace};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// A program to start, and where.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The file to execute.
    pub(crate) program: PathBuf,
    /// What the program sees as its own name.
    pub(crate) name: OsString,
    /// Arguments after the name.
    pub(crate) args: Vec<OsString>,
    /// The whole environment; nothing is inherited.
    pub(crate) env: Vec<(String, String)>,
    /// Working directory; `/` if none.
    pub(crate) directory: Option<PathBuf>,
    /// Becomes both standard output and standard error.
    pub(crate) output: OwnedFd,
    /// The network it lives in.
    pub(crate) netns: Arc<OwnedFd>,
    /// Present for a pod's process.
    pub(crate) pod: Option<PodWalls>,
}

/// What sets a pod's process apart from the mesh's own programs.
#[derive(Debug)]
pub(crate) struct PodWalls {
    /// The files it sees.
    pub(crate) mounts: Arc<OwnedFd>,
    /// The host name it sees.
    pub(crate) hostname: String,
}

/// Starts it and returns its process id. The caller owns the zombie: see `children`.
pub(crate) fn start(launch: Launch) -> io::Result<u32> {
    namespace::on_own_thread(move || {
        let mut command = Command::new(&launch.program);
        command
            .arg0(&launch.name)
            .args(&launch.args)
            .env_clear()
            .envs(launch.env)
            .current_dir(launch.directory.unwrap_or_else(|| PathBuf::from("/")))
            .stdin(Stdio::null())
            .stdout(launch.output.try_clone()?)
            .stderr(launch.output);
        if let Some(pod) = &launch.pod {
            namespace::enter_mounts(pod.mounts.as_fd())?;
            // The program becomes process 1 of its own pid namespace: when it ends, all it started ends with it.
            namespace::unshare(UnshareFlags::NEWPID | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC)?;
            rustix::system::sethostname(pod.hostname.as_bytes())?;
            wall_in(&mut command);
        }
        namespace::enter(launch.netns.as_fd(), LinkNameSpaceType::Network)?;
        in_new_session(&mut command);
        Ok(command.spawn()?.id())
    })
}

/// Before exec: its own view of `/proc`, and only a pod's capabilities.
#[allow(unsafe_code, reason = "code between fork and exec is only possible through pre_exec")]
fn wall_in(command: &mut Command) {
    // SAFETY: system calls on constants only; nothing allocates, locks or touches another thread's state.
    unsafe {
        command.pre_exec(|| {
            namespace::unshare(UnshareFlags::NEWNS)?;
            // Where the kernel refuses a fresh /proc the one of the machine stays: less tidy, still walled by the
            // capabilities taken below.
            if namespace::mount_proc().is_ok() {
                namespace::protect_proc_sys()?;
            }
            caps::keep_pod_set()?;
            Ok(())
        });
    }
}

/// Before exec: a session of its own, so that signals from a terminal pass it by.
#[allow(unsafe_code, reason = "code between fork and exec is only possible through pre_exec")]
pub(crate) fn in_new_session(command: &mut Command) {
    // SAFETY: one system call; nothing allocates.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(())
        });
    }
}

/// Before exec: die with the process that starts `command`. Only for a caller that starts it on its main thread,
/// because the kernel means the thread when it says parent.
#[allow(unsafe_code, reason = "code between fork and exec is only possible through pre_exec")]
pub(crate) fn die_with_parent(command: &mut Command) {
    // SAFETY: one system call; nothing allocates.
    unsafe {
        command.pre_exec(|| {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            Ok(())
        });
    }
}

/// Before exec: only a pod's capabilities.
#[allow(unsafe_code, reason = "code between fork and exec is only possible through pre_exec")]
pub(crate) fn with_pod_capabilities(command: &mut Command) {
    // SAFETY: system calls on constants only; nothing allocates.
    unsafe {
        command.pre_exec(|| {
            caps::keep_pod_set()?;
            Ok(())
        });
    }
}

/// The calling process ignores what a terminal sends; `command` does not.
#[allow(unsafe_code, reason = "signal dispositions have no safe interface")]
pub(crate) fn ignore_terminal_signals(command: &mut Command) -> io::Result<()> {
    const TERMINAL: [libc::c_int; 2] = [libc::SIGINT, libc::SIGQUIT];
    for signal in TERMINAL {
        // SAFETY: no handler is installed, the signal is only ignored.
        if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: `signal` with the default disposition is safe between fork and exec.
    unsafe {
        command.pre_exec(|| {
            for signal in TERMINAL {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        });
    }
    Ok(())
}
