//! Any sequence of changes, taken in one after the other, comes to what a translation of the whole from nothing says,
//! byte for byte: what proxies are told, and what users are.
//!
//! A sequence is a list of small numbers, of which every one means something. So it is made from a seed, and one that
//! fails is cut down to what it fails by before it is shown.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use istiod_lite::cluster::{Change, Cluster, Fetched, Kept};
use istiod_lite::mode::{Mode, WAYPOINT_CONTROLLER};
use istiod_lite::resources::{Key, KeySource, Kind, Object};
use istiod_lite::translate::delta::{Delta, Translator};
use istiod_lite::translate::{Mesh, translate};
use mesh_model::resource::Resource;
use mesh_xds::audience::Audience;
use serde_json::{Value, json};

/// Sequences, and steps of each. `INCREMENTAL_SEQUENCES` runs more.
const SEQUENCES: u64 = 400;
const STEPS: usize = 60;

/// What a step does: which change, to which object, and what the object says.
type Step = [u8; 24];

const NAMESPACES: [&str; 3] = ["shop", "bank", "istio-system"];
const PODS: [&str; 4] = ["a", "b", "c", "d"];
const SERVICES: [&str; 3] = ["web", "db", "way"];
const NODES: [&str; 2] = ["n1", "n2"];
const APPS: [&str; 3] = ["web", "db", "other"];
const ADDRESSES: [&str; 6] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", "192.0.2.9"];

/// Reads the numbers of a step one by one; each choice takes one.
struct Choices<'a>(std::slice::Iter<'a, u8>, u8);

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        // More choices than numbers: they follow from the last.
        self.1 = self.0.next().copied().unwrap_or(self.1.wrapping_mul(73).wrapping_add(41));
        usize::from(self.1) % n
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn seldom(&mut self) -> bool {
        self.below(4) == 3
    }
}

fn metadata(choices: &mut Choices<'_>, namespace: Option<&str>, name: &str) -> Value {
    let mut metadata = json!({"name": name, "labels": {}, "annotations": {}});
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    let mut label = |name: &str, value: &str| metadata["labels"][name] = value.into();
    match choices.below(8) {
        0 => label("istio.io/use-waypoint", "way"),
        1 => {
            label("istio.io/use-waypoint", "way");
            label("istio.io/use-waypoint-namespace", "bank");
        }
        2 => label("istio.io/use-waypoint", "none"),
        3 => label("topology.istio.io/network", "net"),
        4 => label("gateway.networking.k8s.io/gateway-name", "way"),
        _ => {}
    }
    metadata
}

fn pod(choices: &mut Choices<'_>, namespace: &str, name: &str) -> Value {
    let ips = match choices.below(5) {
        0 => json!([]),
        1 => json!([{"ip": choices.one_of(&ADDRESSES)}, {"ip": "fd00::7"}]),
        _ => json!([{"ip": choices.one_of(&ADDRESSES)}]),
    };
    let phase = choices.one_of(&["Running", "Running", "Running", "Pending", "Succeeded"]);
    let app = choices.one_of(&APPS);
    let ready = choices.one_of(&["True", "True", "False"]);
    let node = choices.one_of(&["n1", "n2", ""]);
    let tier = choices.one_of(&["x", "y"]);
    let mut metadata = metadata(choices, Some(namespace), name);
    metadata["labels"]["app"] = app.into();
    metadata["labels"]["tier"] = tier.into();
    metadata["uid"] = format!("{namespace}-{name}").into();
    if choices.seldom() {
        metadata["deletionTimestamp"] = "2026-11-24T00:00:00Z".into();
    }
    if choices.below(2) == 0 {
        metadata["annotations"]["ambient.istio.io/redirection"] = "enabled".into();
    }
    json!({
        "metadata": metadata,
        "spec": {
            "nodeName": node, "serviceAccountName": app, "hostNetwork": choices.seldom(),
            "hostname": "h", "subdomain": choices.one_of(&["web", "db"]),
            "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8000 + choices.below(2)}]}],
        },
        "status": {"phase": phase, "podIPs": ips, "conditions": [{"type": "Ready", "status": ready}]},
    })
}

fn service(choices: &mut Choices<'_>, namespace: &str, name: &str) -> Value {
    let mut spec = match choices.below(6) {
        0 => json!({"type": "ExternalName", "externalName": "example.com"}),
        1 => json!({"clusterIP": "None"}),
        _ => json!({"clusterIP": choices.one_of(&["10.96.0.1", "10.96.0.2", "fd00:96::1"])}),
    };
    match choices.below(5) {
        0 | 1 => spec["selector"] = json!({"app": choices.one_of(&APPS)}),
        2 => spec["selector"] = json!({"app": choices.one_of(&APPS), "tier": "x"}),
        3 => spec["selector"] = json!({"tier": "y"}),
        _ => {}
    }
    let ports = json!([
        {"name": "http", "port": 80, "targetPort": "http"},
        {"name": "sql", "port": 90 + choices.below(2)},
    ]);
    spec["ports"] = choices.one_of(&[ports, json!([{"port": 80}])]);
    match choices.below(6) {
        0 => spec["publishNotReadyAddresses"] = true.into(),
        1 => spec["trafficDistribution"] = choices.one_of(&["PreferClose", "Nearby"]).into(),
        2 => spec["internalTrafficPolicy"] = "Local".into(),
        _ => {}
    }
    let mut metadata = metadata(choices, Some(namespace), name);
    match choices.below(6) {
        0 => metadata["annotations"]["networking.istio.io/traffic-distribution"] = "close".into(),
        1 => {
            metadata["labels"]["istio.io/rev"] = "default".into();
            metadata["labels"]["istio.io/tag"] = choices.one_of(&["canary", "stable"]).into();
        }
        _ => {}
    }
    json!({"metadata": metadata, "spec": spec})
}

/// `targetRef`, or none.
fn target(choices: &mut Choices<'_>) -> Value {
    match choices.below(4) {
        0 => json!({"kind": "Pod", "name": choices.one_of(&PODS)}),
        1 => json!({"kind": "Pod", "name": choices.one_of(&PODS), "namespace": choices.one_of(&NAMESPACES)}),
        _ => Value::Null,
    }
}

fn slice(choices: &mut Choices<'_>, namespace: &str, name: &str) -> Value {
    let family = choices.one_of(&["IPv4", "IPv4", "IPv6", "FQDN"]);
    let endpoint = |choices: &mut Choices<'_>| {
        json!({
            "addresses": [match family {
                "FQDN" => "example.com",
                "IPv6" => choices.one_of(&["fd00::1", "fd00::2"]),
                _ => choices.one_of(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.9"]),
            }],
            "targetRef": target(choices),
            "nodeName": choices.one_of(&[json!("n1"), json!("n2"), Value::Null]),
            "zone": choices.one_of(&[json!("z9"), Value::Null]),
            "conditions": {"ready": choices.below(3) > 0, "serving": true, "terminating": choices.seldom()},
        })
    };
    let endpoints: Vec<Value> = (0..1 + choices.below(2)).map(|_| endpoint(choices)).collect();
    let mut metadata = json!({"name": name, "namespace": namespace, "labels": {}});
    metadata["labels"]["kubernetes.io/service-name"] = choices.one_of(&SERVICES).into();
    if choices.seldom() {
        metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = "endpointslice-controller.k8s.io".into();
    }
    let ports = json!([{"name": "http", "port": 8100}, {"name": "sql", "port": 8200 + choices.below(2)}]);
    json!({"metadata": metadata, "addressType": family, "endpoints": endpoints, "ports": ports})
}

fn endpoints(choices: &mut Choices<'_>, namespace: &str, name: &str) -> Value {
    let subset = |choices: &mut Choices<'_>| {
        let mut address = json!({"ip": choices.one_of(&ADDRESSES)});
        let target = target(choices);
        if !target.is_null() {
            address["targetRef"] = target;
        }
        let which = choices.one_of(&["addresses", "notReadyAddresses"]);
        json!({which: [address], "ports": [{"name": "http", "port": 8300 + choices.below(2)}]})
    };
    let subsets: Vec<Value> = (0..1 + choices.below(2)).map(|_| subset(choices)).collect();
    let skip = choices.one_of(&["false", "false", "true"]);
    let labels = json!({"endpointslice.kubernetes.io/skip-mirror": skip});
    json!({"metadata": {"name": name, "namespace": namespace, "labels": labels}, "subsets": subsets})
}

/// Name, namespace and revision of a policy; of some, a time.
fn policy_metadata(choices: &mut Choices<'_>, namespace: &str, name: &str) -> Value {
    let mut metadata = json!({"name": name, "namespace": namespace, "labels": {}});
    match choices.below(6) {
        0 => metadata["labels"]["istio.io/rev"] = choices.one_of(&["canary", "stable", "default"]).into(),
        1 => metadata["creationTimestamp"] = choices.one_of(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]).into(),
        _ => {}
    }
    metadata
}

fn selector(choices: &mut Choices<'_>) -> Value {
    match choices.below(4) {
        0 => json!({"matchLabels": {"app": choices.one_of(&APPS)}}),
        1 => json!({"matchLabels": {"tier": choices.one_of(&["x", "y"])}}),
        2 => json!({"matchLabels": {}}),
        _ => Value::Null,
    }
}

fn authorization_policy(choices: &mut Choices<'_>, namespace: &str, name: &str) -> Value {
    let metadata = policy_metadata(choices, namespace, name);
    let mut spec = json!({
        "action": choices.one_of(&["ALLOW", "DENY", "AUDIT", "CUSTOM", "CUSTOM"]),
        "rules": [{"from": [{"source": {"namespaces": [choices.one_of(&NAMESPACES)]}}]}],
    });
    if spec["action"] == "CUSTOM" {
        spec["provider"] = json!({"name": choices.one_of(&["ask", "ask", "other"])});
    }
    let selector = selector(choices);
    if !selector.is_null() {
        spec["selector"] = selector;
    } else if choices.below(2) == 0 {
        spec["targetRefs"] = json!([policy_target(choices), policy_target(choices)]);
        spec["rules"][0]["to"] = json!([{"operation": {"methods": ["GET"]}}]);
    }
    json!({"metadata": metadata, "spec": spec})
}

/// An item of `targetRefs`.
fn policy_target(choices: &mut Choices<'_>) -> Value {
    let gateways = "gateway.networking.k8s.io";
    match choices.below(5) {
        0 => json!({"kind": "Gateway", "name": "way", "group": gateways}),
        2 => json!({"kind": "ServiceEntry", "name": choices.one_of(&["e", "f"]), "group": "networking.istio.io"}),
        1 => json!({"kind": "GatewayClass", "name": "istio-waypoint", "group": gateways}),
        _ => json!({"kind": "Service", "name": choices.one_of(&SERVICES), "group": ""}),
    }
}

fn request_authentication(choices: &mut Choices<'_>, namespace: &str, name: &str) -> Value {
    let metadata = policy_metadata(choices, namespace, name);
    let mut rule = json!({"issuer": choices.one_of(&["a", "https://b.example"])});
    match choices.below(4) {
        0 => rule["jwks"] = "{\"keys\":[]}".into(),
        1 => {}
        _ => rule["jwksUri"] = choices.one_of(&["https://a.example/keys", "http://b.example/keys"]).into(),
    }
    let mut spec = json!({"jwtRules": [rule]});
    if !choices.seldom() {
        spec["targetRefs"] = json!([policy_target(choices), policy_target(choices)]);
    }
    json!({"metadata": metadata, "spec": spec})
}

/// One that says where another network's gateway is, or does not quite.
fn remote_gateway(choices: &mut Choices<'_>, namespace: &str) -> Value {
    let name = choices.one_of(&["far", "farther"]);
    let mut metadata = policy_metadata(choices, namespace, name);
    match choices.below(5) {
        0 => {}
        1 => metadata["labels"]["topology.istio.io/network"] = "net".into(),
        _ => metadata["labels"]["topology.istio.io/network"] = "far".into(),
    }
    let protocol = choices.one_of(&["HBONE", "HBONE", "HBONE", "TLS"]);
    let addresses = match choices.below(4) {
        0 => json!([]),
        1 => json!([{"type": "Hostname", "value": "far.example.com"}]),
        2 => json!([{"value": "192.0.2.7"}, {"value": "192.0.2.8"}]),
        _ => json!([{"value": "192.0.2.8"}]),
    };
    let listener = json!({"name": "a", "port": 15008 + choices.below(2), "protocol": protocol});
    let spec = json!({"gatewayClassName": "istio-remote", "listeners": [listener], "addresses": addresses});
    json!({"metadata": metadata, "spec": spec})
}

fn gateway(choices: &mut Choices<'_>, namespace: &str) -> Value {
    if choices.below(3) == 0 {
        return remote_gateway(choices, namespace);
    }
    let metadata = metadata(choices, Some(namespace), "way");
    let from = choices.one_of(&["Same", "All", "Selector", "None"]);
    let mut namespaces = json!({"from": from});
    if from == "Selector" {
        namespaces["selector"] = json!({"matchLabels": {"topology.istio.io/network": "net"}});
    }
    let listener =
        json!({"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": {"namespaces": namespaces}});
    let class = choices.one_of(&["ambit-waypoint", "istio-waypoint", "other"]);
    let mut gateway = json!({"metadata": metadata, "spec": {"gatewayClassName": class, "listeners": [listener]}});
    gateway["metadata"]["labels"]["istio.io/waypoint-for"] =
        choices.one_of(&["service", "workload", "all", "none"]).into();
    match choices.below(4) {
        0 => gateway["spec"]["addresses"] = json!([{"value": "10.9.9.9"}]),
        1 => gateway["status"] = json!({"addresses": [{"type": "Hostname", "value": "way.example.com"}]}),
        _ => {}
    }
    gateway
}

/// A reference to a Service: as a parent, or as a backend.
fn service_ref(choices: &mut Choices<'_>) -> Value {
    let mut reference = json!({"group": "", "kind": "Service", "name": choices.one_of(&SERVICES)});
    if choices.below(2) == 0 {
        reference["namespace"] = choices.one_of(&NAMESPACES).into();
    }
    if choices.below(2) == 0 {
        reference["port"] = choices.one_of(&[80, 90]).into();
    }
    reference
}

fn route(choices: &mut Choices<'_>, namespace: &str, name: &str, rule: &Value) -> Value {
    let metadata = policy_metadata(choices, namespace, name);
    let parent = match choices.below(6) {
        0 => json!({"name": "ingress"}),
        1 => {
            let (name, namespace) = (choices.one_of(&["e", "f"]), choices.one_of(&NAMESPACES));
            json!({"group": "networking.istio.io", "kind": "ServiceEntry", "name": name, "namespace": namespace})
        }
        _ => service_ref(choices),
    };
    let mut backend = match choices.below(5) {
        0 => json!({"group": "networking.istio.io", "kind": "Hostname", "name": choices.one_of(&HOSTS)}),
        _ => service_ref(choices),
    };
    backend["port"] = choices.one_of(&[80, 90]).into();
    if choices.seldom() {
        backend["kind"] = "Bucket".into();
    }
    let mut rule = rule.clone();
    rule["backendRefs"] = json!([backend]);
    if choices.below(2) == 0 {
        rule["name"] = "named".into();
    }
    json!({"metadata": metadata, "spec": {"parentRefs": [parent], "rules": [rule]}})
}

/// Of connections: some of a port, some of an age, so that it matters which is the oldest.
fn stream_route(choices: &mut Choices<'_>, namespace: &str, name: &str, hostnames: &[&str]) -> Value {
    let mut value = route(choices, namespace, name, &json!({}));
    let spec = &mut value["spec"];
    if !hostnames.is_empty() {
        spec["hostnames"] = json!([choices.one_of(hostnames)]);
    }
    let is_service = spec["parentRefs"][0]["kind"] == "Service";
    if is_service && choices.below(2) == 0 {
        spec["parentRefs"][0]["port"] = choices.one_of(&[80, 90]).into();
    }
    if choices.below(2) == 0 {
        value["metadata"]["creationTimestamp"] =
            choices.one_of(&["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"]).into();
    }
    value
}

fn peer_authentication(choices: &mut Choices<'_>, namespace: &str, name: &str) -> Value {
    let metadata = policy_metadata(choices, namespace, name);
    let modes = ["STRICT", "PERMISSIVE", "UNSET", "DISABLE"];
    let mut spec = json!({"mtls": {"mode": choices.one_of(&modes)}});
    let selector = selector(choices);
    let selects = selector["matchLabels"].as_object().is_some_and(|labels| !labels.is_empty());
    if selects {
        spec["selector"] = selector;
        if choices.below(2) == 0 {
            spec["portLevelMtls"] = json!({"8000": {"mode": choices.one_of(&modes)}});
        }
    }
    json!({"metadata": metadata, "spec": spec})
}

/// Hosts, of which Services have some.
const HOSTS: [&str; 6] = [
    "web.shop.svc.cluster.local",
    "db.bank.svc.cluster.local",
    "ext.example.com",
    "Api.example.com.",
    "*.example.com",
    "web.shop.svc.cluster.local.",
];

/// Metadata of one of Istio's kinds that has labels, too.
fn entry_metadata(choices: &mut Choices<'_>, namespace: &str, name: &str) -> Value {
    let mut metadata = metadata(choices, Some(namespace), name);
    match choices.below(8) {
        0 => metadata["labels"]["istio.io/rev"] = choices.one_of(&["canary", "stable", "default"]).into(),
        1 => metadata["creationTimestamp"] = choices.one_of(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]).into(),
        2 => metadata["labels"]["networking.istio.io/tunnel"] = "http".into(),
        3 => metadata["labels"]["networking.istio.io/enable-autoallocate-ip"] = "false".into(),
        4 => metadata["annotations"]["networking.istio.io/traffic-distribution"] = "PreferClose".into(),
        _ => {}
    }
    metadata["labels"]["app"] = choices.one_of(&APPS).into();
    metadata["labels"]["tier"] = choices.one_of(&["x", "y"]).into();
    metadata
}

fn service_entry(choices: &mut Choices<'_>, namespace: &str, name: &str) -> Value {
    let metadata = entry_metadata(choices, namespace, name);
    let mut hosts = vec![choices.one_of(&HOSTS)];
    if choices.below(3) == 0 {
        hosts.push(choices.one_of(&HOSTS));
    }
    let mut spec = json!({
        "hosts": hosts, "resolution": choices.one_of(&["STATIC", "STATIC", "DNS", "NONE"]),
        "ports": [{"number": 80 + choices.below(2), "name": "http", "protocol": "HTTP", "targetPort": 8080}],
    });
    let endpoint = json!({
        "address": choices.one_of(&["10.0.0.1", "192.0.2.9", "fd00::9"]), "network": choices.one_of(&["", "far", "net"]),
        "ports": {"http": 8000 + choices.below(2)}, "weight": choices.below(3), "serviceAccount": "vm",
        "labels": {"istio.io/use-waypoint": choices.one_of(&["none", "way"])},
    });
    let is_wildcard = hosts.iter().any(|host| host.starts_with('*'));
    match choices.below(4) {
        0 => spec["workloadSelector"] = json!({"labels": {"app": choices.one_of(&APPS)}}),
        1 if !is_wildcard => {}
        _ if spec["resolution"] != "NONE" => spec["endpoints"] = json!([endpoint]),
        _ => {}
    }
    match choices.below(6) {
        0 => spec["addresses"] = json!([choices.one_of(&["10.9.0.1", "240.240.1.1"])]),
        1 => spec["exportTo"] = json!([choices.one_of(&[".", "~", "*", "bank"])]),
        2 => spec["subjectAltNames"] = json!(["spiffe://cluster.local/ns/shop/sa/vm"]),
        _ => {}
    }
    if is_wildcard && choices.seldom() {
        let hosts = [hosts.into_iter().find(|host| host.starts_with('*'))];
        let ports = [json!({"number": 80, "name": "http", "protocol": "HTTP"})];
        spec = json!({"hosts": hosts, "resolution": "DYNAMIC_DNS", "ports": ports});
    }
    let mut said = Vec::new();
    if choices.below(3) == 0 {
        let value = choices.one_of(&["240.240.1.1", "240.240.2.2", "2001:2::5"]);
        said.push(json!({"value": value, "host": choices.one_of(&HOSTS)}));
    }
    json!({"metadata": metadata, "spec": spec, "status": {"addresses": said}})
}

fn workload_entry(choices: &mut Choices<'_>, namespace: &str, name: &str) -> Value {
    let metadata = entry_metadata(choices, namespace, name);
    let mut spec = json!({
        "address": choices.one_of(&["192.0.2.9", "10.0.0.1", "vm.example.com", "unix:///run/x"]),
        "network": choices.one_of(&["", "far", "net"]), "locality": choices.one_of(&["", "r/z/s"]),
        "labels": {"app": choices.one_of(&APPS), "other": "x"},
    });
    if spec["address"] != "unix:///run/x" {
        spec["ports"] = choices.one_of(&[json!({}), json!({"http": 8000}), json!({"sql": 8001})]);
    }
    json!({"metadata": metadata, "spec": spec})
}

fn destination_rule(choices: &mut Choices<'_>, namespace: &str, name: &str) -> Value {
    let metadata = policy_metadata(choices, namespace, name);
    let hosts =
        ["web", "db", "web.shop.svc.cluster.local", "db.bank.svc.cluster.local", "*.shop.svc.cluster.local", "*"];
    let host = choices.one_of(&hosts);
    let port = json!([{"port": {"number": choices.one_of(&[80, 90])}, "loadBalancer": {"simple": "RANDOM"}}]);
    let policy = match choices.below(6) {
        4 => json!({"loadBalancer": {"simple": "ROUND_ROBIN", "warmup": {"duration": "1m"}}}),
        5 => json!({"loadBalancer": {"warmupDurationSecs": "30s"}}),
        0 => json!({"connectionPool": {"tcp": {"maxConnections": 1 + choices.below(2)}}}),
        1 => json!({"outlierDetection": {"consecutive5xxErrors": 1 + choices.below(2)}}),
        2 => json!({"portLevelSettings": port}),
        _ => Value::Null,
    };
    let subset =
        |name: &str, labels: Value, policy: &Value| json!({"name": name, "labels": labels, "trafficPolicy": policy});
    let subsets = match choices.below(4) {
        0 => json!([subset("x", json!({"tier": "x"}), &policy), subset("y", json!({"tier": "y"}), &Value::Null)]),
        1 => json!([subset("x", json!({"app": choices.one_of(&APPS)}), &json!({"portLevelSettings": port}))]),
        _ => Value::Null,
    };
    json!({"metadata": metadata, "spec": {"host": host, "trafficPolicy": policy, "subsets": subsets}})
}

/// To services that may be there, have other waypoints, and subsets or none.
fn virtual_service(choices: &mut Choices<'_>, namespace: &str) -> Value {
    let name = choices.one_of(&["p", "q", "r"]);
    let metadata = policy_metadata(choices, namespace, name);
    let hosts = ["web", "db", "web.shop.svc.cluster.local", "db.bank.svc.cluster.local", "api.example.com"];
    let host = |choices: &mut Choices<'_>| choices.one_of(&hosts);
    let of = json!([host(choices), host(choices)]);
    let gateways = choices.one_of(&[json!(["mesh", "a"]), Value::Null, json!(["a"])]);
    let mut destination = json!({"host": host(choices)});
    match choices.below(4) {
        0 => destination["subset"] = "x".into(),
        1 => destination["subset"] = "y".into(),
        2 => destination["port"] = json!({"number": 90}),
        _ => {}
    }
    let mut rule =
        json!({"route": [{"destination": destination, "weight": 1}, {"destination": {"host": host(choices)}}]});
    match choices.below(4) {
        0 => rule["mirror"] = json!({"host": host(choices), "subset": "x"}),
        1 => rule["match"] = json!([{"port": 80}, {"uri": {"prefix": "/a"}, "gateways": ["a"]}]),
        2 => rule["fault"] = json!({"abort": {"httpStatus": 503, "percentage": {"value": 50}}}),
        _ => {}
    }
    json!({"metadata": metadata, "spec": {"hosts": of, "gateways": gateways, "http": [rule]}})
}

/// What a step says of one object of a kind.
fn object(kind: Kind, choices: &mut Choices<'_>) -> Object {
    let namespace = choices.one_of(&NAMESPACES);
    let value = match kind {
        Kind::Namespace => {
            let mut metadata = metadata(choices, None, namespace);
            if choices.seldom() {
                let word = choices.one_of(&["PreferClose", "near"]);
                metadata["annotations"]["networking.istio.io/traffic-distribution"] = word.into();
            }
            json!({"metadata": metadata})
        }
        Kind::Node => {
            let (name, zone) = (choices.one_of(&NODES), choices.one_of(&["z1", "z2"]));
            json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}})
        }
        Kind::ServiceAccount => json!({"metadata": {"name": "web", "namespace": namespace}}),
        Kind::Pod => {
            let name = choices.one_of(&PODS);
            pod(choices, namespace, name)
        }
        Kind::Service => {
            let name = choices.one_of(&SERVICES);
            service(choices, namespace, name)
        }
        Kind::EndpointSlice => {
            // One has the name that a mirrored one has.
            let name = choices.one_of(&["s1", "s2", "db"]);
            slice(choices, namespace, name)
        }
        Kind::Endpoints => {
            let name = choices.one_of(&SERVICES);
            endpoints(choices, namespace, name)
        }
        Kind::AuthorizationPolicy => {
            let name = choices.one_of(&["p", "q"]);
            authorization_policy(choices, namespace, name)
        }
        Kind::PeerAuthentication => {
            let name = choices.one_of(&["p", "q", "r"]);
            peer_authentication(choices, namespace, name)
        }
        Kind::RequestAuthentication => {
            let name = choices.one_of(&["t", "u"]);
            request_authentication(choices, namespace, name)
        }
        Kind::GatewayClass => {
            let name = choices.one_of(&["istio-waypoint", "other", "istio-remote"]);
            let mut metadata = metadata(choices, None, name);
            if choices.below(2) == 0 {
                metadata["labels"]["istio.io/waypoint-for"] = choices.one_of(&["all", "workload"]).into();
            }
            let controller = choices.one_of(&["example.com/x", WAYPOINT_CONTROLLER]);
            json!({"metadata": metadata, "spec": {"controllerName": controller}})
        }
        Kind::Gateway => gateway(choices, namespace),
        Kind::HttpRoute => {
            let name = choices.one_of(&["p", "q"]);
            route(choices, namespace, name, &json!({"matches": [{"path": {"value": "/a"}}]}))
        }
        Kind::GrpcRoute => {
            let name = choices.one_of(&["p", "q"]);
            route(choices, namespace, name, &json!({"matches": [{"method": {"service": "a.B"}}]}))
        }
        Kind::TcpRoute => {
            let name = choices.one_of(&["p", "q"]);
            stream_route(choices, namespace, name, &[])
        }
        Kind::TlsRoute => {
            let name = choices.one_of(&["p", "q"]);
            stream_route(choices, namespace, name, &["a.example", "*.example"])
        }
        Kind::ServiceEntry => {
            let name = choices.one_of(&["e", "f", "g"]);
            service_entry(choices, namespace, name)
        }
        Kind::WorkloadEntry => {
            let name = choices.one_of(&["v", "w"]);
            workload_entry(choices, namespace, name)
        }
        Kind::DestinationRule => {
            let name = choices.one_of(&["d", "e"]);
            destination_rule(choices, namespace, name)
        }
        Kind::VirtualService => virtual_service(choices, namespace),
        Kind::ConfigMap => mesh_config(choices),
        Kind::Telemetry => telemetry(choices, namespace),
        Kind::TrafficPolicy => traffic_policy(choices, namespace),
    };
    Object::from_value(kind, &value).unwrap_or_else(|error| panic!("{error:?} in {value}"))
}

/// Who can be asked about requests.
fn mesh_config(choices: &mut Choices<'_>) -> Value {
    let name = choices.one_of(&["istio", "istio", "istio-canary"]);
    let kind = choices.one_of(&["envoyExtAuthzGrpc", "envoyExtAuthzHttp", "zipkin", "opentelemetry", "opentelemetry"]);
    let service = choices.one_of(&[
        "web.shop.svc.cluster.local",
        "shop/db.shop.svc.cluster.local",
        "a.example",
        "ext.example.com",
    ]);
    let kind_of_log = choices.one_of(&["/dev/stdout", "/dev/stderr"]);
    let defaults =
        choices.one_of(&["", "\ndefaultProviders: {tracing: [ask]}", "\ndefaultProviders: {accessLogging: [log]}"]);
    let log = format!("{{name: log, envoyFileAccessLog: {{path: {kind_of_log}}}}}");
    let ask = format!("{{name: ask, {kind}: {{service: {service}, port: 80}}}}");
    let mesh = format!("extensionProviders: [{ask}, {log}]{defaults}");
    json!({"metadata": {"name": name, "namespace": "istio-system"}, "data": {"mesh": mesh}})
}

/// What becomes of traces, and what is logged: somewhere, by somebody.
fn telemetry(choices: &mut Choices<'_>, namespace: &str) -> Value {
    let name = choices.one_of(&["t", "u"]);
    let namespace = choices.one_of(&[namespace, "istio-system"]);
    let metadata = policy_metadata(choices, namespace, name);
    let targets = match choices.below(5) {
        0 => json!([{"kind": "Service", "name": choices.one_of(&SERVICES)}]),
        1 => json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "way"}]),
        2 => json!([{"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "istio-waypoint"}]),
        _ => Value::Null,
    };
    let tracing = match choices.below(5) {
        0 => json!([{"providers": [{"name": "ask"}]}]),
        1 => json!([{"randomSamplingPercentage": 50}]),
        2 => json!([{"match": {"mode": "CLIENT"}, "disableSpanReporting": true}]),
        3 => json!([{"disableSpanReporting": true, "customTags": {"a": {"literal": {"value": "b"}}}}]),
        _ => Value::Null,
    };
    let logging = match choices.below(6) {
        0 => json!([{"providers": [{"name": "envoy"}], "disabled": true}]),
        1 => json!([{"filter": {"expression": "response.code >= 400"}}]),
        2 => json!([{"match": {"mode": "CLIENT"}, "disabled": true}]),
        3 => json!([{"providers": [{"name": "log"}, {"name": "envoy"}], "filter": {"expression": "connection.mtls"}}]),
        _ => Value::Null,
    };
    json!({"metadata": metadata, "spec": {"targetRefs": targets, "tracing": tracing, "accessLogging": logging}})
}

/// How many requests pass: of something, by somebody's count.
fn traffic_policy(choices: &mut Choices<'_>, namespace: &str) -> Value {
    let name = choices.one_of(&["l", "m", "n"]);
    let metadata = policy_metadata(choices, namespace, name);
    let of_gateway_api = |kind, name: &str| json!({"group": "gateway.networking.k8s.io", "kind": kind, "name": name});
    let first = match choices.below(5) {
        0 | 1 => json!({"kind": "Service", "name": choices.one_of(&SERVICES)}),
        2 => of_gateway_api("Gateway", "way"),
        3 => of_gateway_api("GRPCRoute", choices.one_of(&["p", "q"])),
        _ => of_gateway_api("HTTPRoute", choices.one_of(&["p", "q"])),
    };
    let mut second = of_gateway_api("HTTPRoute", choices.one_of(&["p", "q"]));
    second["sectionName"] = choices.one_of(&["named", "other"]).into();
    let balancer = match choices.below(4) {
        0 => json!({"type": "PeakEWMA"}),
        1 => json!({"type": "PeakEWMA", "peakEWMA": {"decay": "5s"}}),
        _ => Value::Null,
    };
    // Of endpoints; and alone, or beside limits.
    if !balancer.is_null() && matches!(first["kind"].as_str(), Some("Service" | "Gateway")) {
        let limits = match choices.below(2) {
            0 => json!({"local": [{"requests": 5, "per": "1m"}]}),
            _ => Value::Null,
        };
        return json!({"metadata": metadata, "spec": {"targetRefs": [first], "rateLimits": limits, "loadBalancer": balancer}});
    }
    let limits = match choices.below(3) {
        0 => json!({"local": [{"requests": 5, "per": "1m", "key": {"type": "CallerIdentity"}}]}),
        1 => json!({"local": [{"requests": 5, "per": "1m"}]}),
        _ => json!({"global": [{
            "service": {"name": choices.one_of(&SERVICES), "port": 80}, "domain": "d",
            "descriptors": [{"entries": [{"key": "k", "type": "Route"}]}],
        }]}),
    };
    json!({"metadata": metadata, "spec": {"targetRefs": [first, second], "rateLimits": limits}})
}

const KINDS: [Kind; 45] = [
    Kind::Namespace,
    Kind::Node,
    Kind::ServiceAccount,
    Kind::Pod,
    Kind::Pod,
    Kind::Pod,
    Kind::Pod,
    Kind::Service,
    Kind::Service,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::EndpointSlice,
    Kind::Endpoints,
    Kind::AuthorizationPolicy,
    Kind::PeerAuthentication,
    Kind::PeerAuthentication,
    Kind::AuthorizationPolicy,
    Kind::RequestAuthentication,
    Kind::RequestAuthentication,
    Kind::GatewayClass,
    Kind::Gateway,
    Kind::Gateway,
    Kind::HttpRoute,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::GrpcRoute,
    Kind::TcpRoute,
    Kind::TcpRoute,
    Kind::TlsRoute,
    Kind::ServiceEntry,
    Kind::ServiceEntry,
    Kind::ServiceEntry,
    Kind::WorkloadEntry,
    Kind::DestinationRule,
    Kind::DestinationRule,
    Kind::DestinationRule,
    Kind::VirtualService,
    Kind::VirtualService,
    Kind::VirtualService,
    Kind::ConfigMap,
    Kind::Telemetry,
    Kind::Telemetry,
    Kind::TrafficPolicy,
    Kind::TrafficPolicy,
    Kind::TrafficPolicy,
];

/// What fetching keys has come to.
fn keys(choices: &mut Choices<'_>) -> Change {
    let source = match choices.below(4) {
        0 => KeySource::Issuer("https://b.example".into()),
        1 => KeySource::Uri("http://b.example/keys".into()),
        _ => KeySource::Uri("https://a.example/keys".into()),
    };
    let trouble = choices.one_of(&[None, Some("503"), Some("not there within 5s")]).map(Into::into);
    let keys = choices.one_of(&[None, Some("{\"keys\":[]}"), Some("{\"keys\":[{\"kty\":\"oct\"}]}")]).map(Into::into);
    let fetched = Fetched { keys, trouble };
    Change::Keys(source, (!choices.seldom()).then(|| fetched.into()))
}

/// The change of a step, and whether what follows from it is asked for at once, or with the next one's.
fn change(step: &Step, kinds: &[Kind]) -> (Change, bool) {
    let [what, kind, rest @ ..] = step;
    let mut choices = Choices(rest.iter(), 0);
    let kind = kinds[usize::from(*kind) % kinds.len()];
    let first = object(kind, &mut choices);
    let change = match what % 16 {
        0..9 => Change::apply(first),
        9 => keys(&mut choices),
        10..15 => Change::Delete(first.key()),
        _ => Change::Replace(kind, vec![object(kind, &mut choices).into(), first.into()]),
    };
    (change, what & 16 == 0)
}

/// By kind and name: the bytes that proxies are told.
type Said = BTreeMap<Name, (Vec<u8>, Audience)>;
type Name = (mesh_model::resource::Kind, String);

fn everyones(resource: &Resource) -> (Name, (Vec<u8>, Audience)) {
    waypoints(resource, &Audience::Everyone)
}

fn waypoints(resource: &Resource, audience: &Audience) -> (Name, (Vec<u8>, Audience)) {
    ((resource.kind(), resource.name()), (resource.encode().to_vec(), audience.clone()))
}

fn take(said: &mut Said, delta: Delta) {
    for gone in &delta.removed {
        said.remove(gone);
    }
    said.extend(delta.resources.iter().map(everyones));
    said.extend(delta.for_waypoints.iter().map(|(r, audience)| waypoints(r, audience)));
}

/// Runs a sequence; the first step after which the two differ, and how.
fn run(steps: &[Step], scene: &Scene) -> Result<(), String> {
    let mesh = &scene.mesh;
    let mut translator = Translator::new(mesh.clone());
    let (mut cluster, mut said, mut statuses) = (Cluster::default(), Said::new(), Vec::new());
    for object in &scene.beginning {
        cluster.apply(object.clone());
        translator.take([Change::apply(object.clone())]);
    }
    for (number, step) in steps.iter().enumerate() {
        let (change, ask) = change(step, scene.kinds);
        if let Change::Keys(source, fetched) = &change {
            cluster.take_keys(source, fetched.clone());
        }
        for (key, object) in cluster.steps(change.clone()) {
            match object {
                Some(object) => cluster.apply(object),
                None => cluster.delete(&key),
            }
        }
        translator.take([change]);
        if !ask && number + 1 < steps.len() {
            continue;
        }
        let delta = translator.translate();
        if delta.statuses_changed {
            statuses = translator.statuses();
        }
        take(&mut said, delta);
        let whole = translate(&cluster, mesh);
        let mut expected: Said = whole.resources.iter().map(everyones).collect();
        expected.extend(whole.for_waypoints.iter().map(|(r, audience)| waypoints(r, audience)));
        if said != expected {
            let names = |a: &Said, b: &Said| {
                let differ = a.iter().filter(|(name, bytes)| b.get(*name) != Some(*bytes));
                differ.map(|((_, name), _)| name.clone()).collect::<Vec<_>>()
            };
            let (more, less) = (names(&said, &expected), names(&expected, &said));
            return Err(format!("step {number}: said {more:?}, expected {less:?}"));
        }
        if statuses != whole.statuses {
            return Err(format!("step {number}: users told {statuses:#?}, expected {:#?}", whole.statuses));
        }
    }
    Ok(())
}

fn fails(steps: &[Step], scene: &Scene) -> Option<String> {
    catch_unwind(AssertUnwindSafe(|| run(steps, scene))).unwrap_or_else(|_| Err("a panic".to_owned())).err()
}

/// The shortest sequence that can be found which fails, too: without steps that do not matter, and with numbers that are
/// as small as they may be.
fn shrink(mut steps: Vec<Step>, scene: &Scene) -> Vec<Step> {
    loop {
        let before = steps.clone();
        let mut size = steps.len() / 2;
        while size > 0 {
            let mut at = 0;
            while at + size <= steps.len() {
                let mut fewer = steps.clone();
                fewer.drain(at..at + size);
                match fails(&fewer, scene) {
                    Some(_) => steps = fewer,
                    None => at += 1,
                }
            }
            size /= 2;
        }
        let length = steps.first().map_or(0, |step| step.len());
        for (step, byte) in (0..steps.len()).flat_map(|step| (0..length).map(move |byte| (step, byte))) {
            let mut simpler = steps.clone();
            simpler[step][byte] = 0;
            if simpler != steps && fails(&simpler, scene).is_some() {
                steps = simpler;
            }
        }
        if steps == before {
            return steps;
        }
    }
}

#[test]
fn changes_one_by_one_come_to_what_the_whole_says() {
    search(|mesh| Scene { mesh, kinds: &KINDS, beginning: Vec::new() });
}

/// What depends on a waypoint needs one: here there is one, and whatever changes is behind it.
///
/// Seen red while a change of a pod did not say the routes of its services anew.
#[test]
fn so_do_changes_of_services_that_have_a_waypoint() {
    const BEHIND: [Kind; 14] = [
        Kind::Pod,
        Kind::Pod,
        Kind::Pod,
        Kind::Service,
        Kind::WorkloadEntry,
        Kind::DestinationRule,
        Kind::DestinationRule,
        Kind::DestinationRule,
        Kind::VirtualService,
        Kind::VirtualService,
        Kind::HttpRoute,
        Kind::TcpRoute,
        Kind::TcpRoute,
        Kind::TlsRoute,
    ];
    let waypoint = json!({"istio.io/use-waypoint": "way", "istio.io/use-waypoint-namespace": "shop"});
    let namespace = |name: &str| json!({"metadata": {"name": name, "labels": waypoint}});
    let listener = json!({
        "name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": {"namespaces": {"from": "All"}},
    });
    let gateway = json!({
        "metadata": {"name": "way", "namespace": "shop"},
        "spec": {"gatewayClassName": "ambit-waypoint", "listeners": [listener]},
    });
    let beginning: Vec<Object> =
        [(Kind::Namespace, namespace("shop")), (Kind::Namespace, namespace("bank")), (Kind::Gateway, gateway)]
            .map(|(kind, value)| Object::from_value(kind, &value).unwrap())
            .into();
    search(|mesh| Scene { mesh, kinds: &BEHIND, beginning: beginning.clone() });
}

/// What depends on other networks: their gateways, who is there, and which network is this one.
#[test]
fn so_do_changes_of_other_networks_and_their_gateways() {
    const ELSEWHERE: [Kind; 9] = [
        Kind::Namespace,
        Kind::Gateway,
        Kind::Gateway,
        Kind::Gateway,
        Kind::GatewayClass,
        Kind::Service,
        Kind::ServiceEntry,
        Kind::WorkloadEntry,
        Kind::WorkloadEntry,
    ];
    search(|mesh| Scene { mesh, kinds: &ELSEWHERE, beginning: Vec::new() });
}

/// Where changes are made, and of what.
struct Scene {
    mesh: Mesh,
    kinds: &'static [Kind],
    beginning: Vec<Object>,
}

fn search(scene: impl Fn(Mesh) -> Scene) {
    let sequences = std::env::var("INCREMENTAL_SEQUENCES").map_or(SEQUENCES, |n| n.parse().unwrap());
    for seed in 1..=sequences {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        let steps: Vec<Step> = (0..STEPS).map(|_| std::array::from_fn(|_| random())).collect();
        let mode = match seed % 3 {
            0 => Mode::WaypointsOnly { classes: vec!["istio-waypoint".to_owned()] },
            _ => Mode::Mesh,
        };
        let mesh = Mesh { cluster_id: ["Kubernetes", "west"][seed as usize % 2].into(), mode, ..Mesh::default() };
        let scene = scene(mesh);
        if fails(&steps, &scene).is_some() {
            let steps = shrink(steps, &scene);
            let why = fails(&steps, &scene).unwrap_or_default();
            let changes: Vec<String> = steps.iter().map(|step| show(&change(step, scene.kinds))).collect();
            panic!("seed {seed}: {why}\nby {steps:?}:\n{}", changes.join("\n"));
        }
    }
}

fn show((change, ask): &(Change, bool)) -> String {
    let text = |object: &Kept| format!("{object:?}");
    let what = match change {
        Change::Apply(object) => format!("apply {}", text(object)),
        Change::Delete(key) => format!("delete {key}"),
        Change::Keys(source, fetched) => format!("keys of {source}: {fetched:?}"),
        Change::Replace(kind, all) => {
            format!("replace all {kind}: {}", all.iter().map(text).collect::<Vec<_>>().join(", "))
        }
    };
    format!("{what}{}", if *ask { "" } else { " (and the next)" })
}

/// What one change costs, counted: objects that are translated for it, in a mesh of 300 pods and 30 services.
#[test]
fn a_change_costs_as_much_as_depends_on_it() {
    let at = |n: usize| json!([{"ip": format!("10.1.{}.{}", n / 250, n % 250 + 1)}]);
    let pod = |n: usize, ready: &str| {
        let value = json!({
            "metadata": {"name": format!("p{n}"), "namespace": NAMESPACES[n % 2], "labels": {"app": format!("app{}", n / 10)}},
            "spec": {"containers": [], "nodeName": NODES[n % 2]},
            "status": {"phase": "Running", "podIPs": at(n), "conditions": [{"type": "Ready", "status": ready}]},
        });
        Object::from_value(Kind::Pod, &value).unwrap()
    };
    let service = |n: usize, port: u16| {
        let value = json!({
            "metadata": {"name": format!("app{n}"), "namespace": "shop"},
            "spec": {"clusterIP": format!("10.96.0.{n}"), "selector": {"app": format!("app{n}")}, "ports": [{"port": port}]},
        });
        Object::from_value(Kind::Service, &value).unwrap()
    };
    let policy = |kind, selector: Value| {
        let spec = if selector.is_null() { json!({}) } else { json!({"selector": {"matchLabels": selector}}) };
        Object::from_value(kind, &json!({"metadata": {"name": "x", "namespace": "shop"}, "spec": spec})).unwrap()
    };
    let mut translator = Translator::new(Mesh::default());
    translator.take((0..300).map(|n| Change::apply(pod(n, "True"))));
    translator.take((0..30).map(|n| Change::apply(service(n, 80))));
    assert_eq!(translator.translate().resources.len(), 330);
    let mut strict = policy(Kind::PeerAuthentication, Value::Null);
    if let Object::PeerAuthentication(object) = &mut strict {
        std::sync::Arc::make_mut(object).spec.mtls.mode = istiod_lite::resources::peer_authentication::Mode::Strict;
    }
    for (what, change, resources) in [
        ("the same again", Change::apply(pod(0, "True")), 0),
        ("a pod that is not ready", Change::apply(pod(0, "False")), 1),
        ("a pod that goes", Change::Delete(pod(2, "True").key()), 0),
        // Its five pods of the namespace, of which one is gone.
        ("a service with another port", Change::apply(service(0, 81)), 1 + 4),
        ("a policy for a namespace", Change::apply(policy(Kind::AuthorizationPolicy, Value::Null)), 1),
        ("a policy for five pods", Change::apply(policy(Kind::AuthorizationPolicy, json!({"app": "app7"}))), 1 + 5),
        ("STRICT in a namespace of 149 pods", Change::apply(strict), 1 + 149),
        (
            "a node without pods",
            Change::apply(Object::from_value(Kind::Node, &json!({"metadata": {"name": "n9"}})).unwrap()),
            0,
        ),
        ("a pod that nobody selects", Change::Delete(Key::new(Kind::Pod, Some("bank"), "nobody")), 0),
    ] {
        translator.take([change]);
        assert_eq!(translator.translate().resources.len(), resources, "{what}");
    }
}
