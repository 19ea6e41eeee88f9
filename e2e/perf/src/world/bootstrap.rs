//! Envoy as what ztunnel is: captured TCP goes out in HTTP/2 CONNECT tunnels over mutual TLS 1.3 to port 15008 of the
//! destination, and tunnels that come in are ended into the application. Nothing else is switched on: no access log, no
//! policy, no HTTP for the application's bytes.
use serde_json::{Value, json};
use std::path::PathBuf;

/// Where captured connections arrive.
const OUTBOUND: u16 = 15001;
/// Where tunnels arrive.
const HBONE: u16 = 15008;
/// Marks Envoy's own connections, so that they are not captured again: Istio's mark for the proxy.
const MARK: u32 = 0x539;
/// Envoy's default of 1,024 connections per cluster would be the limit that is measured.
const MOST_CONNECTIONS: u32 = 65_535;

/// What an Envoy proves itself with.
pub(super) struct Files {
    /// Whom it trusts.
    pub(super) root: PathBuf,
    /// Its certificate.
    pub(super) chain: PathBuf,
    /// Its key.
    pub(super) key: PathBuf,
}

/// The whole configuration.
pub(super) fn config(files: &Files) -> Value {
    json!({
        "node": {"id": "perf", "cluster": "perf"},
        "static_resources": {
            "listeners": [outbound(), inbound(files)],
            "clusters": [
                cluster("tunnels", &json!({"upstream_port_override": HBONE}), &json!({
                    "upstream_bind_config": {
                        "source_address": {"address": "0.0.0.0", "port_value": 0},
                        // SOL_SOCKET, SO_MARK
                        "socket_options": [{"level": 1, "name": 36, "int_value": MARK, "state": "STATE_PREBIND"}],
                    },
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": type_url("upstreams.http.v3.HttpProtocolOptions"),
                            "explicit_http_config": {"http2_protocol_options": {}},
                        },
                    },
                    "transport_socket": extension(
                        "envoy.transport_sockets.tls",
                        "transport_sockets.tls.v3.UpstreamTlsContext",
                        &json!({"common_tls_context": tls(files)}),
                    ),
                })),
                cluster(
                    "application",
                    &json!({"use_http_header": true, "http_header_name": ":authority"}),
                    &json!({}),
                ),
            ],
        },
    })
}

/// Captured connections, each into a tunnel to where it wanted to go.
fn outbound() -> Value {
    json!({
        "name": "outbound",
        "address": address(OUTBOUND),
        "listener_filters": [extension(
            "envoy.filters.listener.original_dst", "filters.listener.original_dst.v3.OriginalDst", &json!({}),
        )],
        "filter_chains": [{"filters": [extension(
            "envoy.filters.network.tcp_proxy",
            "filters.network.tcp_proxy.v3.TcpProxy",
            &json!({
                "stat_prefix": "outbound",
                "cluster": "tunnels",
                "tunneling_config": {"hostname": "%DOWNSTREAM_LOCAL_ADDRESS%"},
            }),
        )]}],
    })
}

/// Tunnels, each into a connection to where it says.
fn inbound(files: &Files) -> Value {
    let connect = json!({"upgrade_type": "CONNECT"});
    json!({
        "name": "inbound",
        "address": address(HBONE),
        "filter_chains": [{
            "transport_socket": extension(
                "envoy.transport_sockets.tls",
                "transport_sockets.tls.v3.DownstreamTlsContext",
                &json!({"require_client_certificate": true, "common_tls_context": tls(files)}),
            ),
            "filters": [extension(
                "envoy.filters.network.http_connection_manager",
                "filters.network.http_connection_manager.v3.HttpConnectionManager",
                &json!({
                    "stat_prefix": "inbound",
                    "codec_type": "HTTP2",
                    "http2_protocol_options": {"allow_connect": true},
                    "upgrade_configs": [connect],
                    "generate_request_id": false,
                    "http_filters": [extension(
                        "envoy.filters.http.router",
                        "filters.http.router.v3.Router",
                        &json!({"suppress_envoy_headers": true}),
                    )],
                    "route_config": {"name": "inbound", "virtual_hosts": [{
                        "name": "all",
                        "domains": ["*"],
                        "routes": [{
                            "match": {"connect_matcher": {}},
                            "route": {
                                "cluster": "application",
                                "timeout": "0s",
                                "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
                            },
                        }],
                    }]},
                }),
            )],
        }],
    })
}

/// A cluster that goes where the connection wanted to, with what `more` adds.
fn cluster(name: &str, original: &Value, more: &Value) -> Value {
    let limits = json!({
        "max_connections": MOST_CONNECTIONS,
        "max_pending_requests": MOST_CONNECTIONS,
        "max_requests": MOST_CONNECTIONS,
    });
    merged(
        json!({
            "name": name,
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [limits]},
            "original_dst_lb_config": original,
        }),
        more,
    )
}

/// Both sides prove a SPIFFE id, over TLS 1.3.
fn tls(files: &Files) -> Value {
    json!({
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{
            "certificate_chain": {"filename": files.chain},
            "private_key": {"filename": files.key},
        }],
        "validation_context": {
            "trusted_ca": {"filename": files.root},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}],
        },
    })
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "0.0.0.0", "port_value": port}})
}

fn type_url(of: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{of}")
}

fn extension(name: &str, of: &str, config: &Value) -> Value {
    json!({"name": name, "typed_config": merged(json!({"@type": type_url(of)}), config)})
}

/// The fields of both objects.
fn merged(mut base: Value, more: &Value) -> Value {
    if let (Some(base), Some(more)) = (base.as_object_mut(), more.as_object()) {
        base.extend(more.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_keep_their_type() {
        let files = Files { root: "/r".into(), chain: "/c".into(), key: "/k".into() };
        let config = config(&files);
        let tunnels = &config["static_resources"]["clusters"][0];
        assert_eq!(tunnels["original_dst_lb_config"]["upstream_port_override"], 15008);
        let socket = &tunnels["transport_socket"]["typed_config"];
        assert_eq!(socket["@type"], "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext");
        assert_eq!(socket["common_tls_context"]["tls_certificates"][0]["private_key"]["filename"], "/k");
    }
}
