//! (source, address, tables) → where this connection should go, or why nowhere. The heart of the outbound path; no
//! socket is opened before it has answered. Rows are those of the ambient contract's outbound table.
//!
//! | file | holds |
//! |---|---|
//! | this one | which of the ways, and the straight one |
//! | `via` | waypoints, and the gateways of other networks |
//! | `reach` | what remains once an endpoint's address is known, for those that have only a name |

mod reach;
mod via;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::address::Authority;
use crate::balance::{self, NoEndpoint};
use crate::identity::{InvalidSpiffeId, SpiffeId};
use crate::reason::ReasonCode;
use crate::service::{BalanceMode, Service};
use crate::tables::Tables;
use crate::workload::{Tunnel, Workload};

pub use reach::ByName;
use reach::Reach;

/// The port of HBONE on every meshed pod.
pub const HBONE_PORT: u16 = 15008;
/// Ports on which ztunnel itself listens in pods; applications cannot be reached on them.
pub const RESERVED_PORTS: [u16; 3] = [15008, 15006, 15001];
/// Reserved, too, where ztunnel serves SOCKS.
pub const SOCKS_PORT: u16 = 15080;

/// Where a connection should go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Through a tunnel to a peer that proves one of the identities.
    Tunnel(TunnelTo),
    /// Through a tunnel within a tunnel, to another network.
    Across(AcrossTo),
    /// Plain TCP.
    Plain(PlainTo),
    /// The endpoint has no address: resolve its name, then ask [`ByName::at`].
    Resolve(ByName),
    /// Nowhere.
    Refuse(Refusal),
}

/// A tunnel to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelTo {
    /// The peer's HBONE address.
    pub peer: SocketAddr,
    /// What the CONNECT asks for: the application's address, the dialled address at a waypoint, the service's hostname at
    /// a network gateway.
    pub authority: Authority,
    /// Identities of which the peer must prove one; the workload's own first.
    pub expected: Vec<SpiffeId>,
    /// Who ends the tunnel: the application's workload, the waypoint's or the gateway's.
    pub workload: Arc<Workload>,
    /// The service that was dialled.
    pub service: Option<Arc<Service>>,
    /// A waypoint is in the way.
    pub via_waypoint: bool,
}

/// Two tunnels to open, one in the other (double HBONE, ambient contract 4.7). Both CONNECTs ask for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcrossTo {
    /// To the gateway of the other network.
    pub outer: TunnelTo,
    /// Identities of which the far end of the inner tunnel must prove one: those that the service names, never a
    /// workload's, because the gateway chooses the workload. Never empty.
    pub expected: Vec<SpiffeId>,
}

/// A plain connection to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainTo {
    /// Where to.
    pub address: SocketAddr,
    /// Who owns the address, if the mesh knows.
    pub workload: Option<Arc<Workload>>,
    /// The service that was dialled.
    pub service: Option<Arc<Service>>,
}

/// Why a connection goes nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It would come back to ourselves (row O1).
    #[error("attempted recursive call to ourselves")]
    Recursive,
    /// The service cannot take it (row O7).
    #[error("{reason}: {service} port {port}")]
    NoUpstream {
        /// The service's key.
        service: String,
        /// The port that was dialled.
        port: u16,
        /// What it lacks.
        reason: NoEndpoint,
    },
    /// The waypoint in its way is not known or has no endpoint (row O5): never bypassed.
    #[error("unknown waypoint: {0}")]
    UnknownWaypoint(String),
    /// The endpoint is on another network and there is no way there (row O11).
    #[error("unknown network gateway: {0}")]
    UnknownGateway(String),
    /// The endpoint is on another network and the service names nobody who may answer there (trap 21).
    #[error(
        "service {0} has endpoints on another network and no subject alternative names: whoever answered there could \
         not be proven; does the control plane know the remote workloads' identities?"
    )]
    NoServiceIdentity(String),
    /// The workload's name makes no SPIFFE id, so its peer could not be proven.
    #[error("workload {0} has no valid identity: {1}")]
    Identity(String, InvalidSpiffeId),
}

impl Refusal {
    /// A stable code for logs and metrics; documented in `docs/reasons.md`.
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Recursive => ReasonCode::RecursiveCall,
            Self::NoUpstream { reason: NoEndpoint::Port(_), .. } => ReasonCode::UnknownServicePort,
            Self::NoUpstream { reason: NoEndpoint::Healthy, .. } => ReasonCode::NoHealthyUpstream,
            Self::UnknownWaypoint(_) => ReasonCode::UnknownWaypoint,
            Self::UnknownGateway(_) => ReasonCode::UnknownNetworkGateway,
            Self::NoServiceIdentity(_) => ReasonCode::NoServiceIdentity,
            Self::Identity(..) => ReasonCode::InvalidIdentity,
        }
    }
}

/// What a connection is decided from.
#[derive(Clone, Copy)]
struct Asked<'a> {
    tables: &'a Tables,
    client: &'a Workload,
    dialled: SocketAddr,
    random: u64,
}

/// Decides where a connection of `client` to `dialled` should go. `network` is the proxy's own, on which `dialled` is
/// looked up; endpoints are held against the client's, which should be the same. `random` chooses between endpoints. `dialled` must be in normal form.
pub fn decide(tables: &Tables, client: &Workload, network: &str, dialled: SocketAddr, random: u64) -> Destination {
    if recursive(dialled) {
        return Destination::Refuse(Refusal::Recursive); // O1
    }
    let asked = Asked { tables, client, dialled, random };
    let workload = tables.workload_by_address(network, dialled.ip());
    let service = tables.service_by_address(network, dialled.ip(), &client.namespace);
    // An address of both: only the workload's waypoint is asked for, then the service's endpoints are.
    let waypoint = match (workload, service) {
        (Some(workload), _) => via::of_workload(asked, workload).map(|waypoint| (waypoint, None)),
        (None, Some(service)) => via::of_service(service, random).map(|waypoint| (waypoint, Some(service))),
        (None, None) => None,
    };
    let decided = match (waypoint, service, workload) {
        (Some((waypoint, service)), _, _) => via::waypoint(asked, waypoint, service), // O3 to O5, O12
        (None, Some(service), _) => to_service(asked, service),
        (None, None, Some(workload)) => direct(workload.clone(), None, dialled), // O13 to O15
        // O16: nobody we know; the application meant the outside world.
        (None, None, None) => Ok(Destination::Plain(PlainTo { address: dialled, workload: None, service: None })),
    };
    decided.unwrap_or_else(Destination::Refuse)
}

/// A port of ours on the pod itself.
fn recursive(to: SocketAddr) -> bool {
    to.ip().is_loopback() && RESERVED_PORTS.contains(&to.port())
}

fn to_service(asked: Asked<'_>, service: &Arc<Service>) -> Result<Destination, Refusal> {
    let Asked { tables, client, dialled, random } = asked;
    if service.load_balancing.mode == BalanceMode::Passthrough {
        // O6
        return Ok(Destination::Plain(PlainTo { address: dialled, workload: None, service: Some(service.clone()) }));
    }
    let none = |reason| Refusal::NoUpstream { service: service.key().to_string(), port: dialled.port(), reason }; // O7
    let endpoints = tables.endpoints(&service.key());
    let endpoint = balance::choose(service, endpoints, client, dialled.port(), random).map_err(none)?;
    if endpoint.workload.network != client.network {
        return via::gateway(asked, &endpoint.workload, service, None); // O10, O11
    }
    let reach = Reach::Application { service: Some(service.clone()), port: endpoint.port };
    reach::locate(asked, endpoint.workload, service.ip_families, reach, || none(NoEndpoint::Healthy)) // O8, O9
}

/// Straight to the application's workload, through its tunnel if it has one.
fn direct(
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
fn expected(workload: &Workload, service: Option<&Arc<Service>>) -> Result<Vec<SpiffeId>, Refusal> {
    let own = workload.identity().map_err(|e| Refusal::Identity(workload.uid.to_string(), e))?;
    let mut expected = vec![own];
    add_names(&mut expected, service);
    Ok(expected)
}

/// Adds the identities that a service names. Names that are no SPIFFE id are skipped: they can never be proven.
fn add_names(expected: &mut Vec<SpiffeId>, service: Option<&Arc<Service>>) {
    for id in service.into_iter().flat_map(|s| &s.subject_alt_names).filter_map(|name| name.parse().ok()) {
        if !expected.contains(&id) {
            expected.push(id);
        }
    }
}

#[cfg(test)]
mod tests;
