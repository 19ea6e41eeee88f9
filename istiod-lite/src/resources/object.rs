//! One object of a kind that is read.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::authorization_policy::AuthorizationPolicy;
use super::destination_rule::DestinationRule;
use super::gateway_api::{Gateway, GatewayClass, GrpcRoute, HttpRoute, TcpRoute, TlsRoute};
use super::kind::{Key, Kind};
use super::peer_authentication::PeerAuthentication;
use super::request_authentication::RequestAuthentication;
use super::service_entry::ServiceEntry;
use super::telemetry::Telemetry;
use super::traffic_policy::TrafficPolicy;
use super::virtual_service::VirtualService;
use super::workload_entry::WorkloadEntry;

/// One object of a kind we read. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A namespace.
    Namespace(Arc<Namespace>),
    /// A node.
    Node(Arc<Node>),
    /// A service account.
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
    /// Something that runs outside of Kubernetes.
    WorkloadEntry(Arc<WorkloadEntry>),
    /// How the endpoints of a host are treated.
    DestinationRule(Arc<DestinationRule>),
    /// See [`VirtualService`].
    VirtualService(Arc<VirtualService>),
    /// What holds for the mesh as a whole.
    ConfigMap(Arc<ConfigMap>),
    /// What becomes of traces.
    Telemetry(Arc<Telemetry>),
    /// How many requests pass.
    TrafficPolicy(Arc<TrafficPolicy>),
}

impl Object {
    /// The value that [`Self::from_value`] reads it from.
    ///
    /// # Errors
    /// None in practice: every kind has a JSON form.
    pub fn to_value(&self) -> serde_json::Result<serde_json::Value> {
        match self {
            Self::Namespace(o) => serde_json::to_value(&**o),
            Self::Node(o) => serde_json::to_value(&**o),
            Self::ServiceAccount(o) => serde_json::to_value(&**o),
            Self::Pod(o) => serde_json::to_value(&**o),
            Self::Service(o) => serde_json::to_value(&**o),
            Self::EndpointSlice(o) => serde_json::to_value(&**o),
            Self::Endpoints(o) => serde_json::to_value(&**o),
            Self::AuthorizationPolicy(o) => serde_json::to_value(&**o),
            Self::PeerAuthentication(o) => serde_json::to_value(&**o),
            Self::RequestAuthentication(o) => serde_json::to_value(&**o),
            Self::GatewayClass(o) => serde_json::to_value(&**o),
            Self::Gateway(o) => serde_json::to_value(&**o),
            Self::HttpRoute(o) => serde_json::to_value(&**o),
            Self::GrpcRoute(o) => serde_json::to_value(&**o),
            Self::TcpRoute(o) => serde_json::to_value(&**o),
            Self::TlsRoute(o) => serde_json::to_value(&**o),
            Self::ServiceEntry(o) => serde_json::to_value(&**o),
            Self::WorkloadEntry(o) => serde_json::to_value(&**o),
            Self::DestinationRule(o) => serde_json::to_value(&**o),
            Self::VirtualService(o) => serde_json::to_value(&**o),
            Self::ConfigMap(o) => serde_json::to_value(&**o),
            Self::Telemetry(o) => serde_json::to_value(&**o),
            Self::TrafficPolicy(o) => serde_json::to_value(&**o),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::PeerAuthentication(_) => Kind::PeerAuthentication,
            Self::RequestAuthentication(_) => Kind::RequestAuthentication,
            Self::GatewayClass(_) => Kind::GatewayClass,
            Self::Gateway(_) => Kind::Gateway,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::GrpcRoute(_) => Kind::GrpcRoute,
            Self::TcpRoute(_) => Kind::TcpRoute,
            Self::TlsRoute(_) => Kind::TlsRoute,
            Self::ServiceEntry(_) => Kind::ServiceEntry,
            Self::WorkloadEntry(_) => Kind::WorkloadEntry,
            Self::DestinationRule(_) => Kind::DestinationRule,
            Self::VirtualService(_) => Kind::VirtualService,
            Self::ConfigMap(_) => Kind::ConfigMap,
            Self::Telemetry(_) => Kind::Telemetry,
            Self::TrafficPolicy(_) => Kind::TrafficPolicy,
        }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Namespace(o) => &o.metadata,
            Self::Node(o) => &o.metadata,
            Self::ServiceAccount(o) => &o.metadata,
            Self::Pod(o) => &o.metadata,
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
            Self::ConfigMap(o) => &o.metadata,
            Self::Telemetry(o) => &o.metadata,
            Self::TrafficPolicy(o) => &o.metadata,
        }
    }

    /// What it is known by.
    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        Key::new(self.kind(), metadata.namespace.as_deref(), metadata.name.as_deref().unwrap_or(""))
    }
}
