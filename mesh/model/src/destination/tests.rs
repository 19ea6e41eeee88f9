//! The outbound table of section 5.3 of the Istio ambient contract, a named row for each of its rows. O2, a local
//! workload that is not known, is decided before this: there is no client to decide for.

use std::collections::BTreeMap;

use super::*;
use crate::address::{GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress};
use crate::identity::SpiffeId;
use crate::resource::Resource;
use crate::service::{LoadBalancing, Vip};
use crate::workload::{AppProtocol, ApplicationTunnel, PortMapping, Tunnel};

mod networks;

fn key(name: &str) -> NamespacedName {
    NamespacedName::parse(name).unwrap()
}

fn at(address: &str) -> NetworkAddress {
    NetworkAddress { network: "".into(), ip: address.parse().unwrap() }
}

fn ports(service_port: u16, target_port: u16) -> Vec<PortMapping> {
    vec![PortMapping { service_port, target_port, app_protocol: AppProtocol::Unknown }]
}

/// A meshed pod of namespace `shop` whose service account is its name.
fn pod(name: &str, addresses: &[&str]) -> Workload {
    Workload {
        name: name.into(),
        namespace: "shop".into(),
        service_account: name.into(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        tunnel: Tunnel::Hbone,
        ..Workload::empty(format!("Kubernetes//Pod/shop/{name}"))
    }
}

fn serving(service: &str, ports: Vec<PortMapping>, workload: Workload) -> Workload {
    Workload { services: [(key(service), ports)].into(), ..workload }
}

/// A service with port 80, served by the endpoints on 8080.
fn service(name: &str, vips: &[&str]) -> Service {
    let key = key(name);
    let vips = vips.iter().map(|v| Vip { address: at(v), prefix: None }).collect();
    Service { vips, ports: ports(80, 8080), ..Service::empty(key.namespace, key.name) }
}

fn by_name(name: &str) -> Option<Arc<GatewayAddress>> {
    Some(GatewayAddress { destination: GatewayDestination::Hostname(key(name)), hbone_mtls_port: 15008 }.into())
}

fn by_address(address: &str) -> Option<Arc<GatewayAddress>> {
    Some(GatewayAddress { destination: GatewayDestination::Address(at(address)), hbone_mtls_port: 15008 }.into())
}

fn client() -> Workload {
    pod("client", &["10.0.0.9", "fd00::9"])
}

/// What the rows are about: `cart` with two addresses, `old` outside the mesh, a waypoint `wp` of service `shop/wp`.
fn world() -> Vec<Resource> {
    let wp = Service { ports: ports(15008, 15008), ..service("shop/wp", &["10.96.0.99"]) };
    vec![
        work(client()),
        work(serving("shop/cart", ports(80, 8080), pod("cart", &["10.0.0.1", "fd00::1"]))),
        work(Workload { tunnel: Tunnel::None, ..serving("shop/old", vec![], pod("old", &["10.0.0.2"])) }),
        work(serving("shop/wp", vec![], pod("wp", &["10.0.0.50", "fd00::50"]))),
        serv(service("shop/cart", &["10.96.0.1", "fd00:96::1"])),
        serv(service("shop/old", &["10.96.0.2"])),
        serv(wp),
    ]
}

fn work(workload: Workload) -> Resource {
    Resource::Workload(workload.into())
}

fn serv(service: Service) -> Resource {
    Resource::Service(service.into())
}

fn tables(extra: Vec<Resource>) -> Tables {
    let mut tables = Tables::default();
    for resource in world().into_iter().chain(extra) {
        tables.apply(resource);
    }
    tables
}

fn ask(tables: &Tables, client: &Workload, dialled: &str, random: u64) -> Destination {
    decide(tables, client, "", crate::address::canonical(dialled.parse().unwrap()), random.into())
}

/// A destination in a line; a name is resolved to 203.0.113.1.
fn told(destination: &Destination) -> String {
    let service = |s: &Option<Arc<Service>>| s.as_ref().map_or("-".into(), |s| s.key().to_string());
    let names = |ids: &[SpiffeId]| {
        ids.iter().map(|id| format!("{}/{}", id.namespace(), id.service_account())).collect::<Vec<_>>().join(" or ")
    };
    let tunnel = |t: &TunnelTo| {
        let how = if t.via_waypoint { "waypoint" } else { "tunnel" };
        let (expected, service) = (names(&t.expected), service(&t.service));
        format!("{how} {} for {} as {expected} service {service}", t.peer, t.authority)
    };
    match destination {
        Destination::Tunnel(t) => tunnel(t),
        Destination::Across(a) => format!("{} across to {}", tunnel(&a.outer), names(&a.expected)),
        Destination::Resolve(name) => {
            let then = told(&name.at("203.0.113.1".parse().unwrap()));
            format!("resolve {} then {then}", name.hostname())
        }
        Destination::Plain(p) => {
            let workload = p.workload.as_ref().map_or("-", |w| &w.name);
            format!("plain {} workload {workload} service {}", p.address, service(&p.service))
        }
        Destination::Refuse(r) => format!("refuse {}", r.code()),
    }
}

fn check(name: &str, extra: Vec<Resource>, client: &Workload, dialled: &str, want: &str) {
    assert_eq!(told(&ask(&tables(extra), client, dialled, 0)), want, "{name}");
}

#[test]
fn straight_to_services_and_workloads() {
    let passthrough = LoadBalancing { mode: BalanceMode::Passthrough, ..Default::default() };
    let refined = Service {
        subject_alt_names: vec![
            "spiffe://cluster.local/ns/shop/sa/other".into(),
            "not a name".into(),
            "spiffe://cluster.local/ns/shop/sa/cart".into(),
        ],
        ..service("shop/cart", &["10.96.0.1"])
    };
    let cart = "shop/cart";
    for (name, extra, dialled, want) in [
        ("O1: loopback and a reserved port", vec![], "127.0.0.1:15001", "refuse RECURSIVE_CALL"),
        ("O1: IPv6", vec![], "[::1]:15008", "refuse RECURSIVE_CALL"),
        ("O1: mapped", vec![], "[::ffff:127.0.0.1]:15006", "refuse RECURSIVE_CALL"),
        ("O1 not: loopback and another port", vec![], "127.0.0.1:80", "plain 127.0.0.1:80 workload - service -"),
        (
            "O1 not: a reserved port elsewhere",
            vec![],
            "198.51.100.1:15008",
            "plain 198.51.100.1:15008 workload - service -",
        ),
        (
            "O6: passthrough",
            vec![serv(Service { load_balancing: passthrough.clone(), ..service(cart, &["10.96.0.1"]) })],
            "10.96.0.1:80",
            "plain 10.96.0.1:80 workload - service shop/cart",
        ),
        (
            "O6: passthrough asks for no port",
            vec![serv(Service { load_balancing: passthrough, ..service(cart, &["10.96.0.1"]) })],
            "10.96.0.1:1",
            "plain 10.96.0.1:1 workload - service shop/cart",
        ),
        ("O7: unknown port (trap 27)", vec![], "10.96.0.1:81", "refuse UNKNOWN_SERVICE_PORT"),
        (
            "O7: no endpoint (trap 27)",
            vec![serv(service("shop/nobody", &["10.96.0.3"]))],
            "10.96.0.3:80",
            "refuse NO_HEALTHY_UPSTREAM",
        ),
        (
            "O7: no healthy endpoint",
            vec![work(Workload { healthy: false, ..serving(cart, vec![], pod("cart", &["10.0.0.1"])) })],
            "10.96.0.1:80",
            "refuse NO_HEALTHY_UPSTREAM",
        ),
        (
            "O7: no endpoint of an allowed family",
            vec![serv(Service {
                ip_families: crate::service::IpFamilies::Ipv6,
                ..service("shop/old", &["10.96.0.2"])
            })],
            "10.96.0.2:80",
            "refuse NO_HEALTHY_UPSTREAM",
        ),
        (
            "O8: service to a tunnel, the target port (trap 16)",
            vec![],
            "10.96.0.1:80",
            "tunnel 10.0.0.1:15008 for 10.0.0.1:8080 as shop/cart service shop/cart",
        ),
        (
            "O8: IPv6",
            vec![],
            "[fd00:96::1]:80",
            "tunnel [fd00::1]:15008 for [fd00::1]:8080 as shop/cart service shop/cart",
        ),
        (
            "O8: mapped",
            vec![],
            "[::ffff:10.96.0.1]:80",
            "tunnel 10.0.0.1:15008 for 10.0.0.1:8080 as shop/cart service shop/cart",
        ),
        (
            "O8: the service's other names, once each",
            vec![serv(refined)],
            "10.96.0.1:80",
            "tunnel 10.0.0.1:15008 for 10.0.0.1:8080 as shop/cart or shop/other service shop/cart",
        ),
        (
            "O8: an endpoint's own waypoint is not asked (trap 28)",
            vec![work(Workload { waypoint: by_name("shop/wp"), ..serving(cart, vec![], pod("cart", &["10.0.0.1"])) })],
            "10.96.0.1:80",
            "tunnel 10.0.0.1:15008 for 10.0.0.1:8080 as shop/cart service shop/cart",
        ),
        ("O9: service to plain", vec![], "10.96.0.2:80", "plain 10.0.0.2:8080 workload old service shop/old"),
        (
            "O9: the client's own service is meshed too (trap 11)",
            vec![work(serving("shop/me", vec![], client())), serv(service("shop/me", &["10.96.0.9"]))],
            "10.96.0.9:80",
            "tunnel 10.0.0.9:15008 for 10.0.0.9:8080 as shop/client service shop/me",
        ),
        (
            "O11: endpoint on another network, no gateway",
            vec![work(Workload { network: "far".into(), ..serving(cart, vec![], pod("cart", &["10.0.0.1"])) })],
            "10.96.0.1:80",
            "refuse UNKNOWN_NETWORK_GATEWAY",
        ),
        (
            "O14: workload with a tunnel, the dialled port (trap 16)",
            vec![],
            "10.0.0.1:9090",
            "tunnel 10.0.0.1:15008 for 10.0.0.1:9090 as shop/cart service -",
        ),
        ("O14: IPv6", vec![], "[fd00::1]:9090", "tunnel [fd00::1]:15008 for [fd00::1]:9090 as shop/cart service -"),
        (
            "O14: a service's waypoint is not asked (trap 28)",
            vec![serv(Service { waypoint: by_name("shop/wp"), ..service(cart, &["10.96.0.1"]) })],
            "10.0.0.1:8080",
            "tunnel 10.0.0.1:15008 for 10.0.0.1:8080 as shop/cart service -",
        ),
        (
            "O14: an unhealthy pod dialled by address is dialled",
            vec![work(Workload { healthy: false, ..pod("cart", &["10.0.0.1"]) })],
            "10.0.0.1:80",
            "tunnel 10.0.0.1:15008 for 10.0.0.1:80 as shop/cart service -",
        ),
        (
            "O14: its name makes no SPIFFE id",
            vec![work(Workload { service_account: "a b".into(), ..pod("cart", &["10.0.0.1"]) })],
            "10.0.0.1:80",
            "refuse INVALID_IDENTITY",
        ),
        ("O15: workload without tunnel", vec![], "10.0.0.2:9090", "plain 10.0.0.2:9090 workload old service -"),
        ("O16: nobody we know", vec![], "198.51.100.1:443", "plain 198.51.100.1:443 workload - service -"),
        ("O16: IPv6", vec![], "[2001:db8::1]:443", "plain [2001:db8::1]:443 workload - service -"),
        (
            "O16: a node's address (trap 34)",
            vec![work(Workload { host_network: true, ..pod("agent", &["192.0.2.1"]) })],
            "192.0.2.1:80",
            "plain 192.0.2.1:80 workload - service -",
        ),
        (
            "O16: the same address on another network",
            vec![work(Workload { network: "far".into(), ..pod("remote", &["10.1.0.1"]) })],
            "10.1.0.1:80",
            "plain 10.1.0.1:80 workload - service -",
        ),
        (
            "O16: private to another namespace",
            vec![serv(Service { private: true, ..service("bank/vault", &["10.96.0.7"]) })],
            "10.96.0.7:80",
            "plain 10.96.0.7:80 workload - service -",
        ),
        (
            "private to the client's own namespace",
            vec![serv(Service { private: true, ..service(cart, &["10.96.0.1"]) })],
            "10.96.0.1:80",
            "tunnel 10.0.0.1:15008 for 10.0.0.1:8080 as shop/cart service shop/cart",
        ),
        (
            "an address of both: the service's endpoints are asked for",
            vec![serv(service("shop/old", &["10.0.0.2"]))],
            "10.0.0.2:80",
            "plain 10.0.0.2:8080 workload old service shop/old",
        ),
        (
            "an address of both: the service's waypoint is not",
            vec![serv(Service { waypoint: by_name("shop/wp"), ..service("shop/old", &["10.0.0.2"]) })],
            "10.0.0.2:80",
            "plain 10.0.0.2:8080 workload old service shop/old",
        ),
        (
            "an address of both: the workload's waypoint is",
            vec![
                serv(service("shop/cart", &["10.0.0.1"])),
                work(Workload { waypoint: by_name("shop/wp"), ..pod("cart", &["10.0.0.1"]) }),
            ],
            "10.0.0.1:80",
            "waypoint 10.0.0.50:15008 for 10.0.0.1:80 as shop/wp service -",
        ),
        (
            "ingress_use_waypoint is a hint for gateways, nothing to us",
            vec![serv(Service { ingress_use_waypoint: true, ..service("shop/old", &["10.96.0.2"]) })],
            "10.96.0.2:80",
            "plain 10.0.0.2:8080 workload old service shop/old",
        ),
    ] {
        check(name, extra, &client(), dialled, want);
    }
}

#[test]
fn the_same_address_for_several_services() {
    let at = "10.96.0.7";
    let served = |name: &str, ip: &str| serving(name, vec![], pod(&name.replace('/', "-"), &[ip]));
    let both = |a: Service, b: Service| {
        vec![work(served("bank/x", "10.0.0.71")), work(served("club/x", "10.0.0.72")), serv(a), serv(b)]
    };
    let (bank, club) = (|| service("bank/x", &[at]), || service("club/x", &[at]));
    for (name, extra, namespace, want) in [
        ("the first", both(bank(), club()), "shop", "bank/x"),
        ("the canonical one", both(bank(), Service { canonical: true, ..club() }), "shop", "club/x"),
        (
            "the client's own before the canonical one",
            both(bank(), Service { canonical: true, ..club() }),
            "bank",
            "bank/x",
        ),
        (
            "a private one is not seen",
            both(Service { private: true, canonical: true, ..bank() }, club()),
            "shop",
            "club/x",
        ),
    ] {
        let client = Workload { namespace: namespace.into(), ..client() };
        let Destination::Tunnel(tunnel) = ask(&tables(extra), &client, "10.96.0.7:80", 0) else { panic!("{name}") };
        assert_eq!(tunnel.service.unwrap().key().to_string(), want, "{name}");
    }
}

/// O3 to O5, for services.
#[test]
fn services_behind_a_waypoint() {
    let behind = |waypoint| Service { waypoint, ..service("shop/cart", &["10.96.0.1", "fd00:96::1"]) };
    let wp = |with: fn(&mut Service)| {
        let mut wp = Service { ports: ports(15008, 15008), ..service("shop/wp", &["10.96.0.99"]) };
        with(&mut wp);
        serv(wp)
    };
    let wp_pod = || serving("shop/wp", vec![], pod("wp", &["10.0.0.50", "fd00::50"]));
    let tunnelled =
        || Workload { application_tunnel: Some(ApplicationTunnel { proxy_protocol: true, port: 15088 }), ..wp_pod() };
    let through = "waypoint 10.0.0.50:15008 for 10.96.0.1:80 as shop/wp service shop/cart";
    let unknown = "refuse UNKNOWN_WAYPOINT";
    let (v4, v6) = ("10.96.0.1:80", "[fd00:96::1]:80");
    for (name, waypoint, extra, dialled, want) in [
        ("O3: by hostname, authority is the dialled address (trap 16)", by_name("shop/wp"), vec![], v4, through),
        ("O3: by its service's address", by_address("10.96.0.99"), vec![], v4, through),
        ("O3: by its pod's address", by_address("10.0.0.50"), vec![], v4, through),
        (
            "O3: IPv6",
            by_name("shop/wp"),
            vec![],
            v6,
            "waypoint [fd00::50]:15008 for [fd00:96::1]:80 as shop/wp service shop/cart",
        ),
        (
            "O3: the waypoint's family if there is one",
            by_name("shop/wp"),
            vec![wp(|s| s.ip_families = crate::service::IpFamilies::Ipv4)],
            v6,
            "waypoint 10.0.0.50:15008 for [fd00:96::1]:80 as shop/wp service shop/cart",
        ),
        (
            "O3: any port is the waypoint's to judge",
            by_name("shop/wp"),
            vec![],
            "10.96.0.1:81",
            "waypoint 10.0.0.50:15008 for 10.96.0.1:81 as shop/wp service shop/cart",
        ),
        (
            "O3: the waypoint's target port",
            by_name("shop/wp"),
            vec![wp(|s| s.ports = ports(15008, 15088))],
            v4,
            "waypoint 10.0.0.50:15088 for 10.96.0.1:80 as shop/wp service shop/cart",
        ),
        (
            "O3: the waypoint service's names",
            by_name("shop/wp"),
            vec![wp(|s| s.subject_alt_names = vec!["spiffe://cluster.local/ns/infra/sa/gw".into()])],
            v4,
            "waypoint 10.0.0.50:15008 for 10.96.0.1:80 as shop/wp or infra/gw service shop/cart",
        ),
        (
            "O3: a port only in the application tunnel",
            by_name("shop/wp"),
            vec![wp(|s| s.ports.clear()), work(tunnelled())],
            v4,
            through,
        ),
        (
            "O3: the waypoint service's own passthrough means nothing",
            by_name("shop/wp"),
            vec![wp(|s| s.load_balancing.mode = BalanceMode::Passthrough)],
            v4,
            through,
        ),
        (
            "O4: on another network, no gateway",
            by_name("shop/wp"),
            vec![work(Workload { network: "far".into(), ..wp_pod() })],
            v4,
            "refuse UNKNOWN_NETWORK_GATEWAY",
        ),
        ("O5: unknown hostname (trap 26)", by_name("shop/none"), vec![], v4, unknown),
        ("O5: unknown address (trap 26)", by_address("10.96.0.98"), vec![], v4, unknown),
        ("O5: no endpoint", by_name("shop/empty"), vec![serv(service("shop/empty", &[]))], v4, unknown),
        (
            "O5: no healthy endpoint",
            by_name("shop/wp"),
            vec![work(Workload { healthy: false, ..wp_pod() })],
            v4,
            unknown,
        ),
        ("O5: no such port and no tunnel", by_name("shop/wp"), vec![wp(|s| s.ports.clear())], v4, unknown),
        (
            "O5: no address of an allowed family",
            by_name("shop/wp"),
            vec![
                wp(|s| s.ip_families = crate::service::IpFamilies::Ipv6),
                work(Workload { addresses: vec!["10.0.0.50".parse().unwrap()], ..wp_pod() }),
            ],
            v4,
            unknown,
        ),
        (
            "no waypoint: straight",
            None,
            vec![],
            v4,
            "tunnel 10.0.0.1:15008 for 10.0.0.1:8080 as shop/cart service shop/cart",
        ),
    ] {
        let extra = extra.into_iter().chain([serv(behind(waypoint))]).collect();
        check(name, extra, &client(), dialled, want);
    }
    let passthrough = Service {
        load_balancing: LoadBalancing { mode: BalanceMode::Passthrough, ..Default::default() },
        ..behind(by_name("shop/wp"))
    };
    check("O3 before O6: the service's passthrough does not bypass", vec![serv(passthrough)], &client(), v4, through);
    check("O3: a captured waypoint has no exemption", vec![serv(behind(by_name("shop/wp")))], &wp_pod(), v4, through);
}

/// O12 and O13, for workloads.
#[test]
fn workloads_behind_a_waypoint() {
    let behind = |waypoint| work(Workload { waypoint, ..pod("cart", &["10.0.0.1"]) });
    let wp = || serving("shop/wp", vec![], pod("wp", &["10.0.0.50", "fd00::50"]));
    let through = "waypoint 10.0.0.50:15008 for 10.0.0.1:9090 as shop/wp service -";
    let straight = "tunnel 10.0.0.1:15008 for 10.0.0.1:9090 as shop/cart service -";
    let unknown = "refuse UNKNOWN_WAYPOINT";
    let named = by_name("shop/wp");
    let hidden = Workload { addresses: vec!["10.0.0.51".parse().unwrap()], ..wp() };
    for (name, waypoint, client, want) in [
        ("O12: by hostname", named.clone(), client(), through),
        ("O12: by its service's address", by_address("10.96.0.99"), client(), through),
        ("O12: by its pod's address", by_address("10.0.0.50"), client(), through),
        ("O12: unknown is refused (trap 26)", by_name("shop/none"), client(), unknown),
        ("O12: the waypoint's identity from another address", named.clone(), hidden, through),
        (
            "O12: the waypoint's address with another identity",
            named.clone(),
            Workload { service_account: "x".into(), ..wp() },
            through,
        ),
        (
            "O12: the waypoint's address in another namespace",
            named.clone(),
            Workload { namespace: "x".into(), ..wp() },
            through,
        ),
        (
            "O12: the waypoint's address in another trust domain",
            named.clone(),
            Workload { trust_domain: "x".into(), ..wp() },
            through,
        ),
        ("O13: the waypoint itself, by hostname", named, wp(), straight),
        ("O13: the waypoint itself, by its service's address", by_address("10.96.0.99"), wp(), straight),
        ("O13: the waypoint itself, by its pod's address", by_address("10.0.0.50"), wp(), straight),
        ("no waypoint: straight", None, client(), straight),
    ] {
        check(name, vec![behind(waypoint)], &client, "10.0.0.1:9090", want);
    }
    let plain = work(Workload { waypoint: by_name("shop/wp"), tunnel: Tunnel::None, ..pod("old", &["10.0.0.2"]) });
    check(
        "O12: outside the mesh too",
        vec![plain.clone()],
        &client(),
        "10.0.0.2:80",
        "waypoint 10.0.0.50:15008 for 10.0.0.2:80 as shop/wp service -",
    );
    check("O13: outside the mesh too", vec![plain], &wp(), "10.0.0.2:80", "plain 10.0.0.2:80 workload old service -");
}

/// Numbers without pattern, the same every time (SplitMix64).
fn scattered(n: u64) -> impl Iterator<Item = u64> {
    (1..=n).map(|i| {
        let mut z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    })
}

#[test]
fn weighted_waypoints() {
    let canary = [
        serv(Service { ports: ports(15008, 15008), ..service("shop/new", &[]) }),
        work(serving("shop/new", vec![], pod("new", &["10.0.0.60"]))),
        work(serving("shop/new", vec![], pod("new2", &["10.0.0.61"]))),
    ];
    for (name, weights, shares) in [
        ("ninety to ten", (90, 10), [0.9, 0.05, 0.05]),
        ("all to one", (0, 1), [0.0, 0.5, 0.5]),
        ("even, and the pods behind one evenly too", (1, 1), [0.5, 0.25, 0.25]),
        ("no weight at all: the single waypoint", (0, 0), [1.0, 0.0, 0.0]),
    ] {
        let waypoint = by_name("shop/wp");
        let weighted_waypoints =
            vec![(by_name("shop/wp").unwrap(), weights.0), (by_name("shop/new").unwrap(), weights.1)];
        let split = Service { waypoint, weighted_waypoints, ..service("shop/cart", &["10.96.0.1"]) };
        let tables = tables(canary.iter().cloned().chain([serv(split)]).collect());
        let draws = 20_000;
        let mut counts = BTreeMap::from([("wp", 0u32), ("new", 0), ("new2", 0)]);
        for random in scattered(draws) {
            let Destination::Tunnel(tunnel) = ask(&tables, &client(), "10.96.0.1:80", random) else { panic!("{name}") };
            assert!(tunnel.via_waypoint);
            *counts.get_mut(&*tunnel.workload.name).unwrap() += 1;
        }
        for (waypoint, share) in ["wp", "new", "new2"].into_iter().zip(shares) {
            let got = f64::from(counts[waypoint]) / draws as f64;
            assert!((got - share).abs() <= 0.01, "{name}: {waypoint} got {got}, not {share}");
        }
    }
}

#[test]
fn a_weighted_waypoint_that_is_not_known_is_not_bypassed() {
    let weighted_waypoints = vec![(by_name("shop/none").unwrap(), 1)];
    let split = Service { waypoint: by_name("shop/wp"), weighted_waypoints, ..service("shop/cart", &["10.96.0.1"]) };
    check("O5: weighted", vec![serv(split)], &client(), "10.96.0.1:80", "refuse UNKNOWN_WAYPOINT");
}

#[test]
fn refusals_say_what_and_where() {
    let refusal = |dialled| match ask(&tables(vec![]), &client(), dialled, 0) {
        Destination::Refuse(refusal) => refusal.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal("127.0.0.1:15001"), "attempted recursive call to ourselves");
    assert_eq!(refusal("10.96.0.1:81"), "the service has no port 81: shop/cart port 81");
}
