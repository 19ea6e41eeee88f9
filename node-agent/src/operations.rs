//! What the agent does to one pod, step by step. Each may fail and be repeated.

use std::net::IpAddr;
use std::sync::Arc;

use mesh_handoff::AgentEnd;
use mesh_handoff::agent_end::AddError;
use mesh_model::pod::PodInfo;
use tokio::sync::Semaphore;

use crate::netns::{Netns, NetnsError, Place};
use crate::pods::Pod;
use crate::probes::{ProbeError, Probes};
use crate::redirect::apply::ApplyError;
use crate::redirect::{Settings, apply};
use crate::sandboxes::Sandboxes;
use std::os::fd::AsFd;

/// How many pods are worked on in the kernel at once.
const AT_ONCE: usize = 16;

/// What the operations work with.
pub(crate) struct Tools {
    pub(crate) handoff: AgentEnd,
    /// `None` when the node's own rules are not ours to make.
    pub(crate) probes: Option<Probes>,
    /// `None` where the source of pods says where their namespaces are.
    pub(crate) sandboxes: Option<Sandboxes>,
    kernel: Semaphore,
}

/// A pod's sandbox, as the agent opened it: its network namespace, and what is done there.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) netns: Arc<Netns>,
    pub(crate) place: Place,
    pub(crate) settings: Settings,
    pub(crate) ips: Vec<IpAddr>,
}

/// Why a pod could not be enrolled or let go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Rules(#[from] ApplyError),
    #[error(transparent)]
    Handoff(#[from] AddError),
    #[error(transparent)]
    Probes(#[from] ProbeError),
    #[error("cannot duplicate the descriptor of the network namespace: {0}")]
    Descriptor(#[source] std::io::Error),
}

impl OperationError {
    /// A label word for the step that failed.
    pub(crate) fn step(&self) -> &'static str {
        match self {
            Self::Netns(_) | Self::Descriptor(_) => "netns",
            Self::Rules(_) => "rules",
            Self::Handoff(_) => "handoff",
            Self::Probes(_) => "probes",
        }
    }
}

/// How the rules of an enrolled pod were found.
#[derive(Debug)]
pub(crate) enum Verified {
    /// As they should be.
    Captured,
    /// Not as they should be, one line each; they are now.
    Repaired(Vec<String>),
    /// The pod has another namespace than the one that was enrolled.
    Moved,
}

impl Tools {
    pub(crate) fn new(handoff: AgentEnd, probes: Option<Probes>, sandboxes: Option<Sandboxes>) -> Self {
        Self { handoff, probes, sandboxes, kernel: Semaphore::new(AT_ONCE) }
    }

    /// Opens the namespace; nothing is changed yet.
    pub(crate) fn open(pod: &Pod, place: &Place, settings: &Settings) -> Result<Sandbox, OperationError> {
        Ok(Sandbox { netns: place.open()?, place: place.clone(), settings: settings.clone(), ips: pod.ips.clone() })
    }

    /// Puts the rules in.
    pub(crate) async fn capture(&self, sandbox: &Sandbox) -> Result<(), OperationError> {
        let _permit = self.kernel.acquire().await;
        Ok(apply::install(sandbox.netns.as_fd(), &sandbox.settings).await?)
    }

    /// Hands a pod to ztunnel, then redirects its traffic there. In this order: a pod that runs while it joins never
    /// meets rules that lead to nobody.
    pub(crate) async fn hand_over(&self, pod: &Pod, sandbox: &Sandbox) -> Result<(), OperationError> {
        self.hand(pod, sandbox).await?;
        self.redirect(pod, sandbox).await
    }

    /// Hands a pod to ztunnel, with what that needs to serve it; nothing is redirected that was not before.
    pub(crate) async fn serve(&self, pod: &Pod, sandbox: &Sandbox) -> Result<(), OperationError> {
        self.hand(pod, sandbox).await?;
        // What was captured stays so, whatever became of its ztunnel or of the last agent.
        if apply::redirects(sandbox.netns.as_fd()).await? {
            return Ok(());
        }
        self.unredirect(sandbox).await
    }

    async fn hand(&self, pod: &Pod, sandbox: &Sandbox) -> Result<(), OperationError> {
        let netns = sandbox.netns.try_clone_fd().map_err(OperationError::Descriptor)?;
        Ok(self.handoff.add(&pod.uid, info(pod), netns).await?)
    }

    /// Redirects a pod's traffic to ztunnel, which serves it, and lets the kubelet's probes in.
    pub(crate) async fn redirect(&self, pod: &Pod, sandbox: &Sandbox) -> Result<(), OperationError> {
        self.capture(sandbox).await?;
        if let Some(probes) = &self.probes {
            probes.add(&pod.uid, &sandbox.ips).await?;
        }
        Ok(())
    }

    /// Leaves the rules by which ztunnel serves a pod, and none that redirect.
    pub(crate) async fn unredirect(&self, sandbox: &Sandbox) -> Result<(), OperationError> {
        let _permit = self.kernel.acquire().await;
        Ok(apply::install_serving(sandbox.netns.as_fd(), &sandbox.settings).await?)
    }

    /// Lets a pod go. With `rules`, its namespace lives on: the rules leave before ztunnel does, so that what they
    /// capture is served to the last.
    pub(crate) async fn release(&self, uid: &str, sandbox: &Sandbox, rules: bool) -> Result<(), OperationError> {
        if let Some(probes) = &self.probes {
            probes.remove(uid, &sandbox.ips).await?;
        }
        if rules {
            let _permit = self.kernel.acquire().await;
            apply::remove(sandbox.netns.as_fd()).await?;
        }
        self.handoff.del(uid).await;
        Ok(())
    }

    /// Checks that a pod is captured as it should be, and mends it if not.
    pub(crate) async fn verify(&self, sandbox: &Sandbox) -> Result<Verified, OperationError> {
        let _permit = self.kernel.acquire().await;
        // A path that is gone is the business of the list of pods.
        if sandbox.place.open().is_ok_and(|now| now.id() != sandbox.netns.id()) {
            return Ok(Verified::Moved);
        }
        let missing = apply::missing(sandbox.netns.as_fd(), &sandbox.settings).await?;
        if missing.is_empty() {
            return Ok(Verified::Captured);
        }
        apply::install(sandbox.netns.as_fd(), &sandbox.settings).await?;
        Ok(Verified::Repaired(missing))
    }
}

/// What ztunnel is told about a pod.
pub(crate) fn info(pod: &Pod) -> PodInfo {
    // A pod without a service account runs as its namespace's default.
    let account = if pod.service_account.is_empty() { "default" } else { &pod.service_account };
    PodInfo { name: pod.name.clone(), namespace: pod.namespace.clone(), service_account: account.to_owned() }
}
