//! The inbound tables of the ambient contract, row by row.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh_hbone::connect::parse_authority;
use mesh_model::address::{GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress};
use mesh_model::reason::ReasonCode;
use mesh_model::resource::Resource;
use mesh_model::service::{Service, Vip};
use mesh_model::tables::Tables;
use mesh_model::workload::{AppProtocol, ApplicationTunnel, PortMapping, Workload};

use super::*;

const LOCAL: &str = "10.0.0.1:15008";

fn port(service_port: u16, target_port: u16) -> PortMapping {
    PortMapping { service_port, target_port, app_protocol: AppProtocol::Unknown }
}

fn address(ip: &str) -> NetworkAddress {
    NetworkAddress { network: "".into(), ip: ip.parse().unwrap() }
}

fn service(namespace: &str, host: &str, vip: &str, ports: &[PortMapping]) -> Service {
    let mut service = Service::empty(namespace, host);
    service.vips.push(Vip { address: address(vip), prefix: None });
    service.ports = ports.to_vec();
    service
}

/// The local workload `a/us`, endpoint of `us.a` (80 → 8080) and of the waypoint service `wp.a`; `b` behind that waypoint by
/// hostname, `c` behind us by address, `d` behind somebody else.
fn world(tunnel: Option<ApplicationTunnel>) -> (Tables, Arc<Workload>) {
    let mut us = Workload::empty("us");
    us.namespace = "a".into();
    us.name = "us".into();
    us.addresses.push("10.0.0.1".parse().unwrap());
    us.application_tunnel = tunnel;
    us.services.insert(NamespacedName::new("a", "us.a"), vec![port(80, 8080)]);
    us.services.insert(NamespacedName::new("a", "wp.a"), vec![port(15008, 15008)]);
    let us = Arc::new(us);
    let behind = |service: &mut Service, destination| {
        service.waypoint = Some(GatewayAddress { destination, hbone_mtls_port: 15008 }.into());
    };
    let mut b = service("b", "b.b", "10.96.0.2", &[port(80, 80)]);
    behind(&mut b, GatewayDestination::Hostname(NamespacedName::new("a", "wp.a")));
    let mut c = service("c", "c.c", "10.96.0.3", &[port(80, 80)]);
    behind(&mut c, GatewayDestination::Address(address("10.0.0.1")));
    let mut d = service("d", "d.d", "10.96.0.4", &[port(80, 80)]);
    behind(&mut d, GatewayDestination::Address(address("10.0.0.9")));
    let mut pod = Workload::empty("pod");
    pod.addresses.push("10.0.0.5".parse().unwrap());
    let destination = GatewayDestination::Address(address("10.96.0.10"));
    pod.waypoint = Some(GatewayAddress { destination, hbone_mtls_port: 15008 }.into());
    let mut tables = Tables::default();
    for s in [
        b,
        c,
        d,
        service("a", "us.a", "10.96.0.1", &[port(80, 0)]),
        service("a", "wp.a", "10.96.0.10", &[port(15008, 15008)]),
    ] {
        tables.apply(Resource::Service(Arc::new(s)));
    }
    tables.apply(Resource::Workload(us.clone()));
    tables.apply(Resource::Workload(Arc::new(pod)));
    (tables, us)
}

#[test]
fn targets() {
    let local: SocketAddr = LOCAL.parse().unwrap();
    let none = None;
    let tunnel = |port| Some(ApplicationTunnel { proxy_protocol: false, port });
    for (row, tunnel, asked, expected) in [
        ("I5: our own address", none, "10.0.0.1:8080", Ok("10.0.0.1:8080")),
        ("I8: another address", none, "10.0.0.7:8080", Err(ReasonCode::WrongDestination)),
        ("I8: a service that has no waypoint", none, "10.96.0.1:80", Err(ReasonCode::WrongDestination)),
        ("I8: a service behind another waypoint", none, "10.96.0.4:80", Err(ReasonCode::WrongDestination)),
        ("I8, IPv6", none, "[fd00::1]:80", Err(ReasonCode::WrongDestination)),
        ("I6: an application tunnel judges by itself", tunnel(0), "10.0.0.7:8080", Ok("10.0.0.1:8080")),
        ("I6: its port overrides", tunnel(15088), "10.0.0.7:8080", Ok("10.0.0.1:15088")),
        ("I7: behind us by hostname", none, "10.96.0.2:80", Ok("10.0.0.1:80")),
        ("I7: behind us by address", none, "10.96.0.3:80", Ok("10.0.0.1:80")),
        ("I7: a workload behind our service's address", none, "10.0.0.5:80", Ok("10.0.0.1:80")),
        ("I4: our hostname, our own port for it", none, "us.a:80", Ok("10.0.0.1:8080")),
        ("I4: another port", none, "us.a:81", Err(ReasonCode::UnknownServicePort)),
        ("I4: an unknown hostname", none, "x.a:80", Err(ReasonCode::UnknownHostname)),
        ("I9: a reserved port", none, "10.0.0.1:15001", Err(ReasonCode::RecursiveCall)),
        ("I9, trap: HBONE's own", none, "10.0.0.1:15008", Err(ReasonCode::RecursiveCall)),
        ("I9: reached by a mapping", tunnel(15006), "10.0.0.1:80", Err(ReasonCode::RecursiveCall)),
    ] {
        let (tables, us) = world(tunnel);
        let got = target(&tables, &us, local, &parse_authority(asked).unwrap());
        let expected = expected.map(|a: &str| a.parse().unwrap());
        assert_eq!(got.map(|a| a.application).map_err(|e| e.code()), expected, "{row}");
    }
}

/// 4.8: what the PROXY header names as the destination.
#[test]
fn what_a_proxied_application_is_told() {
    let local: SocketAddr = LOCAL.parse().unwrap();
    let proxy = Some(ApplicationTunnel { proxy_protocol: true, port: 15088 });
    let on = |network: &str, ip: &str, prefix| Vip {
        address: NetworkAddress { network: network.into(), ip: ip.parse().unwrap() },
        prefix,
    };
    let (far, six, own) = (on("far", "10.96.1.1", None), on("", "fd00:96::1", None), on("", "10.96.0.1", None));
    let block = on("", "10.97.0.0", Some(16));
    for (name, tunnel, vips, asked, want) in [
        ("no tunnel: nothing", None, vec![], "10.0.0.1:80", Ok(None)),
        (
            "a tunnel without PROXY: nothing",
            Some(ApplicationTunnel { proxy_protocol: false, port: 15088 }),
            vec![],
            "10.0.0.7:80",
            Ok(None),
        ),
        ("what was asked for", proxy, vec![], "10.0.0.7:80", Ok(Some("10.0.0.7:80"))),
        ("a hostname: its service's address", proxy, vec![own.clone()], "us.a:80", Ok(Some("10.96.0.1:80"))),
        ("IPv4 before IPv6", proxy, vec![six.clone(), own.clone()], "us.a:80", Ok(Some("10.96.0.1:80"))),
        ("the own network first", proxy, vec![far.clone(), six], "us.a:80", Ok(Some("[fd00:96::1]:80"))),
        ("another network rather than none", proxy, vec![far], "us.a:80", Ok(Some("10.96.1.1:80"))),
        ("a block is no address", proxy, vec![block], "us.a:80", Err(ReasonCode::NoServiceAddress)),
        ("none", proxy, vec![], "us.a:80", Err(ReasonCode::NoServiceAddress)),
    ] {
        let (mut tables, us) = world(tunnel);
        let ports = vec![port(80, 0)];
        tables.apply(Resource::Service(Arc::new(Service { vips, ports, ..Service::empty("a", "us.a") })));
        let got = target(&tables, &us, local, &parse_authority(asked).unwrap());
        let want = want.map(|to: Option<&str>| to.map(|to| to.parse().unwrap()));
        assert_eq!(got.map(|a| a.proxied).map_err(|e| e.code()), want, "4.8: {name}");
    }
}

/// Traps 17 and 18: what came through a waypoint, or says so, is judged as anything else. Making sure that it did is
/// for policies.
#[test]
fn trap_18_nobody_has_to_come_through_the_waypoint() {
    let (tables, us) = world(None);
    let destination = GatewayDestination::Hostname(NamespacedName::new("b", "wp.b"));
    let behind =
        Workload { waypoint: Some(GatewayAddress { destination, hbone_mtls_port: 15008 }.into()), ..(*us).clone() };
    let asked = parse_authority("10.0.0.1:8080").unwrap();
    assert!(target(&tables, &behind, LOCAL.parse().unwrap(), &asked).is_ok(), "I5, trap 18");
}

/// Trap 57: only the single `waypoint` counts. The refusal says what would help.
#[test]
fn trap_57_a_canary_waypoint_needs_an_application_tunnel() {
    let local: SocketAddr = LOCAL.parse().unwrap();
    let asked = parse_authority("10.96.0.9:80").unwrap();
    for (tunnel, want) in [
        (None, Err((ReasonCode::WrongDestination, true))),
        (Some(ApplicationTunnel { proxy_protocol: true, port: 15088 }), Ok("10.0.0.1:15088")),
    ] {
        let (mut tables, us) = world(tunnel);
        let mut split = service("e", "e.e", "10.96.0.9", &[port(80, 80)]);
        let canary = GatewayDestination::Hostname(NamespacedName::new("a", "wp.a"));
        split.weighted_waypoints.push((GatewayAddress { destination: canary, hbone_mtls_port: 15008 }.into(), 10));
        tables.apply(Resource::Service(Arc::new(split)));
        let got = target(&tables, &us, local, &asked);
        let got = got.map(|a| a.application).map_err(|e| (e.code(), e.to_string().contains("application tunnel")));
        assert_eq!(got, want.map(|a| a.parse().unwrap()), "trap 57: {tunnel:?}");
    }
}

#[test]
fn statuses_are_the_contracts() {
    let local: SocketAddr = LOCAL.parse().unwrap();
    for (error, status) in [
        (NotAdmitted::NotForUs { asked: local, local, canary: false }, 400),
        (NotAdmitted::UnknownHostname("x".into()), 503),
        (NotAdmitted::NoServiceAddress("x".into()), 503),
        (NotAdmitted::UnknownPort("x".into()), 503),
        (NotAdmitted::Recursive, 503),
    ] {
        assert_eq!(error.status().as_u16(), status, "{error}");
    }
}

#[test]
fn plaintext_to_ourselves_is_refused() {
    for (to, allowed) in [("10.0.0.1:80", true), ("10.0.0.1:15008", false), ("[fd00::1]:15006", false)] {
        assert_eq!(plaintext(to.parse().unwrap()).is_ok(), allowed, "P1: {to}");
    }
}
