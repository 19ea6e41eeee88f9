//! Bytes that wait for the rest of something that is only taken whole: the message of a handshake, a header block.
//!
//! Whoever sends half of one makes us keep it. Each connection has a bound of its own; here is the one of all
//! connections of a thread, of which each source has a share ([`mesh_model::share`]). Where there is no room, the oldest
//! of the greediest source ends: whoever meant to finish has done so long ago.
//!
//! What waits for the rest of a record (16 KiB at most) is not counted: that is how bulk data arrives.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::task::{Context, Waker};

use mesh_model::share::{Ledger, Source};

/// What each connection may keep without being counted: most messages are shorter, and come whole.
const UNCOUNTED: usize = 4 << 10;

thread_local! {
    static BUDGET: RefCell<Budget> = RefCell::default();
}

/// What has come of it was given up for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("others needed the memory of what is unfinished, and this was the oldest of a source that holds much of it")]
pub struct Shed;

/// Whether a handshake failed because what had come of it was given up for others.
pub fn is_shed(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Shed>())
}

/// Bytes that connections of this thread keep of what is unfinished, those of each less than 4 KiB left out.
pub fn held() -> usize {
    BUDGET.with_borrow(|budget| budget.ledger.all())
}

/// How many were given up on this thread so far.
pub fn shed() -> u64 {
    BUDGET.with_borrow(|budget| budget.shed)
}

/// What one connection keeps of what is unfinished; counted until dropped.
#[derive(Debug)]
pub struct Unfinished {
    source: Source,
    most: usize,
    /// Its entry's number; none while it is not counted.
    number: Option<u64>,
}

impl Unfinished {
    /// Of a connection of `source`; all of the thread together keep `most` bytes.
    pub fn of(source: Source, most: usize) -> Self {
        Self { source, most, number: None }
    }

    /// Of whom it is.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The connection keeps `bytes` now, and is to be woken when it has to give them up.
    ///
    /// # Errors
    /// When it has to.
    pub fn keep(&mut self, bytes: usize, cx: &Context<'_>) -> Result<(), Shed> {
        if bytes <= UNCOUNTED {
            // What had to be given up is finished: all the better.
            self.forget();
            return Ok(());
        }
        // What others lose is dropped and woken when the budget is free again: it may be looked at then.
        let (kept, _lost) = BUDGET.with_borrow_mut(|budget| {
            let number = *self.number.get_or_insert_with(|| budget.begin(&self.source, cx.waker()));
            budget.keep(&self.source, number, bytes, self.most)
        });
        kept
    }

    /// The connection keeps nothing any more.
    pub fn forget(&mut self) {
        if let Some(number) = self.number.take() {
            drop(BUDGET.with_borrow_mut(|budget| budget.end(&self.source, number)));
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Who keeps what, on one thread.
#[derive(Debug, Default)]
struct Budget {
    ledger: Ledger,
    next: u64,
    /// By age: a higher number is younger.
    of: HashMap<Source, BTreeMap<u64, Entry>>,
    shed: u64,
}

#[derive(Debug)]
struct Entry {
    bytes: usize,
    waker: Waker,
}

/// Those who had to give up; woken when dropped.
#[derive(Debug, Default)]
struct Lost(Vec<Waker>);

impl Drop for Lost {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl Budget {
    fn begin(&mut self, source: &Source, waker: &Waker) -> u64 {
        let number = self.next;
        self.next += 1;
        self.of.entry(source.clone()).or_default().insert(number, Entry { bytes: 0, waker: waker.clone() });
        number
    }

    fn end(&mut self, source: &Source, number: u64) -> Option<Entry> {
        let entries = self.of.get_mut(source)?;
        let entry = entries.remove(&number)?;
        if entries.is_empty() {
            self.of.remove(source);
        }
        self.ledger.give_back(source, entry.bytes);
        Some(entry)
    }

    /// Counts `bytes` for an entry, and gives up what has to be given up for them: the entry itself, if need be.
    fn keep(&mut self, source: &Source, number: u64, bytes: usize, most: usize) -> (Result<(), Shed>, Lost) {
        let mut lost = Lost::default();
        loop {
            let Some(entry) = self.of.get_mut(source).and_then(|entries| entries.get_mut(&number)) else {
                return (Err(Shed), lost);
            };
            let before = entry.bytes;
            let more = bytes.saturating_sub(before);
            let room = self.ledger.room(most.saturating_sub(self.ledger.all()), source);
            if more == 0 || room.is_ok_and(|room| more <= room) {
                entry.bytes = bytes;
                self.ledger.give_back(source, before);
                self.ledger.take(source, bytes);
                return (Ok(()), lost);
            }
            let oldest = self.greediest(source, more).and_then(|greediest| {
                let oldest = self.of.get(&greediest)?.keys().next().copied()?;
                self.end(&greediest, oldest)
            });
            // There is one: at least the one that asks.
            let Some(oldest) = oldest else { return (Err(Shed), lost) };
            self.shed += 1;
            lost.0.push(oldest.waker);
        }
    }

    /// The source that keeps most, its group counted before itself, if `newcomer` kept `more`.
    fn greediest(&self, newcomer: &Source, more: usize) -> Option<Source> {
        let group = newcomer.group();
        let keeps = |source: &Source| {
            let asks = source == newcomer || group.as_ref() == Some(source);
            self.ledger.held(source) + if asks { more } else { 0 }
        };
        let rank = |source: &&Source| {
            let own = keeps(source);
            (source.group().map_or(own, |group| keeps(&group)), own)
        };
        self.of.keys().max_by_key(rank).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u8) -> Source {
        Source::address([10, 0, 0, number].into())
    }

    /// What sources keep, one after the other; then which of them are left.
    #[test]
    fn the_oldest_of_the_greediest_is_given_up() {
        for (row, most, kept, left) in [
            ("there is room", 100, vec![(1, 20), (2, 20), (1, 10)], vec![0, 1, 2]),
            ("its own share is full: its own oldest", 100, vec![(1, 30), (2, 10), (1, 15), (1, 15)], vec![1, 2, 3]),
            ("one alone is larger than its share", 100, vec![(1, 60)], vec![]),
            ("others are not asked for what is too large for one", 100, vec![(2, 10), (1, 60)], vec![0]),
            (
                "nothing is left: the greediest's oldest",
                100,
                vec![(1, 25), (1, 25), (2, 12), (2, 13), (3, 12), (4, 6), (5, 7), (6, 1)],
                vec![1, 2, 3, 4, 5, 6, 7],
            ),
        ] {
            let mut budget = Budget::default();
            let entries: Vec<(Source, u64)> = kept
                .iter()
                .map(|(who, bytes)| {
                    let number = budget.begin(&source(*who), Waker::noop());
                    let _ = budget.keep(&source(*who), number, *bytes, most);
                    (source(*who), number)
                })
                .collect();
            let is_left =
                |(source, number): &(Source, u64)| budget.of.get(source).is_some_and(|e| e.contains_key(number));
            let found: Vec<usize> = (0..entries.len()).filter(|n| is_left(&entries[*n])).collect();
            assert_eq!(found, left, "{row}");
            assert_eq!(budget.shed as usize, entries.len() - left.len(), "{row}");
            for (source, number) in entries {
                budget.end(&source, number);
            }
            assert_eq!((budget.ledger.all(), budget.of.len()), (0, 0), "{row}");
        }
    }

    #[test]
    fn what_is_short_or_finished_is_not_counted() {
        let cx = Context::from_waker(Waker::noop());
        let mut one = Unfinished::of(source(1), 1 << 20);
        for (bytes, counted) in
            [(UNCOUNTED, 0), (UNCOUNTED + 1, UNCOUNTED + 1), (60_000, 60_000), (50_000, 50_000), (0, 0), (9_000, 9_000)]
        {
            one.keep(bytes, &cx).unwrap();
            assert_eq!(held(), counted, "{bytes}");
        }
        drop(one);
        assert_eq!(held(), 0);
    }

    #[test]
    fn who_has_to_give_up_is_told_and_finishes_all_the_same_if_it_can() {
        let cx = Context::from_waker(Waker::noop());
        let before = shed();
        let mut many: Vec<Unfinished> = (0..9).map(|_| Unfinished::of(source(1), 1 << 20)).collect();
        for one in &mut many {
            one.keep(60_000, &cx).unwrap();
        }
        // Half of the bound is 524,288 bytes: eight fit.
        assert_eq!((shed() - before, held()), (1, 480_000));
        assert_eq!(many[0].keep(60_000, &cx), Err(Shed));
        assert_eq!(many[0].keep(60_001, &cx), Err(Shed), "however often it asks");
        assert_eq!(many[0].keep(0, &cx), Ok(()), "the rest has come at the same moment");
        assert_eq!(many[1].keep(60_001, &cx), Ok(()));
        // Another source has room, and loses nothing.
        let mut other = Unfinished::of(source(2), 1 << 20);
        other.keep(60_000, &cx).unwrap();
        many[0].keep(60_000, &cx).unwrap();
        assert_eq!((many[1].keep(60_000, &cx), other.keep(60_000, &cx)), (Err(Shed), Ok(())));
        drop((many, other));
        assert_eq!(held(), 0);
        let error = io::Error::other(Shed);
        assert!(is_shed(&error) && !is_shed(&io::ErrorKind::UnexpectedEof.into()));
    }
}
