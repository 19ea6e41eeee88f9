//! The objects of the folder, by what they are called.
use istiod_lite::resources::Gateway;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use std::collections::{BTreeMap, BTreeSet};

/// Namespace and name.
pub(crate) type Key = (String, String);

/// `NAMESPACE/NAME`, or a name in the namespace given beside it.
pub(crate) fn pod_key(namespace: &str, pod: &str) -> Key {
    match pod.split_once('/') {
        Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
        None => (namespace.to_owned(), pod.to_owned()),
    }
}

/// What the folder says.
#[derive(Debug, Default, Clone)]
pub(crate) struct Objects {
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) pods: BTreeMap<Key, Pod>,
    pub(crate) services: BTreeMap<Key, Service>,
    pub(crate) slices: Vec<EndpointSlice>,
    pub(crate) endpoints: Vec<Endpoints>,
    pub(crate) gateways: BTreeMap<Key, Gateway>,
    /// Those that may say how waypoints run.
    pub(crate) config_maps: BTreeMap<Key, ConfigMap>,
    /// Those of the pods that are waypoints, made for Gateways.
    pub(crate) waypoints: BTreeSet<Key>,
}

impl Objects {
    /// Labels of a namespace; none if it is not declared.
    pub(crate) fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        self.namespaces.get(namespace).and_then(|n| n.metadata.labels.clone()).unwrap_or_default()
    }
}
