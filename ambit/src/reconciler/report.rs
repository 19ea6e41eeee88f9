//! How it all is.
use super::Reconciler;
use super::service::external_name;
use crate::manifest::{Key, Position, Rejected};
use crate::mesh::{node_files, policies};
use crate::net::services;
use crate::pods::plan;
use crate::pods::state::Phase;
use crate::run_dir::write_atomically;
use crate::status::{MeshStatus, NodeStatus, PodStatus, ProgramStatus, ServiceStatus, Status, Width};
use istiod_lite::translate::endpoints::{self, ServiceEndpoints};
use k8s_openapi::api::core::v1::Service;
use node_agent::enrolled::{Redirection, States};
use std::collections::BTreeSet;

impl Reconciler {
    /// Everything, for people and scripts.
    pub(super) fn status(&self) -> Status {
        let enrolled = self.enrolled();
        let programs: Vec<ProgramStatus> = self.programs.status(&self.held.given_up);
        let mut pods: Vec<PodStatus> = self.pods.values().map(|p| self.pod_status(p, &enrolled)).collect();
        for (key, why) in &self.impossible {
            pods.push(PodStatus {
                namespace: key.0.clone(),
                name: key.1.clone(),
                uid: String::new(),
                node: "-".into(),
                ips: Vec::new(),
                phase: Phase::Pending,
                ready: false,
                restarts: 0,
                leaving: false,
                mesh: MeshStatus { state: "no".into(), reason: "it does not run".into() },
                trouble: Some(why.clone()),
                runs_without: Vec::new(),
            });
        }
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        let settled = |p: &PodStatus| p.ready && p.mesh.state != "pending" || p.phase == Phase::Succeeded;
        let told = policies::read(&self.run.istiod_status());
        let mut rejected: Vec<Rejected> = self.rejected.clone();
        // The control plane may have been started again since, and knows what it still serves.
        rejected.iter_mut().filter(|r| r.refused).for_each(|r| told.correct(r, &self.folder_path));
        rejected.extend(self.folder.takes_long().then(|| {
            // The same words for as long as it takes: a complaint that changes is printed again.
            let what = "the folder is being read and has not answered yet; what was read before counts until it has. \
                        Is it on a disk that hangs?";
            Rejected::note(Position::default(), what.to_owned())
        }));
        rejected.extend(self.new_nodes().map(|name| {
            let when = "it will be there after the next `ambit up`";
            Rejected::note(Position::default(), format!("Node {name} was added while the mesh runs; {when}"))
        }));
        Status {
            name: self.run.name().to_owned(),
            folder: self.folder_path.display().to_string(),
            ready: programs.iter().all(|p| p.ready)
                && pods.iter().all(settled)
                && self.objects.services.keys().all(|service| self.is_known(service)),
            generation: self.generation,
            folder_read_at_ms: self.folder.began_ms(),
            nodes: self.nodes.iter().map(|n| NodeStatus { name: n.name.clone(), ips: n.ips() }).collect(),
            programs,
            pods,
            services: self.service_status(),
            policies: told.policies,
            rejected,
        }
    }

    fn new_nodes(&self) -> impl Iterator<Item = &String> {
        self.objects.nodes.keys().filter(|name| !self.nodes.iter().any(|n| &n.name == *name))
    }

    fn pod_status(&self, pod: &super::RunningPod, enrolled: &States) -> PodStatus {
        let state = pod.state();
        PodStatus {
            namespace: pod.key.0.clone(),
            name: pod.key.1.clone(),
            uid: pod.uid.clone(),
            node: self.nodes[pod.node].name.clone(),
            ips: pod.ips.clone(),
            phase: state.phase,
            ready: state.ready() && self.is_told_ready(pod) && !pod.leaving(),
            restarts: state.programs.iter().map(|p| p.restarts).sum(),
            leaving: pod.leaving(),
            mesh: self.mesh_status(pod, enrolled),
            runs_without: plan::ignored(&pod.pod).into_iter().map(str::to_owned).collect(),
            trouble: state.trouble().or_else(|| {
                let untold = state.ready() && !pod.leaving() && !self.is_told_ready(pod);
                untold.then(|| "waits until every ztunnel has acknowledged that it is ready".to_owned())
            }),
        }
    }

    /// Every ztunnel's tables hold that it is ready: a caller that uses a Service of it is answered from now on.
    fn is_told_ready(&self, pod: &super::RunningPod) -> bool {
        !self.programs.take_part() || pod.told.known_ready()
    }

    fn mesh_status(&self, pod: &super::RunningPod, enrolled: &States) -> MeshStatus {
        let say = |state: &str, reason: String| MeshStatus { state: state.into(), reason };
        let Some(agent) = self.agent(pod) else {
            return say("no", "started without a mesh (--no-mesh)".into());
        };
        let wanted = node_files::belongs(&self.node_pod(pod), agent);
        match (wanted, enrolled.get(&pod.uid)) {
            (Ok(_), Some(e)) if e.redirection == Redirection::Enabled => say("yes", e.reason.clone()),
            (Ok(_), Some(e)) if e.redirection == Redirection::Joining && !self.held.waits_for.is_empty() => {
                let waits_for = self.held.waits_for.join(", ");
                say("pending", format!("{}: {waits_for} has not", e.reason))
            }
            (Ok(_), Some(e)) => say("pending", e.reason.clone()),
            (Ok(_), None) => say("pending", "the node agent has not taken it yet".into()),
            (Err(_), Some(e)) if e.redirection != Redirection::Disabled => say("pending", "it is leaving".into()),
            (Err(why), _) => say("no", why),
        }
    }

    fn service_status(&self) -> Vec<ServiceStatus> {
        let frontends = self.frontends(None);
        let services = self.kept_services();
        let found = self.endpoint_inputs(&services).resolve();
        let status = |((key, service), found): ((&Key, &Service), &ServiceEndpoints)| {
            let ips = self.services.get(key).cloned().unwrap_or_default();
            let mine = frontends.iter().filter(|f| ips.contains(&f.address));
            let mut behind: Vec<String> = mine
                .flat_map(|f| &f.backends)
                .map(|(ip, port)| std::net::SocketAddr::new(*ip, *port).to_string())
                .collect();
            if endpoints::is_headless(service) {
                behind = services::endpoint_addresses(found).iter().map(ToString::to_string).collect();
            }
            behind.sort();
            behind.dedup();
            let ports = endpoints::service_ports(service).iter();
            ServiceStatus {
                namespace: key.0.clone(),
                name: key.1.clone(),
                ips,
                ports: ports.map(|p| format!("{}/{}", p.port, p.protocol.as_deref().unwrap_or("TCP"))).collect(),
                endpoints: behind,
                external_name: external_name(service).map(str::to_owned),
            }
        };
        self.objects.services.keys().zip(&services).zip(&found).map(status).collect()
    }

    /// Says what went wrong, once for as long as it lasts.
    fn complain(&mut self, status: &Status) {
        let rejected = status.rejected.iter().map(|r| format!("{}: {}", r.position, r.told()));
        let policies = status.policies.iter().filter(|p| p.reason != "Accepted");
        let policies = policies.map(|p| format!("{} {}/{}: {}: {}", p.kind, p.namespace, p.name, p.reason, p.message));
        // Not being ready yet is no complaint while things start.
        let pods =
            status.pods.iter().filter(|p| p.phase == Phase::Pending || p.restarts > 0 || p.phase == Phase::Failed);
        let pods = pods.filter_map(|p| Some(format!("pod {}/{}: {}", p.namespace, p.name, p.trouble.as_ref()?)));
        let without = status.pods.iter().flat_map(|p| {
            p.runs_without
                .iter()
                .map(|what| format!("pod {}/{} runs without what it asks for: {what}", p.namespace, p.name))
        });
        let programs = status.programs.iter().filter(|p| p.pid.is_none());
        let programs = programs.filter_map(|p| Some(format!("{} is down: {}", p.name, p.last_end.as_ref()?)));
        let older = status.programs.iter().filter_map(|p| Some(format!("{}: {}", p.name, p.older_tables.as_ref()?)));
        let now: BTreeSet<String> = rejected
            .chain(policies)
            .chain(pods)
            .chain(without)
            .chain(programs)
            .chain(older)
            .chain(self.out_of_date.clone())
            .collect();
        for complaint in now.difference(&self.complaints) {
            tracing::warn!("{complaint}");
            self.say(&format!("! {complaint}"));
        }
        self.complaints = now;
    }

    /// Tells the person at the terminal, and whoever waits for the file, that everything is ready for the first time.
    pub(super) fn announce(&mut self) {
        let status = self.status();
        self.complain(&status);
        if self.was_ready || !status.ready {
            return;
        }
        self.was_ready = true;
        tracing::info!("everything is ready");
        self.say(&status.for_terminal(Width::Narrow));
        let which = if status.name == "default" { String::new() } else { format!(" --name {}", status.name) };
        self.say(&format!(
            "Ready. In another terminal: ambit status{which} | ambit exec{which} POD -- CMD | ambit logs{which} POD. \
             Edits in {} take effect at once. Ctrl-C ends it.",
            status.folder
        ));
        if let Some(file) = &self.ready_file {
            let text = serde_json::to_vec_pretty(&status).unwrap_or_default();
            if let Err(e) = write_atomically(file, &text) {
                tracing::error!("cannot write {}: {e}", file.display());
            }
        }
    }
}
