//! AuthorizationPolicy with `targetRefs` → Policy, for the waypoints of what it targets.
//!
//! What a waypoint cannot decide (who called before its caller, for example) makes no policy weaker than it is written: an
//! allow rule is left out whole, a deny rule keeps the rest of its conditions, somebody is asked about more, and who cannot be
//! asked says no.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::policy::{Action, Policy, Scope};
use mesh_xds::audience::Audience;

use super::authorizer;
use super::bound::Bound;
use super::condition::Condition;
use super::dry_run::is_dry_run;
use super::notes::{At, Notes, names};
use super::rules;
use super::world::World;
use crate::cluster::attachments::{Target, target, target_refs};
use crate::resources::authorization_policy::{self as written, AuthorizationPolicy};

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
    let bound = Bound::of(target_refs(object), &key.namespace, world);
    let spec = &object.spec;
    let (action, trouble) = match spec.action {
        written::Action::Allow => (Action::Allow, None),
        written::Action::Deny => (Action::Deny, None),
        written::Action::Audit => (Action::Audit, None),
        written::Action::Custom => {
            let name = spec.provider.as_ref().map_or("", |provider| &*provider.name);
            let found = authorizer::find(name, world);
            (Action::Custom(found.authorizer), found.trouble)
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
    let rules = rules.flat_map(|(i, written)| rules::rule(i, written, &action, &key.namespace, &mut notes)).collect();
    let one = |to: &_| matches!(target(to, &key.namespace), Target::Service(_) | Target::Entry(_));
    let everything = !target_refs(object).all(one);
    let policy = Policy {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        // Of services it is named by each; of a Gateway it is for whatever is behind it.
        scope: if everything { Scope::Global } else { Scope::WorkloadSelector },
        action,
        rules,
        dry_run,
    };
    let condition = condition(&bound, trouble, &policy.action, &notes);
    let waypoints = bound.waypoints();
    // One that nobody enforces is not sent.
    let targeted = (!waypoints.is_empty()).then(|| Targeted { policy: Arc::new(policy), waypoints });
    (targeted, condition)
}

const UNSUPPORTED: &str = "UnsupportedValue";

fn condition(bound: &Bound, trouble: Option<String>, action: &Action, notes: &Notes) -> Condition {
    let (status, mut reason, mut message) = bound.told();
    if status {
        let mut effects: Vec<String> = trouble.into_iter().collect();
        if !notes.http.is_empty() {
            let (rules, what) = (names("rules", &notes.rules), notes.http.join(", "));
            effects.push(match action {
                Action::Allow => format!("{rules} left out, because no waypoint can decide on {what} yet: they allow nothing"),
                Action::Audit => format!("{rules} without {what}, which no waypoint can decide on yet: more is written down"),
                Action::Custom(_) => format!(
                    "{rules} without {what}, which no waypoint can decide on yet: more requests are asked about than is written"
                ),
                _ => format!(
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
