//! The place of an HBONE connection: its own while it carries tunnels, and spare while it carries none.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use mesh_model::share::Source;
use tokio::sync::Notify;

use crate::local_pod::LocalPod;
use crate::quota::{Full, Place, Spared};

/// One connection's place.
pub(super) struct Occupied {
    pod: Rc<LocalPod>,
    source: Source,
    ended: Arc<Notify>,
    inner: RefCell<Inner>,
}

struct Inner {
    tunnels: usize,
    place: Held,
}

enum Held {
    Own(Place),
    Spare(Spared),
    /// Somebody else has it.
    Lost,
}

/// A tunnel of the connection; dropped with the tunnel.
pub(super) struct Carried(Rc<Occupied>);

impl Occupied {
    /// Of a connection of `source` that carries nothing yet.
    pub(super) fn new(pod: Rc<LocalPod>, source: Source, place: Place) -> Rc<Self> {
        let ended = Arc::new(Notify::new());
        let place = Held::Spare(pod.quota.spare(place, &source, &ended));
        Rc::new(Self { pod, source, ended, inner: RefCell::new(Inner { tunnels: 0, place }) })
    }

    /// The connection carries one more tunnel. One that has lost its place takes another.
    pub(super) fn carry(self: &Rc<Self>) -> Result<Carried, Full> {
        let mut inner = self.inner.borrow_mut();
        if inner.tunnels == 0 {
            let spared = match std::mem::replace(&mut inner.place, Held::Lost) {
                Held::Spare(spared) => spared.take(),
                Held::Own(place) => Some(place),
                Held::Lost => None,
            };
            let place = spared.map_or_else(|| self.pod.quota.connection(Some(&self.source)), Ok)?;
            inner.place = Held::Own(place);
        }
        inner.tunnels += 1;
        Ok(Carried(self.clone()))
    }

    /// Resolves when its place has been given to somebody else. Once for each time.
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
            && let Held::Own(place) = std::mem::replace(&mut inner.place, Held::Lost)
        {
            inner.place = Held::Spare(pod.quota.spare(place, source, ended));
        }
    }
}
