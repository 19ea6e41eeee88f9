//! Which pods and services start, change, stop.
use super::Reconciler;
use super::pod::RunningPod;
use super::service::{chosen_addresses, external_name, families, family};
use crate::exe;
use crate::manifest::Key;
use crate::mesh::plugin::Admission;
use crate::net::addressing::{FIXED_IP, Pair};
use crate::pods::container::PodContext;
use crate::pods::life::Life;
use crate::pods::output::Log;
use crate::pods::plan::{self, Given};
use crate::pods::sandbox::Sandbox;
use crate::pods::state::StateHandle;
use anyhow::{Context, Result};
use istiod_lite::translate::endpoints;
use k8s_openapi::api::core::v1::Pod;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a pod's programs get to end after it was removed: as long as the pod's own grace period says.
const GRACE: Duration = Duration::MAX;
/// How long a new pod waits for Services that are not in everybody's tables yet.
const SERVICES: Duration = Duration::from_secs(3);

impl Reconciler {
    /// Does what is missing. What cannot be done is remembered with its reason and tried again at the next change.
    pub(super) async fn reconcile(&mut self) {
        self.allocate_services();
        self.send_away();
        self.clear_away().await;
        self.impossible.clear();
        let wanted: Vec<(Key, Pod)> = self
            .objects
            .pods
            .iter()
            .filter(|(key, _)| !self.pods.contains_key(*key))
            .map(|(key, pod)| (key.clone(), pod.clone()))
            .collect();
        for (key, pod) in wanted {
            if let Err(e) = self.add_pod(&key, pod).await {
                self.impossible.insert(key, format!("{e:#}"));
            }
        }
    }

    /// Tells pods to stop that are not wanted any more, or are wanted differently; follows changes of labels.
    fn send_away(&mut self) {
        for (key, running) in &mut self.pods {
            let ends = running.leaving();
            match self.objects.pods.get(key) {
                Some(wanted) if !needs_replacement(&running.pod, wanted) => {
                    running.pod = wanted.clone();
                    if !ends {
                        running.namespace_labels = self.objects.namespace_labels(&key.0);
                    }
                }
                _ if ends => {}
                other => {
                    let why = if other.is_some() { "its spec changed" } else { "it was removed" };
                    tracing::info!("pod {}/{} stops: {why}", key.0, key.1);
                    running.leave(GRACE);
                }
            }
        }
    }

    /// Takes away what is left of pods that have stopped.
    async fn clear_away(&mut self) {
        let gone: Vec<Key> = self.pods.iter().filter(|(_, p)| p.gone()).map(|(key, _)| key.clone()).collect();
        for key in gone {
            let Some(pod) = self.pods.remove(&key) else { continue };
            let node = &mut self.nodes[pod.node];
            if let Some(pair) = pod.pair {
                if let Err(e) = self.fabric.unplug_pod(&node.netns, pod.serial) {
                    tracing::warn!("pod {}/{}: {e:#}", key.0, key.1);
                }
                node.pool.give_back(pair);
            }
            pod.sandbox.remove();
            self.programs.forget(&self.run, &key);
            tracing::info!("pod {}/{} is gone", key.0, key.1);
        }
    }

    async fn add_pod(&mut self, key: &Key, pod: Pod) -> Result<()> {
        let spec = pod.spec.as_ref();
        let node = match spec.and_then(|s| s.node_name.as_ref()) {
            Some(name) => self.nodes.iter().position(|n| &n.name == name).with_context(|| {
                let names: Vec<&str> = self.nodes.iter().map(|n| n.name.as_str()).collect();
                format!("spec.nodeName {name} is not a node of this mesh ({})", names.join(", "))
            })?,
            None => self.next_node % self.nodes.len(),
        };
        let host_network = spec.and_then(|s| s.host_network).unwrap_or(false);
        let uid = crate::uid::new();
        let fixed = pod.metadata.annotations.as_ref().and_then(|a| a.get(FIXED_IP)).map(String::as_str);
        let (pair, ips) = if host_network {
            (None, self.nodes[node].ips())
        } else {
            let pair = self.nodes[node].pool.take(fixed)?;
            (Some(pair), pair.list(self.fabric.ipv6()))
        };
        self.serial += 1;
        let made = self.make_pod(key, &pod, &uid, node, &ips, pair).await;
        let made = match made {
            Ok(made) => made,
            Err(e) => {
                if let Some(pair) = pair {
                    self.nodes[node].pool.give_back(pair);
                }
                return Err(e);
            }
        };
        if spec.and_then(|s| s.node_name.as_ref()).is_none() {
            self.next_node += 1;
        }
        let (life, admission, stop) = made;
        let serial = self.serial;
        let namespace_labels = self.objects.namespace_labels(&key.0);
        let running =
            RunningPod::new(key.clone(), pod, namespace_labels, uid, node, pair, ips, serial, life, admission, stop);
        self.pods.insert(key.clone(), running);
        Ok(())
    }

    async fn make_pod(
        &self,
        key: &Key,
        pod: &Pod,
        uid: &str,
        node: usize,
        ips: &[IpAddr],
        pair: Option<Pair>,
    ) -> Result<(Life, watch::Sender<Admission>, watch::Sender<Option<Duration>>)> {
        let node = &self.nodes[node];
        if self.objects.waypoints.contains(key) {
            self.programs.prove(&self.run, key, pod, uid, node)?;
        }
        let machine_env = machine_env();
        let given = Given {
            ips,
            node: &node.name,
            node_ip: node.ips()[0],
            uid,
            machine_env: &machine_env,
            own_exe: &exe::own(),
        };
        let plan = plan::plan(pod, &given)?;
        let log = Log::open(&self.run.pod_log(&key.0, &key.1)).context("cannot open the pod's log")?;
        let shared_netns = pair.is_none().then(|| Arc::clone(&node.netns));
        let sandbox = Arc::new(Sandbox::make(&self.run, &node.name, uid, shared_netns)?);
        if let Some(pair) = pair
            && let Err(e) = self.fabric.plug_pod(node.k, &node.netns, &sandbox.netns, pair, self.serial)
        {
            sandbox.remove();
            return Err(e);
        }
        let (admission, asked) = watch::channel(Admission::Undecided);
        let (stop, stopped) = watch::channel(None);
        let pod = PodContext {
            plan,
            hostname: plan::hostname(pod).to_owned(),
            ip: ips[0],
            sandbox,
            of_the_mesh: self.objects.waypoints.contains(key),
            node: Arc::clone(&node.netns),
            log,
            children: Arc::clone(&self.children),
            state: StateHandle::new(Arc::clone(&self.changed)),
        };
        let life = Life { pod: Arc::new(pod), admission: asked, stop: stopped };
        Ok((life, admission, stop))
    }

    /// Lets prepared pods start. Called after nodes, agents and the control plane know of them. A program may ask for a Service at once,
    /// so the Services come first; but not for ever.
    pub(super) fn begin_lives(&mut self) {
        let known = self.objects.services.keys().all(|service| self.is_known(service));
        for pod in self.pods.values_mut() {
            if known || pod.created.elapsed().is_ok_and(|age| age > SERVICES) {
                pod.begin();
            }
        }
    }

    fn allocate_services(&mut self) {
        let gone: Vec<Key> =
            self.services.keys().filter(|k| !self.objects.services.contains_key(*k)).cloned().collect();
        for key in gone {
            for ip in self.services.remove(&key).unwrap_or_default() {
                self.service_pool.give_back(ip);
            }
        }
        let chosen: Vec<IpAddr> = self.objects.services.values().flat_map(chosen_addresses).collect();
        for ip in chosen {
            self.service_pool.reserve(ip);
        }
        for (key, service) in &self.objects.services {
            let chosen = chosen_addresses(service);
            let families = families(service, &chosen, self.fabric.ipv6());
            let wanted = |ip: &IpAddr| families.iter().any(|f| f == family(*ip));
            let addresses = match self.services.get(key) {
                _ if endpoints::is_headless(service) || external_name(service).is_some() => Vec::new(),
                _ if !chosen.is_empty() => chosen,
                Some(have) if !have.is_empty() && families.len() == have.len() => continue,
                _ => match self.service_pool.take() {
                    Ok(pair) => pair.list(true).into_iter().filter(wanted).collect(),
                    Err(e) => {
                        tracing::error!("service {}/{}: {e}", key.0, key.1);
                        Vec::new()
                    }
                },
            };
            self.services.insert(key.clone(), addresses);
        }
    }
}

/// What cannot change while a pod runs: everything in its spec, and the address it must have.
fn needs_replacement(running: &Pod, wanted: &Pod) -> bool {
    let fixed = |p: &Pod| p.metadata.annotations.as_ref().and_then(|a| a.get(FIXED_IP)).cloned();
    running.spec != wanted.spec || fixed(running) != fixed(wanted)
}

/// Variables of the environment of `ambit up` that programs need, to be found and for their language.
fn machine_env() -> Vec<(String, String)> {
    const NEEDED: [&str; 9] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "SHELL", "TMPDIR"];
    let mut env: Vec<(String, String)> =
        NEEDED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    if let Some(path) = exe::overridden().and_then(|p| p.into_string().ok()) {
        env.push((exe::OVERRIDE.to_owned(), path));
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_change_live_and_specs_do_not() {
        let pod = |yaml: &str| serde_saphyr::from_str::<Pod>(yaml).unwrap();
        let base = pod("{metadata: {name: p, labels: {a: b}}, spec: {containers: [{name: c, command: [x]}]}}");
        let relabelled = pod("{metadata: {name: p, labels: {a: c}}, spec: {containers: [{name: c, command: [x]}]}}");
        let respecified = pod("{metadata: {name: p}, spec: {containers: [{name: c, command: [y]}]}}");
        let moved = pod(
            "{metadata: {name: p, annotations: {ambit.dev/pod-ip: 10.244.1.9}}, spec: {containers: [{name: c, command: [x]}]}}",
        );
        assert!(!needs_replacement(&base, &relabelled));
        assert!(needs_replacement(&base, &respecified));
        assert!(needs_replacement(&base, &moved));
    }
}
