//! What the translation of one object looks at, besides the object.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::labels;
use mesh_model::policy::Policy;

use super::entries::defined::Entries;
use super::mesh::Mesh;
use super::peer_authentication::Modes;
use super::policy::Policies;
use crate::cluster::Cluster;
use crate::cluster::attachments::Attachments;

/// Everything that objects say.
pub(super) struct World<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) mesh: &'a Mesh,
    pub(super) network: Arc<str>,
    pub(super) attachments: &'a Attachments,
}

/// What one object's translation may look at, besides what services say of it: all that objects say, and what policies
/// have come to.
pub(super) struct Context<'a> {
    pub(super) world: World<'a>,
    pub(super) policies: &'a Policies,
    pub(super) modes: &'a Modes,
    /// By service: what keeps callers from going around its waypoint.
    pub(super) guards: &'a Guards,
    pub(super) entries: &'a Entries,
}

/// By service.
pub(super) type Guards = BTreeMap<NamespacedName, Arc<Policy>>;

impl<'a> Deref for Context<'a> {
    type Target = World<'a>;

    fn deref(&self) -> &Self::Target {
        &self.world
    }
}

/// The network of this cluster: a label on its root namespace; empty without.
pub(super) fn network(cluster: &Cluster, mesh: &Mesh) -> Arc<str> {
    let root = cluster.namespace(&mesh.root_namespace);
    let label = root.and_then(|n| n.metadata.labels.as_ref()?.get(labels::TOPOLOGY_NETWORK));
    label.map_or("", String::as_str).into()
}
