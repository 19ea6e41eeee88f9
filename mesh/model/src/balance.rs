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
    let key = service.key();
    let lb = &service.load_balancing;
    let usable = |workload: &Arc<Workload>| {
        let target = workload
            .services
            .get(&key)
            .and_then(|ports| ports.iter().find(|p| p.service_port == port))
            .map(|p| p.target_port)
            .filter(|target| *target != 0)
            .or_else(|| Some(mapping.target_port).filter(|target| *target != 0))?;
        let reachable = !workload.addresses.is_empty() || workload.network_gateway.is_some();
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

#[cfg(test)]
mod tests;
