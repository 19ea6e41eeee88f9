//! Flood accounting: how much a peer may make us work for nothing.
//!
//! Frames that carry no bytes of a tunnel (PING, SETTINGS, resets, empty DATA, window updates, unknown types) are paid
//! from an allowance. Time fills it slowly, and so do bytes that are carried and tunnels that are opened: peers that
//! use the connection for what it is for never see its end; one that floods loses its connection, and only that.

use std::time::Instant;

/// Most that can be saved up: a burst that a busy, honest peer may make at once.
const BURST: f64 = 4_000.0;
/// Gained by waiting, a second.
const PER_SECOND: f64 = 500.0;

/// One connection's allowance.
#[derive(Debug)]
pub(crate) struct Allowance {
    left: f64,
    since: Instant,
}

impl Allowance {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    /// Pays for a frame. False when nothing is left.
    pub(crate) fn spend(&mut self, cost: u32, now: Instant) -> bool {
        let needed = f64::from(cost);
        if self.left < needed {
            self.left = (self.left + now.duration_since(self.since).as_secs_f64() * PER_SECOND).min(BURST);
            self.since = now;
        }
        let enough = self.left >= needed;
        self.left = (self.left - needed).max(0.0);
        enough
    }

    /// Gains by work that was asked for.
    pub(crate) fn earn(&mut self, gain: u32) {
        self.left = (self.left + f64::from(gain)).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_ends_and_use_does_not() {
        let now = Instant::now();
        let mut flood = Allowance::new(now);
        let taken = (0..1_000_000).take_while(|_| flood.spend(1, now)).count();
        assert_eq!(taken, BURST as usize);
        assert!(flood.spend(1, now + Duration::from_secs(1)), "time heals");

        let mut used = Allowance::new(now);
        for _ in 0..1_000_000 {
            used.earn(4);
            assert!(used.spend(3, now));
        }
    }
}
