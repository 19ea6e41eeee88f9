//! One copy of what many resources say alike. A mesh of 100,000 workloads has a thousand nodes and a hundred
//! namespaces: each name is kept once, however often it is said.
//!
//! The copies are the process's, as its memory is; which ones there are shows nowhere but in how much that is. What
//! nobody uses any more is dropped when there is twice as much as was in use last.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Below this, nothing is looked for that is not used any more.
const SMALL: usize = 1024;

/// Values, each of which is kept once.
pub struct Pool<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// Look for what is unused at this many.
    sweep_at: usize,
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: SMALL }
    }
}

impl<T: ?Sized + Hash + Eq> Pool<T> {
    fn one(&mut self, value: &T, copy: impl FnOnce(&T) -> Arc<T>) -> Arc<T> {
        if let Some(known) = self.known.get(value) {
            return known.clone();
        }
        if self.known.len() >= self.sweep_at {
            // Ours is the last: nobody else can get at it meanwhile but through this pool.
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.known.shrink_to(SMALL);
            self.sweep_at = (2 * self.known.len()).max(SMALL);
        }
        let new = copy(value);
        self.known.insert(new.clone());
        new
    }
}

/// A pool of the process's.
pub type Shared<T> = LazyLock<Mutex<Pool<T>>>;

/// The one copy of a value; `copy` makes it. Not for the data path: it takes a lock.
pub fn one<T: ?Sized + Hash + Eq>(pool: &Shared<T>, value: &T, copy: impl FnOnce(&T) -> Arc<T>) -> Arc<T> {
    pool.lock().unwrap_or_else(PoisonError::into_inner).one(value, copy)
}

static TEXTS: Shared<str> = LazyLock::new(Mutex::default);

/// The one copy of a text that others are likely to say too. Not for the data path: it takes a lock.
pub fn text(text: &str) -> Arc<str> {
    one(&TEXTS, text, |text| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_is_one() {
        assert!(Arc::ptr_eq(&text("shared::what_is_equal"), &text("shared::what_is_equal")));
        assert!(!Arc::ptr_eq(&text("shared::a"), &text("shared::b")));
    }

    #[test]
    fn what_nobody_uses_is_dropped() {
        let mut pool = Pool::<str>::default();
        let used: Vec<_> = (0..10).map(|n| pool.one(&format!("used {n}"), |text| text.into())).collect();
        for n in 0..20 * SMALL {
            pool.one(&format!("unused {n}"), |text| text.into());
            assert!(pool.known.len() <= SMALL, "{}", pool.known.len());
        }
        for (n, used) in used.iter().enumerate() {
            assert!(Arc::ptr_eq(used, &pool.one(&format!("used {n}"), |text| text.into())));
        }
    }

    #[test]
    fn it_grows_with_what_is_used() {
        let mut pool = Pool::<str>::default();
        let used: Vec<_> = (0..4 * SMALL).map(|n| pool.one(&n.to_string(), |text| text.into())).collect();
        assert_eq!(pool.known.len(), used.len());
        drop(used);
        for n in 0..5 * SMALL {
            pool.one(&format!("x{n}"), |text| text.into());
        }
        assert!(pool.known.len() <= SMALL, "{}", pool.known.len());
    }
}
