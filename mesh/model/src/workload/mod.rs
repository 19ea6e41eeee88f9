//! A workload: one pod (or outside endpoint) as proxies know it.

mod memberships;
pub(crate) mod wire;

use std::net::IpAddr;
use std::sync::Arc;

use crate::address::{GatewayAddress, NamespacedName};
use crate::identity::{InvalidSpiffeId, SpiffeId};
use crate::shared;

pub use memberships::Memberships;
pub use wire::InvalidWorkload;

/// One workload (`istio.workload.Workload`), defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Unique key, for example `Kubernetes//Pod/shop/cart-1`. Not the Kubernetes pod UID.
    pub uid: Arc<str>,
    /// Pod name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// In normal form; empty when it is reached by hostname or through a gateway.
    pub addresses: Vec<IpAddr>,
    /// Resolved by DNS when there are no addresses; else empty.
    pub hostname: Arc<str>,
    /// Empty is the default network.
    pub network: Arc<str>,
    /// How it takes traffic.
    pub tunnel: Tunnel,
    /// Never empty: the default is filled in.
    pub trust_domain: Arc<str>,
    /// Never empty: the default is filled in.
    pub service_account: Arc<str>,
    /// Workload-addressed traffic goes through it.
    pub waypoint: Option<Arc<GatewayAddress>>,
    /// Way in from other networks.
    pub network_gateway: Option<Arc<GatewayAddress>>,
    /// Node name; empty outside Kubernetes.
    pub node: Arc<str>,
    /// For telemetry.
    pub canonical_name: Arc<str>,
    /// For telemetry.
    pub canonical_revision: Arc<str>,
    /// For telemetry: what owns the pod.
    pub workload_type: WorkloadType,
    /// For telemetry: name of what owns the pod.
    pub workload_name: Arc<str>,
    /// It terminates HBONE itself.
    pub native_tunnel: bool,
    /// Selector policies that cover it.
    pub authorization_policies: Vec<NamespacedName>,
    /// Whether it is ready for traffic.
    pub healthy: bool,
    /// Never empty: the default is filled in.
    pub cluster: Arc<str>,
    /// Services it is an endpoint of, with its own ports for each.
    pub services: Memberships,
    /// How ztunnel hands connections to an application that is a waypoint itself.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Region, zone and subzone.
    pub locality: Locality,
    /// On the node's own network: not indexed by address.
    pub host_network: bool,
    /// Weight in endpoint choice; 0 takes no traffic.
    pub capacity: u32,
}

/// The cluster that an empty one on the wire stands for.
pub const DEFAULT_CLUSTER: &str = "Kubernetes";

/// How a workload takes traffic (`istio.workload.TunnelProtocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Tunnel {
    /// Plain TCP.
    #[default]
    None,
    /// HTTP/2 CONNECT over mutual TLS.
    Hbone,
}

/// What owns a pod (`istio.workload.WorkloadType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum WorkloadType {
    /// A Deployment.
    #[default]
    Deployment,
    /// A CronJob.
    CronJob,
    /// Nothing but the pod itself.
    Pod,
    /// A Job.
    Job,
}

impl WorkloadType {
    /// The word used in `baggage` and telemetry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::CronJob => "cronjob",
            Self::Pod => "pod",
            Self::Job => "job",
        }
    }
}

/// A service port and the port that serves it (`istio.workload.Port`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// Port of the service.
    pub service_port: u16,
    /// Port of the application; 0 asks the endpoint's own list.
    pub target_port: u16,
    /// What is spoken on it.
    pub app_protocol: AppProtocol,
}

/// What is spoken on a port (`istio.workload.AppProtocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum AppProtocol {
    /// Not declared.
    #[default]
    Unknown,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque TCP.
    Tcp,
    /// TLS.
    Tls,
}

/// How ztunnel hands connections to the application (`istio.workload.ApplicationTunnel`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApplicationTunnel {
    /// True: a PROXY v2 header first. False: nothing but the port changes.
    pub proxy_protocol: bool,
    /// 0: the port that was asked for.
    pub port: u16,
}

/// Where a workload runs; empty parts are unknown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Locality {
    /// `topology.kubernetes.io/region`.
    pub region: Arc<str>,
    /// `topology.kubernetes.io/zone`.
    pub zone: Arc<str>,
    /// `topology.istio.io/subzone`.
    pub subzone: Arc<str>,
}

impl Workload {
    /// A workload with a uid and nothing else set: a base for builders and tests.
    pub fn empty(uid: impl Into<Arc<str>>) -> Self {
        let none = shared::text("");
        Self {
            uid: uid.into(),
            name: none.clone(),
            namespace: none.clone(),
            addresses: Vec::new(),
            hostname: none.clone(),
            network: none.clone(),
            tunnel: Tunnel::None,
            trust_domain: shared::text(crate::identity::DEFAULT_TRUST_DOMAIN),
            service_account: shared::text(crate::identity::DEFAULT_SERVICE_ACCOUNT),
            waypoint: None,
            network_gateway: None,
            node: none.clone(),
            canonical_name: none.clone(),
            canonical_revision: none.clone(),
            workload_type: WorkloadType::default(),
            workload_name: none.clone(),
            native_tunnel: false,
            authorization_policies: Vec::new(),
            healthy: true,
            cluster: shared::text(DEFAULT_CLUSTER),
            services: Memberships::default(),
            application_tunnel: None,
            locality: Locality { region: none.clone(), zone: none.clone(), subzone: none },
            host_network: false,
            capacity: 1,
        }
    }

    /// The SPIFFE id it proves itself with.
    ///
    /// # Errors
    /// When the namespace, service account or trust domain cannot be part of a SPIFFE id.
    pub fn identity(&self) -> Result<SpiffeId, InvalidSpiffeId> {
        SpiffeId::of(&self.trust_domain, &self.namespace, &self.service_account)
    }
}
