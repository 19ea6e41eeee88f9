//! The queue in which the handshakes of a thread wait for their cryptography.
//!
//! What follows a caller's message takes a data thread a fraction of a millisecond: agree on keys, sign, verify. A
//! thousand callers at once would keep everybody else of the thread waiting for all of that together. So between two
//! looks at its events a thread goes on with one handshake only, each time with one of another source: many of one
//! source wait for each other, and others neither for them nor with them.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use mesh_model::share::Source;
use tokio::sync::oneshot;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{Instant, sleep};

/// Handshakes that go on by one message before the thread looks for events again. A message takes longer than a look.
const AT_ONCE: usize = 2;
/// Each source has one turn in this time, of some tenth of it. With a turn a millisecond, a caller that comes thousands of
/// times makes others wait some 20 ms, and with one in four it is 4 (`docs/under-attack.md`). Proxies come once and stay.
const PACE: Duration = Duration::from_millis(4);
/// Turns that a source may take faster, after it has asked for none for so many times [`PACE`].
const FASTER: u32 = 32;

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
}

/// Waits until a handshake of `source` may take the thread's time for one message. At once, if few want it.
pub(super) async fn turn(source: &Source) {
    let (turn, first) = QUEUE
        .with_borrow_mut(|queue| (queue.ask(source, Instant::now()), !std::mem::replace(&mut queue.attended, true)));
    if first {
        spawn_local(attend());
    }
    if let Some(turn) = turn {
        // It comes, or the queue has gone and with it who else would wait.
        let _ = turn.await;
    }
}

/// Gives turns each time the thread has looked for events, until nobody asks.
async fn attend() {
    let _attended = Attended;
    loop {
        yield_now().await;
        match QUEUE.with_borrow_mut(|queue| queue.next_turns(Instant::now())) {
            Next::Look => {}
            Next::Paced => sleep(PACE).await,
            Next::Nobody => return,
        }
    }
}

/// Begins anew with the next handshake; nobody waits for a task that has ended.
struct Attended;

impl Drop for Attended {
    fn drop(&mut self) {
        // Whoever still waits is woken once the queue is free again. A thread that ends has none any more.
        let _ = QUEUE.try_with(|queue| std::mem::take(&mut *queue.borrow_mut()));
    }
}

/// Who waits. Bounded by the handshakes that are under way.
#[derive(Default)]
struct Queue {
    /// Turns that were taken since the thread looked for events.
    taken: usize,
    /// Sources of which somebody waits, the next one first.
    order: VecDeque<Source>,
    waiting: HashMap<Source, VecDeque<oneshot::Sender<()>>>,
    /// When each source that had turns lately would have had them at its pace. Forgotten once that is past.
    paid: HashMap<Source, Instant>,
    /// A task gives turns.
    attended: bool,
}

/// What comes after turns were given.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// The thread looks for events, then others may have theirs.
    Look,
    /// Whoever waits has had too many lately.
    Paced,
    /// Nobody has taken one since the last time, and nobody waits.
    Nobody,
}

impl Queue {
    /// A turn, now or when the receiver says so.
    fn ask(&mut self, source: &Source, now: Instant) -> Option<oneshot::Receiver<()>> {
        if self.taken < AT_ONCE && !self.waiting.contains_key(source) && self.is_in_time(source, now) {
            self.pay(source, now);
            self.taken += 1;
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        let of_source = self.waiting.entry(source.clone()).or_insert_with(|| {
            self.order.push_back(source.clone());
            VecDeque::new()
        });
        of_source.push_back(sender);
        Some(receiver)
    }

    fn is_in_time(&self, source: &Source, now: Instant) -> bool {
        self.paid.get(source).is_none_or(|paid| *paid <= now + PACE * FASTER)
    }

    fn pay(&mut self, source: &Source, now: Instant) {
        let paid = self.paid.entry(source.clone()).or_insert(now);
        *paid = now.max(*paid) + PACE;
    }

    /// Gives the next turns.
    fn next_turns(&mut self, now: Instant) -> Next {
        self.paid.retain(|_, paid| *paid > now);
        let wanted = std::mem::take(&mut self.taken) > 0;
        while self.taken < AT_ONCE
            && let Some((source, next)) = self.next(now)
        {
            // Who has given up meanwhile takes none.
            if next.send(()).is_ok() {
                self.pay(&source, now);
                self.taken += 1;
            }
        }
        match self.taken > 0 || wanted && self.order.is_empty() {
            true => Next::Look,
            false if !self.order.is_empty() => Next::Paced,
            false => Next::Nobody,
        }
    }

    /// Who waits longest of the next source that is in time.
    fn next(&mut self, now: Instant) -> Option<(Source, oneshot::Sender<()>)> {
        for _ in 0..self.order.len() {
            let source = self.order.pop_front()?;
            if !self.is_in_time(&source, now) {
                self.order.push_back(source);
                continue;
            }
            let of_source = self.waiting.get_mut(&source)?;
            let next = of_source.pop_front();
            if of_source.is_empty() {
                self.waiting.remove(&source);
            } else {
                self.order.push_back(source.clone());
            }
            return next.map(|next| (source, next));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use mesh_testkit::hbone::on_one_thread;

    use super::*;

    fn source(last: u8) -> Source {
        Source::address([10, 0, 0, last].into())
    }

    /// Whoever waited and may go on now.
    fn going_on(waiting: &mut Vec<(u8, oneshot::Receiver<()>)>) -> Vec<u8> {
        let mut gone = Vec::new();
        waiting.retain_mut(|(who, turn)| {
            let waits = turn.try_recv().is_err();
            if !waits {
                gone.push(*who);
            }
            waits
        });
        gone
    }

    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn sources_take_turns_and_many_of_one_wait_for_each_other() {
        let (mut queue, now) = (Queue::default(), now());
        for _ in 0..AT_ONCE {
            assert!(queue.ask(&source(1), now).is_none(), "some go on at once");
        }
        let mut waiting: Vec<_> = [1, 1, 1, 1, 2, 3].map(|who| (who, queue.ask(&source(who), now).unwrap())).into();
        let mut turns = || {
            assert_eq!(queue.next_turns(now), Next::Look);
            going_on(&mut waiting)
        };
        // Two at a time: the many of one source do not hold up the others.
        assert_eq!([(); 3].map(|()| turns()), [vec![1, 2], vec![1, 3], vec![1, 1]]);
        assert_eq!(queue.next_turns(now), Next::Look, "those who went on may ask again");
        assert_eq!(queue.next_turns(now), Next::Nobody);
        assert!(queue.order.is_empty() && queue.waiting.is_empty());
    }

    #[test]
    fn who_has_given_up_takes_no_turn() {
        let (mut queue, now) = (Queue::default(), now());
        let _ = queue.ask(&source(1), now);
        drop((queue.ask(&source(1), now), queue.ask(&source(2), now), queue.ask(&source(2), now)));
        let mut waiting = vec![(3, queue.ask(&source(3), now).unwrap())];
        queue.next_turns(now);
        assert_eq!(going_on(&mut waiting), [3]);
    }

    /// However fast a source asks, it has so many turns at once and then one at a time; others have theirs meanwhile.
    #[test]
    fn a_source_that_goes_on_and_on_is_paced() {
        let (mut queue, began) = (Queue::default(), now());
        let mut waiting: Vec<_> = (0..100).filter_map(|_| queue.ask(&source(1), began).map(|turn| (1, turn))).collect();
        let mut had = 100 - waiting.len();
        while queue.next_turns(began) == Next::Look {
            had += going_on(&mut waiting).len();
        }
        assert_eq!(had, FASTER as usize + 1);
        assert_eq!(queue.next_turns(began), Next::Paced);
        for _ in 0..AT_ONCE {
            assert!(queue.ask(&source(2), began).is_none(), "others are in time");
        }
        assert_eq!(queue.next_turns(began), Next::Paced, "it still waits");
        queue.next_turns(began + PACE);
        assert_eq!(going_on(&mut waiting), [1]);
        assert_eq!(queue.next_turns(began + PACE), Next::Paced);
        drop(waiting);
        assert_eq!(queue.next_turns(began + PACE * 200), Next::Nobody);
        assert!(queue.paid.is_empty() && queue.order.is_empty());
    }

    /// What it is for: the rest of the thread has its turn after one handshake, however many there are.
    #[tokio::test]
    async fn others_of_the_thread_go_on_between_handshakes() {
        on_one_thread(async {
            let done = Rc::new(Cell::new(0));
            for _ in 0..100 {
                let done = done.clone();
                spawn_local(async move {
                    turn(&source(1)).await;
                    done.set(done.get() + 1);
                });
            }
            let (mut before, mut most) = (0, 0);
            while done.get() < 100 {
                yield_now().await;
                most = most.max(done.get() - before);
                before = done.get();
            }
            assert!(most <= 2, "{most} handshakes went on between two turns of another task");
        })
        .await;
    }
}
