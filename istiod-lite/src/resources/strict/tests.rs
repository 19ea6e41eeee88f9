use serde_json::json;

use crate::resources::{Kind, Object};

/// The error, or the object's key.
fn read(kind: Kind, yaml: &str) -> String {
    let value = serde_saphyr::from_str::<serde_json::Value>(yaml).unwrap();
    match Object::from_value(kind, &value) {
        Ok(object) => object.key().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_field_that_a_kind_does_not_have_is_refused_with_what_was_meant() {
    let meta = "metadata: {name: a, namespace: shop}";
    for (kind, yaml, expected) in [
        (
            Kind::PeerAuthentication,
            format!("{meta}\nspec:\nmtls: {{mode: STRICT}}"),
            "mtls: unknown field `mtls`: it belongs to `spec.mtls`; is it indented as it should be?",
        ),
        (
            Kind::AuthorizationPolicy,
            format!("{meta}\nspec:\nselector: {{matchLabels: {{app: web}}}}\naction: DENY\nrules: [{{}}]"),
            "action: unknown field `action`: it belongs to `spec.action`; is it indented as it should be?",
        ),
        (
            Kind::AuthorizationPolicy,
            format!("{meta}\nspec: {{rules: [{{from: [{{source: {{principal: [a]}}}}]}}]}}"),
            "spec.rules[0].from[0].source.principal: unknown field `principal`: did you mean `principals`?",
        ),
        (
            Kind::AuthorizationPolicy,
            format!("{meta}\nspec: {{rules: [{{from: [{{source: {{namespaces: [a]}}, when: []}}]}}]}}"),
            "spec.rules[0].from[0].when: unknown field `when`: it belongs to `spec.rules[0].when`; is it indented as it \
             should be?",
        ),
        (
            Kind::AuthorizationPolicy,
            format!("{meta}\nspec: {{rules: [{{whom: []}}]}}"),
            "spec.rules[0].whom: unknown field `whom`: there are from, to, when",
        ),
        (
            Kind::Service,
            format!("{meta}\nspec: {{ports: [{{port: 80, targetport: 9000}}]}}"),
            "spec.ports[0].targetport: unknown field `targetport`: did you mean `targetPort`?",
        ),
        (
            Kind::Service,
            format!("{meta}\nspec: {{ports: [{{port: 80, targetPrt: 9000}}]}}"),
            "spec.ports[0].targetPrt: unknown field `targetPrt`: did you mean `targetPort`?",
        ),
        (
            Kind::Namespace,
            "metadata: {name: a, label: {istio.io/dataplane-mode: ambient}}".to_owned(),
            "metadata.label: unknown field `label`: did you mean `labels`?",
        ),
        (
            Kind::Namespace,
            "metadata: {name: a}\nlabels: {istio.io/dataplane-mode: ambient}".to_owned(),
            "labels: unknown field `labels`: it belongs to `metadata.labels`; is it indented as it should be?",
        ),
        (
            Kind::Pod,
            format!("{meta}\nspec: {{serviceAcountName: x, containers: []}}"),
            "spec.serviceAcountName: unknown field `serviceAcountName`: did you mean `serviceAccountName`?",
        ),
        (
            Kind::Pod,
            format!("{meta}\nspec: {{nodeNme: x, containers: []}}"),
            "spec.nodeNme: unknown field `nodeNme`: did you mean `nodeName`?",
        ),
        (
            Kind::Pod,
            format!("{meta}\nspec: {{containers: [{{name: c, readinessProb: {{}}}}]}}"),
            "spec.containers[0].readinessProb: unknown field `readinessProb`: did you mean `readinessProbe`?",
        ),
        (
            Kind::Pod,
            "metadata: {name: a, labls: {app: x}}\nspec: {containers: []}".to_owned(),
            "metadata.labls: unknown field `labls`: did you mean `labels`?",
        ),
        (
            Kind::EndpointSlice,
            format!("{meta}\naddressType: IPv4\nendpoints: [{{addresses: [10.0.0.1], condition: {{ready: true}}}}]"),
            "endpoints[0].condition: unknown field `condition`: did you mean `conditions`?",
        ),
        (
            Kind::ServiceAccount,
            format!("{meta}\nautomountServiceAccountTokens: false"),
            "automountServiceAccountTokens: unknown field `automountServiceAccountTokens`: did you mean \
             `automountServiceAccountToken`?",
        ),
        // Values that do not fit are told where they are, and a list is no structure.
        (
            Kind::Service,
            format!("{meta}\nspec: {{ports: [{{port: 80}}, {{port: web}}]}}"),
            "spec.ports[1].port: invalid type: string \"web\", expected i32",
        ),
        (
            Kind::PeerAuthentication,
            format!("{meta}\nspec: {{mtls: [STRICT]}}"),
            "spec.mtls: a list, where fields with names are expected",
        ),
        (
            Kind::PeerAuthentication,
            format!("{meta}\nspec: {{mtls: {{mode: STRIKT}}}}"),
            "spec.mtls.mode: unknown variant `STRIKT`, expected one of `UNSET`, `DISABLE`, `PERMISSIVE`, `STRICT`",
        ),
    ] {
        assert_eq!(read(kind, &yaml), expected, "{yaml}");
    }
}

#[test]
fn maps_of_users_own_names_are_not_looked_into() {
    let pod = "metadata: {name: a, labels: {anything: goes}, annotations: {at.all/here: yes it does}}\n\
               spec: {nodeSelector: {any: label}, containers: [{name: c, resources: {limits: {example.com/gpu: 1}}}]}";
    assert_eq!(read(Kind::Pod, pod), "Pod default/a");
}

/// What is kept on disk is read back as the same object.
#[test]
fn an_object_survives_the_way_to_its_value_and_back() {
    for (kind, value) in [
        (Kind::PeerAuthentication, json!({"metadata": {"name": "a", "namespace": "b"}, "status": {"x": 1}})),
        (
            Kind::PeerAuthentication,
            json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "a"},
                "spec": {"selector": {"matchLabels": {"a": "b"}}, "portLevelMtls": {"80": {"mode": "STRICT"}}}}),
        ),
        (
            Kind::AuthorizationPolicy,
            json!({"metadata": {"name": "a", "labels": {"istio.io/rev": "x"}}, "spec": {"action": "DENY", "rules": [
                {"from": [{"source": {"principals": ["*"]}}], "when": [{"key": "source.ip", "notValues": ["10.0.0.1"]}]},
                {"to": [{"operation": {"ports": ["80"]}}]}, {}]}}),
        ),
        (
            Kind::Node,
            json!({"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}),
        ),
    ] {
        let object = Object::from_value(kind, &value).unwrap();
        assert_eq!(Object::from_value(kind, &object.to_value().unwrap()).unwrap(), object);
    }
}
