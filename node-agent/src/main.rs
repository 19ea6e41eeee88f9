//! The node agent's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    node_agent::run(std::env::args().skip(1))
}
