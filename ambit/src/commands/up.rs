//! `ambit up`.
use crate::cli::Up;
use crate::control;
use crate::exe;
use crate::machine::{Machine, MachineArgs};
use crate::mesh::setting;
use crate::prerequisites::Facts;
use crate::run_dir::RunDir;
use crate::status::Width;
use crate::sys::launch;
use anyhow::{Context, Result, bail};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

pub(super) fn run(args: &Up) -> Result<ExitCode> {
    if let Some(obstacle) = Facts::of_this_machine().obstacle() {
        bail!("a mesh cannot run here: {obstacle}");
    }
    setting::check(&args.settings, args.secret_ttl.as_deref()).map_err(anyhow::Error::msg)?;
    let folder = args.folder.canonicalize().with_context(|| format!("cannot open folder {}", args.folder.display()))?;
    if !folder.is_dir() {
        bail!("{} is not a folder; give the folder your YAML files are in", folder.display());
    }
    let run = RunDir::of(&args.which.name)?;
    if args.detach {
        return detach(args, &run);
    }
    let Some(claim) = run.claim()? else { bail!(already_running(&run)) };
    let ready_file = args.ready_file.as_ref().map(std::path::absolute).transpose()?;
    let machine = Machine::start(
        claim,
        &MachineArgs {
            run: run.root().to_owned(),
            folder,
            ready_file,
            secret_ttl: args.secret_ttl.clone(),
            resolv_conf: args.resolv_conf.as_ref().map(std::path::absolute).transpose()?,
            settings: args.settings.clone(),
            no_mesh: args.no_mesh,
            quiet: args.quiet,
        },
    )?;
    watch_over(machine)
}

fn already_running(run: &RunDir) -> String {
    format!(
        "mesh `{0}` is already running. See it with `ambit status --name {0}`, end it with `ambit down --name {0}`, \
         or choose another --name",
        run.name()
    )
}

/// Waits for the machine's end. The first signal asks it to end in good order, the second ends it at once.
fn watch_over(mut machine: Machine) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        let mut hung_up = signal(SignalKind::hangup())?;
        let mut children = signal(SignalKind::child())?;
        let mut asked = false;
        loop {
            if let Some(status) = machine.try_wait()? {
                return anyhow::Ok(status);
            }
            tokio::select! {
                _ = children.recv() => continue,
                _ = interrupted.recv() => {}
                _ = terminated.recv() => {}
                _ = hung_up.recv() => {}
            }
            if asked {
                machine.kill()?;
            } else {
                asked = true;
                machine.stop();
            }
        }
    })?;
    machine.clean_up();
    if status.success() { Ok(ExitCode::SUCCESS) } else { Ok(ExitCode::FAILURE) }
}

/// Starts itself again in the background and returns when everything is ready.
#[allow(clippy::print_stdout, reason = "this is what the command shows its user")]
fn detach(args: &Up, run: &RunDir) -> Result<ExitCode> {
    if run.is_running()? {
        bail!(already_running(run));
    }
    let mut command = Command::new(exe::own());
    command.arg("up").arg("--quiet").arg("--name").arg(run.name()).arg("-f").arg(&args.folder);
    if let Some(file) = &args.ready_file {
        command.arg("--ready-file").arg(file);
    }
    if let Some(ttl) = &args.secret_ttl {
        command.arg("--secret-ttl").arg(ttl);
    }
    if let Some(file) = &args.resolv_conf {
        command.arg("--resolv-conf").arg(file);
    }
    command.args(setting::arguments(&args.settings));
    if args.no_mesh {
        command.arg("--no-mesh");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    launch::in_new_session(&mut command);
    let mut background = command.spawn().context("cannot start the mesh in the background")?;
    let deadline = Instant::now() + Duration::from_secs(args.timeout);
    loop {
        if background.try_wait()?.is_some() {
            let output = background.wait_with_output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("the mesh did not start: {}", said.trim().trim_start_matches("ambit: "));
        }
        let status = control::status(run);
        match status {
            Ok(status) if status.ready => {
                if !args.quiet {
                    print!("{}", status.for_terminal(Width::Narrow));
                    println!("Ready. End it with: ambit down --name {}", run.name());
                }
                return Ok(super::status::well(&status));
            }
            Ok(status) if Instant::now() > deadline => {
                print!("{}", status.table(Width::Narrow));
                bail!(
                    "not everything was ready after {} seconds; it keeps running. Look again with `ambit status --name {}`",
                    args.timeout,
                    run.name()
                );
            }
            Err(e) if Instant::now() > deadline => return Err(e),
            Ok(_) | Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
