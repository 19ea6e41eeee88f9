//! A host of a ServiceEntry → Service.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::{GatewayAddress, NetworkAddress};
use mesh_model::service::{BalanceMode, LoadBalancing, Service, Vip};
use mesh_model::workload::{AppProtocol, PortMapping};

use super::defined::{Entry, Host, is_private};
use super::ports::{number, tcp_ports};
use crate::resources::service_entry::{Resolution, block};
use crate::translate::context::Context;
use crate::translate::{distribution, elsewhere, waypoint};

/// A host as proxies are told of it.
pub(super) fn translate(entry: &Entry, host: &Host, context: &Context<'_>) -> Service {
    let object = &*entry.object;
    let vip = |ip, prefix| Vip { address: NetworkAddress { network: context.network.clone(), ip }, prefix };
    let given = object.spec.addresses.iter().filter_map(|text| block(text));
    let given = given.map(|block| {
        let prefix = Some(block.prefix_len()).filter(|length| *length != block.max_prefix_len());
        vip(block.network(), prefix)
    });
    let namespace = entry.key.namespace.clone();
    Service {
        name: entry.key.name.clone(),
        vips: given.chain(host.allocated.iter().map(|ip| vip(*ip, None))).collect(),
        ports: tcp_ports(object)
            .map(|port| PortMapping {
                service_port: number(port.number),
                target_port: number(port.target_port.unwrap_or(port.number)),
                app_protocol: app_protocol(&port.protocol),
            })
            .collect(),
        subject_alt_names: subject_alt_names(entry, context),
        waypoint: waypoint(entry, context),
        load_balancing: load_balancing(entry, context),
        canonical: host.canonical,
        private: is_private(entry),
        ..Service::empty(namespace, host.name.clone())
    }
}

/// Who may answer for it: whom its author names; else, on other networks, its endpoints.
fn subject_alt_names(entry: &Entry, context: &Context<'_>) -> Vec<Arc<str>> {
    let spec = &entry.object.spec;
    if !spec.subject_alt_names.is_empty() {
        return spec.subject_alt_names.iter().map(|name| name.as_str().into()).collect();
    }
    let selects = |metadata: &ObjectMeta| entry.selects(metadata);
    elsewhere::identities(&entry.key.namespace, selects, &spec.endpoints, context)
}

/// The waypoint in the way to its services.
pub(super) fn waypoint(entry: &Entry, context: &Context<'_>) -> Option<Arc<GatewayAddress>> {
    waypoint::of_entry(&entry.object.metadata, context).and_then(|verdict| verdict.address)
}

fn load_balancing(entry: &Entry, context: &Context<'_>) -> LoadBalancing {
    if entry.object.spec.resolution == Resolution::None {
        return LoadBalancing { preference: Vec::new(), mode: BalanceMode::Passthrough, allow_unhealthy: true };
    }
    let namespace = context.cluster.namespace(&entry.key.namespace);
    let (preference, mode) = distribution::of_entry(&entry.object.metadata, namespace.map(|n| &**n)).balance();
    LoadBalancing { preference, mode, allow_unhealthy: false }
}

/// A name that is only known once somebody asks for it is nothing that a proxy of a node could resolve.
pub(super) fn is_published(entry: &Entry, context: &Context<'_>) -> bool {
    entry.object.spec.resolution != Resolution::DynamicDns || waypoint(entry, context).is_some()
}

/// What `protocol` says is spoken.
fn app_protocol(protocol: &str) -> AppProtocol {
    match protocol.to_ascii_uppercase().as_str() {
        "HTTP" => AppProtocol::Http11,
        "HTTP2" => AppProtocol::Http2,
        "GRPC" => AppProtocol::Grpc,
        "TLS" | "HTTPS" => AppProtocol::Tls,
        "TCP" => AppProtocol::Tcp,
        // Said, and of no use here.
        _ => AppProtocol::Unknown,
    }
}
