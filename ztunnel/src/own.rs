//! Pods that nobody hands over, because they live where ztunnel does: ztunnel's own, and the one that it serves when it
//! serves only one.

use std::io;
use std::sync::Arc;

use mesh_model::pod::PodInfo;

use crate::config::Config;
use crate::listeners::{self, ListenerKind, Wanted};
use crate::metrics::PodMetrics;
use crate::pods::{List, lock};
use crate::sockets::{Netns, OriginalSource, SocketSettings};
use crate::worker::{Command, Handle, Served};

/// No pods' UIDs, and no names that somebody could give one.
const OWN: &str = "(ztunnel)";
const DEDICATED: &str = "(dedicated)";

/// Serves HBONE in ztunnel's own namespace, so that its metrics can be read through the mesh, by whom policies of its
/// own workload let. Nobody is to reach more of it than that: where it shares the node's network, the node's own ports
/// would be among it. Does nothing while it does not know its own pod.
///
/// # Errors
/// When the port is taken.
pub(crate) fn serve_own(config: &Config, workers: &[Handle]) -> io::Result<()> {
    let Some(info) = config.pod.workload() else { return Ok(()) };
    let netns = Netns::own()?;
    // Nothing is redirected here, and whoever answers here answers us.
    let settings = SocketSettings { mark: None, original_source: OriginalSource::Off, ..config.sockets.clone() };
    let wanted = Wanted { kinds: &[ListenerKind::Hbone], dns: None };
    tracing::info!(pod = %info, port = config.ports.metrics, "serving our own metrics through the mesh");
    start(workers, OWN, Arc::new(info), netns, &wanted, settings, Some(config.ports.metrics))
}

/// Serves one workload in ztunnel's own namespace, as pods are served (`PROXY_MODE=dedicated`).
///
/// # Errors
/// When a port is taken, or rights are missing.
pub(crate) fn serve_dedicated(
    config: &Config,
    info: &PodInfo,
    workers: &[Handle],
    metrics: &PodMetrics,
    list: &List,
) -> io::Result<()> {
    let kinds = listeners::kinds(config);
    let wanted = Wanted { kinds: &kinds, dns: config.dns.as_ref().map(|dns| (dns.address, 0)) };
    let info = Arc::new(info.clone());
    start(workers, DEDICATED, info.clone(), Netns::own()?, &wanted, config.sockets.clone(), None)?;
    tracing::info!(pod = %info, "serving the workload of our own network namespace");
    metrics.started.inc();
    metrics.active.set(1);
    lock(list).insert(DEDICATED.into(), info);
    Ok(())
}

fn start(
    workers: &[Handle],
    uid: &str,
    info: Arc<PodInfo>,
    netns: Netns,
    wanted: &Wanted<'_>,
    settings: SocketSettings,
    only: Option<u16>,
) -> io::Result<()> {
    let (uid, settings) = (Arc::<str>::from(uid), Arc::new(settings));
    for (worker, listeners) in workers.iter().zip(listeners::open(&netns, wanted, workers.len(), &settings)?) {
        let (uid, info, netns, sockets) = (uid.clone(), info.clone(), netns.clone(), settings.clone());
        // A worker ends only with the process.
        let _ = worker.commands.send(Command::Serve(Served { uid, info, netns, listeners, sockets, only }));
    }
    Ok(())
}
