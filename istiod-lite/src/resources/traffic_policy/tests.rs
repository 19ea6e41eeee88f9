use serde_json::{Value, json};

use crate::resources::{Kind, Object};

fn read(spec: &Value) -> Result<(), String> {
    let object = json!({"metadata": {"name": "a", "namespace": "n"}, "spec": spec});
    Object::from_value(Kind::TrafficPolicy, &object).map(drop).map_err(|error| error.to_string())
}

fn spec() -> Value {
    let route = json!({
        "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r", "sectionName": "slow",
    });
    json!({
        "targetRefs": [{"kind": "Service", "name": "web"}, route],
        "rateLimits": {
            "local": [
                {"requests": 5, "per": "1m", "burst": 2, "key": {"type": "CallerIdentity"}},
                {"name": "users", "requests": 1, "per": "1s", "key": {"type": "Header", "header": "x-user"}},
            ],
            "global": [{
                "service": {"name": "ratelimit", "namespace": "limits", "port": 8081},
                "domain": "shop", "timeout": "50ms", "failureMode": "Deny",
                "descriptors": [{"entries": [
                    {"key": "who", "type": "CallerIdentity"},
                    {"key": "user", "type": "Header", "header": "x-user"},
                    {"key": "plan", "type": "Constant", "value": "gold"},
                ]}],
            }],
        },
    })
}

#[test]
fn what_cannot_be_followed_is_refused_by_name() {
    assert_eq!(read(&spec()), Ok(()));
    let gateway = "/targetRefs/0";
    let (local, global) = ("/rateLimits/local/0", "/rateLimits/global/0");
    let entry = "/rateLimits/global/0/descriptors/0/entries/0";
    for (at, value, expected) in [
        ("/targetRefs", json!([]), "spec.targetRefs: missing"),
        (gateway, json!({"kind": "Pod", "name": "a"}), "spec.targetRefs[0].kind: Pod is no target here"),
        (gateway, json!({"kind": "Gateway", "name": "a"}), "spec.targetRefs[0].kind: Gateway is no target here"),
        (gateway, json!({"kind": "Service", "name": ""}), "spec.targetRefs[0].name: must not be empty"),
        (
            gateway,
            json!({"kind": "Service", "name": "a", "namespace": "b"}),
            "spec.targetRefs[0].namespace: unknown field",
        ),
        (
            gateway,
            json!({"kind": "Service", "name": "a", "sectionName": "b"}),
            "spec.targetRefs[0].sectionName: not followed",
        ),
        (
            "/targetRefs/1",
            json!({"kind": "Service", "name": "web"}),
            "spec.targetRefs[1]: the same target stands there twice",
        ),
        ("/rateLimits", json!({}), "spec.rateLimits: missing"),
        ("/rateLimits", Value::Null, "spec: it says nothing: write rateLimits, loadBalancer or both"),
        ("/rateLimits", json!({"locals": []}), "spec.rateLimits.locals: unknown field"),
        (
            "/rateLimits/local",
            json!(vec![spec()["rateLimits"]["local"][0].clone(); 9]),
            "spec.rateLimits.local: at most 8",
        ),
        (local, json!({"requests": 0, "per": "1s"}), "spec.rateLimits.local[0].requests: write 1 to"),
        (local, json!({"requests": 1, "per": "1s", "burst": 0}), "spec.rateLimits.local[0].burst: write 1 to"),
        (
            local,
            json!({"requests": 1, "per": "2h"}),
            "spec.rateLimits.local[0].per: \"2h\" is out of range: 1ms to 3600s",
        ),
        (local, json!({"requests": 1, "per": "minute"}), "spec.rateLimits.local[0].per: \"minute\" is no duration"),
        (
            local,
            json!({"requests": 1, "per": "1s", "key": {"type": "Header"}}),
            "spec.rateLimits.local[0].key.header: missing",
        ),
        (
            local,
            json!({"requests": 1, "per": "1s", "key": {"type": "CallerIdentity", "header": "a"}}),
            "spec.rateLimits.local[0].key.header: only with type Header",
        ),
        (local, json!({"requests": 1, "per": "1s", "key": {"type": "IP"}}), "spec.rateLimits.local[0].key.type: "),
        (local, json!({"name": "users", "requests": 1, "per": "1s"}), "spec.rateLimits: two limits are called users"),
        ("/rateLimits/global/0/service/port", json!(0), "spec.rateLimits.global[0].service.port: 0 is not a port"),
        ("/rateLimits/global/0/domain", json!(""), "spec.rateLimits.global[0].domain: must not be empty"),
        ("/rateLimits/global/0/timeout", json!("0s"), "spec.rateLimits.global[0].timeout: \"0s\" is out of range"),
        ("/rateLimits/global/0/failureMode", json!("Open"), "spec.rateLimits.global[0].failureMode: "),
        ("/rateLimits/global/0/descriptors", json!([]), "spec.rateLimits.global[0].descriptors: missing"),
        (global, json!({"domain": "a"}), "spec.rateLimits.global[0]"),
        (
            entry,
            json!({"key": "", "type": "Route"}),
            "spec.rateLimits.global[0].descriptors[0].entries[0].key: must not",
        ),
        (
            entry,
            json!({"key": "a", "type": "Constant"}),
            "spec.rateLimits.global[0].descriptors[0].entries[0].value: missing",
        ),
        (
            entry,
            json!({"key": "a", "type": "Route", "value": "b"}),
            "spec.rateLimits.global[0].descriptors[0].entries[0].value: only with",
        ),
        (
            entry,
            json!({"key": "a", "type": "Header", "header": "x y"}),
            "spec.rateLimits.global[0].descriptors[0].entries[0].header: \"x y\" is no name",
        ),
    ] {
        let mut spec = spec();
        *spec.pointer_mut(at).unwrap() = value;
        let error = read(&spec).unwrap_err();
        assert!(error.starts_with(expected), "{error} instead of {expected}");
    }
}

#[test]
fn load_balancers() {
    let gateway = || json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "way"});
    let of = |balancer: Value| json!({"targetRefs": [{"kind": "Service", "name": "web"}, gateway()], "loadBalancer": balancer});
    for balancer in [
        json!({"type": "PeakEWMA"}),
        json!({"type": "PeakEWMA", "peakEWMA": {}}),
        json!({"type": "PeakEWMA", "peakEWMA": {"decay": "5s", "defaultLatency": "100ms"}}),
    ] {
        assert_eq!(read(&of(balancer.clone())), Ok(()), "{balancer}");
    }
    for (balancer, expected) in [
        (json!({}), "spec.loadBalancer: missing field `type`"),
        (json!({"type": "EWMA"}), "spec.loadBalancer.type: unknown variant `EWMA`"),
        (json!({"type": "PeakEWMA", "peakEwma": {}}), "spec.loadBalancer.peakEwma: unknown field"),
        (
            json!({"type": "PeakEWMA", "peakEWMA": {"decay": "1ms"}}),
            "spec.loadBalancer.peakEWMA.decay: \"1ms\" is out of range",
        ),
        (
            json!({"type": "PeakEWMA", "peakEWMA": {"defaultLatency": "soon"}}),
            "spec.loadBalancer.peakEWMA.defaultLatency: \"soon\" is no duration",
        ),
    ] {
        let error = read(&of(balancer)).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    let mut of_route = spec();
    of_route["loadBalancer"] = json!({"type": "PeakEWMA"});
    let error = read(&of_route).unwrap_err();
    assert!(error.starts_with("spec.loadBalancer: it is of endpoints, and HTTPRoute r has none"), "{error}");
}
