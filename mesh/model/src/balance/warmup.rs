//! Slow start: an endpoint that is new gets less than its weight at first, and more with time, as Envoy has it. Pure: times are durations
//! since any one moment, the same for all calls.
//!
//! New is who may be chosen now and could not be before: because it was not there, was not ready, or was ejected. Who can be chosen
//! when it is looked for the first time is old: nobody knows better how long it has been there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Weights are made so many times larger where somebody is new, so that a thousandth of the smallest one can be told from nothing.
pub const SCALE: u32 = 1000;
/// Shares change in steps, not at each request: a hundredth of the time that they take, and no more often than this.
const SHORTEST_STEP: Duration = Duration::from_millis(50);

/// `loadBalancer.warmup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// How long an endpoint is new. Never zero.
    pub duration: Duration,
    /// The least of its weight that it has, in hundredths of a percent: at most 10,000.
    pub minimum: u16,
    /// How much of the traffic comes early, in thousandths: at least 1,000, which is evenly.
    pub aggression: u32,
}

impl Warmup {
    /// What Istio takes where only a time is said.
    pub fn lasting(duration: Duration) -> Self {
        Self { duration, minimum: 1000, aggression: 1000 }
    }

    /// How much of its weight an endpoint has that has been new for so long: at most 1.
    pub fn share(&self, age: Duration) -> f64 {
        if age >= self.duration {
            return 1.0;
        }
        let time = age.as_secs_f64() / self.duration.as_secs_f64();
        let grown = time.powf(f64::from(SCALE) / f64::from(self.aggression.max(SCALE)));
        grown.max(f64::from(self.minimum) / 10_000.0).min(1.0)
    }
}

/// Since when endpoints may be chosen. Knows of as many as were shown to it last.
#[derive(Debug, Default)]
pub struct Ages {
    /// `None` until they were looked at; of each, `None` once it is old.
    since: Option<HashMap<Arc<str>, Option<Duration>>>,
}

impl Ages {
    /// Takes in who may be chosen now, by uid. Without a warmup all is forgotten: who is there when one begins is old.
    pub fn look<'a>(&mut self, warmup: Option<&Warmup>, usable: impl Iterator<Item = &'a Arc<str>>, now: Duration) {
        let Some(warmup) = warmup else {
            self.since = None;
            return;
        };
        let known = self.since.take();
        let since = |uid: &Arc<str>| {
            let since = known.as_ref().and_then(|known| known.get(uid).copied().unwrap_or(Some(now)));
            since.filter(|since| now.saturating_sub(*since) < warmup.duration)
        };
        self.since = Some(usable.map(|uid| (uid.clone(), since(uid))).collect());
    }

    /// How much of its weight one has; nothing if everybody has all of it.
    pub fn shares(&self, warmup: Option<&Warmup>, now: Duration) -> Option<impl Fn(&str) -> f64> {
        let (warmup, since) = (*warmup?, self.since.as_ref()?);
        let share = move |uid: &str| match since.get(uid) {
            Some(Some(since)) => warmup.share(now.saturating_sub(*since)),
            _ => 1.0,
        };
        since.values().any(Option::is_some).then_some(share)
    }

    /// When shares will have changed; `None` if they stay.
    pub fn next_step(&self, warmup: Option<&Warmup>, now: Duration) -> Option<Duration> {
        let (warmup, since) = (warmup?, self.since.as_ref()?);
        since.values().any(Option::is_some).then(|| now + (warmup.duration / 100).max(SHORTEST_STEP))
    }
}

#[cfg(test)]
mod tests;
