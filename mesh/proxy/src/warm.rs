//! Has certificates before they are needed: of every identity that the proxy acts for, and of no other.

use std::collections::HashSet;
use std::time::Duration;

use mesh_identity::store::Store;
use mesh_model::identity::SpiffeId;
use mesh_model::pod::PodInfo;
use mesh_model::tables::Tables;
use mesh_model::workload::Tunnel;
use mesh_xds::follow::Reader;

/// A busy cluster changes all the time; looking once for many changes is enough.
const SETTLE: Duration = Duration::from_millis(100);

/// Has `store` hold certificates of the identities that `wanted` reads from the tables, and of no others, for as long as
/// the process lives.
pub async fn follow(tables: Reader, store: Store, wanted: impl Fn(&Tables) -> HashSet<SpiffeId>) {
    let mut changed = tables.changed();
    let mut warm = HashSet::new();
    loop {
        let wanted = tables.read(&wanted);
        store.warm(wanted.difference(&warm));
        for gone in warm.difference(&wanted) {
            store.forget(gone);
        }
        warm = wanted;
        if changed.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// The identity of the workload of `pod`; none while the tables do not know it.
pub fn identity_of(tables: &Tables, pod: &PodInfo) -> HashSet<SpiffeId> {
    let workload = tables.workload_of_pod(&pod.namespace, &pod.name, &pod.service_account);
    workload.and_then(|workload| workload.identity().ok()).into_iter().collect()
}

/// Identities of the workloads of a node that speak HBONE.
pub fn identities_on(tables: &Tables, node: &str) -> HashSet<SpiffeId> {
    tables
        .workloads()
        .filter(|w| *w.node == *node && (w.tunnel == Tunnel::Hbone || w.native_tunnel))
        .filter_map(|w| w.identity().ok())
        .collect()
}
