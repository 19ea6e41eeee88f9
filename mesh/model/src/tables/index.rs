//! A hash table of numbers that stand for things kept elsewhere.
//!
//! An entry is eight bytes whatever its key. It keeps its hash, so that growing never looks at the keys: a table of
//! 100,000 grows in well under a millisecond, which is what readers wait meanwhile.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;

/// Below this many there is nothing to give back.
const SMALL: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    hash: u32,
    number: u32,
}

impl Entry {
    /// Both halves alike: the table takes its bucket from the low bits and its tag from the high ones.
    fn wide(&self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

/// Keys to numbers; several numbers may have one key. Whether a number really has the key is for the caller to say:
/// it knows the thing behind the number.
#[derive(Default)]
pub(super) struct Index {
    keys: RandomState,
    table: HashTable<Entry>,
}

impl Index {
    fn entry(&self, key: &impl Hash, number: u32) -> Entry {
        // The low half of a keyed hash is as good as the whole.
        Entry { hash: self.keys.hash_one(key) as u32, number }
    }

    /// The number with this key, of those that are `same`.
    pub(super) fn find(&self, key: &impl Hash, same: impl Fn(u32) -> bool) -> Option<u32> {
        let wanted = self.entry(key, 0);
        self.table.find(wanted.wide(), |e| e.hash == wanted.hash && same(e.number)).map(|e| e.number)
    }

    /// The numbers that may have this key, in no order.
    pub(super) fn candidates<'a, K: Hash>(&'a self, key: &K) -> impl Iterator<Item = u32> + use<'a, K> {
        let wanted = self.entry(key, 0);
        self.table.iter_hash(wanted.wide()).filter(move |e| e.hash == wanted.hash).map(|e| e.number)
    }

    /// Adds a number to a key.
    pub(super) fn insert(&mut self, key: &impl Hash, number: u32) {
        let entry = self.entry(key, number);
        self.table.insert_unique(entry.wide(), entry, Entry::wide);
    }

    /// Takes a number away from a key.
    pub(super) fn remove(&mut self, key: &impl Hash, number: u32) {
        let entry = self.entry(key, number);
        if let Ok(found) = self.table.find_entry(entry.wide(), |e| *e == entry) {
            found.remove();
        }
        let (used, room) = (self.table.len(), self.table.capacity());
        if room > SMALL && used < room / 8 {
            self.table.shrink_to(2 * used, Entry::wide);
        }
    }

    /// A key's number becomes another.
    pub(super) fn renumber(&mut self, key: &impl Hash, old: u32, new: u32) {
        let entry = self.entry(key, old);
        if let Some(found) = self.table.find_mut(entry.wide(), |e| *e == entry) {
            found.number = new;
        }
    }
}

/// Its size: hashes say nothing to anybody.
impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Index({})", self.table.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_key() {
        let mut index = Index::default();
        let names: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
        for (number, name) in names.iter().enumerate() {
            index.insert(name, number as u32);
        }
        for (number, name) in names.iter().enumerate() {
            let found = index.find(name, |n| names[n as usize] == *name);
            assert_eq!(found, Some(number as u32));
            assert!(index.candidates(name).any(|n| n == number as u32));
        }
        assert_eq!(index.find(&"x", |n| names[n as usize] == "x"), None);
        index.renumber(&names[7], 7, 70_000);
        assert_eq!(index.find(&names[7], |n| n == 70_000), Some(70_000));
        index.remove(&names[7], 70_000);
        for (number, name) in names.iter().enumerate().filter(|(n, _)| *n != 7) {
            index.remove(name, number as u32);
        }
        assert_eq!(index.table.len(), 0);
        assert!(index.table.capacity() <= 2 * SMALL, "given back: {}", index.table.capacity());
    }

    #[test]
    fn a_key_may_have_several_numbers() {
        let mut index = Index::default();
        for number in [1, 2, 3] {
            index.insert(&"k", number);
        }
        index.remove(&"k", 2);
        index.remove(&"k", 9);
        let mut left: Vec<_> = index.candidates(&"k").collect();
        left.sort_unstable();
        assert_eq!(left, [1, 3]);
        assert_eq!(index.find(&"k", |n| n == 3), Some(3));
    }
}
