//! When a caller's connection is ended in order, so that its next requests may take another way: to another pod of the waypoint, or
//! around it.
//!
//! ztunnel chooses a pod of the waypoint for each connection of a client, not for each request. A connection that lives long stays
//! where it is, however many pods there are meanwhile.

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// How many pods the waypoint has, and had before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pods {
    pub(crate) before: usize,
    pub(crate) now: usize,
}

impl Pods {
    /// Which part of the connections of each pod that was there before the new ones are to have.
    fn moves(self) -> f64 {
        if self.before == 0 || self.now <= self.before {
            return 0.0;
        }
        1.0 - self.before as f64 / self.now as f64
    }
}

/// Numbers between 0 and 1, spread evenly however few they are: multiples of the golden ratio. Of those who draw one after the other
/// it is a third that is below 1/3, and not by chance half of them or none.
#[derive(Debug)]
pub(crate) struct Even(Cell<u64>);

impl Even {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

    /// They begin anywhere.
    pub(crate) fn from(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    fn next(&self) -> f64 {
        self.0.set(self.0.get().wrapping_add(Self::GOLDEN));
        (self.0.get() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How long connections go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// At most, but for what is under way. None: for ever.
    pub(crate) age: Option<Duration>,
    /// After the waypoint has more pods, those that move.
    pub(crate) spread: Duration,
    /// After its service has left the waypoint, one on which nothing is asked.
    pub(crate) left: Duration,
}

/// When a caller's connection is ended in order.
#[derive(Debug)]
pub(crate) struct Ends {
    limits: Limits,
    old: Cell<Option<Instant>>,
    /// It has been chosen for one of the new pods.
    moves: Cell<bool>,
    now: Notify,
}

impl Ends {
    /// Of a connection that begins now. `chance` is between 0 and 1: what begins together does not end together.
    pub(crate) fn new(limits: Limits, chance: f64) -> Self {
        let old = limits.age.map(|age| Instant::now() + age.mul_f64(1.0 - chance / 2.0));
        Self { limits, old: Cell::new(old), moves: Cell::new(false), now: Notify::new() }
    }

    /// Its next answer is the last.
    pub(crate) fn is_old(&self) -> bool {
        self.old.get().is_some_and(|old| old <= Instant::now())
    }

    /// It ends after what is under way.
    pub(crate) fn after_this(&self) {
        self.now.notify_one();
    }

    /// The waypoint has other pods. `even` decides whether this connection moves, and when. One that moves already draws no second
    /// time: the others are those of which a part is to follow.
    fn take(&self, pods: Pods, even: &Even) {
        let part = pods.moves();
        if part == 0.0 || self.moves.get() {
            return;
        }
        let drawn = even.next();
        if drawn < part {
            self.moves.set(true);
            // Those that move are spread over the time as evenly as they were chosen.
            self.by(Instant::now() + self.limits.spread.mul_f64(drawn / part));
        }
    }

    /// From then on it is old, if it was not to be before.
    fn by(&self, then: Instant) {
        self.old.set(Some(self.old.get().map_or(then, |old| old.min(then))));
    }

    /// Resolves when it is old.
    pub(crate) async fn old(&self, mut pods: watch::Receiver<Pods>, even: &Even) {
        loop {
            let due = async {
                match self.old.get() {
                    Some(old) => sleep_until(old).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => return,
                changed = pods.changed() => {
                    let now = *pods.borrow_and_update();
                    match changed {
                        Ok(()) => self.take(now, even),
                        // Nobody says it any more: the thread ends.
                        Err(_) => return std::future::pending().await,
                    }
                }
            }
        }
    }

    /// The waypoint ends: the next answer is the last, and resolves when it is time to end without one. A caller may have sent a request
    /// that has not come yet: on an HTTP/1 connection that is closed at once it would be lost, and a POST is not sent again.
    pub(crate) async fn with_the_waypoint(&self, drain: Duration) {
        self.by(Instant::now());
        // While there is still time for an answer before what is left is cut.
        sleep(self.limits.left.min(drain / 2)).await;
    }

    /// Resolves when a request said so, or its service has left the waypoint and nothing was asked for a while: what is asked
    /// meanwhile is answered, and says so.
    pub(crate) async fn left(&self, left: Option<watch::Receiver<bool>>) {
        let nothing_asked = async {
            let Some(mut left) = left else { return std::future::pending().await };
            loop {
                // An error means that nothing is known of it any more, and so it has left.
                if left.wait_for(|left| *left).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = sleep(self.limits.left) => return,
                    // It is back.
                    back = left.wait_for(|left| !*left) => if back.is_err() { return },
                }
            }
        };
        tokio::select! {
            () = self.now.notified() => {}
            () = nothing_asked => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { age: Some(Duration::from_secs(600)), spread: Duration::from_secs(20), left: Duration::from_secs(5) };

    /// On the test's own clock; an hour is for ever.
    async fn seconds_until(future: impl Future<Output = ()>) -> u64 {
        let start = Instant::now();
        let _ = tokio::time::timeout(Duration::from_secs(3600), future).await;
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_grows_old_and_not_with_all_others_at_once() {
        let none = watch::Sender::new(Pods::default());
        for (chance, expected) in [(0.0, 600), (0.5, 450), (1.0, 300)] {
            let ends = Ends::new(LIMITS, chance);
            assert!(!ends.is_old());
            assert_eq!(seconds_until(ends.old(none.subscribe(), &next(0.0))).await, expected, "{chance}");
            assert!(ends.is_old());
        }
        let ends = Ends::new(Limits { age: None, ..LIMITS }, 0.0);
        let day = Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, ends.old(none.subscribe(), &next(0.0))).await.is_err() && !ends.is_old());
    }

    #[tokio::test(start_paused = true)]
    async fn more_pods_take_their_part() {
        let pods = |before, now| Pods { before, now };
        // What is drawn next, and when the connection ends; those that stay grow old.
        for (pods, drawn, end) in [
            (pods(1, 3), 0.0, 0),
            (pods(1, 3), 0.5, 15),
            (pods(1, 3), 0.66, 19),
            (pods(1, 3), 0.67, 600),
            (pods(3, 4), 0.2, 16),
            (pods(3, 4), 0.3, 600),
            (pods(3, 1), 0.0, 600),
            (pods(0, 1), 0.0, 600),
        ] {
            let ends = Ends::new(LIMITS, 0.0);
            ends.take(pods, &next(drawn));
            let none = watch::Sender::new(Pods::default());
            assert_eq!(seconds_until(ends.old(none.subscribe(), &next(0.0))).await, end, "{pods:?} {drawn}");
        }
    }

    /// Numbers of which this one is next.
    fn next(drawn: f64) -> Even {
        Even::from(((drawn * 2_f64.powi(64)) as u64).wrapping_sub(Even::GOLDEN))
    }

    /// However few they are, and in however many steps the pods come: by chance alone a pod would often keep half of them.
    ///
    /// Seen red with numbers of chance: 47 of 64 had moved.
    #[tokio::test(start_paused = true)]
    async fn as_many_move_as_should() {
        for seed in 0..200_u64 {
            for steps in [&[1, 3][..], &[1, 2, 3]] {
                let even = Even::from(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
                let told = watch::Sender::new(Pods::default());
                let all: Vec<Ends> = (0..64).map(|_| Ends::new(Limits { age: None, ..LIMITS }, 0.0)).collect();
                let waiting = all_old(&all, &told, &even);
                let tell = async {
                    for step in steps.windows(2) {
                        sleep(Duration::from_secs(1)).await;
                        told.send_replace(Pods { before: step[0], now: step[1] });
                    }
                    sleep(LIMITS.spread).await;
                };
                tokio::select! {
                    () = waiting => {}
                    () = tell => {}
                }
                let moved = all.iter().filter(|ends| ends.is_old()).count();
                assert!((40..=45).contains(&moved), "{moved} of 64 move, by {steps:?}, from {seed}");
            }
        }
    }

    /// Waits with all of them, for ever.
    async fn all_old(all: &[Ends], told: &watch::Sender<Pods>, even: &Even) {
        let mut waiting: Vec<_> = all.iter().map(|ends| Some(Box::pin(ends.old(told.subscribe(), even)))).collect();
        std::future::poll_fn(|cx| {
            for one in &mut waiting {
                if one.as_mut().is_some_and(|one| one.as_mut().poll(cx).is_ready()) {
                    *one = None;
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_waypoint_ends_there_is_time_for_a_request_that_is_on_its_way() {
        for (drain, seconds) in [(25, 5), (4, 2)] {
            let ends = Ends::new(LIMITS, 0.0);
            let ending = ends.with_the_waypoint(Duration::from_secs(drain));
            tokio::pin!(ending);
            assert!(waits(ending.as_mut()).await && ends.is_old(), "the next answer says that it is the last");
            assert_eq!(seconds_until(ending).await, seconds, "of {drain} seconds");
        }
    }

    /// Polls it once: whether it waits.
    async fn waits(mut future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test(start_paused = true)]
    async fn whose_service_has_left_ends_when_nothing_is_asked() {
        let ends = Ends::new(LIMITS, 0.0);
        let left = watch::Sender::new(true);
        assert_eq!(seconds_until(ends.left(Some(left.subscribe()))).await, 5);
        // It comes back in between, and leaves again.
        let moves = async {
            for (seconds, away) in [(4, false), (60, true)] {
                sleep(Duration::from_secs(seconds)).await;
                left.send_replace(away);
            }
            std::future::pending::<()>().await;
        };
        let waits = async {
            tokio::select! {
                () = ends.left(Some(left.subscribe())) => {}
                () = moves => {}
            }
        };
        assert_eq!(seconds_until(waits).await, 64 + 5);
        // Something is asked: at once.
        ends.after_this();
        assert_eq!(seconds_until(ends.left(Some(left.subscribe()))).await, 0);
        let receiver = left.subscribe();
        drop(left);
        assert_eq!(seconds_until(ends.left(Some(receiver))).await, 0, "what is forgotten has left");
    }
}
