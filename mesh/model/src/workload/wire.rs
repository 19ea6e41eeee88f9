//! Workload ↔ `istio.workload.Workload`.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh_proto::workload as pb;

use super::{AppProtocol, ApplicationTunnel, DEFAULT_CLUSTER, Locality, PortMapping, Tunnel, Workload, WorkloadType};
use crate::address::{GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress};
use crate::identity::{DEFAULT_SERVICE_ACCOUNT, DEFAULT_TRUST_DOMAIN};
use crate::shared::text;

/// Why a workload was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWorkload {
    /// No uid.
    #[error("uid is empty")]
    NoUid,
    /// An address that is neither IPv4 nor IPv6.
    #[error("an address has {0} bytes, expected 4 or 16")]
    Address(usize),
    /// A port above 65535.
    #[error("port {0} is above 65535")]
    Port(u32),
    /// An enum value this version does not know or does not take.
    #[error("{field} {value} is not supported")]
    Enum {
        /// The field of the message.
        field: &'static str,
        /// Its number.
        value: i32,
    },
    /// A gateway that is neither hostname nor address.
    #[error("{0} names neither a hostname nor an address")]
    Gateway(&'static str),
    /// A key that is not `namespace/name`.
    #[error("{field} {key:?} is not namespace/name")]
    Key {
        /// The field of the message.
        field: &'static str,
        /// The text.
        key: String,
    },
}

/// 4 or 16 bytes → an address in normal form.
pub(crate) fn ip(bytes: &[u8]) -> Result<IpAddr, InvalidWorkload> {
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).unwrap_or_default()),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap_or_default()),
        n => return Err(InvalidWorkload::Address(n)),
    };
    Ok(ip.to_canonical())
}

/// A block of addresses in normal form: an IPv4-mapped IPv6 block becomes the IPv4 block it maps. `None` when the
/// bytes are no address or the prefix does not fit it.
pub(crate) fn block(bytes: &[u8], length: u32) -> Option<IpNet> {
    let first = ip(bytes).ok()?;
    let mapped = bytes.len() == 16 && first.is_ipv4();
    let length = if mapped { length.checked_sub(96)? } else { length };
    IpNet::new(first, u8::try_from(length).ok()?).ok()
}

/// An address → 4 or 16 bytes.
pub(crate) fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(crate) fn port(port: u32) -> Result<u16, InvalidWorkload> {
    u16::try_from(port).map_err(|_| InvalidWorkload::Port(port))
}

/// A number may be there twice, as DNS's is: istiod sends the ports of UDP, too. The last counts, as upstream has it.
pub(crate) fn ports(ports: Vec<pb::Port>) -> Result<Vec<PortMapping>, InvalidWorkload> {
    let mut all: Vec<PortMapping> = ports
        .into_iter()
        .map(|p| {
            let app_protocol = match pb::AppProtocol::try_from(p.app_protocol) {
                Ok(pb::AppProtocol::Unknown) => AppProtocol::Unknown,
                Ok(pb::AppProtocol::Http11) => AppProtocol::Http11,
                Ok(pb::AppProtocol::Http2) => AppProtocol::Http2,
                Ok(pb::AppProtocol::Grpc) => AppProtocol::Grpc,
                Ok(pb::AppProtocol::Tcp) => AppProtocol::Tcp,
                Ok(pb::AppProtocol::Tls) => AppProtocol::Tls,
                Err(_) => return Err(InvalidWorkload::Enum { field: "app_protocol", value: p.app_protocol }),
            };
            Ok(PortMapping { service_port: port(p.service_port)?, target_port: port(p.target_port)?, app_protocol })
        })
        .collect::<Result<_, _>>()?;
    if is_any_twice(&all) {
        let mut seen = HashSet::with_capacity(all.len());
        all.reverse();
        all.retain(|p| seen.insert(p.service_port));
        all.reverse();
    }
    Ok(all)
}

/// Few are compared with each other, which costs nothing; of many it is taken for granted.
fn is_any_twice(ports: &[PortMapping]) -> bool {
    const FEW: usize = 16;
    let twice = |(i, port): (usize, &PortMapping)| ports[..i].iter().any(|p| p.service_port == port.service_port);
    ports.len() > FEW || ports.iter().enumerate().any(twice)
}

pub(crate) fn ports_to_wire(ports: &[PortMapping]) -> Vec<pb::Port> {
    ports
        .iter()
        .map(|p| pb::Port {
            service_port: p.service_port.into(),
            target_port: p.target_port.into(),
            app_protocol: match p.app_protocol {
                AppProtocol::Unknown => pb::AppProtocol::Unknown,
                AppProtocol::Http11 => pb::AppProtocol::Http11,
                AppProtocol::Http2 => pb::AppProtocol::Http2,
                AppProtocol::Grpc => pb::AppProtocol::Grpc,
                AppProtocol::Tcp => pb::AppProtocol::Tcp,
                AppProtocol::Tls => pb::AppProtocol::Tls,
            }
            .into(),
        })
        .collect()
}

pub(crate) fn network_address(address: pb::NetworkAddress) -> Result<NetworkAddress, InvalidWorkload> {
    Ok(NetworkAddress { network: text(&address.network), ip: ip(&address.address)? })
}

pub(crate) fn gateway(
    field: &'static str,
    gateway: Option<pb::GatewayAddress>,
) -> Result<Option<GatewayAddress>, InvalidWorkload> {
    use pb::gateway_address::Destination;
    let Some(gateway) = gateway else { return Ok(None) };
    let destination = match gateway.destination {
        Some(Destination::Hostname(h)) => GatewayDestination::Hostname(NamespacedName::new(
            text(&h.namespace),
            text(&h.hostname.to_ascii_lowercase()),
        )),
        Some(Destination::Address(a)) => GatewayDestination::Address(network_address(a)?),
        None => return Err(InvalidWorkload::Gateway(field)),
    };
    Ok(Some(GatewayAddress { destination, hbone_mtls_port: port(gateway.hbone_mtls_port)? }))
}

pub(crate) fn gateway_to_wire(gateway: &GatewayAddress) -> pb::GatewayAddress {
    use pb::gateway_address::Destination;
    pb::GatewayAddress {
        destination: Some(match &gateway.destination {
            GatewayDestination::Hostname(h) => Destination::Hostname(pb::NamespacedHostname {
                namespace: h.namespace.to_string(),
                hostname: h.name.to_string(),
            }),
            GatewayDestination::Address(a) => Destination::Address(pb::NetworkAddress {
                network: a.network.to_string(),
                address: ip_bytes(a.ip).into(),
                length: None,
            }),
        }),
        hbone_mtls_port: gateway.hbone_mtls_port.into(),
    }
}

fn service_key(key: &str) -> Result<NamespacedName, InvalidWorkload> {
    NamespacedName::parse_service(key).ok_or_else(|| InvalidWorkload::Key { field: "services", key: key.into() })
}

fn or_default(value: &str, default: &str) -> Arc<str> {
    text(if value.is_empty() { default } else { value })
}

fn unless_default(value: &str, default: &str) -> String {
    if value == default { String::new() } else { value.into() }
}

impl TryFrom<pb::Workload> for Workload {
    type Error = InvalidWorkload;

    fn try_from(w: pb::Workload) -> Result<Self, InvalidWorkload> {
        if w.uid.is_empty() {
            return Err(InvalidWorkload::NoUid);
        }
        let unsupported = |field, value| InvalidWorkload::Enum { field, value };
        let tunnel = match pb::TunnelProtocol::try_from(w.tunnel_protocol) {
            Ok(pb::TunnelProtocol::None) => Tunnel::None,
            Ok(pb::TunnelProtocol::Hbone) => Tunnel::Hbone,
            Ok(pb::TunnelProtocol::LegacyIstioMtls) | Err(_) => {
                return Err(unsupported("tunnel_protocol", w.tunnel_protocol));
            }
        };
        let workload_type = match pb::WorkloadType::try_from(w.workload_type) {
            Ok(pb::WorkloadType::Deployment) => WorkloadType::Deployment,
            Ok(pb::WorkloadType::Cronjob) => WorkloadType::CronJob,
            Ok(pb::WorkloadType::Pod) => WorkloadType::Pod,
            Ok(pb::WorkloadType::Job) => WorkloadType::Job,
            Err(_) => return Err(unsupported("workload_type", w.workload_type)),
        };
        let healthy = match pb::WorkloadStatus::try_from(w.status) {
            Ok(status) => status == pb::WorkloadStatus::Healthy,
            Err(_) => return Err(unsupported("status", w.status)),
        };
        let host_network = match pb::NetworkMode::try_from(w.network_mode) {
            Ok(mode) => mode == pb::NetworkMode::HostNetwork,
            Err(_) => return Err(unsupported("network_mode", w.network_mode)),
        };
        let application_tunnel = match w.application_tunnel {
            None => None,
            Some(t) => Some(ApplicationTunnel {
                proxy_protocol: match pb::application_tunnel::Protocol::try_from(t.protocol) {
                    Ok(protocol) => protocol == pb::application_tunnel::Protocol::Proxy,
                    Err(_) => return Err(unsupported("application_tunnel.protocol", t.protocol)),
                },
                port: port(t.port)?,
            }),
        };
        let locality = w.locality.unwrap_or_default();
        Ok(Self {
            uid: w.uid.into(),
            name: w.name.into(),
            namespace: text(&w.namespace),
            addresses: w.addresses.iter().map(|a| ip(a)).collect::<Result<_, _>>()?,
            hostname: text(&w.hostname.to_ascii_lowercase()),
            network: text(&w.network),
            tunnel,
            trust_domain: or_default(&w.trust_domain, DEFAULT_TRUST_DOMAIN),
            service_account: or_default(&w.service_account, DEFAULT_SERVICE_ACCOUNT),
            waypoint: gateway("waypoint", w.waypoint)?.map(GatewayAddress::shared),
            network_gateway: gateway("network_gateway", w.network_gateway)?.map(GatewayAddress::shared),
            node: text(&w.node),
            canonical_name: text(&w.canonical_name),
            canonical_revision: text(&w.canonical_revision),
            workload_type,
            workload_name: text(&w.workload_name),
            native_tunnel: w.native_tunnel,
            authorization_policies: w
                .authorization_policies
                .iter()
                .map(|key| {
                    NamespacedName::parse_shared(key)
                        .ok_or_else(|| InvalidWorkload::Key { field: "authorization_policies", key: key.clone() })
                })
                .collect::<Result<_, _>>()?,
            healthy,
            cluster: or_default(&w.cluster_id, DEFAULT_CLUSTER),
            services: w
                .services
                .into_iter()
                .map(|(key, list)| Ok((service_key(&key)?, ports(list.ports)?)))
                .collect::<Result<_, InvalidWorkload>>()?,
            application_tunnel,
            locality: Locality {
                region: text(&locality.region),
                zone: text(&locality.zone),
                subzone: text(&locality.subzone),
            },
            host_network,
            capacity: w.capacity.unwrap_or(1),
        })
    }
}

impl From<&Workload> for pb::Workload {
    fn from(w: &Workload) -> Self {
        Self {
            uid: w.uid.to_string(),
            name: w.name.to_string(),
            namespace: w.namespace.to_string(),
            addresses: w.addresses.iter().map(|ip| ip_bytes(*ip).into()).collect(),
            hostname: w.hostname.to_string(),
            network: w.network.to_string(),
            tunnel_protocol: match w.tunnel {
                Tunnel::None => pb::TunnelProtocol::None,
                Tunnel::Hbone => pb::TunnelProtocol::Hbone,
            }
            .into(),
            trust_domain: unless_default(&w.trust_domain, DEFAULT_TRUST_DOMAIN),
            service_account: unless_default(&w.service_account, DEFAULT_SERVICE_ACCOUNT),
            waypoint: w.waypoint.as_deref().map(gateway_to_wire),
            network_gateway: w.network_gateway.as_deref().map(gateway_to_wire),
            node: w.node.to_string(),
            canonical_name: w.canonical_name.to_string(),
            canonical_revision: w.canonical_revision.to_string(),
            workload_type: match w.workload_type {
                WorkloadType::Deployment => pb::WorkloadType::Deployment,
                WorkloadType::CronJob => pb::WorkloadType::Cronjob,
                WorkloadType::Pod => pb::WorkloadType::Pod,
                WorkloadType::Job => pb::WorkloadType::Job,
            }
            .into(),
            workload_name: w.workload_name.to_string(),
            native_tunnel: w.native_tunnel,
            authorization_policies: w.authorization_policies.iter().map(ToString::to_string).collect(),
            status: match w.healthy {
                true => pb::WorkloadStatus::Healthy,
                false => pb::WorkloadStatus::Unhealthy,
            }
            .into(),
            cluster_id: unless_default(&w.cluster, DEFAULT_CLUSTER),
            services: w
                .services
                .iter()
                .map(|(key, ports)| (key.to_string(), pb::PortList { ports: ports_to_wire(ports) }))
                .collect(),
            application_tunnel: w.application_tunnel.map(|t| pb::ApplicationTunnel {
                protocol: match t.proxy_protocol {
                    true => pb::application_tunnel::Protocol::Proxy,
                    false => pb::application_tunnel::Protocol::None,
                }
                .into(),
                port: t.port.into(),
            }),
            locality: (w.locality != Locality::default()).then(|| pb::Locality {
                region: w.locality.region.to_string(),
                zone: w.locality.zone.to_string(),
                subzone: w.locality.subzone.to_string(),
            }),
            network_mode: match w.host_network {
                true => pb::NetworkMode::HostNetwork,
                false => pb::NetworkMode::Standard,
            }
            .into(),
            extensions: Vec::new(),
            capacity: (w.capacity != 1).then_some(w.capacity),
        }
    }
}
