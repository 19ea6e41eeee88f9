//! Stop accepting, finish, then end.
//!
//! ```text
//!  Running ──drain(deadline)──▶ Closing ─all listeners closed─▶ Draining ──all tokens gone, or deadline──▶ Forced
//!                               listeners close               connections finish                         what is left is cut
//! ```
//!
//! The program keeps the one [`Trigger`] and gives out [`Watch`]es. Every listener holds a [`ListenerToken`] while it is open: no
//! peer is asked to connect elsewhere while its new connection could still be accepted here. Every connection holds a [`Token`] while it is open; draining
//! waits for the last of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How long the listeners may take to close before the drain goes on without them.
const CLOSE_LISTENERS: Duration = Duration::from_secs(2);

/// Starts the drain. There is one per program. Dropping it unused counts as forcing: who waits for it must not wait forever.
#[derive(Debug)]
pub struct Trigger {
    phase: watch::Sender<Phase>,
    open: Arc<Open>,
    listeners: Arc<Open>,
}

/// Tells of the drain, and counts what must finish first. Cheap to clone; usable from any runtime.
#[derive(Clone)]
pub struct Watch {
    phase: watch::Receiver<Phase>,
    open: Arc<Open>,
    listeners: Arc<Open>,
}

/// A listener that is open: hold it until the listener is closed.
#[derive(Debug)]
pub struct ListenerToken(#[allow(dead_code, reason = "held, and counted when it is dropped")] Token);

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
    Closing,
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
    let watch = Watch { phase: receiver, open: Arc::default(), listeners: Arc::default() };
    (Trigger { phase: sender, open: watch.open.clone(), listeners: watch.listeners.clone() }, watch)
}

impl Trigger {
    /// Starts the drain: waits until every listener is closed, then until every token is gone or `deadline` has passed, then forces.
    /// Says how many were left.
    pub async fn drain(self, deadline: Duration) -> Drained {
        let ends = tokio::time::Instant::now() + deadline;
        self.phase.send_replace(Phase::Closing);
        if tokio::time::timeout(CLOSE_LISTENERS.min(deadline), self.listeners.none_left()).await.is_err() {
            tracing::warn!(left = self.listeners.count.load(Ordering::Acquire), "listeners that did not close in time");
        }
        self.phase.send_replace(Phase::Draining);
        let finished = tokio::time::timeout_at(ends, self.open.none_left()).await;
        let left = if finished.is_ok() { 0 } else { self.open.count.load(Ordering::Acquire) };
        self.phase.send_replace(Phase::Forced);
        Drained { left }
    }
}

impl Watch {
    /// Returns once the drain begins: close the listeners.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    /// Returns once the listeners are closed: tell peers to go elsewhere.
    pub async fn started(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Returns once the deadline has passed (or all tokens are gone): end now.
    pub async fn forced(&self) {
        self.reached(Phase::Forced).await;
    }

    /// Whether the drain has begun.
    pub fn has_started(&self) -> bool {
        *self.phase.borrow() >= Phase::Closing || self.phase.has_changed().is_err()
    }

    /// Counts one more thing the drain waits for, until the token is dropped.
    pub fn token(&self) -> Token {
        Token::of(&self.open)
    }

    /// Counts one more listener that has to be closed before anybody is told to go elsewhere.
    pub fn listener(&self) -> ListenerToken {
        ListenerToken(Token::of(&self.listeners))
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

impl Token {
    fn of(open: &Arc<Open>) -> Self {
        open.count.fetch_add(1, Ordering::AcqRel);
        Self { open: open.clone() }
    }
}

impl Clone for Token {
    fn clone(&self) -> Self {
        Self::of(&self.open)
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
    async fn nobody_is_sent_elsewhere_before_the_listeners_are_closed() {
        let (trigger, watch) = new();
        let (listener, token) = (watch.listener(), watch.token());
        let begun = tokio::time::Instant::now();
        let (closed, sent) = tokio::join!(
            async {
                watch.closing().await;
                assert!(watch.has_started());
                tokio::time::sleep(Duration::from_secs(1)).await;
                drop(listener);
                begun.elapsed()
            },
            async {
                tokio::join!(trigger.drain(LONG), async {
                    watch.started().await;
                    drop(token);
                    begun.elapsed()
                })
            }
        );
        assert_eq!((closed, sent), (Duration::from_secs(1), (Drained { left: 0 }, Duration::from_secs(1))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_listener_that_stays_open_holds_nobody_up_for_long() {
        let (trigger, watch) = new();
        let (_listener, _token) = (watch.listener(), watch.token());
        let begun = tokio::time::Instant::now();
        assert_eq!(trigger.drain(Duration::from_secs(5)).await, Drained { left: 1 });
        assert_eq!(begun.elapsed(), Duration::from_secs(5), "the deadline holds all the same");
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
