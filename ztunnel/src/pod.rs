//! A pod as a worker's connections see it: what they dial from, what they may hold, and the tasks that end with it.

mod tasks;

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use mesh_hbone::pool::Pool;
use mesh_model::pod::PodInfo;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use mesh_proxy::described::Described;
use mesh_proxy::quota::PodQuota;
use mesh_runtime::drain;
use tokio::sync::watch;

use crate::dialler::Dialler;
use crate::dns::PodDns;
use crate::sockets::{Netns, SocketSettings};
use tasks::Tasks;

/// A pod that a worker serves.
pub(crate) struct Pod {
    pub(crate) info: Arc<PodInfo>,
    pub(crate) dialler: Dialler,
    pub(crate) sockets: Arc<SocketSettings>,
    /// The one port that tunnels may ask for; `None` is any.
    pub(crate) only: Option<u16>,
    pub(crate) pool: Pool,
    pub(crate) quota: PodQuota,
    pub(crate) dns: Rc<PodDns>,
    described: Described,
    tasks: Rc<Tasks>,
    /// The control plane has told of it.
    known: Cell<bool>,
    /// The control plane tells of it no more.
    leaving: watch::Sender<bool>,
}

impl Pod {
    /// A pod of which the control plane has not been asked yet.
    pub(crate) fn new(
        info: Arc<PodInfo>,
        netns: Netns,
        sockets: Arc<SocketSettings>,
        only: Option<u16>,
        pool: Pool,
        quota: PodQuota,
    ) -> Self {
        Self {
            dns: Rc::new(PodDns::new(info.clone(), netns.clone())),
            info,
            dialler: Dialler::new(netns),
            sockets,
            only,
            pool,
            quota,
            described: Described::default(),
            tasks: Rc::default(),
            known: Cell::new(false),
            leaving: watch::Sender::new(false),
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

    /// Resolves when callers should open no more tunnels to the pod here: it terminates, or ztunnel does.
    pub(crate) fn sends_callers_away(&self, drain: &drain::Watch) -> impl Future<Output = ()> + use<> {
        let (drain, mut leaving) = (drain.clone(), self.leaving.subscribe());
        async move {
            tokio::select! {
                () = drain.started() => {}
                // An error means that the pod is not served any more.
                _ = leaving.wait_for(|leaving| *leaving) => {}
            }
        }
    }

    /// The baggage of its workload.
    pub(crate) fn baggage(&self, workload: &Arc<Workload>) -> Rc<str> {
        self.described.baggage(workload)
    }

    /// Compares with the tables: connections to workloads that are gone serve no new tunnel, whoever has their
    /// addresses now; and a pod that is gone from them terminates.
    pub(crate) fn follow(&self, tables: &Tables) {
        self.pool.retain(|key| tables.workload(&key.workload).is_some());
        let info = &self.info;
        let known = tables.workload_of_pod(&info.namespace, &info.name, &info.service_account).is_some();
        let leaving = self.known.replace(self.known.get() || known) && !known;
        self.leaving.send_if_modified(|now| std::mem::replace(now, leaving) != leaving);
    }
}
