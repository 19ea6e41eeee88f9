//! A pod of this node as a worker serves it: what its connections dial from, and the tasks that end with it.

mod tasks;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use mesh_proxy::local_pod::LocalPod;

use crate::dialler::Dialler;
use crate::dns::PodDns;
use crate::sockets::{Netns, SocketSettings};
use tasks::Tasks;

/// A pod that a worker serves.
pub(crate) struct Pod {
    pub(crate) local: Rc<LocalPod>,
    pub(crate) dialler: Dialler,
    pub(crate) sockets: Arc<SocketSettings>,
    /// The one port that tunnels may ask for; `None` is any.
    pub(crate) only: Option<u16>,
    pub(crate) dns: Rc<PodDns>,
    tasks: Rc<Tasks>,
}

impl Pod {
    /// The pod `local`, whose sockets are made in `netns` as `sockets` says.
    pub(crate) fn new(local: LocalPod, netns: Netns, sockets: Arc<SocketSettings>, only: Option<u16>) -> Self {
        Self {
            dns: Rc::new(PodDns::new(local.info.clone(), netns.clone())),
            local: Rc::new(local),
            dialler: Dialler::new(netns),
            sockets,
            only,
            tasks: Rc::default(),
        }
    }

    /// Runs `work` until it ends or the pod is no longer served. `held` is dropped with it.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + 'static, held: impl Sized + 'static) {
        self.tasks.spawn(work, held);
    }

    /// Ends all that runs for the pod.
    pub(crate) fn stop(&self) {
        self.tasks.stop();
    }

    /// The pod is no longer served.
    pub(crate) fn has_stopped(&self) -> bool {
        self.tasks.have_stopped()
    }
}
