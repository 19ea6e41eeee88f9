use serde_json::json;

use crate::resources::{Kind, Object};

/// The error, or "good".
fn read(spec: &serde_json::Value) -> String {
    let value = json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": spec});
    match Object::from_value(Kind::DestinationRule, &value) {
        Ok(object) => {
            let again = Object::from_value(Kind::DestinationRule, &object.to_value().unwrap());
            assert_eq!(again.as_ref(), Ok(&object), "what is stored is read again");
            "good".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

/// What people copy.
#[test]
fn what_is_taken() {
    for policy in [
        json!({"connectionPool": {"tcp": {"maxConnections": 1}, "http": {"http1MaxPendingRequests": 1, "maxRequestsPerConnection": 1}},
            "outlierDetection": {"consecutive5xxErrors": 1, "interval": "1s", "baseEjectionTime": "3m", "maxEjectionPercent": 100}}),
        json!({"connectionPool": {"tcp": {"maxConnections": 100, "connectTimeout": "30ms",
            "tcpKeepalive": {"time": "7200s", "interval": "75s"}}}}),
        json!({"loadBalancer": {"simple": "ROUND_ROBIN"}}),
        json!({"loadBalancer": {"simple": "LEAST_CONN"}}),
        json!({"loadBalancer": {"warmup": {"duration": "1m", "minimumPercent": 0.5, "aggression": 1.5}}}),
        json!({"loadBalancer": {"simple": "ROUND_ROBIN", "warmup": {"duration": "30s", "minimumPercent": null}}}),
        json!({"loadBalancer": {"simple": "LEAST_REQUEST", "warmupDurationSecs": "30s"}}),
        json!({"loadBalancer": {"consistentHash": {"httpCookie": {"name": "user", "ttl": "0s"}}}}),
        json!({"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user", "maglev": {"tableSize": 65537}}}}),
        json!({"loadBalancer": {"consistentHash": {"useSourceIp": true, "minimumRingSize": 1024}}}),
        json!({"tls": {"mode": "ISTIO_MUTUAL"}}),
        json!({"portLevelSettings": [{"port": {"number": 80}, "loadBalancer": {"simple": "RANDOM"}},
            {"port": {"number": 9080}, "tls": {"mode": "DISABLE"}}]}),
        json!({"outlierDetection": {"splitExternalLocalOriginErrors": true, "consecutiveLocalOriginFailures": 3}}),
        json!({}),
        json!(null),
    ] {
        assert_eq!(read(&json!({"host": "web", "trafficPolicy": policy})), "good", "{policy}");
    }
    for host in ["web", "web.shop.svc.cluster.local", "*.shop.svc.cluster.local", "*.local", "*"] {
        assert_eq!(read(&json!({"host": host, "exportTo": ["*", "."]})), "good", "{host}");
    }
}

/// Istio's own samples (bookinfo).
#[test]
fn subsets() {
    for subsets in [
        json!([{"name": "v1", "labels": {"version": "v1"}}, {"name": "v2", "labels": {"version": "v2"}}]),
        json!([{"name": "v2-mysql-vm", "labels": {"version": "v2-mysql-vm"}}]),
        json!([{"name": "testversion", "labels": {"version": "v3"}, "trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN"}}}]),
        json!([{"name": "all"}]),
        json!(null),
    ] {
        assert_eq!(read(&json!({"host": "reviews", "subsets": subsets})), "good", "{subsets}");
    }
}

#[test]
fn what_is_refused_by_name() {
    for (spec, expected) in [
        (json!({}), "spec.host: missing"),
        (json!({"host": "a_b"}), "spec.host: \"a_b\" is not a host name"),
        (
            json!({"host": "a", "subsets": [{"labels": {"version": "v1"}}]}),
            "spec.subsets[0].name: \"\" is not the name",
        ),
        (
            json!({"host": "a", "subsets": [{"name": "v1"}, {"name": "v1"}]}),
            "spec.subsets[1].name: \"v1\" is there twice",
        ),
        (
            json!({"host": "a", "subsets": [{"name": "v1", "trafficPolicy": {"tunnel": {}}}]}),
            "spec.subsets[0].trafficPolicy.tunnel: not followed",
        ),
        (json!({"host": "a", "subsets": vec![json!({"name": "v1"}); 65]}), "spec.subsets: 65 are more"),
        (json!({"host": "a", "workloadSelector": {"matchLabels": {}}}), "spec.workloadSelector: it is about sidecars"),
        (json!({"host": "a", "exportTo": ["~"]}), "spec.exportTo[0]: a rule counts"),
        (
            json!({"host": "a", "trafficpolicy": {}}),
            "spec.trafficpolicy: unknown field `trafficpolicy`: did you mean `trafficPolicy`?",
        ),
    ] {
        let error = read(&spec);
        assert!(error.starts_with(expected), "{error}");
    }
    let lb = |lb: serde_json::Value| json!({"loadBalancer": lb});
    let hash = |hash: serde_json::Value| lb(json!({"consistentHash": hash}));
    let tcp = |tcp: serde_json::Value| json!({"connectionPool": {"tcp": tcp}});
    let http = |http: serde_json::Value| json!({"connectionPool": {"http": http}});
    let outlier = |outlier: serde_json::Value| json!({"outlierDetection": outlier});
    for (policy, expected) in [
        (lb(json!({"simple": "PASSTHROUGH"})), "loadBalancer.simple: PASSTHROUGH"),
        (lb(json!({"simple": "FASTEST"})), "loadBalancer.simple: unknown variant `FASTEST`"),
        (
            lb(json!({"simple": "RANDOM", "consistentHash": {"useSourceIp": true}})),
            "loadBalancer: simple and consistentHash",
        ),
        (lb(json!({"localityLbSetting": {"enabled": true}})), "loadBalancer.localityLbSetting: not followed"),
        (hash(json!({})), "loadBalancer.consistentHash: write one of"),
        (hash(json!({"useSourceIp": false})), "loadBalancer.consistentHash: write one of"),
        (hash(json!({"useSourceIp": true, "httpHeaderName": "a"})), "loadBalancer.consistentHash: write one of"),
        (hash(json!({"httpHeaderName": "a b"})), "loadBalancer.consistentHash.httpHeaderName: \"a b\" is no name"),
        (
            hash(json!({"httpCookie": {"name": "a=b"}})),
            "loadBalancer.consistentHash.httpCookie.name: \"a=b\" is no name",
        ),
        (
            hash(json!({"httpCookie": {"name": "a", "path": "/;x"}})),
            "loadBalancer.consistentHash.httpCookie.path: a cookie's",
        ),
        (
            hash(json!({"httpCookie": {"name": "a", "ttl": "1"}})),
            "loadBalancer.consistentHash.httpCookie.ttl: \"1\" is no",
        ),
        (
            hash(json!({"useSourceIp": true, "maglev": {"tableSize": 100}})),
            "loadBalancer.consistentHash.maglev.tableSize: 100",
        ),
        (
            hash(json!({"useSourceIp": true, "minimumRingSize": 9999999})),
            "loadBalancer.consistentHash.minimumRingSize: 9999999",
        ),
        (lb(json!({"warmup": {}})), "loadBalancer.warmup.duration: missing"),
        (lb(json!({"warmup": {"duration": "0s"}})), "loadBalancer.warmup.duration: \"0s\" is too short"),
        (lb(json!({"warmup": {"duration": "1s", "window": "2s"}})), "loadBalancer.warmup.window: unknown field"),
        (
            lb(json!({"warmup": {"duration": "1s", "minimumPercent": 100.5}})),
            "loadBalancer.warmup.minimumPercent: a percentage",
        ),
        (lb(json!({"warmup": {"duration": "1s", "aggression": 0.5}})), "loadBalancer.warmup.aggression: write 1"),
        (lb(json!({"warmupDurationSecs": "soon"})), "loadBalancer.warmupDurationSecs: \"soon\" is no"),
        (
            lb(json!({"warmupDurationSecs": "1s", "warmup": {"duration": "1s"}})),
            "loadBalancer.warmupDurationSecs: warmup says the same",
        ),
        (
            lb(json!({"simple": "RANDOM", "warmup": {"duration": "1s"}})),
            "loadBalancer.warmup: it counts only with ROUND_ROBIN",
        ),
        (
            lb(json!({"consistentHash": {"useSourceIp": true}, "warmupDurationSecs": "1s"})),
            "loadBalancer.warmupDurationSecs: it counts only with ROUND_ROBIN",
        ),
        (tcp(json!({"connectTimeout": "0s"})), "connectionPool.tcp.connectTimeout: \"0s\" is too short"),
        (tcp(json!({"idleTimeout": "1s"})), "connectionPool.tcp.idleTimeout: not followed"),
        (tcp(json!({"maxConnectionDuration": "1s"})), "connectionPool.tcp.maxConnectionDuration: not followed"),
        (tcp(json!({"maxConnections": -1})), "connectionPool.tcp.maxConnections: invalid value"),
        (http(json!({"h2UpgradePolicy": "UPGRADE"})), "connectionPool.http.h2UpgradePolicy: not followed"),
        (http(json!({"useClientProtocol": true})), "connectionPool.http.useClientProtocol: not followed"),
        (http(json!({"maxRequest": 1})), "connectionPool.http.maxRequest: unknown field"),
        (outlier(json!({"consecutiveErrors": 5})), "outlierDetection.consecutiveErrors: Istio has taken it back"),
        (outlier(json!({"maxEjectionPercent": 101})), "outlierDetection.maxEjectionPercent: a percentage"),
        (outlier(json!({"interval": "soon"})), "outlierDetection.interval: \"soon\" is no"),
        (
            outlier(json!({"consecutiveLocalOriginFailures": 1})),
            "outlierDetection.consecutiveLocalOriginFailures: it counts only",
        ),
        (json!({"tls": {"mode": "SIMPLE"}}), "tls.mode: a waypoint begins no TLS"),
        (json!({"tls": {"mode": "ISTIO_MUTUAL", "sni": "a"}}), "tls.sni: the mesh has certificates"),
        (json!({"retryBudget": {}}), "retryBudget: not followed"),
        (json!({"portLevelSettings": [{"port": {"number": 0}}]}), "portLevelSettings[0].port.number: 0 is not a port"),
        (
            json!({"portLevelSettings": [{"port": {"number": 1}}, {"port": {"number": 1}}]}),
            "portLevelSettings[1].port.number: 1 is there",
        ),
        (
            json!({"portLevelSettings": [{"port": {"number": 1}, "tls": {"mode": "MUTUAL"}}]}),
            "portLevelSettings[0].tls.mode: a waypoint begins no TLS",
        ),
    ] {
        let error = read(&json!({"host": "web", "trafficPolicy": policy}));
        assert!(error.starts_with(&format!("spec.trafficPolicy.{expected}")), "{error}");
    }
}
