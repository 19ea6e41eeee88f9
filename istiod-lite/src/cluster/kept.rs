//! An object as a cluster keeps it: as much of it as anything here depends on.

use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::pod::Pod;
use crate::resources::labels::Labelled;
use crate::resources::{
    AuthorizationPolicy, DestinationRule, Gateway, GatewayClass, GrpcRoute, HttpRoute, Key, Kind, MeshConfig, Object,
    PeerAuthentication, RequestAuthentication, ServiceEntry, TcpRoute, Telemetry, TlsRoute, TrafficPolicy,
    VirtualService, WorkloadEntry,
};

/// Whole objects as `kubectl apply` last had them: nobody here reads them.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// One object. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept {
    /// A namespace.
    Namespace(Arc<Namespace>),
    /// A node: its labels only.
    Node(Arc<Node>),
    /// A service account: which one it is.
    ServiceAccount(Arc<ServiceAccount>),
    /// A pod.
    Pod(Arc<Pod>),
    /// A service.
    Service(Arc<Service>),
    /// Endpoints of a service.
    EndpointSlice(Arc<EndpointSlice>),
    /// Endpoints of a service, in the older form.
    Endpoints(Arc<Endpoints>),
    /// Who may talk to whom.
    AuthorizationPolicy(Arc<AuthorizationPolicy>),
    /// Whether plaintext is taken.
    PeerAuthentication(Arc<PeerAuthentication>),
    /// Whose tokens of requests are taken.
    RequestAuthentication(Arc<RequestAuthentication>),
    /// Which controller has the Gateways of a class.
    GatewayClass(Arc<GatewayClass>),
    /// A waypoint.
    Gateway(Arc<Gateway>),
    /// Where requests go.
    HttpRoute(Arc<HttpRoute>),
    /// Where gRPC calls go.
    GrpcRoute(Arc<GrpcRoute>),
    /// Where connections go.
    TcpRoute(Arc<TcpRoute>),
    /// Where connections of TLS go.
    TlsRoute(Arc<TlsRoute>),
    /// Names and addresses that are no Service's.
    ServiceEntry(Arc<ServiceEntry>),
    /// Something that runs outside of Kubernetes; its labels in one place.
    WorkloadEntry(Arc<WorkloadEntry>),
    /// How the endpoints of a host are treated.
    DestinationRule(Arc<DestinationRule>),
    /// Whole.
    VirtualService(Arc<VirtualService>),
    /// What holds for the mesh as a whole.
    MeshConfig(Arc<MeshConfig>),
    /// What becomes of traces.
    Telemetry(Arc<Telemetry>),
    /// How many requests pass.
    TrafficPolicy(Arc<TrafficPolicy>),
}

impl From<Object> for Kept {
    fn from(object: Object) -> Self {
        match object {
            Object::Namespace(o) => Self::Namespace(without_history(o)),
            Object::Node(o) => Self::Node(Arc::new(Node { metadata: node(&o.metadata), ..Node::default() })),
            Object::ServiceAccount(o) => {
                Self::ServiceAccount(Arc::new(ServiceAccount { metadata: account(&o.metadata), ..Default::default() }))
            }
            Object::Pod(o) => Self::Pod(Arc::new(Pod::from(&*o))),
            Object::Service(o) => Self::Service(without_history(o)),
            Object::EndpointSlice(o) => Self::EndpointSlice(without_history(o)),
            Object::Endpoints(o) => Self::Endpoints(without_history(o)),
            Object::AuthorizationPolicy(o) => Self::AuthorizationPolicy(o),
            Object::PeerAuthentication(o) => Self::PeerAuthentication(o),
            Object::RequestAuthentication(mut o) => {
                let metadata = shortened(&o.metadata);
                Arc::make_mut(&mut o).metadata = metadata;
                Self::RequestAuthentication(o)
            }
            Object::GatewayClass(mut o) => {
                let metadata = shortened(&o.metadata);
                Arc::make_mut(&mut o).metadata = metadata;
                Self::GatewayClass(o)
            }
            Object::Gateway(mut o) => {
                let metadata = shortened(&o.metadata);
                Arc::make_mut(&mut o).metadata = metadata;
                Self::Gateway(o)
            }
            Object::HttpRoute(mut o) => {
                let metadata = shortened(&o.metadata);
                Arc::make_mut(&mut o).metadata = metadata;
                Self::HttpRoute(o)
            }
            Object::GrpcRoute(mut o) => {
                let metadata = shortened(&o.metadata);
                Arc::make_mut(&mut o).metadata = metadata;
                Self::GrpcRoute(o)
            }
            Object::TcpRoute(mut o) => {
                let metadata = shortened(&o.metadata);
                Arc::make_mut(&mut o).metadata = metadata;
                Self::TcpRoute(o)
            }
            Object::TlsRoute(mut o) => {
                let metadata = shortened(&o.metadata);
                Arc::make_mut(&mut o).metadata = metadata;
                Self::TlsRoute(o)
            }
            Object::ServiceEntry(mut o) => {
                let metadata = shortened(&o.metadata);
                Arc::make_mut(&mut o).metadata = metadata;
                Self::ServiceEntry(o)
            }
            Object::WorkloadEntry(o) => Self::WorkloadEntry(workload_entry(o)),
            Object::DestinationRule(mut o) => {
                let metadata = shortened(&o.metadata);
                Arc::make_mut(&mut o).metadata = metadata;
                Self::DestinationRule(o)
            }
            Object::VirtualService(mut o) => {
                let metadata = shortened(&o.metadata);
                Arc::make_mut(&mut o).metadata = metadata;
                Self::VirtualService(o)
            }
            Object::Telemetry(mut o) => {
                let metadata = shortened(&o.metadata);
                Arc::make_mut(&mut o).metadata = metadata;
                Self::Telemetry(o)
            }
            Object::TrafficPolicy(mut o) => {
                let metadata = shortened(&o.metadata);
                Arc::make_mut(&mut o).metadata = metadata;
                Self::TrafficPolicy(o)
            }
            Object::ConfigMap(o) => Self::MeshConfig(Arc::new(MeshConfig::of(&o))),
        }
    }
}

fn node(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta { name: metadata.name.clone(), labels: metadata.labels.clone(), ..ObjectMeta::default() }
}

fn account(metadata: &ObjectMeta) -> ObjectMeta {
    let ObjectMeta { name, namespace, uid, .. } = metadata.clone();
    ObjectMeta { name, namespace, uid, ..ObjectMeta::default() }
}

/// Without what changes when somebody writes what became of the object: we do, and it says nothing new.
fn shortened(metadata: &ObjectMeta) -> ObjectMeta {
    let mut annotations = metadata.annotations.clone();
    if let Some(annotations) = &mut annotations {
        annotations.remove(LAST_APPLIED);
    }
    let ObjectMeta { name, namespace, labels, uid, generation, creation_timestamp, .. } = metadata.clone();
    ObjectMeta { name, namespace, labels, annotations, uid, generation, creation_timestamp, ..ObjectMeta::default() }
}

/// Labels are those of the object and of its spec, of which the object's count where both have one.
fn workload_entry(mut object: Arc<WorkloadEntry>) -> Arc<WorkloadEntry> {
    let WorkloadEntry { metadata, spec, .. } = Arc::make_mut(&mut object);
    *metadata = shortened(metadata);
    let mut labels = std::mem::take(&mut spec.labels);
    labels.extend(metadata.labels.take().into_iter().flatten());
    metadata.labels = Some(labels);
    object
}

/// Without what says only who wrote the object, and how it was before.
fn without_history<T: Clone + Metadata<Ty = ObjectMeta>>(mut object: Arc<T>) -> Arc<T> {
    let metadata = object.metadata();
    let last_applied = metadata.annotations.as_ref().is_some_and(|all| all.contains_key(LAST_APPLIED));
    if last_applied || metadata.managed_fields.is_some() {
        // Whoever read it may keep it whole; else it is changed where it is.
        let metadata = Arc::make_mut(&mut object).metadata_mut();
        metadata.managed_fields = None;
        if let Some(annotations) = &mut metadata.annotations {
            annotations.remove(LAST_APPLIED);
        }
    }
    object
}

impl Kept {
    /// What it is known by.
    pub fn key(&self) -> Key {
        let (kind, metadata) = match self {
            Self::Pod(pod) => {
                return Key { kind: Kind::Pod, namespace: pod.name.namespace.clone(), name: pod.name.name.clone() };
            }
            Self::Namespace(o) => (Kind::Namespace, &o.metadata),
            Self::Node(o) => (Kind::Node, &o.metadata),
            Self::ServiceAccount(o) => (Kind::ServiceAccount, &o.metadata),
            Self::Service(o) => (Kind::Service, &o.metadata),
            Self::EndpointSlice(o) => (Kind::EndpointSlice, &o.metadata),
            Self::Endpoints(o) => (Kind::Endpoints, &o.metadata),
            Self::AuthorizationPolicy(o) => (Kind::AuthorizationPolicy, &o.metadata),
            Self::PeerAuthentication(o) => (Kind::PeerAuthentication, &o.metadata),
            Self::RequestAuthentication(o) => (Kind::RequestAuthentication, &o.metadata),
            Self::GatewayClass(o) => (Kind::GatewayClass, &o.metadata),
            Self::Gateway(o) => (Kind::Gateway, &o.metadata),
            Self::HttpRoute(o) => (Kind::HttpRoute, &o.metadata),
            Self::GrpcRoute(o) => (Kind::GrpcRoute, &o.metadata),
            Self::TcpRoute(o) => (Kind::TcpRoute, &o.metadata),
            Self::TlsRoute(o) => (Kind::TlsRoute, &o.metadata),
            Self::ServiceEntry(o) => (Kind::ServiceEntry, &o.metadata),
            Self::WorkloadEntry(o) => (Kind::WorkloadEntry, &o.metadata),
            Self::DestinationRule(o) => (Kind::DestinationRule, &o.metadata),
            Self::VirtualService(o) => (Kind::VirtualService, &o.metadata),
            Self::MeshConfig(o) => (Kind::ConfigMap, &o.metadata),
            Self::Telemetry(o) => (Kind::Telemetry, &o.metadata),
            Self::TrafficPolicy(o) => (Kind::TrafficPolicy, &o.metadata),
        };
        Key::new(kind, metadata.namespace.as_deref(), metadata.name.as_deref().unwrap_or(""))
    }

    /// Its labels.
    pub fn labels(&self) -> &dyn Labelled {
        match self {
            Self::Namespace(o) => &o.metadata,
            Self::Node(o) => &o.metadata,
            Self::ServiceAccount(o) => &o.metadata,
            Self::Pod(pod) => &**pod,
            Self::Service(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
            Self::Endpoints(o) => &o.metadata,
            Self::AuthorizationPolicy(o) => &o.metadata,
            Self::PeerAuthentication(o) => &o.metadata,
            Self::RequestAuthentication(o) => &o.metadata,
            Self::GatewayClass(o) => &o.metadata,
            Self::Gateway(o) => &o.metadata,
            Self::HttpRoute(o) => &o.metadata,
            Self::GrpcRoute(o) => &o.metadata,
            Self::TcpRoute(o) => &o.metadata,
            Self::TlsRoute(o) => &o.metadata,
            Self::ServiceEntry(o) => &o.metadata,
            Self::WorkloadEntry(o) => &o.metadata,
            Self::DestinationRule(o) => &o.metadata,
            Self::VirtualService(o) => &o.metadata,
            Self::MeshConfig(o) => &o.metadata,
            Self::Telemetry(o) => &o.metadata,
            Self::TrafficPolicy(o) => &o.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_nobody_reads_is_not_kept() {
        let kept = |kind, value: &Value| Kept::from(Object::from_value(kind, value).unwrap());
        let metadata = json!({
            "name": "x", "labels": {"a": "b"}, "annotations": {"c": "d"}, "uid": "u", "resourceVersion": "7",
        });
        let mut written = metadata.clone();
        written["managedFields"] = json!([{"manager": "kubectl"}]);
        written["annotations"][LAST_APPLIED] = "{}".into();
        for (kind, rest) in [
            (Kind::Namespace, json!({})),
            (Kind::Node, json!({"status": {"images": [{"names": ["i"], "sizeBytes": 1}]}})),
            (Kind::ServiceAccount, json!({"secrets": [{"name": "s"}]})),
            (Kind::Service, json!({})),
            (Kind::Endpoints, json!({})),
            (Kind::EndpointSlice, json!({"addressType": "IPv4", "endpoints": []})),
            (Kind::RequestAuthentication, json!({"spec": {}})),
            (Kind::ServiceEntry, json!({"spec": {"hosts": ["a.com"]}})),
            (Kind::WorkloadEntry, json!({"spec": {"address": "192.0.2.1"}})),
            (Kind::DestinationRule, json!({"spec": {"host": "web"}})),
            (
                Kind::VirtualService,
                json!({"spec": {"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}}]}]}}),
            ),
            (Kind::Telemetry, json!({"spec": {}})),
            (
                Kind::TrafficPolicy,
                json!({"spec": {
                    "targetRefs": [{"kind": "Service", "name": "web"}],
                    "rateLimits": {"local": [{"requests": 1, "per": "1s"}]},
                }}),
            ),
        ] {
            let with = |metadata: &Value| {
                let mut value = rest.clone();
                value["metadata"] = metadata.clone();
                kept(kind, &value)
            };
            let (plain, written) = (with(&metadata), with(&written));
            assert_eq!(
                (plain.key(), plain.labels().label("a").is_some()),
                (written.key(), kind != Kind::ServiceAccount)
            );
            assert_eq!(plain, written, "{kind}");
        }
    }
}
