//! Process 1 of the machine: sets itself up, runs the reconciler, reaps processes, and ends when the pipe to `ambit up`
//! closes.
use crate::control::{self, Answer};
use crate::machine::{self, MachineArgs};
use crate::reconciler::{Inputs, Question, Reconciler};
use crate::run_dir::RunDir;
use crate::sys::children::Children;
use anyhow::{Context, Result};
use mesh_runtime::watch::Watch;
use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Most questions being read or answered at a time.
const MOST_QUESTIONS: usize = 32;
/// Notifications can be lost, and a kernel may have none left to give.
const LOOK_ANYWAY: Duration = Duration::from_secs(1);

/// The life of process 1.
pub(crate) fn main(args: &MachineArgs) -> Result<ExitCode> {
    let run = RunDir::at(args.run.clone())?;
    // Threads would keep the old namespaces, so this comes before any.
    machine::settle_in(&run, args.resolv_conf.as_deref())?;
    let listener = UnixListener::bind(run.control_socket()).context("cannot open the control socket")?;
    let log = std::fs::File::create(run.program_log("ambit")).context("cannot open our own log")?;
    tracing_subscriber::fmt()
        .with_writer(std::sync::Mutex::new(log))
        .with_ansi(false)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("AMBIT_LOG")
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(live(args, run, listener))?;
    // Whatever still runs ends with this process.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

async fn live(args: &MachineArgs, run: RunDir, listener: UnixListener) -> Result<()> {
    let (ender, end) = oneshot::channel();
    end_with_outside(ender);
    let children = Arc::new(Children::default());
    let reaper = tokio::spawn(Arc::clone(&children).reap_forever());
    let reconciler = Reconciler::start(args, run, children).await?;

    let edits = Arc::new(Notify::new());
    tokio::spawn(tell_of(Watch::edits([args.folder.as_path()]), Arc::clone(&edits)));
    // Node agents and the control plane replace these files when something changed.
    tokio::spawn(tell_of(Watch::replaced(reconciler.answers(), LOOK_ANYWAY), reconciler.changed()));

    let (asker, questions) = mpsc::channel(MOST_QUESTIONS);
    std::thread::Builder::new().name("control".into()).spawn(move || listen(&listener, &asker))?;
    reconciler.run(Inputs { edits, questions, end }).await?;
    reaper.abort();
    Ok(())
}

/// Standard input is the pipe to `ambit up`: nothing is sent through it, and when it closes the machine ends.
fn end_with_outside(ender: oneshot::Sender<()>) {
    std::thread::spawn(move || {
        let mut byte = [0];
        while std::io::stdin().read(&mut byte).is_ok_and(|n| n > 0) {}
        // If nobody receives it, the machine is ending already.
        let _ = ender.send(());
    });
}

/// Notifies `changed` whenever it is time to look.
async fn tell_of(mut watch: Watch, changed: Arc<Notify>) {
    loop {
        watch.changed().await;
        changed.notify_one();
    }
}

/// Takes questions one at a time: they are few and small, and a slow asker is cut off.
fn listen(listener: &UnixListener, asker: &mpsc::Sender<Question>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let ask = match control::read_ask(&stream) {
            Ok(ask) => ask,
            Err(e) => {
                tracing::warn!("a request at the control socket could not be read: {e:#}");
                continue;
            }
        };
        let (answer, answered) = oneshot::channel();
        if asker.blocking_send(Question { ask, answer }).is_err() {
            return;
        }
        let (answer, fds) = answered
            .blocking_recv()
            .unwrap_or_else(|_| (Answer::Refused { why: "the mesh is ending".into() }, Vec::new()));
        if let Err(e) = control::write_answer(&stream, &answer, &fds) {
            tracing::warn!("an answer could not be sent at the control socket: {e:#}");
        }
    }
}
