//! Telling everybody: pods by their hosts files, nodes by their rules, node agents and the control plane by files.
use super::Cluster;
use super::pod::RunningPod;
use crate::manifest::Key;
use crate::mesh::held;
use crate::mesh::node_files::{self, NodePod, NodePods};
use crate::mesh::overlay::{self, PodFacts};
use crate::mesh::plugin::{self, Admission};
use crate::net::kube_proxy;
use crate::net::services::{self, Backend, Frontend};
use crate::pods::hosts;
use crate::pods::life::Phase;
use crate::run_dir::write_atomically;
use anyhow::{Context, Result};
use istiod_lite::held::Protocol;
use node_agent::enrolled::{Redirection, States};
use node_agent::redirect::Settings;
use node_agent::redirect::settings::Defaults;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

impl Cluster {
    /// Brings everything outside of this task up to date. Files are only touched when they change.
    pub(super) async fn publish(&mut self) -> Result<()> {
        self.hear_control_plane();
        self.tell_pods()?;
        // An address that is translated no more goes from the tables after it, one that is new is translated after it
        // is in them (`is_known`).
        let nodes = self.tell_nodes().await;
        self.tell_control_plane()?;
        self.tell_agents()?;
        nodes
    }

    /// What everybody's tables hold by now.
    fn hear_control_plane(&mut self) {
        self.held = held::read(&self.run.acknowledged());
        for pod in self.pods.values_mut() {
            pod.told.hear(&self.held, &pod.uid);
        }
        for (name, addresses) in &self.held.services {
            if let Some((namespace, name)) = name.split_once('/') {
                self.known_services.insert((namespace.to_owned(), name.to_owned()), addresses.clone());
            }
        }
        self.known_services.retain(|key, _| self.objects.services.contains_key(key));
    }

    /// Whether a service is in everybody's tables, by the addresses that it has. Before, a captured pod's ztunnel would take its address for one outside
    /// of the mesh and dial it in the clear; so nobody is told of it yet.
    pub(super) fn is_known(&self, service: &Key) -> bool {
        let have = self.services.get(service).map_or(&[][..], Vec::as_slice);
        !self.programs.take_part()
            || match self.known_services.get(service) {
                None => false,
                Some(None) => true,
                Some(Some(known)) => have.iter().all(|address| known.contains(address)),
            }
    }

    fn tell_pods(&mut self) -> Result<()> {
        let backends = self.backends();
        let mut names: BTreeMap<Key, Vec<IpAddr>> = self
            .services
            .iter()
            .filter(|(key, _)| self.is_known(key))
            .map(|(k, ips)| (k.clone(), ips.clone()))
            .collect();
        for (key, service) in &self.objects.services {
            if services::is_headless(service) {
                names.insert(key.clone(), services::endpoint_addresses(service, &backends));
            }
        }
        drop(backends);
        let enrolled = self.enrolled();
        // A pod that runs while it joins asks whom it asked before, until it is captured.
        let asks = |pod: &RunningPod| {
            pod.state().phase == Phase::Pending
                || enrolled.get(&pod.uid).is_some_and(|e| e.redirection == Redirection::Enabled)
        };
        let captured: Vec<bool> = self.pods.values().map(|pod| self.dns_is_captured(pod) && asks(pod)).collect();
        for ((key, pod), captured) in self.pods.iter_mut().zip(captured) {
            let text = hosts::resolv_conf(&key.0, captured);
            if text != pod.resolv_conf {
                pod.sandbox.write_resolv_conf(&text).context("cannot write a pod's resolv.conf")?;
                pod.resolv_conf = text;
            }
            let text = hosts::hosts(&key.0, (&key.1, &pod.ips), &names) + &hosts::aliases(&pod.pod);
            if text != pod.hosts {
                pod.sandbox.write_hosts(&text).context("cannot write a pod's hosts file")?;
                pod.hosts = text;
            }
        }
        Ok(())
    }

    async fn tell_nodes(&mut self) -> Result<()> {
        let frontends = self.frontends();
        if self.translated.as_ref() != Some(&frontends) {
            for node in &self.nodes {
                kube_proxy::apply(&node.netns, &frontends).await.with_context(|| format!("node {}", node.name))?;
            }
            self.translated = Some(frontends);
        }
        Ok(())
    }

    fn tell_agents(&mut self) -> Result<()> {
        for (index, node) in self.nodes.iter().enumerate() {
            let pods = self.pods.values().filter(|p| p.node == index).map(|p| self.node_pod(p)).collect();
            let text = serde_json::to_vec_pretty(&NodePods { pods })?;
            write_if_changed(&self.run.pods_file(&node.name), &text)?;
        }
        for pod in self.pods.values() {
            let wanted = self.admission(pod);
            pod.admission.send_if_modified(|now| {
                let other = *now != wanted;
                *now = wanted;
                other
            });
        }
        Ok(())
    }

    fn tell_control_plane(&mut self) -> Result<()> {
        let enrolled = self.enrolled();
        let mut pods = Vec::with_capacity(self.pods.len());
        for p in self.pods.values_mut() {
            let state = p.state();
            let object = overlay::pod(&PodFacts {
                pod: &p.pod,
                uid: &p.uid,
                node: &self.nodes[p.node].name,
                node_ip: self.nodes[p.node].ips()[0],
                ips: &p.ips,
                phase: state.phase,
                ready: state.ready(),
                redirection: enrolled.get(&p.uid).map(|e| e.redirection),
                created: p.created,
                deleted: p.deleted,
            })?;
            pods.push(p.told.tell(object, &mut self.version));
        }
        pods.extend(self.programs.pods(&self.nodes));
        let services = self
            .objects
            .services
            .iter()
            .map(|(key, service)| overlay::service(service, self.services.get(key).map_or(&[][..], Vec::as_slice)));
        let services: Vec<_> = services.collect::<Result<_>>()?;
        let nodes: Vec<_> = self.nodes.iter().map(|n| overlay::node(&n.name, &n.uid, &n.ips())).collect();
        for (file, objects) in [("services.yaml", services), ("nodes.yaml", nodes), ("pods.yaml", pods)] {
            write_if_changed(&self.run.status().join(file), overlay::yaml(&objects)?.as_bytes())?;
        }
        Ok(())
    }

    /// What all node agents answered.
    pub(super) fn enrolled(&self) -> States {
        self.nodes.iter().flat_map(|node| node_files::enrolled(&self.run.enrolled_file(&node.name))).collect()
    }

    /// A pod as its node's agent sees it.
    pub(super) fn node_pod(&self, pod: &RunningPod) -> NodePod {
        let meta = &pod.pod.metadata;
        let spec = pod.pod.spec.as_ref();
        let host_network = pod.pair.is_none();
        let node = &self.nodes[pod.node].name;
        NodePod {
            uid: pod.uid.clone(),
            name: pod.key.1.clone(),
            namespace: pod.key.0.clone(),
            service_account: service_account(pod),
            labels: meta.labels.clone().unwrap_or_default(),
            annotations: meta.annotations.clone().unwrap_or_default(),
            namespace_labels: self.objects.namespace_labels(&pod.key.0),
            host_network: spec.and_then(|s| s.host_network).unwrap_or(false),
            ips: pod.ips.clone(),
            netns: (!host_network).then(|| self.run.pod_netns(node, &pod.uid)),
            phase: pod.state().phase.name(),
            known_as: match pod.told.known_as(&self.held, &pod.uid) {
                Some(Protocol::Hbone) => "HBONE",
                Some(Protocol::Tcp) => "TCP",
                None => "unsettled",
            },
        }
    }

    /// Whether a pod must be taken into the mesh before it starts.
    fn admission(&self, pod: &RunningPod) -> Admission {
        let facts = self.node_pod(pod);
        let (Some(netns), true) = (facts.netns.clone(), self.programs.take_part()) else { return Admission::Free };
        if facts.belongs().is_err() {
            return Admission::Free;
        }
        Admission::Ask {
            socket: self.run.plugin_socket(&self.nodes[pod.node].name),
            request: plugin::request(netns, &facts.name, &facts.namespace, &facts.ips),
        }
    }

    /// Whether a pod's DNS goes to ztunnel: it is to be in the mesh, and does not say otherwise.
    fn dns_is_captured(&self, pod: &RunningPod) -> bool {
        let facts = self.node_pod(pod);
        let defaults = Defaults { ipv6: true, dns_capture: true };
        facts.netns.is_some()
            && self.programs.take_part()
            && facts.belongs().is_ok()
            && Settings::of(&facts.annotations, defaults).0.dns_capture
    }

    /// Pods as services see them.
    pub(super) fn backends(&self) -> Vec<Backend<'_>> {
        self.pods
            .values()
            .map(|p| Backend { pod: &p.pod, ips: &p.ips, ready: p.state().ready() && !p.leaving() })
            .collect()
    }

    /// Everything the nodes have to translate.
    pub(super) fn frontends(&self) -> Vec<Frontend> {
        let backends = self.backends();
        let mut all: Vec<Frontend> = self
            .objects
            .services
            .iter()
            .filter(|(key, _)| self.is_known(key))
            .flat_map(|(key, service)| {
                let addresses = self.services.get(key).map_or(&[][..], Vec::as_slice);
                services::frontends(service, addresses, &backends, &self.objects.slices)
            })
            .collect();
        all.sort();
        all
    }
}

/// The identity a pod runs as.
fn service_account(pod: &RunningPod) -> String {
    pod.pod.spec.as_ref().and_then(|s| s.service_account_name.clone()).unwrap_or_else(|| "default".into())
}

fn write_if_changed(path: &Path, content: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|now| now == content) {
        return Ok(());
    }
    write_atomically(path, content).with_context(|| format!("cannot write {}", path.display()))
}
