//! Workloads and services of a file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_model::address::{GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress, canonical_ip};
use mesh_model::service::{BalanceMode, IpFamilies, LoadBalancing, Scope, Service, Vip};
use mesh_model::shared::text;
use mesh_model::workload::{
    AppProtocol, ApplicationTunnel, Locality, PortMapping, Tunnel, Workload as Model, WorkloadType,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::expected::expected;

const GATEWAY: &str = "network/ip or namespace/hostname";

/// A workload as a file says it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Workload<'a> {
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    service_account: Cow<'a, str>,
    #[serde(borrow)]
    trust_domain: Cow<'a, str>,
    workload_ips: Vec<IpAddr>,
    #[serde(borrow)]
    hostname: Cow<'a, str>,
    protocol: Protocol,
    #[serde(borrow)]
    network: Cow<'a, str>,
    network_mode: NetworkMode,
    network_gateway: Option<Gateway>,
    #[serde(borrow)]
    node: Cow<'a, str>,
    #[serde(borrow)]
    cluster_id: Cow<'a, str>,
    #[serde(borrow)]
    workload_name: Cow<'a, str>,
    #[serde(borrow)]
    workload_type: Cow<'a, str>,
    #[serde(borrow)]
    canonical_name: Cow<'a, str>,
    #[serde(borrow)]
    canonical_revision: Cow<'a, str>,
    native_tunnel: bool,
    application_tunnel: Option<Tunnelled>,
    authorization_policies: Vec<String>,
    status: Status,
    locality: LocalLocality,
    services: BTreeMap<String, BTreeMap<u16, u16>>,
    waypoint: Option<Gateway>,
    capacity: Option<u32>,
}

#[derive(Deserialize, Default)]
enum Protocol {
    #[default]
    #[serde(rename = "TCP", alias = "NONE", alias = "")]
    Tcp,
    #[serde(rename = "HBONE")]
    Hbone,
}

#[derive(Deserialize, Default)]
enum NetworkMode {
    #[default]
    Standard,
    HostNetwork,
}

#[derive(Deserialize, Default)]
enum Status {
    #[default]
    Healthy,
    Unhealthy,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tunnelled {
    protocol: TunnelProtocol,
    port: Option<u16>,
}

#[derive(Deserialize)]
enum TunnelProtocol {
    #[serde(rename = "NONE")]
    None,
    #[serde(rename = "PROXY")]
    Proxy,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct LocalLocality {
    region: String,
    zone: String,
    subzone: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Gateway {
    /// `network/ip` or `namespace/hostname`.
    destination: String,
    hbone_mtls_port: u16,
}

/// A service as a file says it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalService {
    #[serde(default)]
    name: String,
    namespace: String,
    hostname: String,
    #[serde(default)]
    vips: Vec<String>,
    #[serde(default)]
    ports: BTreeMap<u16, u16>,
    /// Follow from the workloads.
    #[serde(default, rename = "endpoints")]
    _endpoints: IgnoredAny,
    #[serde(default)]
    subject_alt_names: Vec<String>,
    waypoint: Option<Gateway>,
    load_balancer: Option<LoadBalancer>,
    ip_families: Option<Families>,
    #[serde(default)]
    canonical: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LoadBalancer {
    #[serde(default)]
    routing_preferences: Vec<Preference>,
    mode: Mode,
    #[serde(default)]
    health_policy: HealthPolicy,
}

#[derive(Deserialize)]
enum Preference {
    Region,
    Zone,
    Subzone,
    Node,
    Cluster,
    Network,
}

#[derive(Deserialize)]
enum Mode {
    Standard,
    Strict,
    Failover,
    Passthrough,
}

#[derive(Deserialize, Default)]
enum HealthPolicy {
    #[default]
    OnlyHealthy,
    AllowAll,
}

#[derive(Deserialize)]
enum Families {
    Dual,
    #[serde(rename = "IPv4")]
    Ipv4,
    #[serde(rename = "IPv6")]
    Ipv6,
}

pub(super) fn workload(w: Workload<'_>) -> Result<Model, String> {
    if w.namespace.is_empty() {
        return Err("the namespace is missing".into());
    }
    if w.uid.is_empty() && w.name.is_empty() {
        return Err("it has neither uid nor name".into());
    }
    let uid: Arc<str> = match w.uid.is_empty() {
        true => format!("{}//Pod/{}/{}", w.cluster_id, w.namespace, w.name).into(),
        false => w.uid.into(),
    };
    let empty = Model::empty(uid);
    // A text that is not said leaves the default.
    let or = |said: &str, default: Arc<str>| if said.is_empty() { default } else { text(said) };
    Ok(Model {
        name: w.name.into(),
        namespace: text(&w.namespace),
        service_account: or(&w.service_account, empty.service_account),
        trust_domain: or(&w.trust_domain, empty.trust_domain),
        cluster: or(&w.cluster_id, empty.cluster),
        addresses: w.workload_ips.into_iter().map(canonical_ip).collect(),
        hostname: text(&w.hostname.to_ascii_lowercase()),
        tunnel: match w.protocol {
            Protocol::Tcp => Tunnel::None,
            Protocol::Hbone => Tunnel::Hbone,
        },
        network: text(&w.network),
        host_network: matches!(w.network_mode, NetworkMode::HostNetwork),
        network_gateway: w.network_gateway.map(|g| gateway("networkGateway", &g)).transpose()?,
        node: text(&w.node),
        workload_name: text(&w.workload_name),
        workload_type: match w.workload_type.to_ascii_lowercase().as_str() {
            "" | "deployment" => WorkloadType::Deployment,
            "cronjob" => WorkloadType::CronJob,
            "pod" => WorkloadType::Pod,
            "job" => WorkloadType::Job,
            other => return Err(expected("workloadType", other, "deployment, cronjob, pod or job")),
        },
        canonical_name: text(&w.canonical_name),
        canonical_revision: text(&w.canonical_revision),
        native_tunnel: w.native_tunnel,
        application_tunnel: w.application_tunnel.map(|t| ApplicationTunnel {
            proxy_protocol: matches!(t.protocol, TunnelProtocol::Proxy),
            port: t.port.unwrap_or(0),
        }),
        authorization_policies: w
            .authorization_policies
            .iter()
            .map(|key| {
                NamespacedName::parse_shared(key)
                    .ok_or_else(|| expected("authorizationPolicies", key, "namespace/name"))
            })
            .collect::<Result<_, _>>()?,
        healthy: matches!(w.status, Status::Healthy),
        locality: Locality {
            region: text(&w.locality.region),
            zone: text(&w.locality.zone),
            subzone: text(&w.locality.subzone),
        },
        services: w
            .services
            .iter()
            .map(|(key, ports)| {
                let service = NamespacedName::parse_service(key);
                Ok((service.ok_or_else(|| expected("services", key, "namespace/hostname"))?, port_mappings(ports)))
            })
            .collect::<Result<_, String>>()?,
        waypoint: w.waypoint.map(|g| gateway("waypoint", &g)).transpose()?,
        capacity: w.capacity.unwrap_or(1),
        uid: empty.uid,
    })
}

pub(super) fn service(s: LocalService) -> Result<Service, String> {
    let key = format!("{}/{}", s.namespace, s.hostname);
    let key = NamespacedName::parse_service(&key)
        .ok_or_else(|| expected("namespace and hostname", &key, "two parts without a slash"))?;
    let vip = |text: &String| vip(text).ok_or_else(|| expected("vips", text, "network/ip or network/ip/length"));
    Ok(Service {
        name: text(&s.name),
        vips: s.vips.iter().map(vip).collect::<Result<_, _>>()?,
        ports: port_mappings(&s.ports),
        subject_alt_names: s.subject_alt_names.iter().map(|name| text(name)).collect(),
        waypoint: s.waypoint.map(|g| gateway("waypoint", &g)).transpose()?,
        load_balancing: s.load_balancer.map(load_balancing).unwrap_or_default(),
        ip_families: match s.ip_families {
            None => IpFamilies::Automatic,
            Some(Families::Dual) => IpFamilies::Dual,
            Some(Families::Ipv4) => IpFamilies::Ipv4,
            Some(Families::Ipv6) => IpFamilies::Ipv6,
        },
        canonical: s.canonical,
        ..Service::empty(key.namespace, key.name)
    })
}

fn load_balancing(lb: LoadBalancer) -> LoadBalancing {
    let scope = |preference| match preference {
        Preference::Region => Scope::Region,
        Preference::Zone => Scope::Zone,
        Preference::Subzone => Scope::Subzone,
        Preference::Node => Scope::Node,
        Preference::Cluster => Scope::Cluster,
        Preference::Network => Scope::Network,
    };
    LoadBalancing {
        preference: lb.routing_preferences.into_iter().map(scope).collect(),
        mode: match lb.mode {
            Mode::Standard => BalanceMode::Any,
            Mode::Strict => BalanceMode::Strict,
            Mode::Failover => BalanceMode::Failover,
            Mode::Passthrough => BalanceMode::Passthrough,
        },
        allow_unhealthy: matches!(lb.health_policy, HealthPolicy::AllowAll),
    }
}

fn port_mappings(ports: &BTreeMap<u16, u16>) -> Vec<PortMapping> {
    let mapping = |(service_port, target_port): (&u16, &u16)| PortMapping {
        service_port: *service_port,
        target_port: *target_port,
        app_protocol: AppProtocol::Unknown,
    };
    ports.iter().map(mapping).collect()
}

/// `network/ip`; the network may be empty.
fn network_address(address: &str) -> Option<NetworkAddress> {
    let (network, ip) = address.split_once('/')?;
    Some(NetworkAddress { network: text(network), ip: canonical_ip(ip.parse().ok()?) })
}

/// `network/ip`, or `network/ip/length` of a block.
fn vip(text: &str) -> Option<Vip> {
    if let Some(address) = network_address(text) {
        return Some(Vip { address, prefix: None });
    }
    let (address, length) = text.rsplit_once('/')?;
    let address = network_address(address)?;
    let (length, whole): (u8, u8) = (length.parse().ok()?, if address.ip.is_ipv4() { 32 } else { 128 });
    // A block of one address is that address.
    (length <= whole).then(|| Vip { address, prefix: (length < whole).then_some(length) })
}

fn gateway(field: &str, gateway: &Gateway) -> Result<Arc<GatewayAddress>, String> {
    let destination = match network_address(&gateway.destination) {
        Some(address) => GatewayDestination::Address(address),
        None => GatewayDestination::Hostname(
            NamespacedName::parse_service(&gateway.destination)
                .ok_or_else(|| expected(field, &gateway.destination, GATEWAY))?,
        ),
    };
    Ok(GatewayAddress { destination, hbone_mtls_port: gateway.hbone_mtls_port }.shared())
}
