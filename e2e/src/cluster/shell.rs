//! A cluster for a person to look at, as a program of its own: `just cluster-shell`.
use super::{Cluster, NODES};
use anyhow::Result;
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// The first argument of a test binary that is this program; then come archives of images.
pub const SHELL: &str = "cluster-for-tests";

/// Is this program, if this process was started as it.
pub(crate) fn as_shell() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next().as_deref() == Some(SHELL)).then(|| main(arguments))
}

/// Starts a cluster with the images of archives, tells how to use it, and ends it on Ctrl-C or SIGTERM.
#[allow(clippy::print_stderr, reason = "it talks to a person")]
pub fn main(archives: impl Iterator<Item = String>) -> ExitCode {
    match run(archives) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "it talks to a person")]
fn run(archives: impl Iterator<Item = String>) -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.import_ambit()?;
    for archive in archives {
        cluster.import(Path::new(&archive))?;
    }
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("# Inside a machine; its logs are in /var/log:");
    for machine in std::iter::once(cluster.control()).chain(NODES.iter().filter_map(|name| cluster.node(name).ok())) {
        println!("# nsenter --all --target {}   # {}", machine.init(), machine.name());
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        }
    })
}
