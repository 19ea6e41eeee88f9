//! Which service a tunnel asks for, and whether it is behind this waypoint. Pure.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_model::address::{Authority, NamespacedName};
use mesh_model::reason::ReasonCode;
use mesh_model::route::ServiceRoutes;
use mesh_model::service::Service;
use mesh_model::tables::Tables;
use mesh_model::workload::{AppProtocol, Workload};

/// What a tunnel asks for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The service.
    pub(crate) service: Arc<Service>,
    /// Its port.
    pub(crate) port: u16,
    /// The address that was dialled: the service's own where the tunnel names only a host.
    pub(crate) dialled: SocketAddr,
    /// What the control plane says of requests to it.
    pub(crate) routes: Arc<ServiceRoutes>,
}

/// Why a tunnel is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotServed {
    /// Nobody has that address or name.
    #[error("{0} is no service that this waypoint knows")]
    Unknown(Authority),
    /// It is a service, but the control plane has not put it behind this waypoint.
    #[error(
        "service {0} is not behind this waypoint: does its label istio.io/use-waypoint, or its namespace's, name this Gateway?"
    )]
    NotBehind(String),
    /// The service has no such port.
    #[error("service {0} has no port {1}")]
    Port(String, u16),
    /// It is asked for by its name and has no address.
    #[error("service {0} has no address")]
    NoAddress(String),
}

impl NotServed {
    /// The stable code; documented in `docs/reasons.md`.
    pub(crate) fn code(&self) -> ReasonCode {
        match self {
            Self::Unknown(Authority::Hostname(..)) => ReasonCode::UnknownHostname,
            Self::Unknown(Authority::Address(_)) | Self::NotBehind(_) => ReasonCode::WrongDestination,
            Self::Port(..) => ReasonCode::UnknownServicePort,
            Self::NoAddress(_) => ReasonCode::NoServiceAddress,
        }
    }

    /// The control plane may be about to say otherwise: worth waiting for.
    pub(crate) fn may_change(&self) -> bool {
        !matches!(self, Self::Port(..))
    }
}

/// The service that `asked` means to `waypoint`.
///
/// `lately` says what was told last of one that has left the waypoint a moment ago.
pub(crate) fn target(
    tables: &Tables,
    waypoint: &Workload,
    asked: &Authority,
    lately: impl Fn(&NamespacedName) -> Option<Arc<ServiceRoutes>>,
) -> Result<Target, NotServed> {
    let unknown = || NotServed::Unknown(asked.clone());
    let (service, port) = match asked {
        Authority::Address(address) => {
            let service = tables.service_by_address(&waypoint.network, address.ip(), &waypoint.namespace);
            (service.ok_or_else(unknown)?, address.port())
        }
        Authority::Hostname(host, port) => {
            (tables.service_by_hostname(host, &waypoint.namespace).ok_or_else(unknown)?, *port)
        }
    };
    let name = || service.key().to_string();
    let routes = tables.routes(&service.key()).cloned().or_else(|| lately(&service.key()));
    let routes = routes.ok_or_else(|| NotServed::NotBehind(name()))?;
    // Ports that a service does not declare are not reached through its waypoint (ambient contract 10.5).
    if !service.ports.iter().any(|p| p.service_port == port) {
        return Err(NotServed::Port(name(), port));
    }
    let dialled = match asked {
        Authority::Address(address) => *address,
        Authority::Hostname(..) => {
            let vip = service.vips.iter().find(|vip| vip.address.network == waypoint.network);
            SocketAddr::new(vip.ok_or_else(|| NotServed::NoAddress(name()))?.address.ip, port)
        }
    };
    Ok(Target { service: service.clone(), port, dialled, routes })
}

/// What is spoken at a port of a service, as its `appProtocol` or its name says.
pub(crate) fn app_protocol(service: &Service, port: u16) -> AppProtocol {
    service.ports.iter().find(|p| p.service_port == port).map(|p| p.app_protocol).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use mesh_model::address::NetworkAddress;
    use mesh_model::resource::Resource;
    use mesh_model::service::Vip;
    use mesh_model::workload::PortMapping;

    use super::*;

    fn service(name: &str, vip: &str) -> Service {
        let address = NetworkAddress { network: "".into(), ip: vip.parse().unwrap() };
        Service {
            vips: vec![Vip { address, prefix: None }],
            ports: vec![PortMapping { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Unknown }],
            ..Service::empty("shop", format!("{name}.shop.svc.cluster.local"))
        }
    }

    #[test]
    fn a_waypoint_serves_what_is_behind_it() {
        let mut tables = Tables::default();
        let (cart, other) = (service("cart", "10.1.0.1"), service("other", "10.1.0.2"));
        let routes = ServiceRoutes {
            service: cart.key(),
            ports: Vec::new(),
            rules: Vec::new(),
            policies: Vec::new(),
            traffic: Vec::new(),
            tokens: Arc::default(),
            tracing: None,
            subsets: Vec::new(),
            rate_limits: Arc::default(),
        };
        for resource in [
            Resource::Service(Arc::new(cart.clone())),
            Resource::Service(Arc::new(other)),
            Resource::Routes(Arc::new(routes)),
        ] {
            tables.apply(resource);
        }
        let waypoint = Workload { namespace: "shop".into(), ..Workload::empty("w") };
        let host = "cart.shop.svc.cluster.local";
        let address = |text: &str| Authority::Address(text.parse().unwrap());
        let hostname = |host: &str, port| Authority::Hostname(host.into(), port);
        // (asked for, the reason why not)
        for (asked, expected) in [
            (address("10.1.0.1:80"), None),
            (hostname(host, 80), None),
            (address("10.1.0.1:81"), Some(ReasonCode::UnknownServicePort)),
            (address("10.1.0.2:80"), Some(ReasonCode::WrongDestination)),
            (address("10.1.0.3:80"), Some(ReasonCode::WrongDestination)),
            (hostname("nobody.shop.svc.cluster.local", 80), Some(ReasonCode::UnknownHostname)),
        ] {
            let got = target(&tables, &waypoint, &asked, |_| None);
            assert_eq!(got.as_ref().err().map(NotServed::code), expected, "{asked}");
            if let Ok(target) = got {
                assert_eq!((&*target.service.hostname, target.port), (host, 80), "{asked}");
                assert_eq!(target.dialled, "10.1.0.1:80".parse().unwrap(), "{asked}");
            }
        }
    }
}
