//! ServiceEntry and WorkloadEntry → Service and Workload. Pure.
//!
//! | file | question |
//! |---|---|
//! | `defined` | which hosts does each ServiceEntry define, where several name one? Decided on together |
//! | `addresses` | which addresses do hosts have that were given none? |
//! | `ports` | at which numbers is a ServiceEntry served? |
//! | `service` | a host → Service |
//! | `routes` | a host → what its waypoint does with requests for it |
//! | `workload` | an endpoint, or a WorkloadEntry → Workload |
//! | `told` | what are the authors told? |
//! | this one | all that becomes of an object |
//!
//! WorkloadGroup is not read: it is a template by which sidecars register themselves, and Istio's control plane makes nothing of
//! it for ambient either.

pub(super) mod addresses;
pub(super) mod defined;
mod ports;
mod routes;
mod service;
mod told;
mod workload;

use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::resource::{Kind as Published, Resource};
use mesh_model::workload::Workload;
use mesh_xds::audience::Audience;

use super::condition::PolicyStatus;
use super::context::Context;
use super::revision::Revisions;
use crate::resources::{Key, Kind, WorkloadEntry};
use defined::Entry;

pub use addresses::Pools;
pub(super) use workload::uid_of_workload_entry;

/// What proxies are told of a service entry.
pub(super) fn resources(entry: &Entry, context: &Context<'_>) -> Vec<Resource> {
    if !service::is_published(entry, context) {
        return Vec::new();
    }
    let services = entry.hosts.iter().map(|host| Resource::Service(Arc::new(service::translate(entry, host, context))));
    let workloads = workload::of_entry(entry, context).into_iter();
    services.chain(workloads.map(|workload| Resource::Workload(Arc::new(workload)))).collect()
}

/// What the waypoint of a service entry is told, and which waypoint that is.
pub(super) fn for_waypoint(entry: &Entry, context: &Context<'_>) -> Vec<(Resource, Audience)> {
    let all = routes::of_entry(entry, context).into_iter();
    all.map(|(routes, waypoint)| (Resource::Routes(Arc::new(routes)), Audience::Waypoint(waypoint))).collect()
}

/// Everything that proxies may have been told of a service entry.
pub(super) fn names(entry: &Entry, cluster_id: &str) -> Vec<(Published, String)> {
    let services = entry.hosts.iter().map(|host| format!("{}/{}", entry.key.namespace, host.name));
    let routes = services.clone().map(|name| (Published::Routes, name));
    routes.chain(services.chain(workload::uids(entry, cluster_id)).map(|name| (Published::Address, name))).collect()
}

/// What the author of a service entry is told.
pub(super) fn status(entry: &Entry, context: &Context<'_>) -> PolicyStatus {
    let key = Key::new(Kind::ServiceEntry, Some(&entry.key.namespace), &entry.key.name);
    let status = PolicyStatus::new(key, told::of_entry(entry, context));
    PolicyStatus { addresses: entry.addresses.clone(), ..status }
}

/// A WorkloadEntry, and what its author is told.
pub(super) fn workload_entry(
    key: &NamespacedName,
    object: &WorkloadEntry,
    revisions: &Revisions,
    context: &Context<'_>,
) -> (Option<Workload>, PolicyStatus) {
    let another = revisions.left_to_another(&object.metadata);
    let found = if another.is_none() { workload::of_workload_entry(key, object, context) } else { None };
    let condition = another.unwrap_or_else(|| told::of_workload_entry(found.as_ref(), context));
    (found, PolicyStatus::new(Key::new(Kind::WorkloadEntry, Some(&key.namespace), &key.name), vec![condition]))
}
