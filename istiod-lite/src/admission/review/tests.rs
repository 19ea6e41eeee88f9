use super::*;
use crate::source::Origin;

const OURS: &str = "ours";

fn policy(labels: &Value, spec: &Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "a", "namespace": "shop", "uid": "u", "labels": labels}, "spec": spec})
}

fn good() -> Value {
    policy(&json!({}), &json!({"action": "DENY", "rules": [{"from": [{"source": {"namespaces": ["bank"]}}]}]}))
}

fn wrong(block: &str) -> Value {
    policy(&json!({}), &json!({"action": "DENY", "rules": [{"from": [{"source": {"ipBlocks": [block]}}]}]}))
}

fn of_revision(revision: &str, mut object: Value) -> Value {
    object["metadata"]["labels"] = json!({"istio.io/rev": revision});
    object
}

/// What the API server sends of an object of `security.istio.io/v1`.
fn review(operation: &str, object: &Value, old: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "4711",
            "kind": {"group": "security.istio.io", "version": "v1", "kind": object["kind"].as_str().unwrap_or("AuthorizationPolicy")},
            "resource": {"group": "security.istio.io", "version": "v1", "resource": "authorizationpolicies"},
            "operation": operation,
            "name": "a", "namespace": "shop", "dryRun": false,
            "userInfo": {"username": "somebody"},
            "object": object, "oldObject": old, "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

fn answer(review: &Value) -> Value {
    let decided = decide(review.to_string().as_bytes(), |revision| revision == OURS).unwrap();
    let answer: Value = serde_json::from_str(&decided.answer()).unwrap();
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&API_VERSION.into(), &"AdmissionReview".into()));
    assert_eq!(answer["response"]["uid"], "4711");
    answer["response"].clone()
}

#[test]
fn what_is_asked_and_what_is_answered() {
    const SENTENCE: &str = "spec.rules[0].from[0].source.ipBlocks[0]: ";
    let mut status = review("UPDATE", &wrong("10.0.0.0/99"), &good());
    status["request"]["subResource"] = "status".into();
    let mut pod = review("CREATE", &json!({"metadata": {}}), &Value::Null);
    pod["request"]["kind"] = json!({"group": "", "version": "v1", "kind": "Pod"});
    let unread = |kind: &str, group: &str| {
        let mut review =
            review("CREATE", &json!({"kind": kind, "metadata": {"name": "a"}, "spec": {"x": 1}}), &Value::Null);
        review["request"]["kind"]["group"] = group.into();
        review
    };
    // Of the group that is ours.
    let limits = |per: &str| {
        let spec = json!({
            "targetRefs": [{"kind": "Service", "name": "web"}],
            "rateLimits": {"local": [{"requests": 1, "per": per}]},
        });
        let object = json!({"kind": "TrafficPolicy", "metadata": {"name": "a"}, "spec": spec});
        let mut review = review("CREATE", &object, &Value::Null);
        review["request"]["kind"] = json!({"group": "ambit.dev", "version": "v1alpha1", "kind": "TrafficPolicy"});
        review
    };
    let none = Value::Null;
    let typo = policy(&json!({}), &json!({"acton": "DENY"}));
    // What is asked, whether it is let in, the beginning of the refusal or of the warning.
    for (asked, allowed, said) in [
        (review("CREATE", &good(), &none), true, ""),
        (review("CREATE", &wrong("10.0.0.0/99"), &none), false, SENTENCE),
        (review("CREATE", &typo, &none), false, "spec.acton: unknown field `acton`: did you mean `action`?"),
        (review("UPDATE", &good(), &wrong("10.0.0.0/99")), true, ""),
        (review("UPDATE", &wrong("10.0.0.0/99"), &good()), false, SENTENCE),
        // It was so when it came in: labels and finalizers are not held up.
        (
            review("UPDATE", &wrong("10.0.0.0/99"), &wrong("10.0.0.0/99")),
            true,
            "it was rejected before, and still is: spec.rules",
        ),
        (review("UPDATE", &wrong("10.0.0.0/99"), &wrong("10.0.0.0/98")), false, SENTENCE),
        (review("DELETE", &none, &wrong("10.0.0.0/99")), true, ""),
        (status, true, ""),
        (pod, true, ""),
        // Other revisions are for other control planes; and what becomes ours was not ours before.
        (review("CREATE", &of_revision(OURS, wrong("10.0.0.0/99")), &none), false, SENTENCE),
        (review("CREATE", &of_revision("other", wrong("10.0.0.0/99")), &none), true, ""),
        (review("UPDATE", &wrong("10.0.0.0/99"), &of_revision("other", wrong("10.0.0.0/99"))), false, SENTENCE),
        (unread("EnvoyFilter", "networking.istio.io"), true, "Ambit does not enforce EnvoyFilter: "),
        (unread("WasmPlugin", "extensions.istio.io"), true, "Ambit does not enforce WasmPlugin: "),
        (unread("Thing", "example.com"), true, ""),
        (limits("10s"), true, ""),
        (limits("10"), false, "spec.rateLimits.local[0].per: \"10\" is no duration"),
    ] {
        let response = answer(&asked);
        assert_eq!(response["allowed"], allowed, "{asked}");
        let message = &response["status"]["message"];
        let told = if allowed { &response["warnings"][0] } else { message };
        assert!(told.as_str().unwrap_or_default().starts_with(said), "{asked}: {response}");
        assert_eq!(told.is_null(), said.is_empty(), "{asked}: {response}");
        assert_eq!(message.is_null(), allowed, "{asked}: {response}");
        assert!(allowed || response["status"]["code"] == 400, "{response}");
    }
}

/// Admission says what the watch would have said of the same object.
#[test]
fn the_refusal_is_the_sentence_of_the_status() {
    for object in [
        wrong("10.0.0.0/99"),
        policy(&json!({}), &json!({"rules": [{"when": [{"key": "nonsense", "values": ["a"]}]}]})),
    ] {
        let meta = Meta { namespace: "shop".into(), name: "a".into(), resource_version: "7".into(), ..Meta::default() };
        let watched =
            kinds::read(Kind::AuthorizationPolicy, &Raw { meta, text: &object.to_string() }).map(drop).unwrap_err();
        assert!(matches!(watched.origin, Origin::Cluster { .. }));
        assert_eq!(answer(&review("CREATE", &object, &Value::Null))["status"]["message"], watched.sentence());
    }
}

#[test]
fn what_is_no_review_is_not_answered() {
    let of = |text: &str| decide(text.as_bytes(), |_| true).map(drop).unwrap_err();
    let form = |text: &str| matches!(of(text), NotAReview::Form(_));
    assert!(form("") && form("{") && form("[]") && form("null"));
    assert!(form(r#"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": null}"#));
    assert!(form(r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": 5}}"#));
    let deep = format!(r#"{{"apiVersion": "admission.k8s.io/v1", "kind": {}"#, "[".repeat(100_000));
    assert!(form(&deep));
    let nothing = r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}"#;
    assert_eq!(of(nothing), NotAReview::NoRequest);
}
