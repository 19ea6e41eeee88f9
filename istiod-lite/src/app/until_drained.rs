//! What is done until the program is asked to end.

use mesh_runtime::drain;

/// Ends `work` when the drain starts, wherever it is then.
pub(super) async fn until_drained(drain: drain::Watch, work: impl Future<Output = ()>) {
    tokio::select! {
        () = drain.started() => {}
        () = work => {}
    }
}
