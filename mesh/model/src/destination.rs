//! (source, address, tables) → where this connection should go, or why nowhere. The heart of the outbound path; no
//! socket is opened before it has answered. Rows are those of the ambient contract's outbound table.
//!
//! | file | holds |
//! |---|---|
//! | this one | which of the ways |
//! | `outcome`, `asked` | what comes out, and what it is decided from |
//! | `direct` | the straight way, and who may answer at its end |
//! | `via` | waypoints, and the gateways of other networks |
//! | `reach` | what remains once an endpoint's address is known, for those that have only a name |

mod asked;
mod direct;
mod outcome;
mod reach;
mod via;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::balance::{self, Choice, Endpoint, NoEndpoint};
use crate::service::{BalanceMode, Service};
use crate::tables::Tables;
use crate::workload::Workload;
use asked::Asked;
use direct::{direct, recursive};
use outcome::Reach;

pub use direct::{HBONE_PORT, RESERVED_PORTS, SOCKS_PORT};
pub use outcome::{AcrossTo, ByName, Destination, PlainTo, Refusal, TunnelTo};

/// Decides where a connection of `client` to `dialled` should go. `network` is the proxy's own, on which `dialled` is
/// looked up; endpoints are held against the client's, which should be the same. `by` chooses between endpoints. `dialled` must be in normal form.
pub fn decide(tables: &Tables, client: &Workload, network: &str, dialled: SocketAddr, by: Choice<'_>) -> Destination {
    if recursive(dialled) {
        return Destination::Refuse(Refusal::Recursive); // O1
    }
    let asked = Asked { tables, client, dialled, by };
    let workload = tables.workload_by_address(network, dialled.ip());
    let service = tables.service_by_address(network, dialled.ip(), &client.namespace);
    // An address of both: only the workload's waypoint is asked for, then the service's endpoints are.
    let waypoint = match (workload, service) {
        (Some(workload), _) => via::of_workload(asked, workload).map(|waypoint| (waypoint, None)),
        (None, Some(service)) => via::of_service(service, by.random).map(|waypoint| (waypoint, Some(service))),
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

/// Where a request that came to `waypoint` goes, whose endpoint of `service` is chosen ([`crate::balance::choices`]): the waypoint has been
/// passed, so only the way to the endpoint is looked for. `dialled` is what the caller dialled.
pub fn behind_waypoint(
    tables: &Tables,
    waypoint: &Workload,
    service: &Arc<Service>,
    dialled: SocketAddr,
    (endpoint, port): (&Arc<Workload>, u16),
    random: u64,
) -> Destination {
    let asked = Asked { tables, client: waypoint, dialled, by: random.into() };
    let endpoint = Endpoint { workload: endpoint.clone(), port };
    to_endpoint(asked, service, endpoint).unwrap_or_else(Destination::Refuse)
}

/// Whether a waypoint is the one in the way to the addresses of `workload`: what `waypoint`, a pod of it, may be asked for.
pub fn is_behind(tables: &Tables, workload: &Workload, waypoint: &Workload) -> bool {
    workload.waypoint.as_deref().is_some_and(|address| via::has_pod(tables, waypoint, address))
}

/// Where a connection goes that came to a waypoint for the address of a workload: there.
pub fn behind_waypoint_to_workload(workload: &Arc<Workload>, dialled: SocketAddr) -> Destination {
    match recursive(dialled) {
        true => Destination::Refuse(Refusal::Recursive),
        false => direct(workload.clone(), None, dialled).unwrap_or_else(Destination::Refuse),
    }
}

/// Why a request goes to no endpoint of a service.
pub fn no_endpoint(service: &Service, port: u16, reason: NoEndpoint) -> Refusal {
    Refusal::NoUpstream { service: service.key().to_string(), port, reason } // O7
}

fn to_service(asked: Asked<'_>, service: &Arc<Service>) -> Result<Destination, Refusal> {
    let Asked { tables, client, dialled, by } = asked;
    if service.load_balancing.mode == BalanceMode::Passthrough {
        // O6
        return Ok(Destination::Plain(PlainTo { address: dialled, workload: None, service: Some(service.clone()) }));
    }
    let endpoints = tables.endpoints(&service.key());
    let endpoint = balance::choose(service, endpoints, client, dialled.port(), by.random);
    to_endpoint(asked, service, endpoint.map_err(|reason| no_endpoint(service, dialled.port(), reason))?)
}

fn to_endpoint(asked: Asked<'_>, service: &Arc<Service>, endpoint: Endpoint) -> Result<Destination, Refusal> {
    let Asked { client, dialled, .. } = asked;
    let none = || no_endpoint(service, dialled.port(), NoEndpoint::Healthy);
    if endpoint.workload.network != client.network {
        return via::gateway(asked, &endpoint.workload, service, None); // O10, O11
    }
    let reach = Reach::Application { service: Some(service.clone()), port: endpoint.port };
    reach::locate(asked, endpoint.workload, service.ip_families, reach, none) // O8, O9
}

#[cfg(test)]
mod tests;
