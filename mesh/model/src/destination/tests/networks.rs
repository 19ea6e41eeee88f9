//! Rows O4, O10 and O11: endpoints of other networks. And endpoints, waypoints and gateways that have only a name.

use super::*;

/// `shop/cart` served on network `far`, whose gateway is `gateway`.
fn far(gateway: Option<Arc<GatewayAddress>>) -> Resource {
    let network_gateway = gateway;
    let folded = Workload { network: "far".into(), network_gateway, ..pod("cart-far", &[]) };
    work(serving("shop/cart", ports(80, 8080), Workload { addresses: vec![], ..folded }))
}

/// `shop/cart`, proven by `shop/cart` and `shop/cart-far`.
fn named(with: fn(&mut Service)) -> Resource {
    let subject_alt_names = ["cart", "cart-far"].map(|n| format!("spiffe://cluster.local/ns/shop/sa/{n}").into());
    let mut service = Service { subject_alt_names: subject_alt_names.into(), ..service("shop/cart", &["10.96.0.1"]) };
    with(&mut service);
    serv(service)
}

fn east_west(destination: GatewayDestination) -> Option<Arc<GatewayAddress>> {
    Some(GatewayAddress { destination, hbone_mtls_port: 15008 }.into())
}

fn on_far(ip: &str) -> GatewayDestination {
    GatewayDestination::Address(NetworkAddress { network: "far".into(), ip: ip.parse().unwrap() })
}

/// What istiod sends of a gateway besides: a workload without tunnel, on its own network.
fn gateway_pod(name: &str, addresses: &[&str]) -> Workload {
    Workload { network: "far".into(), tunnel: Tunnel::None, ..pod(name, addresses) }
}

fn local_gone() -> Resource {
    work(Workload { capacity: 0, ..serving("shop/cart", ports(80, 8080), pod("cart", &["10.0.0.1", "fd00::1"])) })
}

const CROSSED: &str =
    "tunnel 192.0.2.7:15008 for cart:80 as shop/gw service shop/cart across to shop/cart or shop/cart-far";

#[test]
fn endpoints_on_another_network() {
    let gw = || work(gateway_pod("gw", &["192.0.2.7"]));
    let by_pod = || far(east_west(on_far("192.0.2.7")));
    let gw_service = |name: &str, vips: &[&str]| {
        let vips = vips
            .iter()
            .map(|v| Vip { address: NetworkAddress { network: "far".into(), ip: v.parse().unwrap() }, prefix: None });
        let vips = vips.collect();
        Service { vips, ports: ports(15008, 15008), ..service(name, &[]) }
    };
    let serves = |name: &str| work(serving(name, vec![], gateway_pod("gw", &["192.0.2.7"])));
    let v4 = "10.96.0.1:80";
    for (name, extra, dialled, want) in [
        ("O10: gateway by its workload's address", vec![named(|_| ()), by_pod(), gw()], v4, CROSSED),
        (
            "O10: gateway by its service's address",
            vec![
                named(|_| ()),
                far(east_west(on_far("198.51.100.9"))),
                serv(gw_service("shop/gw", &["198.51.100.9"])),
                serves("shop/gw"),
            ],
            v4,
            CROSSED,
        ),
        (
            "O10: gateway by its service's hostname, and what that service names",
            vec![
                named(|_| ()),
                far(east_west(GatewayDestination::Hostname(key("shop/gw")))),
                serv(Service {
                    subject_alt_names: vec!["spiffe://cluster.local/ns/infra/sa/gw".into()],
                    ..gw_service("shop/gw", &[])
                }),
                serves("shop/gw"),
            ],
            v4,
            "tunnel 192.0.2.7:15008 for cart:80 as shop/gw or infra/gw service shop/cart across to shop/cart or \
             shop/cart-far",
        ),
        (
            "O10: gateway by its workload's hostname, which is resolved",
            vec![
                named(|_| ()),
                far(east_west(GatewayDestination::Hostname(key("shop/lb.example.com")))),
                work(Workload { hostname: "lb.example.com".into(), ..gateway_pod("gw", &[]) }),
            ],
            v4,
            "resolve lb.example.com then tunnel 203.0.113.1:15008 for cart:80 as shop/gw service shop/cart across \
             to shop/cart or shop/cart-far",
        ),
        (
            "O10: the gateway's own port",
            vec![
                named(|_| ()),
                far(Some(GatewayAddress { destination: on_far("192.0.2.7"), hbone_mtls_port: 15009 }.into())),
                gw(),
            ],
            v4,
            "tunnel 192.0.2.7:15009 for cart:80 as shop/gw service shop/cart across to shop/cart or shop/cart-far",
        ),
        (
            "O10: the port that the gateway's service maps to, by the service's hostname",
            vec![
                named(|_| ()),
                far(Some(
                    GatewayAddress {
                        destination: GatewayDestination::Hostname(key("shop/gw")),
                        hbone_mtls_port: 15999,
                    }
                    .into(),
                )),
                serv(Service { ports: ports(15999, 15008), ..gw_service("shop/gw", &[]) }),
                serves("shop/gw"),
            ],
            v4,
            CROSSED,
        ),
        (
            "O10: the port that the gateway's service maps to, by the service's address",
            vec![
                named(|_| ()),
                far(Some(GatewayAddress { destination: on_far("198.51.100.9"), hbone_mtls_port: 15999 }.into())),
                serv(Service { ports: ports(15999, 15008), ..gw_service("shop/gw", &["198.51.100.9"]) }),
                serves("shop/gw"),
            ],
            v4,
            CROSSED,
        ),
        (
            "O10: the port that the gateway's endpoint maps to comes before its service's",
            vec![
                named(|_| ()),
                far(Some(GatewayAddress { destination: on_far("198.51.100.9"), hbone_mtls_port: 15999 }.into())),
                serv(Service { ports: ports(15999, 15009), ..gw_service("shop/gw", &["198.51.100.9"]) }),
                work(serving("shop/gw", ports(15999, 15008), gateway_pod("gw", &["192.0.2.7"]))),
            ],
            v4,
            CROSSED,
        ),
        (
            "O11: the gateway's service has no such port",
            vec![
                named(|_| ()),
                far(Some(GatewayAddress { destination: on_far("198.51.100.9"), hbone_mtls_port: 15999 }.into())),
                serv(gw_service("shop/gw", &["198.51.100.9"])),
                serves("shop/gw"),
            ],
            v4,
            "refuse UNKNOWN_NETWORK_GATEWAY",
        ),
        (
            "O10: the service's port, not the application's",
            vec![
                named(|s| s.ports = ports(81, 0)),
                work(Workload {
                    network: "far".into(),
                    network_gateway: east_west(on_far("192.0.2.7")),
                    ..serving("shop/cart", ports(81, 8080), pod("cart-far", &[]))
                }),
                gw(),
            ],
            "10.96.0.1:81",
            "tunnel 192.0.2.7:15008 for cart:81 as shop/gw service shop/cart across to shop/cart or shop/cart-far",
        ),
        (
            "O10: an address on the other network is not dialled",
            vec![
                named(|_| ()),
                work(Workload {
                    network: "far".into(),
                    network_gateway: east_west(on_far("192.0.2.7")),
                    ..serving("shop/cart", ports(80, 8080), pod("cart-far", &["10.0.0.1"]))
                }),
                gw(),
            ],
            v4,
            CROSSED,
        ),
        ("O11: none is named", vec![named(|_| ()), far(None)], v4, "refuse NO_HEALTHY_UPSTREAM"),
        (
            "O11: none is named, though the endpoint has an address",
            vec![
                named(|_| ()),
                work(Workload {
                    network: "far".into(),
                    ..serving("shop/cart", ports(80, 8080), pod("cart-far", &["10.1.0.1"]))
                }),
            ],
            v4,
            "refuse UNKNOWN_NETWORK_GATEWAY",
        ),
        ("O11: the address is nobody's", vec![named(|_| ()), by_pod()], v4, "refuse UNKNOWN_NETWORK_GATEWAY"),
        (
            "O11: the hostname is nobody's",
            vec![named(|_| ()), far(east_west(GatewayDestination::Hostname(key("shop/none"))))],
            v4,
            "refuse UNKNOWN_NETWORK_GATEWAY",
        ),
        (
            "O11: the gateway has neither address nor name",
            vec![
                named(|_| ()),
                far(east_west(GatewayDestination::Hostname(key("shop/gw")))),
                serv(gw_service("shop/gw", &[])),
                work(serving("shop/gw", vec![], gateway_pod("gw", &[]))),
            ],
            v4,
            "refuse UNKNOWN_NETWORK_GATEWAY",
        ),
        (
            "O10, trap 21: nobody is named who may answer there",
            vec![named(|s| s.subject_alt_names.clear()), by_pod(), gw()],
            v4,
            "refuse NO_SERVICE_IDENTITY",
        ),
        (
            "O10, trap 21: only the service's names count, not the endpoint's own",
            vec![
                named(|s| s.subject_alt_names = vec!["spiffe://cluster.local/ns/shop/sa/only".into(), "no id".into()]),
                by_pod(),
                gw(),
            ],
            v4,
            "tunnel 192.0.2.7:15008 for cart:80 as shop/gw service shop/cart across to shop/only",
        ),
        (
            "O8: a gateway of the own network is ignored",
            vec![
                local_gone(),
                work(Workload {
                    network_gateway: east_west(on_far("192.0.2.7")),
                    ..serving("shop/cart", ports(80, 8080), pod("near", &["10.0.0.3"]))
                }),
                gw(),
            ],
            v4,
            "tunnel 10.0.0.3:15008 for 10.0.0.3:8080 as shop/near service shop/cart",
        ),
    ] {
        // The endpoint of `world` takes no traffic, so that the far one is the only choice.
        let extra = std::iter::once(local_gone()).chain(extra).collect();
        check(name, extra, &client(), dialled, want);
    }
}

#[test]
fn a_waypoint_on_another_network() {
    let gw = || work(gateway_pod("gw", &["192.0.2.7"]));
    let wp = |names: &[&str]| {
        let subject_alt_names = names.iter().map(|n| format!("spiffe://cluster.local/ns/shop/sa/{n}").into()).collect();
        serv(Service { subject_alt_names, ports: ports(15008, 15008), ..service("shop/wp", &["10.96.0.99"]) })
    };
    let wp_far = |network_gateway| {
        work(Workload { network: "far".into(), network_gateway, ..serving("shop/wp", vec![], pod("wp", &[])) })
    };
    let by_pod = || east_west(on_far("192.0.2.7"));
    let behind = |s: &mut Service| {
        s.waypoint = by_name("shop/wp");
    };
    for (name, extra, want) in [
        (
            "O4: the service is asked for, and the waypoint's names are accepted besides its own",
            vec![named(behind), wp(&["wp"]), wp_far(by_pod()), gw()],
            "waypoint 192.0.2.7:15008 for cart:80 as shop/gw service shop/cart across to shop/cart or \
             shop/cart-far or shop/wp",
        ),
        (
            "O4, trap 21: nobody is named who may answer there",
            vec![
                named(|s| (s.waypoint, s.subject_alt_names) = (by_name("shop/wp"), vec![])),
                wp(&[]),
                wp_far(by_pod()),
                gw(),
            ],
            "refuse NO_SERVICE_IDENTITY",
        ),
        ("O5: no way to it", vec![named(behind), wp(&["wp"]), wp_far(None)], "refuse UNKNOWN_WAYPOINT"),
        (
            "O11: the gateway is not known",
            vec![named(behind), wp(&["wp"]), wp_far(by_pod())],
            "refuse UNKNOWN_NETWORK_GATEWAY",
        ),
    ] {
        check(name, extra, &client(), "10.96.0.1:80", want);
    }
    let workload = work(Workload { waypoint: by_name("shop/wp"), ..pod("cart", &["10.0.0.1"]) });
    check(
        "O12: a workload has no name to ask for across networks",
        vec![workload, wp(&["wp"]), wp_far(by_pod()), gw()],
        &client(),
        "10.0.0.1:80",
        "refuse UNKNOWN_NETWORK_GATEWAY",
    );
}

#[test]
fn endpoints_that_have_only_a_name() {
    let outside = |tunnel| {
        let hostname = "db.example.com".into();
        work(Workload { hostname, tunnel, ..serving("shop/db", vec![], pod("db", &[])) })
    };
    let db = || serv(service("shop/db", &["240.240.0.1", "2001:2::1"]));
    for (name, extra, dialled, want) in [
        (
            "O9: outside the mesh",
            vec![db(), outside(Tunnel::None)],
            "240.240.0.1:80",
            "resolve db.example.com then plain 203.0.113.1:8080 workload db service shop/db",
        ),
        (
            "O8: with a tunnel",
            vec![db(), outside(Tunnel::Hbone)],
            "240.240.0.1:80",
            "resolve db.example.com then tunnel 203.0.113.1:15008 for 203.0.113.1:8080 as shop/db service shop/db",
        ),
        (
            "O3: a waypoint",
            vec![
                db(),
                serv(Service { waypoint: by_name("shop/wp"), ..service("shop/old", &["10.96.0.2"]) }),
                work(Workload { hostname: "wp.example.com".into(), ..serving("shop/wp", vec![], pod("wp", &[])) }),
            ],
            "10.96.0.2:80",
            "resolve wp.example.com then waypoint 203.0.113.1:15008 for 10.96.0.2:80 as shop/wp service shop/old",
        ),
        (
            "O8: addresses come before the name",
            vec![
                db(),
                work(Workload {
                    hostname: "db.example.com".into(),
                    ..serving("shop/db", vec![], pod("db", &["10.0.0.8"]))
                }),
            ],
            "240.240.0.1:80",
            "tunnel 10.0.0.8:15008 for 10.0.0.8:8080 as shop/db service shop/db",
        ),
        (
            "the name comes where no address is of an allowed family",
            vec![
                serv(Service {
                    ip_families: crate::service::IpFamilies::Ipv6,
                    ..service("shop/db", &["240.240.0.1", "2001:2::1"])
                }),
                work(Workload {
                    hostname: "db.example.com".into(),
                    tunnel: Tunnel::None,
                    ..serving("shop/db", vec![], pod("db", &["10.0.0.8"]))
                }),
            ],
            "[2001:2::1]:80",
            "resolve db.example.com then plain 203.0.113.1:8080 workload db service shop/db",
        ),
    ] {
        check(name, extra, &client(), dialled, want);
    }
    let Destination::Resolve(name) = ask(&tables(vec![db(), outside(Tunnel::Hbone)]), &client(), "[2001:2::1]:80", 0)
    else {
        panic!("it has no address")
    };
    assert!(!name.ipv4_first(), "the client dialled IPv6");
    let at = |ip: &str| told(&name.at(ip.parse().unwrap()));
    assert_eq!(at("127.0.0.1"), "refuse RECURSIVE_CALL", "O1: a name may say it, too");
    assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"), "in normal form");
}

#[test]
fn the_address_that_a_name_resolved_to() {
    let all: Vec<std::net::IpAddr> =
        ["192.0.2.1", "2001:db8::1", "192.0.2.2", "192.0.2.3"].map(|ip| ip.parse().unwrap()).into();
    for (name, addresses, ipv4_first, random, want) in [
        ("the family that was dialled", &all[..], false, 7, Some("2001:db8::1")),
        ("the first of them", &all[..], true, 0, Some("192.0.2.1")),
        ("any of them", &all[..], true, 4, Some("192.0.2.2")),
        ("another family rather than none", &all[..1], false, 3, Some("192.0.2.1")),
        ("none", &[][..], true, 0, None),
    ] {
        let want = want.map(|ip| ip.parse().unwrap());
        assert_eq!(balance::resolved(addresses, ipv4_first, random), want, "5.4 step 6: {name}");
    }
}
