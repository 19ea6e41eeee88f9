//! What was found out lately, of as much as there is room for.

use std::collections::HashMap;
use std::hash::Hash;

use aws_lc_rs::digest::{SHA256, digest as hash};

/// What stands for a token.
pub(super) type Digest = [u8; 32];

/// Two tokens have one only if somebody has broken SHA-256.
pub(super) fn digest(text: &str) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(hash(&SHA256, text.as_bytes()).as_ref());
    digest
}

/// Two generations: what the older one has and nobody asks for is gone when the younger one is full.
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    most: usize,
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    /// Keeps the last `most` at least, and twice as many at most.
    pub(super) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), most }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.insert(key, value.clone());
        Some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut recent = Recent::new(10);
        recent.insert(0, "used");
        for key in 1..1000 {
            recent.insert(key, "once");
            assert_eq!(recent.get(&0), Some("used"), "{key}");
            assert!(recent.young.len() + recent.old.len() <= 20);
        }
        assert_eq!((recent.get(&1), recent.get(&999)), (None, Some("once")));
    }
}
