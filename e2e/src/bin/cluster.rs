//! A Kubernetes cluster to look at, with the images of the archives that are named: see `e2e/cluster/README.md`.
use std::process::ExitCode;

fn main() -> ExitCode {
    e2e::harness::as_ambit().unwrap_or_else(|| e2e::cluster::shell::main(std::env::args().skip(1)))
}
