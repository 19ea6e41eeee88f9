//! When which keys are fetched. Pure: whoever asks says what time it is.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Sources that are followed. Each may hold 64 KiB of keys.
pub(super) const MOST: usize = 512;
/// Fetches at one time.
const AT_ONCE: usize = 16;
/// How long after a first failure it is tried again; twice that after each further one.
const RETRY: Duration = Duration::from_secs(1);
/// Longest between two tries of what fails.
const MOST_RETRY: Duration = Duration::from_secs(60);

/// When which keys are fetched.
pub(super) struct Schedule<K> {
    interval: Duration,
    sources: BTreeMap<K, Source>,
    running: usize,
    started: u64,
}

struct Source {
    timeout: Duration,
    failures: u32,
    next: Next,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    At(Instant),
    /// The fetch of this number.
    Runs(u64),
}

/// What is to be fetched now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Start<K> {
    pub(super) source: K,
    pub(super) number: u64,
    pub(super) timeout: Duration,
}

impl<K: Ord + Clone> Schedule<K> {
    /// `interval`: after how long what was fetched is fetched again.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, sources: BTreeMap::new(), running: 0, started: 0 }
    }

    /// These are wanted from now on, each with how long a fetch may take. Those that are followed already go before new ones. Gives
    /// those that are too many, and not followed.
    pub(super) fn want(&mut self, wanted: &BTreeMap<K, Duration>, now: Instant) -> Vec<K> {
        self.sources.retain(|source, _| wanted.contains_key(source));
        let mut refused = Vec::new();
        for (source, timeout) in wanted {
            if let Some(known) = self.sources.get_mut(source) {
                known.timeout = *timeout;
            } else if self.sources.len() < MOST {
                let new = Source { timeout: *timeout, failures: 0, next: Next::At(now) };
                self.sources.insert(source.clone(), new);
            } else {
                refused.push(source.clone());
            }
        }
        refused
    }

    /// Starts what is due, the longest due first, as many as may run at one time.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Start<K>> {
        let mut due: Vec<(Instant, K)> = self
            .sources
            .iter()
            .filter_map(|(source, state)| match state.next {
                Next::At(at) if at <= now => Some((at, source.clone())),
                _ => None,
            })
            .collect();
        due.sort();
        due.truncate(AT_ONCE.saturating_sub(self.running));
        let mut starts = Vec::new();
        for (_, source) in due {
            let Some(state) = self.sources.get_mut(&source) else { continue };
            (self.started, self.running) = (self.started + 1, self.running + 1);
            state.next = Next::Runs(self.started);
            starts.push(Start { source, number: self.started, timeout: state.timeout });
        }
        starts
    }

    /// When to look again; None: not before a fetch has ended or others are wanted.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.running >= AT_ONCE {
            return None;
        }
        let at = |state: &Source| match state.next {
            Next::At(at) => Some(at),
            Next::Runs(_) => None,
        };
        self.sources.values().filter_map(at).min()
    }

    /// A fetch has ended. Whether what came of it counts: its source is still wanted, and no other fetch has begun since.
    /// `spread` is between 0 and 1: sources that were wanted at the same time are not asked at the same time for ever.
    pub(super) fn done(&mut self, (source, number): (&K, u64), fetched: bool, now: Instant, spread: f64) -> bool {
        self.running = self.running.saturating_sub(1);
        let Some(state) = self.sources.get_mut(source).filter(|state| state.next == Next::Runs(number)) else {
            return false;
        };
        let delay = if fetched {
            state.failures = 0;
            self.interval
        } else {
            state.failures = state.failures.saturating_add(1);
            RETRY.saturating_mul(1 << (state.failures - 1).min(10)).min(MOST_RETRY).min(self.interval)
        };
        state.next = Next::At(now + delay.mul_f64(1.0 - spread.clamp(0.0, 1.0) / 10.0));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn all(names: &[&'static str]) -> BTreeMap<&'static str, Duration> {
        names.iter().map(|name| (*name, TIMEOUT)).collect()
    }

    fn sources(starts: &[Start<&'static str>]) -> Vec<&'static str> {
        starts.iter().map(|start| start.source).collect()
    }

    #[test]
    fn what_is_fetched_is_fetched_again_and_what_fails_sooner() {
        let (mut schedule, begin) = (Schedule::new(seconds(60)), Instant::now());
        assert_eq!(schedule.next(), None);
        schedule.want(&all(&["a"]), begin);
        let mut now = begin;
        // (fetched, seconds until the next)
        for (number, (fetched, delay)) in [
            (false, 1),
            (false, 2),
            (false, 4),
            (true, 60),
            (false, 1),
            (false, 2),
            (false, 4),
            (false, 8),
            (false, 16),
            (false, 32),
            (false, 60),
            (false, 60),
            (true, 60),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(schedule.next(), Some(now));
            let started = schedule.due(now);
            assert_eq!(started, [Start { source: "a", number: number as u64 + 1, timeout: TIMEOUT }]);
            assert_eq!((schedule.next(), schedule.due(now)), (None, vec![]), "once at a time");
            assert!(schedule.done((&"a", started[0].number), fetched, now, 0.0));
            assert_eq!(schedule.next(), Some(now + seconds(delay)), "fetch {number}");
            assert!(schedule.due(now + seconds(delay) - Duration::from_millis(1)).is_empty());
            now += seconds(delay);
        }
        let started = schedule.due(now);
        assert!(schedule.done((&"a", started[0].number), true, now, 1.0));
        assert_eq!(schedule.next(), Some(now + seconds(54)), "spread");
    }

    #[test]
    fn what_is_not_wanted_any_more_is_forgotten_with_what_comes_of_it() {
        let (mut schedule, now) = (Schedule::new(seconds(60)), Instant::now());
        schedule.want(&all(&["a", "b"]), now);
        assert_eq!(sources(&schedule.due(now)), ["a", "b"]);
        schedule.want(&all(&["b"]), now);
        schedule.want(&all(&["a", "b"]), now);
        assert_eq!(sources(&schedule.due(now)), ["a"], "it is wanted again, and fetched anew");
        assert!(!schedule.done((&"a", 1), true, now, 0.0), "the first fetch of it counts no more");
        assert!(schedule.done((&"a", 3), true, now, 0.0));
        assert!(schedule.done((&"b", 2), true, now, 0.0));
        assert_eq!(schedule.running, 0);
    }

    #[test]
    fn there_is_an_end_to_all_of_it() {
        let (mut schedule, now) = (Schedule::new(seconds(60)), Instant::now());
        let many = |from: usize, to: usize| (from..to).map(|n| (n, TIMEOUT)).collect::<BTreeMap<_, _>>();
        assert!(schedule.want(&many(10, 10 + MOST), now).is_empty());
        assert_eq!(schedule.want(&many(8, 10 + MOST), now), [8, 9], "who is there stays");
        let first = schedule.due(now);
        assert_eq!((first.len(), schedule.next()), (AT_ONCE, None));
        assert!(schedule.due(now).is_empty());
        assert!(schedule.done((&first[0].source, first[0].number), false, now, 0.0));
        // What has failed does not go before what has never been tried.
        assert_eq!(schedule.due(now + seconds(5))[0].source, first[AT_ONCE - 1].source + 1);
    }
}
