//! (source, address, tables) → where this connection should go, or why nowhere. The heart of the outbound path; no
//! socket is opened before it has answered. Rows are those of the ambient contract's outbound table.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::address::{GatewayAddress, GatewayDestination};
use crate::balance::{self, NoEndpoint};
use crate::identity::{InvalidSpiffeId, SpiffeId};
use crate::service::{BalanceMode, Service};
use crate::tables::Tables;
use crate::workload::{Tunnel, Workload};

/// The port of HBONE on every meshed pod.
pub const HBONE_PORT: u16 = 15008;
/// Ports on which ztunnel itself listens in pods; applications cannot be reached on them.
pub const RESERVED_PORTS: [u16; 3] = [15008, 15006, 15001];

/// Where a connection should go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Through a tunnel to a peer that proves one of the identities.
    Tunnel(TunnelTo),
    /// Plain TCP.
    Plain(PlainTo),
    /// Nowhere.
    Refuse(Refusal),
}

/// A tunnel to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelTo {
    /// The peer's HBONE address.
    pub peer: SocketAddr,
    /// What the CONNECT asks for: the application's address, or the dialled address at a waypoint.
    pub authority: SocketAddr,
    /// Identities of which the peer must prove one; the workload's own first.
    pub expected: Vec<SpiffeId>,
    /// Who ends the tunnel: the application's workload, or the waypoint's.
    pub workload: Arc<Workload>,
    /// The service that was dialled.
    pub service: Option<Arc<Service>>,
    /// The peer is a waypoint.
    pub via_waypoint: bool,
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
    /// The service cannot take it (rows O7, O11).
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
    /// The workload's name makes no SPIFFE id, so its peer could not be proven.
    #[error("workload {0} has no valid identity: {1}")]
    Identity(String, InvalidSpiffeId),
}

impl Refusal {
    /// A stable code for logs and metrics; documented in `docs/reasons.md`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Recursive => "RECURSIVE_CALL",
            Self::NoUpstream { reason: NoEndpoint::Port(_), .. } => "UNKNOWN_SERVICE_PORT",
            Self::NoUpstream { reason: NoEndpoint::Healthy, .. } => "NO_HEALTHY_UPSTREAM",
            Self::UnknownWaypoint(_) => "UNKNOWN_WAYPOINT",
            Self::UnknownGateway(_) => "UNKNOWN_NETWORK_GATEWAY",
            Self::Identity(..) => "INVALID_IDENTITY",
        }
    }
}

/// Decides where a connection of `client` to `dialled` should go. `network` is the proxy's own, on which `dialled` is
/// looked up; endpoints are held against the client's, which should be the same. `random` chooses between endpoints. `dialled` must be in normal form.
pub fn decide(tables: &Tables, client: &Workload, network: &str, dialled: SocketAddr, random: u64) -> Destination {
    if dialled.ip().is_loopback() && RESERVED_PORTS.contains(&dialled.port()) {
        return Destination::Refuse(Refusal::Recursive); // O1
    }
    // Rows O3 to O11 are for addresses of services; an address that is also a workload's is the workload's.
    let workload = tables.workload_by_address(network, dialled.ip());
    let service = match workload {
        Some(_) => None,
        None => tables.service_by_address(network, dialled.ip(), &client.namespace),
    };
    let decided = match (service, workload) {
        (Some(service), _) => to_service(tables, client, service, dialled, random),
        (None, Some(workload)) => to_workload(tables, client, workload, dialled, random),
        // O16: nobody we know; the application meant the outside world.
        (None, None) => Ok(Destination::Plain(PlainTo { address: dialled, workload: None, service: None })),
    };
    decided.unwrap_or_else(Destination::Refuse)
}

fn to_service(
    tables: &Tables,
    client: &Workload,
    service: &Arc<Service>,
    dialled: SocketAddr,
    random: u64,
) -> Result<Destination, Refusal> {
    if let Some(waypoint) = waypoint_of(service, random) {
        let tunnel = to_waypoint(tables, client, waypoint, Some(service), dialled, random)?;
        return Ok(Destination::Tunnel(tunnel)); // O3
    }
    if service.load_balancing.mode == BalanceMode::Passthrough {
        // O6
        return Ok(Destination::Plain(PlainTo { address: dialled, workload: None, service: Some(service.clone()) }));
    }
    let endpoint = balance::choose(service, tables.endpoints(&service.key()), client, dialled.port(), random).map_err(
        |reason| Refusal::NoUpstream { service: service.key().to_string(), port: dialled.port(), reason }, // O7
    )?;
    if endpoint.workload.network != client.network {
        return Err(Refusal::UnknownGateway(endpoint.workload.network.to_string())); // O10, O11
    }
    let ip = balance::address(&endpoint.workload, service.ip_families, dialled).ok_or_else(|| Refusal::NoUpstream {
        service: service.key().to_string(),
        port: dialled.port(),
        reason: NoEndpoint::Healthy,
    })?;
    direct(endpoint.workload, Some(service), SocketAddr::new(ip, endpoint.port)) // O8, O9
}

fn to_workload(
    tables: &Tables,
    client: &Workload,
    workload: &Arc<Workload>,
    dialled: SocketAddr,
    random: u64,
) -> Result<Destination, Refusal> {
    if let Some(waypoint) = &workload.waypoint
        && !is_waypoint(tables, client, waypoint)
    {
        let tunnel = to_waypoint(tables, client, waypoint, None, dialled, random)?;
        return Ok(Destination::Tunnel(tunnel)); // O12
    }
    direct(workload.clone(), None, dialled) // O13 to O15
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
            authority: application,
            expected: expected(&workload, service)?,
            workload,
            service: service.cloned(),
            via_waypoint: false,
        })),
    }
}

/// The workload's own identity, then those the service's certificates may carry besides. Names that are no SPIFFE id
/// are skipped: they can never be proven.
fn expected(workload: &Workload, service: Option<&Arc<Service>>) -> Result<Vec<SpiffeId>, Refusal> {
    let own = workload.identity().map_err(|e| Refusal::Identity(workload.uid.to_string(), e))?;
    let mut expected = vec![own];
    let others = service.into_iter().flat_map(|s| &s.subject_alt_names).filter_map(|name| name.parse().ok());
    for id in others {
        if !expected.contains(&id) {
            expected.push(id);
        }
    }
    Ok(expected)
}

/// The waypoint of a service: one of the weighted ones, or the single one.
fn waypoint_of(service: &Service, random: u64) -> Option<&GatewayAddress> {
    let total: u64 = service.weighted_waypoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
    if total > 0 {
        // The low bits go on to choose the endpoint: use others here, so that the two choices are independent.
        let mut pick = random.rotate_left(32) % total;
        for (waypoint, weight) in &service.weighted_waypoints {
            if pick < u64::from(*weight) {
                return Some(waypoint);
            }
            pick -= u64::from(*weight);
        }
    }
    service.waypoint.as_deref()
}

fn to_waypoint(
    tables: &Tables,
    client: &Workload,
    waypoint: &GatewayAddress,
    service: Option<&Arc<Service>>,
    dialled: SocketAddr,
    random: u64,
) -> Result<TunnelTo, Refusal> {
    let unknown = || Refusal::UnknownWaypoint(waypoint.to_string()); // O5
    let own = match &waypoint.destination {
        GatewayDestination::Hostname(key) => tables.service(key),
        GatewayDestination::Address(a) => tables.service_by_address(&a.network, a.ip, &client.namespace),
    };
    let (workload, ip, port) = match (own, &waypoint.destination) {
        (Some(own), _) => {
            let endpoints = tables.endpoints(&own.key());
            let chosen = balance::choose_waypoint(own, endpoints, client, waypoint.hbone_mtls_port, random);
            let endpoint = chosen.map_err(|_| unknown())?;
            let ip = balance::address(&endpoint.workload, own.ip_families, dialled).ok_or_else(unknown)?;
            (endpoint.workload, ip, endpoint.port)
        }
        (None, GatewayDestination::Address(a)) => {
            let workload = tables.workload_by_address(&a.network, a.ip).ok_or_else(unknown)?;
            (workload.clone(), a.ip, waypoint.hbone_mtls_port)
        }
        (None, GatewayDestination::Hostname(_)) => return Err(unknown()),
    };
    if workload.network != client.network {
        return Err(Refusal::UnknownGateway(workload.network.to_string())); // O4
    }
    Ok(TunnelTo {
        peer: SocketAddr::new(ip, port),
        authority: dialled,
        expected: expected(&workload, own)?,
        workload,
        service: service.cloned(),
        via_waypoint: true,
    })
}

/// Whether the client is itself an endpoint of the waypoint (row O13): same identity and one of its addresses.
fn is_waypoint(tables: &Tables, client: &Workload, waypoint: &GatewayAddress) -> bool {
    let same = |w: &Arc<Workload>| {
        w.namespace == client.namespace
            && w.service_account == client.service_account
            && w.trust_domain == client.trust_domain
            && w.addresses.iter().any(|ip| client.addresses.contains(ip))
    };
    match &waypoint.destination {
        GatewayDestination::Hostname(key) => tables.endpoints(key).iter().any(same),
        GatewayDestination::Address(a) => tables.service_by_address(&a.network, a.ip, &client.namespace).map_or_else(
            || tables.workload_by_address(&a.network, a.ip).is_some_and(same),
            |service| tables.endpoints(&service.key()).iter().any(same),
        ),
    }
}

#[cfg(test)]
mod tests;
