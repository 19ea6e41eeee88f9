//! Which service a route's backend is, and whether it is behind this waypoint itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::StatusCode;
use mesh_model::reason::ReasonCode;
use mesh_model::route::plan::Forward;
use mesh_model::service::Service;

use super::answer::Refused;
use super::caller::Caller;
use crate::target::Target;

/// The service that a rule's backend is, and how it is dialled.
///
/// # Errors
/// When the tables have no such service: as Gateway API says, 500.
pub(super) fn backend(caller: &Caller, planned: &Forward) -> Result<(Arc<Service>, SocketAddr), Refused> {
    let rule = planned.rule();
    let none = |what: &str| {
        let why = format!("{} of route {} has no backend for the request: {what}", rule.name, rule.route);
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, ReasonCode::NoBackend, why)
    };
    let to = planned.backend().ok_or_else(|| none("none is named"))?;
    let service = caller.worker.context.proxy.tables.read(|tables| tables.service(&to.service).cloned());
    let service = service.ok_or_else(|| none(&format!("there is no service {}", to.service)))?;
    let dialled = dialled(&service, to.port, caller.target.dialled.is_ipv4());
    Ok((service, dialled))
}

/// Its address, of this family if it has one; of a service without address only the port counts.
pub(crate) fn dialled(service: &Service, port: u16, ipv4: bool) -> SocketAddr {
    let mut vips = service.vips.iter().map(|vip| vip.address.ip);
    let first = vips.clone().next();
    let ip = vips.find(|ip| ip.is_ipv4() == ipv4).or(first).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    SocketAddr::new(ip, port)
}

/// What a route leads to that is not what the caller has dialled, another service or another port of the same, with what is attached to
/// it, if that is behind this waypoint: a route grants nobody more than dialling would.
pub(crate) fn behind_us(
    caller: &Caller,
    asked: &Target,
    service: &Arc<Service>,
    dialled: SocketAddr,
) -> Option<Target> {
    let key = service.key();
    if key == asked.asked && dialled.port() == asked.port {
        return None;
    }
    let routes = caller.worker.context.proxy.tables.read(|tables| tables.routes(&key).cloned())?;
    Some(Target { asked: key, service: service.clone(), port: dialled.port(), dialled, routes })
}
