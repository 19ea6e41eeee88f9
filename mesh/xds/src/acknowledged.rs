//! What every subscriber has taken in: the delta protocol's acknowledgements, put together.
//!
//! A control plane that publishes "this pod takes HBONE" wants to know when the last proxy has heard it: only then may
//! the pod's plaintext be called captured. The answer is a generation of the address tables
//! ([`Snapshot::generation`](crate::published::Snapshot::generation)): everything published up to it is held by all.
//!
//! Nobody is waited for without end. A subscriber that makes no progress for [`PATIENCE`] is given up until it does, and
//! one that is away is waited for [`ABSENCE`], since it may serve its pods by what it knew. Time is kept by name: one that
//! goes and comes back is granted either once, however often it does so before it has taken anything more in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long progress is awaited from a subscriber that is connected.
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

/// A session on the roll, for as long as it lasts.
#[derive(Debug)]
pub(crate) struct Registration {
    all: Acknowledged,
    name: String,
    number: u64,
}

#[derive(Debug, Default)]
struct Roll {
    next: u64,
    /// By name.
    subscribers: BTreeMap<String, Subscriber>,
}

#[derive(Debug, Default)]
struct Subscriber {
    /// What each of its sessions holds.
    sessions: BTreeMap<u64, u64>,
    /// What it held when the last of them ended.
    left_with: u64,
    /// The most that it ever held.
    most: u64,
    /// The session that goes on where one ended that the control plane wanted to be begun anew, and what that one held:
    /// number 0 before it has begun.
    resumed: Option<(u64, u64)>,
    /// None while it holds what is published.
    awaited: Option<Awaited>,
}

/// Until when a subscriber is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Awaited {
    until: Instant,
    stage: Stage,
}

/// What has become of it since it is waited for. It only goes forward, so the time that it is granted has an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Connected,
    Away,
    Back,
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

    /// What all subscribers hold, when `latest` is what is published. Who is away and not among `existing` is forgotten: it
    /// serves no pods any more.
    pub fn floor(&self, latest: u64, existing: &BTreeSet<String>) -> Floor {
        let mut roll = self.roll.lock().unwrap_or_else(PoisonError::into_inner);
        roll.forget(existing);
        roll.floor(latest, Instant::now())
    }

    pub(crate) fn enter(&self, name: &str) -> Registration {
        let number = self.with(|roll| roll.enter(name, Instant::now()));
        Registration { all: self.clone(), name: name.to_owned(), number }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Roll) -> T) -> T {
        let result = change(&mut self.roll.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        result
    }
}

impl Registration {
    /// It holds everything up to generation `holds`, when `latest` is what its session has seen published.
    pub(crate) fn update(&self, holds: u64, latest: u64) {
        let mut roll = self.all.roll.lock().unwrap_or_else(PoisonError::into_inner);
        if roll.update(&self.name, self.number, holds, latest, Instant::now()) {
            drop(roll);
            self.all.changed.send_replace(());
        }
    }
}

impl Registration {
    /// The session ends because it has reached its age: the proxy goes on serving by what it holds, and so does the session
    /// that it begins next.
    pub(crate) fn resume_later(self) {
        let mut roll = self.all.roll.lock().unwrap_or_else(PoisonError::into_inner);
        roll.resume_later(&self.name, self.number);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.all.with(|roll| roll.leave(&self.name, self.number, Instant::now()));
    }
}

impl Roll {
    fn expect(&mut self, name: &str, now: Instant) {
        if !self.subscribers.contains_key(name) {
            let mut subscriber = Subscriber::default();
            subscriber.advance(Stage::Away, now);
            self.subscribers.insert(name.to_owned(), subscriber);
        }
    }

    fn enter(&mut self, name: &str, now: Instant) -> u64 {
        self.next += 1;
        let subscriber = self.subscribers.entry(name.to_owned()).or_default();
        if subscriber.sessions.is_empty() {
            // It is waited for from the start: one that never subscribes must not hold everybody up.
            let stage = if subscriber.awaited.is_some() { Stage::Back } else { Stage::Connected };
            subscriber.advance(stage, now);
        }
        let holds = match &mut subscriber.resumed {
            Some((number @ 0, held)) => {
                *number = self.next;
                *held
            }
            _ => 0,
        };
        subscriber.sessions.insert(self.next, holds);
        self.next
    }

    fn resume_later(&mut self, name: &str, number: u64) {
        let Some(subscriber) = self.subscribers.get_mut(name) else { return };
        if let Some(held) = subscriber.sessions.get(&number) {
            subscriber.resumed = Some((0, *held));
        }
    }

    /// True if that changed anything.
    fn update(&mut self, name: &str, number: u64, holds: u64, latest: u64, now: Instant) -> bool {
        let Some(subscriber) = self.subscribers.get_mut(name) else { return false };
        let Some(session) = subscriber.sessions.get_mut(&number) else { return false };
        let resumed = subscriber.resumed.filter(|(resumed, _)| *resumed == number);
        let holds = resumed.map_or(holds, |(_, held)| holds.max(held));
        let before = (std::mem::replace(session, holds), subscriber.awaited);
        let holds_now = subscriber.holds();
        if holds_now > subscriber.most || holds_now >= latest {
            // Progress: its time begins anew when there is more to take in.
            subscriber.most = subscriber.most.max(holds_now);
            subscriber.awaited = None;
        }
        if holds_now < latest && subscriber.awaited.is_none() {
            subscriber.advance(Stage::Connected, now);
        }
        before != (holds, subscriber.awaited)
    }

    fn leave(&mut self, name: &str, number: u64, now: Instant) {
        let Some(subscriber) = self.subscribers.get_mut(name) else { return };
        let held = subscriber.holds();
        if subscriber.sessions.remove(&number).is_none() {
            return;
        }
        if subscriber.sessions.is_empty() {
            subscriber.left_with = held;
            subscriber.advance(Stage::Away, now);
        } else if subscriber.holds() < held {
            // Another session of the same name is about to take its pods over.
            subscriber.advance(Stage::Connected, now);
        }
    }

    fn forget(&mut self, existing: &BTreeSet<String>) {
        self.subscribers.retain(|name, subscriber| !subscriber.sessions.is_empty() || existing.contains(name));
    }

    fn floor(&self, latest: u64, now: Instant) -> Floor {
        let mut floor = Floor { generation: latest, ..Floor::default() };
        let behind = self.subscribers.iter().filter(|(_, subscriber)| subscriber.holds() < latest);
        for (name, subscriber) in behind {
            let until = subscriber.awaited.map(|awaited| awaited.until);
            if until.is_some_and(|until| now >= until) {
                floor.given_up.push(name.clone());
                continue;
            }
            floor.generation = floor.generation.min(subscriber.holds());
            floor.waits_for.push(name.clone());
            floor.look_again = [floor.look_again, until].into_iter().flatten().min();
        }
        floor
    }
}

impl Subscriber {
    /// What it holds. The session that holds most counts: another one of the name is what is left of a connection that
    /// broke, or no proxy's.
    fn holds(&self) -> u64 {
        self.sessions.values().max().copied().unwrap_or(self.left_with)
    }

    /// Grants it the time of this stage, once.
    fn advance(&mut self, stage: Stage, now: Instant) {
        if self.awaited.is_none_or(|awaited| awaited.stage < stage) {
            let time = if stage == Stage::Away { ABSENCE } else { PATIENCE };
            self.awaited = Some(Awaited { until: now + time, stage });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens, one step after the other, from when generation 9 is published.
    #[derive(Debug)]
    enum Step {
        Expect(&'static str),
        Enter(&'static str),
        /// Which session, holds.
        Update(u64, u64),
        Leave(u64),
        /// It has reached its age.
        Age(u64),
        Publish(u64),
        /// Only these proxies exist by now.
        Exist(&'static [&'static str]),
        Pass(Duration),
    }

    #[test]
    fn who_is_waited_for_and_for_how_long() {
        use Step::{Age, Enter, Exist, Expect, Leave, Pass, Publish, Update};
        let almost = |time: Duration| Pass(time - Duration::from_millis(1));
        let rest = || Pass(Duration::from_millis(1));
        let seconds = |seconds| Pass(Duration::from_secs(seconds));
        // (steps, the generation that all hold after them, waited for, given up)
        type Row = (Vec<Step>, u64, Vec<&'static str>, Vec<&'static str>);
        let rows: Vec<Row> = vec![
            (vec![], 9, vec![], vec![]),
            (vec![Enter("a")], 0, vec!["a"], vec![]),
            (vec![Enter("a"), Update(1, 9)], 9, vec![], vec![]),
            (vec![Enter("a"), Update(1, 7)], 7, vec!["a"], vec![]),
            (vec![Enter("a"), Enter("b"), Update(1, 9), Update(2, 4)], 4, vec!["b"], vec![]),
            // It does not answer.
            (vec![Enter("a"), Update(1, 7), almost(PATIENCE)], 7, vec!["a"], vec![]),
            (vec![Enter("a"), Update(1, 7), almost(PATIENCE), rest()], 9, vec![], vec!["a"]),
            // It answers without taking anything in.
            (vec![Enter("a"), Update(1, 7), almost(PATIENCE), Update(1, 7), rest()], 9, vec![], vec!["a"]),
            // It does, slowly; and then again not.
            (vec![Enter("a"), Update(1, 7), almost(PATIENCE), Update(1, 8), rest()], 8, vec!["a"], vec![]),
            // It is never done, since there is always more; but it gets on.
            (
                vec![
                    Enter("a"),
                    Update(1, 9),
                    Publish(10),
                    Update(1, 9),
                    almost(PATIENCE),
                    Publish(11),
                    Update(1, 10),
                    almost(PATIENCE),
                ],
                10,
                vec!["a"],
                vec![],
            ),
            // It never asks for anything.
            (vec![Enter("a"), Update(1, 0), Pass(PATIENCE)], 9, vec![], vec!["a"]),
            // It is away: for a while it serves by what it knew, which may be all there is.
            (vec![Enter("a"), Update(1, 9), Leave(1)], 9, vec![], vec![]),
            (vec![Enter("a"), Update(1, 9), Leave(1), Publish(10)], 9, vec!["a"], vec![]),
            (vec![Enter("a"), Update(1, 9), Leave(1), Pass(ABSENCE), Publish(10)], 10, vec![], vec!["a"]),
            (vec![Enter("a"), Leave(1), almost(ABSENCE)], 0, vec!["a"], vec![]),
            (vec![Enter("a"), Leave(1), Pass(ABSENCE)], 9, vec![], vec!["a"]),
            (vec![Enter("a"), Leave(1), Enter("a"), Update(2, 9)], 9, vec![], vec![]),
            // Back again, it has the time to answer, however long it was away.
            (vec![Enter("a"), Update(1, 9), Leave(1), Enter("a"), almost(PATIENCE)], 0, vec!["a"], vec![]),
            (vec![Enter("a"), Update(1, 9), Leave(1), seconds(60), Enter("a"), almost(PATIENCE)], 0, vec!["a"], vec![]),
            // Its session had reached its age: the next goes on where that was.
            (vec![Enter("a"), Update(1, 9), Age(1), Enter("a"), Update(2, 0)], 9, vec![], vec![]),
            (vec![Enter("a"), Update(1, 7), Age(1), Enter("a"), Update(2, 0)], 7, vec!["a"], vec![]),
            (vec![Enter("a"), Update(1, 9), Age(1), Publish(10), Enter("a"), Update(2, 0)], 9, vec!["a"], vec![]),
            (vec![Enter("a"), Update(1, 9), Age(1), Publish(10), Pass(ABSENCE)], 10, vec![], vec!["a"]),
            // And only that one.
            (
                vec![Enter("a"), Update(1, 9), Age(1), Enter("a"), Leave(2), Enter("a"), Update(3, 0)],
                0,
                vec!["a"],
                vec![],
            ),
            // It comes and goes and takes nothing in.
            (
                vec![
                    Enter("a"),
                    seconds(4),
                    Leave(1),
                    seconds(1),
                    Enter("a"),
                    seconds(4),
                    Leave(2),
                    seconds(1),
                    Enter("a"),
                    seconds(4),
                    Leave(3),
                ],
                9,
                vec![],
                vec!["a"],
            ),
            // It comes and goes and takes the same in each time: that is not progress.
            (
                vec![
                    Enter("a"),
                    Update(1, 7),
                    seconds(4),
                    Leave(1),
                    Enter("a"),
                    Update(2, 7),
                    seconds(4),
                    Leave(2),
                    Enter("a"),
                    Update(3, 7),
                    seconds(4),
                ],
                9,
                vec![],
                vec!["a"],
            ),
            // A second session beside the one that counts.
            (vec![Enter("a"), Update(1, 9), Enter("a"), Update(2, 0)], 9, vec![], vec![]),
            (vec![Enter("a"), Update(1, 7), seconds(4), Enter("a"), Leave(2), seconds(1)], 9, vec![], vec!["a"]),
            // One of two of a name goes: the other is its successor.
            (vec![Enter("a"), Enter("a"), Update(2, 9), Leave(1)], 9, vec![], vec![]),
            (vec![Enter("a"), Update(1, 9), Enter("a"), Leave(1), almost(PATIENCE)], 0, vec!["a"], vec![]),
            (vec![Enter("a"), Update(1, 9), Enter("a"), Leave(1), Pass(PATIENCE)], 9, vec![], vec!["a"]),
            // A control plane that was started again.
            (vec![Expect("a"), Expect("b"), Enter("b"), Update(1, 9)], 0, vec!["a"], vec![]),
            (vec![Enter("a"), Update(1, 9), Expect("a")], 9, vec![], vec![]),
            (vec![Expect("a"), Pass(ABSENCE)], 9, vec![], vec!["a"]),
            (vec![Expect("a"), Pass(ABSENCE), Enter("a"), almost(PATIENCE)], 0, vec!["a"], vec![]),
            // Another one has replaced it.
            (vec![Expect("a"), Enter("b"), Update(1, 9), Exist(&["b"])], 9, vec![], vec![]),
            (vec![Enter("a"), Leave(1), Exist(&["a"])], 0, vec!["a"], vec![]),
            (vec![Enter("a"), Exist(&[])], 0, vec!["a"], vec![]),
        ];
        for (steps, generation, waits_for, given_up) in rows {
            let (mut roll, mut now, mut latest, mut names) = (Roll::default(), Instant::now(), 9, Vec::new());
            let session = |names: &[&'static str], number: u64| names[usize::try_from(number).unwrap() - 1];
            for step in &steps {
                match step {
                    Expect(name) => roll.expect(name, now),
                    Enter(name) => {
                        roll.enter(name, now);
                        names.push(*name);
                    }
                    Update(number, holds) => {
                        roll.update(session(&names, *number), *number, *holds, latest, now);
                    }
                    Leave(number) => roll.leave(session(&names, *number), *number, now),
                    Age(number) => {
                        roll.resume_later(session(&names, *number), *number);
                        roll.leave(session(&names, *number), *number, now);
                    }
                    Publish(generation) => latest = *generation,
                    Exist(names) => roll.forget(&owned(names).into_iter().collect()),
                    Pass(time) => now += *time,
                }
            }
            let floor = roll.floor(latest, now);
            assert_eq!(floor.generation, generation, "{steps:?}");
            assert_eq!((floor.waits_for, floor.given_up), (owned(&waits_for), owned(&given_up)), "{steps:?}");
        }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }
}
