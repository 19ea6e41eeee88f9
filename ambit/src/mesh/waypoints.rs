//! Waypoints: for each Gateway of a waypoint's class the Pod and the Service that a control plane's deployer would make on a
//! cluster. Pure.
use crate::manifest::objects::{Key, Objects};
use crate::manifest::rejected::{Position, Rejected};
use istiod_lite::resources::Gateway;
use istiod_lite::resources::waypoint_parameters as parameters;
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
/// Most pods of a waypoint: each is a program of this machine.
const MOST: usize = 20;

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

/// Adds what belongs to Gateways. A name that the user has given to something else stays the user's: said in `rejected`. `sizes` has
/// how many pods each was last well said to have: what cannot be followed changes nothing.
pub(crate) fn add(
    objects: &mut Objects,
    settings: &Settings,
    sizes: &mut BTreeMap<Key, usize>,
    rejected: &mut Vec<Rejected>,
) {
    sizes.retain(|key, _| objects.gateways.contains_key(key));
    for (key, gateway) in &objects.gateways {
        if !gateway.is_waypoint() || gateway.is_run_elsewhere() {
            continue;
        }
        let mut tell = |what: String| {
            rejected.push(Rejected::note(Position::default(), format!("Gateway {}/{}: {what}", key.0, key.1)))
        };
        match wanted(key, gateway, objects) {
            Ok((size, ignored)) => {
                sizes.insert(key.clone(), size);
                ignored.into_iter().for_each(&mut tell);
            }
            Err(why) => tell(format!("{why} (how many pods it has stays as it was)")),
        }
        let size = sizes.get(key).copied().unwrap_or(1);
        let mut made = Vec::new();
        for number in 1..=size {
            let pod_key = (key.0.clone(), format!("{}-{number}", key.1));
            if objects.pods.contains_key(&pod_key) {
                tell(format!(
                    "its waypoint cannot run as {0}, because there is a Pod {0} already: name one of them otherwise",
                    pod_key.1
                ));
            } else if let Some(pod) = pod(key, &pod_key, gateway, settings) {
                made.push((pod_key, pod));
            }
        }
        if made.is_empty() && size > 0 {
            continue;
        }
        objects.waypoints.extend(made.iter().map(|(key, _)| key.clone()));
        objects.pods.extend(made);
        if let Some(service) = service(key, gateway) {
            // One that the user has written is taken for it, as on a cluster.
            objects.services.entry(key.clone()).or_insert(service);
        }
    }
}

/// How many pods a Gateway's ConfigMap asks for, and what of it is not followed here.
fn wanted(key: &Key, gateway: &Gateway, objects: &Objects) -> Result<(usize, Option<String>), String> {
    let Some(name) = gateway.parameters() else { return Ok((1, None)) };
    let named = format!("ConfigMap {name}, which spec.infrastructure.parametersRef names");
    let Some(map) = objects.config_maps.get(&(key.0.clone(), name.to_owned())) else {
        return Err(format!(
            "there is no {named}, or none with a key that says how to run: write it, or remove the reference"
        ));
    };
    let data = map.data.clone().unwrap_or_default();
    let read = parameters::read(&data).and_then(|read| Ok((read.pods(MOST)?, read)));
    let (pods, read) = read.map_err(|error| format!("{named}: {error}"))?;
    let ignored = || format!("of {named}, only how many replicas there are is followed under `ambit up`");
    Ok((pods.unwrap_or(1), read.sets_more().then(ignored)))
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
    use k8s_openapi::api::core::v1::ConfigMap;

    fn gateway(rest: &str) -> Gateway {
        let text = format!(
            "{{metadata: {{name: way, namespace: shop}}, spec: {{gatewayClassName: ambit-waypoint, listeners: [{{name: mesh, \
             port: 15008, protocol: HBONE}}]{rest}}}}}"
        );
        serde_saphyr::from_str(&text).unwrap()
    }

    fn made(gateway: Gateway, pods: &[&str]) -> (Objects, Vec<Rejected>) {
        sized(gateway, pods, None, &mut BTreeMap::new())
    }

    fn sized(
        gateway: Gateway,
        pods: &[&str],
        parameters: Option<&str>,
        sizes: &mut BTreeMap<Key, usize>,
    ) -> (Objects, Vec<Rejected>) {
        let key = |name: &str| ("shop".to_owned(), name.to_owned());
        let mut objects = Objects::default();
        objects.gateways.insert(key("way"), gateway);
        objects.pods.extend(pods.iter().map(|name| (key(name), Pod::default())));
        let env = vec![("XDS_ADDRESS".to_owned(), "https://172.30.0.1:15012".to_owned())];
        let mut rejected = Vec::new();
        objects.config_maps.extend(parameters.map(|data| {
            let data = Some([("deployment".to_owned(), data.to_owned())].into());
            (key("size"), ConfigMap { data, ..ConfigMap::default() })
        }));
        add(&mut objects, &Settings { env, tokens: "/run/tokens".into() }, sizes, &mut rejected);
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

    /// As many pods as its ConfigMap says; what cannot be followed changes nothing, and is told.
    #[test]
    fn a_config_map_says_how_many_pods() {
        let refers = ", infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: size}}";
        let mut sizes = BTreeMap::new();
        for (parameters, pods, told) in [
            (None, 1, Some("there is no ConfigMap size")),
            (Some("{spec: {replicas: 3}}"), 3, None),
            (Some("{spec: {replicas: 300}}"), 3, Some("a number up to 20")),
            (Some("{spec: {replica: 2}}"), 3, Some("spec.replica: cannot be set")),
            (None, 3, Some("there is no ConfigMap size")),
            (
                Some("{spec: {replicas: 2, template: {spec: {nodeSelector: {a: b}}}}}"),
                2,
                Some("only how many replicas"),
            ),
            (Some("{spec: {replicas: 0}}"), 0, None),
            (Some("{spec: {}}"), 1, None),
        ] {
            let (objects, rejected) = sized(gateway(refers), &[], parameters, &mut sizes);
            let names: Vec<_> = (1..=pods).map(|n| ("shop".to_owned(), format!("way-{n}"))).collect();
            assert_eq!(objects.waypoints.iter().cloned().collect::<Vec<_>>(), names, "{parameters:?}");
            assert_eq!((objects.pods.len(), objects.services.len()), (pods, 1));
            assert_eq!(rejected.len(), usize::from(told.is_some()), "{rejected:?}");
            assert!(told.is_none_or(|told| rejected[0].reason.contains(told)), "{rejected:?}");
        }
        let (objects, rejected) = sized(gateway(refers), &["way-2"], Some("{spec: {replicas: 3}}"), &mut sizes);
        assert_eq!((objects.waypoints.len(), rejected.len()), (2, 1), "the user's pod stays the user's");
        let (objects, _) = sized(gateway(""), &[], None, &mut sizes);
        assert_eq!(objects.waypoints.len(), 1, "without a reference it is one");
    }
}
