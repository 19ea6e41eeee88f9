//! The state of a proxy as JSON, in the shape that `istioctl ztunnel-config` reads.

mod certificates;
mod policies;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_identity::store::Status;
use mesh_model::address::{GatewayAddress, GatewayDestination};
use mesh_model::pod::PodInfo;
use mesh_model::service::{BalanceMode, IpFamilies, LoadBalancing, Service, Vip};
use mesh_model::tables::Tables;
use mesh_model::workload::{PortMapping, Tunnel, Workload};
use serde_json::{Value, json};

use crate::connections::{InboundConnection, OpenConnections, OutboundConnection};

/// The tables part.
pub fn tables(tables: &Tables) -> BTreeMap<&'static str, Value> {
    let sorted = |mut list: Vec<(String, Value)>| {
        list.sort_by(|a, b| a.0.cmp(&b.0));
        Value::Array(list.into_iter().map(|(_, value)| value).collect())
    };
    BTreeMap::from([
        ("workloads", sorted(tables.workloads().map(|w| (w.uid.to_string(), workload(w))).collect())),
        ("services", sorted(tables.services().map(|s| (s.key().to_string(), service(tables, s))).collect())),
        ("policies", sorted(tables.policies().map(|p| (p.key().to_string(), policies::policy(p))).collect())),
    ])
}

/// What is held beside the tables: the `pods` that are served, by uid, with what is open of each, and certificates.
pub fn held(
    pods: &BTreeMap<Arc<str>, Arc<PodInfo>>,
    open: &OpenConnections,
    certificates: &[Status],
) -> BTreeMap<&'static str, Value> {
    let pod = |(uid, info): (&Arc<str>, &Arc<PodInfo>)| {
        let to_pod: Vec<Value> = open.inbound.iter().filter(|c| c.pod == *info).map(inbound).collect();
        let of_pod: Vec<Value> = open.outbound.iter().filter(|c| c.pod == *info).map(outbound).collect();
        let connections = json!({ "inbound": to_pod, "outbound": of_pod });
        let info = json!({ "name": info.name, "namespace": info.namespace, "serviceAccount": info.service_account });
        (uid.to_string(), json!({ "state": "Up", "connections": connections, "info": info }))
    };
    BTreeMap::from([
        ("workloadState", Value::Object(pods.iter().map(pod).collect())),
        ("certificates", Value::Array(certificates.iter().map(certificates::held).collect())),
        // Endpoints of services that are not known yet. Here they wait with their workload.
        ("stagedServices", json!({})),
    ])
}

fn protocol(tunnel: bool) -> &'static str {
    if tunnel { "HBONE" } else { "TCP" }
}

fn inbound(InboundConnection { from, facts, service, .. }: &InboundConnection) -> Value {
    json!({
        "src": from.to_string(),
        "originalDst": service.as_ref().map(|service| &*service.hostname),
        "actualDst": facts.destination.to_string(),
        "protocol": protocol(facts.source.is_some()),
        "srcIdentity": facts.source.as_ref().map(ToString::to_string),
    })
}

fn outbound(OutboundConnection { from, dialled, to, tunnel, .. }: &OutboundConnection) -> Value {
    json!({
        "src": from.to_string(),
        "originalDst": dialled.to_string(),
        "actualDst": to.to_string(),
        "protocol": protocol(*tunnel),
    })
}

fn ports(ports: &[PortMapping]) -> Value {
    Value::Object(ports.iter().map(|p| (p.service_port.to_string(), p.target_port.into())).collect())
}

/// A waypoint or a network's gateway: its key or its address is how `istioctl` finds its name.
fn gateway(gateway: Option<&Arc<GatewayAddress>>) -> Value {
    let Some(gateway) = gateway else { return Value::Null };
    let destination = match &gateway.destination {
        GatewayDestination::Hostname(name) => name.to_string(),
        GatewayDestination::Address(address) => address.to_string(),
    };
    json!({ "destination": destination, "hboneMtlsPort": gateway.hbone_mtls_port })
}

fn status(w: &Workload) -> &'static str {
    if w.healthy { "Healthy" } else { "Unhealthy" }
}

fn workload(w: &Arc<Workload>) -> Value {
    json!({
        "uid": &*w.uid,
        "name": &*w.name,
        "namespace": &*w.namespace,
        "workloadIps": w.addresses,
        "hostname": &*w.hostname,
        "protocol": protocol(w.tunnel == Tunnel::Hbone),
        "nativeTunnel": w.native_tunnel,
        "network": &*w.network,
        "networkMode": if w.host_network { "HostNetwork" } else { "Standard" },
        "networkGateway": gateway(w.network_gateway.as_ref()),
        "trustDomain": &*w.trust_domain,
        "serviceAccount": &*w.service_account,
        "node": &*w.node,
        "workloadName": &*w.workload_name,
        "workloadType": w.workload_type.as_str(),
        "canonicalName": &*w.canonical_name,
        "canonicalRevision": &*w.canonical_revision,
        "clusterId": &*w.cluster,
        "locality": {
            "region": &*w.locality.region,
            "zone": &*w.locality.zone,
            "subzone": &*w.locality.subzone,
        },
        "status": status(w),
        "capacity": w.capacity,
        "authorizationPolicies": w.authorization_policies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "applicationTunnel": w.application_tunnel.map(|tunnel| json!({
            "protocol": if tunnel.proxy_protocol { "PROXY" } else { "NONE" },
            "port": (tunnel.port != 0).then_some(tunnel.port),
        })),
        "services": w.services.iter().map(|(key, list)| (key.to_string(), ports(list)))
            .collect::<serde_json::Map<_, _>>(),
        "waypoint": gateway(w.waypoint.as_ref()),
    })
}

fn service(tables: &Tables, s: &Arc<Service>) -> Value {
    let key = s.key();
    let endpoint = |w: &Arc<Workload>| {
        let port = ports(w.services.get(&key).map_or(&[], |list| list));
        let shown = json!({ "workloadUid": &*w.uid, "service": key.to_string(), "port": port, "status": status(w) });
        (w.uid.to_string(), shown)
    };
    let (blocks, vips): (Vec<&Vip>, Vec<&Vip>) = s.vips.iter().partition(|vip| vip.prefix.is_some());
    let block = |vip: &&Vip| {
        let cidr = format!("{}/{}", vip.address.ip, vip.prefix.unwrap_or_default());
        json!({ "cidr": cidr, "network": &*vip.address.network })
    };
    json!({
        "name": &*s.name,
        "namespace": &*s.namespace,
        "hostname": &*s.hostname,
        "vips": vips.iter().map(|vip| vip.address.to_string()).collect::<Vec<_>>(),
        "cidrVips": blocks.iter().map(block).collect::<Vec<_>>(),
        "ports": ports(&s.ports),
        "endpoints": tables.endpoints(&key).iter().map(endpoint).collect::<serde_json::Map<_, _>>(),
        "subjectAltNames": s.subject_alt_names.iter().map(|n| &**n).collect::<Vec<_>>(),
        "loadBalancer": load_balancer(&s.load_balancing),
        "ipFamilies": match s.ip_families {
            IpFamilies::Automatic => Value::Null,
            IpFamilies::Ipv4 => "IPv4".into(),
            IpFamilies::Ipv6 => "IPv6".into(),
            IpFamilies::Dual => "Dual".into(),
        },
        "canonical": s.canonical,
        "visibility": if s.private { "Private" } else { "Public" },
        "waypoint": gateway(s.waypoint.as_ref()),
    })
}

/// Nothing where every healthy endpoint serves alike.
fn load_balancer(balancing: &LoadBalancing) -> Value {
    if *balancing == LoadBalancing::default() {
        return Value::Null;
    }
    json!({
        "mode": match balancing.mode {
            BalanceMode::Any => "Standard",
            BalanceMode::Strict => "Strict",
            BalanceMode::Failover => "Failover",
            BalanceMode::Passthrough => "Passthrough",
        },
        "routingPreferences": balancing.preference.iter().map(|scope| format!("{scope:?}")).collect::<Vec<_>>(),
        "healthPolicy": if balancing.allow_unhealthy { "AllowAll" } else { "OnlyHealthy" },
    })
}

#[cfg(test)]
mod tests;
