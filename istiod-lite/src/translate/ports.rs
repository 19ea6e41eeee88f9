//! Names and numbers of ports.

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mesh_model::route::Protocol;
use mesh_model::workload::AppProtocol;

use crate::cluster::Pod;
pub(super) use crate::cluster::relations::protocol;

/// A port that was validated when it was read.
pub(super) fn number(port: i32) -> u16 {
    u16::try_from(port).unwrap_or(0)
}

/// Only TCP goes through the mesh. A port number may also be used by a UDP port of its own (DNS does), with another
/// target, and the tables hold one per number.
pub(super) fn is_tcp(said: Option<&str>) -> bool {
    protocol(said) == "TCP"
}

/// The service's own target: its number, or 0 when each endpoint has to be asked for a name.
pub(super) fn target(port: &ServicePort) -> u16 {
    match &port.target_port {
        Some(IntOrString::Int(target)) => number(*target),
        Some(IntOrString::String(text)) => text.parse().unwrap_or(0),
        None => number(port.port),
    }
}

/// The name of a service's target, where it is no number.
pub(super) fn target_name(port: &ServicePort) -> Option<&str> {
    match &port.target_port {
        Some(IntOrString::String(name)) => Some(name),
        _ => None,
    }
}

/// A service's target in one pod. `None` when the pod has no port of that name.
pub(super) fn target_in_pod(port: &ServicePort, pod: &Pod) -> Option<u16> {
    let fixed = target(port);
    if fixed != 0 {
        return Some(fixed);
    }
    let Some(IntOrString::String(name)) = &port.target_port else { return None };
    let spoken = protocol(port.protocol.as_deref());
    let named = pod.named_ports.iter().find(|p| *p.name == **name && *p.protocol == *spoken)?;
    Some(named.port)
}

/// Ports of protocols in which the server speaks first (SMTP, DNS, MySQL, MongoDB): guessing at them breaks them, so
/// they are TCP unless something else is said.
const SERVER_FIRST: [i32; 4] = [25, 53, 3306, 27017];

/// What is spoken on a port: `appProtocol` if set, else the port name, of either the first word. As istiod has it.
pub(super) fn app_protocol(port: &ServicePort) -> AppProtocol {
    match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c") => return AppProtocol::Http2,
        Some("kubernetes.io/ws") => return AppProtocol::Http11,
        Some("kubernetes.io/wss") => return AppProtocol::Tls,
        _ => {}
    }
    let said = port.app_protocol.as_deref().or(port.name.as_deref()).unwrap_or("").to_ascii_lowercase();
    if said.starts_with("grpc-web") {
        return AppProtocol::Unknown;
    }
    match said.split('-').next().unwrap_or("") {
        "http" => AppProtocol::Http11,
        "http2" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "tls" | "https" => AppProtocol::Tls,
        "tcp" => AppProtocol::Tcp,
        // Said, and of no use here.
        "udp" | "http_proxy" | "mongo" | "mysql" | "redis" => AppProtocol::Unknown,
        _ if SERVER_FIRST.contains(&port.port) => AppProtocol::Tcp,
        _ => AppProtocol::Unknown,
    }
}

/// What a waypoint takes to be spoken on a port: the same words, and more of them are of use. None: it has to find out.
pub(super) fn at_waypoint(port: &ServicePort) -> Option<Protocol> {
    match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c") => return Some(Protocol::Http2),
        Some("kubernetes.io/ws") => return Some(Protocol::WebSocket),
        Some("kubernetes.io/wss") => return Some(Protocol::Tls),
        _ => {}
    }
    let said = port.app_protocol.as_deref().or(port.name.as_deref()).unwrap_or("").to_ascii_lowercase();
    if said.starts_with("grpc-web") {
        return Some(Protocol::Http);
    }
    Some(match said.split('-').next().unwrap_or("") {
        "http" => Protocol::Http,
        "http2" => Protocol::Http2,
        "grpc" => Protocol::Grpc,
        "tls" | "https" => Protocol::Tls,
        "tcp" | "mongo" | "mysql" | "redis" => Protocol::Tcp,
        _ if SERVER_FIRST.contains(&port.port) => Protocol::Tcp,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_by_field_and_by_name() {
        let port = |app: Option<&str>, name: Option<&str>| ServicePort {
            app_protocol: app.map(str::to_owned),
            name: name.map(str::to_owned),
            ..ServicePort::default()
        };
        for (app, name, expected) in [
            (None, None, AppProtocol::Unknown),
            (None, Some("http"), AppProtocol::Http11),
            (None, Some("http-web"), AppProtocol::Http11),
            (None, Some("httpweb"), AppProtocol::Unknown),
            (None, Some("http2-x"), AppProtocol::Http2),
            (None, Some("grpc-x"), AppProtocol::Grpc),
            (None, Some("https"), AppProtocol::Tls),
            (None, Some("tcp-db"), AppProtocol::Tcp),
            (Some("kubernetes.io/h2c"), Some("tcp"), AppProtocol::Http2),
            (Some("example.com/own"), Some("http"), AppProtocol::Unknown),
            (Some("http-own"), Some("tcp"), AppProtocol::Http11),
            (None, Some("grpc-web"), AppProtocol::Unknown),
            (None, Some("GRPC-Web-x"), AppProtocol::Unknown),
        ] {
            assert_eq!(app_protocol(&port(app, name)), expected, "{app:?} {name:?}");
        }
        for (app, name, expected) in [
            (None, None, None),
            (None, Some("http-web"), Some(Protocol::Http)),
            (Some("kubernetes.io/h2c"), Some("http"), Some(Protocol::Http2)),
            (Some("kubernetes.io/ws"), None, Some(Protocol::WebSocket)),
            (Some("example.com/own"), Some("http"), None),
            (None, Some("redis"), Some(Protocol::Tcp)),
            (None, Some("https"), Some(Protocol::Tls)),
            (None, Some("grpc-x"), Some(Protocol::Grpc)),
            (None, Some("grpc-web"), Some(Protocol::Http)),
        ] {
            assert_eq!(at_waypoint(&port(app, name)), expected, "{app:?} {name:?}");
        }
        for (number, name, expected) in [
            (53, "dns-tcp", AppProtocol::Tcp),
            (53, "http-odd", AppProtocol::Http11),
            (3306, "db", AppProtocol::Tcp),
            (3306, "mysql", AppProtocol::Unknown),
            (3307, "db", AppProtocol::Unknown),
        ] {
            let port = ServicePort { port: number, ..port(None, Some(name)) };
            assert_eq!(app_protocol(&port), expected, "{number} {name}");
        }
    }
}
