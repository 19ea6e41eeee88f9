//! The straight way, and who may answer at its end.

use std::net::SocketAddr;
use std::sync::Arc;

use super::outcome::{Destination, PlainTo, Refusal, TunnelTo};
use crate::address::Authority;
use crate::identity::SpiffeId;
use crate::service::Service;
use crate::workload::{Tunnel, Workload};

/// The port of HBONE on every meshed pod.
pub const HBONE_PORT: u16 = 15008;
/// Ports on which ztunnel itself listens in pods; applications cannot be reached on them.
pub const RESERVED_PORTS: [u16; 3] = [15008, 15006, 15001];
/// Reserved, too, where ztunnel serves SOCKS.
pub const SOCKS_PORT: u16 = 15080;

/// A port of ours on the pod itself.
pub(super) fn recursive(to: SocketAddr) -> bool {
    to.ip().is_loopback() && RESERVED_PORTS.contains(&to.port())
}

/// Straight to the application's workload, through its tunnel if it has one.
pub(super) fn direct(
    workload: Arc<Workload>,
    service: Option<&Arc<Service>>,
    application: SocketAddr,
) -> Result<Destination, Refusal> {
    match workload.tunnel {
        Tunnel::None => Ok(Destination::Plain(PlainTo {
            address: application,
            workload: Some(workload),
            service: service.cloned(),
        })),
        Tunnel::Hbone => Ok(Destination::Tunnel(TunnelTo {
            peer: SocketAddr::new(application.ip(), HBONE_PORT),
            authority: Authority::Address(application),
            expected: expected(&workload, service)?,
            workload,
            service: service.cloned(),
            via_waypoint: false,
        })),
    }
}

/// The workload's own identity, then those the service's certificates may carry besides.
pub(super) fn expected(workload: &Workload, service: Option<&Arc<Service>>) -> Result<Vec<SpiffeId>, Refusal> {
    let own = workload.identity().map_err(|e| Refusal::Identity(workload.uid.to_string(), e))?;
    let mut expected = vec![own];
    add_names(&mut expected, service);
    Ok(expected)
}

/// Adds the identities that a service names. Names that are no SPIFFE id are skipped: they can never be proven.
pub(super) fn add_names(expected: &mut Vec<SpiffeId>, service: Option<&Arc<Service>>) {
    for id in service.into_iter().flat_map(|s| &s.subject_alt_names).filter_map(|name| name.parse().ok()) {
        if !expected.contains(&id) {
            expected.push(id);
        }
    }
}
