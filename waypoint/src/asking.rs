//! How much may be asked of authorizers and rate limit services at once. A thread asks and counts alone.

use std::cell::Cell;
use std::rc::Rc;

use crate::limits::{ASKS, SHOWN};

/// What is being asked by a data thread.
#[derive(Default)]
pub(crate) struct Asking {
    asks: Rc<Cell<usize>>,
    shown: Rc<Cell<usize>>,
}

/// Counted while it lives.
pub(crate) struct Asked {
    asks: Rc<Cell<usize>>,
    shown: Rc<Cell<usize>>,
    bytes: usize,
}

impl Asking {
    /// Room for one request more, of whose body up to `bytes` are held. None: there is none.
    pub(crate) fn begin(&self, bytes: usize) -> Option<Asked> {
        let (asks, shown) = (self.asks.get() + 1, self.shown.get() + bytes);
        if asks > ASKS || shown > SHOWN {
            return None;
        }
        self.asks.set(asks);
        self.shown.set(shown);
        Some(Asked { asks: self.asks.clone(), shown: self.shown.clone(), bytes })
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.asks.set(self.asks.get() - 1);
        self.shown.set(self.shown.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_for_so_much_and_again_when_they_end() {
        let asking = Asking::default();
        let all: Vec<_> = std::iter::from_fn(|| asking.begin(0)).collect();
        assert_eq!(all.len(), ASKS);
        drop(all);
        let most = 1 << 20;
        let mut all: Vec<_> = std::iter::from_fn(|| asking.begin(most)).collect();
        assert_eq!(all.len(), SHOWN / most);
        assert!(asking.begin(0).is_some());
        all.pop();
        assert!(asking.begin(most).is_some());
    }
}
