//! Where a client gets to that calls a service: YAML in, destinations out. The way is the real one, in one process: parse
//! → translate → encode → decode → tables → destination.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use istiod_lite::cluster::Cluster;
use istiod_lite::source::folder::parse_file;
use istiod_lite::translate::{Mesh, Translation, translate};
use mesh_model::destination::{Destination, decide};
use mesh_model::resource::Resource;
use mesh_model::tables::Tables;

/// Pods in the mesh and a service without selector. `sick` says that it is not ready, `leaver` ends and still serves.
const WORLD: &str = "
kind: Pod
apiVersion: v1
metadata: {name: client, namespace: shop, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.1}], conditions: [{type: Ready, status: 'True'}]}
---
kind: Pod
apiVersion: v1
metadata: {name: web, namespace: shop, labels: {app: web}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c, ports: [{name: sql, containerPort: 7000}]}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.2}, {ip: 'fd00::2'}], conditions: [{type: Ready, status: 'True'}]}
---
kind: Pod
apiVersion: v1
metadata: {name: api, namespace: shop, labels: {app: api}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.3}], conditions: [{type: Ready, status: 'True'}]}
---
kind: Pod
apiVersion: v1
metadata: {name: sick, namespace: shop, labels: {app: sick}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.4}], conditions: [{type: Ready, status: 'False'}]}
---
kind: Pod
apiVersion: v1
metadata:
  {name: leaver, namespace: shop, labels: {app: leaver}, deletionTimestamp: '2026-11-24T00:00:00Z',
   annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n1, containers: [{name: c}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.5}], conditions: [{type: Ready, status: 'True'}]}
---
kind: Pod
apiVersion: v1
metadata: {name: vault, namespace: bank, annotations: {ambient.istio.io/redirection: enabled}}
spec: {nodeName: n2, serviceAccountName: vault, containers: [{name: c}]}
status: {phase: Running, podIPs: [{ip: 10.244.2.2}], conditions: [{type: Ready, status: 'True'}]}
---
kind: Service
apiVersion: v1
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.96.0.20, ports: [{name: sql, port: 5432}, {name: admin, port: 9000}]}
";

/// The address of `db`.
const DB: &str = "10.96.0.20:5432";
const ADMIN: &str = "10.96.0.20:9000";
/// The address of whatever service a row adds.
const OWN: &str = "10.96.0.30:80";

/// A slice of `db`'s, with the ports given.
fn slice_of(name: &str, ports: &str, endpoints: &str) -> String {
    format!(
        "---\nkind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata: {{name: {name}, namespace: shop, labels: \
         {{kubernetes.io/service-name: db}}}}\naddressType: IPv4\nports: [{ports}]\nendpoints: [{endpoints}]\n"
    )
}

/// A slice of `db`'s, with both its ports.
fn slice(endpoints: &str) -> String {
    slice_of("db-1", "{name: sql, port: 15432}, {name: admin, port: 19000}", endpoints)
}

/// Endpoints of `db`'s.
fn endpoints(metadata: &str, subsets: &str) -> String {
    format!("---\nkind: Endpoints\napiVersion: v1\nmetadata: {{namespace: shop, {metadata}}}\nsubsets: [{subsets}]\n")
}

/// A service of its own.
fn service(spec: &str) -> String {
    format!(
        "---\nkind: Service\napiVersion: v1\nmetadata: {{name: own, namespace: shop}}\nspec: {{clusterIP: 10.96.0.30, \
         {spec}}}\n"
    )
}

fn to_pod(pod: &str, ip: &str, more: &str) -> String {
    format!("{{addresses: [{ip}], targetRef: {{kind: Pod, name: {pod}}}{more}}}")
}

fn translated(yaml: &str) -> Translation {
    let parsed = parse_file(Path::new("cluster.yaml"), yaml);
    assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
    let mut cluster = Cluster::default();
    cluster.reset(parsed.objects.into_iter().map(|o| o.object));
    translate(&cluster, &Mesh::default())
}

/// Everywhere a client of `shop` may get to that calls `to`.
fn reached(translation: &Translation, to: &str) -> Vec<String> {
    let mut tables = Tables::default();
    for sent in &translation.resources {
        tables.apply(Resource::decode(sent.kind(), sent.encode()).unwrap());
    }
    let client = tables.workload("Kubernetes//Pod/shop/client").unwrap();
    let to: SocketAddr = to.parse().unwrap();
    let at = |random| match decide(&tables, client, "", to, u64::into(random)) {
        Destination::Tunnel(t) => format!("{} at {} by HBONE", t.expected[0], t.authority),
        Destination::Plain(p) => format!("{} in plaintext", p.address),
        Destination::Refuse(why) => why.code().to_string(),
        other => format!("{other:?}"),
    };
    (0..60).map(at).collect::<BTreeSet<_>>().into_iter().collect()
}

#[track_caller]
fn check(row: &str, yaml: &str, to: &str, expected: &[&str]) {
    assert_eq!(reached(&translated(&format!("{WORLD}{yaml}")), to), expected, "{row}");
}

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web at 10.244.1.2:15432 by HBONE";
const API: &str = "spiffe://cluster.local/ns/shop/sa/default at 10.244.1.3:15432 by HBONE";
const SICK: &str = "spiffe://cluster.local/ns/shop/sa/default at 10.244.1.4:15432 by HBONE";
const VAULT: &str = "spiffe://cluster.local/ns/bank/sa/vault at 10.244.2.2:15432 by HBONE";
const NOBODY: &str = "NO_HEALTHY_UPSTREAM";

#[test]
fn the_slice_decides_who_is_ready() {
    let two =
        |web: &str, api: &str| slice(&[to_pod("web", "10.244.1.2", web), to_pod("api", "10.244.1.3", api)].join(", "));
    let no = ", conditions: {ready: false}";
    check("both", &two("", ", conditions: {ready: true}"), DB, &[API, WEB]);
    check("one of two", &two(no, ""), DB, &[API]);
    check("none", &two(no, no), DB, &[NOBODY]);
    check("outside", &slice("{addresses: [192.0.2.1], conditions: {ready: false}}"), DB, &[NOBODY]);
    let sick = slice(&to_pod("sick", "10.244.1.4", ", conditions: {ready: true}"));
    check("whatever the pod says", &sick, DB, &[SICK]);
    // Elsewhere the pod's own word counts on.
    let selected = |app: &str| service(&format!("selector: {{app: {app}}}, ports: [{{port: 80, targetPort: 8080}}]"));
    check("not by the selector", &format!("{sick}{}", selected("sick")), OWN, &[NOBODY]);
    let both = format!("{}{}", two(no, no), selected("web"));
    check("not by the slice", &both, DB, &[NOBODY]);
    check("by the selector", &both, OWN, &["spiffe://cluster.local/ns/shop/sa/web at 10.244.1.2:8080 by HBONE"]);
}

#[test]
fn who_ends_and_serves_is_the_last_resort() {
    let web = |conditions: &str| to_pod("web", "10.244.1.2", &format!(", conditions: {{{conditions}}}"));
    let api = to_pod("api", "10.244.1.3", "");
    for (conditions, expected) in [
        ("ready: false, serving: true, terminating: true", WEB),
        ("ready: false, terminating: true", WEB),
        ("ready: false, serving: false, terminating: true", NOBODY),
        ("ready: false, serving: true", NOBODY),
        ("ready: true, terminating: true", WEB),
    ] {
        check(conditions, &slice(&web(conditions)), DB, &[expected]);
    }
    let ending = web("ready: false, serving: true, terminating: true");
    check("somebody is ready", &slice(&[ending.clone(), api.clone()].join(", ")), DB, &[API]);
    // Each port has its own endpoints.
    let ports = format!(
        "{}{}",
        slice_of("db-1", "{name: sql, port: 15432}", &ending),
        slice_of("db-2", "{name: admin, port: 19000}", &api)
    );
    check("ready on another port", &ports, DB, &[WEB]);

    let leaver = "spiffe://cluster.local/ns/shop/sa/default at 10.244.1.5:8080 by HBONE";
    let selected =
        |more: &str| service(&format!("selector: {{app: leaver}}, ports: [{{port: 80, targetPort: 8080}}]{more}"));
    check("by selector", &selected(""), OWN, &[leaver]);
    let other = "---\nkind: Pod\napiVersion: v1\nmetadata: {name: stayer, namespace: shop, labels: {app: leaver}}\nspec: \
                 {nodeName: n1, containers: [{name: c}]}\nstatus: {phase: Running, podIPs: [{ip: 10.244.1.6}], \
                 conditions: [{type: Ready, status: 'True'}]}\n";
    check("somebody stays", &format!("{}{other}", selected("")), OWN, &["10.244.1.6:8080 in plaintext"]);
    let published = selected(", publishNotReadyAddresses: true");
    check("published", &format!("{published}{other}"), OWN, &["10.244.1.6:8080 in plaintext", leaver]);
}

#[test]
fn publish_not_ready_addresses_is_about_the_services_own_pods() {
    let published = |selector: &str| {
        service(&format!(
            "publishNotReadyAddresses: true, {selector}ports: [{{name: sql, port: 80, targetPort: 8080}}]"
        ))
    };
    let sick = "spiffe://cluster.local/ns/shop/sa/default at 10.244.1.4:8080 by HBONE";
    check("a pod", &published("selector: {app: sick}, "), OWN, &[sick]);
    let slice = slice("{addresses: [192.0.2.1], conditions: {ready: false}}").replace("name: db", "name: own");
    check("a slice says so itself", &format!("{}{slice}", published("")), OWN, &[NOBODY]);
}

#[test]
fn a_pod_is_that_pod_however_it_is_named() {
    let of = |more: &str| format!("{{addresses: [10.244.2.2]{more}}}");
    let bank = ", targetRef: {kind: Pod, name: vault, namespace: bank}";
    check("namespace", &slice(&of(bank)), DB, &[VAULT]);
    check("by its address", &slice(&of("")), DB, &[VAULT]);
    check("by another kind", &slice(&of(", targetRef: {kind: Node, name: n2}")), DB, &[VAULT]);
    check("by its address, the name is wrong", &slice(&of(", targetRef: {kind: Pod, name: vault}")), DB, &[VAULT]);
    // It was a pod's address. Whose it is now nobody knows.
    let gone = to_pod("gone", "10.244.1.99", "");
    check("a pod that is gone", &slice(&gone), DB, &[NOBODY]);
    check("nobody's", &slice("{addresses: [192.0.2.1]}"), DB, &["192.0.2.1:15432 in plaintext"]);
}

#[test]
fn slices_of_one_service_are_put_together() {
    let each = |endpoint: &str| {
        let (sql, admin) = ("{name: sql, port: 15432}", "{name: admin, port: 19000}");
        format!("{}{}", slice_of("db-1", sql, endpoint), slice_of("db-2", admin, endpoint))
    };
    let web = each(&to_pod("web", "10.244.1.2", ""));
    check("a pod, the first port", &web, DB, &[WEB]);
    check(
        "a pod, the second port",
        &web,
        ADMIN,
        &["spiffe://cluster.local/ns/shop/sa/web at 10.244.1.2:19000 by HBONE"],
    );
    let outside = each("{addresses: [192.0.2.1]}");
    check("outside, the first port", &outside, DB, &["192.0.2.1:15432 in plaintext"]);
    check("outside, the second port", &outside, ADMIN, &["192.0.2.1:19000 in plaintext"]);
    let differ = format!(
        "{}{}",
        slice_of("db-1", "{name: sql, port: 15432}", "{addresses: [192.0.2.1]}"),
        slice_of("db-2", "{name: sql, port: 25432}", "{addresses: [192.0.2.1]}")
    );
    check("two at one address", &differ, DB, &["192.0.2.1:15432 in plaintext", "192.0.2.1:25432 in plaintext"]);
}

#[test]
fn ports_meet_by_name_and_protocol() {
    let of = |ports: &str| slice_of("db-1", ports, "{addresses: [192.0.2.1]}");
    let found = "192.0.2.1:15432 in plaintext";
    for (ports, to, expected) in [
        ("{name: sql, port: 15432}", DB, found),
        ("{name: sql, port: 15432}", ADMIN, NOBODY),
        ("{name: sql}", DB, NOBODY),
        ("{name: sql}, {name: admin, port: 15432}", ADMIN, found),
        ("{name: other, port: 15432}", DB, NOBODY),
        ("{port: 15432}", DB, NOBODY),
        ("{name: sql, port: 15432, protocol: UDP}", DB, NOBODY),
        ("{name: sql, port: 1, protocol: UDP}, {name: sql, port: 15432, protocol: TCP}", DB, found),
    ] {
        check(ports, &of(ports), to, &[expected]);
    }
    let own = format!("{}{}", service("ports: [{port: 80}]"), of("{port: 15432}").replace("name: db", "name: own"));
    check("the only port needs no name", &own, OWN, &[found]);
    check("nobody has the port", &of("{name: sql, port: 15432}"), "10.96.0.20:1", &["UNKNOWN_SERVICE_PORT"]);
}

#[test]
fn slices_of_services_with_a_selector() {
    let own = service("selector: {app: sick}, ports: [{name: sql, port: 80, targetPort: 8080}]");
    let sick = to_pod("sick", "10.244.1.4", ", conditions: {ready: true}");
    let managed = slice(&sick).replace(
        "{kubernetes.io/service-name: db}",
        "{kubernetes.io/service-name: own, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}",
    );
    check("the controller's say what the pods say, later", &format!("{own}{managed}"), OWN, &[NOBODY]);
    let added = slice("{addresses: [192.0.2.1]}").replace("service-name: db", "service-name: own");
    check("others add to them", &format!("{own}{added}"), OWN, &["192.0.2.1:15432 in plaintext"]);
}

#[test]
fn addresses_are_of_the_slices_type() {
    let endpoints = "{addresses: [192.0.2.1]}";
    let six = slice(endpoints).replace("addressType: IPv4", "addressType: IPv6");
    check("not of its type", &six, DB, &[NOBODY]);
    let names = slice("{addresses: [db.example.com]}").replace("addressType: IPv4", "addressType: FQDN");
    check("names", &names, DB, &[NOBODY]);
    let said = translated(&format!("{WORLD}{names}")).statuses;
    let said = said.iter().find(|s| s.key.to_string() == "EndpointSlice shop/db-1").unwrap();
    assert!(said.conditions[0].message.contains("FQDN"), "{said:?}");
}

#[test]
fn families() {
    let own = |families: &str| {
        service(&format!("selector: {{app: web}}, ipFamilies: [{families}], ports: [{{port: 80, targetPort: 8080}}]"))
    };
    let four = "spiffe://cluster.local/ns/shop/sa/web at 10.244.1.2:8080 by HBONE";
    check("the service's", &own("IPv4"), OWN, &[four]);
    check("both", &own("IPv4, IPv6"), OWN, &[four]);
    let six = own("IPv6").replace("10.96.0.30", "'fd00:96::30'");
    check("the other", &six, "[fd00:96::30]:80", &["spiffe://cluster.local/ns/shop/sa/web at [fd00::2]:8080 by HBONE"]);
    let api = six.replace("app: web", "app: api");
    check("a pod that has no such address is no endpoint", &api, "[fd00:96::30]:80", &[NOBODY]);
}

#[test]
fn endpoints_are_mirrored() {
    let ports = "ports: [{name: sql, port: 15432}]";
    let of = |subsets: &str| endpoints("name: db", subsets);
    let outside = "192.0.2.1:15432 in plaintext";
    check("an address", &of(&format!("{{addresses: [{{ip: 192.0.2.1}}], {ports}}}")), DB, &[outside]);
    check("not ready", &of(&format!("{{notReadyAddresses: [{{ip: 192.0.2.1}}], {ports}}}")), DB, &[NOBODY]);
    let both = format!("{{addresses: [{{ip: 192.0.2.1}}], notReadyAddresses: [{{ip: 192.0.2.2}}], {ports}}}");
    check("one of two", &of(&both), DB, &[outside]);
    check("a pod by its address", &of(&format!("{{addresses: [{{ip: 10.244.2.2}}], {ports}}}")), DB, &[VAULT]);
    let named = format!("{{addresses: [{{ip: 10.244.1.2, targetRef: {{kind: Pod, name: web}}}}], {ports}}}");
    check("a pod by its name", &of(&named), DB, &[WEB]);
    let subsets = format!(
        "{{addresses: [{{ip: 192.0.2.1}}], {ports}}}, {{addresses: [{{ip: 192.0.2.1}}], ports: [{{name: admin, port: 19000}}]}}"
    );
    check("two subsets", &of(&subsets), ADMIN, &["192.0.2.1:19000 in plaintext"]);
    check("two subsets", &of(&subsets), DB, &[outside]);
    check(
        "of both families",
        &of(&format!("{{addresses: [{{ip: 'fd00::9'}}, {{ip: 192.0.2.1}}], {ports}}}")),
        DB,
        &[outside],
    );

    let some = format!("{{addresses: [{{ip: 192.0.2.1}}], {ports}}}");
    for (metadata, said) in [
        ("name: db, labels: {endpointslice.kubernetes.io/skip-mirror: 'true'}", None),
        ("name: db, annotations: {control-plane.alpha.kubernetes.io/leader: '{}'}", None),
        ("name: none", Some("no Service")),
        ("name: own", Some("selector")),
    ] {
        let yaml = format!(
            "{}{}",
            endpoints(metadata, &some),
            service("selector: {app: sick}, ports: [{name: sql, port: 80}]")
        );
        check(metadata, &yaml, DB, &[NOBODY]);
        check(metadata, &yaml, OWN, &[NOBODY]);
        let statuses = translated(&format!("{WORLD}{yaml}")).statuses;
        let status = statuses.iter().find(|s| s.key.to_string().starts_with("Endpoints ")).map(|s| &s.conditions[0]);
        assert_eq!(status.is_some(), said.is_some(), "{metadata}: {status:?}");
        assert!(said.is_none_or(|said| status.unwrap().message.contains(said)), "{metadata}: {status:?}");
    }
}

#[test]
fn a_word_about_traffic_that_nobody_knows_is_said() {
    let own = service("trafficDistribution: Close, ports: [{port: 80}]");
    let near = "---\nkind: Namespace\napiVersion: v1\nmetadata: {name: shop, annotations: \
                {networking.istio.io/traffic-distribution: Near}}\n";
    let statuses = translated(&format!("{WORLD}{own}{near}")).statuses;
    let said: Vec<String> = statuses
        .iter()
        .map(|s| format!("{}: {}", s.key, s.conditions[0].message.split(" is ").next().unwrap()))
        .collect();
    assert_eq!(
        said,
        [
            "Service shop/own: spec.trafficDistribution: \"Close\"",
            "Namespace shop: annotation networking.istio.io/traffic-distribution: \"Near\""
        ]
    );
    let known = near.replace("Near", "preferclose");
    assert!(translated(&format!("{WORLD}{known}")).statuses.is_empty());
}

/// What only Ambit's own proxies are told, and names of pods.
#[test]
fn names_and_affinity() {
    let yaml = "
kind: Pod
apiVersion: v1
metadata: {name: web-0, namespace: shop, labels: {app: named}}
spec: {hostname: web-0, subdomain: own, nodeName: n1, containers: [{name: c}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.7}], conditions: [{type: Ready, status: 'True'}]}
---
kind: Service
apiVersion: v1
metadata: {name: elsewhere, namespace: shop}
spec: {type: ExternalName, externalName: DB.example.com.}
";
    let own = service(
        "sessionAffinity: ClientIP, selector: {app: named}, ports: [{name: http, port: 80, targetPort: 8080}, {name: dns, \
         port: 53, protocol: UDP, targetPort: dns}]",
    );
    let translation = translated(&format!("{WORLD}---{yaml}{own}"));
    let mut hostname = None;
    let mut said = Vec::new();
    for resource in &translation.resources {
        match Resource::decode(resource.kind(), resource.encode()).unwrap() {
            Resource::Workload(w) if *w.name == *"web-0" => hostname = Some(w.hostname.to_string()),
            Resource::Service(s) if s.extension.is_some() => {
                let e = s.extension.clone().unwrap();
                let ports = e
                    .named_ports
                    .iter()
                    .map(|p| format!("{}/{} {} {}", p.name, p.protocol, p.service_port, p.target_port));
                let ports: Vec<String> = ports.collect();
                said.push(format!("{} {} {:?} {}", s.key(), e.client_ip_affinity, ports, e.external_name));
            }
            _ => {}
        }
    }
    assert_eq!(hostname.as_deref(), Some("web-0.own.shop.svc.cluster.local"));
    assert_eq!(
        said,
        [
            r#"shop/db.shop.svc.cluster.local false ["sql/tcp 5432 0", "admin/tcp 9000 0"] "#,
            // The last dot hides it from who does not know better.
            r#"shop/elsewhere.shop.svc.cluster.local. false [] db.example.com"#,
            r#"shop/own.shop.svc.cluster.local true ["http/tcp 80 8080", "dns/udp 53 0"] "#,
        ]
    );
}
