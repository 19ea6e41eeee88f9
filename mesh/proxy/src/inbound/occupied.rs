//! The permit of an HBONE connection, which others may get while the connection carries no tunnel.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use mesh_model::share::Source;
use tokio::sync::Notify;

use crate::local_pod::LocalPod;
use crate::quota::{Full, Permit, Spared};

/// One connection's permit.
pub(super) struct Occupied {
    pod: Rc<LocalPod>,
    source: Source,
    ended: Arc<Notify>,
    inner: RefCell<Inner>,
}

struct Inner {
    tunnels: usize,
    permit: Held,
}

enum Held {
    Own(Permit),
    Spare(Spared),
    /// Somebody else has it.
    Lost,
}

/// A tunnel of the connection; dropped with the tunnel.
pub(super) struct Carried(Rc<Occupied>);

impl Occupied {
    /// Of a connection of `source` that carries nothing yet.
    pub(super) fn new(pod: Rc<LocalPod>, source: Source, permit: Permit) -> Rc<Self> {
        let ended = Arc::new(Notify::new());
        let permit = Held::Spare(pod.quota.spare(permit, &source, &ended));
        Rc::new(Self { pod, source, ended, inner: RefCell::new(Inner { tunnels: 0, permit }) })
    }

    /// The connection carries one more tunnel. One that has lost its permit takes another.
    pub(super) fn carry(self: &Rc<Self>) -> Result<Carried, Full> {
        let mut inner = self.inner.borrow_mut();
        if inner.tunnels == 0 {
            let spared = match std::mem::replace(&mut inner.permit, Held::Lost) {
                Held::Spare(spared) => spared.take(),
                Held::Own(permit) => Some(permit),
                Held::Lost => None,
            };
            let permit = spared.map_or_else(|| self.pod.quota.connection(Some(&self.source)), Ok)?;
            inner.permit = Held::Own(permit);
        }
        inner.tunnels += 1;
        Ok(Carried(self.clone()))
    }

    /// Resolves when its permit has been given to somebody else. Once for each time.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// True while it carries nothing.
    pub(super) fn is_at_rest(&self) -> bool {
        self.inner.borrow().tunnels == 0
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        let Occupied { pod, source, ended, inner } = &*self.0;
        let mut inner = inner.borrow_mut();
        inner.tunnels -= 1;
        if inner.tunnels == 0
            && let Held::Own(permit) = std::mem::replace(&mut inner.permit, Held::Lost)
        {
            inner.permit = Held::Spare(pod.quota.spare(permit, source, ended));
        }
    }
}
