//! The dump against what `istioctl ztunnel-config` reads of it: one value of another type than it expects, anywhere, and it
//! shows nothing at all.

use mesh_identity::store::{Store, StoreOptions};
use mesh_model::address::{NamespacedName, NetworkAddress};
use mesh_model::identity::SpiffeId;
use mesh_model::policy::{Action, Clause, Facts, Match, Policy, Rule, Scope, StringMatch};
use mesh_model::resource::Resource;
use mesh_model::service;
use mesh_model::workload::{AppProtocol, ApplicationTunnel, Locality};
use mesh_testkit::ca::TestCa;

use super::*;

/// Its fields by path, with their types in Go; `*` is each element of a list or a map. A field with `?` may be missing or
/// null.
const READ: &str = "
    workloads/*/uid string
    workloads/*/workloadIps [string]
    workloads/*/waypoint/destination string
    workloads/*/networkGateway/destination string
    workloads/*/protocol string
    workloads/*/name string
    workloads/*/namespace string
    workloads/*/serviceAccount string
    workloads/*/workloadName string
    workloads/*/workloadType string
    workloads/*/canonicalName string
    workloads/*/canonicalRevision string
    workloads/*/clusterId string
    workloads/*/trustDomain string
    workloads/*/locality/region string
    workloads/*/locality/zone string
    workloads/*/locality/subzone string
    workloads/*/node string
    workloads/*/network string
    workloads/*/status string
    workloads/*/hostname string
    workloads/*/capacity number
    workloads/*/applicationTunnel/protocol string
    workloads/*/applicationTunnel/port number
    workloads/*/authorizationPolicies [string]
    services/*/name string
    services/*/namespace string
    services/*/hostname string
    services/*/vips [string]
    services/*/cidrVips/*/cidr string
    services/*/cidrVips/*/network string
    services/*/ports/* number
    services/*/loadBalancer/mode string
    services/*/loadBalancer/routingPreferences [string]
    services/*/loadBalancer/healthPolicy string
    services/*/waypoint/destination string
    services/*/endpoints/*/workloadUid string
    services/*/endpoints/*/service string
    services/*/endpoints/*/port/* number
    services/*/subjectAltNames [string]
    services/*/ipFamilies string
    services/*/canonical bool
    services/*/visibility string
    policies/*/name string
    policies/*/namespace string
    policies/*/scope string
    policies/*/action string
    policies/*/rules/*/*/*/namespaces/*/Exact string
    policies/*/rules/*/*/*/notNamespaces/*/Suffix string
    policies/*/rules/*/*/*/principals/*/Prefix string
    policies/*/rules/*/*/*/notPrincipals/*/Presence any
    policies/*/rules/*/*/*/sourceIps [string]
    policies/*/rules/*/*/*/notSourceIps [string]
    policies/*/rules/*/*/*/destinationIps [string]
    policies/*/rules/*/*/*/notDestinationIps [string]
    policies/*/rules/*/*/*/destinationPorts [number]
    policies/*/rules/*/*/*/notDestinationPorts [number]
    policies/*/rules/*/*/*/serviceAccounts/*/namespace string
    policies/*/rules/*/*/*/notServiceAccounts/*/serviceAccount string
    certificates/*/identity string
    certificates/*/state string
    certificates/*/certChain/*/pem string
    certificates/*/certChain/*/serialNumber string
    certificates/*/certChain/*/validFrom string
    certificates/*/certChain/*/expirationTime string
    certificates/*/rootCerts/*/pem string
    certificates/*/rootCerts/*/serialNumber string
    workloadState/*/state string
    workloadState/*/info/name string
    workloadState/*/info/namespace string
    workloadState/*/info/serviceAccount string
    workloadState/*/connections/inbound/*/src string
    workloadState/*/connections/inbound/*/originalDst string
    workloadState/*/connections/inbound/*/actualDst string
    workloadState/*/connections/inbound/*/protocol string
    workloadState/*/connections/outbound/*/src string
    workloadState/*/connections/outbound/*/originalDst string
    workloadState/*/connections/outbound/*/actualDst string
    workloadState/*/connections/outbound/*/protocol string
";

/// All values at a path.
fn at<'a>(value: &'a Value, path: &str) -> Vec<&'a Value> {
    let Some((step, rest)) = path.split_once('/').or((!path.is_empty()).then_some((path, ""))) else {
        return vec![value];
    };
    let next: Vec<&Value> = match (step, value) {
        ("*", Value::Array(list)) => list.iter().collect(),
        ("*", Value::Object(map)) => map.values().collect(),
        (name, Value::Object(map)) => map.get(name).into_iter().collect(),
        _ => Vec::new(),
    };
    next.into_iter().flat_map(|value| at(value, rest)).collect()
}

fn is(kind: &str, value: &Value) -> bool {
    match (kind, value) {
        ("any", _) | ("string", Value::String(_)) | ("number", Value::Number(_)) | ("bool", Value::Bool(_)) => true,
        (list, Value::Array(values)) => {
            let of = list.strip_prefix('[').and_then(|list| list.strip_suffix(']'));
            of.is_some_and(|of| values.iter().all(|value| is(of, value)))
        }
        _ => false,
    }
}

fn port(port: u16) -> Vec<PortMapping> {
    vec![PortMapping { service_port: 80, target_port: port, app_protocol: AppProtocol::Unknown }]
}

/// A mesh in which everything that can be set is.
fn everything() -> Vec<Resource> {
    let waypoint = GatewayAddress {
        destination: GatewayDestination::Hostname(NamespacedName::new("shop", "wp.shop.svc")),
        hbone_mtls_port: 15_008,
    };
    let address = |ip: &str| NetworkAddress { network: "west".into(), ip: ip.parse().unwrap() };
    let far =
        GatewayAddress { destination: GatewayDestination::Address(address("192.0.2.1")), hbone_mtls_port: 15_008 };
    let vip = |ip: &str, prefix| Vip { address: address(ip), prefix };
    let (exact, suffix) = (vec![StringMatch::Exact("a".into())], vec![StringMatch::Suffix("b".into())]);
    let (net, account) = (vec!["10.0.0.0/8".parse().unwrap()], vec![NamespacedName::new("shop", "cart")]);
    let everything = Match {
        namespaces: exact,
        not_namespaces: suffix,
        principals: vec![StringMatch::Prefix("td/".into())],
        not_principals: vec![StringMatch::Presence],
        source_ips: net.clone(),
        not_source_ips: net.clone(),
        destination_ips: net.clone(),
        not_destination_ips: net,
        destination_ports: vec![80],
        not_destination_ports: vec![81],
        service_accounts: account.clone(),
        not_service_accounts: account,
        http: None,
        unsupported: true,
    };
    vec![
        Resource::Workload(Arc::new(Workload {
            name: "cart-1".into(),
            namespace: "shop".into(),
            service_account: "cart".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            network: "west".into(),
            tunnel: Tunnel::Hbone,
            waypoint: Some(waypoint.clone().into()),
            network_gateway: Some(far.into()),
            application_tunnel: Some(ApplicationTunnel { proxy_protocol: true, port: 15_088 }),
            authorization_policies: vec![NamespacedName::new("shop", "p")],
            locality: Locality { region: "r".into(), zone: "z".into(), subzone: "s".into() },
            services: [(NamespacedName::new("shop", "cart.shop.svc"), port(8080))].into(),
            ..Workload::empty("c//Pod/shop/cart-1")
        })),
        Resource::Service(Arc::new(Service {
            name: "cart".into(),
            vips: vec![vip("10.96.0.1", None), vip("10.97.0.0", Some(24))],
            ports: port(8080),
            subject_alt_names: vec!["spiffe://td/ns/shop/sa/cart".into()],
            waypoint: Some(waypoint.into()),
            load_balancing: LoadBalancing {
                preference: vec![service::Scope::Zone],
                mode: BalanceMode::Failover,
                allow_unhealthy: true,
            },
            ip_families: IpFamilies::Dual,
            canonical: true,
            ..Service::empty("shop", "cart.shop.svc")
        })),
        Resource::Policy(Arc::new(Policy {
            name: "p".into(),
            namespace: "shop".into(),
            scope: Scope::WorkloadSelector,
            action: Action::Deny,
            rules: vec![Rule { clauses: vec![Clause { matches: vec![everything] }] }],
            dry_run: false,
        })),
    ]
}

/// Contract 11.4: `/config_dump`.
#[tokio::test]
async fn the_dump_is_what_istioctl_reads() {
    let mut tables = Tables::default();
    for resource in everything() {
        tables.apply(resource);
    }
    let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    let runtime = tokio::runtime::Handle::current();
    let store = Store::new(&runtime, Arc::new(TestCa::new()), StoreOptions::default());
    store.get(&id).await.unwrap();
    let info = PodInfo { name: "cart-1".into(), namespace: "shop".into(), service_account: "cart".into() };
    let (uid, pod): (Arc<str>, _) = ("uid-1".into(), Arc::new(info));
    let address = |text: &str| text.parse::<std::net::SocketAddr>().unwrap();
    let facts =
        Facts { source_ip: address("10.0.0.2:1").ip(), source: Some(id), destination: address("10.0.0.1:8080") };
    let meant = tables.service(&NamespacedName::new("shop", "cart.shop.svc")).cloned();
    let open = OpenConnections {
        inbound: vec![InboundConnection { pod: pod.clone(), from: address("10.0.0.2:4000"), facts, service: meant }],
        outbound: vec![OutboundConnection {
            pod: pod.clone(),
            from: address("10.0.0.1:4001"),
            dialled: address("10.96.0.9:80"),
            to: address("10.0.0.3:15008"),
            tunnel: true,
        }],
    };
    let mut dump = super::tables(&tables);
    dump.extend(held(&[(uid, pod)].into(), &open, &store.list()));
    let dump = Value::Object(dump.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    for row in READ.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let (path, kind) = row.split_once(' ').unwrap();
        let values = at(&dump, path);
        assert!(!values.is_empty(), "{path} is nowhere: {dump:#}");
        for value in values {
            assert!(is(kind, value), "{path} should be {kind}: {value}");
        }
    }
    // What names are looked up by, and numbers that are text.
    for (path, expected) in [
        ("workloads/*/waypoint/destination", "shop/wp.shop.svc"),
        ("workloads/*/networkGateway/destination", "west/192.0.2.1"),
        ("services/*/vips/*", "west/10.96.0.1"),
        ("services/*/cidrVips/*/cidr", "10.97.0.0/24"),
        ("workloadState/*/connections/inbound/*/src", "10.0.0.2:4000"),
        ("workloadState/*/connections/inbound/*/originalDst", "cart.shop.svc"),
        ("workloadState/*/connections/outbound/*/actualDst", "10.0.0.3:15008"),
    ] {
        assert_eq!(at(&dump, path), [expected], "{path}");
    }
    let serial = at(&dump, "certificates/*/certChain/*/serialNumber")[0].as_str().unwrap();
    assert!(serial.bytes().all(|byte| byte.is_ascii_digit()), "{serial}");
}
