//! `istio.io/use-waypoint`: the waypoint in the way to a service or workload, and what happens while it is not there.
//!
//! Istio's control plane leaves a waypoint out that is missing or not ready, so that connections go around it, and with them
//! around every policy that it was to enforce. Here they go around only while nothing is attached that would be gone around:
//! no route, no policy with `targetRefs`. Else the waypoint is told to the proxies all the same, by the hostname that its
//! Service has or would have. They cannot resolve it, and refuse. Who prefers to be reached without policies says so by
//! the annotation `ambit.dev/waypoint-fail-open`. What a Gateway does not take is told with a name that nobody can resolve.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use mesh_model::address::{GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress, canonical_ip};
use mesh_model::labels;

use super::world::World;
use crate::cluster::attachments::Target;
use crate::cluster::relations::{self, Asked, is_gateway, label, waypoint as asked};
use crate::mode::Mode;
use crate::resources::gateway_api::Gateway;
use crate::resources::gateway_api::gateway::{Address, From, HBONE_PORT, WAYPOINT_CLASSES};
use crate::resources::labels::Labelled;

/// What becomes of the wish for a waypoint.
pub(super) struct Verdict {
    /// The waypoint that is asked for.
    pub(super) asked: NamespacedName,
    /// What proxies are told; None: the way is straight.
    pub(super) address: Option<Arc<GatewayAddress>>,
    /// Why it is not bound to the waypoint; None: it is.
    pub(super) unbound: Option<Unbound>,
    /// Its author lets callers go around the waypoint.
    pub(super) is_open: bool,
    /// The waypoint is to know of it, now or as soon as it runs.
    pub(super) is_served: bool,
}

/// Why something is not bound to the waypoint that it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unbound {
    /// There is no such Gateway.
    Missing,
    /// It has no address yet.
    NotReady,
    /// It is for other namespaces.
    Denied,
    /// It is not for services, or not for workloads.
    OtherTraffic,
}

/// What a waypoint is asked to be in the way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    Service,
    Workload,
}

/// Whether what asks for this waypoint is ours to tell of; where the mesh is ours, everything is.
pub(super) fn is_ours(asked: Option<&NamespacedName>, world: &World<'_>) -> bool {
    let mode = &world.mesh.mode;
    if *mode == Mode::Mesh {
        return true;
    }
    asked.and_then(|asked| world.cluster.gateway(asked)).is_some_and(|gateway| is_of_us(gateway, world))
}

/// Whether a Gateway is one of ours.
pub(super) fn is_of_us(gateway: &Gateway, world: &World<'_>) -> bool {
    let class = &gateway.spec.gateway_class_name;
    world.mesh.mode.is_ours(class, world.cluster.gateway_class(class).map(|class| &**class))
}

/// The verdict on a Service: its own wish, else its namespace's. None: it asks for none.
pub(super) fn of_service(service: &k8s_openapi::api::core::v1::Service, world: &World<'_>) -> Option<Verdict> {
    let object = &service.metadata;
    let name = NamespacedName::new(relations::namespace(object), object.name.as_deref().unwrap_or(""));
    let attached = || {
        let attachments = world.attachments;
        attachments.routes_of(&name).next().is_some() || attachments.has_policies(&Target::Service(name.clone()))
    };
    of_services(object, attached, world)
}

/// The verdict on a ServiceEntry, in the same way.
pub(super) fn of_entry(object: &ObjectMeta, world: &World<'_>) -> Option<Verdict> {
    let name = NamespacedName::new(relations::namespace(object), object.name.as_deref().unwrap_or(""));
    let attached = || {
        let attachments = world.attachments;
        attachments.routes_of_entry(&name).next().is_some() || attachments.has_policies(&Target::Entry(name.clone()))
    };
    of_services(object, attached, world)
}

fn of_services(object: &ObjectMeta, attached: impl FnOnce() -> bool, world: &World<'_>) -> Option<Verdict> {
    let namespace = relations::namespace(object);
    // What belongs to a waypoint is not behind one.
    if is_gateway(object) {
        return None;
    }
    let (asked, is_own) = match asked(object, namespace) {
        Asked::Nothing => (inherited(namespace, world), false),
        own => (own, true),
    };
    let Asked::Waypoint(waypoint) = asked else { return None };
    let own = object.annotations.as_ref().and_then(|all| all.get(labels::WAYPOINT_FAIL_OPEN));
    let open = own.map_or_else(|| opens(namespace, world), |value| labels::parse_bool(value) == Some(true));
    let wish = Wish { waypoint, traffic: Traffic::Service, is_own };
    Some(verdict(wish, namespace, open, attached, world))
}

/// The verdict on a Pod or another workload: its own wish, else its namespace's, if that is for workloads. None: it asks for none.
pub(super) fn of_pod(object: &dyn Labelled, namespace: &str, world: &World<'_>) -> Option<Verdict> {
    if is_gateway(object) {
        return None;
    }
    let (waypoint, is_own) = match asked(object, namespace) {
        Asked::None => return None,
        Asked::Waypoint(own) => (own, true),
        Asked::Nothing => match inherited(namespace, world) {
            // A namespace's is for services, unless its Gateway says otherwise.
            Asked::Waypoint(its) if takes_workloads(world.cluster.gateway(&its)?, world) => (its, false),
            _ => return None,
        },
    };
    // No route is for a workload, and no policy targets one.
    let wish = Wish { waypoint, traffic: Traffic::Workload, is_own };
    Some(verdict(wish, namespace, opens(namespace, world), || false, world))
}

fn inherited(namespace: &str, world: &World<'_>) -> Asked {
    let object = world.cluster.namespace(namespace);
    object.map_or(Asked::Nothing, |object| asked(&object.metadata, namespace))
}

/// Whether a namespace says that what is in it may be reached around a waypoint that is not there.
fn opens(namespace: &str, world: &World<'_>) -> bool {
    let object = world.cluster.namespace(namespace);
    let value = object.and_then(|object| object.metadata.annotations.as_ref()?.get(labels::WAYPOINT_FAIL_OPEN));
    value.is_some_and(|value| labels::parse_bool(value) == Some(true))
}

/// A wish for a waypoint.
struct Wish {
    waypoint: NamespacedName,
    traffic: Traffic,
    /// It is the object's own, and not its namespace's.
    is_own: bool,
}

fn verdict(
    Wish { waypoint, traffic, is_own }: Wish,
    namespace: &str,
    open: bool,
    attached: impl FnOnce() -> bool,
    world: &World<'_>,
) -> Verdict {
    let gateway = world.cluster.gateway(&waypoint).map(|gateway| &**gateway);
    let fits = match gateway {
        None => Ok(()),
        Some(gateway) if !covers(gateway, traffic, world) => Err(Unbound::OtherTraffic),
        Some(gateway) if !admits(gateway, &waypoint.namespace, namespace, world) => Err(Unbound::Denied),
        Some(_) => Ok(()),
    };
    let found = fits.and_then(|()| place(&waypoint, gateway, world));
    let (destination, unbound) = match found {
        Ok(destination) => (Some(destination), None),
        Err(why) => {
            // What would be gone around. What a namespace's waypoint is not for is none of that waypoint's business, nor of its policies.
            let left_alone = why == Unbound::OtherTraffic && !is_own;
            let closed = !open && (attached() || !left_alone && has_policies(&waypoint, gateway, world));
            let name = || match why {
                Unbound::Missing | Unbound::NotReady => by_name(&waypoint, world),
                // It may be there, and would be asked.
                Unbound::Denied | Unbound::OtherTraffic => nowhere(&waypoint, world),
            };
            (closed.then(name), Some(why))
        }
    };
    let address = destination.map(|at| GatewayAddress { destination: at, hbone_mtls_port: HBONE_PORT }.shared());
    let is_served = matches!(unbound, None | Some(Unbound::NotReady));
    Verdict { asked: waypoint, address, unbound, is_open: open, is_served }
}

/// Whether a policy is attached to the waypoint itself. Of one that is not there nobody knows the class.
fn has_policies(waypoint: &NamespacedName, gateway: Option<&Gateway>, world: &World<'_>) -> bool {
    let some = |target: &Target| world.attachments.has_policies(target);
    let class = |name: &str| some(&Target::Class(name.into()));
    some(&Target::Gateway(waypoint.clone()))
        || match gateway {
            Some(gateway) => class(&gateway.spec.gateway_class_name),
            None => WAYPOINT_CLASSES.into_iter().any(class),
        }
}

/// Whether a Gateway is for workloads at their own addresses.
pub(super) fn takes_workloads(gateway: &Gateway, world: &World<'_>) -> bool {
    covers(gateway, Traffic::Workload, world)
}

fn covers(gateway: &Gateway, traffic: Traffic, world: &World<'_>) -> bool {
    let class = world.cluster.gateway_class(&gateway.spec.gateway_class_name);
    let own = label(&gateway.metadata, labels::WAYPOINT_FOR);
    let said = own.or_else(|| label(&class?.metadata, labels::WAYPOINT_FOR)).unwrap_or("service");
    matches!((said, traffic), ("all", _) | ("service", Traffic::Service) | ("workload", Traffic::Workload))
}

/// Whether a Gateway takes what is in a namespace: its own, where it says nothing.
fn admits(gateway: &Gateway, own: &str, namespace: &str, world: &World<'_>) -> bool {
    let allowed = gateway.hbone().and_then(|listener| listener.allowed_routes.as_ref()?.namespaces.as_ref());
    match allowed.and_then(|namespaces| namespaces.from).unwrap_or(From::Same) {
        From::All => true,
        From::Same => own == namespace,
        From::None => false,
        From::Selector => {
            let selector = allowed.and_then(|namespaces| namespaces.selector.as_ref());
            let object = world.cluster.namespace(namespace);
            selector.zip(object).is_some_and(|(selector, object)| selects(selector, &object.metadata))
        }
    }
}

fn selects(selector: &LabelSelector, object: &dyn Labelled) -> bool {
    let mut labels = selector.match_labels.iter().flatten();
    let mut expressions = selector.match_expressions.iter().flatten();
    labels.all(|(name, value)| object.label(name) == Some(value))
        && expressions.all(|e| {
            let value = object.label(&e.key);
            let listed = value.is_some_and(|value| e.values.iter().flatten().any(|one| one == value));
            match e.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                // Refused when it was read.
                _ => false,
            }
        })
}

/// Where a waypoint is.
fn place(
    waypoint: &NamespacedName,
    gateway: Option<&Gateway>,
    world: &World<'_>,
) -> Result<GatewayDestination, Unbound> {
    let service = world.cluster.service(waypoint);
    let Some(gateway) = gateway else {
        // Its Service says that it belongs to one: whoever made it has it, and we cannot read it.
        let is_its = |service: &k8s_openapi::api::core::v1::Service| {
            label(&service.metadata, labels::GATEWAY_NAME) == Some(&waypoint.name)
        };
        return match service {
            Some(service) if is_its(service) => Ok(by_name(waypoint, world)),
            _ => Err(Unbound::Missing),
        };
    };
    let elsewhere = at(&gateway.spec.addresses, waypoint, world);
    let ours = || (gateway.is_waypoint() && service.is_some()).then(|| by_name(waypoint, world));
    let programmed = || at(&gateway.status.addresses, waypoint, world);
    elsewhere.or_else(ours).or_else(programmed).ok_or(Unbound::NotReady)
}

/// By its Service's name.
fn by_name(NamespacedName { namespace, name }: &NamespacedName, world: &World<'_>) -> GatewayDestination {
    let hostname = format!("{name}.{namespace}.svc.{}", world.mesh.domain);
    GatewayDestination::Hostname(NamespacedName::new(namespace.clone(), hostname))
}

/// By a name that nobody has: no host may have such a label.
fn nowhere(waypoint: &NamespacedName, world: &World<'_>) -> GatewayDestination {
    let NamespacedName { namespace, name } = waypoint;
    let hostname = format!("_not-bound.{name}.{namespace}.svc.{}", world.mesh.domain);
    GatewayDestination::Hostname(NamespacedName::new(namespace.clone(), hostname))
}

/// By the first hostname of some addresses, else by the first IP address.
fn at(addresses: &[Address], waypoint: &NamespacedName, world: &World<'_>) -> Option<GatewayDestination> {
    let hostname = addresses.iter().find(|address| address.kind.as_deref() == Some("Hostname"));
    if let Some(hostname) = hostname.filter(|hostname| !hostname.value.is_empty()) {
        let name = NamespacedName::new(waypoint.namespace.clone(), hostname.value.as_str());
        return Some(GatewayDestination::Hostname(name));
    }
    let ip = addresses.iter().find_map(|address| address.value.parse::<IpAddr>().ok())?;
    Some(GatewayDestination::Address(NetworkAddress { network: world.network.clone(), ip: canonical_ip(ip) }))
}

#[cfg(test)]
mod tests;
