//! What users are told of other networks: on the Gateways that say where theirs are, and on what cannot be reached. Pure.

use mesh_model::address::NamespacedName;
use mesh_model::labels::TOPOLOGY_NETWORK;

use super::condition::{Condition, WaypointStatus};
use super::networks::{self, Unusable};
use super::world::World;
use crate::mode::Part;
use crate::resources::Gateway;
use crate::resources::gateway_api::gateway::{HBONE, HBONE_PORT, REMOTE_CLASS, SERVICE_ACCOUNT};

/// Says of a Gateway whether it is the way to another network.
pub(super) fn of_gateway(key: &NamespacedName, gateway: &Gateway, world: &World<'_>) -> Vec<Condition> {
    let say = |kind: &'static str, status, reason: &'static str, message: String| Condition {
        kind: kind.into(),
        status,
        reason: reason.into(),
        message,
    };
    let accepted = || say("Accepted", true, "Accepted", "Resource accepted".to_owned());
    let not_programmed = |reason, message| vec![accepted(), say("Programmed", false, reason, message)];
    let invalid = |message: String| {
        vec![say("Accepted", false, "Invalid", message.clone()), say("Programmed", false, "Invalid", message)]
    };
    match world.networks.verdict(key, gateway, world.mesh) {
        Ok((network, address)) => {
            let mut message = format!("what is on the network {network} is reached through {address}");
            let addresses = gateway.spec.addresses.len();
            if addresses > 1 {
                message.push_str(&format!(", the first of its {addresses} addresses; the others are not used"));
            }
            vec![accepted(), say("Programmed", true, "Programmed", message)]
        }
        Err(Unusable::NoNetwork) => invalid(format!(
            "it does not say of which network it is the gateway: write the label {TOPOLOGY_NETWORK}: NETWORK on it"
        )),
        Err(Unusable::NoListener) => invalid(format!(
            "it has no listener for tunnels: write {{name: cross-network, port: {HBONE_PORT}, protocol: {HBONE}}}"
        )),
        Err(Unusable::Account(account)) => invalid(format!(
            "the annotation {SERVICE_ACCOUNT} names {account:?}, which is no service account's name: write the one that the \
             gateway runs as"
        )),
        Err(Unusable::NoAddress) => not_programmed(
            "AddressNotAssigned",
            "it does not say where the gateway is: write an IPAddress or a Hostname in spec.addresses".to_owned(),
        ),
        Err(Unusable::Own(network)) => not_programmed(
            "OwnNetwork",
            format!(
                "{network} is this cluster's own network (the label of the namespace {}), in which everybody is reached \
                 straight: write another network's name in the label {TOPOLOGY_NETWORK}, or remove this Gateway",
                world.mesh.root_namespace
            ),
        ),
        Err(Unusable::Second(other)) => not_programmed(
            "NetworkTaken",
            format!("the Gateway {other} is the way to this network, and a network has one: remove one of them"),
        ),
    }
}

/// Where it is, for who asks the Gateway; nothing where another controller has its class, and says so itself.
pub(super) fn place(gateway: &Gateway, world: &World<'_>) -> Option<WaypointStatus> {
    let class = &gateway.spec.gateway_class_name;
    if world.cluster.gateway_class(class).is_some() || !world.mesh.mode.does(Part::Networks) {
        return None;
    }
    let listener = networks::listener(gateway).or_else(|| gateway.spec.listeners.first())?;
    let addresses = gateway.spec.addresses.clone();
    Some(WaypointStatus { class: class.clone(), listener: listener.name.clone(), addresses })
}

/// Why what is on a network cannot be reached, if it cannot.
pub(super) fn unreached(network: &str, world: &World<'_>) -> Option<String> {
    let is_lost = world.networks.is_other(network) && world.networks.gateway_of(network).is_none();
    is_lost.then(|| {
        format!(
            "no gateway of the network {network} is known, and connections to what is there are refused \
             (UNKNOWN_NETWORK_GATEWAY): write a Gateway of the class {REMOTE_CLASS} with the label {TOPOLOGY_NETWORK}: {network}"
        )
    })
}
