//! What Kubernetes says now, by kind. Whoever watches gives each [`Change`]; whoever translates reads.
//!
//! | file | question |
//! |---|---|
//! | this one | which objects are there? |
//! | [`kept`], [`pod`] | how much of an object is kept? |
//! | `fetched` | and what is known that no object says: keys of issuers |
//! | `relations` | whom does an object name, choose or point at? |
//! | [`index`], `pairs` | and who names, chooses or points at it? |
//! | `attachments` | which routes and policies are attached to it? |
//! | [`affected`] | so what has to be said anew when it changes? |
//!
//! All of it is pure. A [`Cluster`] is cheap to clone: the objects, and the maps that hold them, are shared.

pub mod affected;
pub(crate) mod attachments;
mod fetched;
pub mod index;
pub mod kept;
pub(crate) mod pairs;
pub mod pod;
pub(crate) mod relations;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use mesh_model::address::NamespacedName;
use mesh_model::persistent::PersistentMap;
use mesh_model::shared;

use crate::resources::{
    AuthorizationPolicy, DestinationRule, Gateway, GatewayClass, GrpcRoute, HttpRoute, Key, KeySource, Kind,
    MeshConfig, Object, PeerAuthentication, RequestAuthentication, ServiceEntry, TcpRoute, Telemetry, TlsRoute,
    TrafficPolicy, VirtualService, WorkloadEntry,
};

pub use fetched::Fetched;
pub use kept::Kept;
pub use pod::Pod;

/// One step from what was there to what is there. A source cuts objects down to what is kept of them as it reads them: a large
/// cluster's first list would else be in memory whole.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is new, or different.
    Apply(Kept),
    /// It is gone.
    Delete(Key),
    /// These are all that there are of this kind: others are gone. What a watch begins with, and begins again with when
    /// it has missed something.
    Replace(Kind, Vec<Kept>),
    /// Fetching the keys of an issuer has come to this. None: nobody asks for them any more.
    Keys(KeySource, Option<Arc<Fetched>>),
}

impl Change {
    /// An object is new, or different.
    pub fn apply(object: impl Into<Kept>) -> Self {
        Self::Apply(object.into())
    }
}

/// Everything we know of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    namespaces: PersistentMap<Arc<str>, Arc<Namespace>>,
    nodes: PersistentMap<Arc<str>, Arc<Node>>,
    service_accounts: PersistentMap<NamespacedName, Arc<ServiceAccount>>,
    pods: PersistentMap<NamespacedName, Arc<Pod>>,
    services: PersistentMap<NamespacedName, Arc<Service>>,
    endpoint_slices: PersistentMap<NamespacedName, Arc<EndpointSlice>>,
    endpoints: PersistentMap<NamespacedName, Arc<Endpoints>>,
    authorization_policies: PersistentMap<NamespacedName, Arc<AuthorizationPolicy>>,
    peer_authentications: PersistentMap<NamespacedName, Arc<PeerAuthentication>>,
    request_authentications: PersistentMap<NamespacedName, Arc<RequestAuthentication>>,
    gateway_classes: PersistentMap<Arc<str>, Arc<GatewayClass>>,
    gateways: PersistentMap<NamespacedName, Arc<Gateway>>,
    http_routes: PersistentMap<NamespacedName, Arc<HttpRoute>>,
    grpc_routes: PersistentMap<NamespacedName, Arc<GrpcRoute>>,
    tcp_routes: PersistentMap<NamespacedName, Arc<TcpRoute>>,
    tls_routes: PersistentMap<NamespacedName, Arc<TlsRoute>>,
    service_entries: PersistentMap<NamespacedName, Arc<ServiceEntry>>,
    workload_entries: PersistentMap<NamespacedName, Arc<WorkloadEntry>>,
    destination_rules: PersistentMap<NamespacedName, Arc<DestinationRule>>,
    virtual_services: PersistentMap<NamespacedName, Arc<VirtualService>>,
    mesh_configs: PersistentMap<NamespacedName, Arc<MeshConfig>>,
    telemetries: PersistentMap<NamespacedName, Arc<Telemetry>>,
    traffic_policies: PersistentMap<NamespacedName, Arc<TrafficPolicy>>,
    keys: PersistentMap<KeySource, Arc<Fetched>>,
    /// Each node's name with each of its pods: asked at every certificate request.
    pods_by_node: PersistentMap<(Arc<str>, NamespacedName), ()>,
}

impl Cluster {
    /// Takes an object as it is now.
    pub fn apply(&mut self, object: impl Into<Kept>) {
        let object = object.into();
        let Key { namespace, name, .. } = object.key();
        let key = NamespacedName::new(shared::text(&namespace), name);
        match object {
            Kept::Namespace(o) => drop(self.namespaces.insert(key.name, o)),
            Kept::Node(o) => drop(self.nodes.insert(key.name, o)),
            Kept::ServiceAccount(o) => drop(self.service_accounts.insert(key, o)),
            Kept::Pod(o) => self.apply_pod(o),
            Kept::Service(o) => drop(self.services.insert(key, o)),
            Kept::EndpointSlice(o) => drop(self.endpoint_slices.insert(key, o)),
            Kept::Endpoints(o) => drop(self.endpoints.insert(key, o)),
            Kept::AuthorizationPolicy(o) => drop(self.authorization_policies.insert(key, o)),
            Kept::PeerAuthentication(o) => drop(self.peer_authentications.insert(key, o)),
            Kept::RequestAuthentication(o) => drop(self.request_authentications.insert(key, o)),
            Kept::GatewayClass(o) => drop(self.gateway_classes.insert(key.name, o)),
            Kept::Gateway(o) => drop(self.gateways.insert(key, o)),
            Kept::HttpRoute(o) => drop(self.http_routes.insert(key, o)),
            Kept::GrpcRoute(o) => drop(self.grpc_routes.insert(key, o)),
            Kept::TcpRoute(o) => drop(self.tcp_routes.insert(key, o)),
            Kept::TlsRoute(o) => drop(self.tls_routes.insert(key, o)),
            Kept::ServiceEntry(o) => drop(self.service_entries.insert(key, o)),
            Kept::WorkloadEntry(o) => drop(self.workload_entries.insert(key, o)),
            Kept::DestinationRule(o) => drop(self.destination_rules.insert(key, o)),
            Kept::VirtualService(o) => drop(self.virtual_services.insert(key, o)),
            Kept::MeshConfig(o) => drop(self.mesh_configs.insert(key, o)),
            Kept::Telemetry(o) => drop(self.telemetries.insert(key, o)),
            Kept::TrafficPolicy(o) => drop(self.traffic_policies.insert(key, o)),
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
            Kind::RequestAuthentication => drop(self.request_authentications.remove(&name)),
            Kind::GatewayClass => drop(self.gateway_classes.remove(&key.name)),
            Kind::Gateway => drop(self.gateways.remove(&name)),
            Kind::HttpRoute => drop(self.http_routes.remove(&name)),
            Kind::GrpcRoute => drop(self.grpc_routes.remove(&name)),
            Kind::TcpRoute => drop(self.tcp_routes.remove(&name)),
            Kind::TlsRoute => drop(self.tls_routes.remove(&name)),
            Kind::ServiceEntry => drop(self.service_entries.remove(&name)),
            Kind::WorkloadEntry => drop(self.workload_entries.remove(&name)),
            Kind::DestinationRule => drop(self.destination_rules.remove(&name)),
            Kind::VirtualService => drop(self.virtual_services.remove(&name)),
            Kind::ConfigMap => drop(self.mesh_configs.remove(&name)),
            Kind::Telemetry => drop(self.telemetries.remove(&name)),
            Kind::TrafficPolicy => drop(self.traffic_policies.remove(&name)),
        }
    }

    /// Takes what fetching the keys of an issuer has come to. Whether that is something else than before.
    pub fn take_keys(&mut self, source: &KeySource, fetched: Option<Arc<Fetched>>) -> bool {
        let before = match fetched.clone() {
            Some(fetched) => self.keys.insert(source.clone(), fetched),
            None => self.keys.remove(source),
        };
        before != fetched
    }

    /// What fetching the keys of an issuer has come to; None: nothing yet.
    pub fn fetched(&self, source: &KeySource) -> Option<&Arc<Fetched>> {
        self.keys.get(source)
    }

    /// Takes the whole of what there is: everything else is forgotten.
    pub fn reset(&mut self, objects: impl IntoIterator<Item = Object>) {
        *self = Self::default();
        for object in objects {
            self.apply(object);
        }
    }

    fn apply_pod(&mut self, pod: Arc<Pod>) {
        self.delete_pod(&pod.name);
        if !pod.node.is_empty() {
            self.pods_by_node.insert((pod.node.clone(), pod.name.clone()), ());
        }
        self.pods.insert(pod.name.clone(), pod);
    }

    fn delete_pod(&mut self, key: &NamespacedName) {
        let Some(pod) = self.pods.remove(key) else { return };
        if !pod.node.is_empty() {
            self.pods_by_node.remove(&(pod.node.clone(), key.clone()));
        }
    }

    /// An object of which those who know it by its name go on sharing that.
    fn keep(&self, object: Kept) -> Kept {
        match object {
            Kept::Pod(mut pod) => {
                if let Some((name, _)) = self.pods.get_key_value(&pod.name) {
                    Arc::make_mut(&mut pod).name = name.clone();
                }
                Kept::Pod(pod)
            }
            other => other,
        }
    }

    /// The changes of single objects that a change comes to: what goes, goes first.
    pub fn steps(&self, change: Change) -> Vec<(Key, Option<Kept>)> {
        let some = |object| {
            let kept = self.keep(object);
            (kept.key(), Some(kept))
        };
        match change {
            Change::Apply(object) => vec![some(object)],
            Change::Delete(key) => vec![(key, None)],
            // No object: [`Self::take_keys`].
            Change::Keys(..) => Vec::new(),
            Change::Replace(kind, objects) => {
                let stays: BTreeSet<Key> = objects.iter().map(Kept::key).collect();
                let gone = self.keys(kind).into_iter().filter(|key| !stays.contains(key)).map(|key| (key, None));
                gone.chain(objects.into_iter().map(some)).collect()
            }
        }
    }

    /// An object.
    pub fn get(&self, key: &Key) -> Option<Kept> {
        let name = key.object();
        Some(match key.kind {
            Kind::Namespace => Kept::Namespace(self.namespaces.get(&key.name)?.clone()),
            Kind::Node => Kept::Node(self.nodes.get(&key.name)?.clone()),
            Kind::ServiceAccount => Kept::ServiceAccount(self.service_accounts.get(&name)?.clone()),
            Kind::Pod => Kept::Pod(self.pods.get(&name)?.clone()),
            Kind::Service => Kept::Service(self.services.get(&name)?.clone()),
            Kind::EndpointSlice => Kept::EndpointSlice(self.endpoint_slices.get(&name)?.clone()),
            Kind::Endpoints => Kept::Endpoints(self.endpoints.get(&name)?.clone()),
            Kind::AuthorizationPolicy => Kept::AuthorizationPolicy(self.authorization_policies.get(&name)?.clone()),
            Kind::PeerAuthentication => Kept::PeerAuthentication(self.peer_authentications.get(&name)?.clone()),
            Kind::RequestAuthentication => {
                Kept::RequestAuthentication(self.request_authentications.get(&name)?.clone())
            }
            Kind::GatewayClass => Kept::GatewayClass(self.gateway_classes.get(&key.name)?.clone()),
            Kind::Gateway => Kept::Gateway(self.gateways.get(&name)?.clone()),
            Kind::HttpRoute => Kept::HttpRoute(self.http_routes.get(&name)?.clone()),
            Kind::GrpcRoute => Kept::GrpcRoute(self.grpc_routes.get(&name)?.clone()),
            Kind::TcpRoute => Kept::TcpRoute(self.tcp_routes.get(&name)?.clone()),
            Kind::TlsRoute => Kept::TlsRoute(self.tls_routes.get(&name)?.clone()),
            Kind::ServiceEntry => Kept::ServiceEntry(self.service_entries.get(&name)?.clone()),
            Kind::WorkloadEntry => Kept::WorkloadEntry(self.workload_entries.get(&name)?.clone()),
            Kind::DestinationRule => Kept::DestinationRule(self.destination_rules.get(&name)?.clone()),
            Kind::VirtualService => Kept::VirtualService(self.virtual_services.get(&name)?.clone()),
            Kind::ConfigMap => Kept::MeshConfig(self.mesh_configs.get(&name)?.clone()),
            Kind::Telemetry => Kept::Telemetry(self.telemetries.get(&name)?.clone()),
            Kind::TrafficPolicy => Kept::TrafficPolicy(self.traffic_policies.get(&name)?.clone()),
        })
    }

    /// The keys of all objects, kind by kind, in order.
    pub fn all_keys(&self) -> impl Iterator<Item = Key> {
        self.counts().into_iter().flat_map(|(kind, _)| self.keys(kind))
    }

    /// The keys of all objects of a kind, in order.
    fn keys(&self, kind: Kind) -> Vec<Key> {
        fn names<V>(kind: Kind, objects: &PersistentMap<NamespacedName, V>) -> Vec<Key> {
            objects.keys().map(|key| Key::new(kind, Some(&key.namespace), &key.name)).collect()
        }
        match kind {
            Kind::Namespace => self.namespaces.keys().map(|name| Key::new(kind, None, name)).collect(),
            Kind::Node => self.nodes.keys().map(|name| Key::new(kind, None, name)).collect(),
            Kind::ServiceAccount => names(kind, &self.service_accounts),
            Kind::Pod => names(kind, &self.pods),
            Kind::Service => names(kind, &self.services),
            Kind::EndpointSlice => names(kind, &self.endpoint_slices),
            Kind::Endpoints => names(kind, &self.endpoints),
            Kind::AuthorizationPolicy => names(kind, &self.authorization_policies),
            Kind::PeerAuthentication => names(kind, &self.peer_authentications),
            Kind::RequestAuthentication => names(kind, &self.request_authentications),
            Kind::GatewayClass => self.gateway_classes.keys().map(|name| Key::new(kind, None, name)).collect(),
            Kind::Gateway => names(kind, &self.gateways),
            Kind::HttpRoute => names(kind, &self.http_routes),
            Kind::GrpcRoute => names(kind, &self.grpc_routes),
            Kind::TcpRoute => names(kind, &self.tcp_routes),
            Kind::TlsRoute => names(kind, &self.tls_routes),
            Kind::ServiceEntry => names(kind, &self.service_entries),
            Kind::WorkloadEntry => names(kind, &self.workload_entries),
            Kind::DestinationRule => names(kind, &self.destination_rules),
            Kind::VirtualService => names(kind, &self.virtual_services),
            Kind::ConfigMap => names(kind, &self.mesh_configs),
            Kind::Telemetry => names(kind, &self.telemetries),
            Kind::TrafficPolicy => names(kind, &self.traffic_policies),
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

    /// The pods of a namespace.
    pub fn pods_in(&self, namespace: &str) -> impl Iterator<Item = (&NamespacedName, &Arc<Pod>)> {
        self.pods.equal_range(|key| (*key.namespace).cmp(namespace))
    }

    /// The pods that were put on a node.
    pub fn pods_on_node(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.keys_on_node(node).filter_map(|key| self.pods.get(key))
    }

    /// The names of the pods that were put on a node.
    pub fn keys_on_node(&self, node: &str) -> impl Iterator<Item = &NamespacedName> {
        self.pods_by_node.equal_range(|(known, _)| (**known).cmp(node)).map(|((_, key), ())| key)
    }

    /// A service.
    pub fn service(&self, key: &NamespacedName) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// All services.
    pub fn services(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<Service>)> {
        self.services.iter()
    }

    /// The services of a namespace.
    pub fn services_in(&self, namespace: &str) -> impl Iterator<Item = (&NamespacedName, &Arc<Service>)> {
        self.services.equal_range(|key| (*key.namespace).cmp(namespace))
    }

    /// A slice of endpoints.
    pub fn endpoint_slice(&self, key: &NamespacedName) -> Option<&Arc<EndpointSlice>> {
        self.endpoint_slices.get(key)
    }

    /// The Endpoints of a name.
    pub fn endpoints_named(&self, key: &NamespacedName) -> Option<&Arc<Endpoints>> {
        self.endpoints.get(key)
    }

    /// An authorization policy.
    pub fn authorization_policy(&self, key: &NamespacedName) -> Option<&Arc<AuthorizationPolicy>> {
        self.authorization_policies.get(key)
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

    /// A request authentication.
    pub fn request_authentication(&self, key: &NamespacedName) -> Option<&Arc<RequestAuthentication>> {
        self.request_authentications.get(key)
    }

    /// All request authentications.
    pub fn request_authentications(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<RequestAuthentication>)> {
        self.request_authentications.iter()
    }

    /// A class of Gateways.
    pub fn gateway_class(&self, name: &str) -> Option<&Arc<GatewayClass>> {
        self.gateway_classes.get(name)
    }

    /// A Gateway.
    pub fn gateway(&self, key: &NamespacedName) -> Option<&Arc<Gateway>> {
        self.gateways.get(key)
    }

    /// All Gateways.
    pub fn gateways(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<Gateway>)> {
        self.gateways.iter()
    }

    /// An HTTPRoute.
    pub fn http_route(&self, key: &NamespacedName) -> Option<&Arc<HttpRoute>> {
        self.http_routes.get(key)
    }

    /// A GRPCRoute.
    pub fn grpc_route(&self, key: &NamespacedName) -> Option<&Arc<GrpcRoute>> {
        self.grpc_routes.get(key)
    }

    /// A TCPRoute.
    pub fn tcp_route(&self, key: &NamespacedName) -> Option<&Arc<TcpRoute>> {
        self.tcp_routes.get(key)
    }

    /// A TLSRoute.
    pub fn tls_route(&self, key: &NamespacedName) -> Option<&Arc<TlsRoute>> {
        self.tls_routes.get(key)
    }

    /// A service entry.
    pub fn service_entry(&self, key: &NamespacedName) -> Option<&Arc<ServiceEntry>> {
        self.service_entries.get(key)
    }

    /// All service entries.
    pub fn service_entries(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<ServiceEntry>)> {
        self.service_entries.iter()
    }

    /// The service entries of a namespace.
    pub fn service_entries_in(&self, namespace: &str) -> impl Iterator<Item = (&NamespacedName, &Arc<ServiceEntry>)> {
        self.service_entries.equal_range(|key| (*key.namespace).cmp(namespace))
    }

    /// A workload entry.
    pub fn workload_entry(&self, key: &NamespacedName) -> Option<&Arc<WorkloadEntry>> {
        self.workload_entries.get(key)
    }

    /// All workload entries.
    pub fn workload_entries(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<WorkloadEntry>)> {
        self.workload_entries.iter()
    }

    /// The workload entries of a namespace.
    pub fn workload_entries_in(&self, namespace: &str) -> impl Iterator<Item = (&NamespacedName, &Arc<WorkloadEntry>)> {
        self.workload_entries.equal_range(|key| (*key.namespace).cmp(namespace))
    }

    /// A destination rule.
    pub fn destination_rule(&self, key: &NamespacedName) -> Option<&Arc<DestinationRule>> {
        self.destination_rules.get(key)
    }

    /// The destination rules of a namespace.
    pub fn destination_rules_in(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = (&NamespacedName, &Arc<DestinationRule>)> {
        self.destination_rules.equal_range(|key| (*key.namespace).cmp(namespace))
    }

    /// A virtual service.
    pub fn virtual_service(&self, key: &NamespacedName) -> Option<&Arc<VirtualService>> {
        self.virtual_services.get(key)
    }

    /// A mesh configuration.
    pub fn mesh_config(&self, key: &NamespacedName) -> Option<&Arc<MeshConfig>> {
        self.mesh_configs.get(key)
    }

    /// All mesh configurations.
    pub fn mesh_configs(&self) -> impl Iterator<Item = &Arc<MeshConfig>> {
        self.mesh_configs.values()
    }

    /// A telemetry, with the key that is kept.
    pub fn telemetry_with_key(&self, key: &NamespacedName) -> Option<(&NamespacedName, &Arc<Telemetry>)> {
        self.telemetries.equal_range(|other| other.cmp(key)).next()
    }

    /// The telemetries of a namespace.
    pub fn telemetries_in(&self, namespace: &str) -> impl Iterator<Item = (&NamespacedName, &Arc<Telemetry>)> {
        self.telemetries.equal_range(|key| (*key.namespace).cmp(namespace))
    }

    /// All telemetries.
    pub fn telemetries(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<Telemetry>)> {
        self.telemetries.iter()
    }

    /// A traffic policy.
    pub fn traffic_policy(&self, key: &NamespacedName) -> Option<&Arc<TrafficPolicy>> {
        self.traffic_policies.get(key)
    }

    /// A traffic policy, with the key that is kept.
    pub fn traffic_policy_with_key(&self, key: &NamespacedName) -> Option<(&NamespacedName, &Arc<TrafficPolicy>)> {
        self.traffic_policies.equal_range(|other| other.cmp(key)).next()
    }

    /// How many objects of each kind, for the debug page.
    pub fn counts(&self) -> [(Kind, usize); 23] {
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
            (Kind::RequestAuthentication, self.request_authentications.len()),
            (Kind::GatewayClass, self.gateway_classes.len()),
            (Kind::Gateway, self.gateways.len()),
            (Kind::HttpRoute, self.http_routes.len()),
            (Kind::GrpcRoute, self.grpc_routes.len()),
            (Kind::TcpRoute, self.tcp_routes.len()),
            (Kind::TlsRoute, self.tls_routes.len()),
            (Kind::ServiceEntry, self.service_entries.len()),
            (Kind::WorkloadEntry, self.workload_entries.len()),
            (Kind::DestinationRule, self.destination_rules.len()),
            (Kind::VirtualService, self.virtual_services.len()),
            (Kind::ConfigMap, self.mesh_configs.len()),
            (Kind::Telemetry, self.telemetries.len()),
            (Kind::TrafficPolicy, self.traffic_policies.len()),
        ]
    }
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
    fn what_replaces_a_kind_removes_the_others_of_the_kind_first() {
        let mut cluster = Cluster::default();
        let node = Object::from_value(Kind::Node, &serde_json::json!({"metadata": {"name": "x"}})).unwrap();
        cluster.reset([pod("x", "n1"), pod("y", "n1"), node]);
        let steps = cluster.steps(Change::Replace(Kind::Pod, vec![pod("y", "n2").into(), pod("z", "n2").into()]));
        let steps: Vec<_> = steps.iter().map(|(key, new)| (key.to_string(), new.is_some())).collect();
        assert_eq!(steps, [("Pod a/x".into(), false), ("Pod a/y".into(), true), ("Pod a/z".into(), true)]);
    }

    #[test]
    fn pods_are_found_by_node_wherever_they_go() {
        let mut cluster = Cluster::default();
        let on = |cluster: &Cluster, node: &str| {
            cluster.pods_on_node(node).map(|p| p.name.name.to_string()).collect::<Vec<_>>()
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
