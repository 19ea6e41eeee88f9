//! The steps of section 5.4 of the Istio ambient contract.

use std::collections::BTreeSet;

use super::*;
use crate::address::{GatewayAddress, GatewayDestination, NetworkAddress};
use crate::workload::{AppProtocol, ApplicationTunnel, Locality, PortMapping};

fn port(service_port: u16, target_port: u16) -> PortMapping {
    PortMapping { service_port, target_port, app_protocol: AppProtocol::Unknown }
}

fn service() -> Service {
    Service { ports: vec![port(80, 8080)], ..Service::empty("shop", "cart.shop.svc.cluster.local") }
}

fn endpoint(name: &str) -> Workload {
    Workload {
        addresses: vec!["10.0.0.1".parse().unwrap()],
        services: [(service().key(), vec![port(80, 8080)])].into(),
        ..Workload::empty(name)
    }
}

fn gateway() -> GatewayAddress {
    let address = NetworkAddress { network: "far".into(), ip: "192.0.2.1".parse().unwrap() };
    GatewayAddress { destination: GatewayDestination::Address(address), hbone_mtls_port: 15008 }
}

fn client() -> Workload {
    Workload {
        locality: Locality { region: "r1".into(), zone: "z1".into(), subzone: "s1".into() },
        node: "n1".into(),
        ..Workload::empty("client")
    }
}

/// How often each endpoint is chosen over `draws` numbers in a row, by name, in the order given.
fn spread(service: &Service, endpoints: &[Workload], draws: u64) -> Vec<u64> {
    let arcs: Vec<_> = endpoints.iter().cloned().map(Arc::new).collect();
    let mut counts = vec![0; arcs.len()];
    for random in 0..draws {
        if let Ok(chosen) = choose(service, &arcs, &client(), 80, random) {
            counts[arcs.iter().position(|w| w.uid == chosen.workload.uid).unwrap()] += 1;
        }
    }
    counts
}

#[test]
fn weights_are_kept_within_one_percent() {
    for (name, weights) in [
        ("equal", vec![1, 1, 1]),
        ("unequal", vec![1, 2, 7]),
        ("one takes nothing (trap 33)", vec![5, 0, 5]),
        ("only one takes anything", vec![0, 3, 0]),
        ("large", vec![u32::MAX, u32::MAX]),
    ] {
        let endpoints: Vec<_> =
            weights.iter().enumerate().map(|(i, w)| Workload { capacity: *w, ..endpoint(&format!("w{i}")) }).collect();
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        // Full cycles of `random`; for large weights, numbers spread evenly over one.
        let (draws, step) = if total < 1000 { (total * 1000, 1) } else { (10_000, total / 10_000) };
        let arcs: Vec<_> = endpoints.into_iter().map(Arc::new).collect();
        let mut counts = vec![0u64; arcs.len()];
        for i in 0..draws {
            let chosen = choose(&service(), &arcs, &client(), 80, i * step).unwrap();
            counts[arcs.iter().position(|w| w.uid == chosen.workload.uid).unwrap()] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            let want = draws as f64 * f64::from(*weight) / total as f64;
            assert!((*count as f64 - want).abs() <= want * 0.01, "{name}: {counts:?} for {weights:?}");
        }
    }
}

#[test]
fn the_same_number_chooses_the_same_endpoint() {
    let endpoints: Vec<_> = (0..5).map(|i| Arc::new(endpoint(&format!("w{i}")))).collect();
    for random in [0, 1, 7, u64::MAX] {
        let once = choose(&service(), &endpoints, &client(), 80, random).unwrap();
        assert_eq!(choose(&service(), &endpoints, &client(), 80, random), Ok(once));
    }
}

#[test]
fn who_can_be_chosen() {
    let far = |w: Workload| Workload { network: "far".into(), ..w };
    let without = |w: Workload| Workload { addresses: Vec::new(), ..w };
    let via = |w: Workload| Workload { network_gateway: Some(gateway().into()), ..w };
    let sick = Workload { healthy: false, ..endpoint("w") };
    for (name, endpoint, allow_unhealthy, usable) in [
        ("healthy", endpoint("w"), false, true),
        ("unhealthy", sick.clone(), false, false),
        ("unhealthy where all are allowed", sick, true, true),
        ("capacity 0 (trap 33)", Workload { capacity: 0, ..endpoint("w") }, false, false),
        ("capacity 0 where unhealthy ones are allowed", Workload { capacity: 0, ..endpoint("w") }, true, false),
        ("no address", without(endpoint("w")), false, false),
        ("no address, a gateway, own network", without(via(endpoint("w"))), false, false),
        ("no address, a gateway, other network", far(without(via(endpoint("w")))), false, true),
        ("no address, no gateway, other network", far(without(endpoint("w"))), false, false),
        ("address on another network", far(endpoint("w")), false, true),
    ] {
        let mut service = service();
        service.load_balancing.allow_unhealthy = allow_unhealthy;
        let chosen = choose(&service, &[Arc::new(endpoint)], &client(), 80, 0);
        let want = if usable { None } else { Some(NoEndpoint::Healthy) };
        assert_eq!(chosen.err(), want, "{name}");
    }
    assert_eq!(choose(&service(), &[], &client(), 80, 0), Err(NoEndpoint::Healthy), "nobody");
}

#[test]
fn target_ports() {
    let none: Vec<PortMapping> = Vec::new();
    for (name, of_service, of_endpoint, want) in [
        ("the endpoint's own first", vec![port(80, 8080)], vec![port(80, 9090)], Ok(9090)),
        ("else the service's", vec![port(80, 8080)], none.clone(), Ok(8080)),
        ("the service asks the endpoint (trap 31)", vec![port(80, 0)], vec![port(80, 9090)], Ok(9090)),
        ("the endpoint asks the service", vec![port(80, 8080)], vec![port(80, 0)], Ok(8080)),
        ("neither knows (trap 31)", vec![port(80, 0)], none.clone(), Err(NoEndpoint::Healthy)),
        ("both ask the other", vec![port(80, 0)], vec![port(80, 0)], Err(NoEndpoint::Healthy)),
        ("the service does not have the port", vec![port(81, 8081)], vec![port(80, 8080)], Err(NoEndpoint::Port(80))),
        ("a service without ports", none.clone(), vec![port(80, 8080)], Err(NoEndpoint::Port(80))),
        ("the right one of several", vec![port(81, 1), port(80, 2)], vec![port(81, 3)], Ok(2)),
    ] {
        let service = Service { ports: of_service, ..service() };
        let endpoint = Workload { services: [(service.key(), of_endpoint)].into(), ..endpoint("w") };
        let chosen = choose(&service, &[Arc::new(endpoint)], &client(), 80, 0);
        assert_eq!(chosen.map(|e| e.port), want, "{name}");
    }
}

#[test]
fn a_waypoint_behind_an_application_tunnel_needs_no_service_port() {
    let tunnel = |port| Some(ApplicationTunnel { proxy_protocol: true, port });
    for (name, of_service, tunnel, want) in [
        ("on the service", vec![port(15008, 15008)], None, Ok(15008)),
        ("on the service, elsewhere", vec![port(15008, 15088)], tunnel(15088), Ok(15088)),
        ("only in the tunnel", vec![], tunnel(15088), Ok(15008)),
        ("a tunnel that names no port", vec![], tunnel(0), Err(NoEndpoint::Healthy)),
        ("nowhere", vec![], None, Err(NoEndpoint::Healthy)),
    ] {
        let service = Service { ports: of_service, ..service() };
        let endpoint = Arc::new(Workload { application_tunnel: tunnel, ..endpoint("w") });
        let chosen = choose_waypoint(&service, &[endpoint], &client(), 15008, 0.into());
        assert_eq!(chosen.map(|e| e.port), want, "{name}");
    }
}

/// A waypoint's pod that carries little gets the next connection, whatever the number says; chance decides between equals, and
/// nearness and health come first.
#[test]
fn of_waypoints_one_that_carries_least_is_chosen() {
    let weighing = |name: &str, capacity| Workload { capacity, ..endpoint(name) };
    for (name, endpoints, busy, want) in [
        ("nobody carries anything", vec![("a", 1), ("b", 1)], &[][..], &["a", "b"][..]),
        ("one has just come", vec![("a", 1), ("b", 1), ("c", 1)], &[("a", 64), ("b", 1)], &["c"]),
        ("two have just come", vec![("a", 1), ("b", 1), ("c", 1)], &[("a", 64)], &["b", "c"]),
        ("of twice the weight", vec![("a", 1), ("b", 2)], &[("a", 3), ("b", 5)], &["b"]),
        ("of twice the weight, with twice as much", vec![("a", 1), ("b", 2)], &[("a", 3), ("b", 6)], &["a", "b"]),
        ("as much as can be", vec![("a", 1), ("b", u32::MAX)], &[("a", u32::MAX), ("b", u32::MAX)], &["b"]),
    ] {
        let endpoints: Vec<_> = endpoints.into_iter().map(|(name, weight)| Arc::new(weighing(name, weight))).collect();
        let service = Service { ports: vec![port(15008, 15008)], ..service() };
        let carries = |w: &Workload| busy.iter().find(|(name, _)| *w.uid == **name).map_or(0, |(_, busy)| *busy);
        let mut chosen = BTreeSet::new();
        for random in 0..6 {
            let by = Choice { random, busy: &carries };
            chosen
                .insert(choose_waypoint(&service, &endpoints, &client(), 15008, by).unwrap().workload.uid.to_string());
        }
        assert_eq!(chosen.iter().collect::<Vec<_>>(), want, "{name}");
    }
}

/// Endpoints that share with the client what their name says: its first letters of region, zone, subzone, node, network.
fn placed(name: &str) -> Workload {
    let here = |letter: char, own: &str| -> Arc<str> { if name.contains(letter) { own.into() } else { "else".into() } };
    Workload {
        locality: Locality { region: here('r', "r1"), zone: here('z', "z1"), subzone: here('s', "s1") },
        node: here('n', "n1"),
        cluster: here('c', "Kubernetes"),
        network: here('w', ""),
        ..endpoint(name)
    }
}

#[test]
fn preferences() {
    use BalanceMode::{Any, Failover, Passthrough, Strict};
    use Scope::*;
    for (name, mode, preference, endpoints, chosen) in [
        ("any: all alike", Any, vec![Zone], vec!["r", "rz", ""], vec!["r", "rz", ""]),
        ("passthrough: all alike", Passthrough, vec![Zone], vec!["r", "rz"], vec!["r", "rz"]),
        ("strict: every preference", Strict, vec![Region, Zone], vec!["r", "rz", "z", "rzn"], vec!["rz", "rzn"]),
        ("strict: nobody near enough", Strict, vec![Node], vec!["r", "rz"], vec![]),
        ("strict without preference: all", Strict, vec![], vec!["r", "z"], vec!["r", "z"]),
        ("strict: cluster and network", Strict, vec![Cluster, Network], vec!["c", "w", "cw"], vec!["cw"]),
        ("failover: most in order", Failover, vec![Region, Zone], vec!["", "r", "rz"], vec!["rz"]),
        ("failover: next best", Failover, vec![Region, Zone], vec!["", "r"], vec!["r"]),
        ("failover: last resort", Failover, vec![Region, Zone], vec!["", "z"], vec!["", "z"]),
        ("failover: stops at the first mismatch", Failover, vec![Region, Zone, Node], vec!["rn", "r"], vec!["rn", "r"]),
        ("failover: subzone", Failover, vec![Region, Zone, Subzone], vec!["rz", "rzs"], vec!["rzs"]),
        ("failover without preference: all", Failover, vec![], vec!["r", ""], vec!["r", ""]),
        (
            "network first: own beats all remote (trap 32)",
            Failover,
            vec![Network, Region, Zone],
            vec!["rz", "w"],
            vec!["w"],
        ),
        ("network first: no gate (trap 32)", Failover, vec![Network, Region, Zone], vec!["rz", "r", ""], vec!["rz"]),
        ("network first: ranked within", Failover, vec![Network, Region], vec!["w", "wr", "r"], vec!["wr"]),
        ("network first and alone", Failover, vec![Network], vec!["w", ""], vec!["w"]),
        ("network elsewhere gates (trap 32)", Failover, vec![Region, Network, Zone], vec!["rz", "r", "rw"], vec!["rw"]),
        (
            "network elsewhere gates what follows (trap 32)",
            Failover,
            vec![Region, Network, Zone],
            vec!["rz", "r"],
            vec!["rz", "r"],
        ),
    ] {
        let mut service = service();
        service.load_balancing = LoadBalancing { preference, mode, allow_unhealthy: false };
        let endpoints: Vec<_> = endpoints.into_iter().map(placed).collect();
        let counts = spread(&service, &endpoints, 120);
        let taken: Vec<_> = endpoints.iter().zip(&counts).filter(|(_, n)| **n > 0).map(|(w, _)| &*w.uid).collect();
        assert_eq!(taken, chosen, "{name}");
    }
}

#[test]
fn a_better_rank_that_cannot_be_used_does_not_count() {
    let mut service = service();
    service.load_balancing =
        LoadBalancing { preference: vec![Scope::Zone], mode: BalanceMode::Failover, allow_unhealthy: false };
    for (name, best) in [
        ("unhealthy", Workload { healthy: false, ..placed("rz") }),
        ("capacity 0", Workload { capacity: 0, ..placed("rz") }),
        ("no address", Workload { addresses: Vec::new(), ..placed("rzw") }),
    ] {
        assert_eq!(spread(&service, &[best, placed("r")], 10), [0, 10], "{name}");
    }
}

#[test]
fn addresses_of_an_endpoint() {
    use IpFamilies::*;
    let (four, six) = (["10.0.0.1", "10.0.0.2"], ["fd00::1", "fd00::2"]);
    let dual = [four[0], six[0], four[1], six[1]];
    for (name, own, families, dialled, want) in [
        ("the very address that was dialled", &dual[..], Automatic, "10.0.0.2:80", Some("10.0.0.2")),
        ("the very address, whatever the family", &dual[..], Ipv6, "10.0.0.2:80", Some("10.0.0.2")),
        ("the client's family: IPv4", &dual[..], Automatic, "10.96.0.1:80", Some("10.0.0.1")),
        ("the client's family: IPv6", &dual[..], Automatic, "[fd00:96::1]:80", Some("fd00::1")),
        ("dual is both", &dual[..], Dual, "[fd00:96::1]:80", Some("fd00::1")),
        ("the service's family before the client's", &dual[..], Ipv6, "10.96.0.1:80", Some("fd00::1")),
        ("the service's family before the client's", &dual[..], Ipv4, "[fd00:96::1]:80", Some("10.0.0.1")),
        ("another family rather than none", &six[..], Automatic, "10.96.0.1:80", Some("fd00::1")),
        ("not one the service rules out", &six[..], Ipv4, "10.96.0.1:80", None),
        ("no addresses", &[][..], Automatic, "10.96.0.1:80", None),
    ] {
        let addresses = own.iter().map(|ip| ip.parse().unwrap()).collect();
        let workload = Workload { addresses, ..endpoint("w") };
        let want = want.map(|ip| ip.parse().unwrap());
        assert_eq!(address(&workload, families, dialled.parse().unwrap()), want, "{name}");
    }
}

fn sticky_service() -> Service {
    let extension = crate::service::ServiceExtension { client_ip_affinity: true, ..Default::default() };
    Service { extension: Some(extension.into()), ..service() }
}

fn caller(ip: &str) -> Workload {
    Workload { addresses: vec![ip.parse().unwrap()], ..client() }
}

/// The endpoint of each of `clients` clients, by name.
fn kept(endpoints: &[Arc<Workload>], clients: u32, random: u64) -> Vec<Arc<str>> {
    let of = |i: u32| caller(&std::net::Ipv4Addr::from(0x0af4_0000 + i).to_string());
    (0..clients)
        .map(|i| choose(&sticky_service(), endpoints, &of(i), 80, random).unwrap().workload.uid.clone())
        .collect()
}

#[test]
fn a_client_keeps_its_endpoint_while_it_lives() {
    let mut endpoints: Vec<_> = (0..5).map(|i| Arc::new(endpoint(&format!("Kubernetes//Pod/shop/w{i}")))).collect();
    let before = kept(&endpoints, 1000, 7);
    assert_eq!(kept(&endpoints, 1000, 8), before, "whatever the number");
    endpoints.reverse();
    assert_eq!(kept(&endpoints, 1000, 7), before, "whatever the order: nodes have each their own");
    let count = |all: &[Arc<str>], uid: &str| all.iter().filter(|u| ***u == *uid).count();
    for workload in &endpoints {
        let share = count(&before, &workload.uid);
        assert!((150..=250).contains(&share), "{share} of 1000 at one of five");
    }
    // One that goes, or is not healthy: only its own clients move, and not all to one.
    let gone = endpoints.remove(2);
    let after = kept(&endpoints, 1000, 7);
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || *before == gone.uid, "{before} became {after}");
    }
    endpoints.push(Arc::new(Workload { healthy: false, ..Workload::clone(&gone) }));
    assert_eq!(kept(&endpoints, 1000, 7), after);
}

#[test]
fn a_kept_endpoint_is_of_the_best_rank_and_by_weight() {
    let near = |name: &str| Workload { locality: client().locality, ..endpoint(name) };
    let mut service = sticky_service();
    service.load_balancing =
        LoadBalancing { preference: vec![Scope::Zone], mode: BalanceMode::Failover, allow_unhealthy: false };
    let endpoints: Vec<_> = [near("near"), endpoint("far")].into_iter().map(Arc::new).collect();
    for i in 0..50 {
        let chosen = choose(&service, &endpoints, &caller(&format!("10.244.1.{i}")), 80, 0).unwrap();
        assert_eq!(&*chosen.workload.uid, "near");
    }
    let weighted = [
        Workload { capacity: 3, ..endpoint("heavy") },
        endpoint("light"),
        Workload { capacity: 0, ..endpoint("none") },
    ];
    let weighted: Vec<_> = weighted.into_iter().map(Arc::new).collect();
    let heavy = kept(&weighted, 4000, 0).iter().filter(|uid| &***uid == "heavy").count();
    assert!((2850..=3150).contains(&heavy), "{heavy} of 4000 at three quarters of the weight");
    let nobody = choose(&sticky_service(), &[], &caller("10.244.1.1"), 80, 0);
    assert_eq!(nobody, Err(NoEndpoint::Healthy));
}
