//! How a proxy introduces itself (Istio ambient contract, section 7.5). Pure.

use std::collections::BTreeMap;

use mesh_proto::discovery::Node;
use prost_types::{Struct, Value, value::Kind};

/// What a proxy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyType {
    /// A node's L4 proxy.
    #[default]
    Ztunnel,
    /// An L7 proxy of a Gateway.
    Waypoint,
}

/// What a proxy knows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// What it is.
    pub kind: ProxyType,
    /// Labels of its pod that the control plane knows it by.
    pub labels: Vec<(String, String)>,
    /// `INSTANCE_IP`.
    pub instance_ip: Option<String>,
    /// `POD_NAME`.
    pub pod_name: String,
    /// `POD_NAMESPACE`.
    pub pod_namespace: String,
    /// `NODE_NAME`.
    pub node_name: String,
    /// `CLUSTER_ID`.
    pub cluster_id: String,
    /// From `ISTIO_META_<X>`, as `<X>` and its value.
    pub extra: Vec<(String, String)>,
}

impl NodeInfo {
    /// The node of every stream's first requests. What is known by name wins over `extra`.
    pub fn to_node(&self) -> Node {
        let ip = self.instance_ip.as_deref().unwrap_or("1.1.1.1");
        let known = [
            ("NAME", self.pod_name.as_str()),
            ("NAMESPACE", &self.pod_namespace),
            ("INSTANCE_IPS", ip),
            ("NODE_NAME", &self.node_name),
            ("CLUSTER_ID", &self.cluster_id),
        ];
        let extra = self.extra.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let text = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
        let mut fields: BTreeMap<_, _> = extra.chain(known).map(|(key, value)| (key.to_owned(), text(value))).collect();
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(key, value)| (key.clone(), text(value))).collect();
            let labels = Kind::StructValue(Struct { fields: labels });
            fields.insert("LABELS".to_owned(), Value { kind: Some(labels) });
        }
        let kind = match self.kind {
            ProxyType::Ztunnel => "ztunnel",
            ProxyType::Waypoint => "waypoint",
        };
        let (name, namespace) = (&self.pod_name, &self.pod_namespace);
        Node {
            id: format!("{kind}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"),
            metadata: Some(Struct { fields }),
        }
    }
}

/// The namespace a node says it runs in: by its metadata, else by its id.
pub fn namespace_of(node: &Node) -> Option<&str> {
    let said = node.metadata.as_ref().and_then(|metadata| metadata.fields.get("NAMESPACE"));
    match said.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(namespace)) => Some(namespace),
        _ => node.id.split('~').nth(2)?.rsplit_once('.').map(|(_, namespace)| namespace),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ztunnel_says_who_and_where_it_is() {
        let info = NodeInfo {
            instance_ip: Some("10.0.0.7".into()),
            pod_name: "ztunnel-1".into(),
            pod_namespace: "istio-system".into(),
            node_name: "n1".into(),
            cluster_id: "Kubernetes".into(),
            extra: vec![("DNS_CAPTURE".into(), "true".into()), ("NAME".into(), "not me".into())],
            ..NodeInfo::default()
        };
        let node = info.to_node();
        assert_eq!(node.id, "ztunnel~10.0.0.7~ztunnel-1.istio-system~istio-system.svc.cluster.local");
        let metadata = node.metadata.as_ref().unwrap();
        let said: Vec<_> = metadata
            .fields
            .iter()
            .map(|(key, value)| match &value.kind {
                Some(Kind::StringValue(text)) => (key.as_str(), text.as_str()),
                other => panic!("{key}: {other:?}"),
            })
            .collect();
        assert_eq!(
            said,
            [
                ("CLUSTER_ID", "Kubernetes"),
                ("DNS_CAPTURE", "true"),
                ("INSTANCE_IPS", "10.0.0.7"),
                ("NAME", "ztunnel-1"),
                ("NAMESPACE", "istio-system"),
                ("NODE_NAME", "n1"),
            ]
        );
        assert_eq!(namespace_of(&node), Some("istio-system"));
        let unknown = NodeInfo { pod_name: "z".into(), pod_namespace: "ns".into(), ..NodeInfo::default() };
        assert_eq!(unknown.to_node().id, "ztunnel~1.1.1.1~z.ns~ns.svc.cluster.local");
    }

    /// What it says of itself is how it is known ([`crate::audience::Role::of`]).
    #[test]
    fn a_waypoint_says_whose_it_is() {
        let info = NodeInfo {
            kind: ProxyType::Waypoint,
            pod_name: "way-1".into(),
            pod_namespace: "shop".into(),
            labels: vec![(mesh_model::labels::GATEWAY_NAME.to_owned(), "way".to_owned())],
            ..NodeInfo::default()
        };
        let role = crate::audience::Role::of(&info.to_node());
        assert_eq!(role, crate::audience::Role::Waypoint(mesh_model::address::NamespacedName::new("shop", "way")));
    }

    #[test]
    fn a_namespace_is_found_without_metadata() {
        let node = |id: &str| Node { id: id.into(), metadata: None };
        assert_eq!(namespace_of(&node("ztunnel~1.1.1.1~z.ns~ns.svc.cluster.local")), Some("ns"));
        assert_eq!(namespace_of(&node("ztunnel~1.1.1.1~z~x")), None);
        assert_eq!(namespace_of(&node("")), None);
    }
}
