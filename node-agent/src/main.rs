//! The node agent's process; and the CNI plugin's, where the same file has its name.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    if arguments.next().is_some_and(|name| node_agent::plugin::is_called(&name)) {
        return node_agent::plugin::main();
    }
    node_agent::run(std::env::args().skip(1))
}
