//! What objects say, as the translation of any of them may look at it.

use std::sync::Arc;

use mesh_model::labels;

use super::mesh::Mesh;
use crate::cluster::Cluster;
use crate::cluster::attachments::Attachments;

/// Everything that objects say.
pub(super) struct World<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) mesh: &'a Mesh,
    pub(super) network: Arc<str>,
    pub(super) attachments: &'a Attachments,
}

/// The network of this cluster: a label on its root namespace; empty without.
pub(super) fn network(cluster: &Cluster, mesh: &Mesh) -> Arc<str> {
    let root = cluster.namespace(&mesh.root_namespace);
    let label = root.and_then(|n| n.metadata.labels.as_ref()?.get(labels::TOPOLOGY_NETWORK));
    label.map_or("", String::as_str).into()
}
