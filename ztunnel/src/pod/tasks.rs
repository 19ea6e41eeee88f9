//! The tasks of a pod: its listeners, its connections and the tunnels on them. They end when the pod is no longer served.
//!
//! Nothing is asked of a connection for this while it lives: a future that waited for the end of its pod would be
//! polled with every byte.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use tokio::task::{AbortHandle, spawn_local};

/// Tasks that run.
#[derive(Default)]
pub(super) struct Tasks(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    running: Vec<Option<AbortHandle>>,
    free: Vec<usize>,
    stopped: bool,
}

/// A task's slot in the list; dropped with the task.
struct Slot {
    tasks: Rc<Tasks>,
    number: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inner = self.tasks.0.borrow_mut();
        inner.running[self.number] = None;
        inner.free.push(self.number);
    }
}

impl Tasks {
    /// Runs `work` until it ends or [`Tasks::stop`] is called; not at all after that. `held` is dropped with it.
    pub(super) fn spawn(self: &Rc<Self>, work: impl Future<Output = ()> + 'static, held: impl Sized + 'static) {
        let number = {
            let mut inner = self.0.borrow_mut();
            if inner.stopped {
                return;
            }
            let number = inner.free.pop().unwrap_or(inner.running.len());
            if number == inner.running.len() {
                inner.running.push(None);
            }
            number
        };
        let slot = Slot { tasks: self.clone(), number };
        // A task is moved several times from here to its end; a box is small.
        let work = Box::pin(work);
        let task = spawn_local(async move {
            let _held = (slot, held);
            work.await;
        });
        self.0.borrow_mut().running[number] = Some(task.abort_handle());
    }

    /// Drops whatever runs.
    pub(super) fn stop(&self) {
        let mut inner = self.0.borrow_mut();
        inner.stopped = true;
        inner.running.iter().flatten().for_each(AbortHandle::abort);
    }

    /// [`Tasks::stop`] has been called.
    pub(super) fn have_stopped(&self) -> bool {
        self.0.borrow().stopped
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn what_runs_is_dropped_and_nothing_runs_after() {
        let body = async {
            let tasks = Rc::new(Tasks::default());
            let begin = || {
                let (ended, wait) = oneshot::channel::<()>();
                let (go, told) = oneshot::channel::<()>();
                let work = async {
                    let _ = told.await;
                };
                tasks.spawn(work, ended);
                (go, wait)
            };
            let (go, ended) = begin();
            drop(go);
            ended.await.unwrap_err();
            let (_go, running) = begin();
            assert_eq!(tasks.0.borrow().running.len(), 1, "a slot is used again");
            tasks.stop();
            running.await.unwrap_err();
            let (_go, late) = begin();
            late.await.unwrap_err();
            assert_eq!(Rc::strong_count(&tasks), 1, "nothing is left of them");
        };
        let limit = std::time::Duration::from_secs(10);
        let ended = tokio::time::timeout(limit, LocalSet::new().run_until(body)).await;
        ended.expect("tasks that were stopped have ended");
    }
}
