//! One file per command.
mod down;
mod exec;
mod logs;
mod restart;
mod status;
mod up;
mod waypoint;

use crate::cli::{Command, ProgramArgs};
use anyhow::Result;
use clap::Parser as _;
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
        Command::Install(args) => crate::install::install(&args),
        Command::Upgrade(args) => crate::install::upgrade(&args),
        Command::Uninstall(args) => crate::install::uninstall(&args),
        Command::Demo(args) => crate::demo::run(&args),
        Command::Ztunnel(program) => Ok(ztunnel::app::main(texts(program)?.into_iter())),
        Command::Waypoint(program) => waypoint(program),
        Command::IstiodLite(program) => Ok(istiod_lite::main(texts(program)?)),
        Command::NodeAgent(program) => Ok(node_agent::run(texts(program)?)),
        Command::Machine(args) => crate::init::main(&args),
        Command::Capture(args) => crate::capture::run(&args),
        Command::Tool(tool) => crate::tool::run(&tool),
    }
}

/// The users' command, or the program of the same name. Help is that of both.
fn waypoint(program: ProgramArgs) -> Result<ExitCode> {
    let args = texts(program)?;
    let first = args.first().map(String::as_str).unwrap_or_default();
    let help = ["help", "--help", "-h"].contains(&first);
    if !help && !waypoint::WORDS.contains(&first) {
        return Ok(::waypoint::app::main(args.into_iter()));
    }
    let named = std::iter::once("ambit waypoint".to_owned()).chain(args.iter().cloned());
    match waypoint::WaypointCli::try_parse_from(named) {
        Ok(cli) => waypoint::run(cli),
        Err(told) => {
            // If even that fails, the output is closed.
            let _ = told.print();
            if help && args.len() == 1 {
                return Ok(::waypoint::app::main(std::iter::once("--help".to_owned())));
            }
            Ok(ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2)))
        }
    }
}

fn texts(program: ProgramArgs) -> Result<Vec<String>> {
    program
        .args
        .into_iter()
        .map(|arg| arg.into_string().map_err(|arg| anyhow::anyhow!("argument {arg:?} is not UTF-8")))
        .collect()
}
