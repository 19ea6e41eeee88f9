//! Latency-aware balancing by the peak EWMA of latencies: of two that chance names, the one at which a request costs less. As Finagle's and
//! Linkerd's balancers have it. Pure: times are durations since any one moment, the same for all calls.
//!
//! ```text
//! cost = latency × (requests under way + 1) / share of answers that are good / weight
//! ```
//!
//! A latency that is longer than what was expected is believed at once (the peak); a shorter one by how long ago the last one was. What is
//! not asked is forgotten with time, towards nothing: so who was slow is tried again. A failure says nothing of how long an answer
//! takes, unless it took longer than expected: it leaves what was expected as it was, and counts in the share of good answers. So who
//! fails fast draws no traffic.

use std::time::Duration;

use crate::address::NamespacedName;

/// How long latencies are remembered, where nothing is said: as Linkerd does.
pub const DECAY: Duration = Duration::from_secs(10);
/// What is expected of an endpoint of which nothing is known, where nothing is said: as Linkerd does.
pub const DEFAULT_LATENCY: Duration = Duration::from_millis(30);
/// One answer of so many is what the last one counts among those that were good or not.
const ANSWERS: f32 = 10.0;
/// Who answers nothing but failures costs so much more, and no more than that.
const LEAST_GOOD: f32 = 0.01;
/// A shorter latency is none: in milliseconds.
const LEAST_LATENCY: f32 = 1e-3;

/// `loadBalancer` of a TrafficPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeakEwma {
    /// The TrafficPolicy that says it.
    pub policy: NamespacedName,
    /// In so long a latency is forgotten to a part of 1/e. Never zero.
    pub decay: Duration,
    /// What is expected of an endpoint of which nothing is known. Never zero.
    pub default_latency: Duration,
}

/// A value, and when it was so: as small as a number that threads share without a lock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Average {
    value: f32,
    /// In milliseconds. It begins anew after 49 days, which is noticed of nothing that is younger than half of that.
    at: u32,
}

impl Average {
    /// Nothing was seen yet.
    pub fn unknown(now: Duration) -> Self {
        Self { value: f32::NAN, at: milliseconds(now) }
    }

    /// As one number.
    pub fn to_bits(self) -> u64 {
        u64::from(self.value.to_bits()) << 32 | u64::from(self.at)
    }

    /// From [`Self::to_bits`].
    pub fn from_bits(bits: u64) -> Self {
        // The upper and the lower half.
        Self { value: f32::from_bits((bits >> 32) as u32), at: bits as u32 }
    }

    fn or(self, unknown: f32) -> f32 {
        if self.value.is_nan() { unknown } else { self.value }
    }

    /// How much of it is left.
    fn left(self, now: u32, decay: Duration) -> f32 {
        // Another thread may have been here later than this one's now. The bits are taken as they are.
        let age = (now.wrapping_sub(self.at) as i32).max(0);
        (-f64::from(age) / 1000.0 / decay.as_secs_f64()).exp() as f32
    }
}

/// What is known of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    /// Its latency, in milliseconds.
    pub latency: Average,
    /// How many of its answers are failures: 0 to 1.
    pub failures: Average,
}

impl Known {
    /// Nothing.
    pub fn nothing(now: Duration) -> Self {
        Self { latency: Average::unknown(now), failures: Average::unknown(now) }
    }
}

impl PeakEwma {
    /// Takes in how long something took.
    pub fn took(&self, known: Average, took: Duration, failed: bool, at: Duration) -> Average {
        let (expected, took) = (known.or(self.expected()), took.as_secs_f32() * 1000.0);
        let now = milliseconds(at);
        let left = known.left(now, self.decay);
        let value = match failed {
            _ if took >= expected => took,
            true => expected,
            false => expected * left + took * (1.0 - left),
        };
        Average { value, at: now }
    }

    /// Takes in whether something failed.
    pub fn failed(&self, known: Average, failed: bool, at: Duration) -> Average {
        let now = milliseconds(at);
        let before = known.or(0.0) * known.left(now, self.decay);
        let this = if failed { 1.0 } else { 0.0 };
        Average { value: before + (this - before) / ANSWERS, at: now }
    }

    /// What a request costs at an endpoint that has so many already. Never zero.
    pub fn cost(&self, known: Known, active: u32, at: Duration) -> f32 {
        let now = milliseconds(at);
        let Known { latency, failures } = known;
        let expected = (latency.or(self.expected()) * latency.left(now, self.decay)).max(LEAST_LATENCY);
        let good = (1.0 - failures.or(0.0) * failures.left(now, self.decay)).max(LEAST_GOOD);
        expected * (active as f32 + 1.0) / good
    }

    fn expected(&self) -> f32 {
        self.default_latency.as_secs_f32() * 1000.0
    }
}

/// Those that fit: what is later begins anew.
fn milliseconds(time: Duration) -> u32 {
    time.as_millis() as u32
}

#[cfg(test)]
mod tests;
