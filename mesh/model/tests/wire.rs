//! The messages on the wire: bytes worked out by hand from the field numbers of the Istio ambient contract (6.1, 7.8),
//! round trips, and what is refused.

mod samples;

use mesh_model::address::{GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress};
use mesh_model::policy::http::HttpMatch;
use mesh_model::policy::{Action, Clause, InvalidPolicy, Match, Policy, Rule, Scope, StringMatch};
use mesh_model::rate_limit::InvalidRateLimit;
use mesh_model::resource::{InvalidResource, Kind, Resource};
use mesh_model::route::{
    Backend, BackendTarget, Filter, InvalidRoutes, InvalidRule, PathMatch, PortProtocol, Protocol, Redirect,
    RequestMatch, Retry, RouteKind, Rule as RouteRule, ServiceRoutes, StreamBackend, StreamKind, StreamRule,
};
use mesh_model::service::{
    BalanceMode, InvalidService, IpFamilies, LoadBalancing, Scope as LocalityScope, Service, Vip,
};
use mesh_model::traffic::InvalidTraffic;
use mesh_model::workload::{
    AppProtocol, ApplicationTunnel, InvalidWorkload, Locality, PortMapping, Tunnel, Workload, WorkloadType,
};
use mesh_proto::{Any, ambit as pa, policy as pp, workload as pw};
use prost::Message;
use prost::bytes::Bytes;

/// Bytes from hexadecimal, each piece beside what it says.
fn hex(pieces: &[(&str, &str)]) -> Vec<u8> {
    let digits = pieces.iter().flat_map(|(hex, _)| hex.chars()).filter(|c| *c != ' ');
    let digits: Vec<_> = digits.map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// A length-delimited field: its tag byte, the length as a varint, the body.
fn field(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    prost::encode_length_delimiter(body.len(), &mut bytes).unwrap();
    bytes.extend_from_slice(body);
    bytes
}

fn bytes_mean(kind: Kind, bytes: Vec<u8>, resource: Resource) {
    assert_eq!(Resource::decode(kind, bytes.clone().into()), Ok(resource.clone()), "read");
    assert_eq!(resource.encode(), Bytes::from(bytes), "written");
}

fn gateway(destination: GatewayDestination) -> GatewayAddress {
    GatewayAddress { destination, hbone_mtls_port: 15008 }
}

fn waypoint_by_name() -> GatewayAddress {
    gateway(GatewayDestination::Hostname(NamespacedName::new("b", "w")))
}

fn at(network: &str, ip: &str) -> NetworkAddress {
    NetworkAddress { network: network.into(), ip: ip.parse().unwrap() }
}

#[test]
fn a_workload_in_bytes() {
    let body = hex(&[
        ("0a0161", "1 name a"),
        ("120162", "2 namespace b"),
        ("1a04 0a000001", "3 addresses 10.0.0.1"),
        ("22016e", "4 network n"),
        ("2801", "5 tunnel_protocol HBONE"),
        ("3a0173", "7 service_account s"),
        ("420b 0a06 0a0162 120177 18a075", "8 waypoint b/w, port 15008"),
        ("4a016b", "9 node k"),
        ("6002", "12 workload_type POD"),
        ("8201 03 622f70", "16 authorization_policies b/p"),
        ("8801 01", "17 status UNHEALTHY"),
        ("9201 01 63", "18 cluster_id c"),
        ("a201 01 75", "20 uid u"),
        ("b201 10 0a03 622f68 1209 0a07 0850 10903f 1804", "22 services b/h: 80 to 8080, TCP"),
        ("ba01 05 0801 10f075", "23 application_tunnel PROXY, port 15088"),
        ("c201 03 0a0172", "24 locality, region r"),
        ("c801 01", "25 network_mode HOST_NETWORK"),
        ("da01 00", "27 capacity: there, and 0 (trap 33)"),
    ]);
    let port = PortMapping { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Tcp };
    let workload = Workload {
        name: "a".into(),
        namespace: "b".into(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        network: "n".into(),
        tunnel: Tunnel::Hbone,
        service_account: "s".into(),
        waypoint: Some(waypoint_by_name().into()),
        node: "k".into(),
        workload_type: WorkloadType::Pod,
        authorization_policies: vec![NamespacedName::new("b", "p")],
        healthy: false,
        cluster: "c".into(),
        services: [(NamespacedName::new("b", "h"), vec![port])].into(),
        application_tunnel: Some(ApplicationTunnel { proxy_protocol: true, port: 15088 }),
        locality: Locality { region: "r".into(), ..Locality::default() },
        host_network: true,
        capacity: 0,
        ..Workload::empty("u")
    };
    bytes_mean(Kind::Address, field(0x0a, &body), Resource::Workload(workload.into()));
}

#[test]
fn a_service_in_bytes() {
    let body = hex(&[
        ("0a0168", "1 name h"),
        ("120162", "2 namespace b"),
        ("1a03 682e78", "3 hostname h.x"),
        ("2209 0a016e 1204 0a600001", "4 addresses n 10.96.0.1"),
        ("2208 1204 0a610000 1810", "4 addresses 10.97.0.0/16"),
        ("2a05 0850 10903f", "5 ports 80 to 8080"),
        ("320173", "6 subject_alt_names s"),
        ("3a0b 1206 1204 0a000032 18a075", "7 waypoint 10.0.0.50, port 15008"),
        ("4208 0a02 0601 1002 1801", "8 load_balancing NETWORK, REGION; FAILOVER; ALLOW_ALL"),
        ("4803", "9 ip_families DUAL"),
        ("5801", "11 canonical"),
        ("6001", "12 ingress_use_waypoint"),
        ("6a0f 0a0b 0a06 0a0162 120177 18a075 105a", "13 weighted_waypoints b/w, port 15008, weight 90"),
        ("7001", "14 visibility NAMESPACE"),
    ]);
    let service = Service {
        name: "h".into(),
        vips: vec![
            Vip { address: at("n", "10.96.0.1"), prefix: None },
            Vip { address: at("", "10.97.0.0"), prefix: Some(16) },
        ],
        ports: vec![PortMapping { service_port: 80, target_port: 8080, app_protocol: AppProtocol::Unknown }],
        subject_alt_names: vec!["s".into()],
        waypoint: Some(gateway(GatewayDestination::Address(at("", "10.0.0.50"))).into()),
        weighted_waypoints: vec![(waypoint_by_name().into(), 90)],
        load_balancing: LoadBalancing {
            preference: vec![LocalityScope::Network, LocalityScope::Region],
            mode: BalanceMode::Failover,
            allow_unhealthy: true,
        },
        ip_families: IpFamilies::Dual,
        canonical: true,
        ingress_use_waypoint: true,
        private: true,
        ..Service::empty("b", "h.x")
    };
    bytes_mean(Kind::Address, field(0x12, &body), Resource::Service(service.into()));
}

#[test]
fn a_policy_in_bytes() {
    let one = hex(&[
        ("0a03 0a0178", "1 namespaces, exact x"),
        ("1203 120179", "2 not_namespaces, prefix y"),
        ("1a03 1a017a", "3 principals, suffix z"),
        ("2202 2200", "4 not_principals, presence"),
        ("2a08 0a04 0a000000 1008", "5 source_ips 10.0.0.0/8"),
        ("3214 0a10 fd000000 00000000 00000000 00000000 1040", "6 not_source_ips fd00::/64"),
        ("3a08 0a04 0a000002 1020", "7 destination_ips 10.0.0.2/32"),
        ("4208 0a04 0a000003 1020", "8 not_destination_ips 10.0.0.3/32"),
        ("4a02 903f", "9 destination_ports 8080"),
        ("5202 8247", "10 not_destination_ports 9090"),
        ("5a06 0a0162 120173", "11 service_accounts b/s"),
        ("6206 0a0162 120174", "12 not_service_accounts b/t"),
    ]);
    let mut bytes = hex(&[
        ("0a0170", "1 name p"),
        ("120162", "2 namespace b"),
        ("1802", "3 scope WORKLOAD_SELECTOR"),
        ("2001", "4 action DENY"),
    ]);
    // 5 rules, of 1 clauses, of 2 matches.
    bytes.extend(field(0x2a, &field(0x0a, &field(0x12, &one))));
    bytes.extend(hex(&[("3001", "6 dry_run")]));
    let nets = |net: &str| vec![net.parse().unwrap()];
    let one = Match {
        namespaces: vec![StringMatch::Exact("x".into())],
        not_namespaces: vec![StringMatch::Prefix("y".into())],
        principals: vec![StringMatch::Suffix("z".into())],
        not_principals: vec![StringMatch::Presence],
        source_ips: nets("10.0.0.0/8"),
        not_source_ips: nets("fd00::/64"),
        destination_ips: nets("10.0.0.2/32"),
        not_destination_ips: nets("10.0.0.3/32"),
        destination_ports: vec![8080],
        not_destination_ports: vec![9090],
        service_accounts: vec![NamespacedName::new("b", "s")],
        not_service_accounts: vec![NamespacedName::new("b", "t")],
        http: None,
        unsupported: false,
    };
    let policy = Policy {
        name: "p".into(),
        namespace: "b".into(),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { matches: vec![one] }] }],
        dry_run: true,
    };
    bytes_mean(Kind::Authorization, bytes, Resource::Policy(policy.into()));
}

#[test]
fn every_field_survives_the_round_trip() {
    let bare = [
        Resource::Workload(Workload::empty("u").into()),
        Resource::Service(Service::empty("b", "h").into()),
        Resource::Policy(
            Policy {
                rules: Vec::new(),
                dry_run: false,
                scope: Scope::Global,
                action: Action::Allow,
                ..samples::policy()
            }
            .into(),
        ),
        Resource::Routes(
            ServiceRoutes {
                service: NamespacedName::new("b", "h"),
                ports: Vec::new(),
                rules: Vec::new(),
                policies: Vec::new(),
                traffic: Vec::new(),
                tokens: [].into(),
                tracing: None,
                access_logging: None,
                subsets: Vec::new(),
                streams: Vec::new(),
                rate_limits: [].into(),
            }
            .into(),
        ),
    ];
    for resource in samples::all().into_iter().chain(bare) {
        assert_eq!(Resource::decode(resource.kind(), resource.encode()), Ok(resource.clone()), "{}", resource.name());
    }
}

#[test]
fn what_is_left_out_has_its_default() {
    let bytes = hex(&[("0a04 a201 01 75", "a workload with nothing but uid u")]);
    bytes_mean(Kind::Address, bytes, Resource::Workload(Workload::empty("u").into()));
    let w = Workload::empty("u");
    let filled = (&*w.trust_domain, &*w.service_account, &*w.cluster, w.capacity, w.healthy);
    assert_eq!(filled, ("cluster.local", "default", "Kubernetes", 1, true), "traps 30 and 33");
    // The defaults spelled out mean the same (trap 30).
    let spelled = pw::Workload {
        uid: "u".into(),
        trust_domain: "cluster.local".into(),
        service_account: "default".into(),
        cluster_id: "Kubernetes".into(),
        capacity: Some(1),
        ..Default::default()
    };
    assert_eq!(Workload::try_from(spelled), Ok(w));
}

#[test]
fn names_and_addresses_are_brought_to_normal_form() {
    let mapped = |bytes: [u8; 4]| [&[0; 10][..], &[0xff, 0xff], &bytes].concat();
    let w = pw::Workload {
        uid: "u".into(),
        addresses: vec![mapped([10, 0, 0, 1]).into()],
        services: [("b/API.Example".into(), pw::PortList::default())].into(),
        ..Default::default()
    };
    let w = Workload::try_from(w).unwrap();
    assert_eq!(w.addresses, ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert!(w.services.contains_key(&NamespacedName::new("b", "api.example")));

    let address =
        |address: Vec<u8>, length| pw::NetworkAddress { address: address.into(), length, ..Default::default() };
    let s = pw::Service {
        namespace: "b".into(),
        hostname: "API.Example".into(),
        addresses: vec![
            address(mapped([10, 97, 0, 0]), Some(112)),
            address(vec![10, 96, 0, 1], Some(32)),
            address(mapped([10, 96, 0, 2]), Some(128)),
        ],
        ..Default::default()
    };
    let s = Service::try_from(s).unwrap();
    assert_eq!(&*s.hostname, "api.example");
    assert_eq!(
        s.vips,
        [
            Vip { address: at("", "10.97.0.0"), prefix: Some(16) },
            Vip { address: at("", "10.96.0.1"), prefix: None },
            Vip { address: at("", "10.96.0.2"), prefix: None },
        ]
    );

    let net = pp::Address { address: mapped([10, 0, 0, 0]).into(), length: 104 };
    let policy = policy_of(pp::Match { source_ips: vec![net], ..Default::default() });
    assert_eq!(policy, Match { source_ips: vec!["10.0.0.0/8".parse().unwrap()], ..Match::default() });
}

fn policy_of(m: pp::Match) -> Match {
    let rules = vec![pp::Rule { clauses: vec![pp::Clause { matches: vec![m] }] }];
    let policy = pp::Authorization { name: "p".into(), namespace: "b".into(), rules, ..Default::default() };
    Policy::try_from(policy).unwrap().rules.remove(0).clauses.remove(0).matches.remove(0)
}

/// What cannot be read inside a match never widens it: a positive list is given up whole, a `not_` list keeps what
/// it can, and either way the match can no longer be evaluated.
#[test]
fn what_cannot_be_read_in_a_match_makes_it_unsupported() {
    let address = |bytes: &[u8], length| pp::Address { address: bytes.to_vec().into(), length };
    let good = address(&[10, 0, 0, 0], 8);
    let text = pp::StringMatch { match_type: Some(pp::string_match::MatchType::Exact("x".into())) };
    let unsupported = || Match { unsupported: true, ..Match::default() };
    for (name, m, want) in [
        ("an extension", pp::Match { extensions: vec![pw::Extension::default()], ..Default::default() }, unsupported()),
        (
            "a kind of text match",
            pp::Match { principals: vec![text.clone(), pp::StringMatch::default()], ..Default::default() },
            unsupported(),
        ),
        (
            "an address of 5 bytes",
            pp::Match { source_ips: vec![good.clone(), address(&[0; 5], 8)], ..Default::default() },
            unsupported(),
        ),
        (
            "a prefix of 33",
            pp::Match { destination_ips: vec![address(&[10, 0, 0, 0], 33)], ..Default::default() },
            unsupported(),
        ),
        (
            "a prefix of 256 and more",
            pp::Match { destination_ips: vec![address(&[10, 0, 0, 0], 264)], ..Default::default() },
            unsupported(),
        ),
        ("a port above 65535", pp::Match { destination_ports: vec![80, 65616], ..Default::default() }, unsupported()),
        (
            "an address in a not_ list",
            pp::Match { not_source_ips: vec![good, address(&[], 0)], ..Default::default() },
            Match { not_source_ips: vec!["10.0.0.0/8".parse().unwrap()], ..unsupported() },
        ),
        (
            "a port in a not_ list",
            pp::Match { not_destination_ports: vec![80, 65616], ..Default::default() },
            Match { not_destination_ports: vec![80], ..unsupported() },
        ),
    ] {
        assert_eq!(policy_of(m), want, "{name}");
    }
}

/// Trap 29: what is not known is refused, and only the resource that holds it.
#[test]
fn refused_workloads() {
    use InvalidWorkload::*;
    let gateway = |port| pw::GatewayAddress { hbone_mtls_port: port, ..waypoint_to_wire() };
    let ports = |port: pw::Port| [("b/h".to_string(), pw::PortList { ports: vec![port] })].into();
    let tunnel = |protocol, port| Some(pw::ApplicationTunnel { protocol, port });
    let base = || pw::Workload { uid: "u".into(), ..Default::default() };
    let unknown = |field, value| Enum { field, value };
    let bad_key = |field, key: &str| Key { field, key: key.into() };
    for (name, workload, why) in [
        ("no uid", pw::Workload::default(), NoUid),
        ("legacy mutual TLS", pw::Workload { tunnel_protocol: 2, ..base() }, unknown("tunnel_protocol", 2)),
        ("unknown tunnel", pw::Workload { tunnel_protocol: 3, ..base() }, unknown("tunnel_protocol", 3)),
        ("negative tunnel", pw::Workload { tunnel_protocol: -1, ..base() }, unknown("tunnel_protocol", -1)),
        ("unknown type", pw::Workload { workload_type: 4, ..base() }, unknown("workload_type", 4)),
        ("unknown status", pw::Workload { status: 2, ..base() }, unknown("status", 2)),
        ("unknown network mode", pw::Workload { network_mode: 2, ..base() }, unknown("network_mode", 2)),
        (
            "unknown tunnel protocol",
            pw::Workload { application_tunnel: tunnel(2, 1), ..base() },
            unknown("application_tunnel.protocol", 2),
        ),
        (
            "unknown application protocol",
            pw::Workload { services: ports(pw::Port { app_protocol: 6, ..Default::default() }), ..base() },
            unknown("app_protocol", 6),
        ),
        ("address of no bytes", pw::Workload { addresses: vec![Bytes::new()], ..base() }, Address(0)),
        ("address of 5 bytes", pw::Workload { addresses: vec![vec![0; 5].into()], ..base() }, Address(5)),
        (
            "service port",
            pw::Workload { services: ports(pw::Port { service_port: 65536, ..Default::default() }), ..base() },
            Port(65536),
        ),
        (
            "target port",
            pw::Workload { services: ports(pw::Port { target_port: 65536, ..Default::default() }), ..base() },
            Port(65536),
        ),
        ("tunnel port", pw::Workload { application_tunnel: tunnel(0, 70000), ..base() }, Port(70000)),
        ("waypoint port", pw::Workload { waypoint: Some(gateway(65536)), ..base() }, Port(65536)),
        ("waypoint to nowhere", pw::Workload { waypoint: Some(Default::default()), ..base() }, Gateway("waypoint")),
        (
            "gateway to nowhere",
            pw::Workload { network_gateway: Some(Default::default()), ..base() },
            Gateway("network_gateway"),
        ),
        (
            "service key",
            pw::Workload { services: [("h".into(), Default::default())].into(), ..base() },
            bad_key("services", "h"),
        ),
        (
            "policy key",
            pw::Workload { authorization_policies: vec!["a/b/c".into()], ..base() },
            bad_key("authorization_policies", "a/b/c"),
        ),
    ] {
        assert_eq!(Workload::try_from(workload.clone()), Err(why.clone()), "{name}");
        let bytes = pw::Address { r#type: Some(pw::address::Type::Workload(workload)) }.encode_to_vec();
        assert_eq!(Resource::decode(Kind::Address, bytes.into()), Err(InvalidResource::Workload(why)), "{name}");
    }
}

fn waypoint_to_wire() -> pw::GatewayAddress {
    let name = pw::NamespacedHostname { namespace: "b".into(), hostname: "w".into() };
    pw::GatewayAddress { destination: Some(pw::gateway_address::Destination::Hostname(name)), hbone_mtls_port: 15008 }
}

#[test]
fn refused_services() {
    use InvalidService::*;
    let base = || pw::Service { namespace: "b".into(), hostname: "h".into(), ..Default::default() };
    let vip = |address: &[u8], length| pw::Service {
        addresses: vec![pw::NetworkAddress { address: address.to_vec().into(), length, ..Default::default() }],
        ..base()
    };
    let balanced = |lb| pw::Service { load_balancing: Some(lb), ..base() };
    let lb = pw::LoadBalancing::default;
    let unknown = |field, value| Part(InvalidWorkload::Enum { field, value });
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 0];
    for (name, service, why) in [
        ("no namespace", pw::Service { namespace: "".into(), ..base() }, Key),
        ("no hostname", pw::Service { hostname: "".into(), ..base() }, Key),
        ("a slash", pw::Service { namespace: "a/b".into(), ..base() }, Key),
        ("address of 3 bytes", vip(&[10, 0, 0], None), Part(InvalidWorkload::Address(3))),
        ("address of 3 bytes with a prefix", vip(&[10, 0, 0], Some(8)), Part(InvalidWorkload::Address(3))),
        ("prefix of 33", vip(&[10, 0, 0, 0], Some(33)), Prefix(33)),
        ("prefix of 129", vip(&[0; 16], Some(129)), Prefix(129)),
        ("prefix of 256 and more", vip(&[10, 0, 0, 0], Some(264)), Prefix(264)),
        ("mapped prefix that reaches beyond IPv4", vip(&mapped, Some(95)), Prefix(95)),
        (
            "weighted waypoint to nowhere",
            pw::Service { weighted_waypoints: vec![Default::default()], ..base() },
            WeightedWaypoint,
        ),
        ("unknown families", pw::Service { ip_families: 4, ..base() }, unknown("ip_families", 4)),
        (
            "unknown scope",
            balanced(pw::LoadBalancing { routing_preference: vec![7], ..lb() }),
            unknown("load_balancing.routing_preference", 7),
        ),
        ("unknown mode", balanced(pw::LoadBalancing { mode: 4, ..lb() }), unknown("load_balancing.mode", 4)),
        (
            "unknown health policy",
            balanced(pw::LoadBalancing { health_policy: 2, ..lb() }),
            unknown("load_balancing.health_policy", 2),
        ),
        (
            "unknown application protocol",
            pw::Service { ports: vec![pw::Port { app_protocol: 6, ..Default::default() }], ..base() },
            unknown("app_protocol", 6),
        ),
    ] {
        assert_eq!(Service::try_from(service), Err(why), "{name}");
    }
    let visible = pw::Service { visibility: 9, ..base() };
    assert!(!Service::try_from(visible).unwrap().private, "an unknown visibility alone falls back to public");
    let unspecified = balanced(pw::LoadBalancing { routing_preference: vec![0, 1], ..lb() });
    assert_eq!(Service::try_from(unspecified).unwrap().load_balancing.preference, [LocalityScope::Region]);
}

#[test]
fn refused_policies_and_strangers() {
    let base = || pp::Authorization { name: "p".into(), namespace: "b".into(), ..Default::default() };
    for (name, policy, why) in [
        ("no name", pp::Authorization { name: "".into(), ..base() }, InvalidPolicy::Key),
        ("no namespace", pp::Authorization { namespace: "".into(), ..base() }, InvalidPolicy::Key),
        ("a slash", pp::Authorization { name: "a/b".into(), ..base() }, InvalidPolicy::Key),
        ("unknown scope", pp::Authorization { scope: 3, ..base() }, InvalidPolicy::Scope(3)),
        ("unknown action", pp::Authorization { action: 2, ..base() }, InvalidPolicy::Action(2)),
    ] {
        assert_eq!(Policy::try_from(policy), Err(why), "{name}");
    }
    assert_eq!(Resource::decode(Kind::Address, Bytes::new()), Err(InvalidResource::Empty));
    for kind in Kind::ALL {
        let garbage = Resource::decode(kind, Bytes::from_static(&[0xff, 0xff]));
        assert!(matches!(garbage, Err(InvalidResource::Encoding(_))), "{garbage:?}");
        assert_eq!(Kind::from_type_url(kind.type_url()), Some(kind));
    }
    assert_eq!(Kind::from_type_url("type.googleapis.com/istio.workload.Workload"), None);
}

#[test]
fn names_and_aliases() {
    let [workload, service, policy, routes, ..] = samples::all();
    assert_eq!(
        (workload.name(), workload.aliases()),
        ("west//Pod/shop/cart-1".into(), vec![]),
        "on the node's network"
    );
    let Resource::Workload(w) = workload else { unreachable!() };
    let own = Resource::Workload(Workload { host_network: false, ..(*w).clone() }.into());
    assert_eq!(own.aliases(), ["net-1/10.0.0.1", "net-1/fd00::1"]);
    assert_eq!(service.name(), "shop/cart.shop.svc");
    assert_eq!(service.aliases(), ["net-1/10.96.0.1", "net-1/10.97.0.0/16", "net-1/fd00:97::/64"]);
    assert_eq!((policy.name(), policy.aliases()), ("shop/guard".into(), vec![]));
    assert_eq!((routes.name(), routes.aliases()), ("shop/cart.shop.svc".into(), vec![]));
}

/// A condition of ours on requests is read whole or not at all, and then the match cannot be evaluated.
#[test]
fn conditions_on_requests_in_a_policy() {
    let ours = |type_url: &str, value: Vec<u8>| pw::Extension {
        name: "ambit.dev/http".into(),
        config: Some(Any { type_url: type_url.into(), value }),
    };
    const TYPE: &str = "type.googleapis.com/ambit.v1.HttpMatch";
    let said = |http: pa::HttpMatch| ours(TYPE, http.encode_to_vec());
    let text = |text: &str| pp::StringMatch { match_type: Some(pp::string_match::MatchType::Exact(text.into())) };
    let none = pp::StringMatch::default;
    let get = || pa::HttpMatch { methods: vec![text("GET")], ..Default::default() };
    let read = || HttpMatch { methods: vec![StringMatch::Exact("GET".into())], ..HttpMatch::default() };
    let header = |name: &str, values: Vec<pp::StringMatch>| {
        let header = pa::HeaderCondition { name: name.into(), values, not_values: Vec::new() };
        said(pa::HttpMatch { headers: vec![header], ..get() })
    };
    for (name, extensions, http, unsupported) in [
        ("ours", vec![said(get())], Some(read()), false),
        ("ours and another", vec![pw::Extension::default(), said(get())], Some(read()), true),
        ("ours twice", vec![said(get()), said(get())], None, true),
        ("without content", vec![pw::Extension { name: "ambit.dev/http".into(), config: None }], None, true),
        ("of another type", vec![ours("type.googleapis.com/other", get().encode_to_vec())], None, true),
        ("no message", vec![ours(TYPE, vec![0xff])], None, true),
        ("it says nothing", vec![said(pa::HttpMatch::default())], None, true),
        ("a host of no kind", vec![said(pa::HttpMatch { hosts: vec![none()], ..get() })], None, true),
        (
            "a method of no kind",
            vec![said(pa::HttpMatch { not_methods: vec![text("PUT"), none()], ..get() })],
            None,
            true,
        ),
        (
            "a path of no kind",
            vec![said(pa::HttpMatch { paths: vec![pa::PathPattern::default()], ..get() })],
            None,
            true,
        ),
        ("a header without a name", vec![header("", vec![text("x")])], None, true),
        ("a header without values", vec![header("x", Vec::new())], None, true),
        ("a header's value of no kind", vec![header("x", vec![text("x"), none()])], None, true),
    ] {
        let m = policy_of(pp::Match { extensions, ..Default::default() });
        assert_eq!(m, Match { http: http.map(Into::into), unsupported, ..Match::default() }, "{name}");
    }
    let upper = policy_of(pp::Match { extensions: vec![header("X-A", vec![text("V")])], ..Default::default() });
    assert_eq!(&*upper.http.unwrap().headers[0].name, "x-a");
}

#[test]
fn refused_routes() {
    use InvalidRule::*;
    let base = || pa::ServiceRoutes { namespace: "b".into(), hostname: "h".into(), ..Default::default() };
    for (name, routes, why) in [
        ("no namespace", pa::ServiceRoutes { namespace: "".into(), ..base() }, InvalidRoutes::Key),
        ("a slash", pa::ServiceRoutes { hostname: "h/i".into(), ..base() }, InvalidRoutes::Key),
        (
            "port 0",
            pa::ServiceRoutes { ports: vec![pa::PortProtocol { port: 0, protocol: 1 }], ..base() },
            InvalidRoutes::Port(0),
        ),
        (
            "an unknown protocol",
            pa::ServiceRoutes { ports: vec![pa::PortProtocol { port: 80, protocol: 7 }], ..base() },
            InvalidRoutes::Protocol(7),
        ),
        (
            "a policy without namespace",
            pa::ServiceRoutes { policies: vec!["b/p".into(), "p".into()], ..base() },
            InvalidRoutes::Policy("p".into()),
        ),
    ] {
        assert_eq!(ServiceRoutes::try_from(routes), Err(why), "{name}");
    }
    use InvalidTraffic as T;
    let traffic = || pa::TrafficPolicy { rule: "b/d".into(), ..Default::default() };
    let hash = |ring, maglev| {
        let hash = pa::ConsistentHash { by: Some(pa::consistent_hash::By::SourceIp(true)), ring, maglev };
        pa::TrafficPolicy { balancing: 3, hash: Some(hash), ..traffic() }
    };
    let limits = |limits| pa::TrafficPolicy { limits: Some(limits), ..traffic() };
    let outliers = |outliers| pa::TrafficPolicy { outliers: Some(outliers), ..traffic() };
    let (second, none) = (Some(mesh_proto::Duration { seconds: 1, nanos: 0 }), mesh_proto::Duration::default());
    let ewma = |decay, default_latency| {
        let ewma = pa::PeakEwma { policy: "b/t".into(), decay, default_latency };
        pa::TrafficPolicy { balancing: 4, peak_ewma: Some(ewma), ..Default::default() }
    };
    let warmup = |duration, minimum, aggression| {
        let warmup = pa::Warmup { duration, minimum, aggression };
        pa::TrafficPolicy { warmup: Some(warmup), ..traffic() }
    };
    let times = pa::OutlierDetection { interval: second, base_ejection_time: second, ..Default::default() };
    for (name, traffic, why) in [
        ("a port", pa::TrafficPolicy { port: 65_536, ..traffic() }, T::Port(65_536)),
        ("no rule", pa::TrafficPolicy::default(), T::Rule),
        ("an unknown way", pa::TrafficPolicy { balancing: 9, ..traffic() }, T::Balancing(9)),
        ("no rule, and no policy", pa::TrafficPolicy { balancing: 4, ..Default::default() }, T::Policy),
        ("no decay", ewma(None, second), T::Duration("the decay")),
        ("nothing expected", ewma(second, Some(none)), T::Duration("the default latency")),
        ("no warmup", warmup(None, 0, 1000), T::Duration("the warmup")),
        ("a least", warmup(second, 10_001, 1000), T::Range("the minimum of a warmup", 10_001)),
        ("an aggression", warmup(second, 0, 999), T::Range("the aggression of a warmup", 999)),
        ("a hash of nothing", pa::TrafficPolicy { balancing: 3, ..traffic() }, T::HashOfNothing),
        ("a huge ring", hash(Some(u32::MAX), None), T::Range("the ring", u32::MAX)),
        ("a table that is no prime", hash(None, Some(65_536)), T::Range("Maglev's table", 65_536)),
        (
            "no requests",
            limits(pa::Limits { requests_per_connection: Some(0), ..Default::default() }),
            T::Range("requests per connection", 0),
        ),
        (
            "no time",
            limits(pa::Limits { connect_timeout: Some(none), ..Default::default() }),
            T::Duration("the connect timeout"),
        ),
        ("no interval", outliers(pa::OutlierDetection::default()), T::Duration("the interval")),
        (
            "a percentage",
            outliers(pa::OutlierDetection { max_ejection_percent: 101, ..times }),
            T::Range("max_ejection_percent", 101),
        ),
    ] {
        let routes = pa::ServiceRoutes { traffic: vec![traffic], ..base() };
        assert_eq!(ServiceRoutes::try_from(routes), Err(why.into()), "{name}");
    }

    let collector = |port| Some(pa::ServicePort { namespace: "a".into(), hostname: "b".into(), port });
    let tag = |name: &str, header: &str| {
        let header = pa::TagHeader { name: header.into(), default: None };
        vec![pa::SpanTag { name: name.into(), value: Some(pa::span_tag::Value::Header(header)) }]
    };
    for (name, tracing) in [
        ("a collector without a port", pa::Tracing { collector: collector(0), ..Default::default() }),
        ("more than everything", pa::Tracing { sampling: 10_001, ..Default::default() }),
        ("a tag without a name", pa::Tracing { tags: tag("", "x"), ..Default::default() }),
        ("a header that is none", pa::Tracing { tags: tag("a", "x y"), ..Default::default() }),
        ("a tag of nothing", pa::Tracing { tags: vec![pa::SpanTag::default()], ..Default::default() }),
    ] {
        let routes = pa::ServiceRoutes { tracing: Some(tracing), ..base() };
        assert_eq!(ServiceRoutes::try_from(routes), Err(InvalidRoutes::Tracing), "{name}");
    }
    for filters in [vec!["response.cod == 1".to_owned()], vec!["true".to_owned(); 17]] {
        let routes = pa::ServiceRoutes { access_logging: Some(pa::AccessLogging { filters }), ..base() };
        assert!(matches!(ServiceRoutes::try_from(routes), Err(InvalidRoutes::AccessLogging(_))));
    }

    let limit = |kind| pa::RateLimit {
        policy: "b/p".into(),
        target: Some(pa::rate_limit::Target::Service("b/h".into())),
        kind: Some(kind),
        ..Default::default()
    };
    let per = |seconds| Some(mesh_proto::Duration { seconds, nanos: 0 });
    let local = || pa::LocalRateLimit { requests: 1, per: per(1), burst: 1, key: None };
    let of_local = |local| limit(pa::rate_limit::Kind::Local(local));
    let global = || pa::GlobalRateLimit {
        service: collector(80),
        domain: "d".into(),
        timeout: per(1),
        descriptors: Vec::new(),
        ..Default::default()
    };
    let of_global = |global| limit(pa::rate_limit::Kind::Global(global));
    let header = pa::local_rate_limit::Key::Header("x y".into());
    let nothing = vec![pa::LimitDescriptor { entries: vec![Default::default()] }];
    use InvalidRateLimit as L;
    let of = |limit| ServiceRoutes::try_from(pa::ServiceRoutes { rate_limits: vec![limit], ..base() });
    assert!(of(of_local(local())).is_ok() && of(of_global(global())).is_ok());
    for (name, limit, why) in [
        ("a policy without namespace", pa::RateLimit { policy: "p".into(), ..of_local(local()) }, L::Name),
        ("no target", pa::RateLimit { target: None, ..of_local(local()) }, L::Unsupported("what it targets")),
        ("no limit", pa::RateLimit { kind: None, ..of_local(local()) }, L::Unsupported("the limit")),
        ("no request", of_local(pa::LocalRateLimit { requests: 0, ..local() }), L::Range("requests", 0)),
        ("no burst", of_local(pa::LocalRateLimit { burst: 0, ..local() }), L::Range("burst", 0)),
        (
            "too long",
            of_local(pa::LocalRateLimit { per: per(3_601), ..local() }),
            L::Duration("the time that requests are counted in"),
        ),
        ("a header", of_local(pa::LocalRateLimit { key: Some(header), ..local() }), L::Header("x y".into())),
        ("no port", of_global(pa::GlobalRateLimit { service: collector(0), ..global() }), L::Service),
        ("no domain", of_global(pa::GlobalRateLimit { domain: "".into(), ..global() }), L::Service),
        ("no timeout", of_global(pa::GlobalRateLimit { timeout: per(0), ..global() }), L::Duration("the timeout")),
        (
            "an entry of nothing",
            of_global(pa::GlobalRateLimit { descriptors: nothing, ..global() }),
            L::Unsupported("an entry of a descriptor"),
        ),
    ] {
        assert_eq!(of(limit), Err(why.into()), "{name}");
    }

    let good = || pa::RouteRule {
        kind: 1,
        route: "b/r".into(),
        name: "n".into(),
        matches: vec![pa::RequestMatch::default()],
        ..Default::default()
    };
    let of = |rule| ServiceRoutes::try_from(pa::ServiceRoutes { rules: vec![good(), rule], ..base() });
    let filter = |kind| pa::RouteRule { filters: vec![pa::RouteFilter { kind: Some(kind) }], ..good() };
    let backend = |target| pa::RouteRule { backends: vec![pa::Backend { target, ..Default::default() }], ..good() };
    let redirect = |redirect| filter(pa::route_filter::Kind::Redirect(redirect));
    let retry = |retry| pa::RouteRule { retry: Some(retry), ..good() };
    let past = || Some(mesh_proto::Duration { seconds: -1, nanos: 0 });
    let to = |hostname: &str, port| {
        let to = pa::ServicePort { namespace: "b".into(), hostname: hostname.into(), port };
        Some(pa::BackendTarget { kind: Some(pa::backend_target::Kind::Service(to)) })
    };
    assert!(of(good()).is_ok());
    assert!(of(backend(to("h", 80))).is_ok());
    for (name, rule, error) in [
        ("no kind", pa::RouteRule { kind: 0, ..good() }, Kind(0)),
        ("an unknown kind", pa::RouteRule { kind: 4, ..good() }, Kind(4)),
        ("no match", pa::RouteRule { matches: Vec::new(), ..good() }, NoMatch),
        ("a port too high", pa::RouteRule { port: 65_536, ..good() }, Range("port", 65_536)),
        (
            "a path of no kind",
            pa::RouteRule {
                matches: vec![pa::RequestMatch { path: Some(pa::PathMatch::default()), ..Default::default() }],
                ..good()
            },
            Unsupported("a path match"),
        ),
        ("a filter of no kind", pa::RouteRule { filters: vec![Default::default()], ..good() }, Unsupported("a filter")),
        ("a status", redirect(pa::Redirect { status: 200, ..Default::default() }), Range("a redirect's status", 200)),
        (
            "a redirect's port",
            redirect(pa::Redirect { status: 301, port: 70_000, ..Default::default() }),
            Range("a redirect's port", 70_000),
        ),
        (
            "a path modifier of no kind",
            filter(pa::route_filter::Kind::Rewrite(pa::Rewrite {
                path: Some(Default::default()),
                ..Default::default()
            })),
            Unsupported("a path modifier"),
        ),
        (
            "a mirror of more than there is",
            filter(pa::route_filter::Kind::Mirror(pa::Mirror { backend: to("h", 80), millionths: 1_000_001 })),
            Range("a mirror's share in millionths", 1_000_001),
        ),
        (
            "a mirror to nowhere",
            filter(pa::route_filter::Kind::Mirror(pa::Mirror::default())),
            Unsupported("a backend"),
        ),
        ("a backend that is none", backend(None), Unsupported("a backend")),
        ("a backend without a name", backend(to("", 80)), Unsupported("a backend")),
        ("a backend without a port", backend(to("h", 0)), Range("a backend's port", 0)),
        (
            "a time-out in the past",
            pa::RouteRule { request_timeout: past(), ..good() },
            Duration("the request's time-out"),
        ),
        (
            "a backoff in the past",
            retry(pa::Retry { backoff: past(), ..Default::default() }),
            Duration("a retry's backoff"),
        ),
        (
            "a retry's code",
            retry(pa::Retry { codes: vec![503, 200], ..Default::default() }),
            Range("a retry's code", 200),
        ),
    ] {
        let why = InvalidRoutes::Rule { route: "b/r".into(), rule: "n".into(), error };
        assert_eq!(of(rule), Err(why), "{name}");
    }
    let nameless = of(pa::RouteRule { route: "r".into(), ..good() });
    assert_eq!(nameless, Err(InvalidRoutes::Rule { route: "r".into(), rule: "n".into(), error: Route }));
    let nothing = pa::RouteRule { request_timeout: Some(mesh_proto::Duration::default()), ..good() };
    assert_eq!(of(nothing).unwrap().rules[1].request_timeout, None, "zero is no limit");
}

#[test]
fn routes_in_bytes() {
    let rule = hex(&[
        ("0801", "1 kind HTTP"),
        ("1203 622f72", "2 route b/r"),
        ("1a016e", "3 name n"),
        ("2050", "4 port 80"),
        ("2a0163", "5 callers c"),
        ("320b 0a05 1203 2f6178 1202 5055", "6 matches: 1 path, 2 prefix /ax; 2 method PU"),
        ("3a07 1a05 2001 28ad02", "7 filters: 3 redirect, 4 port 1, 5 status 301"),
        ("420e 0a0a 0a08 0a0162 120168 1850 1005", "8 backends: 1 target, 1 service b/h port 80; 2 weight 5"),
        ("4a02 0801", "9 request_timeout 1 s"),
        ("5a06 0a02f703 1003", "11 retry: 1 codes 503, 2 attempts 3"),
    ]);
    let mut bytes = hex(&[
        ("0a0162", "1 namespace b"),
        ("120168", "2 hostname h"),
        ("1a04 0850 1003", "3 ports: 1 port 80, 2 protocol GRPC"),
    ]);
    bytes.extend(field(0x22, &rule));
    bytes.extend(hex(&[("2a03 622f70", "5 policies b/p")]));
    let redirect = Redirect { scheme: None, hostname: None, path: None, port: Some(1), status: 301 };
    let backend =
        Backend { target: BackendTarget::Service(NamespacedName::new("b", "h"), 80), weight: 5, filters: Vec::new() };
    let rule = RouteRule {
        kind: RouteKind::Http,
        route: NamespacedName::new("b", "r"),
        name: "n".into(),
        port: Some(80),
        callers: Some("c".into()),
        matches: vec![RequestMatch {
            path: Some(PathMatch::Prefix("/ax".into())),
            method: Some("PU".into()),
            ..RequestMatch::default()
        }],
        filters: vec![Filter::Redirect(redirect)],
        backends: vec![backend],
        request_timeout: Some(std::time::Duration::from_secs(1)),
        backend_timeout: None,
        retry: Some(Retry { codes: vec![503], attempts: 3, ..Retry::default() }),
        fault: None,
    };
    let routes = ServiceRoutes {
        service: NamespacedName::new("b", "h"),
        ports: vec![PortProtocol { port: 80, protocol: Protocol::Grpc }],
        rules: vec![rule],
        policies: vec![NamespacedName::new("b", "p")],
        traffic: Vec::new(),
        tokens: [].into(),
        tracing: None,
        access_logging: None,
        subsets: Vec::new(),
        streams: Vec::new(),
        rate_limits: [].into(),
    };
    bytes_mean(Kind::Routes, bytes, Resource::Routes(routes.into()));
}

#[test]
fn rules_of_what_is_no_http_in_bytes() {
    let rule = hex(&[
        ("0802", "1 kind TLS"),
        ("1203 622f72", "2 route b/r"),
        ("1a016e", "3 name n"),
        ("2050", "4 port 80"),
        ("2a0163", "5 callers c"),
        ("3203 612e62", "6 hostnames a.b"),
        ("3a0e 0a0a 0a08 0a0162 120168 1850 1005", "7 backends: 1 target, 1 service b/h port 80; 2 weight 5"),
    ]);
    let mut bytes = hex(&[("0a0162", "1 namespace b"), ("120168", "2 hostname h"), ("f201", "30 streams")]);
    bytes.push(u8::try_from(rule.len()).unwrap());
    bytes.extend(rule);
    let target = BackendTarget::Service(NamespacedName::new("b", "h"), 80);
    let rule = StreamRule {
        kind: StreamKind::Tls,
        route: NamespacedName::new("b", "r"),
        name: "n".into(),
        port: Some(80),
        callers: Some("c".into()),
        hostnames: ["a.b".into()].into(),
        backends: vec![StreamBackend { target, weight: 5 }],
    };
    let routes = ServiceRoutes::nothing(NamespacedName::new("b", "h"));
    let routes = ServiceRoutes { streams: vec![rule.into()], ..routes };
    bytes_mean(Kind::Routes, bytes, Resource::Routes(routes.into()));
}

#[test]
fn rules_of_what_is_no_http_that_break_one_are_refused() {
    use InvalidRule::*;
    let base = || pa::ServiceRoutes { namespace: "b".into(), hostname: "h".into(), ..Default::default() };
    let tcp = || pa::StreamRule { kind: 1, route: "b/r".into(), name: "n".into(), ..Default::default() };
    let tls = || pa::StreamRule { kind: 2, hostnames: vec!["a.b".into()], ..tcp() };
    let of = |rule| ServiceRoutes::try_from(pa::ServiceRoutes { streams: vec![rule], ..base() });
    assert!(of(tcp()).is_ok() && of(tls()).is_ok());
    for (name, rule, error) in [
        ("no kind", pa::StreamRule { kind: 0, ..tcp() }, Kind(0)),
        ("an unknown kind", pa::StreamRule { kind: 3, ..tcp() }, Kind(3)),
        ("a TLSRoute for no name", pa::StreamRule { hostnames: Vec::new(), ..tls() }, Hostnames),
        ("a TCPRoute for a name", pa::StreamRule { hostnames: vec!["a.b".into()], ..tcp() }, Hostnames),
        ("a port too high", pa::StreamRule { port: 65_536, ..tcp() }, Range("port", 65_536)),
        (
            "a backend that is none",
            pa::StreamRule { backends: vec![Default::default()], ..tcp() },
            Unsupported("a backend"),
        ),
    ] {
        let why = InvalidRoutes::Rule { route: "b/r".into(), rule: "n".into(), error };
        assert_eq!(of(rule), Err(why), "{name}");
    }
}
