//! Starting a program that dies with us, inside the namespaces of another process if so wished. It is a process of its
//! own because one may enter a user namespace only while it has a single thread.
use crate::cli::Launch;
use anyhow::{Context, Result, bail};
use node_agent::redirect::{self, ProbePorts, Settings};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;

/// Becomes the program; returns only if that fails.
pub(crate) fn run(args: &Launch) -> Result<()> {
    if let Some(pid) = args.pid {
        let user = open(pid, "user")?;
        let net = open(pid, "net")?;
        // Entering the namespace one is in already is refused.
        if user.metadata()?.ino() != open_own("user")?.metadata()?.ino() {
            move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))
                .with_context(|| format!("cannot enter the user namespace of process {pid}"))?;
        }
        move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter the network of process {pid}"))?;
        if args.redirect {
            // IPv4 only, as all of the load is; names are not looked up.
            let settings = Settings {
                ipv6: false,
                inbound_capture: true,
                dns_capture: false,
                outbound_interfaces: Vec::new(),
                probe_ports: ProbePorts::Only(Vec::new()),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(redirect::apply::install(net.as_fd(), &settings))?;
        }
        raise_descriptor_limit()?;
    } else if args.redirect {
        bail!("--redirect needs --pid: it would redirect this machine's own traffic");
    }
    // After the namespaces: the kernel forgets it when a process's rights change. TERM, so that a mesh ends in good
    // order; a proxy or a load has nothing to put in order and ends at once.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    let (program, rest) = args.command.split_first().context("no command given")?;
    let error = std::process::Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

fn open(pid: u32, kind: &str) -> Result<File> {
    let path = format!("/proc/{pid}/ns/{kind}");
    File::open(&path).with_context(|| format!("cannot open {path}"))
}

fn open_own(kind: &str) -> Result<File> {
    open(std::process::id(), kind)
}

/// As many descriptors as this process may have: a thousand connections are more than the usual default.
pub(crate) fn raise_descriptor_limit() -> Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the limit of open files")
}
