//! A pod that a data thread serves, wherever its sockets are: what its connections may hold, which HBONE connections they
//! may share, and whether it is about to end.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use mesh_hbone::pool::Pool;
use mesh_model::pod::PodInfo;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use mesh_runtime::drain;
use tokio::sync::watch;

use crate::described::Described;
use crate::quota::PodQuota;

/// A pod that is served.
pub struct LocalPod {
    /// Which workload it is.
    pub info: Arc<PodInfo>,
    /// HBONE connections that its tunnels may share.
    pub pool: Pool,
    /// What it may hold.
    pub quota: PodQuota,
    described: Described,
    /// True once the tables have held it.
    known: Cell<bool>,
    /// True once the tables hold it no more.
    leaving: watch::Sender<bool>,
}

impl LocalPod {
    /// A pod that was not looked up in the tables yet.
    pub fn new(info: Arc<PodInfo>, pool: Pool, quota: PodQuota) -> Self {
        Self {
            info,
            pool,
            quota,
            described: Described::default(),
            known: Cell::new(false),
            leaving: watch::Sender::new(false),
        }
    }

    /// Resolves when callers should open no more tunnels to the pod here: it terminates, or the proxy does.
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
    pub fn baggage(&self, workload: &Arc<Workload>) -> Rc<str> {
        self.described.baggage(workload)
    }

    /// Compares with the tables: connections to workloads that are gone serve no new tunnel, whoever has their
    /// addresses now; and a pod that is gone from them terminates.
    pub fn follow(&self, tables: &Tables) {
        self.pool.retain(|key| tables.workload(&key.workload).is_some());
        let info = &self.info;
        let known = tables.workload_of_pod(&info.namespace, &info.name, &info.service_account).is_some();
        let leaving = self.known.replace(self.known.get() || known) && !known;
        self.leaving.send_if_modified(|now| std::mem::replace(now, leaving) != leaving);
    }
}
