//! How long to wait before connecting again, to whoever it is. Pure.

use std::time::Duration;

/// The first wait.
pub const FIRST: Duration = Duration::from_millis(10);
/// The longest wait.
pub const LONGEST: Duration = Duration::from_secs(15);

/// Waits that double from [`FIRST`] to [`LONGEST`], until what failed has worked.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        let wait = FIRST.saturating_mul(2u32.saturating_pow(self.failures)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// The wait after a connection has ended. One that was of use begins the doubling anew.
    pub fn after(&mut self, fruitful: bool) -> Duration {
        if fruitful {
            self.reset();
        }
        self.next_wait()
    }

    /// Forgets the failures so far.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..12).map(|_| backoff.next_wait().as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 15000]);
        backoff.reset();
        assert_eq!(backoff.next_wait(), FIRST);
        assert_eq!(Backoff { failures: u32::MAX }.next_wait(), LONGEST);
    }

    #[test]
    fn doubles_to_fifteen_seconds_and_begins_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..13).map(|_| backoff.after(false).as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 15000, 15000]);
        assert_eq!(backoff.after(true).as_millis(), 10);
        assert_eq!(backoff.after(false).as_millis(), 20);
    }
}
