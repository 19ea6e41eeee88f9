//! Policies by key and by whom they cover.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::address::NamespacedName;
use crate::policy::{Policy, Scope};
use crate::workload::Workload;

#[derive(Default, Debug)]
pub(super) struct Policies {
    by_key: HashMap<NamespacedName, Arc<Policy>>,
    /// By key, in order: which of several is named in a decision must not depend on the order of arrival.
    global: BTreeMap<NamespacedName, Arc<Policy>>,
    by_namespace: HashMap<Arc<str>, BTreeMap<Arc<str>, Arc<Policy>>>,
    /// Another after each change, and in each table; 0 where there are none.
    revision: u64,
}

/// The policies that cover a workload, or a service behind a waypoint.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Covering {
    /// Those that are known.
    pub policies: Vec<Arc<Policy>>,
    /// Those that it names and nobody has sent (yet). Until they come, nothing can be decided for it.
    pub missing: Vec<NamespacedName>,
}

impl Policies {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.by_key.values()
    }

    pub(super) fn covering(&self, workload: &Workload) -> Covering {
        let everywhere = self.global.values();
        let here = self.by_namespace.get(&workload.namespace).into_iter().flat_map(BTreeMap::values);
        let of_scope = Covering { policies: everywhere.chain(here).cloned().collect(), missing: Vec::new() };
        self.and_named(of_scope, &workload.authorization_policies)
    }

    /// As long as it is the same, so are all policies.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    fn changed(&mut self) {
        static LAST: AtomicU64 = AtomicU64::new(0);
        self.revision = if self.by_key.is_empty() { 0 } else { LAST.fetch_add(1, Ordering::Relaxed) + 1 };
    }

    /// Those that are named.
    pub(super) fn named(&self, names: &[NamespacedName]) -> Covering {
        self.and_named(Covering::default(), names)
    }

    fn and_named(&self, mut covering: Covering, names: &[NamespacedName]) -> Covering {
        for key in names {
            match self.by_key.get(key) {
                // Named twice, or although it covers the workload anyway: once is enough.
                Some(policy) if covering.policies.iter().any(|p| Arc::ptr_eq(p, policy)) => {}
                Some(policy) => covering.policies.push(policy.clone()),
                None => covering.missing.push(key.clone()),
            }
        }
        covering
    }

    /// False when it was there as it is: control planes send all policies again on each stream (trap 37).
    pub(super) fn insert(&mut self, policy: Arc<Policy>) -> bool {
        let key = policy.key();
        if self.by_key.get(&key).is_some_and(|old| *old == policy) {
            return false;
        }
        self.remove(&key);
        match policy.scope {
            Scope::Global => drop(self.global.insert(key.clone(), policy.clone())),
            Scope::Namespace => {
                let here = self.by_namespace.entry(policy.namespace.clone()).or_default();
                here.insert(policy.name.clone(), policy.clone());
            }
            Scope::WorkloadSelector => {}
        }
        self.by_key.insert(key, policy);
        self.changed();
        true
    }

    /// True when it was there.
    pub(super) fn remove(&mut self, key: &NamespacedName) -> bool {
        let Some(old) = self.by_key.remove(key) else { return false };
        self.changed();
        self.global.remove(key);
        if let Some(here) = self.by_namespace.get_mut(&old.namespace) {
            here.remove(&old.name);
            if here.is_empty() {
                self.by_namespace.remove(&old.namespace);
            }
        }
        true
    }
}
