//! Where nodes are.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use mesh_model::labels;
use mesh_model::workload::Locality;

use crate::cluster::Cluster;

/// Where a node is.
pub(super) fn of_node(name: &str, cluster: &Cluster) -> Locality {
    of(cluster.node(name).map(|n| &**n))
}

/// The same, of the Node itself; nobody knows where a node is that there is not.
pub(super) fn of(node: Option<&Node>) -> Locality {
    let labels = node.and_then(|n| n.metadata.labels.as_ref());
    let label = |name| Arc::from(labels.and_then(|l| l.get(name)).map_or("", String::as_str));
    Locality {
        region: label(labels::TOPOLOGY_REGION),
        zone: label(labels::TOPOLOGY_ZONE),
        subzone: label(labels::TOPOLOGY_SUBZONE),
    }
}
