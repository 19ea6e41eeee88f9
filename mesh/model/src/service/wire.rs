//! Service ↔ `istio.workload.Service`.

use ipnet::IpNet;
use mesh_proto::workload as pb;

use super::{BalanceMode, InvalidExtension, IpFamilies, LoadBalancing, Scope, Service, ServiceExtension, Vip};
use crate::address::{GatewayAddress, is_key_part};
use crate::shared::text;
use crate::workload::InvalidWorkload;
use crate::workload::wire::{block, gateway, gateway_to_wire, ip_bytes, network_address, ports, ports_to_wire};

/// Why a service was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidService {
    /// No namespace or hostname, or one that would make the key ambiguous.
    #[error("namespace or hostname is empty or holds a slash")]
    Key,
    /// An address and prefix length that make no block.
    #[error("prefix length {0} does not fit its address")]
    Prefix(u32),
    /// A weighted waypoint without destination.
    #[error("a weighted waypoint has no destination")]
    WeightedWaypoint,
    /// What only Ambit's control plane says.
    #[error(transparent)]
    Extension(#[from] InvalidExtension),
    /// A part that it shares with workloads.
    #[error(transparent)]
    Part(#[from] InvalidWorkload),
}

impl TryFrom<pb::Service> for Service {
    type Error = InvalidService;

    fn try_from(s: pb::Service) -> Result<Self, InvalidService> {
        if !is_key_part(&s.namespace) || !is_key_part(&s.hostname) {
            return Err(InvalidService::Key);
        }
        let unsupported = |field, value| InvalidWorkload::Enum { field, value };
        let ip_families = match pb::IpFamilies::try_from(s.ip_families) {
            Ok(pb::IpFamilies::Automatic) => IpFamilies::Automatic,
            Ok(pb::IpFamilies::Ipv4Only) => IpFamilies::Ipv4,
            Ok(pb::IpFamilies::Ipv6Only) => IpFamilies::Ipv6,
            Ok(pb::IpFamilies::Dual) => IpFamilies::Dual,
            Err(_) => return Err(unsupported("ip_families", s.ip_families).into()),
        };
        let vips = s.addresses.into_iter().map(vip).collect::<Result<_, _>>()?;
        Ok(Self {
            name: text(&s.name),
            namespace: text(&s.namespace),
            hostname: text(&s.hostname.to_ascii_lowercase()),
            vips,
            ports: ports(s.ports)?,
            subject_alt_names: s.subject_alt_names.iter().map(|name| text(name)).collect(),
            waypoint: gateway("waypoint", s.waypoint)?.map(GatewayAddress::shared),
            weighted_waypoints: s
                .weighted_waypoints
                .into_iter()
                .map(|w| match gateway("weighted_waypoints", w.destination)? {
                    Some(destination) => Ok((destination.shared(), w.weight)),
                    None => Err(InvalidService::WeightedWaypoint),
                })
                .collect::<Result<_, _>>()?,
            load_balancing: s.load_balancing.map(load_balancing).transpose()?.unwrap_or_default(),
            ip_families,
            canonical: s.canonical,
            ingress_use_waypoint: s.ingress_use_waypoint,
            // An unknown visibility falls back to public, as upstream does.
            private: s.visibility == pb::service::Visibility::Namespace as i32,
            extension: ServiceExtension::find(&s.extensions)?,
        })
    }
}

fn vip(a: pb::NetworkAddress) -> Result<Vip, InvalidService> {
    let block = a.length.map(|length| block(&a.address, length).ok_or(InvalidService::Prefix(length)));
    let address = network_address(a)?;
    // A block of one address is that address.
    let prefix =
        block.transpose()?.map(|b| b.prefix_len()).filter(|length| *length != IpNet::from(address.ip).prefix_len());
    Ok(Vip { address, prefix })
}

fn load_balancing(lb: pb::LoadBalancing) -> Result<LoadBalancing, InvalidWorkload> {
    use pb::load_balancing as w;
    let unsupported = |field, value| InvalidWorkload::Enum { field, value };
    let preference = lb
        .routing_preference
        .iter()
        .filter_map(|scope| match w::Scope::try_from(*scope) {
            Ok(w::Scope::UnspecifiedScope) => None,
            Ok(w::Scope::Region) => Some(Ok(Scope::Region)),
            Ok(w::Scope::Zone) => Some(Ok(Scope::Zone)),
            Ok(w::Scope::Subzone) => Some(Ok(Scope::Subzone)),
            Ok(w::Scope::Node) => Some(Ok(Scope::Node)),
            Ok(w::Scope::Cluster) => Some(Ok(Scope::Cluster)),
            Ok(w::Scope::Network) => Some(Ok(Scope::Network)),
            Err(_) => Some(Err(unsupported("load_balancing.routing_preference", *scope))),
        })
        .collect::<Result<_, _>>()?;
    let mode = match w::Mode::try_from(lb.mode) {
        Ok(w::Mode::UnspecifiedMode) => BalanceMode::Any,
        Ok(w::Mode::Strict) => BalanceMode::Strict,
        Ok(w::Mode::Failover) => BalanceMode::Failover,
        Ok(w::Mode::Passthrough) => BalanceMode::Passthrough,
        Err(_) => return Err(unsupported("load_balancing.mode", lb.mode)),
    };
    let allow_unhealthy = match w::HealthPolicy::try_from(lb.health_policy) {
        Ok(policy) => policy == w::HealthPolicy::AllowAll,
        Err(_) => return Err(unsupported("load_balancing.health_policy", lb.health_policy)),
    };
    Ok(LoadBalancing { preference, mode, allow_unhealthy })
}

impl From<&Service> for pb::Service {
    fn from(s: &Service) -> Self {
        use pb::load_balancing as w;
        let lb = &s.load_balancing;
        Self {
            name: s.name.to_string(),
            namespace: s.namespace.to_string(),
            hostname: s.hostname.to_string(),
            addresses: s
                .vips
                .iter()
                .map(|vip| pb::NetworkAddress {
                    network: vip.address.network.to_string(),
                    address: ip_bytes(vip.address.ip).into(),
                    length: vip.prefix.map(Into::into),
                })
                .collect(),
            ports: ports_to_wire(&s.ports),
            subject_alt_names: s.subject_alt_names.iter().map(ToString::to_string).collect(),
            waypoint: s.waypoint.as_deref().map(gateway_to_wire),
            load_balancing: (*lb != LoadBalancing::default()).then(|| pb::LoadBalancing {
                routing_preference: lb
                    .preference
                    .iter()
                    .map(|scope| {
                        match scope {
                            Scope::Region => w::Scope::Region,
                            Scope::Zone => w::Scope::Zone,
                            Scope::Subzone => w::Scope::Subzone,
                            Scope::Node => w::Scope::Node,
                            Scope::Cluster => w::Scope::Cluster,
                            Scope::Network => w::Scope::Network,
                        }
                        .into()
                    })
                    .collect(),
                mode: match lb.mode {
                    BalanceMode::Any => w::Mode::UnspecifiedMode,
                    BalanceMode::Strict => w::Mode::Strict,
                    BalanceMode::Failover => w::Mode::Failover,
                    BalanceMode::Passthrough => w::Mode::Passthrough,
                }
                .into(),
                health_policy: match lb.allow_unhealthy {
                    true => w::HealthPolicy::AllowAll,
                    false => w::HealthPolicy::OnlyHealthy,
                }
                .into(),
            }),
            ip_families: match s.ip_families {
                IpFamilies::Automatic => pb::IpFamilies::Automatic,
                IpFamilies::Ipv4 => pb::IpFamilies::Ipv4Only,
                IpFamilies::Ipv6 => pb::IpFamilies::Ipv6Only,
                IpFamilies::Dual => pb::IpFamilies::Dual,
            }
            .into(),
            extensions: s.extension.iter().map(|e| e.to_wire()).collect(),
            canonical: s.canonical,
            ingress_use_waypoint: s.ingress_use_waypoint,
            weighted_waypoints: s
                .weighted_waypoints
                .iter()
                .map(|(destination, weight)| pb::WeightedWaypoint {
                    destination: Some(gateway_to_wire(destination)),
                    weight: *weight,
                })
                .collect(),
            visibility: match s.private {
                true => pb::service::Visibility::Namespace,
                false => pb::service::Visibility::Public,
            }
            .into(),
        }
    }
}
