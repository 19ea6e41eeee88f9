//! What every subscriber has taken in: the delta protocol's acknowledgements, put together.
//!
//! A control plane that publishes "this pod takes HBONE" wants to know when the last proxy has heard it: only then may
//! the pod's plaintext be called captured. The answer is a generation of the address tables
//! ([`Snapshot::generation`](crate::published::Snapshot::generation)): everything published up to it is held by all.
//!
//! Nobody is waited for without end. A subscriber that owes an answer for [`PATIENCE`] is given up until it answers, and
//! one that is away is waited for [`ABSENCE`], since it may serve its pods by what it knew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long an answer is awaited from a subscriber that is connected.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a subscriber is awaited that is not connected, counted from its going or from when it was first expected.
pub const ABSENCE: Duration = Duration::from_secs(10);

/// Who has taken in what. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    roll: Arc<Mutex<Roll>>,
    changed: watch::Sender<()>,
}

/// What all subscribers hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    /// Everything up to this generation.
    pub generation: u64,
    /// Who is still waited for.
    pub waits_for: Vec<String>,
    /// Who is no longer waited for, and holds less.
    pub given_up: Vec<String>,
    /// When this changes by itself: somebody's time is over then.
    pub look_again: Option<Instant>,
}

/// One subscriber's place, for as long as its session lasts.
#[derive(Debug)]
pub(crate) struct Place {
    all: Acknowledged,
    number: u64,
}

#[derive(Debug, Default)]
struct Roll {
    next: u64,
    present: BTreeMap<u64, Present>,
    /// Since when they are away.
    absent: BTreeMap<String, Instant>,
}

#[derive(Debug)]
struct Present {
    name: String,
    holds: u64,
    owes_since: Option<Instant>,
}

impl Acknowledged {
    /// Resolves after each change of the answer to [`floor`](Self::floor).
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// These subscribers are there, connected or not: they may serve by what an earlier control plane told them.
    pub fn expect<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        self.with(|roll| names.into_iter().for_each(|name| roll.expect(name, Instant::now())));
    }

    /// What all subscribers hold, when `latest` is what is published.
    pub fn floor(&self, latest: u64) -> Floor {
        self.roll.lock().unwrap_or_else(PoisonError::into_inner).floor(latest, Instant::now())
    }

    pub(crate) fn enter(&self, name: &str) -> Place {
        let number = self.with(|roll| roll.enter(name, Instant::now()));
        Place { all: self.clone(), number }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Roll) -> T) -> T {
        let result = change(&mut self.roll.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        result
    }
}

impl Place {
    /// It holds everything up to generation `holds`; `owes`: a response is under way to it.
    pub(crate) fn update(&self, holds: u64, owes: bool) {
        let mut roll = self.all.roll.lock().unwrap_or_else(PoisonError::into_inner);
        if roll.update(self.number, holds, owes, Instant::now()) {
            drop(roll);
            self.all.changed.send_replace(());
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.with(|roll| roll.leave(self.number, Instant::now()));
    }
}

impl Roll {
    fn expect(&mut self, name: &str, now: Instant) {
        if !self.present.values().any(|present| present.name == name) {
            self.absent.entry(name.to_owned()).or_insert(now);
        }
    }

    fn enter(&mut self, name: &str, now: Instant) -> u64 {
        self.absent.remove(name);
        self.next += 1;
        // It owes from the start: one that never subscribes must not hold everybody up.
        self.present.insert(self.next, Present { name: name.to_owned(), holds: 0, owes_since: Some(now) });
        self.next
    }

    /// True if that changed anything.
    fn update(&mut self, number: u64, holds: u64, owes: bool, now: Instant) -> bool {
        let Some(present) = self.present.get_mut(&number) else { return false };
        let owes = owes || holds == 0;
        let changed = present.holds != holds || present.owes_since.is_some() != owes;
        present.owes_since = match (owes, present.owes_since) {
            // An answer has come in between: its time begins anew.
            (true, Some(since)) if present.holds == holds => Some(since),
            (true, _) => Some(now),
            (false, _) => None,
        };
        present.holds = holds;
        changed
    }

    fn leave(&mut self, number: u64, now: Instant) {
        let Some(gone) = self.present.remove(&number) else { return };
        // A successor of the same name has taken its pods over, or is about to.
        self.expect(&gone.name, now);
    }

    fn floor(&self, latest: u64, now: Instant) -> Floor {
        let mut floor = Floor { generation: latest, ..Floor::default() };
        let present = self.present.values().filter(|present| present.holds < latest);
        let present = present.map(|p| (&p.name, p.holds, p.owes_since.map(|since| since + PATIENCE)));
        let absent = self.absent.iter().map(|(name, since)| (name, 0, Some(*since + ABSENCE)));
        for (name, holds, until) in present.chain(absent) {
            if until.is_some_and(|until| now >= until) {
                floor.given_up.push(name.clone());
                continue;
            }
            floor.generation = floor.generation.min(holds);
            floor.waits_for.push(name.clone());
            floor.look_again = [floor.look_again, until].into_iter().flatten().min();
        }
        floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens, one step after the other, and what all hold after it when generation 9 is published.
    #[derive(Debug)]
    enum Step {
        Expect(&'static str),
        Enter(&'static str),
        /// Who, holds, owes.
        Update(u64, u64, bool),
        Leave(u64),
        Pass(Duration),
    }

    #[test]
    fn who_is_waited_for_and_for_how_long() {
        use Step::{Enter, Expect, Leave, Pass, Update};
        let almost = |time: Duration| Pass(time - Duration::from_millis(1));
        let rest = || Pass(Duration::from_millis(1));
        // (steps, the generation that all hold, waited for, given up)
        type Row = (Vec<Step>, u64, Vec<&'static str>, Vec<&'static str>);
        let rows: Vec<Row> = vec![
            (vec![], 9, vec![], vec![]),
            (vec![Enter("a")], 0, vec!["a"], vec![]),
            (vec![Enter("a"), Update(1, 9, false)], 9, vec![], vec![]),
            (vec![Enter("a"), Update(1, 7, true)], 7, vec!["a"], vec![]),
            (vec![Enter("a"), Enter("b"), Update(1, 9, false), Update(2, 4, false)], 4, vec!["b"], vec![]),
            // It does not answer.
            (vec![Enter("a"), Update(1, 7, true), almost(PATIENCE)], 7, vec!["a"], vec![]),
            (vec![Enter("a"), Update(1, 7, true), almost(PATIENCE), rest()], 9, vec![], vec!["a"]),
            // It does, slowly; and then again not.
            (vec![Enter("a"), Update(1, 7, true), almost(PATIENCE), Update(1, 8, true), rest()], 8, vec!["a"], vec![]),
            // It never asks for anything.
            (vec![Enter("a"), Update(1, 0, false), Pass(PATIENCE)], 9, vec![], vec!["a"]),
            // It is away: for a while it serves by what it knew.
            (vec![Enter("a"), Update(1, 9, false), Leave(1)], 0, vec!["a"], vec![]),
            (vec![Enter("a"), Leave(1), almost(ABSENCE)], 0, vec!["a"], vec![]),
            (vec![Enter("a"), Leave(1), Pass(ABSENCE)], 9, vec![], vec!["a"]),
            (vec![Enter("a"), Leave(1), Enter("a"), Update(2, 9, false)], 9, vec![], vec![]),
            // One of two of a name goes: the other is its successor.
            (vec![Enter("a"), Enter("a"), Update(2, 9, false), Leave(1)], 9, vec![], vec![]),
            // A control plane that was started again.
            (vec![Expect("a"), Expect("b"), Enter("b"), Update(1, 9, false)], 0, vec!["a"], vec![]),
            (vec![Enter("a"), Update(1, 9, false), Expect("a")], 9, vec![], vec![]),
            (vec![Expect("a"), Pass(ABSENCE)], 9, vec![], vec!["a"]),
        ];
        for (steps, generation, waits_for, given_up) in rows {
            let (mut roll, mut now) = (Roll::default(), Instant::now());
            for step in &steps {
                match step {
                    Expect(name) => roll.expect(name, now),
                    Enter(name) => {
                        roll.enter(name, now);
                    }
                    Update(number, holds, owes) => {
                        roll.update(*number, *holds, *owes, now);
                    }
                    Leave(number) => roll.leave(*number, now),
                    Pass(time) => now += *time,
                }
            }
            let floor = roll.floor(9, now);
            assert_eq!(floor.generation, generation, "{steps:?}");
            assert_eq!((floor.waits_for, floor.given_up), (owned(&waits_for), owned(&given_up)), "{steps:?}");
        }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }
}
