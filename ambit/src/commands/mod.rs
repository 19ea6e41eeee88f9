//! One file per command.
mod down;
mod exec;
mod logs;
mod restart;
mod status;
mod up;

use crate::cli::{Command, ProgramArgs};
use anyhow::Result;
use std::process::ExitCode;

/// Runs one.
pub(crate) fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(args) => up::run(&args),
        Command::Exec(args) => exec::run(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Restart(args) => restart::run(&args),
        Command::Down(args) => down::run(&args),
        Command::Demo(args) => crate::demo::run(&args),
        Command::Ztunnel(program) => Ok(ztunnel::app::main(texts(program)?.into_iter())),
        Command::Waypoint(program) => Ok(waypoint::app::main(texts(program)?.into_iter())),
        Command::IstiodLite(program) => Ok(istiod_lite::main(texts(program)?)),
        Command::NodeAgent(program) => Ok(node_agent::run(texts(program)?)),
        Command::Machine(args) => crate::init::main(&args),
        Command::Capture(args) => crate::capture::run(&args),
        Command::Tool(tool) => crate::tool::run(&tool),
    }
}

fn texts(program: ProgramArgs) -> Result<Vec<String>> {
    program
        .args
        .into_iter()
        .map(|arg| arg.into_string().map_err(|arg| anyhow::anyhow!("argument {arg:?} is not UTF-8")))
        .collect()
}
