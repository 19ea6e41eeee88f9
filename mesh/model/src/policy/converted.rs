//! Policies that no user has written: control planes make them of PeerAuthentications, and their names are all that a
//! proxy is told of where they come from.

use std::fmt;

use crate::address::NamespacedName;

/// Name of the policy that workloads name which refuse all plaintext; its namespace is the root namespace.
pub const STATIC_STRICT: &str = "istio_converted_static_strict";
/// Begins the name of a policy made of one PeerAuthentication with exceptions by port; that object's name follows.
pub const FOR_PORTS: &str = "converted_peer_authentication_";

/// What a converted policy stands for, in the user's terms.
pub(super) enum Origin<'a> {
    /// Any PeerAuthentication that comes to STRICT for the workload: one policy stands for all of them.
    Strict,
    /// This one.
    Of { namespace: &'a str, name: &'a str },
}

pub(super) fn origin(policy: &NamespacedName) -> Option<Origin<'_>> {
    match policy.name.strip_prefix(FOR_PORTS) {
        _ if &*policy.name == STATIC_STRICT => Some(Origin::Strict),
        Some(name) if !name.is_empty() => Some(Origin::Of { namespace: &policy.namespace, name }),
        _ => None,
    }
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strict => f.write_str(
                "mutual TLS STRICT: a PeerAuthentication of the workload, of its namespace or of the root namespace \
                 refuses plaintext",
            ),
            Self::Of { namespace, name } => write!(f, "PeerAuthentication {namespace}/{name}"),
        }
    }
}
