//! What people may set of how a waypoint runs: the ConfigMap that `spec.infrastructure.parametersRef` of its Gateway names. Pure.
//!
//! Its keys hold parts of the objects that are made, in YAML, as in Istio. Only what is listed here may be set: who may write a
//! ConfigMap is not who may choose an image, a volume, a security context or an account. What the values of a field may be the
//! API server knows best; it is the one that judges them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::field::{FieldError, FieldPath};

/// Longest text of a key, in bytes: more than any use of the fields below takes.
const MOST: usize = 64 * 1024;
/// The container of the pods, as Istio calls it.
pub const CONTAINER: &str = "istio-proxy";
/// The keys.
const KEYS: [&str; 3] = ["deployment", "horizontalPodAutoscaler", "podDisruptionBudget"];
const POD: &str = "spec.template.spec";
const CONTAINERS: &str = "spec.template.spec.containers";
const REPLICAS: &str = "spec.replicas";

/// A part of each object that people have set, with only the fields that they may.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// Of the Deployment: `replicas`.
    pub replicas: Option<Value>,
    /// Of its pods.
    pub pod: Map<String, Value>,
    /// Of their container.
    pub resources: Option<Value>,
    /// `spec` of a HorizontalPodAutoscaler, but for what it scales.
    pub autoscaler: Option<Map<String, Value>>,
    /// `spec` of a PodDisruptionBudget, but for whose it is.
    pub budget: Option<Map<String, Value>>,
}

/// Whether an object that is a ConfigMap can be meant: it has one of the keys. Which one is meant, a Gateway says.
pub fn may_be(value: &Value) -> bool {
    let data = value.get("data").and_then(Value::as_object);
    data.is_some_and(|data| KEYS.iter().any(|key| data.contains_key(*key)))
}

/// Reads the `data` of such a ConfigMap.
///
/// # Errors
/// What may not be set, or is no YAML.
pub fn read(data: &BTreeMap<String, String>) -> Result<Parameters, FieldError> {
    let mut parameters = Parameters::default();
    for (key, text) in data {
        let at = FieldPath(vec![]).field("data").field(key);
        if text.len() > MOST {
            return Err(at.error(format!("more than {MOST} bytes")));
        }
        let value = || serde_saphyr::from_str::<Value>(text).map_err(|e| at.error(format!("no YAML: {e}")));
        match &**key {
            "deployment" => deployment(&value()?, &at, &mut parameters)?,
            "horizontalPodAutoscaler" => {
                let fields = ["minReplicas", "maxReplicas", "metrics", "behavior"];
                let spec = spec(&value()?, &at, &fields)?;
                if !spec.contains_key("maxReplicas") {
                    return Err(at.field("spec").field("maxReplicas").error("missing: an autoscaler needs it"));
                }
                parameters.autoscaler = Some(spec);
            }
            "podDisruptionBudget" => {
                let fields = ["minAvailable", "maxUnavailable", "unhealthyPodEvictionPolicy"];
                parameters.budget = Some(spec(&value()?, &at, &fields)?);
            }
            _ => {
                return Err(at.error(
                    "cannot be set: the keys are deployment, horizontalPodAutoscaler and podDisruptionBudget. Labels and \
                     annotations are set by spec.infrastructure of the Gateway",
                ));
            }
        }
    }
    if parameters.autoscaler.is_some() && parameters.replicas.is_some() {
        let path = FieldPath::of("data.deployment").field(REPLICAS);
        return Err(path.error("the autoscaler says how many: remove one of them"));
    }
    Ok(parameters)
}

fn spec(value: &Value, at: &FieldPath, allowed: &[&str]) -> Result<Map<String, Value>, FieldError> {
    only(value, at, &["spec"])?;
    let spec = only(&value["spec"], &at.field("spec"), allowed)?;
    Ok(spec.clone())
}

fn deployment(value: &Value, at: &FieldPath, parameters: &mut Parameters) -> Result<(), FieldError> {
    only(value, at, &["spec"])?;
    let (spec, path) = (&value["spec"], at.field("spec"));
    only(spec, &path, &["replicas", "template"])?;
    parameters.replicas = spec.get("replicas").cloned();
    let Some(template) = spec.get("template") else { return Ok(()) };
    only(template, &path.field("template"), &["spec"])?;
    let path = at.field(POD);
    let fields =
        ["nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName", "containers"];
    let mut pod = only(&template["spec"], &path, &fields)?.clone();
    if let Some(containers) = pod.remove("containers") {
        let path = at.field(CONTAINERS);
        let wrong = || {
            path.error(format!("there is one container, {CONTAINER}: write [{{name: {CONTAINER}, resources: ...}}]"))
        };
        let [container] = containers.as_array().map(Vec::as_slice).unwrap_or_default() else { return Err(wrong()) };
        only(container, &path.index(0), &["name", "resources"])?;
        if container["name"] != CONTAINER {
            return Err(wrong());
        }
        parameters.resources = container.get("resources").cloned();
    }
    parameters.pod = pod;
    Ok(())
}

/// An object with no other fields than these.
fn only<'a>(value: &'a Value, at: &FieldPath, allowed: &[&str]) -> Result<&'a Map<String, Value>, FieldError> {
    let object = value.as_object().ok_or_else(|| at.error("an object is needed here"))?;
    match object.keys().find(|key| !allowed.contains(&&***key)) {
        Some(key) => Err(at.field(key).error(format!("cannot be set: what can be is {}", allowed.join(", ")))),
        None => Ok(object),
    }
}

impl Parameters {
    /// How many pods are asked for; None where nothing says so. Who may not look at what an API server makes of it reads it strictly.
    ///
    /// # Errors
    /// When it is no number, or more than `most`.
    pub fn pods(&self, most: usize) -> Result<Option<usize>, FieldError> {
        let Some(replicas) = &self.replicas else { return Ok(None) };
        let number = replicas.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|number| *number <= most);
        let wrong =
            || FieldPath::of("data.deployment").field(REPLICAS).error(format!("a number up to {most} is needed"));
        number.map(Some).ok_or_else(wrong)
    }

    /// What is set besides how many pods there are.
    pub fn sets_more(&self) -> bool {
        !self.pod.is_empty() || self.resources.is_some() || self.autoscaler.is_some() || self.budget.is_some()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(key: &str, text: &str) -> Result<Parameters, String> {
        read(&[(key.to_owned(), text.to_owned())].into()).map_err(|e| e.to_string())
    }

    #[test]
    fn what_may_be_set_is_set() {
        let text = "{spec: {replicas: 2, template: {spec: {nodeSelector: {a: b}, priorityClassName: high, containers: [{name: \
                    istio-proxy, resources: {requests: {cpu: 100m}}}]}}}}";
        let read = of("deployment", text).unwrap();
        assert_eq!((read.replicas, read.resources), (Some(json!(2)), Some(json!({"requests": {"cpu": "100m"}}))));
        assert_eq!(Value::Object(read.pod), json!({"nodeSelector": {"a": "b"}, "priorityClassName": "high"}));
        let read = of("horizontalPodAutoscaler", "{spec: {minReplicas: 2, maxReplicas: 5}}").unwrap();
        assert_eq!(read.autoscaler.map(Value::Object), Some(json!({"minReplicas": 2, "maxReplicas": 5})));
        let read = of("podDisruptionBudget", "{spec: {minAvailable: 1}}").unwrap();
        assert_eq!(read.budget.map(Value::Object), Some(json!({"minAvailable": 1})));
        assert_eq!(super::read(&BTreeMap::new()), Ok(Parameters::default()));
    }

    #[test]
    fn how_many_pods() {
        let pods = |text: &str| of("deployment", text).unwrap().pods(20).map_err(|e| e.to_string());
        assert_eq!((pods("{spec: {replicas: 3}}"), pods("{spec: {}}")), (Ok(Some(3)), Ok(None)));
        for wrong in ["21", "-1", "two", "1.5"] {
            let error = pods(&format!("{{spec: {{replicas: {wrong}}}}}")).unwrap_err();
            assert!(error.starts_with("data.deployment.spec.replicas: a number up to 20"), "{error}");
        }
        assert!(may_be(&json!({"data": {"deployment": "{}"}})));
        assert!(!may_be(&json!({"data": {"mesh": "{}"}})) && !may_be(&json!({"kind": "ConfigMap"})));
    }

    /// Whatever is not listed, above all what gives a pod rights.
    #[test]
    fn nothing_else_may() {
        for (key, text, expected) in [
            ("service", "{}", "data.service: cannot be set"),
            ("deployment", "{metadata: {labels: {a: b}}}", "data.deployment.metadata: cannot be set"),
            ("deployment", "{spec: {selector: {}}}", "data.deployment.spec.selector: cannot be set"),
            (
                "deployment",
                "{spec: {template: {metadata: {}}}}",
                "data.deployment.spec.template.metadata: cannot be set",
            ),
            (
                "deployment",
                "{spec: {template: {spec: {hostNetwork: true}}}}",
                "data.deployment.spec.template.spec.hostNetwork: cannot be set",
            ),
            (
                "deployment",
                "{spec: {template: {spec: {serviceAccountName: admin}}}}",
                "data.deployment.spec.template.spec.serviceAccountName: cannot be set",
            ),
            (
                "deployment",
                "{spec: {template: {spec: {containers: [{name: istio-proxy, image: evil}]}}}}",
                "data.deployment.spec.template.spec.containers[0].image: cannot be set",
            ),
            (
                "deployment",
                "{spec: {template: {spec: {containers: [{name: other, resources: {}}]}}}}",
                "data.deployment.spec.template.spec.containers: there is one container, istio-proxy",
            ),
            ("deployment", "[]", "data.deployment: an object is needed here"),
            ("deployment", "{spec: {", "data.deployment: no YAML"),
            (
                "horizontalPodAutoscaler",
                "{spec: {maxReplicas: 3, scaleTargetRef: {}}}",
                "data.horizontalPodAutoscaler.spec.scaleTargetRef: cannot be set",
            ),
            (
                "horizontalPodAutoscaler",
                "{spec: {minReplicas: 3}}",
                "data.horizontalPodAutoscaler.spec.maxReplicas: missing",
            ),
            ("podDisruptionBudget", "{spec: {selector: {}}}", "data.podDisruptionBudget.spec.selector: cannot be set"),
        ] {
            let error = of(key, text).unwrap_err();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        assert!(of("deployment", &"a".repeat(MOST + 1)).unwrap_err().contains("more than"));
        let both = [("deployment", "{spec: {replicas: 2}}"), ("horizontalPodAutoscaler", "{spec: {maxReplicas: 3}}")];
        let both = both.map(|(key, text)| (key.to_owned(), text.to_owned())).into();
        assert!(read(&both).unwrap_err().to_string().starts_with("data.deployment.spec.replicas: the autoscaler says"));
    }
}
