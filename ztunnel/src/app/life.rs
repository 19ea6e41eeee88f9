//! The life of the process once its parts are there: it waits for the tables, serves pods, drains, and ends.

use std::sync::Arc;

use anyhow::{Context, Result};
use mesh_proxy::drain;
use mesh_proxy::metrics::DrainMetrics;
use mesh_runtime::drain::Trigger;
use mesh_runtime::readiness::Part;
use mesh_runtime::shutdown::Shutdown;

use crate::config::Mode;
use crate::context::WorkerContext;
use crate::metrics::PodMetrics;
use crate::own;
use crate::pods::{self, List, Pods};
use crate::worker::Handle;

/// What lives.
pub(super) struct Process {
    pub(super) context: Arc<WorkerContext>,
    pub(super) workers: Vec<Handle>,
    /// The pods that the node agent hands over, and whether it has; `None` where ztunnel serves only one.
    pub(super) agent: Option<(Pods, Part)>,
    /// The pods that are served.
    pub(super) list: List,
    pub(super) pod_metrics: PodMetrics,
    pub(super) drain_metrics: DrainMetrics,
    /// Ready until it drains.
    pub(super) life: Part,
    /// Ready once the tables are complete.
    pub(super) tables: Part,
}

impl Process {
    /// Until somebody asks for the end, and what was open then has ended or the time for it has.
    ///
    /// # Errors
    /// When the pods that live where ztunnel does cannot be served.
    pub(super) async fn run(self, shutdown: Shutdown, trigger: Trigger) -> Result<()> {
        let Self { context, workers, agent, list, pod_metrics, drain_metrics, life, tables } = self;
        let config = &context.config;
        let mut serving = Box::pin(pods::once_complete(context.proxy.tables.synced(), async {
            let served = match &config.mode {
                Mode::Shared => own::serve_own(config, &workers).context("serving ztunnel's own pod (SERVICE_ACCOUNT)"),
                Mode::Dedicated(pod) => own::serve_dedicated(config, pod, &workers, &pod_metrics, &list)
                    .context("serving the workload of PROXY_WORKLOAD_INFO"),
            };
            if let Err(error) = served {
                return error;
            }
            tables.ready();
            let Some((pods, ready)) = agent else { return std::future::pending().await };
            match pods.follow(ready).await {}
        }));
        let reason = tokio::select! {
            reason = shutdown.wait() => reason.context("waiting for signals")?,
            error = &mut serving => return Err(error),
        };
        tokio::select! {
            () = drain::drain(trigger, &context.proxy.drain, &reason, config.drain, &drain_metrics, &life) => {}
            // Pods that go while their connections end are still heard of.
            never = async {
                (&mut serving).await;
                std::future::pending().await
            } => never,
        }
        drop(serving);
        for worker in workers {
            worker.join();
        }
        Ok(())
    }
}
