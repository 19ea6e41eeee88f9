//! Cluster → model, one file per kind. Pure: the same cluster always gives the same resources.
//!
//! | file | from | to |
//! |---|---|---|
//! | `workload` | Pod | Workload |
//! | `entries` | ServiceEntry, WorkloadEntry | Service, Workload |
//! | `outsider` | endpoints that are no pods | Workload |
//! | `service`, `distribution` | Service | Service |
//! | [`endpoints`] | Services, Pods, EndpointSlices, Endpoints | which endpoints each service has |
//! | [`policy`], `rules`, `notes`, `dry_run` | AuthorizationPolicy | Policy |
//! | `targeted` | AuthorizationPolicy with targetRefs | Policy, for waypoints |
//! | `authorizer` | its provider, in the mesh configuration | Authorizer |
//! | `bound` | targetRefs | the waypoints of what they name |
//! | `request_authentication` | RequestAuthentication | JwtRules, parts of ServiceRoutes |
//! | `guard` | Service or Pod with such a policy | Policy, for the pods |
//! | [`peer_authentication`] | PeerAuthentication | Policy |
//! | `service_spec` | what a Service says, of itself alone | |
//! | `names`, `ports`, `locality` | what things are called, their ports, and where nodes are, as all of them need | |
//! | `mesh`, `world`, `context` | what is set, and what is known of everything else | |
//! | [`revision`] | `istio.io/rev` | whether an object is for this control plane |
//! | `networks` | Gateways of class `istio-remote` | Workload, and the way to endpoints of other networks |
//! | `elsewhere` | WorkloadEntry, ServiceEntry | who may answer for a Service on other networks |
//! | `waypoint` | `istio.io/use-waypoint`, Gateways | the waypoint in the way to a service or workload |
//! | `attached` | what a policy may target to be for a service | policies, tokens and traces of ServiceRoutes |
//! | `behind` | Gateway | ServiceRoutes, for connections to workloads at its waypoint |
//! | `routes` | Service, and the routes that name it | ServiceRoutes, for its waypoint |
//! | `route_rules` | the routes that name a Service or ServiceEntry | rules of ServiceRoutes |
//! | `telemetry` | Telemetry, mesh configuration | what ServiceRoutes say of traces and logs |
//! | `load_balancer` | TrafficPolicy | what ServiceRoutes say of how an endpoint is chosen |
//! | `rate_limits` | TrafficPolicy | what ServiceRoutes say of how many requests pass |
//! | `traffic` | DestinationRule | what ServiceRoutes say of endpoints |
//! | `virtual_service` | VirtualService | rules of ServiceRoutes |
//! | `route` | a route of whichever kind, and the order of those of a service | |
//! | `stream_route` | TCPRoute, TLSRoute | rules of ServiceRoutes for what is no HTTP |
//! | `http_route`, `grpc_route`, `http_filter`, `backends`, `backend_ref` | parts of routes | parts of ServiceRoutes |
//! | [`condition`], `told`, `waypoint_told`, `networks_told`, `route_told`, `traffic_told`, `traffic_policy_told`, `virtual_service_told` | | what users are told |
//! | [`delta`] | changes of objects | what of all this differs now |
//!
//! Begin with [`translate()`], which says what a cluster means; [`delta`] keeps that up to date.

mod attached;
mod authorizer;
mod backend_ref;
mod backends;
mod behind;
mod bound;
pub mod condition;
mod context;
pub mod delta;
mod distribution;
mod dry_run;
mod elsewhere;
pub mod endpoints;
mod entries;
mod grpc_route;
mod guard;
mod http_filter;
mod http_route;
mod load_balancer;
mod locality;
mod mesh;
mod names;
mod networks;
mod networks_told;
mod notes;
mod outsider;
pub mod peer_authentication;
pub mod policy;
mod ports;
mod rate_limits;
mod request_authentication;
pub mod revision;
mod route;
mod route_rules;
mod route_told;
mod routes;
mod rules;
mod service;
mod service_spec;
mod stream_route;
mod targeted;
mod telemetry;
mod told;
mod traffic;
mod traffic_policy_told;
mod traffic_told;
mod virtual_service;
mod virtual_service_told;
mod waypoint;
mod waypoint_told;
mod workload;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::resource::Resource;
use mesh_xds::audience::Audience;

use crate::cluster::Cluster;
use crate::cluster::attachments::Attachments;
use crate::resources::Kind;
use condition::PolicyStatus;
use context::{Context, Guards};
use endpoints::{Inputs, Owner};
use entries::defined::Entries;
use networks::Networks;
use request_authentication::Authentications;
use world::World;

pub use entries::Pools;
pub use mesh::Mesh;

/// What the cluster means.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// For all proxies.
    pub resources: Vec<Resource>,
    /// For the proxies of some waypoints.
    pub for_waypoints: Vec<(Resource, Audience)>,
    /// For the users.
    pub statuses: Vec<PolicyStatus>,
}

/// Translates everything, from nothing. What [`delta`] comes to, change by change, is this: it is what that is tested
/// with, and what says in one place what a cluster means.
pub fn translate(cluster: &Cluster, mesh: &Mesh) -> Translation {
    let mut translation = Translation::default();
    let statuses = &mut translation.statuses;
    let revisions = revision::Revisions::new(cluster, mesh);
    let attachments = Attachments::of(cluster);
    let networks = Networks::new(cluster, mesh);
    let world = World { cluster, mesh, network: networks.own.clone(), networks: &networks, attachments: &attachments };
    let mut policies = policy::Policies::new(mesh);
    for (key, object) in cluster.authorization_policies() {
        let updated = policies.update(key, Some(object), &world, &revisions);
        statuses.extend(updated.condition.map(|condition| told::of_policy(Kind::AuthorizationPolicy, key, condition)));
    }
    let mut authentications = Authentications::default();
    for (key, object) in cluster.request_authentications() {
        let condition = authentications.update(key, Some(object), &world, &revisions);
        statuses.extend(condition.map(|condition| told::of_policy(Kind::RequestAuthentication, key, condition)));
    }
    let modes = peer_authentication::Modes::new(cluster, mesh, &revisions, statuses);
    let mut about: Vec<_> = cluster.all_keys().flat_map(|key| told::of(&key, &world)).collect();
    about.sort_by(|(a, _), (b, _)| a.cmp(b));
    statuses.extend(about.into_iter().map(|(_, status)| status));

    let inputs = Inputs::of(cluster);
    let resolved = inputs.resolve();
    let defined = Entries::new(cluster, mesh, &revisions);
    let none = Guards::new();
    let without = Context {
        world,
        policies: &policies,
        authentications: &authentications,
        modes: &modes,
        guards: &none,
        entries: &defined,
    };
    let guard =
        |(key, object): (&NamespacedName, &Arc<_>)| Some((key.clone(), Arc::new(guard::of_service(object, &without)?)));
    let guards: Guards = cluster.services().filter_map(guard).collect();
    let context = Context { guards: &guards, ..without };
    statuses.extend(defined.iter().map(|entry| entries::status(entry, &context)));
    let mut by_pod: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let mut outside: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (object, found) in inputs.services.iter().copied().zip(&resolved) {
        for endpoint in &found.endpoints {
            let by_uid = match endpoint.owner {
                Owner::Pod(_) => &mut by_pod,
                Owner::Outside(_) => &mut outside,
            };
            let uid = endpoints::uid(&inputs, object, endpoint, &mesh.cluster_id);
            by_uid.entry(uid).or_default().push((object, endpoint));
        }
    }

    let resources = &mut translation.resources;
    resources
        .extend(policies.sent().values().chain(guards.values()).cloned().chain(modes.sent()).map(Resource::Policy));
    for (_, object) in cluster.services() {
        resources.push(Resource::Service(Arc::new(service::translate(object, &context))));
    }
    let targeted = policies.targeted().values();
    let for_waypoints = &mut translation.for_waypoints;
    for_waypoints.extend(targeted.map(|t| (Resource::Policy(t.policy.clone()), t.audience())));
    for (_, object) in cluster.services() {
        let found = routes::of_service(object, &context);
        for_waypoints.extend(found.map(|(routes, to)| (Resource::Routes(Arc::new(routes)), Audience::Waypoint(to))));
    }
    for (key, gateway) in cluster.gateways() {
        let found = behind::of_gateway(key, gateway, &context).map(|routes| Resource::Routes(Arc::new(routes)));
        for_waypoints.extend(found.map(|routes| (routes, Audience::Waypoint(key.clone()))));
    }
    resources.extend(defined.iter().flat_map(|entry| entries::resources(entry, &context)));
    for_waypoints.extend(defined.iter().flat_map(|entry| entries::for_waypoint(entry, &context)));
    resources.extend(networks.workloads().cloned().map(Resource::Workload));
    let mut workloads = Vec::new();
    for (key, object) in cluster.workload_entries() {
        let (found, status) = entries::workload_entry(key, object, &revisions, &context);
        workloads.extend(found);
        statuses.push(status);
    }
    let mut of_pods = guard::OfPods::default();
    for (key, pod) in cluster.pods() {
        let said = by_pod.get(&names::uid(&pod.name, &mesh.cluster_id));
        if let Some((workload, guard)) = workload::translate(pod, said.map_or(&[], Vec::as_slice), &context) {
            workloads.push(workload);
            of_pods.set(key, guard);
        }
    }
    resources.extend(of_pods.changed().0.into_iter().map(Resource::Policy));
    workloads.extend(outside.iter().filter_map(|(uid, said)| outsider::translate(uid, said, &context)));
    resources.extend(workloads.into_iter().map(|workload| Resource::Workload(Arc::new(workload))));
    translation
}
