use serde_json::json;

use super::*;
use crate::resources::{Kind, Object};

fn config(mesh: &str) -> Result<MeshConfig, String> {
    let value = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
        "data": {"mesh": mesh, "meshNetworks": "networks: {}"},
    });
    assert!(is_one(&value));
    match Object::from_value(Kind::ConfigMap, &value).map_err(|error| error.to_string())? {
        Object::ConfigMap(object) => Ok(MeshConfig::of(&object)),
        other => panic!("{other:?}"),
    }
}

/// The provider of this kind, or why it cannot be used.
fn provider(kind: &str) -> Result<Provider, String> {
    let config = config(&format!("extensionProviders: [{{name: a, {kind}}}]")).unwrap();
    match &config.extension_providers["a"] {
        Provider::Unusable(why) => {
            assert_eq!(config.unread, [format!("extensionProviders[0] (a): {why}")], "it is said");
            Err(why.clone())
        }
        usable => {
            assert!(config.unread.is_empty());
            Ok(usable.clone())
        }
    }
}

#[test]
fn as_istio_s_documentation_writes_it() {
    let config = config(
        r#"
extensionProviders:
- name: "sample-ext-authz-grpc"
  envoyExtAuthzGrpc:
    service: "ext-authz.foo.svc.cluster.local"
    port: "9000"
- name: "sample-ext-authz-http"
  envoyExtAuthzHttp:
    service: "foo/Ext-Authz.foo.svc.cluster.local"
    port: 8000
    timeout: 0.5s
    failOpen: true
    statusOnError: "503"
    pathPrefix: /check
    includeRequestHeadersInCheck: ["x-ext-authz"]
    includeRequestBodyInCheck: {maxRequestBytes: 8192, allowPartialMessage: true}
    headersToUpstreamOnAllow: ["authorization", "path", "x-auth-*"]
    headersToDownstreamOnDeny: ["content-type", "set-cookie"]
- name: otel
  opentelemetry: {service: otel.observability.svc.cluster.local, port: 4317}
- name: mine
  envoyFileAccessLog: {path: /dev/stdout}
- name: numbers
  prometheus: {}
defaultProviders: {tracing: [otel], accessLogging: [envoy, mine, otel], metrics: [prometheus]}
enablePrometheusMerge: true
accessLogFile: /dev/stdout
defaultConfig: {discoveryAddress: "istiod:15012"}
"#,
    );
    let config = config.unwrap();
    let host = |namespace: Option<&str>, name: &str, port| Host {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        port,
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let grpc = ExtAuthz {
        host: host(None, "ext-authz.foo.svc.cluster.local", 9000),
        timeout: std::time::Duration::from_secs(600),
        fail_open: false,
        status_on_error: http::StatusCode::FORBIDDEN,
        body: None,
    };
    let over_http = ExtAuthz {
        host: host(Some("foo"), "ext-authz.foo.svc.cluster.local", 8000),
        timeout: std::time::Duration::from_millis(500),
        fail_open: true,
        status_on_error: http::StatusCode::SERVICE_UNAVAILABLE,
        body: Some(provider::Body { max_request_bytes: 8192, allow_partial_message: true, pack_as_bytes: false }),
    };
    let http = ExtAuthzHttp {
        path_prefix: "/check".to_owned(),
        include_request_headers_in_check: names(&["x-ext-authz"]),
        headers_to_upstream_on_allow: names(&["authorization", "path", "x-auth-*"]),
        headers_to_downstream_on_deny: names(&["content-type", "set-cookie"]),
        ..ExtAuthzHttp::default()
    };
    let otel = OpenTelemetry { host: host(None, "otel.observability.svc.cluster.local", 4317) };
    assert_eq!(
        config.extension_providers.into_iter().collect::<Vec<_>>(),
        [
            ("mine".to_owned(), Provider::FileAccessLog),
            ("numbers".to_owned(), Provider::Prometheus),
            ("otel".to_owned(), Provider::OpenTelemetry(otel)),
            ("sample-ext-authz-grpc".to_owned(), Provider::ExtAuthzGrpc(grpc)),
            ("sample-ext-authz-http".to_owned(), Provider::ExtAuthzHttp(over_http, http)),
        ]
    );
    assert_eq!(config.tracing, ["otel"]);
    assert_eq!(config.access_logging, ["envoy", "mine", "otel"]);
    let no_log =
        "defaultProviders.accessLogging (otel): nobody who writes a log: name envoy, or one of kind envoyFileAccessLog";
    assert_eq!(config.unread, ["defaultConfig", "defaultProviders.metrics", "enablePrometheusMerge", no_log]);
}

#[test]
fn a_provider_that_cannot_be_followed_is_one_alone_and_says_why() {
    let grpc = |rest: &str| provider(&format!("envoyExtAuthzGrpc: {{service: a.b, port: 1, {rest}}}"));
    assert!(grpc("clearRouteCache: true").is_ok());
    for (rest, why) in [
        ("clearRouteCache: false", "envoyExtAuthzGrpc.clearRouteCache: false is not followed"),
        ("timeout: never", "envoyExtAuthzGrpc.timeout: \"never\" is not"),
        ("timeout: 601s", "envoyExtAuthzGrpc.timeout: \"601s\" is not"),
        ("timeout: 0s", "envoyExtAuthzGrpc.timeout: \"0s\" is not"),
        ("statusOnError: \"200\"", "envoyExtAuthzGrpc.statusOnError: \"200\" is not"),
        ("includeRequestBodyInCheck: {}", "envoyExtAuthzGrpc.includeRequestBodyInCheck.maxRequestBytes: write 1 to"),
        ("includeRequestBodyInCheck: {maxRequestBytes: 2000000}", "envoyExtAuthzGrpc.includeRequestBodyInCheck."),
        ("failopen: true", "envoyExtAuthzGrpc.failopen: unknown field `failopen`: did you mean `failOpen`?"),
        ("pathPrefix: /a", "envoyExtAuthzGrpc.pathPrefix: unknown field `pathPrefix`"),
    ] {
        let said = grpc(rest).unwrap_err();
        assert!(said.starts_with(why), "{rest}: {said}");
    }
    for (kind, why) in [
        ("zipkin: {service: a, port: 1}", "zipkin: unknown field `zipkin`"),
        ("envoyExtAuthzGrpc: {port: 1}", "envoyExtAuthzGrpc.service: write a host"),
        ("envoyExtAuthzGrpc: {service: a/b/c, port: 1}", "envoyExtAuthzGrpc.service: write a host"),
        ("envoyExtAuthzGrpc: {service: a, port: 70000}", "envoyExtAuthzGrpc.port: write 1 to 65535"),
        ("envoyExtAuthzHttp: {service: a, port: 1, pathPrefix: check}", "envoyExtAuthzHttp.pathPrefix: \"check\""),
        (
            "envoyExtAuthzHttp: {service: a, port: 1, includeAdditionalHeadersInCheck: {\"a b\": c}}",
            "envoyExtAuthzHttp.includeAdditionalHeadersInCheck: \"a b\"",
        ),
        ("opentelemetry: {service: a, port: 0}", "opentelemetry.port: write 1 to 65535"),
        ("opentelemetry: {service: a, port: 1, http: {path: /}}", "opentelemetry.http: unknown field `http`"),
        ("envoyFileAccessLog: {path: /dev/stderr}", "envoyFileAccessLog.path: \"/dev/stderr\" is not followed"),
        (
            "envoyFileAccessLog: {path: /dev/stdout, logFormat: {text: a}}",
            "envoyFileAccessLog.logFormat is not followed",
        ),
        (
            "envoyFileAccessLog: {path: /dev/stdout, omitEmptyValues: false}",
            "envoyFileAccessLog.omitEmptyValues: false",
        ),
        ("envoyFileAccessLog: {file: /dev/stdout}", "envoyFileAccessLog.file: unknown field"),
        ("opentelemetry: {service: a, port: 1}, envoyExtAuthzGrpc: {service: a, port: 1}", "of more than one kind"),
    ] {
        let said = provider(kind).unwrap_err();
        assert!(said.starts_with(why), "{kind}: {said}");
    }
}

#[test]
fn what_is_no_mesh_configuration_is_refused_whole() {
    for (mesh, why) in [
        ("a: [", "data.mesh: no YAML: "),
        ("[]", "data.mesh: expected a MeshConfig"),
        ("extensionProviders: {}", "data.mesh.extensionProviders: expected a list"),
        ("extensionProviders: [{}]", "data.mesh.extensionProviders[0].name: missing"),
        ("extensionProviders: [{name: a}, {name: a}]", "data.mesh.extensionProviders[1].name: \"a\" is there twice"),
        ("defaultProviders: []", "data.mesh.defaultProviders: expected lists"),
        ("defaultProviders: {tracing: otel}", "data.mesh.defaultProviders.tracing: expected a list of names"),
    ] {
        let said = config(mesh).unwrap_err();
        assert!(said.starts_with(why), "{mesh}: {said}");
    }
    for empty in ["", "  \n", "# nothing", "{}"] {
        assert_eq!(config(empty).unwrap().unread, Vec::<String>::new(), "{empty:?}");
    }
    let other = |name: &str, key: &str| is_one(&json!({"metadata": {"name": name}, "data": {key: ""}}));
    assert!(other("istio-canary", "mesh"));
    assert!(!other("istio-ca-root-cert", "root-cert.pem") && !other("app", "mesh"));
}
