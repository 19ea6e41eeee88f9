//! What the agent has on a node of a Kubernetes cluster, and takes away when it is uninstalled.

use std::time::Duration;

use anyhow::Context as _;
use mesh_kube::{Access, Client};
use mesh_runtime::readiness::Readiness;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Kubernetes;
use crate::install::Install;
use crate::kubernetes::owner::Watched;
use crate::kubernetes::report::{self, Told};
use crate::pods::Pod;
use crate::sandboxes::{self, Sandboxes};

/// How long the API server may take to hear that the pods are out of the mesh. It may have taken our rights away already.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The node.
pub(crate) struct Node {
    pub(crate) client: Client,
    pub(crate) sandboxes: Sandboxes,
    owner: Option<Watched>,
    plugin: Option<Install>,
    kept: Option<JoinHandle<()>>,
    reporting: Option<JoinHandle<()>>,
}

impl Node {
    /// Looks at what there is; changes nothing.
    pub(crate) async fn new(kubernetes: &Kubernetes, name: &str) -> anyhow::Result<Self> {
        sandboxes::check(&kubernetes.host_proc).map_err(anyhow::Error::msg)?;
        let client = Access::from_setting(kubernetes.kubeconfig.as_deref()).client().await;
        let client = client.with_context(|| format!("cannot follow the pods of node {name}"))?;
        Ok(Self {
            sandboxes: Sandboxes::new(&kubernetes.host_proc),
            owner: kubernetes.owner.clone().map(|owner| Watched::new(client.clone(), owner)),
            plugin: kubernetes.plugin.clone(),
            kept: None,
            reporting: None,
            client,
        })
    }

    /// Puts the CNI plugin into the node's network configuration, and keeps it there.
    pub(crate) fn keep_plugin(&mut self, readiness: &Readiness) {
        if let Some(install) = &self.plugin {
            self.kept = Some(tokio::spawn(install.clone().keep(readiness.register("cni"))));
        }
    }

    /// Tells users, on their pods.
    pub(crate) fn report(&mut self, name: &str, pods: watch::Receiver<Option<Vec<Pod>>>, told: watch::Receiver<Told>) {
        self.reporting = Some(tokio::spawn(report::report(self.client.clone(), name.to_owned(), pods, told)));
    }

    /// Whether no other agent will come.
    pub(crate) async fn is_uninstalled(&self) -> bool {
        match &self.owner {
            Some(owner) => owner.is_gone().await,
            None => false,
        }
    }

    /// Takes the CNI plugin out.
    pub(crate) async fn take_plugin_out(&mut self) {
        if let Some(kept) = self.kept.take() {
            kept.abort();
            let _ = kept.await;
        }
        if let Some(Err(error)) = self.plugin.as_ref().map(Install::take_out) {
            tracing::error!(%error, "the CNI plugin was not taken out: remove it from the node's network configuration, or no pod starts");
        }
    }

    /// Waits until users were told of the last change; not for long.
    pub(crate) async fn told_all(mut self) {
        if let Some(reporting) = self.reporting.take() {
            let stop = reporting.abort_handle();
            let _ = tokio::time::timeout(LAST_WORDS, reporting).await;
            stop.abort();
        }
    }
}
