//! The users' command; everything is in the library.
use std::process::ExitCode;

fn main() -> ExitCode {
    ambit::main_from(std::env::args_os())
}
