//! AuthorizationPolicy → Policy, for ztunnel.
//!
//! Where ztunnel cannot evaluate what is written (HTTP attributes), the policy must not become weaker. An allow rule
//! is left out whole. A deny rule keeps the rest of its conditions, and so denies at least what is written: a part
//! that is dropped counts as always met. (Istio's own control plane keeps such a deny rule in a form that never
//! matches when nothing else is left of it.)

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::policy::{Action, Policy, Scope};

use super::condition::Condition;
use super::dry_run::is_dry_run;
use super::mesh::Mesh;
use super::notes::Notes;
use super::revision::Revisions;
use super::rules;
use super::targeted::{self, Targeted};
use super::world::World;
use crate::resources::authorization_policy::{self as written, AuthorizationPolicy, WorkloadSelector};
use crate::resources::labels::Labelled;

/// All policies of the cluster, translated.
pub struct Policies {
    sent: BTreeMap<NamespacedName, Arc<Policy>>,
    /// What waypoints are told.
    targeted: BTreeMap<NamespacedName, Targeted>,
    /// Policies with selectors, by namespace.
    selectors: HashMap<Arc<str>, BTreeMap<NamespacedName, WorkloadSelector>>,
    root_namespace: Arc<str>,
}

/// What becomes of one policy.
pub(super) struct Updated {
    /// For its author; None of one that is gone.
    pub(super) condition: Option<Condition>,
    /// The selectors by which it meant pods before and means them now, where they differ.
    pub(super) reselected: Vec<WorkloadSelector>,
}

impl Policies {
    /// None yet.
    pub(super) fn new(mesh: &Mesh) -> Self {
        Self {
            sent: BTreeMap::new(),
            targeted: BTreeMap::new(),
            selectors: HashMap::new(),
            root_namespace: mesh.root_namespace.clone(),
        }
    }

    /// Translates one as it is now; None is gone.
    pub(super) fn update(
        &mut self,
        key: &NamespacedName,
        object: Option<&AuthorizationPolicy>,
        world: &World<'_>,
        revisions: &Revisions,
    ) -> Updated {
        let mut targeted = None;
        let translated = object.map(|object| match revisions.left_to_another(&object.metadata) {
            Some(condition) => (None, condition),
            None if targeted::is_targeted(object) => {
                let (policy, condition) = targeted::translate(key, object, world);
                targeted = policy;
                (None, condition)
            }
            None => translate(key, object, world.mesh),
        });
        match targeted {
            Some(policy) => drop(self.targeted.insert(key.clone(), policy)),
            None => drop(self.targeted.remove(key)),
        }
        let (policy, condition) = translated.map_or((None, None), |(policy, condition)| (policy, Some(condition)));
        let selective = policy.as_ref().is_some_and(|policy| policy.scope == Scope::WorkloadSelector);
        let selector = object.and_then(|object| object.spec.selector.as_ref()).filter(|_| selective);
        let in_namespace = self.selectors.entry(key.namespace.clone()).or_default();
        let before = match selector {
            Some(selector) => in_namespace.insert(key.clone(), selector.clone()),
            None => in_namespace.remove(key),
        };
        if in_namespace.is_empty() {
            self.selectors.remove(&key.namespace);
        }
        match policy {
            Some(policy) => drop(self.sent.insert(key.clone(), Arc::new(policy))),
            None => drop(self.sent.remove(key)),
        }
        let same = before.as_ref() == selector;
        let reselected = before.into_iter().chain(selector.cloned()).filter(|_| !same).collect();
        Updated { condition, reselected }
    }

    /// What proxies are told, by name.
    pub(super) fn sent(&self) -> &BTreeMap<NamespacedName, Arc<Policy>> {
        &self.sent
    }

    /// What waypoints are told, by name.
    pub(super) fn targeted(&self) -> &BTreeMap<NamespacedName, Targeted> {
        &self.targeted
    }

    /// The policies whose selector means a pod. Those of the root namespace mean pods everywhere.
    pub(super) fn selecting(&self, namespace: &str, pod: &dyn Labelled) -> impl Iterator<Item = NamespacedName> {
        let root = (*namespace != *self.root_namespace).then(|| self.selectors.get(&self.root_namespace)).flatten();
        let own = self.selectors.get(namespace);
        let all = own.into_iter().chain(root).flatten();
        all.filter(move |(_, selector)| selector.matches(pod)).map(|(key, _)| key.clone())
    }
}

/// One policy for ztunnel: what proxies are told, and what the user is.
fn translate(key: &NamespacedName, object: &AuthorizationPolicy, mesh: &Mesh) -> (Option<Policy>, Condition) {
    let spec = &object.spec;
    let action = match spec.action {
        written::Action::Allow => Action::Allow,
        written::Action::Deny => Action::Deny,
        written::Action::Audit => {
            return (None, Condition::unsupported(false, "ztunnel does not support the AUDIT action"));
        }
        written::Action::Custom => {
            return (None, Condition::unsupported(false, "ztunnel does not support the CUSTOM action"));
        }
    };
    let dry_run = is_dry_run(object);
    if dry_run && !mesh.dry_run_policies {
        let message = "dry-run policies are not sent: set AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY=true, or remove \
                       the annotation istio.io/dry-run to enforce it";
        return (None, Condition::unsupported(false, message));
    }
    let mut notes = Notes::default();
    let rules = spec.rules.iter().enumerate();
    let rules = rules.flat_map(|(i, written)| rules::rule(i, written, &action, &key.namespace, &mut notes)).collect();
    let policy = Policy {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        scope: scope(spec.selector.as_ref(), &key.namespace, mesh),
        action,
        rules,
        dry_run,
    };
    let condition = notes.condition(&policy.action);
    (Some(policy), condition)
}

fn scope(selector: Option<&WorkloadSelector>, namespace: &str, mesh: &Mesh) -> Scope {
    match selector {
        Some(selector) if !selector.match_labels.is_empty() => Scope::WorkloadSelector,
        _ if *namespace == *mesh.root_namespace => Scope::Global,
        _ => Scope::Namespace,
    }
}
