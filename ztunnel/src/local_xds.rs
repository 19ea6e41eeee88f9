//! Workloads, services and policies from a file, in upstream's format (`LOCAL_XDS_PATH`): camelCase YAML with the
//! lists `workloads`, `services` and `policies`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_model::address::{GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress};
use mesh_model::resource::Resource;
use mesh_model::service::{Service, Vip};
use mesh_model::workload::{AppProtocol, PortMapping, Tunnel, Workload, WorkloadType};
use serde::Deserialize;

/// Why a file was refused. Unlike a control plane's resources it is refused as a whole: nobody is there to be told.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFile {
    /// Not the YAML expected.
    #[error("{0}")]
    Yaml(String),
    /// A value that means nothing.
    #[error("{object}: {field} {value:?}: expected {expected}")]
    Value {
        /// Which workload or service.
        object: String,
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    workloads: Vec<LocalWorkload>,
    #[serde(default)]
    services: Vec<LocalService>,
    #[serde(default)]
    policies: Vec<LocalPolicy>,
}

/// Fields that only upstream's own tests use are not read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LocalWorkload {
    #[serde(default)]
    uid: String,
    name: String,
    namespace: String,
    #[serde(default)]
    service_account: String,
    #[serde(default)]
    trust_domain: String,
    #[serde(default)]
    workload_ips: Vec<IpAddr>,
    #[serde(default)]
    protocol: String,
    #[serde(default)]
    node: String,
    #[serde(default)]
    network: String,
    #[serde(default)]
    cluster_id: String,
    #[serde(default)]
    workload_name: String,
    #[serde(default)]
    workload_type: String,
    #[serde(default)]
    canonical_name: String,
    #[serde(default)]
    canonical_revision: String,
    #[serde(default)]
    authorization_policies: Vec<String>,
    #[serde(default)]
    services: BTreeMap<String, BTreeMap<u16, u16>>,
    waypoint: Option<LocalGateway>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LocalGateway {
    /// `network/ip` or `namespace/hostname`.
    destination: String,
    hbone_mtls_port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LocalService {
    name: String,
    namespace: String,
    hostname: String,
    #[serde(default)]
    vips: Vec<String>,
    #[serde(default)]
    ports: BTreeMap<u16, u16>,
    #[serde(default)]
    subject_alt_names: Vec<String>,
    waypoint: Option<LocalGateway>,
}

/// A policy is what it is on the wire, so that nothing about it is said twice; hence the file can only hold none.
#[derive(Deserialize)]
struct LocalPolicy {}

/// Reads a file's text.
///
/// # Errors
/// Says where and what, for the person who wrote it.
pub fn parse(text: &str) -> Result<Vec<Resource>, InvalidFile> {
    let file: File = serde_saphyr::from_str(text).map_err(|e| InvalidFile::Yaml(e.to_string()))?;
    if !file.policies.is_empty() {
        return Err(InvalidFile::Yaml(
            "policies in a local file are not supported: give them through the control plane".into(),
        ));
    }
    let services = file.services.into_iter().map(|s| service(s).map(|s| Resource::Service(Arc::new(s))));
    let workloads = file.workloads.into_iter().map(|w| workload(w).map(|w| Resource::Workload(Arc::new(w))));
    services.chain(workloads).collect()
}

fn workload(w: LocalWorkload) -> Result<Workload, InvalidFile> {
    let object = format!("workload {}/{}", w.namespace, w.name);
    let invalid = |field, value: &str, expected| InvalidFile::Value {
        object: object.clone(),
        field,
        value: value.to_owned(),
        expected,
    };
    let key = |field, text: &str| NamespacedName::parse(text).ok_or_else(|| invalid(field, text, "namespace/name"));
    let uid = if w.uid.is_empty() { format!("{}//Pod/{}/{}", w.cluster_id, w.namespace, w.name) } else { w.uid };
    let mut workload = Workload::empty(uid);
    if !w.service_account.is_empty() {
        workload.service_account = w.service_account.into();
    }
    if !w.trust_domain.is_empty() {
        workload.trust_domain = w.trust_domain.into();
    }
    if !w.cluster_id.is_empty() {
        workload.cluster = w.cluster_id.into();
    }
    workload.tunnel = match w.protocol.as_str() {
        "" | "TCP" | "NONE" => Tunnel::None,
        "HBONE" => Tunnel::Hbone,
        other => return Err(invalid("protocol", other, "HBONE or TCP")),
    };
    workload.workload_type = match w.workload_type.to_ascii_lowercase().as_str() {
        "" | "deployment" => WorkloadType::Deployment,
        "cronjob" => WorkloadType::CronJob,
        "pod" => WorkloadType::Pod,
        "job" => WorkloadType::Job,
        other => return Err(invalid("workloadType", other, "deployment, cronjob, pod or job")),
    };
    workload.addresses = w.workload_ips.into_iter().map(mesh_model::address::canonical_ip).collect();
    workload.services = w
        .services
        .iter()
        .map(|(name, ports)| Ok((key("services", name)?, port_mappings(ports))))
        .collect::<Result<_, _>>()?;
    workload.authorization_policies =
        w.authorization_policies.iter().map(|name| key("authorizationPolicies", name)).collect::<Result<_, _>>()?;
    workload.waypoint = w
        .waypoint
        .map(|g| gateway(&g).ok_or_else(|| invalid("waypoint", &g.destination, "network/ip or namespace/hostname")))
        .transpose()?
        .map(GatewayAddress::shared);
    workload.name = w.name.into();
    workload.namespace = w.namespace.into();
    workload.node = w.node.into();
    workload.network = w.network.into();
    workload.workload_name = w.workload_name.into();
    workload.canonical_name = w.canonical_name.into();
    workload.canonical_revision = w.canonical_revision.into();
    Ok(workload)
}

fn service(s: LocalService) -> Result<Service, InvalidFile> {
    let object = format!("service {}/{}", s.namespace, s.hostname);
    let invalid = |field, value: &str, expected| InvalidFile::Value {
        object: object.clone(),
        field,
        value: value.to_owned(),
        expected,
    };
    let mut service = Service::empty(s.namespace, s.hostname.to_ascii_lowercase());
    service.name = s.name.into();
    service.vips = s
        .vips
        .iter()
        .map(|vip| {
            let address = network_address(vip).ok_or_else(|| invalid("vips", vip, "network/ip"))?;
            Ok(Vip { address, prefix: None })
        })
        .collect::<Result<_, _>>()?;
    service.ports = port_mappings(&s.ports);
    service.subject_alt_names = s.subject_alt_names.into_iter().map(Into::into).collect();
    service.waypoint = s
        .waypoint
        .map(|g| gateway(&g).ok_or_else(|| invalid("waypoint", &g.destination, "network/ip or namespace/hostname")))
        .transpose()?
        .map(GatewayAddress::shared);
    Ok(service)
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
fn network_address(text: &str) -> Option<NetworkAddress> {
    let (network, ip) = text.split_once('/')?;
    let ip = mesh_model::address::canonical_ip(ip.parse().ok()?);
    Some(NetworkAddress { network: network.into(), ip })
}

fn gateway(gateway: &LocalGateway) -> Option<GatewayAddress> {
    let destination = match network_address(&gateway.destination) {
        Some(address) => GatewayDestination::Address(address),
        None => GatewayDestination::Hostname(NamespacedName::parse(&gateway.destination)?),
    };
    Some(GatewayAddress { destination, hbone_mtls_port: gateway.hbone_mtls_port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_upstreams_format() {
        let text = r#"
workloads:
- {uid: "Kubernetes//Pod/lab/c", name: c, namespace: lab, serviceAccount: c, trustDomain: cluster.local, workloadIps: ["10.77.1.10"], protocol: HBONE, node: node1, network: "", clusterId: Kubernetes, services: {"lab/c.lab.svc.cluster.local": {80: 8080}}}
policies: []
services:
- {name: c, namespace: lab, hostname: c.lab.svc.cluster.local, vips: ["/10.96.0.10"], ports: {80: 8080}}
"#;
        let resources = parse(text).unwrap();
        let Resource::Service(service) = &resources[0] else { panic!("services come first") };
        assert_eq!(service.vips[0].address.to_string(), "/10.96.0.10");
        let Resource::Workload(workload) = &resources[1] else { panic!("then workloads") };
        assert_eq!(workload.identity().unwrap().to_string(), "spiffe://cluster.local/ns/lab/sa/c");
        assert_eq!(workload.tunnel, Tunnel::Hbone);
        assert_eq!(workload.services[&service.key()][0].target_port, 8080);
    }

    #[test]
    fn refuses_what_it_cannot_mean() {
        for (text, part) in [
            ("workloads: [{name: a, namespace: b, protocol: QUIC}]", "protocol"),
            ("workloads: [{name: a, namespace: b, services: {x: {80: 80}}}]", "services"),
            ("services: [{name: a, namespace: b, hostname: c, vips: [here]}]", "vips"),
            ("policies: [{}]", "policies"),
            ("workload: []", "workload"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
