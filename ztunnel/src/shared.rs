//! What every worker reads: settings, tables, certificates, and where to report. Nothing here is written on the data
//! path but counters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_identity::store::Store;
use mesh_model::pod::PodInfo;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use mesh_proxy::local_workload::{AWAIT_TABLES, UnknownWorkload, local_workload};
use mesh_proxy::metrics::HboneMetrics;
use mesh_proxy::quota::Quota;
use mesh_proxy::report::Telemetry;
use mesh_runtime::drain;
use mesh_xds::demand::{Demand, InUse, Unanswered};
use mesh_xds::follow::Reader;
use tokio::time::Instant;

use crate::config::Config;
use crate::dns::Dns;
use crate::metrics::NameMetrics;
use crate::names::Names;

/// What every worker reads.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) tables: Reader,
    /// Asks for what the tables lack, when they are filled on demand.
    pub(crate) demand: Option<Demand>,
    pub(crate) certificates: Store,
    /// Addresses of workloads that have only a hostname.
    pub(crate) names: Names,
    pub(crate) names_asked: NameMetrics,
    /// Where connections are reported.
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) quota: Quota,
    pub(crate) hbone_metrics: HboneMetrics,
    /// None when it is turned off.
    pub(crate) dns: Option<Arc<Dns>>,
    pub(crate) drain: drain::Watch,
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl Shared {
    /// The workload of a pod of ours; awaited, because a pod may start before the control plane has told of it.
    pub(crate) async fn local_workload(
        &self,
        pod: &PodInfo,
        deadline: Instant,
    ) -> Result<Arc<Workload>, UnknownWorkload> {
        let known = |tables: &Tables| tables.workload_of_pod(&pod.namespace, &pod.name, &pod.service_account).is_some();
        if let Some(demand) = &self.demand
            && !self.tables.read(known)
        {
            // Silence shows below. The uid is how control planes name pods (trap 40).
            let uid = format!("{}//Pod/{}/{}", self.config.cluster, pod.namespace, pod.name);
            drop(demand.fetch(&uid, left(deadline)).await);
        }
        local_workload(&self.tables, pod, deadline).await
    }

    /// Sees to it that the tables hold what a decision about a connection of `client` to `dialled` depends on, when
    /// they are filled on demand. What it gives is to be held while the connection lives.
    pub(crate) async fn complete(
        &self,
        client: &Workload,
        dialled: IpAddr,
        deadline: Instant,
    ) -> Result<InUse, Unanswered> {
        match &self.demand {
            Some(demand) => {
                let network = &self.config.network;
                let complete = demand.complete(&self.tables, client, network, dialled, left(deadline));
                Box::pin(complete).await.map_err(|unanswered| match unanswered {
                    // All that was waited, not only what was left for this.
                    Unanswered::Silent(key, _) => Unanswered::Silent(key, AWAIT_TABLES),
                    other => other,
                })
            }
            None => Ok(InUse::default()),
        }
    }
}
