//! What is known of an endpoint of a service's port. All data threads write it, and none waits for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use mesh_model::balance::ewma::{Average, Known, PeakEwma};

/// What is known of an endpoint of a service's port.
pub(crate) struct EndpointState {
    pub(super) uid: Arc<str>,
    /// Requests and connections that it has.
    active: AtomicU32,
    /// Its last answer was an error: the next good one counts.
    pub(super) troubled: AtomicBool,
    /// How long it takes, and how often it fails: an [`Average`] each.
    latency: AtomicU64,
    failures: AtomicU64,
}

impl EndpointState {
    /// Nothing is known of it.
    pub(super) fn new(uid: Arc<str>, now: Duration) -> Self {
        let Known { latency, failures } = Known::nothing(now);
        Self {
            uid,
            active: 0.into(),
            troubled: false.into(),
            latency: latency.to_bits().into(),
            failures: failures.to_bits().into(),
        }
    }

    /// How much it has to do.
    pub(super) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// It has one request or connection more.
    pub(super) fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// One has ended.
    pub(super) fn end(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// What a request costs there now.
    pub(super) fn cost(&self, ewma: &PeakEwma, now: Duration) -> f32 {
        ewma.cost(self.known(), self.active(), now)
    }

    /// Takes in how long something took, and whether it failed.
    pub(super) fn observe(&self, ewma: &PeakEwma, took: Duration, failed: bool, now: Duration) {
        update(&self.latency, |known| ewma.took(known, took, failed, now));
        update(&self.failures, |known| ewma.failed(known, failed, now));
    }

    fn known(&self) -> Known {
        let average = |of: &AtomicU64| Average::from_bits(of.load(Ordering::Relaxed));
        Known { latency: average(&self.latency), failures: average(&self.failures) }
    }
}

fn update(average: &AtomicU64, next: impl Fn(Average) -> Average) {
    let next = |bits| Some(next(Average::from_bits(bits)).to_bits());
    // It always has a next one.
    let _ = average.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
}
