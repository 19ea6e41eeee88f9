//! Pods that nobody hands over, because they live where ztunnel does: ztunnel's own.

use std::io;
use std::sync::Arc;

use mesh_handoff::PodInfo;

use crate::config::Config;
use crate::listeners::{self, Door, Wanted};
use crate::sockets::{Netns, OriginalSource, SocketSettings};
use crate::worker::{Command, Handle, Served};

/// No pod's UID, and no name that somebody could give one.
const UID: &str = "(ztunnel)";

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
    let wanted = Wanted { doors: &[Door::Hbone], dns: None };
    tracing::info!(pod = %info, port = config.ports.metrics, "serving our own metrics through the mesh");
    start(workers, UID.into(), info, netns, &wanted, settings, Some(config.ports.metrics))
}

fn start(
    workers: &[Handle],
    uid: Arc<str>,
    info: PodInfo,
    netns: Netns,
    wanted: &Wanted<'_>,
    settings: SocketSettings,
    only: Option<u16>,
) -> io::Result<()> {
    let (info, settings) = (Arc::new(info), Arc::new(settings));
    for (worker, listeners) in workers.iter().zip(listeners::open(&netns, wanted, workers.len(), &settings)?) {
        let (uid, info, netns, sockets) = (uid.clone(), info.clone(), netns.clone(), settings.clone());
        // A worker ends only with the process.
        let _ = worker.commands.send(Command::Serve(Served { uid, info, netns, listeners, sockets, only }));
    }
    Ok(())
}
