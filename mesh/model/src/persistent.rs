//! A sorted map that is cheap to clone and cheap to change: clones share what they have in common.
//!
//! A control plane keeps what it said last beside what it says now, and every session of every subscriber holds one of
//! them. The map is a list of sorted chunks; a change copies one chunk and the list of chunks, some microseconds in a map
//! of 100,000 entries, and leaves every clone as it was.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

/// Most entries of a chunk: about the square root of the largest map that is expected, so that neither a chunk nor the
/// list of chunks is long.
const CHUNK: usize = 256;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// A sorted map whose clones share what they have in common.
pub struct PersistentMap<K, V> {
    /// None is empty, and each ends before the next begins.
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

/// A position in a map: the chunk, and the entry in it. The end is a position in the last chunk, or `(0, 0)`.
type Position = (usize, usize);

impl<K, V> PersistentMap<K, V> {
    /// How many entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.chunks.iter().flat_map(|chunk| chunk.iter()).map(|(key, value)| (key, value))
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// The entries that `place` says are equal, in order. `place` says of a key whether it comes before them, is one of
    /// them or comes after, in the order of the keys.
    pub fn equal_range(&self, place: impl Fn(&K) -> Ordering) -> impl Iterator<Item = (&K, &V)> {
        let (start, end) = self.bounds(place);
        let chunks = self.chunks.get(start.0..).unwrap_or_default().iter().enumerate();
        chunks
            .take_while(move |(number, _)| start.0 + number <= end.0)
            .flat_map(move |(number, chunk)| {
                let from = if number == 0 { start.1 } else { 0 };
                let to = if start.0 + number == end.0 { end.1 } else { chunk.len() };
                chunk.get(from..to).unwrap_or_default()
            })
            .map(|(key, value)| (key, value))
    }

    /// How many entries [`Self::equal_range`] gives, without looking at them.
    pub fn count_equal(&self, place: impl Fn(&K) -> Ordering) -> usize {
        let (start, end) = self.bounds(place);
        let whole: usize = self.chunks.get(start.0..end.0).unwrap_or_default().iter().map(|chunk| chunk.len()).sum();
        (whole + end.1).saturating_sub(start.1)
    }

    fn bounds(&self, place: impl Fn(&K) -> Ordering) -> (Position, Position) {
        (self.first(|key| place(key) == Ordering::Less), self.first(|key| place(key) != Ordering::Greater))
    }

    /// The place of the first entry that does not come `before`.
    fn first(&self, before: impl Fn(&K) -> bool) -> Position {
        let begun = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|(key, _)| before(key)));
        let number = begun.saturating_sub(1);
        let within = self.chunks.get(number).map_or(0, |chunk| chunk.partition_point(|(key, _)| before(key)));
        (number, within)
    }
}

impl<K: Ord, V> PersistentMap<K, V> {
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> (Position, Option<&(K, V)>)
    where
        K: Borrow<Q>,
    {
        let mut place = self.first(|other| other.borrow() < key);
        let end_of_chunk = self.chunks.get(place.0).is_some_and(|chunk| chunk.len() == place.1);
        let next = self.chunks.get(place.0 + 1).and_then(|chunk| chunk.first());
        if end_of_chunk && next.is_some_and(|(first, _)| first.borrow() == key) {
            place = (place.0 + 1, 0);
        }
        let found = self.chunks.get(place.0).and_then(|chunk| chunk.get(place.1));
        (place, found.filter(|(found, _)| found.borrow() == key))
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.find(key).1.map(|(_, value)| value)
    }

    /// The value of a key, with the key as the map has it.
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        self.find(key).1.map(|(key, value)| (key, value))
    }

    /// Whether a key is there.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).1.is_some()
    }
}

impl<K: Ord + Clone, V: Clone> PersistentMap<K, V> {
    /// Sets the value of a key; gives the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let ((number, within), known) = self.find(&key);
        let known = known.is_some();
        let chunks = Arc::make_mut(&mut self.chunks);
        let count = chunks.len();
        let Some(chunk) = chunks.get_mut(number) else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        };
        if known {
            let old = &mut Arc::make_mut(chunk).get_mut(within)?.1;
            return Some(std::mem::replace(old, value));
        }
        self.len += 1;
        if chunk.len() < CHUNK {
            Arc::make_mut(chunk).insert(within, (key, value));
        } else if within == chunk.len() && number + 1 == count {
            // Filled in order, chunks stay full.
            chunks.push(Arc::new(vec![(key, value)]));
        } else {
            let chunk = Arc::make_mut(chunk);
            let mut upper = chunk.split_off(CHUNK / 2);
            match within.checked_sub(CHUNK / 2) {
                Some(within) => upper.insert(within, (key, value)),
                None => chunk.insert(within, (key, value)),
            }
            chunk.shrink_to_fit();
            chunks.insert(number + 1, Arc::new(upper));
        }
        None
    }

    /// Removes a key; gives its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let ((number, within), known) = self.find(key);
        known?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(chunks.get_mut(number)?);
        let (_, value) = chunk.remove(within);
        self.len -= 1;
        let left = chunk.len();
        if left == 0 {
            chunks.remove(number);
        } else if chunks.get(number + 1).is_some_and(|next| left + next.len() <= CHUNK / 2) {
            // Maps that shrink do not keep a long list of short chunks.
            let next = chunks.remove(number + 1);
            if let Some(chunk) = chunks.get_mut(number) {
                Arc::make_mut(chunk).extend(next.iter().cloned());
            }
        }
        Some(value)
    }
}

impl<K, V> Clone for PersistentMap<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: self.chunks.clone(), len: self.len }
    }
}

impl<K, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::default(), len: 0 }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for PersistentMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for PersistentMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

impl<K: Ord + Borrow<Q>, V, Q: Ord + ?Sized> Index<&Q> for PersistentMap<K, V> {
    type Output = V;

    /// Panics when the key is not there: for tests.
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("a key of the map")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Whatever is done to it, it says what a `BTreeMap` says, and so does every clone that was left behind.
    #[test]
    fn it_is_a_sorted_map_and_clones_stay_as_they_were() {
        let mut random = 11_u64;
        let mut below = move |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        let same = |map: &PersistentMap<(u64, u64), u64>, model: &BTreeMap<(u64, u64), u64>| {
            assert!(map.iter().eq(model.iter()));
            assert!(map.keys().eq(model.keys()) && map.values().eq(model.values()));
            assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
            assert!(map.chunks.iter().all(|chunk| (1..=CHUNK).contains(&chunk.len())));
        };
        // Growing, shrinking, and neither: between no entry and some dozen chunks.
        let (mut map, mut model) = (PersistentMap::default(), BTreeMap::new());
        let mut left = Vec::new();
        for step in 0..40_000_u64 {
            let key = (below(40), below(100));
            if below(100) < [80, 50, 5][(step / 5000) as usize % 3] {
                assert_eq!(map.insert(key, step), model.insert(key, step));
            } else {
                assert_eq!(map.remove(&key), model.remove(&key));
            }
            let asked = (below(41), below(100));
            assert_eq!(map.get(&asked), model.get(&asked));
            assert_eq!(map.contains_key(&asked), model.contains_key(&asked));
            let range = || model.range((asked.0, 0)..(asked.0 + 1, 0));
            assert!(map.equal_range(|key| key.0.cmp(&asked.0)).eq(range()));
            assert_eq!(map.count_equal(|key| key.0.cmp(&asked.0)), range().count());
            if step % 1999 == 0 {
                same(&map, &model);
                left.push((map.clone(), model.clone()));
            }
        }
        assert!(left.iter().any(|(map, _)| map.chunks.len() > 10) && left.iter().any(|(map, _)| map.len() < 300));
        for (map, model) in &left {
            same(map, model);
        }
    }

    #[test]
    fn what_did_not_change_is_shared() {
        let map: PersistentMap<u32, u32> = (0..10_000).map(|n| (n, n)).collect();
        assert_eq!(map.chunks.len(), 10_000_usize.div_ceil(CHUNK), "filled in order, chunks are full");
        let mut other = map.clone();
        other.insert(5000, 0);
        other.remove(&7000);
        let apart = map.chunks.iter().zip(other.chunks.iter()).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert_eq!((apart, map[&5000], other[&5000]), (2, 5000, 0));
    }

    #[test]
    fn empty_ranges_of_empty_maps() {
        let map = PersistentMap::<u32, u32>::default();
        assert_eq!((map.equal_range(|_| Ordering::Equal).count(), map.count_equal(|_| Ordering::Equal)), (0, 0));
        assert_eq!(map.get(&1), None);
    }

    #[test]
    fn no_chunk_is_left_empty() {
        let mut map: PersistentMap<usize, ()> = (0..3 * CHUNK).map(|n| (n, ())).collect();
        // Its neighbours are full, so it is merged with none of them.
        for key in CHUNK..2 * CHUNK {
            map.remove(&key);
        }
        assert_eq!((map.chunks.len(), map.len()), (2, 2 * CHUNK));
        for key in 0..3 * CHUNK {
            map.remove(&key);
        }
        assert_eq!((map.chunks.len(), map.is_empty()), (0, true));
    }
}
