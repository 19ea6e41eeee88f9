use std::io::Cursor;

use mesh_model::policy::{Action, Match, Policy, Scope, StringMatch};
use mesh_model::resource::Resource;
use mesh_model::service::{BalanceMode, IpFamilies, Service};
use mesh_model::workload::{Tunnel, Workload, WorkloadType};

use super::*;

fn all(text: &str) -> Vec<Resource> {
    let local = read(Cursor::new(text)).unwrap();
    assert_eq!(local.refused, []);
    local.resources
}

fn workload(text: &str) -> Workload {
    match all(text).remove(0) {
        Resource::Workload(workload) => (*workload).clone(),
        other => panic!("{other:?}"),
    }
}

fn service(text: &str) -> Service {
    match all(text).remove(0) {
        Resource::Service(service) => (*service).clone(),
        other => panic!("{other:?}"),
    }
}

fn policy(text: &str) -> Policy {
    match all(text).remove(0) {
        Resource::Policy(policy) => (*policy).clone(),
        other => panic!("{other:?}"),
    }
}

fn matched(text: &str) -> Match {
    let policy =
        policy(&format!("policies: [{{name: p, namespace: n, scope: Global, action: Deny, rules: [[[{text}]]]}}]"));
    policy.rules[0].clauses[0].matches[0].clone()
}

#[test]
fn reads_upstreams_format() {
    let text = r#"
workloads:
- {uid: "Kubernetes//Pod/lab/c", name: c, namespace: lab, serviceAccount: c, trustDomain: cluster.local, workloadIps: ["10.77.1.10"], protocol: HBONE, node: node1, network: "", clusterId: Kubernetes, services: {"lab/c.lab.svc.cluster.local": {80: 8080}}}
policies: []
services:
- {name: c, namespace: lab, hostname: c.lab.svc.cluster.local, vips: ["/10.96.0.10"], ports: {80: 8080}}
"#;
    let resources = all(text);
    let Resource::Workload(workload) = &resources[0] else { panic!("in the order of the file") };
    let Resource::Service(service) = &resources[1] else { panic!("in the order of the file") };
    assert_eq!(service.vips[0].address.to_string(), "/10.96.0.10");
    assert_eq!(workload.identity().unwrap().to_string(), "spiffe://cluster.local/ns/lab/sa/c");
    assert_eq!(workload.tunnel, Tunnel::Hbone);
    assert_eq!(workload.services[&service.key()][0].target_port, 8080);
    for nothing in ["", "workloads:\nservices:\npolicies:\n", "{}"] {
        assert_eq!(all(nothing), []);
    }
}

#[test]
fn a_workload_with_everything() {
    let w = workload(
        r#"
workloads:
- name: a
  namespace: shop
  workloadIps: ["::ffff:10.0.0.1", "fd00::1"]
  hostname: A.Example.com
  protocol: TCP
  network: west
  networkMode: HostNetwork
  networkGateway: {destination: "west/192.0.2.1", hboneMtlsPort: 15008}
  waypoint: {destination: "shop/Wp.shop.svc", hboneMtlsPort: 15008}
  clusterId: c1
  workloadType: job
  nativeTunnel: true
  applicationTunnel: {protocol: PROXY, port: 15088}
  authorizationPolicies: [shop/p]
  status: Unhealthy
  locality: {region: r, zone: z, subzone: s}
  capacity: 0
"#,
    );
    assert_eq!(&*w.uid, "c1//Pod/shop/a");
    assert_eq!(w.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1", "fd00::1"]);
    assert_eq!((&*w.hostname, &*w.network, w.host_network), ("a.example.com", "west", true));
    assert_eq!(w.network_gateway.unwrap().to_string(), "west/192.0.2.1:15008");
    assert_eq!(w.waypoint.unwrap().to_string(), "shop/wp.shop.svc:15008");
    assert_eq!((w.workload_type, w.native_tunnel, w.healthy), (WorkloadType::Job, true, false));
    assert!(w.application_tunnel.is_some_and(|t| t.proxy_protocol && t.port == 15088));
    assert_eq!(w.authorization_policies[0].to_string(), "shop/p");
    assert_eq!((&*w.locality.region, &*w.locality.zone, &*w.locality.subzone), ("r", "z", "s"));
    assert_eq!(w.capacity, 0);
}

#[test]
fn trap_30_what_a_workload_does_not_say() {
    let w = workload("workloads: [{name: a, namespace: b}]");
    assert_eq!((&*w.trust_domain, &*w.service_account, &*w.cluster), ("cluster.local", "default", "Kubernetes"));
}

#[test]
fn trap_33_a_capacity_that_is_not_said_is_one() {
    assert_eq!(workload("workloads: [{name: a, namespace: b}]").capacity, 1);
    assert_eq!(workload("workloads: [{name: a, namespace: b, capacity: 0}]").capacity, 0);
}

#[test]
fn a_service_with_everything() {
    let s = service(
        r#"
services:
- name: a
  namespace: shop
  hostname: A.shop.svc
  vips: ["/10.96.0.1", "west/10.97.0.0/16", "/10.98.0.1/32", "/fd00::/64"]
  ports: {80: 0}
  endpoints: {x: {workloadUid: x, port: {80: 80}, status: Healthy}}
  subjectAltNames: [spiffe://td/ns/a/sa/b]
  waypoint: {destination: "/10.96.0.9", hboneMtlsPort: 15008}
  loadBalancer: {routingPreferences: [Network, Region], mode: Failover, healthPolicy: AllowAll}
  ipFamilies: IPv4
  canonical: true
"#,
    );
    assert_eq!(s.key().to_string(), "shop/a.shop.svc");
    let vips: Vec<_> = s.vips.iter().map(|v| (v.address.to_string(), v.prefix)).collect();
    let want = [("/10.96.0.1", None), ("west/10.97.0.0", Some(16)), ("/10.98.0.1", None), ("/fd00::", Some(64))];
    assert_eq!(vips, want.map(|(address, prefix)| (address.to_owned(), prefix)));
    assert_eq!((s.ports[0].service_port, s.ports[0].target_port), (80, 0), "trap 31: ask the endpoint");
    assert_eq!(s.waypoint.unwrap().to_string(), "/10.96.0.9:15008");
    assert_eq!((s.load_balancing.mode, s.load_balancing.allow_unhealthy), (BalanceMode::Failover, true));
    assert_eq!((s.load_balancing.preference.len(), s.ip_families, s.canonical), (2, IpFamilies::Ipv4, true));
}

#[test]
fn a_policy_as_upstream_writes_it() {
    let p = policy(
        r#"
policies:
- action: Allow
  rules:
  - - - notDestinationPorts:
        - 9999
    - - namespaces: [{Exact: shop}]
      - principals: [{Prefix: td/}, {Suffix: /sa/b}, {Presence: []}]
  name: deny-9999
  namespace: default
  scope: Namespace
  dryRun: true
"#,
    );
    assert_eq!((p.key().to_string(), p.scope, p.action), ("default/deny-9999".into(), Scope::Namespace, Action::Allow));
    assert!(p.dry_run);
    assert_eq!((p.rules.len(), p.rules[0].clauses.len(), p.rules[0].clauses[1].matches.len()), (1, 2, 2));
    assert_eq!(p.rules[0].clauses[0].matches[0].not_destination_ports, [9999]);
    let principals = &p.rules[0].clauses[1].matches[1].principals;
    let text = |text: &str| text.into();
    assert_eq!(
        *principals,
        [StringMatch::Prefix(text("td/")), StringMatch::Suffix(text("/sa/b")), StringMatch::Presence]
    );
}

#[test]
fn every_kind_of_match() {
    let m = matched(
        r#"{namespaces: [{Exact: a}], notNamespaces: [{Exact: b}], principals: [{Presence: []}],
        notPrincipals: [{Suffix: x}], sourceIps: ["10.0.0.0/8"], notSourceIps: ["::ffff:10.1.0.0/112"],
        destinationIps: ["fd00::/8"], notDestinationIps: ["fd01::/16"], destinationPorts: [80],
        notDestinationPorts: [81], serviceAccounts: [{namespace: a, serviceAccount: b}],
        notServiceAccounts: [{namespace: a, serviceAccount: c}]}"#,
    );
    assert!(!m.unsupported);
    assert_eq!(m.not_source_ips[0].to_string(), "10.1.0.0/16", "in normal form");
    assert_eq!(m.service_accounts[0].to_string(), "a/b");
    let lens = [
        m.namespaces.len(),
        m.not_namespaces.len(),
        m.principals.len(),
        m.not_principals.len(),
        m.source_ips.len(),
        m.destination_ips.len(),
        m.not_destination_ips.len(),
        m.destination_ports.len(),
        m.not_destination_ports.len(),
        m.not_service_accounts.len(),
    ];
    assert_eq!(lens, [1; 10]);
}

#[test]
fn a_match_that_cannot_be_read_is_never_weaker_than_written() {
    for text in [
        "{surprise: [1]}",
        "{sourceIps: [10.0.0.0/33]}",
        "{sourceIps: 10.0.0.0/8}",
        "{destinationPorts: [70000]}",
        "{namespaces: [{Regex: a}]}",
        "{namespaces: [a]}",
        "{serviceAccounts: [{namespace: a}]}",
    ] {
        let m = matched(text);
        assert!(m.unsupported, "{text}");
        assert_eq!(Match { unsupported: false, ..m }, Match::default(), "{text}");
    }
    let m = matched("{notDestinationPorts: [80, 70000]}");
    assert!(m.unsupported);
    assert_eq!(m.not_destination_ports, [80], "what can be read still excludes");
}

#[test]
fn trap_29_an_entry_that_means_nothing_is_refused_alone_and_by_name() {
    for (text, entry, part) in [
        ("workloads: [{name: a, namespace: b, protocol: QUIC}, GOOD]", "workload b/a", "protocol"),
        ("workloads: [{name: a, namespace: b, workloadIps: [here]}, GOOD]", "workload b/a", "workloadIps[0]"),
        ("workloads: [{name: a, namespace: b, services: {x: {80: 80}}}, GOOD]", "workload b/a", "services \"x\""),
        ("workloads: [{name: a, namespace: b, services: {b/x: {80: 70000}}}, GOOD]", "workload b/a", "services"),
        ("workloads: [{name: a, namespace: b, authorizationPolicies: [x]}, GOOD]", "workload b/a", "authorization"),
        ("workloads: [{name: a, namespace: b, workloadType: x}, GOOD]", "workload b/a", "workloadType"),
        ("workloads: [{name: a, namespace: b, protocoll: x}, GOOD]", "workload b/a", "protocoll"),
        ("workloads: [GOOD, {namespace: b}]", "workload number 2 of the list", "neither uid nor name"),
        ("workloads: [{name: a}, GOOD]", "workload /a", "namespace"),
        ("workloads: [7, GOOD]", "workload number 1 of the list", "integer"),
        ("services: [{name: a, namespace: b, hostname: c, vips: [here]}]\nworkloads: [GOOD]", "service b/a", "vips"),
        (
            "services: [{name: a, namespace: b, hostname: c, vips: [/10.0.0.0/33]}]\nworkloads: [GOOD]",
            "service b/a",
            "vips",
        ),
        ("services: [{name: a, namespace: b}]\nworkloads: [GOOD]", "service b/a", "hostname"),
        (
            "services: [{name: a, namespace: b, hostname: c, waypoint: {destination: x, hboneMtlsPort: 1}}]\nworkloads: [GOOD]",
            "service b/a",
            "waypoint",
        ),
    ] {
        let local = read(Cursor::new(text.replace("GOOD", "{name: good, namespace: shop}"))).unwrap();
        assert_eq!(local.resources.len(), 1, "{text}");
        let refused = local.refused.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(matches!(&refused[..], [one] if one.starts_with(entry) && one.contains(part)), "{text}: {refused:?}");
    }
}

#[test]
fn a_policy_is_not_left_out() {
    for (text, part) in [
        ("policies: [{}]", "number 1"),
        ("policies: [{name: a, namespace: b, scope: Global, action: Log}]", "policy b/a: action"),
        ("policies: [{name: a, namespace: b, scope: Mesh, action: Deny}]", "policy b/a: scope"),
        ("policies: [{name: a, namespace: b, scope: Global, action: Deny, rules: [{}]}]", "policy b/a: rules"),
    ] {
        let error = read(Cursor::new(text)).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("let in"), "{text}: {error}");
    }
}

#[test]
fn what_is_no_such_file_is_refused_whole() {
    for (text, part) in
        [("workload: []", "workload"), ("workloads: 7", "list"), ("[]", "lists"), ("workloads: [{name: a", "line 1")]
    {
        let error = read(Cursor::new(text)).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

/// More than the reader's own bounds for files that people write.
#[test]
fn a_large_mesh_is_read() {
    let mut text = String::from("workloads:\n");
    for n in 0..20_000 {
        text.push_str(&format!(
            "- {{name: w-{n}, namespace: shop, workloadIps: [\"10.1.{}.{}\"], protocol: HBONE, \
            services: {{shop/s-{}: {{80: 8080}}}}}}\n",
            n / 256,
            n % 256,
            n / 10
        ));
    }
    assert_eq!(all(&text).len(), 20_000);
}
