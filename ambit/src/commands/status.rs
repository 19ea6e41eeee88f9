//! `ambit status`.
use crate::cli::{Output, StatusArgs};
use crate::control;
use crate::kubernetes::access::block_on;
use crate::kubernetes::read::read;
use crate::kubernetes::view::view;
use crate::run_dir::RunDir;
use crate::status::{Status, Width};
use anyhow::Result;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

#[allow(clippy::print_stdout, reason = "this is what the command shows its user")]
pub(super) fn run(args: &StatusArgs) -> Result<ExitCode> {
    let run = RunDir::of(&args.which.name)?;
    if is_about_a_cluster(args, &run)? {
        return block_on(of_cluster(args));
    }
    let deadline = args.wait.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let status = loop {
        let status = control::status(&run);
        let done = status.as_ref().is_ok_and(|s| s.ready) || deadline.is_none_or(|d| Instant::now() > d);
        if done {
            break status?;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    match args.output {
        Output::Table => print!("{}", status.for_terminal(Width::Narrow)),
        Output::Wide => print!("{}", status.for_terminal(Width::Wide)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
    }
    if args.wait.is_some() && !status.ready { Ok(ExitCode::FAILURE) } else { Ok(well(&status)) }
}

/// Who names a cluster means it; else what runs here comes before what KUBECONFIG names.
fn is_about_a_cluster(args: &StatusArgs, run: &RunDir) -> Result<bool> {
    if args.kubernetes || args.cluster.is_named() {
        return Ok(true);
    }
    let configured = std::env::var_os("KUBECONFIG").is_some_and(|files| !files.is_empty());
    Ok(configured && !run.is_running()?)
}

#[allow(clippy::print_stdout, reason = "this is what the command shows its user")]
async fn of_cluster(args: &StatusArgs) -> Result<ExitCode> {
    let client = args.cluster.client().await?;
    let deadline = args.wait.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let status = loop {
        let found = read(&client, &args.istio_namespace).await?;
        let status = view(&found, &args.istio_namespace, SystemTime::now());
        if status.is_well() || deadline.is_none_or(|deadline| Instant::now() > deadline) {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    match args.output {
        Output::Table => print!("{}", status.table(Width::Narrow)),
        Output::Wide => print!("{}", status.table(Width::Wide)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
    }
    Ok(match (status.problems.is_empty(), status.missing_rights.is_empty(), args.wait) {
        (true, true, _) => ExitCode::SUCCESS,
        (false, _, None) => ExitCode::from(REFUSED),
        // Nobody can tell, or it was not well in time.
        _ => ExitCode::FAILURE,
    })
}

/// The exit code of a mesh that runs and of whose folder something is refused, or of a cluster on which something is wrong.
const REFUSED: u8 = 3;

/// Whether a mesh that runs is as its folder says.
pub(super) fn well(status: &Status) -> ExitCode {
    if status.alarm().is_some() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS }
}
