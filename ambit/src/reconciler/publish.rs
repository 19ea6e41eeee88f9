//! Writes what others read: hosts files for pods, rules on nodes, files for node agents and the control plane.
use super::Reconciler;
use super::pod::RunningPod;
use super::service::{external_name, families};
use crate::manifest::Key;
use crate::mesh::held::{self, ToldService};
use crate::mesh::node_files;
use crate::mesh::overlay::{self, PodFacts};
use crate::mesh::overlay_files::OverlayFile;
use crate::mesh::plugin::{self, Admission};
use crate::net::kube_proxy;
use crate::net::services::{self, Callers, Frontend, NodePlace};
use crate::pods::hosts;
use crate::pods::state::Phase;
use crate::run_dir::write_atomically;
use anyhow::{Context, Result};
use istiod_lite::cluster::pod::{Pod, Stage};
use istiod_lite::held::Protocol;
use istiod_lite::translate::endpoints::{self, Inputs};
use k8s_openapi::api::core::v1::Service;
use node_agent::config::Config;
use node_agent::enrolled::{Redirection, States};
use node_agent::pods::{self, KnownAs};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

impl Reconciler {
    /// Brings everything outside of this task up to date. Files are only touched when they change.
    pub(super) async fn publish(&mut self) -> Result<()> {
        self.hear_control_plane();
        // A failure for one of them does not keep the others from being written.
        let pods = self.tell_pods();
        // An address that is translated no more goes from the tables after it, one that is new is translated after it
        // is in them (`is_known`).
        let nodes = self.tell_nodes().await;
        let control_plane = self.tell_control_plane();
        let agents = self.tell_agents();
        pods.and(nodes).and(control_plane).and(agents)
    }

    /// Reads what every ztunnel's tables hold by now.
    fn hear_control_plane(&mut self) {
        self.held = held::read(&self.run.acknowledged());
        for pod in self.pods.values_mut() {
            pod.told.hear(&self.held, &pod.uid);
        }
        self.told_services.retain(|key, _| self.objects.services.contains_key(key));
        for (key, told) in &mut self.told_services {
            told.hear(&self.held, key);
        }
    }

    /// Whether a service is in everybody's tables, by the addresses that it has. Before, a captured pod's ztunnel would take its address for one outside
    /// of the mesh and dial it in the clear; so nobody is told of it yet.
    pub(super) fn is_known(&self, service: &Key) -> bool {
        let have = self.services.get(service).map_or(&[][..], Vec::as_slice);
        !self.programs.take_part() || self.told_services.get(service).is_some_and(|told| told.is_known_by(have))
    }

    fn tell_pods(&mut self) -> Result<()> {
        let services = self.kept_services();
        let inputs = self.endpoint_inputs(&services);
        let found = inputs.resolve();
        let known = self.services.iter().filter(|(key, _)| self.is_known(key));
        let mut names: BTreeMap<Key, Vec<IpAddr>> = known.map(|(k, ips)| (k.clone(), ips.clone())).collect();
        let mut aliases: BTreeMap<Key, String> = BTreeMap::new();
        for ((key, service), found) in self.objects.services.iter().zip(&found) {
            if endpoints::is_headless(service) {
                names.insert(key.clone(), services::endpoint_addresses(found));
            }
            for (hostname, addresses) in services::endpoint_names(found) {
                names.insert((key.0.clone(), format!("{hostname}.{}", key.1)), addresses);
            }
            if let Some(target) = external_name(service) {
                names.remove(key);
                aliases.insert(key.clone(), target.to_owned());
            }
        }
        hosts::follow(&mut names, &aliases);
        let enrolled = self.enrolled();
        // A pod that runs while it joins keeps its name servers until it is captured.
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
            let own = hosts::Own { key, pod: &pod.pod, ips: &pod.ips };
            let text = hosts::hosts(&own, &names) + &hosts::aliases(&pod.pod);
            if text != pod.hosts {
                pod.sandbox.write_hosts(&text).context("cannot write a pod's hosts file")?;
                pod.hosts = text;
            }
        }
        Ok(())
    }

    async fn tell_nodes(&mut self) -> Result<()> {
        let places = self.node_places();
        let frontends: Vec<Vec<Frontend>> = places.iter().map(|place| self.frontends(Some(place))).collect();
        if self.translated.as_ref() != Some(&frontends) {
            for (node, frontends) in self.nodes.iter().zip(&frontends) {
                kube_proxy::apply(&node.netns, frontends).with_context(|| format!("node {}", node.name))?;
            }
            self.translated = Some(frontends);
        }
        Ok(())
    }

    fn tell_agents(&mut self) -> Result<()> {
        for (index, node) in self.nodes.iter().enumerate() {
            let pods = self.pods.values().filter(|p| p.node == index).map(|p| self.node_pod(p)).collect();
            let text = serde_json::to_vec_pretty(&pods::Pods { pods })?;
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
        let services = self.kept_services();
        let services = self.objects.services.keys().zip(&services).map(|(key, service)| {
            let told = self.told_services.entry(key.clone()).or_insert_with(|| ToldService::new(&mut self.version));
            overlay::service(service, told.version(), self.services.get(key).map_or(&[][..], Vec::as_slice))
        });
        let services: Vec<_> = services.collect::<Result<_>>()?;
        let nodes: Vec<_> = self.nodes.iter().map(|n| overlay::node(&n.name, &n.uid, &n.ips())).collect();
        for (files, objects) in self.overlay.iter_mut().zip([services, nodes, pods]) {
            for OverlayFile { name, text } in files.of(&objects)? {
                write_if_changed(&self.run.status().join(name), text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// What all node agents answered.
    pub(super) fn enrolled(&self) -> States {
        self.nodes.iter().flat_map(|node| node_files::enrolled(&self.run.enrolled_file(&node.name))).collect()
    }

    /// A pod as its node's agent sees it.
    pub(super) fn node_pod(&self, pod: &RunningPod) -> pods::Pod {
        let meta = &pod.pod.metadata;
        let spec = pod.pod.spec.as_ref();
        let host_network = pod.pair.is_none();
        let node = &self.nodes[pod.node].name;
        pods::Pod {
            uid: pod.uid.clone(),
            name: pod.key.1.clone(),
            namespace: pod.key.0.clone(),
            service_account: service_account(pod),
            labels: meta.labels.clone().unwrap_or_default(),
            annotations: meta.annotations.clone().unwrap_or_default(),
            namespace_labels: pod.namespace_labels.clone(),
            host_network: spec.and_then(|s| s.host_network).unwrap_or(false),
            ips: pod.ips.clone(),
            netns: (!host_network).then(|| self.run.pod_netns(node, &pod.uid)),
            phase: match pod.state().phase {
                Phase::Pending => pods::Phase::Pending,
                Phase::Running => pods::Phase::Running,
                Phase::Succeeded => pods::Phase::Succeeded,
                Phase::Failed => pods::Phase::Failed,
            },
            probe_ports: pod.probe_ports.clone(),
            known_as: match pod.told.known_as(&self.held, &pod.uid) {
                Some(Protocol::Hbone) => KnownAs::Hbone,
                Some(Protocol::Tcp) => KnownAs::Tcp,
                None => KnownAs::Unsettled,
            },
        }
    }

    /// Whether a pod must be taken into the mesh before it starts.
    fn admission(&self, pod: &RunningPod) -> Admission {
        let facts = self.node_pod(pod);
        let (Some(netns), Some(agent)) = (facts.netns.clone(), self.agent(pod)) else { return Admission::Free };
        if node_files::belongs(&facts, agent).is_err() {
            return Admission::Free;
        }
        Admission::Ask {
            socket: self.run.plugin_socket(&self.nodes[pod.node].name),
            request: plugin::request(netns, &facts.name, &facts.namespace, &facts.ips),
        }
    }

    /// Whether a pod's DNS goes to ztunnel.
    fn dns_is_captured(&self, pod: &RunningPod) -> bool {
        self.agent(pod).is_some_and(|agent| node_files::dns_is_captured(&self.node_pod(pod), agent))
    }

    /// The settings of the agent of a pod's node; None without a mesh.
    pub(super) fn agent(&self, pod: &RunningPod) -> Option<&Config> {
        self.programs.agent(&self.nodes[pod.node].name)
    }

    /// Services as an API server would keep them, in the order of the user's: with addresses and families.
    pub(super) fn kept_services(&self) -> Vec<Service> {
        let kept = |(key, service): (&Key, &Service)| {
            let mut service = service.clone();
            if external_name(&service).is_none() {
                let addresses = self.services.get(key).map_or(&[][..], Vec::as_slice);
                let families = families(&service, addresses, self.fabric.ipv6());
                service.spec.get_or_insert_default().ip_families = Some(families);
            }
            service
        };
        self.objects.services.iter().map(kept).collect()
    }

    /// What decides which endpoints these services have.
    pub(super) fn endpoint_inputs<'a>(&'a self, services: &'a [Service]) -> Inputs<'a> {
        let runs = |p: &&RunningPod| !matches!(p.state().phase, Phase::Succeeded | Phase::Failed);
        let pods = self.pods.values().filter(runs);
        let state = |p: &RunningPod| {
            let stage = match (p.state().ready(), p.leaving()) {
                (serving, true) => Stage::Ending { serving },
                (true, false) => Stage::Ready,
                (false, false) => Stage::Starting,
            };
            Arc::new(Pod::from(&p.pod).observed(&self.nodes[p.node].name, p.ips.clone(), stage))
        };
        Inputs {
            services: services.iter().collect(),
            pods: pods.map(state).collect(),
            slices: self.objects.slices.iter().collect(),
            endpoints: self.objects.endpoints.iter().collect(),
        }
    }

    /// Each node, and where it is.
    fn node_places(&self) -> Vec<NodePlace> {
        let place = |name: &String| NodePlace {
            name: name.clone(),
            locality: endpoints::locality(self.objects.nodes.get(name)),
        };
        self.nodes.iter().map(|node| place(&node.name)).collect()
    }

    /// Everything that a node has to translate; without one, all that any of them has to.
    pub(super) fn frontends(&self, node: Option<&NodePlace>) -> Vec<Frontend> {
        let services = self.kept_services();
        let inputs = self.endpoint_inputs(&services);
        let clients: Vec<&[IpAddr]> = self.pods.values().map(|p| p.ips.as_slice()).collect();
        let nodes = self.node_places();
        let mut all = Vec::new();
        let resolved = inputs.resolve();
        let all_services = self.objects.services.keys().zip(&services).zip(&resolved);
        for ((key, service), found) in all_services.filter(|((key, _), _)| self.is_known(key)) {
            let addresses = self.services.get(key).map_or(&[][..], Vec::as_slice);
            let preferences = &endpoints::preferences(service, self.objects.namespaces.get(&key.0));
            let callers = Callers { clients: &clients, node, nodes: &nodes, preferences };
            all.extend(services::frontends(&inputs, service, found, addresses, callers));
        }
        all.sort();
        all
    }
}

/// The identity a pod runs as.
fn service_account(pod: &RunningPod) -> String {
    let account = pod.pod.spec.as_ref().and_then(|s| s.service_account_name.clone());
    account.filter(|account| !account.is_empty()).unwrap_or_else(|| "default".into())
}

fn write_if_changed(path: &Path, content: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|now| now == content) {
        return Ok(());
    }
    write_atomically(path, content).with_context(|| format!("cannot write {}", path.display()))
}
