//! What the waypoints' pods carry of this worker's tunnels: the next one goes to the pod that carries least, so that one that has just come
//! gets its part of connections that live long.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::workload::Workload;
use tokio::time::Instant;

/// How long a pod that could not be reached is the last choice: who refuses everything carries nothing, and would be chosen for
/// everything. The control plane says within this time that it is gone, or that it is not ready.
const AVOIDED: Duration = Duration::from_secs(10);
/// More than anybody carries.
const AVOID: u32 = 1 << 30;

/// By the workload's uid: only of those that carry something, or were not reached lately.
#[derive(Default)]
pub(crate) struct Carried(RefCell<HashMap<Arc<str>, Rc<Pod>>>);

#[derive(Default)]
struct Pod {
    tunnels: Cell<u32>,
    unreached: Cell<Option<Instant>>,
}

/// A tunnel, from its choice to its end.
pub(crate) struct Carries<'a> {
    all: &'a Carried,
    uid: Arc<str>,
    pod: Rc<Pod>,
}

impl Carried {
    /// How busy a waypoint's pod is.
    pub(crate) fn of(&self, waypoint: &Workload) -> u32 {
        self.0.borrow().get(&waypoint.uid).map_or(0, |pod| pod.busy())
    }

    /// One more tunnel goes there.
    pub(crate) fn one(&self, waypoint: &Workload) -> Carries<'_> {
        let mut all = self.0.borrow_mut();
        let pod = all.entry(waypoint.uid.clone()).or_default().clone();
        pod.tunnels.set(pod.tunnels.get().saturating_add(1));
        Carries { all: self, uid: waypoint.uid.clone(), pod }
    }

    /// Lets go of those that carry nothing, and whose failure is long ago.
    fn forget(&self) {
        self.0.borrow_mut().retain(|_, pod| pod.busy() > 0);
    }
}

impl Pod {
    fn busy(&self) -> u32 {
        let avoided = self.unreached.get().is_some_and(|at| at.elapsed() < AVOIDED);
        self.tunnels.get().min(AVOID).saturating_add(if avoided { AVOID } else { 0 })
    }
}

impl Carries<'_> {
    /// It could not be opened.
    pub(crate) fn failed(&self) {
        self.pod.unreached.set(Some(Instant::now()));
    }

    /// It is open.
    pub(crate) fn opened(&self) {
        self.pod.unreached.set(None);
    }
}

impl Drop for Carries<'_> {
    fn drop(&mut self) {
        self.pod.tunnels.set(self.pod.tunnels.get().saturating_sub(1));
        if self.pod.busy() == 0 {
            self.all.0.borrow_mut().remove(&self.uid);
        } else if self.pod.tunnels.get() == 0 {
            self.all.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tunnels_count_while_they_are_open_and_failures_for_a_while() {
        let (carried, one, two) = (Carried::default(), Workload::empty("one"), Workload::empty("two"));
        let busy = || (carried.of(&one), carried.of(&two));
        let first = carried.one(&one);
        let second = carried.one(&one);
        assert_eq!(busy(), (2, 0));
        drop(first);
        let fails = carried.one(&two);
        fails.failed();
        drop(fails);
        assert_eq!(busy(), (1, AVOID), "who carries nothing because it refuses is the last choice");
        tokio::time::advance(AVOIDED).await;
        assert_eq!(busy(), (1, 0));
        let again = carried.one(&two);
        again.failed();
        again.opened();
        assert_eq!(busy(), (1, 1), "it is reached again");
        drop((second, again));
        assert_eq!(busy(), (0, 0));
        assert!(carried.0.borrow().is_empty(), "nothing is kept of who carries nothing");
    }
}
