//! Label sets and the counters of each, bounded: those that nobody will use again are to be forgotten; beyond the limit, sets idle for a
//! while make room, and if there are none a new set is counted under its collapsed form.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

/// A full table looks for idle sets at most every so many seconds.
const SWEEP_INTERVAL: u64 = 60;
/// A set stays for so many seconds after it was seen idle: longer than scrapes are apart, so that its last values were read.
pub(super) const GRACE: u64 = 120;

/// Labels of which there may be too many.
pub(super) trait Labels: Clone + Eq + Hash {
    /// What they are counted under when there are: one of a few.
    fn collapsed(&self) -> Self;
}

/// All sets of one kind.
#[derive(Debug)]
pub(super) struct Sets<L, C> {
    limit: usize,
    /// Read by whoever counts under known labels, written only for a label set never seen before.
    pub(super) table: RwLock<Table<L, C>>,
    dropped: AtomicU64,
    /// Seconds are counted from here.
    began: Instant,
}

#[derive(Debug)]
pub(super) struct Table<L, C> {
    pub(super) series: HashMap<Arc<L>, Arc<Series<C>>>,
    swept: Option<u64>,
}

/// The counters of one label set.
#[derive(Debug, Default)]
pub(super) struct Series<C> {
    counters: C,
    /// The second at which it was first seen unused; 0 if it was used since.
    idle_since: AtomicU64,
}

impl<C> Deref for Series<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.counters
    }
}

impl<L: Labels, C: Default> Sets<L, C> {
    /// At most `limit` of them, and the collapsed ones.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            table: RwLock::new(Table { series: HashMap::new(), swept: None }),
            dropped: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// The counters of these labels, and whether they are those of the collapsed form.
    pub(super) fn series(&self, labels: &L) -> (Arc<Series<C>>, bool) {
        if let Some(series) = self.read().series.get(labels) {
            series.used();
            return (series.clone(), false);
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.series.len() >= self.limit && !table.series.contains_key(labels) {
            let now = self.now();
            if table.swept.is_none_or(|swept| now >= swept + SWEEP_INTERVAL) {
                table.sweep(now);
            }
            if table.series.len() >= self.limit {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return (table.get_or_create(&labels.collapsed()), true);
            }
        }
        (table.get_or_create(labels), false)
    }

    /// Held while a handle is taken: a sweep must not forget what is being taken.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Table<L, C>> {
        // A panic while the lock was held cannot leave the map half changed.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds since it began, and some more: never 0.
    pub(super) fn now(&self) -> u64 {
        self.began.elapsed().as_secs() + 1
    }

    /// Those that have been idle for long, seen so before.
    pub(super) fn idle(&self, now: u64) -> Vec<Arc<L>> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.look(now);
        let idle =
            table.series.iter().filter(|(_, series)| series.idle_for(now).is_some_and(|seconds| seconds >= GRACE));
        idle.map(|(labels, _)| labels.clone()).collect()
    }

    /// Forgets these, unless they have been used since they were found idle.
    pub(super) fn forget(&self, sets: &[Arc<L>]) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        for labels in sets {
            if table.series.get(labels).is_some_and(|series| series.idle_for(u64::MAX).is_some()) {
                table.series.remove(labels);
            }
        }
        table.shrink();
    }

    /// What there is now. Encoding takes long; it must not keep new connections waiting.
    pub(super) fn snapshot(&self) -> Vec<(Arc<L>, Arc<Series<C>>)> {
        self.read().series.iter().map(|(labels, series)| (labels.clone(), series.clone())).collect()
    }

    /// How often a set was counted under its collapsed form.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl<L: Labels, C: Default> Table<L, C> {
    fn get_or_create(&mut self, labels: &L) -> Arc<Series<C>> {
        if let Some(series) = self.series.get(labels) {
            return series.clone();
        }
        let series = Arc::new(Series { counters: C::default(), idle_since: AtomicU64::new(0) });
        self.series.insert(Arc::new(labels.clone()), series.clone());
        series
    }

    /// Marks what is idle now.
    fn look(&mut self, now: u64) {
        for series in self.series.values() {
            // Handles are made under this table's lock, so the only reference being ours means that nobody counts there.
            if Arc::strong_count(series) == 1 && series.idle_since.load(Ordering::Relaxed) == 0 {
                series.idle_since.store(now, Ordering::Relaxed);
            }
        }
    }

    /// Forgets what has been idle for long; marks what is idle now.
    pub(super) fn sweep(&mut self, now: u64) {
        self.swept = Some(now);
        self.look(now);
        self.series.retain(|_, series| series.idle_for(now).is_none_or(|seconds| seconds < GRACE));
    }

    /// Gives back room of which little is used.
    fn shrink(&mut self) {
        if self.series.capacity() > 4 * self.series.len() {
            self.series.shrink_to(2 * self.series.len());
        }
    }
}

impl<C> Series<C> {
    /// It is not idle.
    pub(super) fn used(&self) {
        self.idle_since.store(0, Ordering::Relaxed);
    }

    /// For how many seconds it has been seen idle, if it is.
    fn idle_for(self: &Arc<Self>, now: u64) -> Option<u64> {
        let since = self.idle_since.load(Ordering::Relaxed);
        (since > 0 && Arc::strong_count(self) == 1).then(|| now.saturating_sub(since))
    }
}
