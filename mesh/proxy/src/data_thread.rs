//! The threads that move bytes, and do nothing else. Each owns its connections: no task ever changes threads.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};

/// Tasks that have their turn before the thread looks for events again. A turn takes microseconds, and at most a fraction of a
/// millisecond; looking takes one.
const TASKS: u32 = 16;

/// A data thread that runs. Commands of type `C` say what to do.
pub struct DataThread<C> {
    /// Takes commands to it; an error once it has ended.
    pub commands: mpsc::UnboundedSender<C>,
    end: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl<C: Send + 'static> DataThread<C> {
    /// Starts a thread named `data-NUMBER`, which runs the future that `run` makes of the commands, and ends with it.
    ///
    /// # Errors
    /// When the system has no thread or event queue left.
    pub fn start<F>(
        number: usize,
        run: impl FnOnce(mpsc::UnboundedReceiver<C>) -> F + Send + 'static,
    ) -> io::Result<Self>
    where
        F: Future<Output = ()>,
    {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        let (made, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(format!("data-{number}")).spawn(move || {
            // It never leaves its thread, so it is made there.
            let mut builder = Builder::new_current_thread();
            let runtime = match builder.enable_all().event_interval(TASKS).build_local(LocalOptions::default()) {
                Ok(runtime) => runtime,
                Err(error) => return drop(made.send(error)),
            };
            drop(made);
            runtime.block_on(async {
                tokio::select! {
                    () = run(receiver) => {}
                    Ok(()) = ended => {}
                }
            });
        })?;
        match told.recv() {
            Ok(error) => Err(error),
            Err(_made) => Ok(Self { commands, end, thread }),
        }
    }

    /// Ends it, with whatever is still open on it, and waits for it. One that is only dropped goes on for as long as commands
    /// can come.
    pub fn join(self) {
        // An error means that it has ended already.
        let _ = self.end.send(());
        if self.thread.join().is_err() {
            tracing::error!("a worker thread had panicked");
        }
    }
}
