//! What has been let in and is open now, on one worker. Asked again when policies change: who is no longer allowed
//! is cut off.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use mesh_handoff::PodInfo;
use mesh_model::policy::{Facts, Reason};
use tokio::sync::oneshot;

/// Open inbound connections of one worker thread.
#[derive(Clone, Default)]
pub(crate) struct Connections(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    next: u64,
    open: HashMap<u64, Open>,
}

/// One open connection.
struct Open {
    pod: Arc<PodInfo>,
    facts: Facts,
    cut: oneshot::Sender<Reason>,
}

/// A connection's place in the list; dropped with the connection.
pub(crate) struct Place {
    list: Connections,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.list.0.borrow_mut().open.remove(&self.number);
    }
}

impl Connections {
    /// Takes a connection in. The receiver resolves when it is to be cut, with the reason.
    pub(crate) fn enter(&self, pod: Arc<PodInfo>, facts: Facts) -> (Place, oneshot::Receiver<Reason>) {
        let (cut, receiver) = oneshot::channel();
        let mut inner = self.0.borrow_mut();
        let number = inner.next;
        inner.next += 1;
        inner.open.insert(number, Open { pod, facts, cut });
        (Place { list: self.clone(), number }, receiver)
    }

    /// Asks `judge` about every open connection and cuts those for which it gives a reason. Lets other work of the
    /// thread run in between, so that many connections do not hold up those that move bytes.
    pub(crate) async fn judge_again(&self, judge: impl Fn(&PodInfo, &Facts) -> Option<Reason>) {
        const BATCH: usize = 128;
        let numbers: Vec<u64> = self.0.borrow().open.keys().copied().collect();
        for batch in numbers.chunks(BATCH) {
            for number in batch {
                let mut inner = self.0.borrow_mut();
                let reason = inner.open.get(number).and_then(|open| judge(&open.pod, &open.facts));
                if let Some(reason) = reason
                    && let Some(open) = inner.open.remove(number)
                {
                    // The connection may be ending by itself.
                    let _ = open.cut.send(reason);
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// How many are open, and for whom: for the admin dump.
    pub(crate) fn list(&self) -> Vec<(Arc<PodInfo>, Facts)> {
        self.0.borrow().open.values().map(|open| (open.pod.clone(), open.facts.clone())).collect()
    }
}
