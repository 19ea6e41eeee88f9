//! The queue in which the handshakes of a thread wait for their cryptography.
//!
//! What follows a caller's message takes a data thread a fraction of a millisecond: agree on keys, sign, verify. A
//! thousand callers at once would keep everybody else of the thread waiting for all of that together. So between two
//! looks at its events a thread goes on with one handshake only, each time with one of another source: many of one
//! source wait for each other, and others neither for them nor with them.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};

use mesh_model::share::Source;
use tokio::sync::oneshot;
use tokio::task::{spawn_local, yield_now};

/// Handshakes that go on by one message before the thread looks for events again. A message takes longer than a look.
const AT_ONCE: usize = 2;

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
}

/// Waits until a handshake of `source` may take the thread's time for one message. At once, if few want it.
pub(super) async fn turn(source: &Source) {
    let (turn, first) =
        QUEUE.with_borrow_mut(|queue| (queue.ask(source), !std::mem::replace(&mut queue.attended, true)));
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
    while {
        yield_now().await;
        QUEUE.with_borrow_mut(Queue::next_turns)
    } {}
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
    /// A task gives turns.
    attended: bool,
}

impl Queue {
    /// A turn, now or when the receiver says so.
    fn ask(&mut self, source: &Source) -> Option<oneshot::Receiver<()>> {
        if self.taken < AT_ONCE {
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

    /// Gives the next turns; false when nobody has taken one since the last time, and nobody waits.
    fn next_turns(&mut self) -> bool {
        let wanted = std::mem::take(&mut self.taken) > 0;
        while self.taken < AT_ONCE
            && let Some(next) = self.next()
        {
            // Who has given up meanwhile takes none.
            self.taken += usize::from(next.send(()).is_ok());
        }
        wanted || self.taken > 0
    }

    fn next(&mut self) -> Option<oneshot::Sender<()>> {
        let source = self.order.pop_front()?;
        let of_source = self.waiting.get_mut(&source)?;
        let next = of_source.pop_front();
        if of_source.is_empty() {
            self.waiting.remove(&source);
        } else {
            self.order.push_back(source);
        }
        next
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

    #[test]
    fn sources_take_turns_and_many_of_one_wait_for_each_other() {
        let mut queue = Queue::default();
        for _ in 0..AT_ONCE {
            assert!(queue.ask(&source(1)).is_none(), "some go on at once");
        }
        let mut waiting: Vec<_> = [1, 1, 1, 1, 2, 3].map(|who| (who, queue.ask(&source(who)).unwrap())).into();
        let mut turns = || {
            assert!(queue.next_turns());
            going_on(&mut waiting)
        };
        // Two at a time: the many of one source do not hold up the others.
        assert_eq!([(); 3].map(|()| turns()), [vec![1, 2], vec![1, 3], vec![1, 1]]);
        assert!(queue.next_turns(), "those who went on may ask again");
        assert!(!queue.next_turns());
        assert!(queue.order.is_empty() && queue.waiting.is_empty());
    }

    #[test]
    fn who_has_given_up_takes_no_turn() {
        let mut queue = Queue::default();
        let _ = queue.ask(&source(1));
        drop((queue.ask(&source(1)), queue.ask(&source(2)), queue.ask(&source(2))));
        let mut waiting = vec![(3, queue.ask(&source(3)).unwrap())];
        queue.next_turns();
        assert_eq!(going_on(&mut waiting), [3]);
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
