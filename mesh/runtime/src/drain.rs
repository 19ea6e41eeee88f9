//! Stop accepting, finish, then end.
//!
//! ```text
//!  Running ──drain(deadline)──▶ Draining ──all tokens gone, or deadline──▶ Forced
//!            listeners stop      connections finish                        what is left is cut
//! ```
//!
//! The program keeps the one [`Trigger`] and gives out [`Watch`]es. Every connection holds a [`Token`] while it is open; draining waits
//! for the last of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// Starts the drain. There is one per program. Dropping it unused counts as forcing: who waits for it must not wait forever.
#[derive(Debug)]
pub struct Trigger {
    phase: watch::Sender<Phase>,
    open: Arc<Open>,
}

/// Tells of the drain, and counts what must finish first. Cheap to clone; usable from any runtime.
#[derive(Clone)]
pub struct Watch {
    phase: watch::Receiver<Phase>,
    open: Arc<Open>,
}

/// Something that wants to finish before the program ends: hold it while a connection is open.
#[derive(Debug)]
pub struct Token {
    open: Arc<Open>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Tokens still held when the deadline passed; 0 if all finished by themselves.
    pub left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Draining,
    Forced,
}

#[derive(Debug, Default)]
struct Open {
    count: AtomicUsize,
    none_left: Notify,
}

/// A trigger and the first of its watches.
pub fn new() -> (Trigger, Watch) {
    let (sender, receiver) = watch::channel(Phase::Running);
    let open = Arc::new(Open::default());
    (Trigger { phase: sender, open: open.clone() }, Watch { phase: receiver, open })
}

impl Trigger {
    /// Starts the drain, waits until every token is gone or `deadline` has passed, then forces. Says how many were left.
    pub async fn drain(self, deadline: Duration) -> Drained {
        self.phase.send_replace(Phase::Draining);
        let finished = tokio::time::timeout(deadline, self.open.none_left()).await;
        let left = if finished.is_ok() { 0 } else { self.open.count.load(Ordering::Acquire) };
        self.phase.send_replace(Phase::Forced);
        Drained { left }
    }
}

impl Watch {
    /// Returns once the drain has started: stop accepting.
    pub async fn started(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns once the deadline has passed (or all tokens are gone): end now.
    pub async fn forced(&self) {
        self.reached(Phase::Forced).await;
    }

    /// Whether the drain has started.
    pub fn has_started(&self) -> bool {
        *self.phase.borrow() >= Phase::Draining || self.phase.has_changed().is_err()
    }

    /// Counts one more thing the drain waits for, until the token is dropped.
    pub fn token(&self) -> Token {
        self.open.count.fetch_add(1, Ordering::AcqRel);
        Token { open: self.open.clone() }
    }

    /// Tokens held now.
    pub fn open(&self) -> usize {
        self.open.count.load(Ordering::Acquire)
    }

    async fn reached(&self, phase: Phase) {
        // An error means the trigger is gone, which counts as reached.
        let _ = self.phase.clone().wait_for(|now| *now >= phase).await;
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("phase", &*self.phase.borrow()).field("open", &self.open()).finish()
    }
}

impl Clone for Token {
    fn clone(&self) -> Self {
        self.open.count.fetch_add(1, Ordering::AcqRel);
        Self { open: self.open.clone() }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if self.open.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.open.none_left.notify_waiters();
        }
    }
}

impl Open {
    async fn none_left(&self) {
        loop {
            let mut notified = std::pin::pin!(self.none_left.notified());
            // Enabled before the count is read, so that a drop in between is not missed.
            notified.as_mut().enable();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn nothing_open_ends_at_once() {
        let (trigger, watch) = new();
        assert!(!watch.has_started());
        assert_eq!(trigger.drain(LONG).await, Drained { left: 0 });
        assert!(watch.has_started());
        watch.started().await;
        watch.forced().await;
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_last_token_and_no_longer() {
        let (trigger, watch) = new();
        let tokens = [watch.token(), watch.token()];
        let begun = tokio::time::Instant::now();
        let task = tokio::spawn({
            let watch = watch.clone();
            async move {
                watch.started().await;
                for token in tokens {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    drop(token);
                }
            }
        });
        assert_eq!(trigger.drain(LONG).await, Drained { left: 0 });
        assert_eq!(begun.elapsed(), Duration::from_secs(10));
        task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn deadline_counts_what_is_left_and_forces() {
        let (trigger, watch) = new();
        let (first, second) = (watch.token(), watch.token());
        let third = second.clone();
        assert_eq!(watch.open(), 3);
        drop(first);
        let (forced, drained) = tokio::join!(
            async {
                watch.forced().await;
                tokio::time::Instant::now()
            },
            async {
                let begun = tokio::time::Instant::now();
                (begun, trigger.drain(Duration::from_secs(5)).await)
            }
        );
        assert_eq!(drained.1, Drained { left: 2 });
        assert_eq!(forced - drained.0, Duration::from_secs(5));
        drop((second, third));
        assert_eq!(watch.open(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_trigger_leaves_nobody_waiting() {
        let (trigger, watch) = new();
        drop(trigger);
        assert!(watch.has_started());
        watch.started().await;
        watch.forced().await;
    }

    #[test]
    fn crosses_runtimes() {
        let (trigger, watch) = new();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let token = watch.token();
                ready.send(()).unwrap();
                watch.started().await;
                drop(token);
            });
        });
        is_ready.recv().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(trigger.drain(LONG)), Drained { left: 0 });
        other.join().unwrap();
    }
}
