//! Choose an endpoint from weights, health and locality. Randomness is an argument.
//!
//! | file | holds |
//! |---|---|
//! | this one | the choice for a connection, out of all endpoints |
//! | [`choices`] | the choice for a request at a waypoint, out of those that were made ready |
//! | [`hash`] | consistent hashes |
//! | [`warmup`] | how much of its weight a new endpoint has |
//! | [`ewma`] | what a request costs at an endpoint, by how long others took |

pub mod choices;
pub mod ewma;
pub mod hash;
pub mod warmup;

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::service::{BalanceMode, IpFamilies, LoadBalancing, Scope, Service};
use crate::workload::{Locality, Workload};

/// The endpoint that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Who serves it.
    pub workload: Arc<Workload>,
    /// Port of the application.
    pub port: u16,
}

/// What decides between endpoints that suit a client alike.
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    /// The same number chooses the same endpoint; numbers that spread evenly choose by weight.
    pub random: u64,
    /// What an endpoint carries of ours already. It is asked of waypoints, whose tunnels live as long as clients' connections.
    pub busy: &'a dyn Fn(&Workload) -> u32,
}

impl From<u64> for Choice<'static> {
    /// By chance alone.
    fn from(random: u64) -> Self {
        Self { random, busy: &|_| 0 }
    }
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
/// same number chooses the same endpoint, and numbers spread evenly choose by weight. A service with client IP affinity
/// takes no chances: the client's address decides.
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
    let target = |w: &Workload| own_port(service, w, port).or(nonzero(mapping.target_port));
    pick(service, endpoints, client, random.into(), target)
}

/// [`choose`] for a waypoint's own service and its HBONE `port`. Users do not name that port, so a waypoint behind an
/// application tunnel need not have it on its service: ztunnel answers it there, on the port that was asked for.
///
/// Of those that are near enough it is one that carries least for its weight: connections live long, and one that has just come
/// is to get its part. Chance decides only between those.
///
/// # Errors
/// When no waypoint can take the connection.
pub fn choose_waypoint(
    service: &Service,
    endpoints: &[Arc<Workload>],
    client: &Workload,
    port: u16,
    by: Choice<'_>,
) -> Result<Endpoint, NoEndpoint> {
    let mapping = service.ports.iter().find(|p| p.service_port == port);
    pick(service, endpoints, client, by, |workload| {
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
    by: Choice<'_>,
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
        if !reachable || !healthy || workload.capacity == 0 {
            return None;
        }
        // For a weight of 2^32 it carries this much. It cannot overflow: both are of 32 bits.
        let carries = (u64::from((by.busy)(workload)) << 32) / u64::from(workload.capacity);
        Some(((rank, Reverse(carries)), target))
    };
    if service.has_client_ip_affinity() {
        return sticky(endpoints, client, usable).ok_or(NoEndpoint::Healthy);
    }
    // Two passes over the endpoints instead of a list: the best rank with its weight, then the pick.
    let (mut best, mut total) = (None, 0u64);
    for (workload, (rank, _)) in endpoints.iter().filter_map(|w| Some((w, usable(w)?))) {
        let rank = Some(rank);
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
    let mut pick = by.random % total;
    for (workload, (rank, target)) in endpoints.iter().filter_map(|w| Some((w, usable(w)?))) {
        if Some(rank) != best {
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

/// The endpoint that a client keeps: of those with the best rank the one that scores highest for the client's first
/// address (rendezvous hashing). Every node finds the same one. When an endpoint goes, only its own clients move; when one
/// comes, only those that it gets.
fn sticky(
    endpoints: &[Arc<Workload>],
    client: &Workload,
    usable: impl Fn(&Arc<Workload>) -> Option<((usize, Reverse<u64>), u16)>,
) -> Option<Endpoint> {
    let scored = endpoints.iter().filter_map(|workload| {
        let ((rank, _), port) = usable(workload)?;
        Some((rank, affinity(client.addresses.first().copied(), &workload.uid, workload.capacity), workload, port))
    });
    // Equal scores of two endpoints: their uids decide, as everywhere.
    let best = scored.max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then_with(|| a.2.uid.cmp(&b.2.uid)));
    best.map(|(_, _, workload, port)| Endpoint { workload: workload.clone(), port })
}

/// How well a client's address and an endpoint suit each other: by chance, but the same for all who ask. An endpoint of
/// twice the weight scores highest for twice as many clients.
pub fn affinity(client: Option<IpAddr>, endpoint: &str, weight: u32) -> f64 {
    let client = match client {
        Some(IpAddr::V4(ip)) => hash::fnv(0xcbf2_9ce4_8422_2325, &ip.octets()),
        Some(IpAddr::V6(ip)) => hash::fnv(0xcbf2_9ce4_8422_2325, &ip.octets()),
        None => 0xcbf2_9ce4_8422_2325,
    };
    // FNV leaves the high bits of like texts alike; two rounds of multiply and shift spread them.
    let mut hash = hash::fnv(client, endpoint.as_bytes());
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ hash >> 33).wrapping_mul(factor);
    }
    // A number in (0, 1], of as many bits as fit: -ln of it is how long a visitor is waited for, twice the weight half as
    // long. The first to come scores highest.
    let chance = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    chance.ln() / f64::from(weight)
}

/// Where somebody is, as far as preferences look at it.
#[derive(Clone, Copy, Debug)]
pub struct Location<'a> {
    /// Its network.
    pub network: &'a str,
    /// Its cluster.
    pub cluster: &'a str,
    /// Its region, zone and subzone.
    pub locality: &'a Locality,
    /// Its node.
    pub node: &'a str,
}

impl<'a> From<&'a Workload> for Location<'a> {
    fn from(w: &'a Workload) -> Self {
        Self { network: &w.network, cluster: &w.cluster, locality: &w.locality, node: &w.node }
    }
}

fn rank(lb: &LoadBalancing, client: &Workload, workload: &Workload) -> Option<usize> {
    nearness(lb, client.into(), workload.into())
}

/// How well an endpoint's place fits the client's preferences, more is better; `None` when it does not fit at all.
pub fn nearness(lb: &LoadBalancing, client: Location<'_>, endpoint: Location<'_>) -> Option<usize> {
    let same = |scope: &Scope| match scope {
        Scope::Region => client.locality.region == endpoint.locality.region,
        Scope::Zone => client.locality.zone == endpoint.locality.zone,
        Scope::Subzone => client.locality.subzone == endpoint.locality.subzone,
        Scope::Node => client.node == endpoint.node,
        Scope::Cluster => client.cluster == endpoint.cluster,
        Scope::Network => client.network == endpoint.network,
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
    let mut candidates = workload.addresses.iter().filter(|ip| families.allow(**ip));
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
