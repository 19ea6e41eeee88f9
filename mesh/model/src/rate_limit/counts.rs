//! The buckets of many keys. A bucket that is full is as good as one that nobody has used, and is forgotten when its place is wanted.

use std::collections::HashMap;
use std::time::Duration;

use super::bucket::Bucket;

/// How often those that are full are looked for, where there is no place: a flood of new keys does not have all of them looked at
/// each time.
const SWEEP: u64 = 1_000_000_000;

/// The buckets of keys that were seen lately.
#[derive(Debug)]
pub struct Counts {
    /// When each is full.
    full: HashMap<u128, u64>,
    most: usize,
    swept: Option<u64>,
}

impl Counts {
    /// Of so many keys at once.
    pub fn new(most: usize) -> Self {
        Self { full: HashMap::new(), most, swept: None }
    }

    /// Takes a token of a key's bucket. None: all places are taken by keys whose buckets are not full.
    pub fn take(&mut self, bucket: Bucket, key: u128, now: u64) -> Option<Result<(), Duration>> {
        if let Some(full) = self.full.get_mut(&key) {
            return Some(bucket.take(*full, now).map(|then| *full = then));
        }
        if self.full.len() >= self.most {
            if self.swept.is_some_and(|swept| now < swept.saturating_add(SWEEP)) {
                return None;
            }
            self.swept = Some(now);
            self.full.retain(|_, full| *full > now);
            if self.full.len() >= self.most {
                return None;
            }
        }
        Some(bucket.take(0, now).map(|then| {
            self.full.insert(key, then);
        }))
    }

    /// Gives a token back that was taken of a key's bucket.
    pub fn give_back(&mut self, bucket: Bucket, key: u128) {
        if let Some(full) = self.full.get_mut(&key) {
            *full = bucket.give_back(*full);
        }
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        self.full.len()
    }

    /// None is known.
    pub fn is_empty(&self) -> bool {
        self.full.is_empty()
    }
}
