//! Our ztunnels, unchanged, under upstream's istiod on a real Kubernetes API server (`e2e/upstream/README.md`): what is
//! promised under istiod-lite holds there, and so does what only istiod offers.
//!
//! Seen red: the comparison by 21 resources, when it was first made; everything with another token than the API server's;
//! our waypoint beside istiod, while istiod-lite took itself for all of the control plane.
use crate::{authorization, certificates, names, reach, town};
use anyhow::{Context, Result, ensure};
use e2e::Mesh;
use e2e::folder::Folder;
use e2e::harness::{SharedMesh, Suite, need_program};
use e2e::until::until;
use e2e::yaml::{Pod, all, namespace, service};
use e2e::{process, upstream};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

mod routes;

pub(crate) fn trials(suite: &mut Suite) {
    suite.under("upstream::", |suite| {
        let town = town::shared(|yaml| upstream::up(yaml, &[]));
        reach::trials(suite, &town);
        authorization::trials(suite, &town);
        names::trials(suite, upstream::up);
        suite.on(&town, "a_headless_service_is_its_pods", headless);
        suite.on(&town, "a_service_entry_is_reached_by_its_hostname", service_entry);
        suite.on(&town, "a_waypoint_is_dialled_for_the_service_that_names_it", waypoint);
        suite.on(&town, "a_pod_that_goes_and_comes_back_elsewhere_is_found", moved);
        suite.on(&town, "istiod_killed_without_a_failed_request", killed);
        suite.trial("istiod_lite_says_what_istiod_says", same);
        suite.trial("routes_come_to_what_istiod_makes_of_them", routes::same);
        suite.trial("our_waypoint_serves_beside_istiod", beside);
        suite.trial("certificates_renewed_every_few_seconds_without_a_failed_request", renewal);
        let on_demand = SharedMesh::new(on_demand);
        suite.on(&on_demand, "on_demand_reaches_pods_and_services", asked_for);
        suite.on(&on_demand, "on_demand_policies_deny_and_cut", authorization::cut);
    });
}

fn headless(mesh: &Mesh) -> Result<()> {
    let yaml = r#"
apiVersion: v1
kind: Service
metadata: {name: bare, namespace: shop}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
"#;
    mesh.apply("bare.yaml", yaml)?;
    let ip = mesh.ip("shop/web", false)?.to_string();
    until("ztunnel resolves it", || {
        // In a form that no hosts file has.
        let found = mesh.exec("shop/client", &["getent", "ahostsv4", "bare.shop.svc.cluster.local."])?.good()?;
        ensure!(found.contains(&ip), "{found}");
        Ok(())
    })?;
    let body = mesh.get("shop/client", "http://bare.shop.svc.cluster.local.:8080/")?;
    ensure!(body == "web", "{body}");
    mesh.remove("bare.yaml")
}

fn service_entry(mesh: &Mesh) -> Result<()> {
    let server = mesh.ip("outside/server", false)?;
    let yaml = format!(
        r#"
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: api, namespace: shop}}
spec:
  hosts: [api.example.com]
  ports: [{{number: 80, name: tcp, protocol: TCP, targetPort: 8080}}]
  resolution: STATIC
  endpoints: [{{address: {server}}}]
"#
    );
    mesh.apply("entry.yaml", &yaml)?;
    let body = mesh.get_at_last("shop/client", "http://api.example.com/")?;
    ensure!(body == "outside", "{body}");
    let line = mesh.log_line("ztunnel-node1", &["direction=\"outbound\"", "dst.service=\"api.example.com\""])?;
    ensure!(line.contains(&format!("dst.addr={server}:8080")), "{line}");
    mesh.remove("entry.yaml")?;
    mesh.refused_at_last("shop/client", "http://api.example.com/")
}

/// Row O3, trap 16.
fn waypoint(mesh: &Mesh) -> Result<()> {
    // A pod in the place of the waypoint's proxy: what reaches it is no request for itself, and is refused there.
    let pod =
        Pod::new("shop", "way", "node2").label("gateway.networking.k8s.io/gateway-name", "way").ip("10.244.2.200");
    let gateway = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way, namespace: shop, labels: {istio.io/waypoint-for: service}}
spec:
  gatewayClassName: istio-waypoint
  addresses: [{type: Hostname, value: way.shop.svc.cluster.local}]
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: way, namespace: shop}
spec: {selector: {gateway.networking.k8s.io/gateway-name: way}, ports: [{name: mesh, port: 15008, appProtocol: hbone}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: way-1, namespace: shop, labels: {kubernetes.io/service-name: way}}
addressType: IPv4
ports: [{name: mesh, port: 15008, protocol: TCP}]
endpoints: [{addresses: [10.244.2.200], conditions: {ready: true}, targetRef: {kind: Pod, name: way, namespace: shop}}]
---
apiVersion: v1
kind: Service
metadata: {name: guarded, namespace: shop, labels: {istio.io/use-waypoint: way}}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"#;
    mesh.apply("way.yaml", &(pod.yaml() + "---" + gateway))?;
    mesh.pod_ready("shop/way", true)?;
    until("ztunnel knows the waypoint", || {
        let dump = mesh.config_dump("node1")?;
        let services = dump["services"].as_array().context("no services in the state")?;
        let guarded = services.iter().find(|s| s["name"] == "guarded").context("the service is not known")?;
        ensure!(guarded["waypoint"]["destination"] == "shop/way.shop.svc.cluster.local", "{guarded}");
        Ok(())
    })?;
    let words = ["direction=\"outbound\"", "dst.addr=10.244.2.200:15008", "guarded.shop.svc.cluster.local"];
    mesh.refused_because("shop/client", "http://guarded/", "ztunnel-node1", &words)?;
    // Whoever speaks to the pod itself does not go through it.
    let web = mesh.ip("shop/web", false)?;
    mesh.get("shop/client", &format!("http://{web}:8080/"))?;
    mesh.remove("way.yaml")
}

fn moved(mesh: &Mesh) -> Result<()> {
    for (node, text) in [("node1", "here"), ("node2", "there")] {
        let pod = Pod::new("shop", "mover", node).http(8080, text).quick_end();
        mesh.apply("mover.yaml", &all(&[pod.yaml(), service("shop", "mover", "mover", 80, 8080)]))?;
        until("it answers from where it is now", || {
            let body = mesh.get("shop/client", "http://mover/")?;
            ensure!(body == text, "{body}");
            Ok(())
        })?;
        mesh.pod_known("shop/mover", true)?;
    }
    mesh.remove("mover.yaml")?;
    mesh.pod_gone("shop/mover")?;
    until("both ztunnels have forgotten it", || {
        for node in e2e::mesh::NODES {
            let dump = mesh.config_dump(node)?;
            let workloads = dump["workloads"].as_array().context("no workloads in the state")?;
            ensure!(!workloads.iter().any(|w| w["name"] == "mover"), "{node} still knows it");
        }
        Ok(())
    })
}

/// Trap 35.
fn killed(mesh: &Mesh) -> Result<()> {
    mesh.get_at_last("shop/client", "http://web/")?;
    let new = mesh.traffic("shop/client", "web:80", &[])?;
    let kept = mesh.traffic("shop/client", &format!("{}:9100", mesh.ip("shop/web", false)?), &["--kept"])?;
    let istiod = upstream::istiod(mesh)?;
    process::signal(istiod.pid, Signal::KILL)?;
    // While there is none: new connections, with what is held.
    until("istiod is gone", || {
        ensure!(!istiod.runs(), "it runs");
        Ok(())
    })?;
    mesh.get("shop/client", "http://web/")?;
    // The next one is told what is held, and has nothing to add.
    until("ztunnels are connected again, and nothing is sent twice", || {
        let log = mesh.log("istiod")?;
        let since = log.rfind("marking server ready").context("istiod is not ready yet")?;
        for node in e2e::mesh::NODES {
            let words = [&format!("WDS: PUSH request for node:ztunnel-{node}."), "resources:0 removed:0"];
            let found = log[since..].lines().any(|line| words.iter().all(|word| line.contains(word)));
            ensure!(found, "{}", &log[since..]);
        }
        Ok(())
    })?;
    // What is new comes from it.
    mesh.apply("late.yaml", &Pod::new("shop", "late", "node1").http(8080, "late").yaml())?;
    mesh.pod_ready("shop/late", true)?;
    mesh.pod_known("shop/late", true)?;
    ensure!(upstream::istiod(mesh)?.pid != istiod.pid, "the same process");
    let ip = mesh.ip("shop/late", false)?;
    mesh.get_at_last("shop/neighbour", &format!("http://{ip}:8080/"))?;
    mesh.get_at_last("shop/late", "http://web/")?;
    mesh.log_line("ztunnel-node2", &["direction=\"inbound\"", "ns/shop/sa/late"])?;
    mesh.remove("late.yaml")?;
    new.finish()?.flawless(40)?;
    kept.finish()?.flawless(40)
}

/// Objects that both are given.
const CASES: &str = include_str!("../upstream/cases.yaml");

fn same() -> Result<()> {
    let theirs = upstream::up(CASES, &[])?;
    let ours = Mesh::up(CASES)?;
    // Both hear of pods and what they have come to in their own time.
    let compared = until("istiod-lite says what istiod says", || {
        let differences = differences(&upstream::sent(&theirs)?, &upstream::sent(&ours)?);
        ensure!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
        Ok(())
    });
    compared.map_err(|e| e.context(ours.report()).context(theirs.report()))
}

type Sent = [BTreeMap<String, Value>; 2];

fn differences(theirs: &Sent, ours: &Sent) -> Vec<String> {
    let mut differences = Vec::new();
    for (theirs, ours) in theirs.iter().zip(ours) {
        for name in theirs.keys().chain(ours.keys()).collect::<BTreeSet<_>>() {
            let plain = |all: &BTreeMap<String, Value>| all.get(name).and_then(|value| plain(name, value.clone()));
            let (theirs, ours) = (plain(theirs), plain(ours));
            if theirs != ours {
                let text = |it: Option<Value>| it.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
                differences.push(format!("{name}\n  istiod:      {}\n  istiod-lite: {}", text(theirs), text(ours)));
            }
        }
    }
    differences
}

/// A resource without what is meant to differ, and without what means the same.
fn plain(name: &str, mut value: Value) -> Option<Value> {
    // The API server's own; there is none here.
    if name == "default/kubernetes.default.svc.cluster.local" {
        return None;
    }
    // Only Ambit's proxies are told of services that are nothing but other names.
    if name.ends_with('.') {
        return None;
    }
    if let Some(workload) = value.get_mut("workload") {
        // Trap 30: the default, said or not.
        if workload["clusterId"] == "Kubernetes" {
            workload.as_object_mut()?.remove("clusterId");
        }
        sort(&mut workload["authorizationPolicies"]);
        for of_service in workload["services"].as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
            without_udp(of_service);
        }
    } else if let Some(service) = value.get_mut("service") {
        without_udp(service);
        // Of a service without selector istiod-lite says that each endpoint knows its ports.
        if name == "shop/given.shop.svc.cluster.local" {
            for port in service["ports"].as_array_mut().into_iter().flatten() {
                port.as_object_mut()?.remove("targetPort");
            }
        }
        // Which family a service without addresses has, an API server knows.
        if service.get("addresses").is_none() {
            service.as_object_mut()?.remove("ipFamilies");
        }
    } else if let Some(groups) = value["groups"].as_array_mut() {
        // A deny rule of nothing but HTTP attributes: istiod sends what never matches, istiod-lite what always does
        // (docs/decisions/0008-deny-with-http-attributes-denies-more.md).
        groups.retain(|group| {
            let rules = group["rules"].as_array().map_or(&[][..], Vec::as_slice);
            name != "shop/deny-http-in-part" || rules.iter().any(|rule| rule["matches"] != json!([{}]))
        });
        // All clauses of a rule must hold, in any order.
        for group in groups {
            sort(&mut group["rules"]);
        }
    }
    Some(value)
}

/// Only TCP goes through the mesh, so istiod-lite leaves out the ports of other protocols. Of a number that istiod sends
/// twice, the last counts.
fn without_udp(object: &mut Value) {
    const UDP: u16 = 85;
    if let Some(ports) = object["ports"].as_array_mut() {
        let mut seen = BTreeSet::from([UDP.to_string()]);
        ports.reverse();
        ports.retain(|port| seen.insert(port["servicePort"].to_string()));
        ports.reverse();
    }
}

fn sort(list: &mut Value) {
    if let Some(list) = list.as_array_mut() {
        list.sort_by_key(Value::to_string);
    }
}

/// What only the API server is given: the machine would run a waypoint of its own for the Gateway.
const BESIDE: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: way, namespace: shop}
spec:
  gatewayClassName: ambit-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules:
    - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-by, value: way}]}}]
      backendRefs: [{name: web, port: 80}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  rules:
    - from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]
      to: [{operation: {methods: [GET], notPaths: ["/admin*"]}}]
"#;

/// istiod has the mesh, istiod-lite the waypoint: certificates come from the one, routes and policies from the other.
fn beside() -> Result<()> {
    need_program("curl")?;
    let objects = Folder::with(BESIDE)?;
    let behind = service("shop", "web", "web", 80, 8080);
    let mut behind: Value = serde_json::from_str(behind.trim_start_matches("---\n"))?;
    behind["metadata"]["labels"]["istio.io/use-waypoint"] = json!("way");
    let yaml = all(&[
        namespace("shop", true),
        Pod::new("shop", "client", "node1").yaml(),
        Pod::new("shop", "thief", "node1").yaml(),
        Pod::new("shop", "web", "node2").http(8080, "web").yaml(),
        format!("---\n{behind}\n"),
    ]);
    let mesh = upstream::up_with_waypoints(&yaml, objects.path())?;
    through_the_waypoint(&mesh, &objects)
        .map_err(|e| e.context(mesh.log("istiod-lite-beside").unwrap_or_default()).context(mesh.report()))
}

fn through_the_waypoint(mesh: &Mesh, objects: &Folder) -> Result<()> {
    let env = until("istiod-lite has made the waypoint's Deployment", || {
        Ok(serde_json::from_slice::<Vec<Value>>(&std::fs::read(objects.file("way.env.json"))?)?)
    })?;
    mesh.apply("way.yaml", &waypoint_pod(env, objects)?)?;
    mesh.pod_ready("shop/way-1", false)?;
    let ask = |client: &str, arguments: &[&str]| -> Result<String> {
        let command = ["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code} %header{x-by}"];
        Ok(mesh.exec(client, &[&command, arguments].concat())?.stdout)
    };
    until("istiod's ztunnels go through it, and it follows the route", || {
        let answer = ask("shop/client", &["http://web/"])?;
        ensure!(answer == "200 way", "{answer}");
        Ok(())
    })?;
    for (what, client, arguments, expected) in [
        ("a path that is not allowed", "shop/client", &["http://web/admin/x"][..], "403 "),
        ("a method that is not allowed", "shop/client", &["-X", "DELETE", "http://web/"], "403 "),
        ("a caller who is not allowed", "shop/thief", &["http://web/"], "403 "),
        ("what is allowed", "shop/client", &["http://web/other"], "200 way"),
    ] {
        let answer = ask(client, arguments)?;
        ensure!(answer == expected, "{what}: {answer:?}");
    }
    // The server's ztunnel has seen an identity that istiod has signed for.
    mesh.log_line("ztunnel-node2", &["direction=\"inbound\"", "ns/shop/sa/way", "ns/shop/sa/web"])?;
    // Nobody but istiod signs.
    let issued = mesh.log("istiod-lite-beside")?;
    ensure!(!issued.contains("certificate issued"), "{issued}");
    Ok(())
}

/// The Pod of the Deployment that istiod-lite has made, as a kubelet would start it: with its settings, but for names that only a
/// cluster's DNS knows.
fn waypoint_pod(mut env: Vec<Value>, objects: &Folder) -> Result<String> {
    let mut took = |name: &str| -> Result<String> {
        let place = env.iter().position(|set| set["name"] == name).with_context(|| format!("{name} is not set"))?;
        Ok(env.remove(place)["value"].as_str().unwrap_or_default().to_owned())
    };
    let addresses = [took("XDS_ADDRESS")?, took("CA_ADDRESS")?];
    ensure!(
        addresses == ["https://istiod-lite.istio-system.svc:15012", "https://istiod.istio-system.svc:15012"],
        "{addresses:?}"
    );
    ensure!(env.iter().any(|set| set["name"] == "XDS_ROOT_CA"), "whom to trust for tables: {env:?}");
    let file = |name: &str| objects.file(name).display().to_string();
    for (name, value) in [
        ("XDS_ADDRESS", "https://172.30.0.1:15022".to_owned()),
        ("ALT_XDS_HOSTNAME", "istiod-lite.istio-system.svc".to_owned()),
        ("CA_ADDRESS", "https://172.30.0.1:15012".to_owned()),
        ("ALT_CA_HOSTNAME", "istiod.istio-system.svc".to_owned()),
        // What is mounted.
        ("CA_ROOT_CA", file("root-cert.pem")),
        ("AUTH_TOKEN", file("way-1.token")),
    ] {
        env.push(json!({"name": name, "value": value}));
    }
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "way-1", "namespace": "shop", "labels": {
            "gateway.networking.k8s.io/gateway-name": "way", "istio.io/dataplane-mode": "none",
        }},
        "spec": {"nodeName": "node2", "serviceAccountName": "way", "containers": [{
            "name": "istio-proxy",
            "command": ["ambit", "waypoint"],
            "env": env,
            "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": 15021}, "periodSeconds": 1},
        }]},
    });
    Ok(format!("---\n{pod}\n"))
}

fn renewal() -> Result<()> {
    let mesh = upstream::up(&certificates::yaml(), &["--secret-ttl", certificates::LIFETIME])?;
    certificates::renewed(&mesh).map_err(|e| e.context(mesh.report()))
}

/// Ztunnels that ask for what they need when they need it. Upstream's cannot also answer DNS then.
fn on_demand() -> Result<Mesh> {
    upstream::up(
        &all(&[
            namespace("shop", true),
            Pod::new("shop", "client", "node1").yaml(),
            Pod::new("shop", "thief", "node1").yaml(),
            Pod::new("shop", "web", "node2").http(8080, "web").peer().yaml(),
            Pod::new("shop", "idle", "node2").http(8080, "idle").yaml(),
            service("shop", "web", "web", 80, 8080),
        ]),
        &["--set", "ztunnel:XDS_ON_DEMAND=true", "--set", "ztunnel:ISTIO_META_DNS_CAPTURE=false"],
    )
}

/// Trap 36.
fn asked_for(mesh: &Mesh) -> Result<()> {
    for url in ["http://web/".to_owned(), format!("http://{}:8080/", mesh.ip("shop/web", false)?)] {
        ensure!(mesh.get_at_last("shop/client", &url)? == "web");
    }
    mesh.log_line("ztunnel-node2", &["direction=\"inbound\"", "ns/shop/sa/client", "ns/shop/sa/web"])?;
    let dump = mesh.config_dump("node1")?;
    let workloads = dump["workloads"].as_array().context("no workloads in the state")?;
    ensure!(workloads.iter().any(|w| w["name"] == "web"), "it was asked for: {dump}");
    ensure!(!workloads.iter().any(|w| w["name"] == "idle"), "nobody asked for it: {dump}");
    Ok(())
}
