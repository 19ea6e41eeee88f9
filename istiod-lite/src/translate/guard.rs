//! Service or workload with a policy at its waypoint → an ordinary DENY at the pods, for whoever comes around that waypoint.
//!
//! A caller that dials a pod's address, or is outside of the mesh, does not pass the waypoint, and so no policy of it. What
//! every ztunnel can enforce keeps such callers out of the ports of the service: all but the waypoint's own identity.
//! A TrafficPolicy is one, since such a caller would not be counted. A RequestAuthentication is one, too: what its waypoint tells the application of a token, such a caller could say itself.
//! `ambit.dev/waypoint-fail-open` leaves it out.
//!
//! A workload whose waypoint takes its own addresses has one for all of its ports but those to which a service brings connections
//! straight: at the pod these are the same as connections to its address, and the waypoint is not for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service as KubernetesService;
use mesh_model::address::NamespacedName;
use mesh_model::policy::{Action, Clause, Match, Policy, Rule, Scope, StringMatch};

use super::context::Context;
use super::dry_run::is_dry_run;
use super::endpoints::Endpoint;
use super::service_spec::{is_external_name, is_headless, tcp_ports};
use super::{attached, ports, waypoint};
use crate::cluster::attachments::Target;
use crate::cluster::pod::Pod;
use crate::cluster::relations;
use crate::resources::authorization_policy::Action as Written;

/// The name of the policy: of letters that no object's name has.
fn name(service: &str) -> String {
    format!("ambit_waypoint_only_{service}")
}

/// What is published of it.
pub(super) fn key(service: &NamespacedName) -> NamespacedName {
    NamespacedName::new(service.namespace.clone(), name(&service.name))
}

/// The policy; None where nothing is enforced at a waypoint.
pub(super) fn of_service(service: &KubernetesService, context: &Context<'_>) -> Option<Policy> {
    let verdict = waypoint::of_service(service, context).filter(is_closed)?;
    let own = relations::namespace(&service.metadata);
    let own = NamespacedName::new(own, service.metadata.name.as_deref().unwrap_or(""));
    if is_external_name(service) || !is_enforced(Some(Target::Service(own.clone())), &verdict.asked, context) {
        return None;
    }
    let targets = targets(service, &own.namespace, context);
    if targets.is_empty() {
        return None;
    }
    let others = Match {
        not_principals: vec![principal(&verdict.asked, context)?],
        destination_ports: targets.into_iter().collect(),
        ..Match::default()
    };
    Some(policy(own.namespace, name(&own.name), others))
}

/// Through the waypoint, or refused while it is not there: never straight.
fn is_closed(verdict: &waypoint::Verdict) -> bool {
    verdict.address.is_some() && !verdict.is_open
}

/// The policy of a pod at its own addresses; None where nothing is enforced for these at a waypoint. Pods that have the same have
/// one policy.
pub(super) fn of_pod(
    pod: &Pod,
    endpoints: &[(&KubernetesService, &Endpoint)],
    context: &Context<'_>,
) -> Option<Policy> {
    let namespace = &pod.name.namespace;
    let verdict = waypoint::of_pod(pod, namespace, context).filter(is_closed)?;
    // One of the host's network has no address of its own.
    if pod.host_network || !is_enforced(None, &verdict.asked, context) {
        return None;
    }
    let straight = straight(pod, endpoints, &verdict.asked, context);
    let NamespacedName { namespace: of, name: waypoint } = &verdict.asked;
    let mut name = format!("ambit_waypoint_only_pods_of_{of}.{waypoint}");
    if !straight.is_empty() {
        let ports: Vec<String> = straight.iter().map(ToString::to_string).collect();
        name = format!("{name}_but_{}", ports.join("_"));
    }
    let others = Match {
        not_principals: vec![principal(&verdict.asked, context)?],
        not_destination_ports: straight.into_iter().collect(),
        ..Match::default()
    };
    Some(policy(namespace.clone(), name, others))
}

/// The ports of a pod to which services bring connections that do not pass its waypoint. A service without address brings none: its
/// names are its pods' addresses.
fn straight(
    pod: &Pod,
    endpoints: &[(&KubernetesService, &Endpoint)],
    own: &NamespacedName,
    context: &Context<'_>,
) -> BTreeSet<u16> {
    let passes = |verdict: Option<waypoint::Verdict>| {
        verdict.is_some_and(|verdict| verdict.asked == *own && verdict.is_served && !verdict.is_open)
    };
    let around = endpoints
        .iter()
        .filter(|(service, _)| !is_headless(service) && !passes(waypoint::of_service(service, context)));
    let mut ports: BTreeSet<u16> =
        around.flat_map(|(_, endpoint)| endpoint.ports.iter().map(|port| port.target)).collect();
    let entries = context.entries.selecting(&pod.name.namespace, pod);
    for entry in entries.filter(|entry| !passes(waypoint::of_entry(&entry.object.metadata, context))) {
        let memberships = entry.memberships(|_| None);
        ports.extend(memberships.flat_map(|(_, ports)| ports).map(|mapping| mapping.target_port));
    }
    ports.remove(&0);
    ports
}

/// Who a waypoint's pods are. Whom another controller's runs as is not ours to know.
fn principal(waypoint: &NamespacedName, context: &Context<'_>) -> Option<StringMatch> {
    let gateway = context.cluster.gateway(waypoint);
    if gateway.is_some_and(|gateway| !gateway.is_waypoint()) {
        return None;
    }
    let NamespacedName { namespace, name: account } = waypoint;
    let account = gateway.and_then(|gateway| gateway.service_account()).unwrap_or(account);
    Some(StringMatch::Exact(format!("{}/ns/{namespace}/sa/{account}", context.mesh.trust_domain).into()))
}

fn policy(namespace: Arc<str>, name: String, others: Match) -> Policy {
    Policy {
        name: name.into(),
        namespace,
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { matches: vec![others] }] }],
        dry_run: false,
    }
}

/// Whether a policy that enforces something is attached to a service, its waypoint, or the class of that.
fn is_enforced(own: Option<Target>, waypoint: &NamespacedName, context: &Context<'_>) -> bool {
    let enforces = |key: &NamespacedName| {
        let policy = context.cluster.authorization_policy(key);
        policy.is_some_and(|policy| policy.spec.action != Written::Audit && !is_dry_run(policy))
    };
    let targets = attached::targets(own, waypoint, context);
    let tokens = || targets.iter().any(|target| context.attachments.authentications_of(target).next().is_some());
    let limits = || targets.iter().any(|target| context.attachments.is_limited(target));
    targets.iter().any(|target| context.attachments.policies_of(target).any(enforces)) || tokens() || limits()
}

/// The ports of its pods: numbers, and what names come to in each of them.
fn targets(service: &KubernetesService, namespace: &str, context: &Context<'_>) -> BTreeSet<u16> {
    let mut targets = BTreeSet::new();
    for (_, port) in tcp_ports(service) {
        match ports::target(port) {
            0 => {
                let pods = context.cluster.pods_in(namespace).filter(|(_, pod)| relations::selects(service, &***pod));
                targets.extend(pods.filter_map(|(_, pod)| ports::target_in_pod(port, pod)));
            }
            number => drop(targets.insert(number)),
        }
    }
    targets
}

/// Those of pods, each with how many have it.
#[derive(Default)]
pub(super) struct OfPods {
    /// By pod: the name of its policy.
    names: BTreeMap<NamespacedName, NamespacedName>,
    all: BTreeMap<NamespacedName, (Arc<Policy>, usize)>,
    /// Of which something has changed.
    touched: BTreeSet<NamespacedName>,
}

impl OfPods {
    /// Takes in what a pod has now.
    pub(super) fn set(&mut self, pod: &NamespacedName, policy: Option<Policy>) {
        if let Some(old) = self.names.remove(pod) {
            if let Some((_, pods)) = self.all.get_mut(&old) {
                *pods -= 1;
            }
            self.touched.insert(old);
        }
        let Some(policy) = policy else { return };
        let name = policy.key();
        let (known, pods) = self.all.entry(name.clone()).or_insert_with(|| (Arc::new(policy.clone()), 0));
        *pods += 1;
        if **known != policy {
            *known = Arc::new(policy);
        }
        self.touched.insert(name.clone());
        self.names.insert(pod.clone(), name);
    }

    /// Those of which something has changed since this was asked last, and the names of those that are gone.
    pub(super) fn changed(&mut self) -> (Vec<Arc<Policy>>, Vec<NamespacedName>) {
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        for name in std::mem::take(&mut self.touched) {
            match self.all.get(&name) {
                Some((policy, 1..)) => there.push(policy.clone()),
                _ => {
                    self.all.remove(&name);
                    gone.push(name);
                }
            }
        }
        (there, gone)
    }
}
