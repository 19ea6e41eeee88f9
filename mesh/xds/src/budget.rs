//! An amount that callers share by the rule of [`mesh_model::share`]: each may hold as much as is left for the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_model::share::left;

/// An amount, and who holds how much of it.
#[derive(Debug)]
pub struct Budget<K> {
    most: usize,
    each: usize,
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    all: usize,
    of: HashMap<K, usize>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All together hold as much as there is.
    All,
    /// This one holds as much as is left for others, or as one may hold at most.
    Own,
}

impl<K: Hash + Eq + Clone> Budget<K> {
    /// At most `most` for all together, and `each` for one.
    pub fn new(most: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { most, each, held: Mutex::new(Held { all: 0, of: HashMap::new() }) })
    }

    /// Reserves `amount` for `who`.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn take(self: &Arc<Self>, who: K, amount: usize) -> Result<Reservation<K>, Full> {
        let mut reserved = Reservation { budget: self.clone(), who, amount: 0 };
        reserved.set(amount)?;
        Ok(reserved)
    }

    /// How much all hold together.
    pub fn held(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

/// What somebody holds; given back when dropped.
#[derive(Debug)]
pub struct Reservation<K: Hash + Eq + Clone> {
    budget: Arc<Budget<K>>,
    who: K,
    amount: usize,
}

impl<K: Hash + Eq + Clone> Reservation<K> {
    /// Holds this much from now on. Less is always given back.
    ///
    /// # Errors
    /// When there is no room for so much: it then holds what it held.
    pub fn set(&mut self, amount: usize) -> Result<(), Full> {
        let budget = &self.budget;
        let mut held = budget.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.of.get(&self.who).copied().unwrap_or(0);
        if amount > self.amount {
            room(budget.most, budget.each, held.all, own, amount - self.amount)?;
        }
        held.all = held.all - self.amount + amount;
        match own - self.amount + amount {
            0 => drop(held.of.remove(&self.who)),
            own => drop(held.of.insert(self.who.clone(), own)),
        }
        self.amount = amount;
        Ok(())
    }
}

impl<K: Hash + Eq + Clone> Drop for Reservation<K> {
    fn drop(&mut self) {
        // Less is always given back.
        let _ = self.set(0);
    }
}

/// May one who holds `own` take `more`, when all together hold `all` of `most`?
fn room(most: usize, each: usize, all: usize, own: usize, more: usize) -> Result<(), Full> {
    let free = most.saturating_sub(all);
    if more > free {
        Err(Full::All)
    } else if more > left(free, own).min(each.saturating_sub(own)) {
        Err(Full::Own)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_may_hold_as_much_as_is_left() {
        for (all, own, more, right) in [
            (0, 0, 1, Ok(())),
            (49, 49, 1, Ok(())),
            (50, 50, 1, Err(Full::Own)),
            (50, 0, 1, Ok(())),
            (99, 0, 1, Ok(())),
            (100, 0, 1, Err(Full::All)),
            (0, 0, 50, Ok(())),
            (0, 0, 51, Err(Full::Own)),
            (0, 0, 101, Err(Full::All)),
            (10, 10, 40, Ok(())),
            (10, 10, 41, Err(Full::Own)),
        ] {
            assert_eq!(room(100, usize::MAX, all, own, more), right, "{all} held, {own} of it by who wants {more}");
        }
        assert_eq!(room(100, 3, 3, 3, 1), Err(Full::Own), "what one may hold at most");
        assert_eq!(room(100, 3, 3, 0, 3), Ok(()));
    }

    #[test]
    fn what_is_dropped_is_given_back() {
        let budget = Budget::new(10, usize::MAX);
        let mut greedy = budget.take("greedy", 5).unwrap();
        assert_eq!(budget.take("greedy", 1).err(), Some(Full::Own));
        let good = budget.take("good", 2).unwrap();
        assert_eq!(greedy.set(8), Err(Full::Own));
        assert_eq!(budget.held(), 7, "it holds what it held");
        greedy.set(1).unwrap();
        assert_eq!(budget.held(), 3);
        drop((greedy, good));
        assert_eq!(budget.held(), 0);
        assert!(budget.held.lock().unwrap().of.is_empty());
    }
}
