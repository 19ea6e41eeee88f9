//! One limit of the tables, and how much there is of it: shared by all data threads.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mesh_model::rate_limit::bucket::Bucket;
use mesh_model::rate_limit::counts::Counts;
use mesh_model::rate_limit::{About, Kind, LimitKey, RateLimit};
use tokio::time::Instant;

use super::metrics::Counted;
use crate::limits::{RATE_KEYS, RATE_SHARDS};

/// One limit.
pub(crate) struct Limiter {
    /// What is written.
    pub(crate) limit: RateLimit,
    /// What became of requests.
    pub(crate) counted: Counted,
    /// Of one that the waypoint counts.
    buckets: Option<Buckets>,
}

/// The buckets of a limit.
struct Buckets {
    bucket: Bucket,
    started: Instant,
    /// Of requests that are not told apart, and of keys for which there is no place.
    shared: AtomicU64,
    keyed: Option<Keyed>,
}

/// One bucket for each key.
struct Keyed {
    key: LimitKey,
    /// Keys are known by 128 bits of hashes that nobody outside can foresee: none is longer than another, and nobody finds one that
    /// is taken for somebody else's.
    hashes: [RandomState; 2],
    shards: Vec<Mutex<Counts>>,
}

/// Whose token was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Everybody's.
    Shared,
    /// A key's own.
    Of(u128),
}

impl Limiter {
    /// One of which nothing was used.
    pub(super) fn new(limit: RateLimit, counted: Counted) -> Self {
        let buckets = match &limit.kind {
            Kind::Global(_) => None,
            Kind::Local(local) => Some(Buckets {
                bucket: Bucket::of(local),
                started: Instant::now(),
                shared: AtomicU64::new(0),
                keyed: local.key.clone().map(Keyed::new),
            }),
        };
        Self { limit, counted, buckets }
    }

    /// Takes a token for a request; None where the waypoint counts nothing itself.
    ///
    /// # Errors
    /// There is none; in so long there is.
    pub(crate) fn take(&self, about: &About<'_>) -> Option<Result<Taken, Duration>> {
        let Buckets { bucket, started, shared, keyed } = self.buckets.as_ref()?;
        let now = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if let Some(keyed) = keyed {
            let key = keyed.of(about);
            if let Some(taken) = keyed.shard(key).take(*bucket, key, now) {
                return Some(taken.map(|()| Taken::Of(key)));
            }
        }
        let take = |full| bucket.take(full, now).ok();
        let taken = shared.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        Some(match taken {
            Ok(_) => Ok(Taken::Shared),
            Err(full) => bucket.take(full, now).map(|_| Taken::Shared),
        })
    }

    /// Gives a token back: its request was refused for another reason.
    pub(crate) fn give_back(&self, taken: Taken) {
        let Some(Buckets { bucket, shared, keyed, .. }) = &self.buckets else { return };
        match (taken, keyed) {
            (Taken::Of(key), Some(keyed)) => keyed.shard(key).give_back(*bucket, key),
            _ => {
                let back = |full| Some(bucket.give_back(full));
                // It always has something to set.
                let _ = shared.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
            }
        }
    }

    /// How many keys are counted apart now.
    pub(super) fn keys(&self) -> Option<usize> {
        let keyed = self.buckets.as_ref()?.keyed.as_ref()?;
        Some(keyed.shards.iter().map(|shard| lock(shard).len()).sum())
    }
}

impl Keyed {
    fn new(key: LimitKey) -> Self {
        let shards = (0..RATE_SHARDS).map(|_| Mutex::new(Counts::new(RATE_KEYS))).collect();
        Self { key, hashes: [RandomState::new(), RandomState::new()], shards }
    }

    fn of(&self, about: &About<'_>) -> u128 {
        let [high, low] = self.hashes.each_ref().map(|state| {
            let mut hasher = state.build_hasher();
            self.key.hash(about, &mut hasher);
            u128::from(hasher.finish())
        });
        (high << 64) | low
    }

    /// Locked while one bucket is looked at.
    fn shard(&self, key: u128) -> MutexGuard<'_, Counts> {
        lock(&self.shards[(key % RATE_SHARDS as u128) as usize])
    }
}

fn lock(shard: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
