//! Soaks a mesh for some minutes, ten if none are named: `soak --minutes 30`. Exits with 1 if anything failed or is left behind.
use std::process::ExitCode;
use std::time::Duration;

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "what it found is its purpose")]
fn main() -> ExitCode {
    if let Some(code) = e2e::harness::as_ambit() {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let minutes = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Some(10.0),
        ["--minutes", minutes] => minutes.parse::<f64>().ok().filter(|m| (0.1..=10_000.0).contains(m)),
        _ => None,
    };
    let Some(minutes) = minutes else {
        eprintln!("usage: soak [--minutes NUMBER]");
        return ExitCode::from(2);
    };
    match e2e::soak::run(Duration::from_secs_f64(minutes * 60.0)) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
