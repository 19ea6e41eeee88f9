//! Service with a policy at its waypoint → an ordinary DENY at its pods, for whoever comes around that waypoint.
//!
//! A caller that dials a pod's address, or is outside of the mesh, does not pass the waypoint, and so no policy of it. What
//! every ztunnel can enforce keeps such callers out of the ports of the service: all but the waypoint's own identity.
//! A TrafficPolicy is one, since such a caller would not be counted. A RequestAuthentication is one, too: what its waypoint tells the application of a token, such a caller could say itself.
//! `ambit.dev/waypoint-fail-open` leaves it out.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service as KubernetesService;
use mesh_model::address::NamespacedName;
use mesh_model::policy::{Action, Clause, Match, Policy, Rule, Scope, StringMatch};

use super::context::Context;
use super::dry_run::is_dry_run;
use super::service_spec::{is_external_name, tcp_ports};
use super::{attached, ports, waypoint};
use crate::cluster::attachments::Target;
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
    // Through the waypoint, or refused while it is not there: never straight.
    let closed = |verdict: &waypoint::Verdict| verdict.address.is_some() && !verdict.is_open;
    let verdict = waypoint::of_service(service, context).filter(closed)?;
    let gateway = context.cluster.gateway(&verdict.asked);
    let own = relations::namespace(&service.metadata);
    let own = NamespacedName::new(own, service.metadata.name.as_deref().unwrap_or(""));
    // Whom another controller's waypoint runs as is not ours to know.
    let is_others = gateway.is_some_and(|gateway| !gateway.is_waypoint());
    if is_others || is_external_name(service) || !is_enforced(&own, &verdict.asked, context) {
        return None;
    }
    let targets = targets(service, &own.namespace, context);
    if targets.is_empty() {
        return None;
    }
    let NamespacedName { namespace, name: account } = &verdict.asked;
    let annotations = gateway.and_then(|gateway| gateway.metadata.annotations.as_ref());
    let account = annotations.and_then(|all| all.get(SERVICE_ACCOUNT)).map_or(&**account, String::as_str);
    let principal = format!("{}/ns/{namespace}/sa/{account}", context.mesh.trust_domain);
    let others = Match {
        not_principals: vec![StringMatch::Exact(principal.into())],
        destination_ports: targets.into_iter().collect(),
        ..Match::default()
    };
    Some(Policy {
        name: name(&own.name).into(),
        namespace: own.namespace,
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { matches: vec![others] }] }],
        dry_run: false,
    })
}

/// Whether a policy that enforces something is attached to a service, its waypoint, or the class of that.
fn is_enforced(service: &NamespacedName, waypoint: &NamespacedName, context: &Context<'_>) -> bool {
    let enforces = |key: &NamespacedName| {
        let policy = context.cluster.authorization_policy(key);
        policy.is_some_and(|policy| policy.spec.action != Written::Audit && !is_dry_run(policy))
    };
    let targets = attached::targets(Target::Service(service.clone()), waypoint, context);
    let tokens = || targets.iter().any(|target| context.attachments.authentications_of(target).next().is_some());
    let limits = || targets.iter().any(|target| context.attachments.is_limited(target));
    targets.iter().any(|target| context.attachments.policies_of(target).any(enforces)) || tokens() || limits()
}

/// Annotation on a Gateway: its pods run as another account than the one of its name.
const SERVICE_ACCOUNT: &str = "gateway.istio.io/service-account";

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
