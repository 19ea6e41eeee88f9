//! A service: a name and virtual addresses in front of workloads.

mod extension;
mod wire;

use std::net::IpAddr;
use std::sync::Arc;

use crate::address::{GatewayAddress, NamespacedName, NetworkAddress};
use crate::workload::PortMapping;

pub use extension::{InvalidExtension, NamedPort, ServiceExtension};
pub use wire::InvalidService;

/// One service (`istio.workload.Service`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Object name.
    pub name: Arc<str>,
    /// Namespace.
    pub namespace: Arc<str>,
    /// Fully qualified, lower case; with the namespace it is the key.
    pub hostname: Arc<str>,
    /// Virtual addresses; empty for a headless service.
    pub vips: Vec<Vip>,
    /// Its ports.
    pub ports: Vec<PortMapping>,
    /// SPIFFE ids accepted for any endpoint besides the endpoint's own, as written.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Service-addressed traffic goes through it.
    pub waypoint: Option<Arc<GatewayAddress>>,
    /// Canary split over waypoints; empty means `waypoint` alone.
    pub weighted_waypoints: Vec<(Arc<GatewayAddress>, u32)>,
    /// How endpoints are chosen.
    pub load_balancing: LoadBalancing,
    /// Which address families endpoints are dialled by.
    pub ip_families: IpFamilies,
    /// Preferred when several services share a hostname or VIP.
    pub canonical: bool,
    /// A hint for gateways.
    pub ingress_use_waypoint: bool,
    /// Seen only by clients of its own namespace.
    pub private: bool,
    /// What only Ambit's control plane says.
    pub extension: Option<Arc<ServiceExtension>>,
}

/// A virtual address, or a block of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Vip {
    /// First address of the block.
    pub address: NetworkAddress,
    /// Prefix length when it is a block.
    pub prefix: Option<u8>,
}

/// `istio.workload.LoadBalancing`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LoadBalancing {
    /// What should be equal between client and endpoint, most important first.
    pub preference: Vec<Scope>,
    /// What the preference means.
    pub mode: BalanceMode,
    /// Endpoints that are not ready are used too (`publishNotReadyAddresses`).
    pub allow_unhealthy: bool,
}

/// `istio.workload.LoadBalancing.Scope`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Same region.
    Region,
    /// Same zone.
    Zone,
    /// Same subzone.
    Subzone,
    /// Same node.
    Node,
    /// Same cluster.
    Cluster,
    /// Same network.
    Network,
}

/// `istio.workload.LoadBalancing.Mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum BalanceMode {
    /// All endpoints alike.
    #[default]
    Any,
    /// Only endpoints that match every preference.
    Strict,
    /// The endpoints that match the most preferences, in order.
    Failover,
    /// Straight to the address that was dialled.
    Passthrough,
}

/// `istio.workload.IPFamilies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum IpFamilies {
    /// Not said.
    #[default]
    Automatic,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
    /// Both.
    Dual,
}

impl IpFamilies {
    /// Whether an address is of these families.
    pub fn allow(self, ip: IpAddr) -> bool {
        match self {
            Self::Automatic | Self::Dual => true,
            Self::Ipv4 => ip.is_ipv4(),
            Self::Ipv6 => ip.is_ipv6(),
        }
    }
}

impl Service {
    /// A service with a key and nothing else set: a base for builders and tests.
    pub fn empty(namespace: impl Into<Arc<str>>, hostname: impl Into<Arc<str>>) -> Self {
        Self {
            name: "".into(),
            namespace: namespace.into(),
            hostname: hostname.into(),
            vips: Vec::new(),
            ports: Vec::new(),
            subject_alt_names: Vec::new(),
            waypoint: None,
            weighted_waypoints: Vec::new(),
            load_balancing: LoadBalancing::default(),
            ip_families: IpFamilies::default(),
            canonical: false,
            ingress_use_waypoint: false,
            private: false,
            extension: None,
        }
    }

    /// A client keeps its endpoint for as long as that takes traffic.
    pub fn has_client_ip_affinity(&self) -> bool {
        self.extension.as_ref().is_some_and(|e| e.client_ip_affinity)
    }

    /// The name that the service is another one for, if it is nothing else.
    pub fn external_name(&self) -> Option<&Arc<str>> {
        self.extension.as_ref().map(|e| &e.external_name).filter(|name| !name.is_empty())
    }

    /// `namespace/hostname`.
    pub fn key(&self) -> NamespacedName {
        NamespacedName::new(self.namespace.clone(), self.hostname.clone())
    }
}
