use serde_json::{Value, json};

use super::check_rule::{RetryOn, retry_on};
use crate::resources::{Kind, Object};

/// The error, or "good".
fn read(spec: &Value) -> String {
    let value = json!({"metadata": {"name": "a", "namespace": "shop"}, "spec": spec});
    match Object::from_value(Kind::VirtualService, &value) {
        Ok(object) => {
            let again = Object::from_value(Kind::VirtualService, &object.to_value().unwrap());
            assert_eq!(again.as_ref(), Ok(&object), "what is stored is read again");
            "good".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

/// A rule that sends everything to v1, and what else it says.
fn with(rule: &Value) -> Value {
    let mut whole = json!({"route": [{"destination": {"host": "reviews", "subset": "v1"}}]});
    for (field, value) in rule.as_object().unwrap() {
        whole[field] = value.clone();
    }
    json!({"hosts": ["reviews"], "http": [whole]})
}

/// What people copy: Istio's tasks, and its reference of VirtualService.
#[test]
fn what_is_taken() {
    for rule in [
        json!({}),
        json!({"match": [{"headers": {"end-user": {"exact": "jason"}}}]}),
        json!({"match": [{"headers": {"cookie": {"regex": "^(.*?;)?(user=dev-123)(;.*)?$"}}}]}),
        json!({"match": [{"uri": {"prefix": "/wpcatalog"}}, {"uri": {"exact": "/consumercatalog"}}],
            "rewrite": {"uri": "/newcatalog"}}),
        json!({"match": [{"uri": {"prefix": "/api"}, "ignoreUriCase": true, "scheme": {"exact": "http"},
            "method": {"exact": "GET"}, "authority": {"prefix": "reviews"}, "port": 9080, "gateways": ["mesh"],
            "queryParams": {"a": {"exact": "1"}, "b": {}}, "headers": {"x": {}}, "withoutHeaders": {"y": {"prefix": "z"}},
            "sourceNamespace": "shop", "name": "one", "statPrefix": "two"}]}),
        json!({"fault": {"delay": {"percentage": {"value": 0.1}, "fixedDelay": "5s"}}}),
        json!({"fault": {"delay": {"percent": 10, "fixedDelay": "5s"}, "abort": {"percent": 10, "httpStatus": 400}}}),
        json!({"fault": {"abort": {"percentage": {"value": 100}, "httpStatus": 500}}}),
        json!({"timeout": "0.5s"}),
        json!({"timeout": "5s", "retries": {"attempts": 3, "perTryTimeout": "2s",
            "retryOn": "gateway-error,connect-failure,refused-stream"}}),
        json!({"retries": {"attempts": 0}}),
        json!({"mirror": {"host": "reviews", "subset": "v2"}, "mirrorPercentage": {"value": 100.0}}),
        json!({"mirrors": [{"destination": {"host": "reviews", "subset": "v2"}, "percentage": {"value": 5}}]}),
        json!({"route": [
            {"destination": {"host": "reviews", "subset": "v2"}, "weight": 25, "headers": {"response": {"remove": ["foo"]}}},
            {"destination": {"host": "reviews.prod.svc.cluster.local", "port": {"number": 80}}, "weight": 75}],
            "headers": {"request": {"set": {"test": "true"}}}}),
        json!({"route": null, "redirect": {"uri": "/v1/bookRatings", "authority": "newratings.default.svc.cluster.local"}}),
        json!({"route": null, "redirect": {"scheme": "https", "derivePort": "FROM_PROTOCOL_DEFAULT", "redirectCode": 308}}),
        json!({"corsPolicy": {"allowOrigins": [{"exact": "https://example.com"}], "allowMethods": ["POST", "GET"],
            "allowCredentials": false, "allowHeaders": ["X-Foo-Bar"], "maxAge": "24h"}}),
        json!({"corsPolicy": {"allowOrigin": ["*"]}}),
    ] {
        assert_eq!(read(&with(&rule)), "good", "{rule}");
    }
    let route = json!([{"route": [{"destination": {"host": "reviews"}}]}]);
    for hosts in [json!(["reviews"]), json!(["reviews.prod.svc.cluster.local", "a.example", "*.example"])] {
        let spec = json!({"hosts": hosts, "gateways": ["mesh", "bookinfo"], "exportTo": ["*", "."], "http": route});
        assert_eq!(read(&spec), "good");
    }
    // What is for gateways only is somebody else's, whatever it says.
    for spec in [
        json!({"hosts": ["*"], "gateways": ["bookinfo-gateway"], "http": [{"delegate": {"name": "x"}}]}),
        json!({"hosts": ["*"], "gateways": ["x"], "tls": [{}], "tcp": [{}]}),
    ] {
        assert_eq!(read(&spec), "good", "{spec}");
    }
}

#[test]
fn what_is_refused_by_name() {
    let to = |more: &Value| {
        let mut to = json!({"host": "reviews"});
        for (field, value) in more.as_object().unwrap() {
            to[field] = value.clone();
        }
        json!({"route": [{"destination": to}]})
    };
    let matching = |one: Value| json!({"match": [one]});
    let redirect = |to: Value| json!({"route": [], "redirect": to});
    for (rule, expected) in [
        (matching(json!({"sourceLabels": {"app": "a"}})), "match[0].sourceLabels: a waypoint knows"),
        (matching(json!({"uri": {}})), "match[0].uri: empty"),
        (matching(json!({"uri": {"exact": "/a", "prefix": "/a"}})), "match[0].uri: exact, prefix and regex exclude"),
        (matching(json!({"uri": {"regex": "/a("}})), "match[0].uri.regex: the regular expression"),
        (matching(json!({"headers": {"x": {"regex": "(?=a)"}}})), "match[0].headers.x.regex: the regular expression"),
        (matching(json!({"headers": {"a b": {}}})), "match[0].headers.a b: no header has such a name"),
        (matching(json!({"headers": {":path": {"exact": "/"}}})), "match[0].headers.:path: write :authority"),
        (matching(json!({"withoutHeaders": {":method": {"exact": "GET"}}})), "match[0].withoutHeaders.:method: every"),
        (matching(json!({"port": 0})), "match[0].port: 0 is not a port"),
        (matching(json!({"sourceNamespace": "A_B"})), "match[0].sourceNamespace: \"A_B\" is not"),
        (matching(json!({"url": {"exact": "/"}})), "match[0].url: unknown field `url`: did you mean `uri`?"),
        (json!({"delegate": {"name": "a"}}), "delegate: not followed"),
        (json!({"directResponse": {"status": 200}}), "directResponse: not followed"),
        (json!({"route": []}), "route: missing"),
        (json!({"redirect": {"uri": "/a"}}), "route: route and redirect exclude each other"),
        (redirect(json!({})), "redirect: it would lead to where the request is"),
        (redirect(json!({"derivePort": "FROM_REQUEST_PORT"})), "redirect: it would lead"),
        (redirect(json!({"uri": "/a?b"})), "redirect.uri: no path"),
        (redirect(json!({"uri": "/a", "redirectCode": 200})), "redirect.redirectCode: write 301"),
        (redirect(json!({"scheme": "ftp"})), "redirect.scheme: write http"),
        (redirect(json!({"port": 1, "derivePort": "FROM_REQUEST_PORT"})), "redirect.derivePort: port and derivePort"),
        (json!({"rewrite": {}}), "rewrite: empty"),
        (json!({"rewrite": {"uri": "a"}}), "rewrite.uri: no path"),
        (
            json!({"rewrite": {"uriRegexRewrite": {"match": "a", "rewrite": "b"}}}),
            "rewrite.uriRegexRewrite: not followed",
        ),
        (json!({"timeout": "5"}), "timeout: \"5\" is no length of time"),
        (json!({"retries": {"attempts": 101}}), "retries.attempts: too many"),
        (json!({"retries": {"attempts": 0, "retryOn": "5xx"}}), "retries.retryOn: nothing is tried again"),
        (
            json!({"retries": {"attempts": 1, "retryOn": "5xx,retriable-headers"}}),
            "retries.retryOn: \"retriable-headers\"",
        ),
        (json!({"retries": {"attempts": 1, "perTryTimeout": "0s"}}), "retries.perTryTimeout: \"0s\" is too short"),
        (json!({"fault": {}}), "fault: empty"),
        (json!({"fault": {"delay": {"percent": 1}}}), "fault.delay.fixedDelay: missing"),
        (json!({"fault": {"delay": {"exponentialDelay": "1s"}}}), "fault.delay.exponentialDelay: not followed"),
        (json!({"fault": {"delay": {"fixedDelay": "2h"}}}), "fault.delay.fixedDelay: too long"),
        (json!({"fault": {"abort": {}}}), "fault.abort.httpStatus: missing"),
        (json!({"fault": {"abort": {"httpStatus": 600}}}), "fault.abort.httpStatus: 600"),
        (json!({"fault": {"abort": {"grpcStatus": "INTERNAL"}}}), "fault.abort.grpcStatus: not followed"),
        (
            json!({"fault": {"abort": {"httpStatus": 503, "percentage": {"value": 100.1}}}}),
            "fault.abort.percentage.value: a percentage",
        ),
        (json!({"mirrorPercent": 101}), "mirrorPercent: a percentage"),
        (json!({"mirrorPercent": 1, "mirrorPercentage": {"value": 1}}), "mirrorPercent: it says the same"),
        (json!({"corsPolicy": {"allowOrigins": [{"regex": ".*"}]}}), "corsPolicy.allowOrigins[0]: only exact"),
        (json!({"corsPolicy": {"unmatchedPreflights": "IGNORE"}}), "corsPolicy.unmatchedPreflights: not followed"),
        (
            json!({"headers": {"request": {"set": {"Connection": "a"}}}}),
            "headers.request.set.Connection: it is the connection's",
        ),
        (json!({"headers": {"response": {"add": {"x": "%START_TIME%"}}}}), "headers.response.add.x: \"%\" stands"),
        (to(&json!({"host": ""})), "route[0].destination.host: missing"),
        (to(&json!({"host": "*.a"})), "route[0].destination.host: a wildcard"),
        (to(&json!({"port": {"number": 0}})), "route[0].destination.port.number: 0 is not a port"),
        (to(&json!({"port": {"name": "http"}})), "route[0].destination.port.name: unknown field"),
        (
            json!({"route": [{"destination": {"host": "a"}}, {"destination": {"host": "b"}}]}),
            "route: the weights come to 0",
        ),
    ] {
        let error = read(&with(&rule));
        assert!(error.starts_with(&format!("spec.http[0].{expected}")), "{error}\n{rule}");
    }
    let http = json!([{"route": [{"destination": {"host": "a"}}]}]);
    for (spec, expected) in [
        (json!({"http": http}), "spec.hosts: missing"),
        (json!({"hosts": ["*"], "http": http}), "spec.hosts[0]: \"*\" would stand"),
        (json!({"hosts": ["a"]}), "spec.http: missing"),
        (json!({"hosts": ["a"], "http": http, "tcp": [{}]}), "spec.tcp: not followed"),
        (json!({"hosts": ["a"], "http": http, "tls": [{}]}), "spec.tls: not followed"),
        (json!({"hosts": ["a"], "http": http, "exportTo": ["bank"]}), "spec.exportTo[0]: who follows"),
    ] {
        let error = read(&spec);
        assert!(error.starts_with(expected), "{error}\n{spec}");
    }
}

#[test]
fn what_is_tried_again() {
    let on = |codes: &[u16], grpc_codes: &[u8]| Ok(RetryOn { codes: codes.into(), grpc_codes: grpc_codes.into() });
    assert_eq!(retry_on(None), on(&[503], &[14, 1]));
    assert_eq!(retry_on(Some("")), on(&[503], &[14, 1]));
    assert_eq!(retry_on(Some("gateway-error, 503,429")), on(&[429, 502, 503, 504], &[]));
    assert_eq!(retry_on(Some("connect-failure,reset")), on(&[], &[]));
    assert_eq!(retry_on(Some("5xx")).unwrap().codes.len(), 100);
    assert_eq!(retry_on(Some("5xx,200")), Err("200".to_owned()));
}
