//! Policies by key and by whom they cover.

use std::collections::HashMap;
use std::sync::Arc;

use crate::address::NamespacedName;
use crate::policy::{Policy, Scope};
use crate::workload::Workload;

#[derive(Default, Debug)]
pub(super) struct Policies {
    by_key: HashMap<NamespacedName, Arc<Policy>>,
    global: Vec<Arc<Policy>>,
    by_namespace: HashMap<Arc<str>, Vec<Arc<Policy>>>,
}

/// The policies that cover a workload.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Covering {
    /// Those that are known.
    pub policies: Vec<Arc<Policy>>,
    /// Those that the workload names and nobody has sent (yet). Until they come, nothing can be decided for it.
    pub missing: Vec<NamespacedName>,
}

impl Policies {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_key.values()
    }

    pub(super) fn covering(&self, workload: &Workload) -> Covering {
        let everywhere = self.global.iter();
        let here = self.by_namespace.get(&workload.namespace).into_iter().flatten();
        let mut covering = Covering { policies: everywhere.chain(here).cloned().collect(), missing: Vec::new() };
        for key in &workload.authorization_policies {
            match self.by_key.get(key) {
                // Named twice, or although it covers the workload anyway: once is enough.
                Some(policy) if covering.policies.iter().any(|p| Arc::ptr_eq(p, policy)) => {}
                Some(policy) => covering.policies.push(policy.clone()),
                None => covering.missing.push(key.clone()),
            }
        }
        covering
    }

    pub(super) fn insert(&mut self, policy: Arc<Policy>) {
        let key = policy.key();
        self.remove(&key);
        match policy.scope {
            Scope::Global => self.global.push(policy.clone()),
            Scope::Namespace => self.by_namespace.entry(policy.namespace.clone()).or_default().push(policy.clone()),
            Scope::WorkloadSelector => {}
        }
        self.by_key.insert(key, policy);
    }

    /// True when it was there.
    pub(super) fn remove(&mut self, key: &NamespacedName) -> bool {
        let Some(old) = self.by_key.remove(key) else { return false };
        self.global.retain(|p| !Arc::ptr_eq(p, &old));
        if let Some(list) = self.by_namespace.get_mut(&old.namespace) {
            list.retain(|p| !Arc::ptr_eq(p, &old));
            if list.is_empty() {
                self.by_namespace.remove(&old.namespace);
            }
        }
        true
    }
}
