//! How much may be asked of authorizers and rate limit services at once. A thread asks and counts alone.

use mesh_model::share::{Full, Source};

use crate::limits::{ASKS, SHOWN};
use crate::room::{Part, Room};

/// What is being asked by a data thread.
pub(crate) struct Asking {
    asks: Room,
    shown: Room,
}

/// Counted while it lives.
pub(crate) struct Asked {
    _ask: Part,
    _shown: Part,
}

impl Default for Asking {
    fn default() -> Self {
        Self { asks: Room::new(ASKS), shown: Room::new(SHOWN) }
    }
}

impl Asking {
    /// Room for one request more of `source`, of whose body up to `bytes` are held.
    ///
    /// # Errors
    /// When there is none: as much is asked already, or as much for `source` as one may while others may want to ask.
    pub(crate) fn begin(&self, source: Source, bytes: usize) -> Result<Asked, Full> {
        let (mut ask, mut shown) = (self.asks.part(source.clone()), self.shown.part(source));
        ask.take(1)?;
        shown.take(bytes)?;
        Ok(Asked { _ask: ask, _shown: shown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u8) -> Source {
        Source::address([10, 0, 0, number].into())
    }

    #[test]
    fn a_caller_has_its_share_and_again_when_they_end() {
        let asking = Asking::default();
        let all: Vec<_> = std::iter::from_fn(|| asking.begin(source(1), 0).ok()).collect();
        assert_eq!(all.len(), ASKS / 2);
        assert!(asking.begin(source(2), 0).is_ok(), "another one finds room");
        drop(all);
        let most = 1 << 20;
        let mut all: Vec<_> = std::iter::from_fn(|| asking.begin(source(1), most).ok()).collect();
        assert_eq!(all.len(), SHOWN / most / 2);
        assert!(asking.begin(source(1), 0).is_ok() && asking.begin(source(2), most).is_ok());
        all.pop();
        assert!(asking.begin(source(1), most).is_ok());
    }
}
