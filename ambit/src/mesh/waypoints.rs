//! Waypoints: for each Gateway of a waypoint's class the Pod and the Service that a control plane's deployer would make on a
//! cluster. Pure.
use crate::manifest::objects::{Key, Objects};
use crate::manifest::rejected::{Position, Rejected};
use istiod_lite::resources::Gateway;
use k8s_openapi::api::core::v1::{Pod, Service};
use mesh_model::labels;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The command that runs one.
const PROGRAM: &str = "waypoint";
/// Label on what is made for a Gateway: its class.
const GATEWAY_CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";
const HBONE: u16 = 15008;
const READINESS: u16 = 15021;

/// What every waypoint is told.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Settings that are the same for all.
    pub(crate) env: Vec<(String, String)>,
    /// Where their tokens are.
    pub(crate) tokens: PathBuf,
}

/// The file with a waypoint's token.
pub(crate) fn token(tokens: &Path, pod: &Key) -> PathBuf {
    tokens.join(format!("{}_{}.token", pod.0, pod.1))
}

/// Adds what belongs to Gateways. A name that the user has given to something else stays the user's: said in `rejected`.
pub(crate) fn add(objects: &mut Objects, settings: &Settings, rejected: &mut Vec<Rejected>) {
    for (key, gateway) in &objects.gateways {
        if !gateway.is_waypoint() || gateway.is_run_elsewhere() {
            continue;
        }
        let pod_key = (key.0.clone(), format!("{}-1", key.1));
        let (Some(pod), Some(service)) = (pod(key, &pod_key, gateway, settings), service(key, gateway)) else {
            continue;
        };
        if objects.pods.contains_key(&pod_key) {
            let what = format!(
                "Gateway {}/{}: its waypoint cannot run, because there is a Pod {} already: name one of them otherwise",
                key.0, key.1, pod_key.1
            );
            rejected.push(Rejected::note(Position::default(), what));
            continue;
        }
        objects.waypoints.insert(pod_key.clone());
        objects.pods.insert(pod_key, pod);
        // One that the user has written is taken for it, as on a cluster.
        objects.services.entry(key.clone()).or_insert(service);
    }
}

/// Labels of what is made for a Gateway: its own words for it, and by what it is known.
fn made_for(key: &Key, gateway: &Gateway) -> BTreeMap<String, String> {
    let wished = gateway.spec.infrastructure.as_ref().map(|infrastructure| infrastructure.labels.clone());
    let mut all = wished.unwrap_or_default();
    all.insert(labels::GATEWAY_NAME.to_owned(), key.1.clone());
    all.insert(GATEWAY_CLASS.to_owned(), gateway.spec.gateway_class_name.clone());
    all
}

fn annotations(gateway: &Gateway) -> BTreeMap<String, String> {
    gateway.spec.infrastructure.as_ref().map(|infrastructure| infrastructure.annotations.clone()).unwrap_or_default()
}

fn pod(key: &Key, pod: &Key, gateway: &Gateway, settings: &Settings) -> Option<Pod> {
    let mut labels = made_for(key, gateway);
    // It speaks HBONE itself, and nothing of it is captured.
    labels.insert(labels::DATAPLANE_MODE.to_owned(), labels::DATAPLANE_MODE_NONE.to_owned());
    labels.insert(labels::CANONICAL_NAME.to_owned(), key.1.clone());
    let token = token(&settings.tokens, pod).display().to_string();
    let own = [("GATEWAY_NAME", &key.1), ("SERVICE_ACCOUNT", &key.1), ("AUTH_TOKEN", &token)];
    let own = own.map(|(name, value)| json!({"name": name, "value": value}));
    let from = [
        ("POD_NAME", "metadata.name"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("INSTANCE_IP", "status.podIP"),
        ("NODE_NAME", "spec.nodeName"),
    ];
    let from = from.map(|(name, path)| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}));
    let common = settings.env.iter().map(|(name, value)| json!({"name": name, "value": value}));
    let env: Vec<Value> = common.chain(own).chain(from).collect();
    let container = json!({
        "name": "istio-proxy",
        "command": ["ambit", PROGRAM],
        "env": env,
        "ports": [{"name": "mesh", "containerPort": HBONE}],
        "readinessProbe": {"httpGet": {"path": "/healthz/ready", "port": READINESS}, "periodSeconds": 1},
    });
    let metadata = json!({
        "name": pod.1, "namespace": pod.0, "labels": labels, "annotations": annotations(gateway),
    });
    let spec = json!({"serviceAccountName": key.1, "containers": [container]});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).ok()
}

fn service(key: &Key, gateway: &Gateway) -> Option<Service> {
    let metadata = json!({
        "name": key.1, "namespace": key.0, "labels": made_for(key, gateway), "annotations": annotations(gateway),
    });
    let spec = json!({
        "selector": {labels::GATEWAY_NAME: key.1},
        "ipFamilyPolicy": "PreferDualStack",
        "trafficDistribution": "PreferClose",
        "ports": [
            {"name": "status-port", "port": READINESS, "protocol": "TCP"},
            {"name": "mesh", "port": HBONE, "appProtocol": "hbone", "protocol": "TCP"},
        ],
    });
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(rest: &str) -> Gateway {
        let text = format!(
            "{{metadata: {{name: way, namespace: shop}}, spec: {{gatewayClassName: ambit-waypoint, listeners: [{{name: mesh, \
             port: 15008, protocol: HBONE}}]{rest}}}}}"
        );
        serde_saphyr::from_str(&text).unwrap()
    }

    fn made(gateway: Gateway, pods: &[&str]) -> (Objects, Vec<Rejected>) {
        let key = |name: &str| ("shop".to_owned(), name.to_owned());
        let mut objects = Objects::default();
        objects.gateways.insert(key("way"), gateway);
        objects.pods.extend(pods.iter().map(|name| (key(name), Pod::default())));
        let env = vec![("XDS_ADDRESS".to_owned(), "https://172.30.0.1:15012".to_owned())];
        let mut rejected = Vec::new();
        add(&mut objects, &Settings { env, tokens: "/run/tokens".into() }, &mut rejected);
        (objects, rejected)
    }

    #[test]
    fn a_gateway_comes_to_a_pod_and_a_service() {
        let rest = ", infrastructure: {labels: {team: a}, annotations: {note: b}}";
        let (objects, rejected) = made(gateway(rest), &[]);
        assert_eq!(rejected, []);
        let (key, pod) = objects.pods.first_key_value().unwrap();
        assert_eq!(key.1, "way-1");
        assert!(objects.waypoints.contains(key));
        let labels = pod.metadata.labels.as_ref().unwrap();
        assert_eq!((&*labels["istio.io/dataplane-mode"], &*labels["team"]), ("none", "a"));
        assert_eq!(pod.metadata.annotations.as_ref().unwrap()["note"], "b");
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!(spec.service_account_name.as_deref(), Some("way"));
        let env = spec.containers[0].env.as_ref().unwrap();
        let value = |name: &str| env.iter().find(|e| e.name == name).and_then(|e| e.value.as_deref());
        assert_eq!(value("AUTH_TOKEN"), Some("/run/tokens/shop_way-1.token"));
        assert_eq!((value("GATEWAY_NAME"), value("XDS_ADDRESS")), (Some("way"), Some("https://172.30.0.1:15012")));
        let (key, service) = objects.services.first_key_value().unwrap();
        assert_eq!(key.1, "way");
        let selector = service.spec.as_ref().unwrap().selector.as_ref().unwrap();
        assert!(selector.iter().all(|(name, value)| labels.get(name) == Some(value)));
    }

    #[test]
    fn what_somebody_else_runs_is_not_run() {
        for other in [gateway(", addresses: [{value: 10.0.0.1}]"), {
            let mut gateway = gateway("");
            gateway.spec.gateway_class_name = "nginx".into();
            gateway
        }] {
            let (objects, rejected) = made(other, &[]);
            assert!(objects.pods.is_empty() && objects.services.is_empty() && rejected.is_empty());
        }
        let (objects, rejected) = made(gateway(""), &["way-1"]);
        assert!(objects.waypoints.is_empty() && rejected.len() == 1, "the user's pod stays the user's");
    }
}
