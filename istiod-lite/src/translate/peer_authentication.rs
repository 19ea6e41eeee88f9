//! PeerAuthentication → Policy: refusing plaintext is a deny policy for peers without identity.
//!
//! The mode of a workload is that of its own selector policy, else its namespace's, else the mesh's (the root
//! namespace's); `UNSET` asks the next. Of several candidates the oldest counts. Nothing said is PERMISSIVE.
//!
//! A selector in the root namespace selects workloads of that namespace, as the API says. (Istio's own control plane
//! leaves such a policy out.)

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::policy::{Action, Clause, Match, Policy, Rule, Scope, StringMatch};

use super::condition::{Condition, PolicyStatus};
use super::mesh::Mesh;
use super::revision::Revisions;
use crate::cluster::Cluster;
use crate::resources::labels::Labelled;
use crate::resources::peer_authentication::{Mode, PeerAuthentication};
use crate::resources::{Key, Kind};

/// Name of the policy that workloads name which refuse all plaintext.
const STRICT_NAME: &str = mesh_model::policy::converted::STATIC_STRICT;
/// Begins the name of a policy made for exceptions by port.
const CONVERTED_PREFIX: &str = mesh_model::policy::converted::FOR_PORTS;

/// All peer authentications of the cluster.
pub struct Modes {
    root_namespace: Arc<str>,
    exists: bool,
    mesh_strict: bool,
    /// Namespaces that say something of their own.
    namespace_strict: HashMap<Arc<str>, bool>,
    /// Policies with selectors, by namespace, oldest first.
    selectors: HashMap<Arc<str>, Vec<(NamespacedName, Arc<PeerAuthentication>)>>,
}

/// What a policy with a selector decides, among the pods that it selects.
#[derive(Default)]
struct Decided<'a> {
    /// Pods that it decides for.
    own: usize,
    /// An older policy that decides for one of the others.
    older: Option<&'a NamespacedName>,
}

impl Decided<'_> {
    fn condition(&self) -> Condition {
        match self.older {
            Some(older) if self.own == 0 => Condition::ignored(
                "Ignored",
                format!(
                    "{older} is older and decides for the same workloads: this one decides for none. Keep one of them"
                ),
            ),
            Some(older) => {
                let message = format!(
                    "attached to ztunnel; where {older} selects the same workload, that one decides: it is older"
                );
                Condition { message, ..Condition::accepted() }
            }
            None => Condition::accepted(),
        }
    }
}

fn is_selective(object: &PeerAuthentication) -> bool {
    object.spec.selector.as_ref().is_some_and(|s| !s.match_labels.is_empty())
}

fn selects(object: &PeerAuthentication, pod: &dyn Labelled) -> bool {
    object.spec.selector.as_ref().is_some_and(|s| s.matches(pod))
}

/// What a workload's mode comes to.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Plaintext is taken on all ports.
    Open,
    /// Plaintext is refused on all ports.
    Strict,
    /// Some ports differ from the rest.
    Ports(Vec<Rule>),
}

impl Modes {
    /// Decides on all of them, and says of each what becomes of it.
    pub(super) fn new(cluster: &Cluster, mesh: &Mesh, revisions: &Revisions, statuses: &mut Vec<PolicyStatus>) -> Self {
        let mut all: Vec<_> = cluster.peer_authentications().collect();
        // Without a creation time, as in a folder, the name decides; objects with a time are older.
        let age = |object: &PeerAuthentication| object.metadata.creation_timestamp.clone().map(|t| t.0);
        all.sort_by_key(|(key, object)| (age(object).is_none(), age(object), *key));
        let mut tell = |key: &NamespacedName, condition| {
            let key = Key::new(Kind::PeerAuthentication, Some(&key.namespace), &key.name);
            statuses.push(PolicyStatus::new(key, vec![condition]));
        };
        all.retain(|(key, object)| match revisions.left_to_another(&object.metadata) {
            Some(condition) => {
                tell(key, condition);
                false
            }
            None => true,
        });

        let mut modes = Self {
            root_namespace: mesh.root_namespace.clone(),
            exists: !all.is_empty(),
            mesh_strict: false,
            namespace_strict: HashMap::new(),
            selectors: HashMap::new(),
        };
        let mut whole: HashMap<&str, &NamespacedName> = HashMap::new();
        for (key, object) in all.iter().copied() {
            let in_root = key.namespace == mesh.root_namespace;
            if is_selective(object) {
                modes.selectors.entry(key.namespace.clone()).or_default().push((key.clone(), object.clone()));
            } else if let Some(older) = whole.get(&*key.namespace) {
                let message = format!("{older} is older and decides for the same workloads: keep one of them");
                tell(key, Condition::ignored("Ignored", message));
            } else {
                whole.insert(&key.namespace, key);
                if let Some(strict) = strict(object.spec.mtls.mode) {
                    if in_root {
                        modes.mesh_strict = strict;
                    } else {
                        modes.namespace_strict.insert(key.namespace.clone(), strict);
                    }
                }
                tell(key, Condition::accepted());
            }
        }
        let deciding = modes.deciding(cluster);
        for (key, _) in all.iter().filter(|(_, object)| is_selective(object)) {
            let mut condition = deciding.get(*key).map_or_else(Condition::accepted, |decided| decided.condition());
            if condition.status && key.namespace == mesh.root_namespace {
                condition.message = format!(
                    "{}; it selects workloads of the namespace {} only, where Istio's control plane leaves out a selector \
                     in the root namespace",
                    condition.message, mesh.root_namespace
                );
            }
            tell(key, condition);
        }
        modes
    }

    /// For how many pods each policy with a selector decides, and who decides for the others that it selects.
    fn deciding(&self, cluster: &Cluster) -> HashMap<&NamespacedName, Decided<'_>> {
        let mut all: HashMap<_, Decided<'_>> = HashMap::new();
        let several = self.selectors.iter().filter(|(namespace, _)| self.is_contested(namespace));
        for (namespace, candidates) in several {
            for (_, object) in cluster.pods_in(namespace) {
                let mut matching =
                    candidates.iter().filter(|(_, policy)| selects(policy, &**object)).map(|(key, _)| key);
                let Some(oldest) = matching.next() else { continue };
                all.entry(oldest).or_default().own += 1;
                for other in matching {
                    all.entry(other).or_default().older = Some(oldest);
                }
            }
        }
        all
    }

    /// Whether several policies may select one pod of a namespace: then what is said of them depends on its pods.
    pub(super) fn is_contested(&self, namespace: &str) -> bool {
        self.selectors.get(namespace).is_some_and(|all| all.len() > 1)
    }

    /// The namespaces in which pods may have another mode than by `other`; None when it may be any.
    pub(super) fn differing<'a>(&'a self, other: &'a Self) -> Option<BTreeSet<&'a Arc<str>>> {
        if self.mesh_strict != other.mesh_strict {
            return None;
        }
        let strict = |modes: &Self, namespace: &Arc<str>| modes.namespace_strict.get(namespace).copied();
        let both = [self, other].into_iter();
        let named = both.flat_map(|modes| modes.namespace_strict.keys().chain(modes.selectors.keys()));
        let differs = |namespace: &&Arc<str>| {
            strict(self, namespace) != strict(other, namespace)
                || self.selectors.get(*namespace) != other.selectors.get(*namespace)
        };
        Some(named.filter(differs).collect())
    }

    /// What proxies are told: one policy that refuses all plaintext, and one for each set of exceptions by port.
    pub(super) fn sent(&self) -> impl Iterator<Item = Arc<Policy>> {
        let strict = self.exists.then(|| deny(self.strict_key(), vec![rule([no_identity()])]));
        let mut namespaces: Vec<_> = self.selectors.values().flatten().collect();
        namespaces.sort_by(|(a, _), (b, _)| a.cmp(b));
        let converted = namespaces.into_iter().filter_map(|(key, object)| match self.plan(object, &key.namespace) {
            Plan::Ports(rules) => Some(deny(converted_key(key), rules)),
            Plan::Open | Plan::Strict => None,
        });
        strict.into_iter().chain(converted).map(Arc::new).collect::<Vec<_>>().into_iter()
    }

    /// The policy a pod names, if any.
    pub(super) fn named_by(&self, namespace: &str, pod: &dyn Labelled) -> Option<NamespacedName> {
        let mut selective = self.selectors.get(namespace).into_iter().flatten();
        let own = selective.find(|(_, object)| selects(object, pod));
        match own {
            None => self.namespace_is_strict(namespace).then(|| self.strict_key()),
            Some((key, object)) => match self.plan(object, namespace) {
                Plan::Open => None,
                Plan::Strict => Some(self.strict_key()),
                Plan::Ports(_) => Some(converted_key(key)),
            },
        }
    }

    fn namespace_is_strict(&self, namespace: &str) -> bool {
        self.namespace_strict.get(namespace).copied().unwrap_or(self.mesh_strict)
    }

    fn plan(&self, object: &PeerAuthentication, namespace: &str) -> Plan {
        let workload_strict = strict(object.spec.mtls.mode).unwrap_or_else(|| self.namespace_is_strict(namespace));
        plan(workload_strict, object.spec.ports())
    }

    fn strict_key(&self) -> NamespacedName {
        NamespacedName::new(self.root_namespace.clone(), STRICT_NAME)
    }
}

fn plan(workload_strict: bool, ports: impl Iterator<Item = (u16, Mode)>) -> Plan {
    let ports = ports.filter(|(_, mode)| strict(*mode).is_some_and(|port_strict| port_strict != workload_strict));
    let mut ports: Vec<u16> = ports.map(|(port, _)| port).collect();
    ports.sort_unstable();
    match (workload_strict, ports.is_empty()) {
        (true, true) => Plan::Strict,
        (false, true) => Plan::Open,
        // A deny policy cannot be carved out by another, so one rule says it all: no identity, and none of the ports.
        (true, false) => {
            let except = ports.into_iter().map(|port| Match { not_destination_ports: vec![port], ..Match::default() });
            Plan::Ports(vec![rule(std::iter::once(no_identity()).chain(except))])
        }
        (false, false) => {
            let on = |port| Match { destination_ports: vec![port], ..no_identity() };
            Plan::Ports(ports.into_iter().map(|port| rule([on(port)])).collect())
        }
    }
}

/// `None` asks the next level.
fn strict(mode: Mode) -> Option<bool> {
    match mode {
        Mode::Unset => None,
        Mode::Strict => Some(true),
        Mode::Permissive | Mode::Disable => Some(false),
    }
}

fn converted_key(key: &NamespacedName) -> NamespacedName {
    NamespacedName::new(key.namespace.clone(), format!("{CONVERTED_PREFIX}{}", key.name))
}

fn deny(key: NamespacedName, rules: Vec<Rule>) -> Policy {
    let NamespacedName { namespace, name } = key;
    Policy { name, namespace, scope: Scope::WorkloadSelector, action: Action::Deny, rules, dry_run: false }
}

/// All of these, each in a clause of its own.
fn rule(matches: impl IntoIterator<Item = Match>) -> Rule {
    Rule { clauses: matches.into_iter().map(|m| Clause { matches: vec![m] }).collect() }
}

/// The peer proved nobody: plaintext.
fn no_identity() -> Match {
    Match { not_principals: vec![StringMatch::Presence], ..Match::default() }
}
