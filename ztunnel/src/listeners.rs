//! Which listeners a pod has, and how they are made: on every worker the same.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mesh_model::destination::SOCKS_PORT;

use crate::config::Config;
use crate::dns::{self, ProxyAddress};
use crate::sockets::{self, Netns, SocketSettings};

/// Where the kernel is told to give those who wait at a closing listener to another one (`accept::close`), seen from the
/// thread's own network namespace.
const MIGRATE: &str = "/proc/sys/net/ipv4/tcp_migrate_req";

/// What a listener of a pod is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    /// Captured connections that the pod opens.
    Outbound,
    /// Captured connections to the pod, without a tunnel.
    Plaintext,
    /// Tunnels to the pod.
    Hbone,
    /// Connections that the pod asks for by SOCKS.
    Socks,
}

/// The kinds that a pod has whose traffic is captured.
pub(crate) fn kinds(config: &Config) -> Vec<ListenerKind> {
    if !config.proxy {
        return Vec::new();
    }
    let mut kinds = vec![ListenerKind::Outbound, ListenerKind::Plaintext, ListenerKind::Hbone];
    kinds.extend(config.socks.then_some(ListenerKind::Socks));
    kinds
}

impl ListenerKind {
    fn port(self) -> u16 {
        match self {
            Self::Outbound => 15001,
            Self::Plaintext => 15006,
            Self::Hbone => 15008,
            Self::Socks => SOCKS_PORT,
        }
    }
}

/// A worker's own listeners in a pod.
pub(crate) struct Listeners {
    pub(crate) tcp: Vec<(ListenerKind, std::net::TcpListener)>,
    /// On one of the pod's workers.
    pub(crate) dns: Option<dns::serve::Listeners>,
    /// Who waits at one of them when it closes is given to another listener of the pod.
    pub(crate) migrate: bool,
}

/// What to listen on.
pub(crate) struct Wanted<'a> {
    pub(crate) kinds: &'a [ListenerKind],
    /// And where DNS is answered, by which worker (counted round).
    pub(crate) dns: Option<(ProxyAddress, usize)>,
}

/// Makes a pod's listeners: all of them or none, one set for each of `workers`.
///
/// # Errors
/// When a port is taken by somebody who does not share it, or rights are missing.
pub(crate) fn open(
    netns: &Netns,
    wanted: &Wanted<'_>,
    workers: usize,
    settings: &SocketSettings,
) -> io::Result<Vec<Listeners>> {
    // Whether it can be entered at all: else each port would have the blame.
    netns.run(|| Ok(()))?;
    // Where we only are a guest, the kernel's settings are not ours to change.
    let migrate = settings.reuse_port && !netns.is_own() && migrates(netns);
    // Without a shared port one worker serves the pod alone.
    let count = if settings.reuse_port { workers } else { 1 };
    let listen = |kind: &ListenerKind| -> io::Result<_> {
        let ip = match kind {
            // Only for the pod itself.
            ListenerKind::Socks => IpAddr::from(Ipv4Addr::LOCALHOST),
            _ => settings.wildcard(),
        };
        let listener = sockets::listen(netns, SocketAddr::new(ip, kind.port()), settings)
            .map_err(|error| io::Error::new(error.kind(), format!("port {}: {error}", kind.port())))?;
        Ok((*kind, listener))
    };
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let tcp = wanted.kinds.iter().map(listen).collect::<io::Result<Vec<_>>>()?;
        all.push(Listeners { tcp, dns: None, migrate });
    }
    if let Some((address, worker)) = wanted.dns {
        all[worker % count].dns = Some(dns::serve::listen(netns, address, settings)?);
    }
    Ok(all)
}

/// Whether connections that wait at a closing listener of this namespace move to another one. Asks the kernel for it
/// first; where `/proc/sys` is read only, or the kernel too old, the answer is no.
fn migrates(netns: &Netns) -> bool {
    let set = netns.run(|| {
        if std::fs::read_to_string(MIGRATE)?.trim() != "1" {
            std::fs::write(MIGRATE, "1")?;
        }
        Ok(())
    });
    set.is_ok()
}
