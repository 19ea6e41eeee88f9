//! `waypoint`: the L7 proxy of a Gateway. Configured by its environment; see `docs/operations.md`.

use std::process::ExitCode;

fn main() -> ExitCode {
    waypoint::app::main(std::env::args().skip(1))
}
