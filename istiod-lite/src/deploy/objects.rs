//! Gateway → the objects of a cluster that run its waypoint: ServiceAccount, Service and Deployment, all of its name, and where
//! they are asked for HorizontalPodAutoscaler and PodDisruptionBudget. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_kube::Resource;
use mesh_model::labels;
use serde_json::{Map, Value, json};

use super::settings::Settings;
use crate::cluster::relations;
use crate::resources::Gateway;
use crate::resources::gateway_api::gateway::HBONE_PORT;
use crate::resources::waypoint_parameters::{CONTAINER, Parameters};

const DEPLOYMENTS: Resource = Resource { group: "apps", versions: &["v1"], plural: "deployments" };
const AUTOSCALERS: Resource = Resource { group: "autoscaling", versions: &["v2"], plural: "horizontalpodautoscalers" };
const BUDGETS: Resource = Resource { group: "policy", versions: &["v1"], plural: "poddisruptionbudgets" };
/// What a waypoint may have or not.
pub(super) const OPTIONAL: [Resource; 2] = [AUTOSCALERS, BUDGETS];
/// Label on what is made for a Gateway: its class.
const CLASS: &str = "gateway.networking.k8s.io/gateway-class-name";
/// Label on what is made for a Gateway: who made it.
const MANAGED: &str = "gateway.istio.io/managed";
const MANAGED_BY: &str = "ambit.dev-waypoint-controller";
const READINESS: u16 = 15021;
const METRICS: u16 = 15020;

/// In the order in which they are made.
pub(super) fn of(gateway: &Gateway, settings: &Settings, parameters: &Parameters) -> Vec<(Resource, Value)> {
    let name = gateway.metadata.name.as_deref().unwrap_or("");
    let wished = gateway.spec.infrastructure.clone().unwrap_or_default();
    let mut all = wished.labels;
    all.insert(labels::GATEWAY_NAME.to_owned(), name.to_owned());
    all.insert(CLASS.to_owned(), gateway.spec.gateway_class_name.clone());
    all.insert(MANAGED.to_owned(), MANAGED_BY.to_owned());
    let metadata = metadata(&gateway.metadata, &all, &wished.annotations);
    let selector = json!({labels::GATEWAY_NAME: name});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "selector": selector,
            "ipFamilyPolicy": "PreferDualStack",
            "trafficDistribution": "PreferClose",
            "ports": [
                {"name": "status-port", "port": READINESS, "protocol": "TCP", "targetPort": READINESS},
                {"name": "mesh", "port": HBONE_PORT, "protocol": "TCP", "targetPort": HBONE_PORT, "appProtocol": "hbone"},
            ],
        },
    });
    let mut deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": pod_metadata(name, all, wished.annotations), "spec": pod(name, settings, parameters)},
        },
    });
    // Where it is not set, how many is somebody else's to say, an autoscaler's for example.
    if let Some(replicas) = &parameters.replicas {
        deployment["spec"]["replicas"] = replicas.clone();
    }
    let optional = |(api_version, kind): (&str, &str), (field, of): (&str, Value), set: &Map<String, Value>| {
        let mut spec = set.clone();
        spec.insert(field.to_owned(), of);
        json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})
    };
    let autoscaler = parameters.autoscaler.as_ref().map(|set| {
        let scaled = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        (AUTOSCALERS, optional(("autoscaling/v2", "HorizontalPodAutoscaler"), ("scaleTargetRef", scaled), set))
    });
    let budget = parameters.budget.as_ref().map(|set| {
        let pods = json!({"matchLabels": selector});
        (BUDGETS, optional(("policy/v1", "PodDisruptionBudget"), ("selector", pods), set))
    });
    let always = [
        (Resource::core("serviceaccounts"), account),
        (Resource::core("services"), service),
        (DEPLOYMENTS, deployment),
    ];
    always.into_iter().chain(autoscaler).chain(budget).collect()
}

/// Whether this is what was made for the Gateway with this UID, and no object of somebody else that has its name.
pub(super) fn is_of(object: &Value, gateway: &str) -> bool {
    let owners = object["metadata"]["ownerReferences"].as_array();
    object["metadata"]["labels"][MANAGED] == MANAGED_BY
        && owners.into_iter().flatten().any(|owner| owner["uid"] == gateway)
}

/// When the Gateway goes, the cluster removes what it owns.
fn metadata(gateway: &ObjectMeta, labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> Value {
    json!({
        "name": gateway.name,
        "namespace": relations::namespace(gateway),
        "labels": labels,
        "annotations": annotations,
        "ownerReferences": [{
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": gateway.name, "uid": gateway.uid,
        }],
    })
}

fn pod_metadata(name: &str, mut all: BTreeMap<String, String>, mut annotations: BTreeMap<String, String>) -> Value {
    all.insert(labels::DATAPLANE_MODE.to_owned(), labels::DATAPLANE_MODE_NONE.to_owned());
    all.insert("sidecar.istio.io/inject".to_owned(), "false".to_owned());
    all.insert(labels::CANONICAL_NAME.to_owned(), name.to_owned());
    all.insert(labels::CANONICAL_REVISION.to_owned(), "latest".to_owned());
    for (key, value) in [
        ("prometheus.io/scrape", "true".to_owned()),
        ("prometheus.io/port", METRICS.to_string()),
        ("prometheus.io/path", "/metrics".to_owned()),
    ] {
        annotations.entry(key.to_owned()).or_insert(value);
    }
    json!({"labels": all, "annotations": annotations})
}

fn pod(name: &str, settings: &Settings, parameters: &Parameters) -> Value {
    let set = |name: &str, value: &str| json!({"name": name, "value": value});
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let ready = json!({"path": "/healthz/ready", "port": READINESS});
    let volume = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let mut container = json!({
        "name": CONTAINER,
        "image": settings.image,
        "args": ["waypoint"],
        "ports": [
            {"name": "mesh", "containerPort": HBONE_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": METRICS, "protocol": "TCP"},
            {"name": "status-port", "containerPort": READINESS, "protocol": "TCP"},
        ],
        "startupProbe": {"httpGet": ready, "periodSeconds": 1, "failureThreshold": 30},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 5, "failureThreshold": 4},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "env": [
            set("XDS_ADDRESS", &settings.control_plane),
            set("CA_ADDRESS", &settings.ca),
            set("CLUSTER_ID", &settings.cluster_id),
            set("GATEWAY_NAME", name),
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("INSTANCE_IP", "status.podIP"),
            field("NODE_NAME", "spec.nodeName"),
            field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        ],
        "volumeMounts": [
            volume("root", "/var/run/secrets/istio"),
            volume("token", "/var/run/secrets/tokens"),
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    });
    if let (Some(root), Some(env)) = (&settings.serving_root, container["env"].as_array_mut()) {
        // The root of the mesh, which is mounted, is whom it trusts for everything else.
        env.push(set("XDS_ROOT_CA", root));
    }
    if let Some(resources) = &parameters.resources {
        container["resources"] = resources.clone();
    }
    let token =
        json!({"serviceAccountToken": {"audience": "istio-ca", "expirationSeconds": 43200, "path": "istio-token"}});
    let mut spec = parameters.pod.clone();
    for (key, value) in [
        ("serviceAccountName", json!(name)),
        // It asks the API server nothing.
        ("automountServiceAccountToken", json!(false)),
        ("terminationGracePeriodSeconds", json!(30)),
        (
            "securityContext",
            json!({
                "runAsNonRoot": true, "runAsUser": 1337, "runAsGroup": 1337, "fsGroup": 1337,
                "seccompProfile": {"type": "RuntimeDefault"},
            }),
        ),
        ("containers", json!([container])),
        (
            "volumes",
            json!([
                {"name": "root", "configMap": {"name": settings.root_map}},
                {"name": "token", "projected": {"sources": [token]}},
                {"name": "tmp", "emptyDir": {}},
            ]),
        ),
    ] {
        spec.insert(key.to_owned(), value);
    }
    Value::Object(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{Kind, Object};

    fn gateway() -> Gateway {
        let text = "{metadata: {name: way, namespace: shop, uid: u}, spec: {gatewayClassName: ambit-waypoint, listeners: [{name: \
                    mesh, port: 15008, protocol: HBONE}], infrastructure: {labels: {team: a}, annotations: {note: b}}}}";
        let value = serde_saphyr::from_str(text).unwrap();
        let Object::Gateway(gateway) = Object::from_value(Kind::Gateway, &value).unwrap() else { panic!() };
        std::sync::Arc::unwrap_or_clone(gateway)
    }

    fn settings() -> Settings {
        Settings {
            image: "ambit:1".into(),
            control_plane: "https://istiod.istio-system.svc:15012".into(),
            ca: "https://istiod.istio-system.svc:15012".into(),
            mode: crate::mode::Mode::Mesh,
            serving_root: None,
            cluster_id: "Kubernetes".into(),
            root_map: "istio-ca-root-cert".into(),
            classes: vec!["ambit-waypoint".into()],
        }
    }

    /// They are what the API's own types take, and their labels fit each other.
    #[test]
    fn a_gateway_comes_to_three_objects() {
        let all: Vec<Value> = of(&gateway(), &settings(), &Parameters::default()).into_iter().map(|(_, o)| o).collect();
        let [account, service, deployment] = &all[..] else { panic!("{all:?}") };
        assert!(Object::from_value(Kind::ServiceAccount, account).is_ok());
        let Object::Service(service) = Object::from_value(Kind::Service, service).unwrap() else { panic!() };
        let read: k8s_openapi::api::apps::v1::Deployment = serde_json::from_value(deployment.clone()).unwrap();
        let template = read.spec.template;
        let labels = template.metadata.unwrap().labels.unwrap();
        let selector = service.spec.as_ref().unwrap().selector.as_ref().unwrap();
        assert!(selector.iter().all(|(key, value)| labels.get(key) == Some(value)));
        assert_eq!((&*labels["istio.io/dataplane-mode"], &*labels["team"]), ("none", "a"));
        for object in [account, deployment] {
            assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u");
            assert_eq!(object["metadata"]["annotations"]["note"], "b");
            assert!(is_of(object, "u") && !is_of(object, "another"));
        }
        assert_eq!(deployment["spec"]["template"]["spec"]["serviceAccountName"], "way");
        assert_eq!(deployment["spec"].get("replicas"), None);
    }

    /// Beside istiod: we say what it does, and istiod who it is.
    #[test]
    fn it_has_two_control_planes_each_with_its_root() {
        let env = |settings: &Settings| {
            let all = of(&gateway(), settings, &Parameters::default());
            let (_, deployment) = all.into_iter().find(|(resource, _)| *resource == DEPLOYMENTS).unwrap();
            let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].clone();
            let value = |name: &str| {
                let set = env.as_array().unwrap().iter().find(|set| set["name"] == name)?;
                set["value"].as_str().map(str::to_owned)
            };
            ["XDS_ADDRESS", "CA_ADDRESS", "XDS_ROOT_CA", "CA_ROOT_CA"].map(value)
        };
        let istiod = "https://istiod.istio-system.svc:15012".to_owned();
        assert_eq!(env(&settings()), [Some(istiod.clone()), Some(istiod.clone()), None, None]);
        let us = "https://istiod-lite.istio-system.svc:15012".to_owned();
        let beside = Settings { control_plane: us.clone(), serving_root: Some("-----BEGIN".to_owned()), ..settings() };
        assert_eq!(env(&beside), [Some(us), Some(istiod), Some("-----BEGIN".to_owned()), None]);
    }

    #[test]
    fn what_people_set_is_beside_what_is_made() {
        let set = |value: Value| value.as_object().cloned().unwrap();
        let parameters = Parameters {
            replicas: Some(json!(2)),
            pod: set(json!({"nodeSelector": {"a": "b"}})),
            resources: Some(json!({"requests": {"cpu": "100m"}})),
            autoscaler: Some(set(json!({"maxReplicas": 5}))),
            budget: Some(set(json!({"minAvailable": 1}))),
        };
        let all: Vec<Value> = of(&gateway(), &settings(), &parameters).into_iter().map(|(_, o)| o).collect();
        let [_, _, deployment, autoscaler, budget] = &all[..] else { panic!("{all:?}") };
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!((&deployment["spec"]["replicas"], &pod["nodeSelector"]["a"]), (&json!(2), &json!("b")));
        assert_eq!(pod["containers"][0]["resources"]["requests"]["cpu"], "100m");
        assert_eq!((&pod["containers"][0]["image"], &pod["serviceAccountName"]), (&json!("ambit:1"), &json!("way")));
        let scaled = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "way"});
        assert_eq!(autoscaler["spec"], json!({"maxReplicas": 5, "scaleTargetRef": scaled}));
        assert_eq!(budget["spec"], json!({"minAvailable": 1, "selector": deployment["spec"]["selector"]}));
        assert!(is_of(autoscaler, "u") && is_of(budget, "u"));
    }
}
