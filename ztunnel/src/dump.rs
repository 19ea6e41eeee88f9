//! The state of this ztunnel as JSON, in the shape that `istioctl ztunnel-config` reads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mesh_handoff::PodInfo;
use mesh_identity::store::{State, Status};
use mesh_model::policy::{Action, Facts, Policy, Scope};
use mesh_model::service::Service;
use mesh_model::tables::Tables;
use mesh_model::workload::{PortMapping, Tunnel, Workload};
use serde_json::{Value, json};

use crate::config::Config;

/// What is open for one pod.
pub(crate) type Open = (Arc<PodInfo>, Facts);

/// The tables part.
pub(crate) fn tables(tables: &Tables) -> BTreeMap<&'static str, Value> {
    let sorted = |mut list: Vec<(String, Value)>| {
        list.sort_by(|a, b| a.0.cmp(&b.0));
        Value::Array(list.into_iter().map(|(_, value)| value).collect())
    };
    BTreeMap::from([
        ("workloads", sorted(tables.workloads().map(|w| (w.uid.to_string(), workload(w))).collect())),
        ("services", sorted(tables.services().map(|s| (s.key().to_string(), service(tables, s))).collect())),
        ("policies", sorted(tables.policies().map(|p| (p.key().to_string(), policy(p))).collect())),
    ])
}

/// The rest.
pub(crate) fn own(
    config: &Config,
    pods: &BTreeMap<Arc<str>, Arc<PodInfo>>,
    open: &[Open],
    certificates: &[Status],
) -> BTreeMap<&'static str, Value> {
    let pod = |(uid, info): (&Arc<str>, &Arc<PodInfo>)| {
        let inbound: Vec<Value> = open.iter().filter(|(pod, _)| pod == info).map(|(_, f)| connection(f)).collect();
        let info = json!({ "name": info.name, "namespace": info.namespace, "serviceAccount": info.service_account });
        (uid.to_string(), json!({ "state": "Up", "connections": { "inbound": inbound }, "info": info }))
    };
    BTreeMap::from([
        ("workloadState", Value::Object(pods.iter().map(pod).collect())),
        ("certificates", Value::Array(certificates.iter().map(certificate).collect())),
        (
            "config",
            json!({
                "node": config.node,
                "clusterId": config.cluster,
                "network": config.network,
                "workers": config.workers,
                "secretTtlSeconds": config.certificate_lifetime.as_secs(),
                "drainSeconds": config.drain.as_secs(),
            }),
        ),
        ("version", json!({ "version": env!("CARGO_PKG_VERSION"), "buildStatus": "Ambit" })),
    ])
}

fn connection(facts: &Facts) -> Value {
    json!({
        "src": facts.source_ip.to_string(),
        "srcIdentity": facts.source.as_ref().map(ToString::to_string),
        "originalDst": facts.destination.to_string(),
    })
}

fn certificate(status: &Status) -> Value {
    let state = match &status.state {
        State::Pending => "Initializing".to_owned(),
        State::Valid => "Available".to_owned(),
        State::Expired => "Expired".to_owned(),
        State::RenewalFails(error) => format!("Available, renewal fails: {error}"),
        State::Unavailable(error) => format!("Unavailable: {error}"),
    };
    let chain: Vec<Value> = status
        .credentials
        .iter()
        .map(|c| {
            let certificate = c.certificate();
            json!({
                "serialNumber": certificate.serial(),
                "validFrom": unix(certificate.not_before()),
                "expirationTime": unix(certificate.not_after()),
            })
        })
        .collect();
    json!({ "identity": status.id.to_string(), "state": state, "certChain": chain })
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn ports(ports: &[PortMapping]) -> Value {
    Value::Object(ports.iter().map(|p| (p.service_port.to_string(), p.target_port.into())).collect())
}

fn workload(w: &Arc<Workload>) -> Value {
    json!({
        "uid": &*w.uid,
        "name": &*w.name,
        "namespace": &*w.namespace,
        "workloadIps": w.addresses,
        "protocol": match w.tunnel { Tunnel::Hbone => "HBONE", Tunnel::None => "TCP" },
        "network": &*w.network,
        "trustDomain": &*w.trust_domain,
        "serviceAccount": &*w.service_account,
        "node": &*w.node,
        "workloadName": &*w.workload_name,
        "workloadType": w.workload_type.as_str(),
        "canonicalName": &*w.canonical_name,
        "canonicalRevision": &*w.canonical_revision,
        "clusterId": &*w.cluster,
        "status": if w.healthy { "Healthy" } else { "Unhealthy" },
        "capacity": w.capacity,
        "authorizationPolicies": w.authorization_policies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "services": w.services.iter().map(|(key, list)| (key.to_string(), ports(list)))
            .collect::<serde_json::Map<_, _>>(),
        "waypoint": w.waypoint.as_ref().map(|g| json!({ "destination": g.to_string() })),
    })
}

fn service(tables: &Tables, s: &Arc<Service>) -> Value {
    let key = s.key();
    let endpoint = |w: &Arc<Workload>| {
        let status = if w.healthy { "Healthy" } else { "Unhealthy" };
        let port = ports(w.services.get(&key).map_or(&[], |list| list));
        (w.uid.to_string(), json!({ "workloadUid": &*w.uid, "port": port, "status": status }))
    };
    json!({
        "name": &*s.name,
        "namespace": &*s.namespace,
        "hostname": &*s.hostname,
        "vips": s.vips.iter().map(|vip| vip.address.to_string()).collect::<Vec<_>>(),
        "ports": ports(&s.ports),
        "endpoints": tables.endpoints(&key).iter().map(endpoint).collect::<serde_json::Map<_, _>>(),
        "subjectAltNames": s.subject_alt_names.iter().map(|n| &**n).collect::<Vec<_>>(),
        "waypoint": s.waypoint.as_ref().map(|g| json!({ "destination": g.to_string() })),
    })
}

fn policy(p: &Arc<Policy>) -> Value {
    json!({
        "name": &*p.name,
        "namespace": &*p.namespace,
        "scope": match p.scope {
            Scope::Global => "Global",
            Scope::Namespace => "Namespace",
            Scope::WorkloadSelector => "WorkloadSelector",
        },
        "action": match p.action { Action::Allow => "Allow", Action::Deny => "Deny" },
        "dryRun": p.dry_run,
        "rules": p.rules.len(),
    })
}
