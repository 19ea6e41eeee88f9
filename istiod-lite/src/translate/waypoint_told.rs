//! What users are told of waypoints: on what asks for one, and on the Gateways themselves. Pure.

use mesh_model::address::NamespacedName;
use mesh_model::labels;

use super::condition::{Condition, WAYPOINT_BOUND, WaypointStatus};
use super::service_spec::{cluster_ips, is_headless};
use super::waypoint::{self, Unbound, Verdict, is_of_us};
use super::world::World;
use crate::cluster::Kept;
use crate::cluster::relations::{Asked, is_gateway, label, waypoint as asked};
use crate::resources::gateway_api::Gateway;
use crate::resources::gateway_api::gateway::{Address, EAST_WEST_CLASS, REMOTE_CLASS, WAYPOINT_CLASSES};
use crate::resources::labels::Labelled;
use crate::resources::{Key, Kind};

/// Says of a namespace, service or pod what became of its wish for a waypoint, and which other labels about the way to it
/// are not followed.
pub(super) fn of(key: &Key, object: &Kept, world: &World<'_>) -> Vec<Condition> {
    let bound = match object {
        Kept::Service(service) => waypoint::of_service(service, world).map(|verdict| {
            let mut told = service_bound(&verdict);
            if is_headless(service) {
                told.message.push_str(HEADLESS);
            }
            told
        }),
        // Of a pod only its own wish: what it inherits its namespace says.
        Kept::Pod(pod) => matches!(asked(&**pod, &key.namespace), Asked::Waypoint(_))
            .then(|| waypoint::of_pod(&**pod, &key.namespace, world).filter(|verdict| verdict.unbound.is_some()))
            .flatten()
            .map(|verdict| service_bound(&verdict)),
        Kept::ServiceEntry(entry) => waypoint::of_entry(&entry.metadata, world).map(|verdict| service_bound(&verdict)),
        Kept::WorkloadEntry(entry) => matches!(asked(&entry.metadata, &key.namespace), Asked::Waypoint(_))
            .then(|| waypoint::of_pod(&entry.metadata, &key.namespace, world))
            .flatten()
            .map(|verdict| service_bound(&verdict)),
        Kept::Namespace(namespace) => namespace_bound(&namespace.metadata, &key.name, world),
        _ => None,
    };
    let network = label(object.labels(), labels::TOPOLOGY_NETWORK)
        .filter(|_| (key.kind, &*key.name) != (Kind::Namespace, &*world.mesh.root_namespace))
        .map(|network| network_is_not_read(network, &world.mesh.root_namespace));
    bound.into_iter().chain(network).collect()
}

const HEADLESS: &str = ". It is headless: its names are its pods' addresses, which go through a waypoint that is for workloads, and \
                        through no other (istio.io/waypoint-for)";

fn service_bound(verdict: &Verdict) -> Condition {
    let waypoint = &verdict.asked;
    let Some(why) = verdict.unbound else {
        return condition(true, "WaypointAccepted", format!("Successfully attached to waypoint {waypoint}"));
    };
    let effect = match verdict.address {
        Some(_) => {
            "connections to it are refused (UNKNOWN_WAYPOINT), because a route or a policy with targetRefs is attached, and is \
             not gone around"
        }
        None => {
            "connections to it go straight: no route and no policy with targetRefs is gone around, or it says \
                 ambit.dev/waypoint-fail-open"
        }
    };
    condition(false, reason(why), format!("{}. Until then {effect}", fix(why, waypoint)))
}

/// A namespace's waypoint that nobody has.
fn namespace_bound(object: &dyn Labelled, namespace: &str, world: &World<'_>) -> Option<Condition> {
    let Asked::Waypoint(waypoint) = asked(object, namespace) else { return None };
    let is_missing = world.cluster.gateway(&waypoint).is_none() && world.cluster.service(&waypoint).is_none();
    (is_missing && !is_gateway(object)).then(|| {
        let message = format!(
            "{}. Until then connections to its services (those without a label of their own) go straight, but for those that \
             a route or a policy with targetRefs is attached to: these are refused (UNKNOWN_WAYPOINT)",
            fix(Unbound::Missing, &waypoint)
        );
        condition(false, reason(Unbound::Missing), message)
    })
}

fn condition(status: bool, reason: &'static str, message: String) -> Condition {
    Condition { kind: WAYPOINT_BOUND.into(), status, reason: reason.into(), message }
}

fn reason(why: Unbound) -> &'static str {
    match why {
        Unbound::Missing | Unbound::NotReady => "WaypointIsNotReady",
        Unbound::Denied => "AttachmentDenied",
        Unbound::OtherTraffic => "UnsupportedTrafficType",
    }
}

fn fix(why: Unbound, waypoint: &NamespacedName) -> String {
    let named = "the label istio.io/use-waypoint names";
    match why {
        Unbound::Missing => {
            format!("{named} {waypoint}, and there is no Gateway of that name: make it, or take the label off")
        }
        Unbound::NotReady => {
            format!("{named} {waypoint}, which has no address yet: wait for it, or take the label off")
        }
        Unbound::Denied => format!(
            "{named} {waypoint}, whose listener does not take this namespace: allow it there (allowedRoutes.namespaces), or \
             name another"
        ),
        Unbound::OtherTraffic => format!(
            "{named} {waypoint}, which is not for this: say so there (istio.io/waypoint-for: service, workload or all), or name \
             another"
        ),
    }
}

fn network_is_not_read(network: &str, root_namespace: &str) -> Condition {
    let message = format!(
        "the label topology.istio.io/network: {network} is not followed here: it is taken for a part of this network, and \
         reached straight. As in Istio, a cluster's network is the label of the namespace {root_namespace}, and that of a \
         WorkloadEntry is its spec.network"
    );
    Condition { kind: "istio.io/NetworkApplied".into(), status: false, reason: "NotRead".into(), message }
}

/// Says of a Gateway whether it is a waypoint that runs.
pub(super) fn of_gateway(key: &Key, gateway: &Gateway, world: &World<'_>) -> Vec<Condition> {
    if !gateway.is_waypoint() {
        // Another controller's, if its class says so; without one nobody has it.
        let class = world.cluster.gateway_class(&gateway.spec.gateway_class_name);
        return class.is_none().then(|| unknown_class(&gateway.spec.gateway_class_name)).into_iter().collect();
    }
    let say = |kind: &'static str, status, reason: &'static str, message: String| Condition {
        kind: kind.into(),
        status,
        reason: reason.into(),
        message,
    };
    let accepted = say("Accepted", true, "Accepted", "Resource accepted".to_owned());
    let service = key.object();
    let programmed = match world.cluster.service(&service) {
        _ if gateway.is_run_elsewhere() => {
            say("Programmed", true, "Programmed", "somebody else runs it, at its spec.addresses".to_owned())
        }
        Some(_) => {
            let address = format!("{}.{}.svc.{}:15008", service.name, service.namespace, world.mesh.domain);
            say("Programmed", true, "Programmed", format!("Resource programmed, assigned to service(s) {address}"))
        }
        None => say("Programmed", false, "AddressNotAssigned", format!("it runs, and waits for its Service {service}")),
    };
    vec![accepted, programmed]
}

/// Where it is, for who asks the Gateway: its Service's address, and its name.
pub(super) fn waypoint(key: &Key, gateway: &Gateway, world: &World<'_>) -> Option<WaypointStatus> {
    let listener = gateway.hbone().filter(|_| gateway.is_waypoint() && is_of_us(gateway, world))?;
    let address = |kind: &str, value: String| Address { kind: Some(kind.to_owned()), value };
    let mut addresses = gateway.spec.addresses.clone();
    if let Some(service) = world.cluster.service(&key.object()).filter(|_| !gateway.is_run_elsewhere()) {
        let ips = service.spec.as_ref().into_iter().flat_map(cluster_ips);
        addresses.extend(ips.map(|ip| address("IPAddress", ip.to_string())));
        let hostname = format!("{}.{}.svc.{}", key.name, key.namespace, world.mesh.domain);
        addresses.push(address("Hostname", hostname));
    }
    Some(WaypointStatus { class: gateway.spec.gateway_class_name.clone(), listener: listener.name.clone(), addresses })
}

fn unknown_class(class: &str) -> Condition {
    let others = match class {
        EAST_WEST_CLASS => "it would be the one by which other networks come in, and none is part of Ambit".to_owned(),
        _ => {
            let waypoints = WAYPOINT_CLASSES.join(" or ");
            format!("waypoints are of the class {waypoints}, gateways of other networks of {REMOTE_CLASS}")
        }
    };
    let message = format!("there is no GatewayClass {class}, and no gateway is run for it here: {others}");
    Condition { kind: "Accepted".into(), status: false, reason: "Pending".into(), message }
}
