//! Choose an endpoint from weights, health and locality. Randomness is an argument.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::service::{BalanceMode, IpFamilies, LoadBalancing, Scope, Service};
use crate::workload::Workload;

/// The endpoint that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Who serves it.
    pub workload: Arc<Workload>,
    /// Port of the application.
    pub port: u16,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// The service does not have the port.
    #[error("the service has no port {0}")]
    Port(u16),
    /// Nobody serves it that is healthy, near enough and has a weight.
    #[error("no healthy upstream")]
    Healthy,
}

/// Chooses one of `endpoints` for a client that asks `service` for `port`. `random` decides between equals: the
/// same number chooses the same endpoint, and numbers spread evenly choose by weight.
///
/// # Errors
/// When no endpoint can take the connection.
pub fn choose(
    service: &Service,
    endpoints: &[Arc<Workload>],
    client: &Workload,
    port: u16,
    random: u64,
) -> Result<Endpoint, NoEndpoint> {
    let mapping = service.ports.iter().find(|p| p.service_port == port).ok_or(NoEndpoint::Port(port))?;
    pick(service, endpoints, client, random, |w| own_port(service, w, port).or(nonzero(mapping.target_port)))
}

/// [`choose`] for a waypoint's own service and its HBONE `port`. Users do not name that port, so a waypoint behind an
/// application tunnel need not have it on its service: ztunnel answers it there, on the port that was asked for.
///
/// # Errors
/// When no waypoint can take the connection.
pub fn choose_waypoint(
    service: &Service,
    endpoints: &[Arc<Workload>],
    client: &Workload,
    port: u16,
    random: u64,
) -> Result<Endpoint, NoEndpoint> {
    let mapping = service.ports.iter().find(|p| p.service_port == port);
    pick(service, endpoints, client, random, |workload| {
        let tunnelled = || workload.application_tunnel.filter(|t| t.port != 0).map(|_| port);
        own_port(service, workload, port).or_else(|| nonzero(mapping?.target_port)).or_else(tunnelled)
    })
}

/// The endpoint's own answer to a service port.
fn own_port(service: &Service, workload: &Workload, port: u16) -> Option<u16> {
    let ports = workload.services.get(&service.key())?;
    nonzero(ports.iter().find(|p| p.service_port == port)?.target_port)
}

/// On the wire 0 is no port but "ask the other list".
fn nonzero(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

fn pick(
    service: &Service,
    endpoints: &[Arc<Workload>],
    client: &Workload,
    random: u64,
    target: impl Fn(&Workload) -> Option<u16>,
) -> Result<Endpoint, NoEndpoint> {
    let lb = &service.load_balancing;
    let usable = |workload: &Arc<Workload>| {
        let target = target(workload)?;
        // A gateway is the way in from other networks; on the own network it is no substitute for an address.
        let by_gateway = workload.network != client.network && workload.network_gateway.is_some();
        let reachable = !workload.addresses.is_empty() || !workload.hostname.is_empty() || by_gateway;
        let healthy = workload.healthy || lb.allow_unhealthy;
        let rank = rank(lb, client, workload)?;
        (reachable && healthy && workload.capacity > 0).then_some((rank, target))
    };
    // Two passes over the endpoints instead of a list: the best rank with its weight, then the pick.
    let (mut best, mut total) = (0, 0u64);
    for (workload, (rank, _)) in endpoints.iter().filter_map(|w| Some((w, usable(w)?))) {
        if rank > best {
            (best, total) = (rank, 0);
        }
        if rank == best {
            total += u64::from(workload.capacity);
        }
    }
    if total == 0 {
        return Err(NoEndpoint::Healthy);
    }
    let mut pick = random % total;
    for (workload, (rank, target)) in endpoints.iter().filter_map(|w| Some((w, usable(w)?))) {
        if rank != best {
            continue;
        }
        let weight = u64::from(workload.capacity);
        if pick < weight {
            return Ok(Endpoint { workload: workload.clone(), port: target });
        }
        pick -= weight;
    }
    Err(NoEndpoint::Healthy)
}

/// How well a workload fits the client's preferences, more is better; `None` when it does not fit at all.
fn rank(lb: &LoadBalancing, client: &Workload, workload: &Workload) -> Option<usize> {
    let same = |scope: &Scope| match scope {
        Scope::Region => client.locality.region == workload.locality.region,
        Scope::Zone => client.locality.zone == workload.locality.zone,
        Scope::Subzone => client.locality.subzone == workload.locality.subzone,
        Scope::Node => client.node == workload.node,
        Scope::Cluster => client.cluster == workload.cluster,
        Scope::Network => client.network == workload.network,
    };
    match lb.mode {
        BalanceMode::Any | BalanceMode::Passthrough => Some(0),
        BalanceMode::Strict => lb.preference.iter().all(same).then_some(0),
        BalanceMode::Failover => match lb.preference.split_first() {
            // A leading network is a preference, not a gate: a mismatch does not end the ranking, and a match outweighs
            // all that follows, so that any endpoint on the own network beats any remote one.
            Some((Scope::Network, rest)) => {
                let own = if same(&Scope::Network) { 1 + rest.len() } else { 0 };
                Some(own + rest.iter().take_while(|s| same(s)).count())
            }
            _ => Some(lb.preference.iter().take_while(|s| same(s)).count()),
        },
    }
}

/// The address an endpoint is dialled at, given the address the client dialled: that very address when it is the
/// workload's own, else one of a family the service allows, the client's family first. `None` without addresses.
pub fn address(workload: &Workload, families: IpFamilies, dialled: SocketAddr) -> Option<IpAddr> {
    if workload.addresses.contains(&dialled.ip()) {
        return Some(dialled.ip());
    }
    let allowed = |ip: &IpAddr| match families {
        IpFamilies::Automatic | IpFamilies::Dual => true,
        IpFamilies::Ipv4 => ip.is_ipv4(),
        IpFamilies::Ipv6 => ip.is_ipv6(),
    };
    let mut candidates = workload.addresses.iter().filter(|ip| allowed(ip));
    candidates.clone().find(|ip| ip.is_ipv4() == dialled.is_ipv4()).or_else(|| candidates.next()).copied()
}

/// One of the addresses that an endpoint's hostname resolved to: any of the family that the client dialled, else any.
/// `None` when there is none.
pub fn resolved(addresses: &[IpAddr], ipv4_first: bool, random: u64) -> Option<IpAddr> {
    let same_family = |ip: &&IpAddr| ip.is_ipv4() == ipv4_first;
    let of_family = addresses.iter().filter(same_family).count();
    // A number below a length that is a usize.
    let below = |count: usize| (random % count.max(1) as u64) as usize;
    match of_family {
        0 => addresses.get(below(addresses.len())).copied(),
        count => addresses.iter().filter(same_family).nth(below(count)).copied(),
    }
}

#[cfg(test)]
mod tests;
