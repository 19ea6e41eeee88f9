//! What remains of a decision once the address of the chosen endpoint is known.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::asked::Asked;
use super::direct::{direct, expected, recursive};
use super::outcome::{AcrossTo, ByName, Destination, Reach, Refusal, TunnelTo};
use crate::address::{Authority, canonical_ip};
use crate::balance;
use crate::service::IpFamilies;
use crate::workload::Workload;

impl ByName {
    /// The name to resolve.
    pub fn hostname(&self) -> &Arc<str> {
        &self.workload.hostname
    }

    /// The client dialled IPv4, and should go on with it if the name has such an address.
    pub fn ipv4_first(&self) -> bool {
        self.dialled.is_ipv4()
    }

    /// Where the connection should go, the name's address being `ip`. Never [`Destination::Resolve`].
    pub fn at(&self, ip: IpAddr) -> Destination {
        self.reach.at(self.dialled, &self.workload, canonical_ip(ip)).unwrap_or_else(Destination::Refuse)
    }
}

/// The endpoint at the address that suits the client; by its name if it has none; else `none` says why not.
pub(super) fn locate(
    asked: Asked<'_>,
    workload: Arc<Workload>,
    families: IpFamilies,
    reach: Reach,
    none: impl FnOnce() -> Refusal,
) -> Result<Destination, Refusal> {
    match balance::address(&workload, families, asked.dialled) {
        Some(ip) => reach.at(asked.dialled, &workload, ip),
        None if workload.hostname.is_empty() => Err(none()),
        None => Ok(Destination::Resolve(ByName { workload, dialled: asked.dialled, reach })),
    }
}

impl Reach {
    pub(super) fn at(&self, dialled: SocketAddr, workload: &Arc<Workload>, ip: IpAddr) -> Result<Destination, Refusal> {
        let destination = match self {
            Self::Application { service, port } => {
                direct(workload.clone(), service.as_ref(), SocketAddr::new(ip, *port))?
            }
            Self::Waypoint { own, service, port } => Destination::Tunnel(TunnelTo {
                peer: SocketAddr::new(ip, *port),
                authority: Authority::Address(dialled),
                expected: expected(workload, own.as_ref())?,
                workload: workload.clone(),
                service: service.clone(),
                via_waypoint: true,
            }),
            Self::Gateway { own, service, authority, port, expected: behind, via_waypoint } => {
                Destination::Across(AcrossTo {
                    outer: TunnelTo {
                        peer: SocketAddr::new(ip, *port),
                        authority: authority.clone(),
                        expected: expected(workload, own.as_ref())?,
                        workload: workload.clone(),
                        service: Some(service.clone()),
                        via_waypoint: *via_waypoint,
                    },
                    expected: behind.clone(),
                })
            }
        };
        // A name, or an address in the tables, may say "yourself" as well as a client may.
        let first_hop = match &destination {
            Destination::Tunnel(to) => to.peer,
            Destination::Across(to) => to.outer.peer,
            Destination::Plain(to) => to.address,
            Destination::Resolve(_) | Destination::Refuse(_) => return Ok(destination),
        };
        if recursive(first_hop) { Err(Refusal::Recursive) } else { Ok(destination) }
    }
}
