//! The Gateway API's kinds (`gateway.networking.k8s.io`), as far as a waypoint follows them: version 1.7.
//!
//! | file | holds |
//! |---|---|
//! | [`gateway`] | GatewayClass, Gateway: which waypoints there are |
//! | [`http_route`], [`http_filter`] | HTTPRoute: rules, and what they do to a request |
//! | [`grpc_route`] | GRPCRoute |
//! | [`stream_route`] | TCPRoute, TLSRoute |
//! | [`common`], [`backend_ref`] | parents, backends and matches, as kinds of routes have them in common |
//! | `check`, `check_rule`, `check_stream`, `check_filter` | what the API server and its rules would refuse |
//!
//! A field of the API that is not followed here (experimental, or of another kind of gateway) is read, so that it can be
//! refused by name and with the fix: a rule without it would do something else than its author wrote.

pub mod backend_ref;
mod check;
mod check_filter;
mod check_rule;
mod check_stream;
pub mod common;
pub mod gateway;
pub mod grpc_route;
pub mod http_filter;
pub mod http_route;
pub mod stream_route;

#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use super::kind::Kind;

/// The group of all its kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";

pub(crate) use check::parse_duration;
pub(super) use check_rule::{grpc_route as validate_grpc_route, http_route as validate_http_route};
pub(super) use check_stream::{tcp_route as validate_tcp_route, tls_route as validate_tls_route};
pub use gateway::{Gateway, GatewayClass};
pub(super) use gateway::{validate as validate_gateway, validate_class};
pub use grpc_route::GrpcRoute;
pub use http_route::HttpRoute;
pub use stream_route::{TcpRoute, TlsRoute};

/// Cuts what belongs to other controllers down to what is read of it, before it is read strictly: on a cluster their Gateways
/// and routes may say what only they know, and theirs is to judge it.
pub(super) fn reduce_foreign(kind: Kind, value: &mut Value) {
    let parts: &[&str] = match kind {
        Kind::Gateway => {
            let class = value["spec"]["gatewayClassName"].as_str().unwrap_or_default();
            if gateway::WAYPOINT_CLASSES.contains(&class) || class == gateway::REMOTE_CLASS {
                return;
            }
            &["gatewayClassName"]
        }
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute | Kind::TlsRoute => {
            let parents = value["spec"]["parentRefs"].as_array();
            if parents.into_iter().flatten().any(|parent| parent["kind"] == "Service") {
                return;
            }
            &[]
        }
        _ => return,
    };
    let (spec, status) = (value["spec"].take(), value["status"].take());
    let mut reduced: serde_json::Map<String, Value> = parts
        .iter()
        .filter(|part| !spec[**part].is_null())
        .map(|part| ((*part).to_owned(), spec[*part].clone()))
        .collect();
    if kind == Kind::Gateway {
        let listeners = spec["listeners"].as_array().into_iter().flatten().map(|listener| {
            let part = |name: &str| listener[name].clone();
            json!({"name": part("name"), "port": part("port"), "protocol": part("protocol"), "allowedRoutes": part("allowedRoutes")})
        });
        reduced.insert("listeners".to_owned(), listeners.collect());
        let addresses = status["addresses"].clone();
        value["status"] = json!({"addresses": addresses});
    }
    value["spec"] = Value::Object(reduced);
}
