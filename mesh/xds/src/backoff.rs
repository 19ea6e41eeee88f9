//! How long to wait before connecting again. Pure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(15);

/// Waits that double from 10 ms to 15 s.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The wait after a stream has ended. One that was of use, or ended in the normal course of things, begins the
    /// doubling anew.
    pub fn after(&mut self, fruitful: bool) -> Duration {
        if fruitful {
            *self = Self::default();
        }
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_fifteen_seconds_and_begins_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..13).map(|_| backoff.after(false).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 15000, 15000]);
        assert_eq!(backoff.after(true).as_millis(), 10);
        assert_eq!(backoff.after(false).as_millis(), 20);
    }
}
