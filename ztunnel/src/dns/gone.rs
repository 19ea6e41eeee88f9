//! The label sets of DNS clients that are gone are forgotten, as those of connections are.

use mesh_model::workload::Workload;
use mesh_proxy::report::gone::{LOOK, missing};
use mesh_xds::follow::Reader;

use super::metrics::{DnsMetrics, UNKNOWN};

/// Forgets them for as long as the process lives.
pub(crate) async fn follow(metrics: DnsMetrics, tables: Reader) {
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        let named = |w: &Workload| (w.canonical_name.clone(), w.canonical_revision.clone());
        let gone = missing(metrics.clients().into_iter().collect(), &tables, named);
        // What is not known at all is not known to be gone.
        metrics.forget(|client| gone.contains(client) && *client.0 != *UNKNOWN);
    }
}
