//! A ServiceEntry → what its waypoint does with the requests for its hosts.

use mesh_model::address::NamespacedName;
use mesh_model::route::{PortProtocol, Protocol, ServiceRoutes};

use super::defined::Entry;
use super::ports::{number, tcp_ports};
use crate::cluster::attachments::{Target, entry_parent};
use crate::resources::gateway_api::common::ParentRef;
use crate::resources::host;
use crate::translate::context::Context;
use crate::translate::{attached, rate_limits, route, route_rules, waypoint};

/// What the waypoint of a service entry is told of each of its hosts, and which waypoint that is. A route that has the entry as its parent
/// is for all of them. A wildcard is no service that a waypoint could ask for.
pub(super) fn of_entry(entry: &Entry, context: &Context<'_>) -> Vec<(ServiceRoutes, NamespacedName)> {
    let verdict = waypoint::of_entry(&entry.object.metadata, context).filter(|verdict| verdict.is_served);
    let Some(verdict) = verdict else { return Vec::new() };
    let hosts = entry.hosts.iter().filter(|one| !host::is_wildcard(&one.name));
    let own = || Target::Entry(entry.key.clone());
    let is_parent =
        |reference: &ParentRef, namespace: &str| entry_parent(reference, namespace).as_ref() == Some(&entry.key);
    let routes = route::of_entry(&entry.key, context);
    let rules = route_rules::rules(&routes, &entry.key, is_parent, |port| entry.object.has_port(port), context);
    let limits = rate_limits::of_entry(context.attachments.routes_of_entry(&entry.key), &verdict.asked, context);
    let of_host = |name: &NamespacedName| ServiceRoutes {
        ports: protocols(entry),
        rules: rules.clone(),
        rate_limits: limits.clone(),
        ..attached::service(name.clone(), own(), &verdict.asked, context)
    };
    let names = hosts.map(|one| NamespacedName::new(entry.key.namespace.clone(), one.name.clone()));
    names.map(|name| (of_host(&name), verdict.asked.clone())).collect()
}

/// Of a port that is not here the waypoint has to find out what is spoken.
fn protocols(entry: &Entry) -> Vec<PortProtocol> {
    let of = |port: &crate::resources::service_entry::Port| {
        let protocol = match port.protocol.to_ascii_uppercase().as_str() {
            "HTTP" => Protocol::Http,
            "HTTP2" => Protocol::Http2,
            "GRPC" => Protocol::Grpc,
            "TLS" | "HTTPS" => Protocol::Tls,
            "TCP" | "MONGO" | "MYSQL" | "REDIS" => Protocol::Tcp,
            _ => return None,
        };
        Some(PortProtocol { port: number(port.number), protocol })
    };
    tcp_ports(&entry.object).filter_map(of).collect()
}
