//! AuthorizationPolicy with `targetRefs` → Policy, for the waypoints of what it targets.
//!
//! What a waypoint cannot decide (tokens of requests, somebody else's word) makes no policy weaker than it is written: an
//! allow rule is left out whole, a deny rule keeps the rest of its conditions, and who is to be asked says no.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::policy::{Action, Policy, Scope};
use mesh_xds::audience::Audience;

use super::condition::Condition;
use super::dry_run::is_dry_run;
use super::notes::{At, Notes, names};
use super::world::World;
use super::{rules, waypoint};
use crate::cluster::attachments::{Target, target, target_refs};
use crate::resources::authorization_policy::{self as written, AuthorizationPolicy, TargetRef};
use crate::resources::gateway_api::gateway::WAYPOINT_CLASSES;

/// A policy, and the waypoints that enforce it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Targeted {
    pub(super) policy: Arc<Policy>,
    pub(super) waypoints: BTreeSet<NamespacedName>,
}

impl Targeted {
    /// Whom to tell.
    pub(super) fn audience(&self) -> Audience {
        Audience::Waypoints(self.waypoints.iter().cloned().collect())
    }
}

/// Whether it is for waypoints, and not for ztunnel.
pub(super) fn is_targeted(object: &AuthorizationPolicy) -> bool {
    target_refs(object).next().is_some()
}

/// One policy: what its waypoints are told, if any, and what the user is.
pub(super) fn translate(
    key: &NamespacedName,
    object: &AuthorizationPolicy,
    world: &World<'_>,
) -> (Option<Targeted>, Condition) {
    let found: Vec<_> = target_refs(object).map(|to| (to, waypoints(to, &key.namespace, world))).collect();
    let waypoints: BTreeSet<_> = found.iter().filter_map(|(_, found)| found.as_ref().ok()).flatten().cloned().collect();
    let spec = &object.spec;
    let (action, custom) = match spec.action {
        written::Action::Allow => (Action::Allow, false),
        written::Action::Deny => (Action::Deny, false),
        written::Action::Custom => (Action::Deny, true),
        written::Action::Audit => {
            let message = "no waypoint follows the AUDIT action yet: nothing is written down";
            return (None, Condition::waypoint(false, UNSUPPORTED, message));
        }
    };
    let dry_run = is_dry_run(object);
    if dry_run && !world.mesh.dry_run_policies {
        let message = "dry-run policies are not sent: set AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY=true, or remove \
                       the annotation istio.io/dry-run to enforce it";
        return (None, Condition::waypoint(false, UNSUPPORTED, message));
    }
    let mut notes = Notes { at: At::Waypoint, ..Notes::default() };
    let rules = spec.rules.iter().enumerate();
    let rules = rules.flat_map(|(i, written)| rules::rule(i, written, action, &key.namespace, &mut notes)).collect();
    let everything = target_refs(object).any(|to| !matches!(target(to, &key.namespace), Target::Service(_)));
    let policy = Policy {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        // Of services it is named by each; of a Gateway it is for whatever is behind it.
        scope: if everything { Scope::Global } else { Scope::WorkloadSelector },
        action,
        rules,
        dry_run,
    };
    let condition = condition(&found, custom, action, &notes);
    // One that nobody enforces is not sent.
    let targeted = (!waypoints.is_empty()).then(|| Targeted { policy: Arc::new(policy), waypoints });
    (targeted, condition)
}

const UNSUPPORTED: &str = "UnsupportedValue";

/// Why a target has no waypoint: the reason, and what it means.
type Unbound = (&'static str, String);

/// The waypoints of one target.
fn waypoints(to: &TargetRef, namespace: &str, world: &World<'_>) -> Result<Vec<NamespacedName>, Unbound> {
    match target(to, namespace) {
        Target::Service(name) => {
            let service = world.cluster.service(&name);
            let service = service.ok_or_else(|| ("TargetNotFound", format!("there is no Service {name}")))?;
            let Some(verdict) = waypoint::of_service(service, world) else {
                let message = format!(
                    "the Service {name} has no waypoint, so the policy is NOT enforced: label it, or its namespace, with \
                     istio.io/use-waypoint"
                );
                return Err(("AncestorNotBound", message));
            };
            if verdict.is_served {
                return Ok(vec![verdict.asked]);
            }
            let effect = if verdict.address.is_some() { "is refused" } else { "goes around it" };
            let message =
                format!("the Service {name} is not bound to {}, and what is sent to it {effect}", verdict.asked);
            Err(("AncestorNotBound", message))
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
                "no waypoint here stands for a {kind} {}: target a Service or Gateway of the policy's own namespace, or a \
                 GatewayClass",
                to.name
            );
            Err(("Invalid", message))
        }
    }
}

fn condition(
    found: &[(&TargetRef, Result<Vec<NamespacedName>, Unbound>)],
    custom: bool,
    action: Action,
    notes: &Notes,
) -> Condition {
    let unbound: Vec<&Unbound> = found.iter().filter_map(|(_, found)| found.as_ref().err()).collect();
    let texts = || unbound.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join("; ");
    let (status, mut reason, mut message) = match (&unbound[..], found.len()) {
        ([], _) => {
            let mut to: Vec<_> =
                found.iter().filter_map(|(_, found)| found.as_ref().ok()).flatten().map(ToString::to_string).collect();
            to.sort();
            to.dedup();
            let to =
                if to.is_empty() { "every waypoint of its class; there is none yet".to_owned() } else { to.join(", ") };
            (true, "Accepted", format!("bound to {to}"))
        }
        ([(reason, text)], 1) => (false, *reason, text.clone()),
        (some, all) if some.len() < all => (true, "PartiallyInvalid", texts()),
        _ => (false, "Invalid", texts()),
    };
    if status {
        let mut effects = Vec::new();
        if custom {
            effects.push(
                "no waypoint asks an authorizer yet: what the policy would ask about is denied (action CUSTOM)"
                    .to_owned(),
            );
        }
        if !notes.http.is_empty() {
            let (rules, what) = (names(&notes.rules), notes.http.join(", "));
            effects.push(match action {
                Action::Allow => format!("{rules} left out, because no waypoint can decide on {what} yet: they allow nothing"),
                Action::Deny => format!(
                    "{rules} without {what}, which no waypoint can decide on yet: more requests are denied than is written"
                ),
            });
        }
        if notes.spiffe {
            message = format!("{message}; principals are written without spiffe://, which was taken off");
        }
        if !effects.is_empty() {
            reason = UNSUPPORTED;
            message = format!("{message}. {}", effects.join(". "));
        }
    }
    Condition::waypoint(status, reason, message)
}
