//! One test for each row of the contract's table (11.5 DNS proxy).

use mesh_model::address::{NamespacedName, NetworkAddress};
use mesh_model::resource::Resource;
use mesh_model::service::{IpFamilies, LoadBalancing, Vip};

use super::*;

fn tables(services: Vec<Service>, workloads: Vec<Workload>) -> Tables {
    let mut tables = Tables::default();
    for service in services {
        tables.apply(Resource::Service(service.into()));
    }
    for workload in workloads {
        tables.apply(Resource::Workload(workload.into()));
    }
    tables
}

fn vip(address: &str) -> Vip {
    let (network, rest) = address.split_once('@').unwrap_or(("", address));
    let (ip, prefix) = rest.split_once('/').map_or((rest, None), |(ip, p)| (ip, Some(p.parse().unwrap())));
    Vip { address: NetworkAddress { network: network.into(), ip: ip.parse().unwrap() }, prefix }
}

fn service(key: &str, vips: &[&str]) -> Service {
    let key = NamespacedName::parse(key).unwrap();
    Service { vips: vips.iter().map(|v| vip(v)).collect(), ..Service::empty(key.namespace, key.name) }
}

fn endpoint(name: &str, of: &str, addresses: &[&str]) -> Workload {
    Workload {
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        services: [(NamespacedName::parse(of).unwrap(), Vec::new())].into(),
        healthy: true,
        ..Workload::empty(name)
    }
}

fn client() -> Workload {
    Workload { namespace: "shop".into(), ..Workload::empty("Kubernetes//Pod/shop/client") }
}

fn names() -> NameSettings {
    NameSettings { domain: "cluster.local".into(), preferred_namespace: None, ipv6: true }
}

fn question(name: &str, kind: u16, class: u16) -> Question {
    let mut packet = message::tests::query(1, name, kind);
    let length = packet.len();
    packet[length - 2..].copy_from_slice(&class.to_be_bytes());
    message::read(&packet).unwrap().question.unwrap()
}

/// `KEY ALIAS ADDRESSES`, or why it is forwarded.
fn asks(tables: &Tables, names: &NameSettings, name: &str, kind: u16) -> String {
    match answer(tables, &client(), names, &question(name, kind, message::CLASS_IN)) {
        Answer::Forward(why) => format!("{why:?}"),
        Answer::Targets { service, alias, targets } => {
            let place = |t: &Target| {
                format!(
                    "{}:{}={}",
                    t.name,
                    t.port,
                    t.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join("+")
                )
            };
            let targets: Vec<String> = targets.iter().map(place).collect();
            format!("{} {} {}", service.key(), alias.as_deref().unwrap_or("-"), targets.join(","))
        }
        Answer::Alias { service, alias, target } => {
            format!("{} {} -> {target}", service.key(), alias.as_deref().unwrap_or("-"))
        }
        Answer::Addresses { service, alias, addresses } => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("{} {} {}", service.key(), alias.as_deref().unwrap_or("-"), addresses.join(","))
        }
    }
}

const CART: &str = "shop/cart.shop.svc.cluster.local";

#[test]
fn types_only_addresses() {
    let tables = tables(vec![service(CART, &["10.96.0.1"])], vec![]);
    // SRV, TXT, MX, PTR, HTTPS, ANY.
    for kind in [33, 16, 15, 12, 65, 255] {
        assert_eq!(asks(&tables, &names(), "cart", kind), "Type");
    }
    let chaos = answer(&tables, &client(), &names(), &question("cart", kind::A, 3));
    assert_eq!(chaos, Answer::Forward(Why::Type));
}

#[test]
fn candidate_names() {
    for (name, expected) in [
        ("cart", &["cart", "cart.shop.svc.cluster.local"][..]),
        ("cart.bank", &["cart.bank", "cart.bank.shop.svc.cluster.local", "cart.bank.svc.cluster.local"]),
        ("cart.bank.svc", &["cart.bank.svc", "cart.bank.svc.cluster.local", "cart.bank.svc.svc.cluster.local"]),
        ("www.example.com", &["www.example.com", "www.example.com.svc.cluster.local"]),
        ("a.b.c.svc", &["a.b.c.svc", "a.b.c.svc.cluster.local"]),
        ("a.b.c.d", &["a.b.c.d"]),
        ("a.b.c.d.svc", &["a.b.c.d.svc"]),
    ] {
        let found: Vec<String> = candidates(name, "shop", "cluster.local").into_iter().map(|c| c.name).collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn search_domains_are_guessed_from_the_namespace() {
    // Trap 55: from the namespace, whatever the pod's resolv.conf says.
    let of = |name: &str| -> Vec<(String, Option<String>)> {
        candidates(name, "shop", "cluster.local").into_iter().map(|c| (c.name, c.stripped)).collect()
    };
    let some = |name: &str, stripped: &str| (name.to_owned(), Some(stripped.to_owned()));
    let own = of("www.example.shop.svc.cluster.local");
    assert!(own.contains(&some("www.example", "www.example")));
    assert!(own.contains(&some("www.example.svc.cluster.local", "www.example")));
    assert!(of("www.example.cluster.local").contains(&some("www.example", "www.example")));
    assert!(!of("www.example.bank.svc.cluster.local").contains(&some("www.example", "www.example")));
    assert!(!of("cluster.local").iter().any(|(name, _)| name.is_empty()));

    let tables = tables(
        vec![
            service(CART, &["10.96.0.1"]),
            service("shop/www.example.com", &["240.240.0.1"]),
            service("shop/*.wild.example", &["240.240.0.2"]),
        ],
        vec![],
    );
    let asks = |name: &str| asks(&tables, &names(), name, kind::A);
    // The name in full is no alias, whatever it ends in.
    assert_eq!(asks("cart.shop.svc.cluster.local"), format!("{CART} - 10.96.0.1"));
    assert_eq!(asks("cart.shop.shop.svc.cluster.local"), format!("{CART} cart.shop 10.96.0.1"));
    assert_eq!(asks("www.example.com.shop.svc.cluster.local"), "shop/www.example.com www.example.com 240.240.0.1");
    // By a wildcard: no alias.
    assert_eq!(asks("a.wild.example.shop.svc.cluster.local"), "shop/*.wild.example - 240.240.0.2");
}

#[test]
fn wildcards_of_each_candidate_before_the_next() {
    let tables = tables(
        vec![
            service("shop/*.example.com", &["240.240.0.1"]),
            service("shop/*.com", &["240.240.0.2"]),
            service("shop/www.example.com", &["240.240.0.3"]),
            service("shop/*.svc", &["240.240.0.4"]),
            service("bank/a.bank.svc.cluster.local", &["10.96.0.9"]),
        ],
        vec![],
    );
    for (name, expected) in [
        ("www.example.com", "shop/www.example.com - 240.240.0.3"),
        ("WWW.Example.COM", "shop/www.example.com - 240.240.0.3"),
        ("other.example.com", "shop/*.example.com - 240.240.0.1"),
        ("a.b.example.com", "shop/*.example.com - 240.240.0.1"),
        ("example.com", "shop/*.com - 240.240.0.2"),
        ("com", "Name"),
        // The wildcard of the name as it is comes before the name expanded.
        ("a.bank.svc", "shop/*.svc - 240.240.0.4"),
    ] {
        assert_eq!(asks(&tables, &names(), name, kind::A), expected, "{name}");
    }
}

#[test]
fn choice_among_services_of_one_name() {
    let of = |namespace: &str, address: &str| service(&format!("{namespace}/api.example"), &[address]);
    let preferring = |namespace: &str| NameSettings { preferred_namespace: Some(namespace.into()), ..names() };
    let first = of("a", "240.240.0.1");
    let second = of("b", "240.240.0.2");
    let canonical = Service { canonical: true, ..of("c", "240.240.0.3") };
    let own = of("shop", "240.240.0.4");
    let hidden = Service { private: true, ..first.clone() };
    for (services, names, expected) in [
        (vec![&first, &second, &canonical, &own], preferring("b"), "shop/api.example - 240.240.0.4"),
        (vec![&first, &second, &canonical], preferring("b"), "c/api.example - 240.240.0.3"),
        (vec![&first, &second], preferring("b"), "b/api.example - 240.240.0.2"),
        (vec![&first, &second], names(), "a/api.example - 240.240.0.1"),
        (vec![&hidden, &second], names(), "b/api.example - 240.240.0.2"),
        (vec![&hidden], names(), "Name"),
    ] {
        let tables = tables(services.into_iter().cloned().collect(), vec![]);
        assert_eq!(asks(&tables, &names, "api.example", kind::A), expected);
    }
}

#[test]
fn a_service_answers_with_its_vips_of_the_clients_network() {
    let vips = &["10.96.0.1", "10.96.0.2", "fd00::1", "other@10.97.0.1", "10.98.0.0/16", "10.99.0.1/32"];
    let tables = tables(vec![service(CART, vips)], vec![endpoint("pod", CART, &["10.244.0.5"])]);
    assert_eq!(asks(&tables, &names(), "cart", kind::A), format!("{CART} - 10.96.0.1,10.96.0.2,10.99.0.1"));
    assert_eq!(asks(&tables, &names(), "cart", kind::AAAA), format!("{CART} - fd00::1"));
}

#[test]
fn a_headless_service_answers_with_its_endpoints() {
    let unready = Workload { healthy: false, ..endpoint("b", CART, &["10.244.0.6"]) };
    let several = endpoint("c", CART, &["fd00::7", "10.244.0.7", "10.244.0.8"]);
    let pods = vec![endpoint("a", CART, &["10.244.0.5", "fd00::5"]), unready, several];
    let headless = tables(vec![service(CART, &[])], pods.clone());
    assert_eq!(asks(&headless, &names(), "cart.shop", kind::A), format!("{CART} - 10.244.0.5,10.244.0.7"));
    assert_eq!(asks(&headless, &names(), "cart.shop", kind::AAAA), format!("{CART} - fd00::5,fd00::7"));
    let all = LoadBalancing { allow_unhealthy: true, ..LoadBalancing::default() };
    let all = tables(vec![Service { load_balancing: all, ..service(CART, &[]) }], pods);
    assert_eq!(asks(&all, &names(), "cart.shop", kind::A), format!("{CART} - 10.244.0.5,10.244.0.6,10.244.0.7"));
}

#[test]
fn a_service_entry_without_vip_is_forwarded() {
    let key = "shop/api.example.com";
    let tables = tables(vec![service(key, &[])], vec![endpoint("vm", key, &["192.0.2.1"])]);
    assert_eq!(asks(&tables, &names(), "api.example.com", kind::A), "NoAddress");
}

#[test]
fn a_known_name_without_an_address_of_the_family_is_empty() {
    // Trap 56: neither NXDOMAIN nor forwarded.
    let tables = tables(
        vec![
            service(CART, &["10.96.0.1"]),
            service("shop/far.shop.svc.cluster.local", &["other@10.97.0.1"]),
            service("shop/idle.shop.svc.cluster.local", &[]),
        ],
        vec![],
    );
    assert_eq!(asks(&tables, &names(), "cart", kind::AAAA), format!("{CART} - "));
    assert_eq!(asks(&tables, &names(), "far", kind::A), "shop/far.shop.svc.cluster.local - ");
    assert_eq!(asks(&tables, &names(), "idle", kind::A), "shop/idle.shop.svc.cluster.local - ");
}

#[test]
fn pods_and_hostnames_of_workloads_are_forwarded() {
    let headless = "shop/db.shop.svc.cluster.local";
    let pod = Workload { name: "db-0".into(), ..endpoint("db-0", headless, &["10.244.0.5"]) };
    let outside = Workload { hostname: "vm.example".into(), ..Workload::empty("vm") };
    let tables = tables(vec![service(headless, &[])], vec![pod, outside]);
    for name in ["db-0.db.shop.svc.cluster.local", "10-244-0-5.shop.pod.cluster.local", "vm.example", "example", ""] {
        let mut asked = question(if name.is_empty() { "x" } else { name }, kind::A, message::CLASS_IN);
        asked.name = name.to_owned();
        assert_eq!(answer(&tables, &client(), &names(), &asked), Answer::Forward(Why::Name), "{name}");
    }
}

const WEB: &str = "shop/web.shop.svc.cluster.local";

fn named_ports(service: Service) -> Service {
    let port = |name: &str, protocol: &str, service_port, target_port| NamedPort {
        name: name.into(),
        protocol: protocol.into(),
        service_port,
        target_port,
    };
    let named_ports = vec![port("http", "tcp", 80, 0), port("dns", "udp", 53, 5353), port("echo", "udp", 7, 0)];
    let extension = mesh_model::service::ServiceExtension { named_ports, ..Default::default() };
    Service { extension: Some(extension.into()), ..service }
}

/// A headless service: an endpoint with a hostname, one without, one that is not ready.
fn headless(change: impl Fn(&mut Service)) -> Tables {
    let mut web = named_ports(service(WEB, &[]));
    change(&mut web);
    let port = mesh_model::workload::PortMapping {
        service_port: 80,
        target_port: 8080,
        app_protocol: mesh_model::workload::AppProtocol::Unknown,
    };
    let served = |w: Workload| Workload { services: [(NamespacedName::parse(WEB).unwrap(), vec![port])].into(), ..w };
    let hostname = |n: u8| format!("web-{n}.web.shop.svc.cluster.local").into();
    let first = Workload { hostname: hostname(0), ..endpoint("a", WEB, &["10.244.1.1", "fd00::1"]) };
    let second = endpoint("b", WEB, &["10.244.1.2", "fd00::2"]);
    let sick = Workload { hostname: hostname(2), healthy: false, ..endpoint("c", WEB, &["10.244.1.3"]) };
    tables(vec![web], [first, second, sick].map(served).into())
}

#[test]
fn endpoints_of_a_headless_service_have_names() {
    let tables = headless(|_| {});
    for (name, kind, expected) in [
        ("web-0.web.shop.svc.cluster.local", kind::A, format!("{WEB} - 10.244.1.1")),
        ("web-0.web.shop.svc.cluster.local", kind::AAAA, format!("{WEB} - fd00::1")),
        ("web-0.web", kind::A, format!("{WEB} - 10.244.1.1")),
        ("web-0.web.shop", kind::A, format!("{WEB} - 10.244.1.1")),
        ("web-0.web.shop.svc", kind::A, format!("{WEB} - 10.244.1.1")),
        ("web-0.web.shop.shop.svc.cluster.local", kind::A, format!("{WEB} web-0.web.shop 10.244.1.1")),
        ("10-244-1-2.web", kind::A, format!("{WEB} - 10.244.1.2")),
        ("10-244-1-2.web", kind::AAAA, format!("{WEB} - ")),
        ("fd00--2.web", kind::AAAA, format!("{WEB} - fd00::2")),
        ("10-244-1-9.web", kind::A, "Name".to_owned()),
        ("010-244-1-2.web", kind::A, "Name".to_owned()),
        ("web-1.web", kind::A, "Name".to_owned()),
        ("web-2.web", kind::A, "Name".to_owned()),
        ("web-0.other", kind::A, "Name".to_owned()),
        ("web-0.web", 16, "Type".to_owned()),
    ] {
        assert_eq!(asks(&tables, &names(), name, kind), expected, "{name} {kind}");
    }
    let published = headless(|web| web.load_balancing = LoadBalancing { allow_unhealthy: true, ..Default::default() });
    assert_eq!(asks(&published, &names(), "web-2.web", kind::A), format!("{WEB} - 10.244.1.3"));
    assert_eq!(asks(&published, &names(), "web-2.web", kind::AAAA), format!("{WEB} - "), "known, without the family");
}

/// An address of another network is nobody's here, or another pod's: no name shows it, and no name server is asked.
#[test]
fn endpoints_of_other_networks_are_not_shown() {
    let hostname = |n: u8| format!("web-{n}.web.shop.svc.cluster.local").into();
    let elsewhere = |w: Workload| Workload { network: "other".into(), ..w };
    let tables = tables(
        vec![named_ports(service(WEB, &[]))],
        vec![
            Workload { hostname: hostname(0), ..endpoint("a", WEB, &["10.244.1.1", "fd00::1"]) },
            elsewhere(Workload { hostname: hostname(1), ..endpoint("b", WEB, &["10.244.1.2", "fd00::2"]) }),
            elsewhere(endpoint("c", WEB, &["10.244.1.3"])),
            // Both networks have this address.
            endpoint("d", WEB, &["10.244.1.4"]),
            elsewhere(endpoint("e", WEB, &["10.244.1.4"])),
        ],
    );
    let targets = "web-0.web.shop.svc.cluster.local:80=10.244.1.1+fd00::1,10-244-1-4.web.shop.svc.cluster.local:80=\
                   10.244.1.4";
    for (name, kind, expected) in [
        ("web", kind::A, "10.244.1.1,10.244.1.4"),
        ("web", kind::AAAA, "fd00::1"),
        ("web-0.web", kind::A, "10.244.1.1"),
        ("web-1.web", kind::A, ""),
        ("web-1.web", kind::AAAA, ""),
        ("10-244-1-3.web", kind::A, ""),
        ("10-244-1-4.web", kind::A, "10.244.1.4"),
        ("_http._tcp.web", kind::SRV, targets),
    ] {
        assert_eq!(asks(&tables, &names(), name, kind), format!("{WEB} - {expected}"), "{name} {kind}");
    }
}

#[test]
fn ports_are_found_by_name() {
    let tables = headless(|_| {});
    let four = headless(|web| web.ip_families = IpFamilies::Ipv4);
    let both = "web-0.web.shop.svc.cluster.local:8080=10.244.1.1+fd00::1,10-244-1-2.web.shop.svc.cluster.local:8080=\
                10.244.1.2,fd00--2.web.shop.svc.cluster.local:8080=fd00::2";
    let one = "web-0.web.shop.svc.cluster.local:5353=10.244.1.1,10-244-1-2.web.shop.svc.cluster.local:5353=10.244.1.2";
    for (tables, name, expected) in [
        (&tables, "_http._tcp.web.shop.svc.cluster.local", format!("{WEB} - {both}")),
        (&tables, "_http._tcp.web", format!("{WEB} - {both}")),
        (&tables, "_http._tcp.web.shop.shop.svc.cluster.local", format!("{WEB} _http._tcp.web.shop {both}")),
        (&four, "_dns._udp.web", format!("{WEB} - {one}")),
        (&four, "_echo._udp.web", format!("{WEB} - {}", one.replace("5353", "7"))),
        (&tables, "_http._udp.web", "Name".to_owned()),
        (&tables, "_none._tcp.web", "Name".to_owned()),
        (&tables, "_http._tcp.none", "Name".to_owned()),
        (&tables, "web", "Type".to_owned()),
        (&tables, "_http.web", "Type".to_owned()),
    ] {
        assert_eq!(asks(tables, &names(), name, kind::SRV), expected, "{name}");
    }
    let with_address = self::tables(vec![named_ports(service(CART, &["10.96.0.1"]))], vec![]);
    let expected = format!("{CART} - cart.shop.svc.cluster.local:80=10.96.0.1");
    assert_eq!(asks(&with_address, &names(), "_http._tcp.cart", kind::SRV), expected);
    // Istio's control plane says no names of ports: others know.
    let istiod = self::tables(vec![service(CART, &["10.96.0.1"])], vec![]);
    assert_eq!(asks(&istiod, &names(), "_http._tcp.cart", kind::SRV), "Name");
}

#[test]
fn families_of_the_service_and_of_the_proxy() {
    let none = format!("{WEB} - ");
    let (four, six) = (format!("{WEB} - 10.244.1.1,10.244.1.2"), format!("{WEB} - fd00::1,fd00::2"));
    for (families, ipv6, a, aaaa) in [
        (IpFamilies::Automatic, true, &four, &six),
        (IpFamilies::Dual, true, &four, &six),
        (IpFamilies::Ipv4, true, &four, &none),
        (IpFamilies::Ipv6, true, &none, &six),
        (IpFamilies::Dual, false, &four, &none),
        (IpFamilies::Ipv6, false, &none, &none),
    ] {
        let tables = headless(|web| web.ip_families = families);
        let names = NameSettings { ipv6, ..names() };
        assert_eq!(asks(&tables, &names, "web", kind::A), *a, "{families:?} {ipv6}");
        assert_eq!(asks(&tables, &names, "web", kind::AAAA), *aaaa, "{families:?} {ipv6}");
    }
    let dual = tables(vec![service(CART, &["10.96.0.1", "fd00:96::1"])], vec![]);
    let only_four = NameSettings { ipv6: false, ..names() };
    assert_eq!(asks(&dual, &only_four, "cart", kind::AAAA), format!("{CART} - "), "an address of its own, too");
}

#[test]
fn a_name_that_is_another_name() {
    let extension =
        mesh_model::service::ServiceExtension { external_name: "db.example.com".into(), ..Default::default() };
    let far = Service { extension: Some(extension.into()), ..service("shop/far.shop.svc.cluster.local.", &[]) };
    let tables = tables(vec![far], vec![]);
    let key = "shop/far.shop.svc.cluster.local.";
    for kind in [kind::A, kind::AAAA, kind::CNAME, 16] {
        assert_eq!(asks(&tables, &names(), "far", kind), format!("{key} - -> db.example.com"));
    }
    assert_eq!(
        asks(&tables, &names(), "far.shop.shop.svc.cluster.local", kind::A),
        format!("{key} far.shop -> db.example.com")
    );
    assert_eq!(asks(&tables, &names(), "x.far", kind::A), "Name");
}
