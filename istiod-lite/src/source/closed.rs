//! What is refused where an object is wrong and nobody knows what was in force before: it may have been a policy that
//! denied something. Only then: a new object that is wrong, where last good versions are known, changes nothing, as an API
//! server that refuses it changes nothing. Pure.

use std::collections::BTreeSet;

use serde_json::json;

use super::rejected::Rejected;
use crate::resources::{Kind, Object};

/// Name of the policies that are made here.
const NAME: &str = "istiod-lite-closed";
/// What is added to an error that has this consequence.
const CONSEQUENCE: &str = ". What was in force before is not known (no last good version was kept), so every \
     connection it may be about is refused until it is mended";
/// Kinds that cannot have been policies.
const HARMLESS: [&str; 21] = [
    "Namespace",
    "Node",
    "ServiceAccount",
    "Pod",
    "Service",
    "EndpointSlice",
    "Endpoints",
    "GatewayClass",
    "Gateway",
    "HTTPRoute",
    "GRPCRoute",
    "TCPRoute",
    "TLSRoute",
    "ServiceEntry",
    "WorkloadEntry",
    "DestinationRule",
    "VirtualService",
    "Telemetry",
    // It keeps nobody out, and slows some down.
    "TrafficPolicy",
    // What it does not say nobody can be asked, and that denies.
    "ConfigMap",
    "List",
];

/// One policy for each namespace that the errors may be about, which denies everything. The one of the root namespace
/// is for the whole mesh, and so is text of which not even the namespace can be told.
pub(super) fn policies<'a>(
    errors: impl Iterator<Item = &'a Rejected>,
    root_namespace: &str,
) -> impl Iterator<Item = Object> {
    let namespaces: BTreeSet<String> = errors.filter_map(|error| scope(error, root_namespace)).collect();
    namespaces.into_iter().filter_map(|namespace| {
        let policy = json!({
            "metadata": {"name": NAME, "namespace": namespace},
            "spec": {"action": "DENY", "rules": [{}]},
        });
        Object::from_value(Kind::AuthorizationPolicy, &policy).ok()
    })
}

/// Says so in an error.
pub(super) fn tell(error: &mut Rejected) {
    if scope(error, "").is_some() {
        error.message.push_str(CONSEQUENCE);
    }
}

fn scope(error: &Rejected, root_namespace: &str) -> Option<String> {
    match (error.kind.as_deref(), &error.name, &error.namespace) {
        (Some(kind), ..) if HARMLESS.contains(&kind) => None,
        // Neither kind nor name: no text that can be read.
        (None, None, _) => Some(root_namespace.to_owned()),
        (_, _, Some(namespace)) => Some(namespace.clone()),
        (_, _, None) => Some("default".to_owned()),
    }
}
