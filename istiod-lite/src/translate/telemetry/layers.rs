//! Which Telemetries count somewhere. Less specific first: that of the root namespace; that of the waypoint's namespace; that of the
//! waypoint's GatewayClass, of its Gateway, of the Service; of several in one place the oldest. Before them is what the mesh configuration
//! says (`defaultProviders`).

use std::cmp::Ordering;
use std::sync::Arc;

use mesh_model::address::NamespacedName;

use crate::cluster::attachments::{Target, refs_of_telemetry};
use crate::resources::Telemetry;
use crate::resources::mesh_config::MeshConfig;
use crate::translate::world::World;

/// The reason of what is not followed, though it is well written.
pub(super) const UNSUPPORTED: &str = "UnsupportedValue";

/// One of them, with its key.
pub(super) type Named<'a> = (&'a NamespacedName, &'a Arc<Telemetry>);

/// Parts of a Telemetry, each of which is said for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Tracing,
    AccessLogging,
}

impl Part {
    /// All of them.
    pub(super) const ALL: [Self; 2] = [Self::Tracing, Self::AccessLogging];

    /// As users write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tracing => "tracing",
            Self::AccessLogging => "accessLogging",
        }
    }

    /// It says something of that.
    pub(super) fn is_written(self, object: &Telemetry) -> bool {
        match self {
            Self::Tracing => !object.spec.tracing.is_empty(),
            Self::AccessLogging => !object.spec.access_logging.is_empty(),
        }
    }

    /// What it says of that is about requests that come to a waypoint.
    pub(super) fn is_for_servers(self, object: &Telemetry) -> bool {
        match self {
            Self::Tracing => object.spec.tracing.iter().any(|entry| entry.is_for_servers()),
            Self::AccessLogging => object.spec.access_logging.iter().any(|entry| entry.is_for_servers()),
        }
    }
}

/// Those that count for a service behind a waypoint, for which a Telemetry may have these targets: the least specific first.
pub(super) fn layers<'a>(
    part: Part,
    targets: &[Target],
    waypoint: &NamespacedName,
    world: &World<'a>,
) -> Vec<Named<'a>> {
    let root = &world.mesh.root_namespace;
    let own = (waypoint.namespace != *root).then(|| of_namespace(part, &waypoint.namespace, world)).flatten();
    let targeted = targets.iter().rev().filter_map(|target| of_target(part, target, world));
    of_namespace(part, root, world).into_iter().chain(own).chain(targeted).collect()
}

/// The mesh configuration, if there is one.
pub(super) fn config<'a>(world: &World<'a>) -> Option<&'a MeshConfig> {
    world.cluster.mesh_config(&world.mesh.config_map).map(|config| &**config)
}

/// The one that counts in a namespace for whatever has none of its own.
pub(super) fn of_namespace<'a>(part: Part, namespace: &str, world: &World<'a>) -> Option<Named<'a>> {
    let all = world.cluster.telemetries_in(namespace);
    all.filter(|(_, object)| is_of_namespace(object) && part.is_for_servers(object)).min_by(older)
}

/// The one that counts of those with a target.
pub(super) fn of_target<'a>(part: Part, target: &Target, world: &World<'a>) -> Option<Named<'a>> {
    let root = &world.mesh.root_namespace;
    let keys = world.attachments.telemetries_of(target);
    // A class is targeted from the root namespace only.
    let counts = keys.filter(|key| !matches!(target, Target::Class(_)) || key.namespace == *root);
    let found = counts.filter_map(|key| world.cluster.telemetry_with_key(key));
    found.filter(|(_, object)| part.is_for_servers(object)).min_by(older)
}

/// It is for whatever has none of its own.
pub(super) fn is_of_namespace(object: &Telemetry) -> bool {
    object.spec.selector.is_none() && refs_of_telemetry(object).next().is_none()
}

fn older((key, object): &Named<'_>, (other_key, other): &Named<'_>) -> Ordering {
    let age = |object: &Telemetry| object.metadata.creation_timestamp.as_ref().map(|time| time.0);
    age(object).cmp(&age(other)).then_with(|| key.cmp(other_key))
}
