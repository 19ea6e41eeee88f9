//! Whose certificate is fetched next. Pure: the time is an argument.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use mesh_model::identity::SpiffeId;

/// How many requests may be with the CA at once.
const MAX_IN_FLIGHT: usize = 8;

/// Who waits for a certificate; the first comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// A connection.
    Waiting,
    /// Nobody yet: the identity has just come to this node.
    WarmUp,
    /// Nobody: the one held is still good.
    Refresh,
}

#[derive(Debug)]
struct Entry {
    priority: Priority,
    due: SystemTime,
    failures: u32,
}

/// Every identity wanted, with the time at which it is fetched next.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    entries: HashMap<SpiffeId, Entry>,
    in_flight: HashSet<SpiffeId>,
}

impl Schedule {
    /// Wants a certificate. One already wanted keeps its time (a failure is not retried sooner because more people
    /// wait) but moves forward in the queue.
    pub(crate) fn want(&mut self, id: &SpiffeId, priority: Priority, now: SystemTime) {
        let entry = self.entries.entry(id.clone()).or_insert(Entry { priority, due: now, failures: 0 });
        entry.priority = entry.priority.min(priority);
    }

    /// No longer wants it. A request under way is not taken back; its answer will be [not wanted](Self::obtained).
    pub(crate) fn forget(&mut self, id: &SpiffeId) {
        self.entries.remove(id);
    }

    /// Whose request to send now, if it is time for any and there is room. It counts as in flight until
    /// [`Self::obtained`] or [`Self::failed`].
    pub(crate) fn start(&mut self, now: SystemTime) -> Option<SpiffeId> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let due = self.idle().filter(|(_, entry)| entry.due <= now);
        let id = due.min_by_key(|(_, entry)| (entry.priority, entry.due)).map(|(id, _)| id.clone())?;
        self.in_flight.insert(id.clone());
        Some(id)
    }

    /// When [`Self::start`] is to be called again, unless something happens before. None: when something happens.
    pub(crate) fn next_due(&self) -> Option<SystemTime> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        self.idle().map(|(_, entry)| entry.due).min()
    }

    fn idle(&self) -> impl Iterator<Item = (&SpiffeId, &Entry)> {
        self.entries.iter().filter(|(id, _)| !self.in_flight.contains(*id))
    }

    /// A certificate came, to be renewed at `renew_at`. False: nobody wants it any more.
    pub(crate) fn obtained(&mut self, id: &SpiffeId, renew_at: SystemTime) -> bool {
        self.in_flight.remove(id);
        let Some(entry) = self.entries.get_mut(id) else { return false };
        *entry = Entry { priority: Priority::Refresh, due: renew_at, failures: 0 };
        true
    }

    /// The request failed: counts it and says how many failed in a row. 0: nobody wants it any more.
    pub(crate) fn failed(&mut self, id: &SpiffeId) -> u32 {
        self.in_flight.remove(id);
        let Some(entry) = self.entries.get_mut(id) else { return 0 };
        entry.failures = entry.failures.saturating_add(1);
        entry.failures
    }

    /// Sets the time of the next try after a failure.
    pub(crate) fn retry(&mut self, id: &SpiffeId, at: SystemTime) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.due = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::test_ca::id;

    fn named(n: usize) -> SpiffeId {
        id(&format!("spiffe://td/ns/n/sa/s{n}"))
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn those_who_wait_come_first_then_the_oldest() {
        let mut schedule = Schedule::default();
        schedule.want(&named(0), Priority::WarmUp, at(0));
        schedule.obtained(&named(0), at(5));
        schedule.want(&named(1), Priority::WarmUp, at(1));
        schedule.want(&named(2), Priority::WarmUp, at(0));
        schedule.want(&named(3), Priority::Waiting, at(9));
        schedule.want(&named(1), Priority::Waiting, at(9));
        let order: Vec<_> = std::iter::from_fn(|| schedule.start(at(10))).collect();
        assert_eq!(order, [named(1), named(3), named(2), named(0)]);
    }

    #[test]
    fn eight_at_once_and_one_for_each() {
        let mut schedule = Schedule::default();
        for n in 0..10 {
            schedule.want(&named(n), Priority::WarmUp, at(0));
        }
        let started: Vec<_> = std::iter::from_fn(|| schedule.start(at(0))).collect();
        assert_eq!(started.len(), 8);
        assert_eq!(schedule.next_due(), None);
        schedule.want(&started[0], Priority::Waiting, at(0));
        assert!(schedule.obtained(&started[1], at(50)));
        let next = schedule.start(at(0)).unwrap();
        assert!(!started.contains(&next), "not twice for the same");
        assert_eq!(schedule.failed(&started[2]), 1);
        schedule.retry(&started[2], at(3));
        assert!(schedule.start(at(2)).is_some_and(|id| id != started[2]));
    }

    #[test]
    fn nothing_before_its_time() {
        let mut schedule = Schedule::default();
        assert_eq!((schedule.start(at(0)), schedule.next_due()), (None, None));
        schedule.want(&named(1), Priority::Waiting, at(0));
        assert_eq!(schedule.start(at(0)), Some(named(1)));
        assert!(schedule.obtained(&named(1), at(30)));
        assert_eq!((schedule.start(at(29)), schedule.next_due()), (None, Some(at(30))));
        assert_eq!(schedule.start(at(30)), Some(named(1)));
        for n in 1..4 {
            assert_eq!(schedule.failed(&named(1)), n);
        }
        schedule.retry(&named(1), at(31));
        schedule.want(&named(1), Priority::Waiting, at(30));
        assert_eq!(schedule.start(at(30)), None, "somebody new does not hurry the CA");
        assert_eq!(schedule.start(at(31)), Some(named(1)));
        schedule.obtained(&named(1), at(40));
        assert_eq!(schedule.failed(&named(1)), 1, "success begins anew");
    }

    #[test]
    fn the_forgotten_are_not_kept() {
        let mut schedule = Schedule::default();
        schedule.want(&named(1), Priority::Waiting, at(0));
        schedule.start(at(0)).unwrap();
        schedule.forget(&named(1));
        // Wanted again at once: no second request while the first is under way.
        schedule.want(&named(1), Priority::Waiting, at(0));
        assert_eq!(schedule.start(at(0)), None);
        schedule.forget(&named(1));
        assert!(!schedule.obtained(&named(1), at(9)));
        assert_eq!(schedule.failed(&named(1)), 0);
        assert_eq!(schedule.next_due(), None);
    }
}
