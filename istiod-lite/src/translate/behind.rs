//! Gateway → what its waypoint does with connections to the addresses of workloads: one message for all of them.
//!
//! Which workloads these are is said with each of them (`Workload.waypoint`). Routes have Services as parents and no policy targets a
//! workload, so that what there is to say is what is attached to the Gateway itself.

use mesh_model::address::NamespacedName;
use mesh_model::route::ServiceRoutes;

use super::context::Context;
use super::{attached, rate_limits, waypoint};
use crate::resources::gateway_api::Gateway;

/// What the waypoint of a Gateway is told; None where it takes no workloads.
pub(super) fn of_gateway(key: &NamespacedName, gateway: &Gateway, context: &Context<'_>) -> Option<ServiceRoutes> {
    (gateway.is_waypoint() && waypoint::takes_workloads(gateway, context)).then(|| ServiceRoutes {
        rate_limits: rate_limits::of_gateway(key, context),
        ..attached::workloads(key, context)
    })
}
