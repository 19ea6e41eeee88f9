//! Who stands between a client and its destination: waypoints, and the gateways of other networks.

use std::net::IpAddr;
use std::sync::Arc;

use super::asked::Asked;
use super::direct::add_names;
use super::outcome::{Destination, Reach, Refusal};
use super::reach;
use crate::address::{Authority, GatewayAddress, GatewayDestination};
use crate::balance::{self, Choice};
use crate::service::Service;
use crate::tables::Tables;
use crate::workload::Workload;

/// The waypoint of a service: one of the weighted ones, or the single one.
pub(super) fn of_service(service: &Service, random: u64) -> Option<&GatewayAddress> {
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

/// The waypoint in the way to a workload, unless the client is that waypoint (row O13).
pub(super) fn of_workload<'a>(asked: Asked<'_>, workload: &'a Workload) -> Option<&'a GatewayAddress> {
    workload.waypoint.as_deref().filter(|waypoint| !has_pod(asked.tables, asked.client, waypoint))
}

/// Whether `client` is itself an endpoint of the waypoint: same identity and one of its addresses.
pub(super) fn has_pod(tables: &Tables, client: &Workload, waypoint: &GatewayAddress) -> bool {
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

/// Who was found at a waypoint's or gateway's address.
struct Found {
    workload: Arc<Workload>,
    /// The port of its service that was asked for, as the workload serves it.
    port: u16,
    /// The address by which it was named, if it was.
    ip: Option<IpAddr>,
    /// Its own service.
    service: Option<Arc<Service>>,
}

impl Found {
    /// At the address by which it was named, else at the one that suits the client.
    fn reached(self, asked: Asked<'_>, reach: Reach, none: impl FnOnce() -> Refusal) -> Result<Destination, Refusal> {
        let families = self.service.map(|s| s.ip_families).unwrap_or_default();
        match self.ip {
            Some(ip) => reach.at(asked.dialled, &self.workload, ip),
            None => reach::locate(asked, self.workload, families, reach, none),
        }
    }
}

fn find(asked: Asked<'_>, at: &GatewayAddress, by: Choice<'_>) -> Option<Found> {
    let Asked { tables, client, .. } = asked;
    let service = match &at.destination {
        GatewayDestination::Hostname(key) => tables.service(key),
        GatewayDestination::Address(a) => tables.service_by_address(&a.network, a.ip, &client.namespace),
    };
    match (service, &at.destination) {
        (Some(service), _) => {
            let endpoints = tables.endpoints(&service.key());
            let chosen = balance::choose_waypoint(service, endpoints, client, at.hbone_mtls_port, by).ok()?;
            Some(Found { workload: chosen.workload, port: chosen.port, ip: None, service: Some(service.clone()) })
        }
        (None, GatewayDestination::Address(a)) => {
            let workload = tables.workload_by_address(&a.network, a.ip)?.clone();
            Some(Found { workload, port: at.hbone_mtls_port, ip: Some(a.ip), service: None })
        }
        (None, GatewayDestination::Hostname(_)) => None,
    }
}

/// Through a waypoint (rows O3, O4, O5 and O12); `service` is the one that was dialled, `None` for a workload.
pub(super) fn waypoint(
    asked: Asked<'_>,
    waypoint: &GatewayAddress,
    service: Option<&Arc<Service>>,
) -> Result<Destination, Refusal> {
    let unknown = || Refusal::UnknownWaypoint(waypoint.to_string()); // O5
    let found = find(asked, waypoint, asked.by).ok_or_else(unknown)?;
    if found.workload.network != asked.client.network {
        // Across networks a service's name is what is asked for, and a workload has none.
        let dialled = service.ok_or_else(|| {
            Refusal::UnknownGateway(format!(
                "waypoint {waypoint} of a workload is on network {:?}",
                &*found.workload.network
            ))
        })?;
        return gateway(asked, &found.workload, dialled, found.service.as_ref()); // O4
    }
    let reach = Reach::Waypoint { own: found.service.clone(), service: service.cloned(), port: found.port };
    found.reached(asked, reach, unknown)
}

/// To an endpoint of `service` on another network, `far`, through that network's gateway (rows O4, O10 and O11).
/// `waypoint` is the service of the waypoint that `far` is an endpoint of.
pub(super) fn gateway(
    asked: Asked<'_>,
    far: &Workload,
    service: &Arc<Service>,
    waypoint: Option<&Arc<Service>>,
) -> Result<Destination, Refusal> {
    let none = || Refusal::UnknownGateway(format!("none is known for network {:?}", &*far.network)); // O11
    let at = far.network_gateway.as_deref().ok_or_else(none)?;
    let mut expected = Vec::new();
    add_names(&mut expected, Some(service));
    add_names(&mut expected, waypoint);
    if expected.is_empty() {
        return Err(Refusal::NoServiceIdentity(service.key().to_string()));
    }
    // A number of its own, so that the gateway does not follow from the endpoint.
    let by = Choice { random: asked.by.random.rotate_left(16), ..asked.by };
    let found = find(asked, at, by).or_else(|| by_hostname(asked, at));
    let unknown = || Refusal::UnknownGateway(at.to_string());
    let found = found.ok_or_else(unknown)?;
    let reach = Reach::Gateway {
        own: found.service.clone(),
        authority: Authority::Hostname(service.hostname.clone(), asked.dialled.port()),
        service: service.clone(),
        port: found.port,
        expected,
        via_waypoint: waypoint.is_some(),
    };
    found.reached(asked, reach, unknown)
}

/// A gateway that is no service but a workload with that name, as a load balancer's is.
fn by_hostname(asked: Asked<'_>, at: &GatewayAddress) -> Option<Found> {
    let GatewayDestination::Hostname(key) = &at.destination else { return None };
    let workload = asked.tables.workload_by_hostname(key)?.clone();
    Some(Found { workload, port: at.hbone_mtls_port, ip: None, service: None })
}
