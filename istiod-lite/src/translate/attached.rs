//! What is attached to something behind a waypoint: policies, tokens, traces and logs, by what they target. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::route::ServiceRoutes;
use mesh_model::token::JwtRule;

use super::context::Context;
use super::telemetry;
use crate::cluster::attachments::Target;
use crate::resources::gateway_api::gateway::WAYPOINT_CLASSES;

/// What is said of a service because of what is attached to `own`, to its waypoint, or to the class of that.
pub(super) fn service(
    service: NamespacedName,
    own: Target,
    waypoint: &NamespacedName,
    context: &Context<'_>,
) -> ServiceRoutes {
    said(service, &targets(Some(own), waypoint, context), waypoint, context)
}

/// What is said of connections to the addresses of workloads because of what is attached to their waypoint, or to the class of that.
pub(super) fn workloads(waypoint: &NamespacedName, context: &Context<'_>) -> ServiceRoutes {
    said(ServiceRoutes::of_workloads(waypoint), &targets(None, waypoint, context), waypoint, context)
}

fn said(
    service: NamespacedName,
    targets: &[Target],
    waypoint: &NamespacedName,
    context: &Context<'_>,
) -> ServiceRoutes {
    ServiceRoutes {
        policies: policies(targets, waypoint, context),
        tokens: tokens(targets, waypoint, context),
        tracing: telemetry::tracing::of_service(targets, waypoint, context),
        access_logging: telemetry::access_logging::of_service(targets, waypoint, context),
        ..ServiceRoutes::nothing(service)
    }
}

/// Those that are for one of these targets.
fn policies(targets: &[Target], waypoint: &NamespacedName, context: &Context<'_>) -> Vec<NamespacedName> {
    let named = targets.iter().flat_map(|target| context.attachments.policies_of(target));
    // What is not sent is not asked for: its author is told why.
    let sent = named.filter(|key| context.policies.targeted().get(key).is_some_and(|t| t.waypoints.contains(waypoint)));
    let mut names: Vec<_> = sent.cloned().collect();
    names.sort();
    names.dedup();
    names
}

/// The rules of those that are for one of these targets; in the order of their names.
fn tokens(targets: &[Target], waypoint: &NamespacedName, context: &Context<'_>) -> Arc<[JwtRule]> {
    let named: BTreeSet<_> = targets.iter().flat_map(|target| context.attachments.authentications_of(target)).collect();
    named.into_iter().flat_map(|key| context.authentications.at(key, waypoint)).cloned().collect()
}

/// What a policy may target to be for `own` behind a waypoint; workloads are nothing that is targeted. Of one that is not there nobody
/// knows the class.
pub(super) fn targets(own: Option<Target>, waypoint: &NamespacedName, context: &Context<'_>) -> Vec<Target> {
    let class = match context.cluster.gateway(waypoint) {
        Some(gateway) => vec![Target::Class(gateway.spec.gateway_class_name.as_str().into())],
        None => WAYPOINT_CLASSES.map(|class| Target::Class(class.into())).into(),
    };
    own.into_iter().chain([Target::Gateway(waypoint.clone())]).chain(class).collect()
}
