//! `ztunnel proxy ztunnel`: the node's L4 proxy. Configured by its environment; see `docs/operations.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ztunnel::app::main(std::env::args().skip(1))
}
