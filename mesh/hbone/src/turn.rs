//! Turns: a task that always finds more to do lets others of its thread have theirs.

/// Bytes that a task moves before others have their turn: a fraction of a millisecond.
const TURN: usize = 512 << 10;

/// What a task has moved since others had their turn.
#[derive(Default)]
pub(crate) struct Turn(usize);

impl Turn {
    /// Notes that `bytes` were moved. After enough of them the thread looks for events and serves others first.
    pub(crate) async fn moved(&mut self, bytes: usize) {
        self.0 += bytes;
        if self.0 >= TURN {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}
