//! `targetRefs` of a policy → the waypoints that enforce it.

use std::collections::BTreeSet;

use mesh_model::address::NamespacedName;

use super::waypoint::{self, Verdict};
use super::world::World;
use crate::cluster::attachments::{Target, target};
use crate::resources::authorization_policy::TargetRef;
use crate::resources::gateway_api::gateway::WAYPOINT_CLASSES;

/// Why a target has no waypoint: the reason, and what it means.
type Unbound = (&'static str, String);

/// What each target comes to.
pub(super) struct Bound(Vec<Result<Vec<NamespacedName>, Unbound>>);

impl Bound {
    /// Of the targets of a policy in `namespace`.
    pub(super) fn of<'a>(targets: impl Iterator<Item = &'a TargetRef>, namespace: &str, world: &World<'_>) -> Self {
        Self(targets.map(|to| waypoints(to, namespace, world)).collect())
    }

    /// Whom to tell.
    pub(super) fn waypoints(&self) -> BTreeSet<NamespacedName> {
        self.0.iter().filter_map(|found| found.as_ref().ok()).flatten().cloned().collect()
    }

    /// What its author is told: whether anybody enforces it, the reason in one word, and in a sentence.
    pub(super) fn told(&self) -> (bool, &'static str, String) {
        let unbound: Vec<&Unbound> = self.0.iter().filter_map(|found| found.as_ref().err()).collect();
        let texts = || unbound.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("; ");
        match (&unbound[..], self.0.len()) {
            ([], _) => {
                let to: Vec<_> = self.waypoints().iter().map(ToString::to_string).collect();
                let to = match &to[..] {
                    [] => "every waypoint of its class; there is none yet".to_owned(),
                    some => some.join(", "),
                };
                (true, "Accepted", format!("bound to {to}"))
            }
            ([(reason, text)], 1) => (false, *reason, text.clone()),
            (some, all) if some.len() < all => (true, "PartiallyInvalid", texts()),
            _ => (false, "Invalid", texts()),
        }
    }
}

/// The waypoint of a target that asks for one.
fn serving(target: &str, verdict: Option<Verdict>) -> Result<Vec<NamespacedName>, Unbound> {
    let Some(verdict) = verdict else {
        let message = format!(
            "{target} has no waypoint, so the policy is NOT enforced: label it, or its namespace, with istio.io/use-waypoint"
        );
        return Err(("AncestorNotBound", message));
    };
    if verdict.is_served {
        return Ok(vec![verdict.asked]);
    }
    let effect = if verdict.address.is_some() { "is refused" } else { "goes around it" };
    let message = format!("{target} is not bound to {}, and what is sent to it {effect}", verdict.asked);
    Err(("AncestorNotBound", message))
}

/// The waypoints of one target.
fn waypoints(to: &TargetRef, namespace: &str, world: &World<'_>) -> Result<Vec<NamespacedName>, Unbound> {
    match target(to, namespace) {
        Target::Service(name) => {
            let service = world.cluster.service(&name);
            let service = service.ok_or_else(|| ("TargetNotFound", format!("there is no Service {name}")))?;
            serving(&format!("the Service {name}"), waypoint::of_service(service, world))
        }
        Target::Entry(name) => {
            let entry = world.cluster.service_entry(&name);
            let entry = entry.ok_or_else(|| ("TargetNotFound", format!("there is no ServiceEntry {name}")))?;
            serving(&format!("the ServiceEntry {name}"), waypoint::of_entry(&entry.metadata, world))
        }
        Target::Gateway(name) => match world.cluster.gateway(&name) {
            Some(_) => Ok(vec![name]),
            None => Err(("TargetNotFound", format!("there is no Gateway {name}"))),
        },
        Target::Class(class) if *namespace != *world.mesh.root_namespace => {
            let root = &world.mesh.root_namespace;
            Err(("Invalid", format!("a GatewayClass ({class}) is targeted from the namespace {root} only")))
        }
        Target::Class(class) if !WAYPOINT_CLASSES.contains(&&*class) => {
            Err(("Invalid", format!("{class} is no class of waypoints: they are {}", WAYPOINT_CLASSES.join(" and "))))
        }
        Target::Class(class) => Ok(world.attachments.gateways_of(&class)),
        Target::Other(kind) => {
            let message = format!(
                "no waypoint here stands for a {kind} {}: target a Service, ServiceEntry or Gateway of the policy's own namespace, or a \
                 GatewayClass",
                to.name
            );
            Err(("Invalid", message))
        }
    }
}
