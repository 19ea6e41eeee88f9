use serde_json::{Value, json};

use crate::resources::{Kind, Object};

fn read(kind: Kind, spec: &str) -> Result<Object, String> {
    let text = format!("{{metadata: {{name: x, namespace: shop}}, spec: {spec}}}");
    let value: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Object::from_value(kind, &value).map_err(|error| error.to_string())
}

/// (specification, what is said of it; empty is good)
fn table(kind: Kind, cases: &[(&str, &str)]) {
    for (spec, expected) in cases {
        match (read(kind, spec), expected.is_empty()) {
            (Ok(_), true) => {}
            (Ok(_), false) => panic!("{spec}: taken, expected {expected:?}"),
            (Err(error), _) => assert!(!expected.is_empty() && error.starts_with(expected), "{spec}: {error}"),
        }
    }
}

#[test]
fn gateways() {
    let of = |rest: &str| format!("{{gatewayClassName: ambit-waypoint, {rest}}}");
    let listener = "listeners: [{name: mesh, port: 15008, protocol: HBONE}]";
    for (spec, expected) in [
        (of(listener), ""),
        (of("listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: All}}}]"), ""),
        (of(&format!("{listener}, addresses: [{{type: Hostname, value: wp.infra.svc.cluster.local}}]")), ""),
        (of(&format!("{listener}, infrastructure: {{labels: {{a: b}}, annotations: {{c: d}}}}")), ""),
        (
            "{gatewayClassName: nginx, listeners: [{name: a, port: 80, protocol: HTTP, tls: {mode: Terminate}}]}"
                .into(),
            "",
        ),
        (of("listeners: []"), "spec.listeners: a waypoint has one listener"),
        (
            of("listeners: [{name: mesh, port: 15008, protocol: HTTP}]"),
            "spec.listeners[0].protocol: a waypoint speaks HBONE",
        ),
        (
            of("listeners: [{name: mesh, port: 15009, protocol: HBONE}]"),
            "spec.listeners[0].port: a waypoint listens on 15008",
        ),
        (
            of(
                "listeners: [{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {namespaces: {from: Selector}}}]",
            ),
            "spec.listeners[0].allowedRoutes.namespaces.selector: missing",
        ),
        (of(&format!("{listener}, addresses: [{{value: here}}]")), "spec.addresses[0].value: \"here\" is not an IP"),
        (of(&format!("{listener}, tls: {{}}")), "spec.tls: not supported here"),
        (of(&format!("{listener}, infrastructure: {{parametersRef: {{group: '', kind: ConfigMap, name: size}}}}")), ""),
        (
            of(&format!("{listener}, infrastructure: {{parametersRef: {{group: a.b, kind: Size, name: size}}}}")),
            "spec.infrastructure.parametersRef: not supported here",
        ),
        (of("listners: []"), "spec.listners: unknown field `listners`: did you mean `listeners`?"),
    ] {
        table(Kind::Gateway, &[(&spec, expected)]);
    }
    table(
        Kind::GatewayClass,
        &[("{controllerName: istio.io/mesh-controller}", ""), ("{controllerName: x}", "spec.controllerName")],
    );
}

#[test]
fn http_routes() {
    let rules = |rules: &str| format!("{{parentRefs: [{{group: '', kind: Service, name: web}}], rules: {rules}}}");
    let rule = |rule: &str| rules(&format!("[{{{rule}}}]"));
    let filter = |filter: &str| rule(&format!("filters: [{{{filter}}}]"));
    for (spec, expected) in [
        (rules("[{name: a}, {name: b}, {}, {}]"), ""),
        (rules("[{name: a}, {name: a}]"), "spec.rules[1].name: \"a\" is there twice"),
        (rules("[]"), "spec.rules: an empty list"),
        (rules(&format!("[{}]", ["{}"; 17].join(","))), "spec.rules: 17 of them, and 16 is the most"),
        (rule("matches: [{path: {type: Exact, value: /a/b}, method: GET}]"), ""),
        (rule("matches: [{path: {type: RegularExpression, value: '/[a-z]+'}}]"), ""),
        (rule("matches: [{path: {value: a}}]"), "spec.rules[0].matches[0].path.value: \"a\" does not begin with '/'"),
        (rule("matches: [{path: {value: /a/../b}}]"), "spec.rules[0].matches[0].path.value"),
        (rule("matches: [{path: {value: /a%2fb}}]"), "spec.rules[0].matches[0].path.value"),
        (rule("matches: [{path: {value: '/a b'}}]"), "spec.rules[0].matches[0].path.value"),
        (rule("matches: [{path: {value: '/a%zz'}}]"), "spec.rules[0].matches[0].path.value"),
        (rule("matches: [{method: FETCH}]"), "spec.rules[0].matches[0].method"),
        (rule("matches: [{headers: [{name: 'a b', value: c}]}]"), "spec.rules[0].matches[0].headers[0].name"),
        (
            rule("matches: [{queryParams: [{name: a, value: b}, {name: a, value: c}]}]"),
            "spec.rules[0].matches[0].queryParams[1].name",
        ),
        (rule("timeouts: {request: 10s, backendRequest: 2s500ms}"), ""),
        (rule("timeouts: {request: 0s, backendRequest: 2s}"), ""),
        (rule("timeouts: {request: 10}"), "spec.rules[0].timeouts.request"),
        (rule("timeouts: {request: 1s, backendRequest: 2s}"), "spec.rules[0].timeouts.backendRequest: longer than"),
        (rule("timeouts: {request: 1.5s}"), "spec.rules[0].timeouts.request: \"1.5s\" is not a duration"),
        (rule("retry: {codes: [500, 503], attempts: 0, backoff: 100ms}"), ""),
        (rule("retry: {codes: [200]}"), "spec.rules[0].retry.codes[0]: 200 is not an error"),
        (rule("sessionPersistence: {}"), "spec.rules[0].sessionPersistence: not supported here: it is experimental"),
        (rule("backendRefs: [{name: v1, port: 80, weight: 0}, {name: v2, namespace: b, port: 81}]"), ""),
        (rule("backendRefs: [{name: v1}]"), "spec.rules[0].backendRefs[0].port: missing"),
        (rule("backendRefs: [{name: v1, port: 80, weight: -1}]"), "spec.rules[0].backendRefs[0].weight"),
        (filter("type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], remove: [c]}"), ""),
        (filter("type: RequestHeaderModifier"), "spec.rules[0].filters[0].requestHeaderModifier: missing"),
        (
            filter("type: CORS, requestMirror: {backendRef: {name: a, port: 1}}"),
            "spec.rules[0].filters[0].requestMirror: it is not",
        ),
        (
            filter("type: ExtensionRef, extensionRef: {}"),
            "spec.rules[0].filters[0].type: not supported here: no extensions",
        ),
        (
            filter(
                "type: RequestRedirect, requestRedirect: {statusCode: 308, path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}",
            ),
            "",
        ),
        (
            filter("type: RequestRedirect, requestRedirect: {statusCode: 300}"),
            "spec.rules[0].filters[0].requestRedirect.statusCode",
        ),
        (
            rule("filters: [{type: RequestRedirect, requestRedirect: {}}], backendRefs: [{name: a, port: 80}]"),
            "spec.rules[0].backendRefs: a rule with a RequestRedirect sends nothing on",
        ),
        (
            rule("filters: [{type: RequestRedirect, requestRedirect: {}}, {type: URLRewrite, urlRewrite: {}}]"),
            "spec.rules[0].filters: RequestRedirect and URLRewrite exclude each other",
        ),
        (
            rule(
                "matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}]",
            ),
            "spec.rules[0].filters[0].urlRewrite.path.replacePrefixMatch: it replaces what a PathPrefix matched",
        ),
        (
            filter(
                "type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}, fraction: {numerator: 1, denominator: 1000}}",
            ),
            "",
        ),
        (
            filter("type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}, percent: 101}"),
            "spec.rules[0].filters[0].requestMirror.percent",
        ),
        (filter("type: CORS, cors: {allowOrigins: ['https://*.example.com'], maxAge: 10}"), ""),
        (filter("type: CORS, cors: {allowMethods: ['*', GET]}"), "spec.rules[0].filters[0].cors.allowMethods"),
        (
            "{parentRefs: [{kind: Service, name: web}]}".into(),
            "spec.parentRefs[0].group: a Service is of the core group",
        ),
        (
            "{parentRefs: [{kind: ServiceEntry, name: api}]}".into(),
            "spec.parentRefs[0].group: a ServiceEntry is of Istio's group",
        ),
        (
            "{parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: api, sectionName: http}]}".into(),
            "spec.parentRefs[0].sectionName",
        ),
        ("{parentRefs: [{group: networking.istio.io, kind: ServiceEntry, name: api, port: 80}]}".into(), ""),
        (
            "{parentRefs: [{group: '', kind: Service, name: web}, {group: '', kind: Service, name: web, port: 80}]}"
                .into(),
            "spec.parentRefs[1]: the same parent twice",
        ),
        (rule("matchs: []"), "spec.rules[0].matchs: unknown field"),
    ] {
        table(Kind::HttpRoute, &[(&spec, expected)]);
    }
}

#[test]
fn grpc_routes() {
    table(
        Kind::GrpcRoute,
        &[
            ("{rules: [{matches: [{method: {service: a.b.C, method: D}}]}]}", ""),
            ("{rules: [{matches: [{method: {type: RegularExpression, service: 'a.*'}}]}]}", ""),
            ("{rules: [{matches: [{method: {}}]}]}", "spec.rules[0].matches[0].method: set service or method"),
            ("{rules: [{matches: [{method: {service: a/b}}]}]}", "spec.rules[0].matches[0].method.service"),
            (
                "{rules: [{filters: [{type: CORS, cors: {}}]}]}",
                "spec.rules[0].filters[0].type: not supported here: not in a route",
            ),
            ("{rules: [{timeouts: {}}]}", "spec.rules[0].timeouts: unknown field"),
        ],
    );
}

/// Other controllers' objects may say what only they know.
#[test]
fn on_a_cluster_other_controllers_judge_their_own() {
    let text = |spec: Value| json!({"metadata": {"name": "a", "namespace": "n"}, "spec": spec}).to_string();
    let theirs = json!({"parentRefs": [{"name": "ingress"}], "rules": [{"newer": 1}]});
    assert!(Object::from_server(Kind::HttpRoute, &text(theirs.clone())).is_ok());
    assert!(Object::from_value(Kind::HttpRoute, &serde_json::from_str(&text(theirs)).unwrap()).is_err());
    let ours = json!({"parentRefs": [{"group": "", "kind": "Service", "name": "web"}], "rules": [{"newer": 1}]});
    assert!(Object::from_server(Kind::HttpRoute, &text(ours)).is_err());
    let gateway = |class: &str| {
        let listener = json!({"name": "http", "port": 80, "protocol": "HTTP", "newer": 1});
        text(json!({"gatewayClassName": class, "listeners": [listener], "newer": {}}))
    };
    assert!(Object::from_server(Kind::Gateway, &gateway("nginx")).is_ok());
    assert!(Object::from_server(Kind::Gateway, &gateway("istio-waypoint")).is_err());
}

#[test]
fn routes_of_connections() {
    let of = |rest: &str| format!("{{parentRefs: [{{group: '', kind: Service, name: db, port: 80}}], {rest}}}");
    let rule = "rules: [{backendRefs: [{name: a, port: 80, weight: 9}, {name: b, namespace: bank, port: 80}]}]";
    for (rest, expected) in [
        (rule, ""),
        ("rules: [{name: main, backendRefs: [{name: a, port: 80, weight: 0}]}]", ""),
        ("rules: []", "spec.rules: missing: write one rule"),
        ("rules: [{backendRefs: []}]", "spec.rules[0].backendRefs: missing"),
        (
            "rules: [{backendRefs: [{name: a, port: 80}]}, {backendRefs: [{name: a, port: 80}]}]",
            "spec.rules: 2 of them",
        ),
        ("rules: [{backendRefs: [{name: a}]}]", "spec.rules[0].backendRefs[0].port: missing"),
        ("rules: [{backendRefs: [{name: a, port: 80, weight: -1}]}]", "spec.rules[0].backendRefs[0].weight: -1"),
        (
            "rules: [{backendRefs: [{name: a, port: 80, filters: []}]}]",
            "spec.rules[0].backendRefs[0].filters: unknown field",
        ),
        ("rules: [{matches: [], backendRefs: [{name: a, port: 80}]}]", "spec.rules[0].matches: unknown field"),
        ("rules: [{name: A, backendRefs: [{name: a, port: 80}]}]", "spec.rules[0].name: \"A\" is not a name"),
        ("useDefaultGateways: All, rules: []", "spec.useDefaultGateways: not supported here: it is experimental"),
    ] {
        table(Kind::TcpRoute, &[(&of(rest), expected)]);
        table(Kind::TlsRoute, &[(&of(&format!("hostnames: [a.example.com], {rest}")), expected)]);
    }
    let section = "{parentRefs: [{group: '', kind: Service, name: db, sectionName: tcp}], rules: []}";
    table(
        Kind::TcpRoute,
        &[
            (section, "spec.parentRefs[0].sectionName: not supported here: a Service has ports: write `port`"),
            (&of(&format!("hostnames: [a.example.com], {rule}")), "spec.hostnames: unknown field"),
        ],
    );
    for (names, expected) in [
        ("[a.example.com, '*.example.com', localhost]", ""),
        ("[]", "spec.hostnames: missing: name what clients ask for (SNI)"),
        ("['*']", "spec.hostnames[0]: \"*\" is not the name of a host"),
        ("['a.*.com']", "spec.hostnames[0]: \"a.*.com\" is not the name of a host"),
        ("[a.example.com, 10.0.0.1]", "spec.hostnames[1]: \"10.0.0.1\" is not the name of a host"),
        ("[A.example.com]", "spec.hostnames[0]"),
    ] {
        table(Kind::TlsRoute, &[(&of(&format!("hostnames: {names}, {rule}")), expected)]);
    }
}
