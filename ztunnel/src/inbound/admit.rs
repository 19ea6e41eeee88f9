//! May it enter? The target of a CONNECT against the local workload; the policies come after. Pure. Rows are those of the
//! ambient contract's inbound tables.

use std::net::SocketAddr;

use mesh_model::address::{Authority, GatewayAddress, GatewayDestination};
use mesh_model::destination::{RESERVED_PORTS, SOCKS_PORT};
use mesh_model::reason::ReasonCode;
use mesh_model::service::Service;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;

/// Where an admitted connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// The application: the address the tunnel came in on, and its port. What policies judge.
    pub application: SocketAddr,
    /// The application is a waypoint that learns from a PROXY header what was asked for: this.
    pub proxied: Option<SocketAddr>,
}

/// Why the target was not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAdmitted {
    /// Row I8: it asks for somebody else.
    #[error("ip mismatch: {asked} != {local}{}", if *canary {
        ": we are only a canary waypoint of it, which is not enough without an application tunnel (annotation \
         ambient.istio.io/waypoint-inbound-binding)"
    } else {
        ""
    })]
    NotForUs {
        /// What the caller asks for.
        asked: SocketAddr,
        /// Where we are.
        local: SocketAddr,
        /// It is reached through us by weight (`weighted_waypoints`), which row I7 does not count (trap 57).
        canary: bool,
    },
    /// Row I4: the hostname is no service we know.
    #[error("unknown hostname: {0}")]
    UnknownHostname(String),
    /// Row I4: the application has to be told an address, and the service has none.
    #[error("service {0} has no address that a PROXY header could name")]
    NoServiceAddress(String),
    /// Row I4: the service has no such port here.
    #[error("no port for {0}")]
    UnknownPort(String),
    /// It asks ztunnel itself for something else than its metrics.
    #[error("port {asked} of ztunnel itself is not served through the mesh, only port {only} (STATS_PORT)")]
    NotServed {
        /// The port asked for.
        asked: u16,
        /// The one that is served.
        only: u16,
    },
    /// Row I9, P1: a port that ztunnel itself listens on.
    #[error("attempted recursive call to ourselves")]
    Recursive,
}

impl NotAdmitted {
    /// A stable code; documented in `docs/reasons.md`.
    pub(crate) fn code(&self) -> ReasonCode {
        match self {
            Self::NotForUs { .. } | Self::NotServed { .. } => ReasonCode::WrongDestination,
            Self::UnknownHostname(_) => ReasonCode::UnknownHostname,
            Self::NoServiceAddress(_) => ReasonCode::NoServiceAddress,
            Self::UnknownPort(_) => ReasonCode::UnknownServicePort,
            Self::Recursive => ReasonCode::RecursiveCall,
        }
    }

    /// The status of the answer: 400 for the wrong destination, 503 for what cannot be resolved.
    pub(crate) fn status(&self) -> http::StatusCode {
        match self {
            Self::NotForUs { .. } | Self::NotServed { .. } => http::StatusCode::BAD_REQUEST,
            _ => http::StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Which application a tunnel is for. `local` is the address that it came in on; only its address counts.
pub(crate) fn target(
    tables: &Tables,
    workload: &Workload,
    local: SocketAddr,
    asked: &Authority,
) -> Result<Admitted, NotAdmitted> {
    let proxy = workload.application_tunnel.is_some_and(|tunnel| tunnel.proxy_protocol);
    let (port, proxied) = match asked {
        Authority::Hostname(host, port) => {
            let service = tables
                .service_by_hostname(host, &workload.namespace)
                .ok_or_else(|| NotAdmitted::UnknownHostname(host.to_string()))?;
            let own = local_port(service, workload, *port);
            let own = own.ok_or_else(|| NotAdmitted::UnknownPort(asked.to_string()))?; // I4
            let vip = proxy.then(|| vip(service, workload, *port));
            (own, vip.map(|vip| vip.ok_or_else(|| NotAdmitted::NoServiceAddress(host.to_string()))).transpose()?)
        }
        Authority::Address(asked) => {
            let ours = asked.ip() == local.ip() // I5
                || workload.application_tunnel.is_some() // I6
                || behind_us(tables, workload, *asked); // I7
            if !ours {
                let canary = canary_of(tables, workload, *asked);
                return Err(NotAdmitted::NotForUs { asked: *asked, local, canary }); // I8
            }
            (asked.port(), proxy.then_some(*asked))
        }
    };
    let port = match workload.application_tunnel {
        Some(tunnel) if tunnel.port != 0 => tunnel.port,
        _ => port,
    };
    if RESERVED_PORTS.contains(&port) {
        return Err(NotAdmitted::Recursive); // I9
    }
    Ok(Admitted { application: SocketAddr::new(local.ip(), port), proxied })
}

/// The ports of a pod that may be asked for: not ours (`socks` says whether port 15080 is), and where there is an `only`,
/// no other.
pub(crate) fn port(admitted: Admitted, only: Option<u16>, socks: bool) -> Result<Admitted, NotAdmitted> {
    let asked = admitted.application.port();
    if socks && asked == SOCKS_PORT {
        return Err(NotAdmitted::Recursive); // I9, P1
    }
    match only.filter(|only| *only != asked) {
        Some(only) => Err(NotAdmitted::NotServed { asked, only }),
        None => Ok(admitted),
    }
}

/// Row P1: a plaintext connection goes where it was going, unless that is us.
pub(crate) fn plaintext(destination: SocketAddr) -> Result<Admitted, NotAdmitted> {
    if RESERVED_PORTS.contains(&destination.port()) {
        return Err(NotAdmitted::Recursive);
    }
    Ok(Admitted { application: destination, proxied: None })
}

/// The workload's own port for a service port.
fn local_port(service: &Service, workload: &Workload, port: u16) -> Option<u16> {
    let own = workload.services.get(&service.key()).and_then(|list| list.iter().find(|p| p.service_port == port));
    let target = own.or_else(|| service.ports.iter().find(|p| p.service_port == port))?.target_port;
    (target != 0).then_some(target)
}

/// The address of a service asked for by hostname: one on the own network if there is one, IPv4 before IPv6.
fn vip(service: &Service, workload: &Workload, port: u16) -> Option<SocketAddr> {
    let single = service.vips.iter().filter(|vip| vip.prefix.is_none()).map(|vip| &vip.address);
    let best = single.min_by_key(|at| (at.network != workload.network, !at.ip.is_ipv4()))?;
    Some(SocketAddr::new(best.ip, port))
}

/// What was asked for is a service that sends some of its traffic, by weight, through a waypoint, and that is us.
fn canary_of(tables: &Tables, workload: &Workload, asked: SocketAddr) -> bool {
    let service = tables.service_by_address(&workload.network, asked.ip(), &workload.namespace);
    service.is_some_and(|s| s.weighted_waypoints.iter().any(|(waypoint, _)| is_us(tables, workload, waypoint)))
}

/// Row I7: what was asked for is reached through a waypoint, and the waypoint is us.
fn behind_us(tables: &Tables, workload: &Workload, asked: SocketAddr) -> bool {
    let waypoint = match tables.workload_by_address(&workload.network, asked.ip()) {
        Some(target) => target.waypoint.as_deref(),
        // No namespace preference: the caller's is not known for certain. A private service's waypoint is still its own.
        None => tables
            .service_by_address(&workload.network, asked.ip(), &workload.namespace)
            .and_then(|target| target.waypoint.as_deref()),
    };
    waypoint.is_some_and(|waypoint| is_us(tables, workload, waypoint))
}

fn is_us(tables: &Tables, workload: &Workload, waypoint: &GatewayAddress) -> bool {
    let endpoint_of = |service: &Service| workload.services.contains_key(&service.key());
    match &waypoint.destination {
        GatewayDestination::Hostname(key) => workload.services.contains_key(key),
        GatewayDestination::Address(a) => {
            tables.service_by_address(&a.network, a.ip, &workload.namespace).is_some_and(|s| endpoint_of(s))
                || (a.network == workload.network && workload.addresses.contains(&a.ip))
        }
    }
}

#[cfg(test)]
mod tests;
