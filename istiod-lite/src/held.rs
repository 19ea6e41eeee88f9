//! What the tables of every proxy hold of pods and services: told to whoever must not go on before (`ACKNOWLEDGED_FILE`).
//!
//! [`Sent`] remembers since which generation each pod is published in the way that it is; the subscribers'
//! acknowledgements ([`mesh_xds::acknowledged`]) say which generation all of them have. Where the second has reached the
//! first, everybody holds it. The decisions are pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::identity::{InvalidSpiffeId, SpiffeId};
use mesh_model::persistent::PersistentMap;
use mesh_model::resource::Resource;
use mesh_model::workload::{Memberships, Tunnel, Workload};
use mesh_runtime::files;
use mesh_xds::acknowledged::{Acknowledged, Floor};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::cluster::{Cluster, Pod};
use crate::translate::delta::Delta;

/// What is published of each pod and service, and since when. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pods: PersistentMap<NamespacedName, Arc<SentPod>>,
    services: PersistentMap<NamespacedName, Arc<SentService>>,
    /// The newest generation.
    generation: u64,
    /// The pods of proxies.
    proxies: PersistentMap<NamespacedName, ()>,
}

#[derive(Debug)]
struct SentPod {
    uid: Box<str>,
    resource_version: Box<str>,
    published: Published,
    /// Since when it takes connections as it does now, at the addresses that it has now.
    protocol_since: u64,
    ready_since: u64,
}

/// What of a workload's tables others wait for.
#[derive(Debug)]
struct Published {
    tunnel: Tunnel,
    addresses: Box<[IpAddr]>,
    network: Arc<str>,
    identity: Result<SpiffeId, InvalidSpiffeId>,
    healthy: bool,
    services: Memberships,
}

#[derive(Debug)]
struct SentService {
    resource_version: String,
    /// None for one that is in nobody's tables, and lacks in none.
    addresses: Option<Vec<IpAddr>>,
    /// Since when it has these.
    since: u64,
}

/// What everybody holds: the content of `ACKNOWLEDGED_FILE`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// By uid. A pod that is not here may be missing in somebody's tables.
    pub pods: BTreeMap<String, HeldPod>,
    /// By `namespace/name`. A Service that is not here may be missing in somebody's tables.
    pub services: BTreeMap<String, HeldService>,
    /// Proxies that have not acknowledged what is published.
    pub waits_for: Vec<String>,
    /// Proxies that are no longer waited for, and have not acknowledged what is published either.
    #[serde(default)]
    pub given_up: Vec<String>,
}

/// One pod in everybody's tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldPod {
    /// Of the Pod that was read.
    pub resource_version: String,
    /// None while somebody may hold another one.
    pub protocol: Option<Protocol>,
    /// Everybody holds that it is ready.
    pub ready: bool,
}

/// One Service in everybody's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldService {
    /// Of the Service that was read.
    pub resource_version: String,
    /// By which everybody knows it; None for one that is in no tables at all, and lacks in none.
    pub addresses: Option<Vec<IpAddr>>,
}

/// How a pod takes connections from the mesh. The words are those of ztunnel's `/config_dump`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// As they are.
    #[serde(rename = "TCP")]
    Tcp,
    /// Through tunnels.
    #[serde(rename = "HBONE")]
    Hbone,
}

impl Sent {
    /// What is published now, `delta` later than before, as generation `generation`, of `cluster`. `trusted` are the service
    /// accounts of proxies.
    #[must_use]
    pub fn next(&self, cluster: &Cluster, delta: &Delta, generation: u64, trusted: &[NamespacedName]) -> Self {
        let mut workloads = HashMap::new();
        let mut addresses = HashMap::new();
        for resource in &delta.resources {
            match resource {
                // An endpoint that is no pod may have a pod's name.
                Resource::Workload(workload) if workload.uid.contains("//Pod/") => {
                    workloads.insert((&*workload.namespace, &*workload.name), workload);
                }
                Resource::Service(service) => {
                    let vips = service.vips.iter().map(|vip| vip.address.ip).collect::<Vec<_>>();
                    addresses.insert((&*service.namespace, &*service.name), vips);
                }
                Resource::Workload(_) | Resource::Policy(_) | Resource::Routes(_) => {}
            }
        }
        let mut next = Self { generation, ..self.clone() };
        for key in &delta.pods {
            let pod = cluster.pod(key);
            let workload = workloads.get(&(&*key.namespace, &*key.name)).copied();
            let sent = pod.zip(workload).and_then(|(pod, workload)| self.sent_pod(key, pod, workload, generation));
            set(&mut next.pods, key, sent);
            let is_proxy = pod.is_some_and(|pod| {
                trusted.contains(&NamespacedName::new(pod.name.namespace.clone(), pod.service_account.clone()))
            });
            match is_proxy {
                true => drop(next.proxies.insert(key.clone(), ())),
                false => drop(next.proxies.remove(key)),
            }
        }
        for key in &delta.services {
            let sent = cluster.service(key).map(|service| {
                let resource_version = service.metadata.resource_version.clone().unwrap_or_default();
                let addresses = addresses.get(&(&*key.namespace, &*key.name)).cloned();
                let before = self.services.get(key).filter(|before| before.addresses == addresses);
                let since = before.map_or(generation, |before| before.since);
                SentService { resource_version, addresses, since }
            });
            set(&mut next.services, key, sent);
        }
        next
    }

    /// One pod as it is published now. None for one that nothing can be told by.
    fn sent_pod(&self, key: &NamespacedName, pod: &Pod, workload: &Workload, generation: u64) -> Option<SentPod> {
        let uid = pod.uid.clone()?;
        // Another pod of the name is another pod.
        let before = self.pods.get(key).filter(|before| before.uid == uid);
        let published = Published::of(workload);
        let since = |same: fn(&Published, &Published) -> bool, since: fn(&SentPod) -> u64| {
            before.filter(|before| same(&before.published, &published)).map_or(generation, |before| since(before))
        };
        let (protocol_since, ready_since) =
            (since(takes_the_same, |before| before.protocol_since), since(is_as_ready, |before| before.ready_since));
        Some(SentPod {
            uid,
            resource_version: pod.resource_version.clone().unwrap_or_default(),
            published,
            protocol_since,
            ready_since,
        })
    }

    /// The pods of proxies, `namespace/name`.
    fn proxies(&self) -> BTreeSet<String> {
        self.proxies.keys().map(ToString::to_string).collect()
    }

    /// What of it everybody holds.
    pub fn held(&self, floor: &Floor) -> Held {
        let pods = self.pods.values().map(|pod| {
            let protocol = match pod.published.tunnel {
                Tunnel::Hbone => Protocol::Hbone,
                Tunnel::None => Protocol::Tcp,
            };
            let held = HeldPod {
                resource_version: pod.resource_version.to_string(),
                protocol: (pod.protocol_since <= floor.generation).then_some(protocol),
                ready: pod.published.healthy && pod.ready_since <= floor.generation,
            };
            (pod.uid.to_string(), held)
        });
        let services = self.services.iter().filter(|(_, service)| service.since <= floor.generation);
        let services = services.map(|(name, service)| {
            let (resource_version, addresses) = (service.resource_version.clone(), service.addresses.clone());
            (name.to_string(), HeldService { resource_version, addresses })
        });
        Held {
            pods: pods.collect(),
            services: services.collect(),
            waits_for: floor.waits_for.clone(),
            given_up: floor.given_up.clone(),
        }
    }
}

impl Published {
    fn of(workload: &Workload) -> Self {
        let Workload { tunnel, addresses, network, healthy, services, .. } = workload;
        Self {
            tunnel: *tunnel,
            addresses: addresses.as_slice().into(),
            network: network.clone(),
            identity: workload.identity(),
            healthy: *healthy,
            services: services.clone(),
        }
    }
}

fn set<T>(all: &mut PersistentMap<NamespacedName, Arc<T>>, key: &NamespacedName, value: Option<T>) {
    match value {
        Some(value) => drop(all.insert(key.clone(), Arc::new(value))),
        None => drop(all.remove(key)),
    }
}

/// Whoever holds the one opens connections as whoever holds the other.
fn takes_the_same(a: &Published, b: &Published) -> bool {
    a.tunnel == b.tunnel && a.addresses == b.addresses && a.network == b.network && a.identity == b.identity
}

/// Whoever holds the one sends as much to it as whoever holds the other.
fn is_as_ready(a: &Published, b: &Published) -> bool {
    a.healthy == b.healthy && a.services == b.services && a.addresses == b.addresses
}

/// Keeps `file` up to date, for as long as anything is published.
pub(crate) async fn tell(mut sent: watch::Receiver<Arc<Sent>>, acknowledged: Acknowledged, file: &Path) {
    let mut answers = acknowledged.changed();
    let (mut told, mut given_up) = (None, Vec::new());
    // Proxies may serve by what a predecessor of ours told them.
    if sent.wait_for(|sent| sent.generation > 0).await.is_ok() {
        acknowledged.expect(sent.borrow().proxies().iter().map(String::as_str));
    }
    loop {
        answers.mark_unchanged();
        let now = sent.borrow_and_update().clone();
        let floor = acknowledged.floor(now.generation, &now.proxies());
        for proxy in floor.given_up.iter().filter(|proxy| !given_up.contains(*proxy)) {
            tracing::warn!(
                proxy,
                "does not acknowledge what is published, and is not waited for any longer: its pods may be served by \
                 older tables. See its log, or restart it"
            );
        }
        given_up.clone_from(&floor.given_up);
        let held = now.held(&floor);
        if told.as_ref() != Some(&held) {
            match serde_json::to_vec(&held).map_err(io::Error::from).and_then(|json| files::replace(file, json)) {
                Ok(()) => told = Some(held),
                Err(error) => tracing::warn!(file = %file.display(), %error, "ACKNOWLEDGED_FILE cannot be written"),
            }
        }
        let look_again = async {
            match floor.look_again {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = sent.changed() => if changed.is_err() { return },
            _ = answers.changed() => {}
            () = look_again => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::Change;
    use crate::resources::{Kind, Object};
    use crate::translate::Mesh;
    use crate::translate::delta::Translator;

    fn pod(uid: &str, version: &str, ip: &str, redirection: &str, ready: &str) -> Object {
        let ips = if ip.is_empty() { json!([]) } else { json!([{"ip": ip}]) };
        let value = json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": uid, "resourceVersion": version,
                "annotations": {"ambient.istio.io/redirection": redirection},
            },
            "spec": {"containers": []},
            "status": {"phase": "Running", "podIPs": ips, "conditions": [{"type": "Ready", "status": ready}]},
        });
        Object::from_value(Kind::Pod, &value).unwrap()
    }

    fn service(address: Option<&str>) -> Object {
        let value = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"clusterIP": address, "ports": [{"port": 80}]},
        });
        Object::from_value(Kind::Service, &value).unwrap()
    }

    /// Each row is one publication, generations count from 1; then what is held when everybody has `floor`.
    #[test]
    fn held_is_what_everybody_has_of_what_it_is_now() {
        let told = |version: &str, protocol, ready| Some(HeldPod { resource_version: version.into(), protocol, ready });
        let (tcp, hbone) = (Some(Protocol::Tcp), Some(Protocol::Hbone));
        let plain = || pod("u", "1", "10.0.0.1", "", "False");
        let joined = |version| pod("u", version, "10.0.0.1", "enabled", "False");
        let ready = |version| pod("u", version, "10.0.0.1", "enabled", "True");
        let rows: Vec<(&str, Vec<Object>, u64, Option<HeldPod>)> = vec![
            ("new", vec![plain()], 0, told("1", None, false)),
            ("known", vec![plain()], 1, told("1", tcp, false)),
            ("joined, not heard", vec![plain(), joined("2")], 1, told("2", None, false)),
            ("joined", vec![plain(), joined("2")], 2, told("2", hbone, false)),
            ("ready does not take HBONE back", vec![plain(), joined("2"), ready("3")], 2, told("3", hbone, false)),
            ("ready", vec![plain(), joined("2"), ready("3")], 3, told("3", hbone, true)),
            ("left, not heard", vec![joined("1"), plain()], 1, told("1", None, false)),
            ("in and out and in", vec![joined("1"), plain(), joined("3")], 2, told("3", None, false)),
            (
                "another address",
                vec![ready("1"), pod("u", "2", "10.0.0.2", "enabled", "True")],
                1,
                told("2", None, false),
            ),
            ("another pod of the name", vec![plain(), pod("v", "2", "10.0.0.1", "enabled", "True")], 2, None),
            ("no address yet", vec![pod("u", "1", "", "enabled", "True")], 1, None),
        ];
        for (name, publications, floor, expected) in rows {
            let (mut translator, mut sent) = (Translator::new(Mesh::default()), Sent::default());
            for (object, generation) in publications.into_iter().zip(1..) {
                translator.take([Change::apply(object)]);
                let delta = translator.translate();
                sent = sent.next(translator.cluster(), &delta, generation, &[]);
            }
            let held = sent.held(&Floor { generation: floor, ..Floor::default() });
            assert_eq!(held.pods.get("u"), expected.as_ref(), "{name}");
        }
    }

    #[test]
    fn services_and_proxies() {
        let mut translator = Translator::new(Mesh::default());
        let mut sent = Sent::default();
        let mut publish = |object: Object, sent: &Sent, generation| {
            translator.take([Change::apply(object)]);
            let delta = translator.translate();
            sent.next(translator.cluster(), &delta, generation, &[NamespacedName::new("shop", "default")])
        };
        let held = |sent: &Sent, generation| {
            let floor = Floor { generation, ..Floor::default() };
            sent.held(&floor).services.get("shop/web").and_then(|held| held.addresses.clone())
        };
        let address: IpAddr = "10.96.0.1".parse().unwrap();
        // The user's document comes first, its address from the cluster, a moment later.
        sent = publish(service(None), &sent, 1);
        assert_eq!((held(&sent, 0), held(&sent, 1)), (None, Some(vec![])));
        sent = publish(service(Some("10.96.0.1")), &sent, 2);
        assert_eq!((held(&sent, 1), held(&sent, 2)), (None, Some(vec![address])));
        sent = publish(pod("u", "1", "10.0.0.1", "", "True"), &sent, 3);
        assert_eq!(held(&sent, 2), Some(vec![address]), "it has not changed");
        assert_eq!(sent.proxies(), BTreeSet::from(["shop/web".to_owned()]));
    }

    /// Others read it.
    #[test]
    fn the_file_as_others_read_it() {
        let pod = HeldPod { resource_version: "7".into(), protocol: Some(Protocol::Hbone), ready: true };
        let service = |version: &str, addresses| HeldService { resource_version: version.into(), addresses };
        let held = Held {
            pods: BTreeMap::from([("u".into(), pod)]),
            services: BTreeMap::from([
                ("shop/db".into(), service("1", None)),
                ("shop/web".into(), service("2", Some(vec!["10.96.0.1".parse().unwrap()]))),
            ]),
            waits_for: vec!["istio-system/ztunnel-a".into()],
            given_up: vec!["istio-system/ztunnel-b".into()],
        };
        let text = serde_json::to_string(&held).unwrap();
        assert_eq!(
            text,
            r#"{"pods":{"u":{"resourceVersion":"7","protocol":"HBONE","ready":true}},"services":{"shop/db":{"resourceVersion":"1","addresses":null},"shop/web":{"resourceVersion":"2","addresses":["10.96.0.1"]}},"waitsFor":["istio-system/ztunnel-a"],"givenUp":["istio-system/ztunnel-b"]}"#
        );
        assert_eq!(serde_json::from_str::<Held>(&text).unwrap(), held);
    }
}
