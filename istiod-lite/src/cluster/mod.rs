//! What Kubernetes says now, by kind. A plain struct: whoever watches puts objects in with [`Cluster::apply`] and
//! [`Cluster::delete`]; whoever translates reads. Cheap to clone next to what it holds: the objects are shared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use mesh_model::address::NamespacedName;

use crate::resources::{AuthorizationPolicy, Key, Kind, Object, PeerAuthentication};

/// Everything we know of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    namespaces: BTreeMap<Arc<str>, Arc<Namespace>>,
    nodes: BTreeMap<Arc<str>, Arc<Node>>,
    service_accounts: BTreeMap<NamespacedName, Arc<ServiceAccount>>,
    pods: BTreeMap<NamespacedName, Arc<Pod>>,
    services: BTreeMap<NamespacedName, Arc<Service>>,
    endpoint_slices: BTreeMap<NamespacedName, Arc<EndpointSlice>>,
    endpoints: BTreeMap<NamespacedName, Arc<Endpoints>>,
    authorization_policies: BTreeMap<NamespacedName, Arc<AuthorizationPolicy>>,
    peer_authentications: BTreeMap<NamespacedName, Arc<PeerAuthentication>>,
    /// From node name to its pods: asked at every certificate request.
    pods_by_node: BTreeMap<Arc<str>, BTreeSet<NamespacedName>>,
}

impl Cluster {
    /// Takes an object as it is now.
    pub fn apply(&mut self, object: Object) {
        let Key { namespace, name, .. } = object.key();
        let key = NamespacedName::new(namespace, name);
        match object {
            Object::Namespace(o) => drop(self.namespaces.insert(key.name, o)),
            Object::Node(o) => drop(self.nodes.insert(key.name, o)),
            Object::ServiceAccount(o) => drop(self.service_accounts.insert(key, o)),
            Object::Pod(o) => self.apply_pod(key, o),
            Object::Service(o) => drop(self.services.insert(key, o)),
            Object::EndpointSlice(o) => drop(self.endpoint_slices.insert(key, o)),
            Object::Endpoints(o) => drop(self.endpoints.insert(key, o)),
            Object::AuthorizationPolicy(o) => drop(self.authorization_policies.insert(key, o)),
            Object::PeerAuthentication(o) => drop(self.peer_authentications.insert(key, o)),
        }
    }

    /// Forgets an object; one that is not there is no error.
    pub fn delete(&mut self, key: &Key) {
        let name = NamespacedName::new(key.namespace.clone(), key.name.clone());
        match key.kind {
            Kind::Namespace => drop(self.namespaces.remove(&key.name)),
            Kind::Node => drop(self.nodes.remove(&key.name)),
            Kind::ServiceAccount => drop(self.service_accounts.remove(&name)),
            Kind::Pod => self.delete_pod(&name),
            Kind::Service => drop(self.services.remove(&name)),
            Kind::EndpointSlice => drop(self.endpoint_slices.remove(&name)),
            Kind::Endpoints => drop(self.endpoints.remove(&name)),
            Kind::AuthorizationPolicy => drop(self.authorization_policies.remove(&name)),
            Kind::PeerAuthentication => drop(self.peer_authentications.remove(&name)),
        }
    }

    /// Takes the whole of what there is: everything else is forgotten.
    pub fn reset(&mut self, objects: impl IntoIterator<Item = Object>) {
        *self = Self::default();
        for object in objects {
            self.apply(object);
        }
    }

    fn apply_pod(&mut self, key: NamespacedName, pod: Arc<Pod>) {
        self.delete_pod(&key);
        if let Some(node) = node_name(&pod) {
            self.pods_by_node.entry(node.into()).or_default().insert(key.clone());
        }
        self.pods.insert(key, pod);
    }

    fn delete_pod(&mut self, key: &NamespacedName) {
        let Some(pod) = self.pods.remove(key) else { return };
        if let Some(node) = node_name(&pod)
            && let Some(pods) = self.pods_by_node.get_mut(node)
        {
            pods.remove(key);
            if pods.is_empty() {
                self.pods_by_node.remove(node);
            }
        }
    }

    /// A namespace, by name.
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.get(name)
    }

    /// All namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Namespace>)> {
        self.namespaces.iter()
    }

    /// A node, by name.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// A pod.
    pub fn pod(&self, key: &NamespacedName) -> Option<&Arc<Pod>> {
        self.pods.get(key)
    }

    /// A service account.
    pub fn service_account(&self, key: &NamespacedName) -> Option<&Arc<ServiceAccount>> {
        self.service_accounts.get(key)
    }

    /// All pods.
    pub fn pods(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<Pod>)> {
        self.pods.iter()
    }

    /// The pods that were put on a node.
    pub fn pods_on_node(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods_by_node.get(node).into_iter().flatten().filter_map(|key| self.pods.get(key))
    }

    /// A service.
    pub fn service(&self, key: &NamespacedName) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// All services.
    pub fn services(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<Service>)> {
        self.services.iter()
    }

    /// All slices of endpoints.
    pub fn endpoint_slices(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<EndpointSlice>)> {
        self.endpoint_slices.iter()
    }

    /// All Endpoints, the older form of slices.
    pub fn endpoints(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<Endpoints>)> {
        self.endpoints.iter()
    }

    /// All authorization policies.
    pub fn authorization_policies(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<AuthorizationPolicy>)> {
        self.authorization_policies.iter()
    }

    /// All peer authentications.
    pub fn peer_authentications(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<PeerAuthentication>)> {
        self.peer_authentications.iter()
    }

    /// How many objects of each kind, for the debug page.
    pub fn counts(&self) -> [(Kind, usize); 9] {
        [
            (Kind::Namespace, self.namespaces.len()),
            (Kind::Node, self.nodes.len()),
            (Kind::ServiceAccount, self.service_accounts.len()),
            (Kind::Pod, self.pods.len()),
            (Kind::Service, self.services.len()),
            (Kind::EndpointSlice, self.endpoint_slices.len()),
            (Kind::Endpoints, self.endpoints.len()),
            (Kind::AuthorizationPolicy, self.authorization_policies.len()),
            (Kind::PeerAuthentication, self.peer_authentications.len()),
        ]
    }
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str) -> Object {
        let value = serde_json::json!({
            "metadata": {"name": name, "namespace": "a"}, "spec": {"containers": [], "nodeName": node}
        });
        Object::from_value(Kind::Pod, &value).unwrap()
    }

    #[test]
    fn pods_are_found_by_node_wherever_they_go() {
        let mut cluster = Cluster::default();
        let on = |cluster: &Cluster, node: &str| {
            cluster.pods_on_node(node).map(|p| p.metadata.name.clone().unwrap()).collect::<Vec<_>>()
        };
        cluster.apply(pod("x", "n1"));
        cluster.apply(pod("y", "n1"));
        assert_eq!(on(&cluster, "n1"), ["x", "y"]);
        cluster.apply(pod("x", "n2"));
        assert_eq!((on(&cluster, "n1"), on(&cluster, "n2")), (vec!["y".to_owned()], vec!["x".to_owned()]));
        cluster.delete(&Key::new(Kind::Pod, Some("a"), "y"));
        cluster.delete(&Key::new(Kind::Pod, Some("a"), "never there"));
        assert_eq!(on(&cluster, "n1"), Vec::<String>::new());
        cluster.reset([pod("z", "n1")]);
        assert_eq!((on(&cluster, "n1"), on(&cluster, "n2")), (vec!["z".to_owned()], vec![]));
    }
}
