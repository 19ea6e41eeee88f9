//! A token bucket, as the generic cell rate algorithm keeps it (ITU-T I.371): one number, the time at which the bucket is full
//! again. What lies in the past is a full bucket, about which nothing has to be known.

use std::time::Duration;

use super::LocalRateLimit;

/// How fast a bucket fills, and how much it holds. Times are nanoseconds since whatever the caller counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// In so long one token comes.
    each: u64,
    /// In so long an empty one is full.
    whole: u64,
}

impl Bucket {
    /// Of a limit. Rounded so that it never lets more pass than is written.
    pub fn of(limit: &LocalRateLimit) -> Self {
        let per = u64::try_from(limit.per.as_nanos()).unwrap_or(u64::MAX);
        let each = per.div_ceil(limit.requests.max(1).into()).max(1);
        Self { each, whole: each.saturating_mul(limit.burst.max(1).into()) }
    }

    /// Takes a token at `now` of one that is full at `full`: when it is full then.
    ///
    /// # Errors
    /// There is none; in so long there is.
    pub fn take(self, full: u64, now: u64) -> Result<u64, Duration> {
        let then = full.max(now).saturating_add(self.each);
        match (then - now).checked_sub(self.whole) {
            Some(late) if late > 0 => Err(Duration::from_nanos(late)),
            _ => Ok(then),
        }
    }

    /// Gives a token back that was taken: when it is full then.
    pub fn give_back(self, full: u64) -> u64 {
        full.saturating_sub(self.each)
    }
}
