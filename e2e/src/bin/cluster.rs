//! Starts a Kubernetes cluster to look at, with the images of the archives that are named and the one of Ambit, and ends it when
//! told to (Ctrl-C, or SIGTERM): `just cluster-shell`. See `e2e/cluster/README.md`.
use anyhow::Result;
use e2e::cluster::{Cluster, NODES};
use std::path::Path;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

#[allow(clippy::print_stderr, reason = "it talks to a person")]
fn main() -> ExitCode {
    if let Some(code) = e2e::harness::as_ambit() {
        return code;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "it talks to a person")]
fn run() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.import_ambit()?;
    for archive in std::env::args().skip(1) {
        cluster.import(Path::new(&archive))?;
    }
    println!("export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("# Inside a machine; its logs are in /var/log:");
    for name in NODES {
        println!("# nsenter --all --target {}   # {name}", cluster.node(name)?.init());
    }
    println!("# nsenter --all --target {}   # {}", cluster.control().init(), cluster.control().name());
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        }
    })
}
