//! When to renew a certificate, and how long to wait after a failure. Pure: time and chance are arguments.

use std::time::{Duration, SystemTime};

/// Renewal is due at half of the lifetime, moved by up to this part of it either way, so that the certificates of a
/// node that started at once do not stay in step.
const SPREAD: f64 = 0.05;

/// Waits are moved by up to this part either way.
const JITTER: f64 = 0.2;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(150);
/// However short a certificate lives, its CA is not asked more often.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);

/// When a certificate received at `received` is to be renewed. `random` is between 0 and 1.
///
/// What counts is the part of the lifetime that was left on arrival: CAs date certificates back by minutes, which
/// for lifetimes of seconds would put the half of it into the past.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime, received: SystemTime, random: f64) -> SystemTime {
    let start = not_before.max(received);
    match not_after.duration_since(start) {
        Ok(left) => start + left.mul_f64(0.5 + SPREAD * (2.0 * unit(random) - 1.0)),
        Err(_) => received,
    }
}

/// How long to wait after the `failures`th failure in a row (from 1) to get a certificate of `lifetime`, when the one
/// still held (if any) is valid for `left`. `random` is between 0 and 1.
///
/// Doubles from one second to 150, both less for lifetimes of seconds; and the last try comes before the certificate
/// held expires.
pub fn retry_after(failures: u32, lifetime: Duration, left: Option<Duration>, random: f64) -> Duration {
    let first = (lifetime / 20).clamp(SHORTEST_WAIT, FIRST_WAIT);
    let longest = (lifetime / 4).clamp(first, LONGEST_WAIT);
    let doublings = failures.saturating_sub(1).min(16);
    let wait = first.saturating_mul(1 << doublings).min(longest);
    let wait = wait.mul_f64(1.0 + JITTER * (2.0 * unit(random) - 1.0)).min(LONGEST_WAIT);
    match left {
        Some(left) if !left.is_zero() => wait.min(left).max(SHORTEST_WAIT),
        _ => wait.max(SHORTEST_WAIT),
    }
}

fn unit(random: f64) -> f64 {
    if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn at(seconds: f64) -> SystemTime {
        let base = SystemTime::UNIX_EPOCH + NOW;
        let offset = Duration::from_secs_f64(seconds.abs());
        if seconds < 0.0 { base - offset } else { base + offset }
    }

    #[test]
    fn renewal_is_at_half_of_what_is_left() {
        // (not before, not after, random) -> seconds from the arrival
        for (before, after, random, expected) in [
            (0.0, 100.0, 0.5, 50.0),
            (0.0, 100.0, 0.0, 45.0),
            (0.0, 100.0, 1.0, 55.0),
            (0.0, 100.0, f64::NAN, 50.0),
            (0.0, 100.0, 7.0, 55.0),
            // Dated back two minutes: what is left counts.
            (-120.0, 3.0, 0.5, 1.5),
            (-120.0, 86_400.0, 0.5, 43_200.0),
            // Our clock is behind the CA's.
            (10.0, 20.0, 0.5, 15.0),
            // Expired on arrival.
            (-20.0, -10.0, 0.5, 0.0),
            (20.0, 10.0, 0.5, 0.0),
        ] {
            let due = renew_at(at(before), at(after), at(0.0), random);
            assert_eq!(due, at(expected), "{before} {after} {random}");
        }
    }

    #[test]
    fn waits_double_and_end() {
        let day = Duration::from_secs(86_400);
        let seconds = |n, lifetime, left: Option<f64>, random| {
            retry_after(n, lifetime, left.map(Duration::from_secs_f64), random).as_secs_f64()
        };
        for (failures, lifetime, left, random, expected) in [
            (0, day, None, 0.5, 1.0),
            (1, day, None, 0.5, 1.0),
            (1, day, None, 0.0, 0.8),
            (1, day, None, 1.0, 1.2),
            (2, day, None, 0.5, 2.0),
            (8, day, None, 0.5, 128.0),
            (9, day, None, 0.5, 150.0),
            (9, day, None, 1.0, 150.0),
            (9, day, None, 0.0, 120.0),
            (u32::MAX, day, None, 0.5, 150.0),
            // No later than expiry, and not in a busy loop towards it.
            (9, day, Some(30.0), 0.5, 30.0),
            (9, day, Some(0.001), 0.5, 0.05),
            (9, day, Some(0.0), 0.5, 150.0),
            // Lifetimes of seconds.
            (1, Duration::from_secs(3), None, 0.5, 0.15),
            (2, Duration::from_secs(3), None, 0.5, 0.3),
            (9, Duration::from_secs(3), None, 0.5, 0.75),
            (9, Duration::from_secs(3), Some(0.2), 0.5, 0.2),
            (1, Duration::ZERO, None, 0.0, 0.05),
        ] {
            let wait = seconds(failures, lifetime, left, random);
            assert!((wait - expected).abs() < 1e-6, "{failures} {lifetime:?} {left:?} {random}: {wait}");
        }
    }
}
