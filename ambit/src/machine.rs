//! The machine a mesh lives in: a process tree of its own with its own users, mounts and networks, of which nothing is
//! left when its first process ends, however it ends.
//!
//! `ambit up` (outside) makes the namespaces and starts `ambit machine` (inside) as process 1 of them. The outside holds
//! one end of a pipe; when it closes, because `ambit up` closes it or has died, the inside ends.
use crate::exe;
use crate::mesh::setting::{self, Setting};
use crate::prerequisites::{self, Facts};
use crate::run_dir::{Claim, RunDir};
use crate::sys::{launch, namespace};
use anyhow::{Context, Result, anyhow};
use rustix::thread::UnshareFlags;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What the inside has to know.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MachineArgs {
    /// The run directory.
    #[arg(long)]
    pub(crate) run: std::path::PathBuf,
    /// The user's folder of YAML.
    #[arg(long)]
    pub(crate) folder: std::path::PathBuf,
    /// File to write once every pod is ready.
    #[arg(long)]
    pub(crate) ready_file: Option<std::path::PathBuf>,
    /// Lifetime of workload certificates, as ztunnel asks for it.
    #[arg(long)]
    pub(crate) secret_ttl: Option<String>,
    /// What the nodes have as `/etc/resolv.conf`.
    #[arg(long)]
    pub(crate) resolv_conf: Option<std::path::PathBuf>,
    /// More settings of the mesh's programs.
    #[arg(long = "set")]
    pub(crate) settings: Vec<Setting>,
    /// Run the pods only.
    #[arg(long)]
    pub(crate) no_mesh: bool,
    /// Say nothing on the terminal.
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// A started machine, from outside.
pub(crate) struct Machine {
    /// Process 1 of the machine.
    init: Child,
    claim: Claim,
}

impl Machine {
    /// Makes the namespaces and starts the inside. Must run on the main thread, while it is the only one: the kernel
    /// lets only such a process into a new user namespace, and ties the machine's life to this thread.
    pub(crate) fn start(claim: Claim, args: &MachineArgs) -> Result<Self> {
        claim.prepare()?;
        enter_namespaces()?;
        let mut command = Command::new(exe::own());
        command
            .arg("machine")
            .args(arguments(args))
            .stdin(Stdio::piped())
            .env("AMBIT_MESH", args.run.file_name().unwrap_or_default());
        // Inherited, so that the mesh counts as alive while either of us lives.
        let lock = rustix::io::fcntl_dupfd_cloexec(claim.lock().as_fd(), 10).context("cannot hand the lock over")?;
        rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty())?;
        launch::die_with_parent(&mut command);
        launch::in_new_session(&mut command);
        let init = command.spawn().context("cannot start the machine's first process")?;
        Ok(Machine { init, claim })
    }

    /// Closes the pipe: the inside ends in good order.
    pub(crate) fn stop(&mut self) {
        drop(self.init.stdin.take());
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.init.kill().context("cannot end the machine")
    }

    /// How it ended, if it has.
    pub(crate) fn try_wait(&mut self) -> Result<Option<std::process::ExitStatus>> {
        self.init.try_wait().context("cannot wait for the machine")
    }

    /// Removes what is left on disk after its end.
    pub(crate) fn clean_up(self) {
        self.claim.release();
    }
}

fn arguments(args: &MachineArgs) -> Vec<OsString> {
    let mut all: Vec<OsString> =
        vec!["--run".into(), args.run.clone().into(), "--folder".into(), args.folder.clone().into()];
    if let Some(file) = &args.ready_file {
        all.extend(["--ready-file".into(), file.clone().into()]);
    }
    if let Some(ttl) = &args.secret_ttl {
        all.extend(["--secret-ttl".into(), ttl.into()]);
    }
    if let Some(file) = &args.resolv_conf {
        all.extend(["--resolv-conf".into(), file.clone().into()]);
    }
    all.extend(setting::arguments(&args.settings));
    if args.no_mesh {
        all.push("--no-mesh".into());
    }
    if args.quiet {
        all.push("--quiet".into());
    }
    all
}

/// Makes the machine's user namespace (if we are not root) and pid namespace. Children are born inside them.
fn enter_namespaces() -> Result<()> {
    let facts = Facts::of_this_machine();
    if facts.root {
        return namespace::unshare(UnshareFlags::NEWPID)
            .map_err(|e| anyhow!(prerequisites::explain("a pid namespace", &e, &facts)));
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    namespace::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWPID)
        .map_err(|e| anyhow!(prerequisites::explain("a user namespace", &e, &facts)))?;
    for (file, text) in [
        // Without this an ordinary user may not map a group.
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ] {
        std::fs::write(format!("/proc/self/{file}"), text)
            .map_err(|e| anyhow!(prerequisites::explain("a user namespace", &e, &facts)))?;
    }
    Ok(())
}

/// On the inside, before anything else: its own mounts, its own `/proc`, and the namespace that becomes the fabric.
pub(crate) fn settle_in(run: &RunDir, resolv_conf: Option<&Path>) -> Result<()> {
    let facts = Facts::of_this_machine();
    namespace::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWNET)
        .map_err(|e| anyhow!(prerequisites::explain("mount and network namespaces", &e, &facts)))?;
    namespace::make_mounts_private().map_err(|e| anyhow!(prerequisites::explain("private mounts", &e, &facts)))?;
    // A mount of its own, so that pods can have all of it taken away at once, pinned namespaces included.
    namespace::bind(run.root(), run.root()).context("cannot mount the run directory")?;
    if let Some(file) = resolv_conf {
        namespace::bind(file, Path::new("/etc/resolv.conf")).with_context(|| {
            format!("cannot make {} the nodes' /etc/resolv.conf (there must be one)", file.display())
        })?;
    }
    // Inside a container that hides parts of /proc the kernel refuses; the one we have then has to do.
    let _ = namespace::mount_proc();
    Ok(())
}
