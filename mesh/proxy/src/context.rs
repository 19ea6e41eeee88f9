//! What every data thread of a proxy reads: tables, certificates, and where to report. Nothing here is written on the data
//! path but counters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_hbone::Settings;
use mesh_identity::store::Store;
use mesh_model::pod::PodInfo;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use mesh_runtime::drain;
use mesh_xds::demand::{Demand, InUse, Unanswered};
use mesh_xds::follow::Reader;
use tokio::time::Instant;

use crate::local_workload::{AWAIT_TABLES, UnknownWorkload, local_workload};
use crate::metrics::HboneMetrics;
use crate::quota::Quota;
use crate::report::Telemetry;

/// What every data thread reads.
pub struct ProxyContext {
    /// What the control plane has told.
    pub tables: Reader,
    /// Asks for what the tables lack, when they are filled on demand.
    pub demand: Option<Demand>,
    /// Certificates of the identities that are served.
    pub certificates: Store,
    /// Where connections are reported.
    pub telemetry: Arc<Telemetry>,
    /// How much may be held at once.
    pub quota: Quota,
    /// HTTP/2, at both ends of tunnels.
    pub hbone: Settings,
    /// What data threads hold for it.
    pub hbone_metrics: HboneMetrics,
    /// Tells when the proxy ends, and counts what must finish first.
    pub drain: drain::Watch,
    /// The cluster's name: control planes name pods by it.
    pub cluster: String,
    /// The network that the proxy is on; empty is the default network.
    pub network: String,
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl ProxyContext {
    /// The workload of a pod that is served; awaited, because a pod may start before the control plane has told of it.
    ///
    /// # Errors
    /// When the tables do not hold it at `deadline`.
    pub async fn local_workload(&self, pod: &PodInfo, deadline: Instant) -> Result<Arc<Workload>, UnknownWorkload> {
        let known = |tables: &Tables| tables.workload_of_pod(&pod.namespace, &pod.name, &pod.service_account).is_some();
        if let Some(demand) = &self.demand
            && !self.tables.read(known)
        {
            // Silence shows below. The uid is how control planes name pods (trap 40).
            let uid = format!("{}//Pod/{}/{}", self.cluster, pod.namespace, pod.name);
            drop(demand.fetch(&uid, left(deadline)).await);
        }
        local_workload(&self.tables, pod, deadline).await
    }

    /// Sees to it that the tables hold what a decision about a connection of `client` to `dialled` depends on, when
    /// they are filled on demand. What it gives is to be held while the connection lives.
    ///
    /// # Errors
    /// When the control plane has not answered at `deadline`.
    pub async fn complete(&self, client: &Workload, dialled: IpAddr, deadline: Instant) -> Result<InUse, Unanswered> {
        match &self.demand {
            Some(demand) => {
                let network = &self.network;
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
