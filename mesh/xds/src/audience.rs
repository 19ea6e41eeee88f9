//! Who is told of a resource. Pure.
//!
//! Every ztunnel is told the same. What is for the proxies of one waypoint only, as the policies that it enforces are, is
//! published with that audience, and others never hear of it.

use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::labels;
use mesh_proto::discovery::Node;
use prost_types::{Struct, value::Kind};

use crate::node;

/// For whom a resource is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Audience {
    /// Every subscriber.
    #[default]
    Everyone,
    /// The proxies of one waypoint, by the namespace and name of its Gateway.
    Waypoint(NamespacedName),
    /// The proxies of several waypoints, in order.
    Waypoints(Arc<[NamespacedName]>),
}

/// What a subscriber is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Role {
    /// A ztunnel, or whoever else listens.
    #[default]
    Ztunnel,
    /// A proxy of this waypoint.
    Waypoint(NamespacedName),
}

impl Audience {
    /// Whether a subscriber of this role is told.
    pub fn includes(&self, role: &Role) -> bool {
        match (self, role) {
            (Self::Everyone, _) => true,
            (Self::Waypoint(one), Role::Waypoint(other)) => one == other,
            (Self::Waypoints(some), Role::Waypoint(other)) => some.contains(other),
            (Self::Waypoint(_) | Self::Waypoints(_), Role::Ztunnel) => false,
        }
    }
}

impl Role {
    /// As the node of its stream says: a waypoint by its type and by its pod's label. The namespace is held against the
    /// token; which waypoint of the namespace it is, is not proven.
    pub fn of(node: &Node) -> Self {
        let name = || {
            let labels = structure(node.metadata.as_ref()?, "LABELS")?;
            match labels.fields.get(labels::GATEWAY_NAME)?.kind.as_ref()? {
                Kind::StringValue(name) if !name.is_empty() => Some(name.as_str()),
                _ => None,
            }
        };
        let is_waypoint = node.id.split('~').next() == Some("waypoint");
        match (node::namespace_of(node), name()) {
            (Some(namespace), Some(name)) if is_waypoint => Self::Waypoint(NamespacedName::new(namespace, name)),
            _ => Self::Ztunnel,
        }
    }
}

fn structure<'a>(metadata: &'a Struct, name: &str) -> Option<&'a Struct> {
    match metadata.fields.get(name)?.kind.as_ref()? {
        Kind::StructValue(fields) => Some(fields),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Value;

    use super::*;

    #[test]
    fn who_is_told() {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let node = |kind: &str, gateway: Option<&str>| {
            let labels = gateway.map(|name| (labels::GATEWAY_NAME.to_owned(), text(name)));
            let labels = Value { kind: Some(Kind::StructValue(Struct { fields: labels.into_iter().collect() })) };
            Node {
                id: format!("{kind}~10.0.0.1~w-1.shop~shop.svc.cluster.local"),
                metadata: Some(Struct { fields: [("LABELS".to_owned(), labels)].into() }),
            }
        };
        let waypoint = |name: &str| Audience::Waypoint(NamespacedName::new("shop", name));
        let other = Audience::Waypoint(NamespacedName::new("bank", "way"));
        // (type, Gateway of the pod, told what is for everyone, for shop/way, for shop/other, for bank/way)
        for (kind, gateway, told) in [
            ("ztunnel", None, [true, false, false, false]),
            ("waypoint", Some("way"), [true, true, false, false]),
            ("waypoint", Some("other"), [true, false, true, false]),
            // It says too little, or says it and is none.
            ("waypoint", None, [true, false, false, false]),
            ("waypoint", Some(""), [true, false, false, false]),
            ("ztunnel", Some("way"), [true, false, false, false]),
        ] {
            let role = Role::of(&node(kind, gateway));
            let audiences = [Audience::Everyone, waypoint("way"), waypoint("other"), other.clone()];
            assert_eq!(audiences.map(|audience| audience.includes(&role)), told, "{kind} {gateway:?}");
            let names = [NamespacedName::new("bank", "way"), NamespacedName::new("shop", "way")];
            assert_eq!(Audience::Waypoints(names.into()).includes(&role), told[1], "{kind} {gateway:?}");
        }
        assert_eq!(Role::of(&Node::default()), Role::Ztunnel);
    }
}
