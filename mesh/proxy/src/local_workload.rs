//! Waits for the workload of a pod that is served: a pod may start before the control plane has sent it.

use std::sync::Arc;
use std::time::Duration;

use mesh_model::pod::PodInfo;
use mesh_model::workload::Workload;
use mesh_xds::follow::Reader;
use tokio::time::{Instant, timeout_at};

/// How long a connection may wait for the control plane: for a new pod's workload, for what comes on demand, for a policy
/// that a workload names; for all of them together.
pub const AWAIT_TABLES: Duration = Duration::from_secs(5);

/// Until when a connection that begins now may wait for the control plane.
pub fn deadline() -> Instant {
    Instant::now() + AWAIT_TABLES
}

/// The local workload is not (yet) in the tables (rows O2, I3, P2).
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "timed out waiting for workload {namespace}/{name} (service account {account}) from xds: is the pod known to the \
     control plane, and is it connected?"
)]
pub struct UnknownWorkload {
    namespace: String,
    name: String,
    account: String,
}

/// The workload of `pod`, once the tables hold it.
///
/// # Errors
/// When they do not hold it at `deadline`.
pub async fn local_workload(
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
