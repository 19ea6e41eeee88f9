//! What the translation of one object looks at, besides the object.

use std::sync::Arc;

use mesh_model::labels;

use super::mesh::Mesh;
use super::peer_authentication::Modes;
use super::policy::Policies;
use crate::cluster::Cluster;

/// What one object's translation may look at, besides what services say of it.
pub(super) struct Context<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) mesh: &'a Mesh,
    pub(super) network: Arc<str>,
    pub(super) policies: &'a Policies,
    pub(super) modes: &'a Modes,
}

/// The network of this cluster: a label on its root namespace; empty without.
pub(super) fn network(cluster: &Cluster, mesh: &Mesh) -> Arc<str> {
    let root = cluster.namespace(&mesh.root_namespace);
    let label = root.and_then(|n| n.metadata.labels.as_ref()?.get(labels::TOPOLOGY_NETWORK));
    label.map_or("", String::as_str).into()
}
