//! What a data thread may hold of something, shared by callers: each has its share by the rule of [`mesh_model::share`], so that a greedy
//! one takes nothing from the others. A thread counts alone.

use std::cell::RefCell;
use std::rc::Rc;

use mesh_model::share::{Full, Ledger, Source};

/// So much of something, and who holds it.
#[derive(Clone)]
pub(crate) struct Room {
    most: usize,
    ledger: Rc<RefCell<Ledger>>,
}

/// What one holds of it; given back when dropped.
pub(crate) struct Part {
    room: Room,
    source: Source,
    amount: usize,
}

impl Room {
    /// Of which nothing is taken yet.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, ledger: Rc::default() }
    }

    /// A part for `source`, of which it has taken nothing yet.
    pub(crate) fn part(&self, source: Source) -> Part {
        Part { room: self.clone(), source, amount: 0 }
    }

    /// What all hold.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.ledger.borrow().all()
    }
}

impl Part {
    /// Takes so much more.
    ///
    /// # Errors
    /// When that is more than its source may hold, while others may want some.
    pub(crate) fn take(&mut self, more: usize) -> Result<(), Full> {
        if more == 0 {
            return Ok(());
        }
        let mut ledger = self.room.ledger.borrow_mut();
        let left = ledger.room(self.room.most.saturating_sub(ledger.all()), &self.source)?;
        if more > left {
            return Err(Full::Source);
        }
        ledger.take(&self.source, more);
        self.amount += more;
        Ok(())
    }

    /// Gives all back but `rest`.
    pub(crate) fn shrink(&mut self, rest: usize) {
        let less = self.amount.saturating_sub(rest);
        if less > 0 {
            self.amount -= less;
            self.room.ledger.borrow_mut().give_back(&self.source, less);
        }
    }

    /// What it has taken.
    pub(crate) fn amount(&self) -> usize {
        self.amount
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u8) -> Source {
        Source::address([10, 0, 0, number].into())
    }

    #[test]
    fn a_greedy_one_has_its_share_and_others_find_room() {
        let room = Room::new(100);
        let (mut greedy, mut other, mut third) = (room.part(source(1)), room.part(source(2)), room.part(source(3)));
        assert_eq!((greedy.take(51), greedy.take(30), greedy.take(20)), (Err(Full::Source), Ok(()), Ok(())));
        // Another part of the same one is no way around it.
        assert_eq!(room.part(source(1)).take(1), Err(Full::Source));
        assert_eq!((other.take(25), other.take(1), third.take(1)), (Ok(()), Err(Full::Source), Ok(())));
        greedy.shrink(10);
        assert_eq!((greedy.amount(), room.taken(), other.take(10)), (10, 36, Ok(())));
        drop((greedy, other));
        assert_eq!(room.taken(), 1);
    }

    #[test]
    fn nothing_always_fits() {
        let room = Room::new(0);
        assert_eq!((room.part(source(1)).take(0), room.part(source(1)).take(1)), (Ok(()), Err(Full::All)));
    }
}
