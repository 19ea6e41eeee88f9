//! Which service or workload a tunnel asks for, and whether it is behind this waypoint. Pure.
//!
//! A workload that is asked for by its own address is told of as a service of one port, whose hostname is the workload's uid: no
//! service has a name like that, and nobody else is chosen.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_model::address::{Authority, NamespacedName};
use mesh_model::destination;
use mesh_model::reason::ReasonCode;
use mesh_model::route::{Router, ServiceRoutes};
use mesh_model::service::Service;
use mesh_model::tables::Tables;
use mesh_model::workload::{AppProtocol, PortMapping, Workload};

/// What a tunnel asks for.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The key of what the tunnel asked for, service or workload: as long as that is behind this waypoint the tunnel is served.
    pub(crate) asked: NamespacedName,
    /// The service.
    pub(crate) service: Arc<Service>,
    /// Its port.
    pub(crate) port: u16,
    /// The address that was dialled: the service's own where the tunnel names only a host.
    pub(crate) dialled: SocketAddr,
    /// What the control plane says of requests to it.
    pub(crate) routes: Arc<ServiceRoutes>,
}

impl Target {
    /// The service, where it is one.
    pub(crate) fn named(&self) -> Option<&Arc<Service>> {
        Some(&self.service).filter(|service| uid_of(&service.hostname).is_none())
    }
}

/// A pod of a waypoint, and its Gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Own<'a> {
    /// Its own workload.
    pub(crate) workload: &'a Workload,
    /// The Gateway's namespace and name.
    pub(crate) gateway: &'a NamespacedName,
}

/// Why a tunnel is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotServed {
    /// Nobody has that address or name.
    #[error("{0} is no service that this waypoint knows, and no workload behind it")]
    Unknown(Authority),
    /// It is a service, but the control plane has not put it behind this waypoint.
    #[error(
        "service {0} is not behind this waypoint: does its label istio.io/use-waypoint, or its namespace's, name this Gateway?"
    )]
    NotBehind(String),
    /// It is a workload, but the control plane has not put it behind this waypoint.
    #[error(
        "workload {0} is not behind this waypoint: does its label istio.io/use-waypoint, or its namespace's, name this Gateway, \
         and the Gateway take workloads (istio.io/waypoint-for: workload or all)?"
    )]
    WorkloadNotBehind(String),
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
            Self::Unknown(Authority::Address(_)) | Self::NotBehind(_) | Self::WorkloadNotBehind(_) => {
                ReasonCode::WrongDestination
            }
            Self::Port(..) => ReasonCode::UnknownServicePort,
            Self::NoAddress(_) => ReasonCode::NoServiceAddress,
        }
    }

    /// The control plane may be about to say otherwise: worth waiting for.
    pub(crate) fn may_change(&self) -> bool {
        !matches!(self, Self::Port(..))
    }
}

/// The service or workload that `asked` means to a waypoint.
///
/// `lately` says what was told last of one that has left the waypoint a moment ago.
pub(crate) fn target(
    tables: &Tables,
    own: Own<'_>,
    asked: &Authority,
    lately: impl Fn(&NamespacedName) -> Option<Arc<ServiceRoutes>>,
) -> Result<Target, NotServed> {
    let unknown = || NotServed::Unknown(asked.clone());
    let waypoint = own.workload;
    let (service, port) = match asked {
        Authority::Address(address) => {
            let workload = tables.workload_by_address(&waypoint.network, address.ip());
            let service = tables.service_by_address(&waypoint.network, address.ip(), &waypoint.namespace);
            match (workload, service) {
                // As ztunnel has it: of an address of both, the workload's waypoint is asked for.
                (Some(workload), service)
                    if service.is_none() || destination::is_behind(tables, workload, waypoint) =>
                {
                    return of_workload(tables, own, workload, *address, lately);
                }
                (_, service) => (service.ok_or_else(unknown)?, address.port()),
            }
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
    Ok(Target { asked: service.key(), service: service.clone(), port, dialled, routes })
}

/// A workload at its own address: any port, since it declares none.
fn of_workload(
    tables: &Tables,
    own: Own<'_>,
    workload: &Arc<Workload>,
    dialled: SocketAddr,
    lately: impl Fn(&NamespacedName) -> Option<Arc<ServiceRoutes>>,
) -> Result<Target, NotServed> {
    let asked = NamespacedName::new(workload.namespace.clone(), workload.uid.clone());
    let routes = router(tables, Some(own), &asked).map(|router| router.routes().clone()).or_else(|| lately(&asked));
    let routes = routes.ok_or_else(|| NotServed::WorkloadNotBehind(workload.uid.to_string()))?;
    let port = dialled.port();
    let mapping =
        PortMapping { service_port: port, target_port: port, app_protocol: spoken_at(tables, workload, port) };
    let service = Service {
        name: workload.name.clone(),
        ports: vec![mapping],
        ..Service::empty(asked.namespace.clone(), asked.name.clone())
    };
    Ok(Target { asked, service: service.into(), port, dialled, routes })
}

/// What is spoken at a port of a workload, if the services that it serves there agree on it.
fn spoken_at(tables: &Tables, workload: &Workload, port: u16) -> AppProtocol {
    let mut said = workload.services.iter().flat_map(|(key, ports)| {
        let service = tables.service(key);
        let own = ports.iter().filter(move |mapping| {
            let declared = || service?.ports.iter().find(|p| p.service_port == mapping.service_port);
            let target =
                if mapping.target_port == 0 { declared().map(|p| p.target_port) } else { Some(mapping.target_port) };
            target == Some(port)
        });
        own.filter_map(move |mapping| Some(app_protocol(service?, mapping.service_port)))
    });
    let first = said.next().unwrap_or_default();
    if said.all(|other| other == first) { first } else { AppProtocol::Unknown }
}

/// The uid that the hostname of a workload's stand-in is; None of a service's.
pub(crate) fn uid_of(hostname: &str) -> Option<&str> {
    Some(hostname).filter(|name| name.contains('/'))
}

/// What holds for something behind this waypoint, a service or a workload, by its key.
pub(crate) fn router<'a>(tables: &'a Tables, own: Option<Own<'_>>, asked: &NamespacedName) -> Option<&'a Arc<Router>> {
    let Some(uid) = uid_of(&asked.name) else { return tables.router(asked) };
    let (own, workload) = (own?, tables.workload(uid)?);
    destination::is_behind(tables, workload, own.workload)
        .then(|| tables.router(&ServiceRoutes::of_workloads(own.gateway)))
        .flatten()
}

/// What is spoken at a port of a service, as its `appProtocol` or its name says.
pub(crate) fn app_protocol(service: &Service, port: u16) -> AppProtocol {
    service.ports.iter().find(|p| p.service_port == port).map(|p| p.app_protocol).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use mesh_model::address::{GatewayAddress, GatewayDestination, NetworkAddress};
    use mesh_model::resource::Resource;
    use mesh_model::service::Vip;
    use mesh_model::workload::Memberships;

    use super::*;

    fn service(name: &str, vip: &str) -> Service {
        let address = NetworkAddress { network: "".into(), ip: vip.parse().unwrap() };
        Service {
            vips: vec![Vip { address, prefix: None }],
            ports: vec![PortMapping { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Http11 }],
            ..Service::empty("shop", format!("{name}.shop.svc.cluster.local"))
        }
    }

    /// A pod at an address, behind the waypoint of that Gateway.
    fn pod(name: &str, ip: &str, gateway: Option<&str>, services: &[(&Service, u16)]) -> Workload {
        let mapping = |port| PortMapping { service_port: 80, target_port: port, app_protocol: AppProtocol::Unknown };
        let host = |gateway| NamespacedName::new("shop", format!("{gateway}.shop.svc.cluster.local"));
        Workload {
            name: name.into(),
            namespace: "shop".into(),
            service_account: name.into(),
            addresses: vec![ip.parse().unwrap()],
            services: services.iter().map(|(service, port)| (service.key(), vec![mapping(*port)])).collect(),
            waypoint: gateway.map(|gateway| {
                let destination = GatewayDestination::Hostname(host(gateway));
                GatewayAddress { destination, hbone_mtls_port: 15_008 }.shared()
            }),
            ..Workload::empty(format!("Kubernetes//Pod/shop/{name}").as_str())
        }
    }

    fn tables(takes_workloads: bool) -> (Tables, Workload, NamespacedName) {
        let mut tables = Tables::default();
        let (cart, other, tcp) =
            (service("cart", "10.1.0.1"), service("other", "10.1.0.2"), service("tcp", "10.1.0.4"));
        let of_tcp = PortMapping { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Tcp };
        let tcp = Service { ports: vec![of_tcp], ..tcp };
        let gateway = NamespacedName::new("shop", "way");
        let way = service("way", "10.1.0.9");
        let own = Workload {
            services: Memberships::from_iter([(way.key(), Vec::new())]),
            ..pod("way-1", "10.2.0.9", None, &[])
        };
        let pods = [
            pod("cart-1", "10.2.0.1", Some("way"), &[(&cart, 8080)]),
            pod("both-1", "10.2.0.2", Some("way"), &[(&cart, 8080), (&tcp, 8080)]),
            pod("other-1", "10.2.0.3", Some("other"), &[]),
            pod("free-1", "10.2.0.4", None, &[]),
            // Its address is a service's, too.
            pod("shared-1", "10.1.0.1", None, &[]),
            own.clone(),
        ];
        let workloads = takes_workloads.then(|| ServiceRoutes::nothing(ServiceRoutes::of_workloads(&gateway)));
        let routes = [ServiceRoutes::nothing(cart.key())].into_iter().chain(workloads);
        for resource in [cart.clone(), other, tcp, way]
            .map(|service| Resource::Service(Arc::new(service)))
            .into_iter()
            .chain(pods.map(|pod| Resource::Workload(Arc::new(pod))))
            .chain(routes.map(|routes| Resource::Routes(Arc::new(routes))))
        {
            tables.apply(resource);
        }
        (tables, own, gateway)
    }

    #[test]
    fn a_waypoint_serves_what_is_behind_it() {
        let (tables, own, gateway) = tables(true);
        let own = Own { workload: &own, gateway: &gateway };
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
            let got = target(&tables, own, &asked, |_| None);
            assert_eq!(got.as_ref().err().map(NotServed::code), expected, "{asked}");
            if let Ok(target) = got {
                assert_eq!((&*target.service.hostname, target.port), (host, 80), "{asked}");
                assert_eq!(target.dialled, "10.1.0.1:80".parse().unwrap(), "{asked}");
                assert!(target.named().is_some(), "{asked}");
            }
        }
    }

    /// Pods by their own addresses: those whose waypoint it is, where its Gateway takes workloads, at any port.
    #[test]
    fn a_waypoint_serves_the_workloads_behind_it() {
        let behind = Ok(AppProtocol::Unknown);
        let refused = Err(ReasonCode::WrongDestination);
        // (takes workloads, asked for, what is spoken there or the reason why not)
        for (takes, asked, expected) in [
            (true, "10.2.0.1:8080", Ok(AppProtocol::Http11)),
            (true, "10.2.0.1:9090", behind),
            // One service says HTTP, another one TCP: it has to be looked.
            (true, "10.2.0.2:8080", behind),
            (true, "10.2.0.3:8080", refused),
            (true, "10.2.0.4:8080", refused),
            // The waypoint itself is behind none.
            (true, "10.2.0.9:8080", refused),
            (false, "10.2.0.1:8080", refused),
        ] {
            let (tables, own, gateway) = tables(takes);
            let own = Own { workload: &own, gateway: &gateway };
            let dialled = asked.parse().unwrap();
            let got = target(&tables, own, &Authority::Address(dialled), |_| None);
            let spoken = got.as_ref().map(|target| app_protocol(&target.service, target.port));
            assert_eq!(spoken.map_err(NotServed::code), expected, "{takes} {asked}");
            if let Ok(target) = got {
                assert_eq!((target.dialled, target.named()), (dialled, None), "{asked}");
                assert_eq!(target.routes.service, ServiceRoutes::of_workloads(&gateway), "{asked}");
            }
        }
        // One that has left a moment ago is served as it was.
        let (tables, own, gateway) = tables(false);
        let own = Own { workload: &own, gateway: &gateway };
        let lately = |key: &NamespacedName| {
            assert_eq!(key.to_string(), "shop/Kubernetes//Pod/shop/cart-1");
            Some(Arc::new(ServiceRoutes::nothing(ServiceRoutes::of_workloads(&gateway))))
        };
        assert!(target(&tables, own, &Authority::Address("10.2.0.1:8080".parse().unwrap()), lately).is_ok());
    }
}
