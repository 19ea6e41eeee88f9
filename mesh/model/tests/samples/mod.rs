//! One resource of each type with every field set, so that nothing is left out of a round trip.
#![allow(unreachable_pub, reason = "shared between test programs")]

pub mod routes;

use std::time::Duration;

use mesh_model::address::{GatewayAddress, GatewayDestination, NamespacedName, NetworkAddress};
use mesh_model::authorizer::{Authorizer, BodyInCheck, HttpCheck, Protocol};
use mesh_model::policy::http::{HeaderCondition, HttpMatch, PathPattern};
use mesh_model::policy::{
    Action, ClaimCondition, Clause, Match, Policy, RequestPrincipal, Rule, Scope as PolicyScope, StringMatch,
};
use mesh_model::resource::Resource;
use mesh_model::service::{BalanceMode, IpFamilies, LoadBalancing, NamedPort, Scope, Service, ServiceExtension, Vip};
use mesh_model::workload::{AppProtocol, ApplicationTunnel, Locality, PortMapping, Tunnel, Workload, WorkloadType};

fn address(ip: &str) -> NetworkAddress {
    NetworkAddress { network: "net-1".into(), ip: ip.parse().unwrap() }
}

fn gateways() -> [GatewayAddress; 2] {
    let name = GatewayDestination::Hostname(NamespacedName::new("infra", "waypoint.infra.svc"));
    [name, GatewayDestination::Address(address("fd00::99"))]
        .map(|destination| GatewayAddress { destination, hbone_mtls_port: 15008 })
}

fn ports() -> Vec<PortMapping> {
    use AppProtocol::*;
    let port =
        |(i, app_protocol)| PortMapping { service_port: 80 + i as u16, target_port: 8080 * i as u16, app_protocol };
    [Unknown, Http11, Http2, Grpc, Tcp, Tls].into_iter().enumerate().map(port).collect()
}

/// A workload.
pub fn workload() -> Workload {
    let [waypoint, network_gateway] = gateways();
    Workload {
        uid: "west//Pod/shop/cart-1".into(),
        name: "cart-1".into(),
        namespace: "shop".into(),
        addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        hostname: "cart.example.com".into(),
        network: "net-1".into(),
        tunnel: Tunnel::Hbone,
        trust_domain: "td".into(),
        service_account: "cart".into(),
        waypoint: Some(waypoint.into()),
        network_gateway: Some(network_gateway.into()),
        node: "node-1".into(),
        canonical_name: "cart".into(),
        canonical_revision: "v1".into(),
        workload_type: WorkloadType::Job,
        workload_name: "cart".into(),
        native_tunnel: true,
        authorization_policies: vec![NamespacedName::new("shop", "a"), NamespacedName::new("root", "b")],
        healthy: false,
        cluster: "west".into(),
        services: [(NamespacedName::new("shop", "cart.shop.svc"), ports()), (NamespacedName::new("shop", "b"), vec![])]
            .into(),
        application_tunnel: Some(ApplicationTunnel { proxy_protocol: true, port: 15088 }),
        locality: Locality { region: "r".into(), zone: "z".into(), subzone: "s".into() },
        host_network: true,
        capacity: 7,
    }
}

/// A service.
pub fn service() -> Service {
    let [waypoint, weighted] = gateways();
    let block = |ip, length| Vip { address: address(ip), prefix: Some(length) };
    use Scope::*;
    Service {
        name: "cart".into(),
        namespace: "shop".into(),
        hostname: "cart.shop.svc".into(),
        vips: vec![Vip { address: address("10.96.0.1"), prefix: None }, block("10.97.0.0", 16), block("fd00:97::", 64)],
        ports: ports(),
        subject_alt_names: vec!["spiffe://td/ns/shop/sa/other".into()],
        waypoint: Some(waypoint.clone().into()),
        weighted_waypoints: vec![(waypoint.into(), 90), (weighted.into(), 10)],
        load_balancing: LoadBalancing {
            preference: vec![Network, Region, Zone, Subzone, Node, Cluster],
            mode: BalanceMode::Failover,
            allow_unhealthy: true,
        },
        ip_families: IpFamilies::Dual,
        canonical: true,
        ingress_use_waypoint: true,
        private: true,
        extension: Some(extension().into()),
    }
}

fn extension() -> ServiceExtension {
    ServiceExtension {
        client_ip_affinity: true,
        named_ports: vec![NamedPort {
            name: "dns".into(),
            protocol: "udp".into(),
            service_port: 53,
            target_port: 5353,
        }],
        external_name: "cart.example.com".into(),
    }
}

/// A policy.
pub fn policy() -> Policy {
    let strings = || {
        ["a", "b", "c"]
            .map(Into::into)
            .into_iter()
            .zip([StringMatch::Exact, StringMatch::Prefix, StringMatch::Suffix])
            .map(|(text, kind): (_, fn(_) -> _)| kind(text))
            .chain([StringMatch::Presence])
            .collect::<Vec<_>>()
    };
    let nets = || vec!["10.0.0.0/8".parse().unwrap(), "fd00::/64".parse().unwrap()];
    let accounts = || vec![NamespacedName::new("shop", "cart")];
    let paths = || {
        let template = PathPattern::Template("/a/{*}/{**}".into());
        strings().into_iter().map(PathPattern::Text).chain([template]).collect::<Vec<_>>()
    };
    let http = HttpMatch {
        hosts: strings(),
        not_hosts: strings(),
        methods: strings(),
        not_methods: strings(),
        paths: paths(),
        not_paths: paths(),
        headers: vec![
            HeaderCondition { name: "x-a".into(), values: strings(), not_values: Vec::new() },
            HeaderCondition { name: "x-b".into(), values: Vec::new(), not_values: strings() },
        ],
        request_principals: vec![RequestPrincipal::parse("https://issuer.example/*")],
        not_request_principals: vec![RequestPrincipal::parse("*/mallory")],
        claims: vec![
            ClaimCondition { path: vec!["a".into(), "b".into()], values: strings(), not_values: Vec::new() },
            ClaimCondition { path: vec!["c".into()], values: Vec::new(), not_values: strings() },
        ],
    };
    let full = Match {
        namespaces: strings(),
        not_namespaces: strings(),
        principals: strings(),
        not_principals: strings(),
        source_ips: nets(),
        not_source_ips: nets(),
        destination_ips: nets(),
        not_destination_ips: nets(),
        destination_ports: vec![80, 65535],
        not_destination_ports: vec![1],
        service_accounts: accounts(),
        not_service_accounts: accounts(),
        http: Some(http.into()),
        unsupported: true,
    };
    let matches = vec![full, Match::default()];
    Policy {
        name: "guard".into(),
        namespace: "shop".into(),
        scope: PolicyScope::WorkloadSelector,
        action: Action::Deny,
        rules: vec![Rule { clauses: vec![Clause { matches }, Clause::default()] }, Rule::default()],
        dry_run: true,
    }
}

/// An authorizer of each kind.
fn authorizers() -> [Authorizer; 2] {
    let grpc = Authorizer {
        name: "ask".into(),
        service: NamespacedName::new("shop", "ask.shop.svc"),
        port: 9000,
        timeout: Duration::from_millis(500),
        fail_open: true,
        status_on_error: http::StatusCode::SERVICE_UNAVAILABLE,
        body: Some(BodyInCheck { most: 1024, allow_partial: true, as_bytes: true }),
        protocol: Protocol::Grpc,
    };
    let names = |name: &str| vec![StringMatch::Exact(name.into()), StringMatch::Prefix("x-".into())];
    let check = HttpCheck {
        path_prefix: "/check".into(),
        request_headers: names("cookie"),
        additional_headers: vec![("x-by".into(), "waypoint".into())],
        upstream_on_allow: names("x-user"),
        downstream_on_deny: names("x-why"),
        downstream_on_allow: names("set-cookie"),
    };
    [Authorizer { body: None, fail_open: false, protocol: Protocol::Http(check), ..grpc.clone() }, grpc]
}

/// One of each.
pub fn all() -> [Resource; 8] {
    let [http, grpc] = authorizers();
    let action = |action| Resource::Policy(Policy { action, dry_run: false, ..policy() }.into());
    [
        Resource::Workload(workload().into()),
        Resource::Service(service().into()),
        Resource::Policy(policy().into()),
        Resource::Routes(routes::routes().into()),
        action(Action::Audit),
        action(Action::Custom(Err("nobody".into()))),
        action(Action::Custom(Ok(http.into()))),
        action(Action::Custom(Ok(grpc.into()))),
    ]
}
