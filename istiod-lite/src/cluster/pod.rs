//! A pod, as far as anything here depends on it. Pure.
//!
//! A Pod as an API server keeps it takes several kilobytes, of which the mesh needs some hundred bytes. What is read of it is
//! decided here, when it comes in; a change of anything else is no change.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex};

use k8s_openapi::api::core::v1::{Pod as KubernetesPod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::NamespacedName;
use mesh_model::identity::DEFAULT_SERVICE_ACCOUNT;
use mesh_model::labels;
use mesh_model::shared::{self, Shared};

use super::relations;
use crate::resources::labels::{Labelled, Labels};
use crate::resources::life;
pub use crate::resources::life::Stage;

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace, `default` when it says none, and its name.
    pub name: NamespacedName,
    /// Tells it from others of its name, before and after.
    pub uid: Option<Box<str>>,
    /// Of the object that was read.
    pub resource_version: Option<Box<str>>,
    /// Its labels.
    pub labels: Labels,
    /// The name users know its owner by.
    pub workload_name: Arc<str>,
    /// Its service account, `default` when it says none.
    pub service_account: Arc<str>,
    /// Its node; empty while it has none.
    pub node: Arc<str>,
    /// Where it is in its life.
    pub stage: Stage,
    /// In normal form.
    pub addresses: Box<[IpAddr]>,
    /// The ports that have a name, of its containers and sidecars, in their order.
    pub named_ports: Arc<[NamedPort]>,
    /// Its own name below that of a headless service, if it asks for one.
    pub dns_name: Option<Box<DnsName>>,
    /// It is on its node's network, and has no address of its own.
    pub host_network: bool,
    /// The node agent redirects its traffic.
    pub is_captured: bool,
    /// It has ended, and not well.
    pub has_failed: bool,
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedPort {
    /// Its name.
    pub name: Arc<str>,
    /// `TCP` when it says none.
    pub protocol: Arc<str>,
    /// Its number.
    pub port: u16,
}

/// `spec.hostname` and `spec.subdomain`: both are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsName {
    /// Its own name.
    pub hostname: Box<str>,
    /// The Service below whose name it has it.
    pub subdomain: Box<str>,
}

static PORTS: Shared<[NamedPort]> = LazyLock::new(Mutex::default);

impl Pod {
    /// The same, as whoever runs it sees it.
    #[must_use]
    pub fn observed(self, node: &str, addresses: Vec<IpAddr>, stage: Stage) -> Self {
        Self { node: shared::text(node), addresses: addresses.into(), stage, ..self }
    }

    /// Ready for connections through a Service.
    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Ready
    }
}

impl Labelled for Pod {
    fn label(&self, name: &str) -> Option<&str> {
        self.labels.label(name)
    }
}

impl From<&KubernetesPod> for Pod {
    fn from(pod: &KubernetesPod) -> Self {
        let default = PodSpec::default();
        let (metadata, spec) = (&pod.metadata, pod.spec.as_ref().unwrap_or(&default));
        let text = |text: &Option<String>| shared::text(text.as_deref().unwrap_or(""));
        let boxed = |text: &Option<String>| text.as_deref().map(Box::from);
        let account = spec.service_account_name.as_deref().filter(|account| !account.is_empty());
        let redirection = metadata.annotations.as_ref().and_then(|a| a.get(labels::REDIRECTION));
        let named = (spec.hostname.as_deref().filter(|name| !name.is_empty())).zip(spec.subdomain.as_deref());
        Self {
            name: NamespacedName::new(
                shared::text(relations::namespace(metadata)),
                metadata.name.as_deref().unwrap_or(""),
            ),
            uid: boxed(&metadata.uid),
            resource_version: boxed(&metadata.resource_version),
            labels: metadata.labels.as_ref().into(),
            workload_name: shared::text(workload_name(metadata)),
            service_account: shared::text(account.unwrap_or(DEFAULT_SERVICE_ACCOUNT)),
            node: text(&spec.node_name),
            stage: life::stage(pod),
            addresses: life::addresses(pod).into(),
            named_ports: named_ports(spec),
            dns_name: named.map(|(hostname, subdomain)| {
                Box::new(DnsName { hostname: hostname.into(), subdomain: subdomain.into() })
            }),
            host_network: spec.host_network == Some(true),
            is_captured: redirection.is_some_and(|state| state == labels::REDIRECTION_ENABLED),
            has_failed: pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Failed"),
        }
    }
}

/// The name users know the pod's owner by: the Deployment behind a ReplicaSet, the CronJob behind a Job. A pod that
/// somebody named is known by that name, whoever owns it: as istiod has it.
fn workload_name(metadata: &ObjectMeta) -> &str {
    let named_by_owner = metadata.generate_name.as_ref().is_some_and(|stem| !stem.is_empty());
    let owner =
        metadata.owner_references.iter().flatten().find(|owner| named_by_owner && owner.controller == Some(true));
    let Some(owner) = owner else { return metadata.name.as_deref().unwrap_or("") };
    let stem = owner.name.rsplit_once('-');
    match (owner.kind.as_str(), stem) {
        ("ReplicaSet", Some((deployment, hash))) if metadata.label("pod-template-hash") == Some(hash) => deployment,
        // The controller names its Jobs by the scheduled minute.
        ("Job", Some((cron_job, minute))) if minute.len() >= 8 && minute.bytes().all(|b| b.is_ascii_digit()) => {
            cron_job
        }
        _ => owner.name.as_str(),
    }
}

fn named_ports(spec: &PodSpec) -> Arc<[NamedPort]> {
    // Init containers that go on running beside the others are sidecars, and may serve.
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        Some(NamedPort {
            name: shared::text(port.name.as_deref()?),
            protocol: shared::text(relations::protocol(port.protocol.as_deref())),
            // It was validated when it was read.
            port: u16::try_from(port.container_port).unwrap_or(0),
        })
    });
    let named: Vec<_> = named.collect();
    shared::one(&PORTS, &named, |named| named.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::{Kind, Object};

    fn pod(change: impl FnOnce(&mut serde_json::Value)) -> Pod {
        let mut value = json!({
            "metadata": {"name": "p", "namespace": "shop", "uid": "u", "resourceVersion": "7", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "serviceAccountName": "web", "containers": [{
                "name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9}],
            }]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]},
        });
        change(&mut value);
        let Object::Pod(pod) = Object::from_value(Kind::Pod, &value).unwrap() else { panic!("a pod") };
        Pod::from(&*pod)
    }

    /// What changes often and is nobody's business is no change; what equal pods have in common is kept once.
    #[test]
    fn what_nobody_reads_is_no_change() {
        let plain = pod(|_| ());
        let other = pod(|pod| {
            pod["metadata"]["annotations"] = json!({"example.com/checked-at": "12:00"});
            pod["metadata"]["managedFields"] = json!([{"manager": "kubelet"}]);
            pod["spec"]["containers"][0]["image"] = "j".into();
            pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True"}]);
        });
        assert_eq!(plain, other);
        assert!(Arc::ptr_eq(&plain.named_ports, &other.named_ports) && Arc::ptr_eq(&plain.node, &other.node));
        assert_ne!(
            plain,
            pod(|pod| pod["metadata"]["annotations"] = json!({"ambient.istio.io/redirection": "enabled"}))
        );
    }

    #[test]
    fn ports_without_a_name_are_not_kept_and_those_of_sidecars_are() {
        let with = pod(|pod| {
            let sidecar = json!({
                "name": "s", "restartPolicy": "Always",
                "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}],
            });
            let init = json!({"name": "i", "ports": [{"name": "gone", "containerPort": 1}]});
            pod["spec"]["initContainers"] = json!([sidecar, init]);
        });
        let ports: Vec<_> = with.named_ports.iter().map(|p| format!("{} {} {}", p.name, p.protocol, p.port)).collect();
        assert_eq!(ports, ["http TCP 8080", "dns UDP 53"]);
    }
}
