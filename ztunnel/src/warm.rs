//! Certificates before they are needed: of every identity that runs on this node, and of no other.

use std::collections::HashSet;
use std::time::Duration;

use mesh_identity::store::Store;
use mesh_model::identity::SpiffeId;
use mesh_model::tables::Tables;
use mesh_model::workload::Tunnel;
use mesh_xds::follow::Reader;

/// A busy cluster changes all the time; looking once for many changes is enough.
const SETTLE: Duration = Duration::from_millis(100);

/// Follows the tables for as long as the process lives.
pub(crate) async fn follow(tables: Reader, node: String, store: Store) {
    let mut changed = tables.changed();
    let mut warm = HashSet::new();
    loop {
        let wanted = tables.read(|tables| identities_on(tables, &node));
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

/// Identities of the node's workloads that speak HBONE.
fn identities_on(tables: &Tables, node: &str) -> HashSet<SpiffeId> {
    tables
        .workloads()
        .filter(|w| *w.node == *node && (w.tunnel == Tunnel::Hbone || w.native_tunnel))
        .filter_map(|w| w.identity().ok())
        .collect()
}
