//! What objects say, as the translation of any of them may look at it.

use std::sync::Arc;

use super::mesh::Mesh;
use super::networks::Networks;
use crate::cluster::Cluster;
use crate::cluster::attachments::Attachments;

/// Everything that objects say.
pub(super) struct World<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) mesh: &'a Mesh,
    pub(super) network: Arc<str>,
    /// This network, and the ways to others.
    pub(super) networks: &'a Networks,
    pub(super) attachments: &'a Attachments,
}
