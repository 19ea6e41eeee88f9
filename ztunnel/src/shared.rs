//! What every worker reads: settings, tables, certificates, and where to report. Nothing here is written on the data
//! path but counters.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_handoff::PodInfo;
use mesh_identity::store::Store;
use mesh_model::policy::{Decision, Facts, Reason};
use mesh_model::reason::ReasonCode;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use mesh_runtime::access_log::AccessLog;
use mesh_runtime::drain;
use mesh_runtime::metrics::TrafficMetrics;
use mesh_xds::demand::{Demand, InUse, Unanswered};
use mesh_xds::follow::Reader;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::dns::Dns;
use crate::inbound::admit::{self, Verdict};
use crate::metrics::{NameMetrics, ReasonMetrics, RevocationMetrics, UnfinishedMetrics};
use crate::names::Names;
use crate::quota::Quota;

/// How long a connection may wait for the control plane: for a new pod's workload, for what comes on demand, for a policy
/// that a workload names; for all of them together.
const AWAIT_TABLES: Duration = Duration::from_secs(5);

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
    pub(crate) traffic: TrafficMetrics,
    pub(crate) reasons: ReasonMetrics,
    pub(crate) quota: Quota,
    /// Of all workers.
    pub(crate) unfinished: UnfinishedMetrics,
    pub(crate) revocation: RevocationMetrics,
    /// None when it is turned off.
    pub(crate) dns: Option<Arc<Dns>>,
    pub(crate) access_log: AccessLog,
    pub(crate) drain: drain::Watch,
    /// HBONE connections that all workers keep for reuse.
    pub(crate) pooled: Gauge,
}

/// The local workload is not (yet) in the tables (rows O2, I3, P2).
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "timed out waiting for workload {namespace}/{name} (service account {account}) from xds: is the pod known to the \
     control plane, and is it connected?"
)]
pub(crate) struct UnknownWorkload {
    namespace: String,
    name: String,
    account: String,
}

/// What the policies said, and for an undecidable question why.
#[derive(Clone, Debug)]
pub(crate) enum Judgement {
    /// The policies decided.
    Decided(Decision),
    /// The workload names a policy that did not come: it cannot be decided, so it is denied.
    MissingPolicy(Arc<str>),
}

impl Judgement {
    /// The stable code of a denial; documented in `docs/reasons.md`.
    pub(crate) fn code(&self) -> ReasonCode {
        match self {
            Self::Decided(_) => ReasonCode::PolicyDenied,
            Self::MissingPolicy(_) => ReasonCode::PolicyUnknown,
        }
    }
}

/// Until when a connection that begins now may wait for the control plane.
pub(crate) fn deadline() -> Instant {
    Instant::now() + AWAIT_TABLES
}

/// [`Shared::local_workload`], for who reads only the tables.
pub(crate) async fn local_workload(
    tables: &Reader,
    pod: &PodInfo,
    deadline: Instant,
) -> Result<Arc<Workload>, UnknownWorkload> {
    let find =
        || tables.read(|tables| tables.workload_of_pod(&pod.namespace, &pod.name, &pod.service_account).cloned());
    // Subscribed before the first look, so that a change between look and wait is not missed.
    let mut changed = None;
    loop {
        if let Some(workload) = find() {
            return Ok(workload);
        }
        let Some(changed) = changed.as_mut() else {
            changed = Some(tables.changed());
            continue;
        };
        if timeout_at(deadline, changed.changed()).await.is_ok_and(|r| r.is_ok()) {
            continue;
        }
        return Err(UnknownWorkload {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            account: pod.service_account.clone(),
        });
    }
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

    /// Asks the policies about a connection to a local workload. A policy that the workload names and that has not
    /// come yet is awaited: policies and workloads may arrive in any order.
    pub(crate) async fn judge(
        &self,
        pod: &PodInfo,
        workload: &Arc<Workload>,
        facts: &Facts,
        deadline: Instant,
    ) -> Judgement {
        let mut changed = None;
        loop {
            let verdict = self.tables.read(|tables| {
                let current = tables.workload_of_pod(&pod.namespace, &pod.name, &pod.service_account);
                admit::verdict(tables, current.unwrap_or(workload), facts)
            });
            let missing = match verdict {
                Verdict::Decided(decision) => return Judgement::Decided(decision),
                Verdict::Missing(policy) => policy,
            };
            let Some(changed) = changed.as_mut() else {
                changed = Some(self.tables.changed());
                continue;
            };
            if timeout_at(deadline, changed.changed()).await.is_ok_and(|r| r.is_ok()) {
                continue;
            }
            return Judgement::MissingPolicy(missing);
        }
    }

    /// Why an open connection must be cut now, if it must. A policy that is missing does not cut what was let in:
    /// it is about to come.
    pub(crate) fn judge_open(&self, pod: &PodInfo, facts: &Facts) -> Option<Reason> {
        let verdict = self.tables.read(|tables| {
            let workload = tables.workload_of_pod(&pod.namespace, &pod.name, &pod.service_account)?;
            Some(admit::verdict(tables, workload, facts))
        });
        match verdict {
            Some(Verdict::Decided(decision)) if !decision.allowed => Some(decision.reason),
            _ => None,
        }
    }
}
