//! What users are told of an object that is no policy: labels and words in it that are not followed. Pure.

use mesh_model::address::NamespacedName;

use super::condition::{Condition, PolicyStatus};
use super::route::Route;
use super::world::World;
use super::{
    distribution, endpoints, networks_told, route_told, telemetry, traffic_policy_told, traffic_told,
    virtual_service_told, waypoint_told,
};
use crate::cluster::Kept;
use crate::resources::{Key, Kind, MeshConfig};

/// The order in which users are told: all of one part, by the objects' names, then the next. (Policies come before.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The way to a namespace's services.
    NamespaceWaypoint,
    /// The way to a service.
    ServiceWaypoint,
    /// The way to a pod.
    PodWaypoint,
    /// The way to the services of a service entry.
    ServiceEntryWaypoint,
    /// The way to a workload entry.
    WorkloadEntryWaypoint,
    /// Which endpoints a service prefers.
    ServiceDistribution,
    /// Which endpoints a namespace's services prefer.
    NamespaceDistribution,
    /// Endpoints that say nothing.
    Endpoints,
    /// Slices that say nothing.
    EndpointSlice,
    /// Waypoints.
    Gateway,
    /// What becomes of a route.
    HttpRoute,
    /// What becomes of a route.
    GrpcRoute,
    /// What becomes of a route.
    TcpRoute,
    /// What becomes of a route.
    TlsRoute,
    /// What becomes of a destination rule.
    DestinationRule,
    /// What becomes of a virtual service.
    VirtualService,
    /// What is not read of a mesh configuration.
    MeshConfig,
    /// What becomes of what is said of traces.
    Telemetry,
    /// What becomes of a traffic policy.
    TrafficPolicy,
}

/// Its position among all that is told.
pub(super) type Position = (Part, NamespacedName);

/// Every part in which something may be told of objects of a kind.
pub(super) fn parts(kind: Kind) -> &'static [Part] {
    match kind {
        Kind::Namespace => &[Part::NamespaceWaypoint, Part::NamespaceDistribution],
        Kind::Service => &[Part::ServiceWaypoint, Part::ServiceDistribution],
        Kind::Pod => &[Part::PodWaypoint],
        Kind::ServiceEntry => &[Part::ServiceEntryWaypoint],
        Kind::WorkloadEntry => &[Part::WorkloadEntryWaypoint],
        Kind::Endpoints => &[Part::Endpoints],
        Kind::EndpointSlice => &[Part::EndpointSlice],
        Kind::Node | Kind::ServiceAccount | Kind::GatewayClass => &[],
        Kind::AuthorizationPolicy | Kind::PeerAuthentication | Kind::RequestAuthentication => &[],
        Kind::Gateway => &[Part::Gateway],
        Kind::HttpRoute => &[Part::HttpRoute],
        Kind::GrpcRoute => &[Part::GrpcRoute],
        Kind::TcpRoute => &[Part::TcpRoute],
        Kind::TlsRoute => &[Part::TlsRoute],
        Kind::DestinationRule => &[Part::DestinationRule],
        Kind::VirtualService => &[Part::VirtualService],
        Kind::ConfigMap => &[Part::MeshConfig],
        Kind::Telemetry => &[Part::Telemetry],
        Kind::TrafficPolicy => &[Part::TrafficPolicy],
    }
}

/// What is told of one object.
pub(super) fn of(key: &Key, world: &World<'_>) -> Vec<(Position, PolicyStatus)> {
    let parts = parts(key.kind);
    let Some(object) = world.cluster.get(key).filter(|_| !parts.is_empty()) else { return Vec::new() };
    let of_part = |part: &Part| {
        let mut status = PolicyStatus::new(key.clone(), conditions(*part, key, &object, world));
        match &object {
            Kept::Gateway(gateway) => {
                status.generation = gateway.metadata.generation;
                status.waypoint = match gateway.is_remote() {
                    true => networks_told::place(gateway, world),
                    false => waypoint_told::waypoint(key, gateway, world),
                };
            }
            Kept::TrafficPolicy(policy) => {
                status.generation = policy.metadata.generation;
                status.parents = traffic_policy_told::of(&key.object(), policy, world);
                status.conditions = traffic_policy_told::summary(&status.parents);
            }
            _ => {}
        }
        if let Some(route) = Route::find(key, world) {
            status.generation = route.generation();
            status.parents = route_told::of(&route, world);
            status.conditions = route_told::summary(&status.parents, &route);
        }
        (!status.conditions.is_empty()).then(|| ((*part, key.object()), status))
    };
    parts.iter().filter_map(of_part).collect()
}

fn conditions(part: Part, key: &Key, object: &Kept, world: &World<'_>) -> Vec<Condition> {
    let one = match (part, object) {
        (
            Part::NamespaceWaypoint
            | Part::ServiceWaypoint
            | Part::PodWaypoint
            | Part::ServiceEntryWaypoint
            | Part::WorkloadEntryWaypoint,
            object,
        ) => {
            return waypoint_told::of(key, object, world);
        }
        (Part::DestinationRule, Kept::DestinationRule(rule)) => Some(traffic_told::of(&key.object(), rule, world)),
        (Part::VirtualService, Kept::VirtualService(object)) => Some(virtual_service_told::of(&key.object(), object, world)),
        (Part::Telemetry, Kept::Telemetry(object)) => Some(telemetry::told(&key.object(), object, world)),
        (Part::MeshConfig, Kept::MeshConfig(config)) => mesh_config_told(key, config, world),
        (Part::Gateway, Kept::Gateway(gateway)) if gateway.is_remote() => {
            return networks_told::of_gateway(&key.object(), gateway, world);
        }
        (Part::Gateway, Kept::Gateway(gateway)) => return waypoint_told::of_gateway(key, gateway, world),
        (Part::ServiceDistribution, Kept::Service(object)) => distribution::unknown_in_service(object),
        (Part::NamespaceDistribution, Kept::Namespace(object)) => distribution::unknown_on_namespace(object),
        (Part::Endpoints, Kept::Endpoints(object)) => {
            let of = world.cluster.service(&key.object()).map(|object| &**object);
            endpoints::ignored_endpoints(object, of).map(|why| Condition::unsupported(false, why))
        }
        (Part::EndpointSlice, Kept::EndpointSlice(object)) => (object.address_type == "FQDN").then(|| {
            let why = "addressType FQDN: nobody follows such a slice, in Kubernetes neither: write addresses, or a Service \
                       of type ExternalName";
            Condition::unsupported(false, why)
        }),
        _ => None,
    };
    one.into_iter().collect()
}

/// What is not read of a mesh configuration. One of another control plane is not ours to speak of.
fn mesh_config_told(key: &Key, config: &MeshConfig, world: &World<'_>) -> Option<Condition> {
    let names =
        (!config.unread.is_empty() && key.object() == world.mesh.config_map).then(|| config.unread.join("; "))?;
    Some(Condition::mesh_config(format!(
        "of this mesh configuration, extensionProviders, defaultProviders.tracing and defaultProviders.accessLogging are \
         read, and this is not: {names}"
    )))
}

/// What becomes of a policy.
pub(super) fn of_policy(kind: Kind, key: &NamespacedName, condition: Condition) -> PolicyStatus {
    let key = Key::new(kind, Some(&key.namespace), &key.name);
    PolicyStatus::new(key, vec![condition])
}
