//! Ctrl-C: the processes end with us by their death signals; the files must be removed by hand.
use anyhow::Result;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// As shells report a process ended by SIGINT.
const INTERRUPTED: i32 = 130;

/// When a signal asks us to end, removes the directory and ends.
pub(crate) fn remove_at_signal(directory: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let [mut interrupt, mut terminate, mut hang_up] = {
        let _inside = runtime.enter();
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        // Whoever asked us to end has no use for an error about leftovers.
        let _ = std::fs::remove_dir_all(&directory);
        std::process::exit(INTERRUPTED);
    })?;
    Ok(())
}
