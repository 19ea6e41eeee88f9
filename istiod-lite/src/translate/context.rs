//! What the translation of one object looks at, besides the object.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::policy::Policy;

use super::entries::defined::Entries;
use super::peer_authentication::Modes;
use super::policy::Policies;
use super::request_authentication::Authentications;
use super::world::World;

/// What one object's translation may look at, besides what services say of it: all that objects say, and what policies
/// have come to.
pub(super) struct Context<'a> {
    pub(super) world: World<'a>,
    pub(super) policies: &'a Policies,
    pub(super) authentications: &'a Authentications,
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
