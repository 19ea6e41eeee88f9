//! TCPRoute and TLSRoute → StreamRules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service as KubernetesService, ServicePort};
use mesh_model::address::NamespacedName;
use mesh_model::route::{StreamBackend, StreamKind, StreamRule};
use mesh_model::workload::AppProtocol;

use super::route::{Route, callers};
use super::service_spec::tcp_ports;
use super::world::World;
use super::{backend_ref, ports};
use crate::cluster::attachments::parent;
use crate::resources::gateway_api::common::ParentRef;
use crate::resources::gateway_api::stream_route::{StreamBackendRef, StreamRouteRule};

/// The rules of the routes of a service, in the order of the routes; `routes` are in order.
pub(super) fn rules(
    service: &NamespacedName,
    object: &KubernetesService,
    routes: &[Route],
    world: &World<'_>,
) -> Vec<Arc<StreamRule>> {
    let mut rules = Vec::new();
    for route in routes {
        let Some(Parts { kind, rules: written, hostnames }) = parts(route) else { continue };
        let name = route.name();
        let own = route.parents().iter().filter(|one| parent(one, &name.namespace).as_ref() == Some(service));
        for reference in own {
            // Each port by itself: at ports of HTTP it does not count.
            for port in attached_at(reference, object) {
                rules.extend(written.iter().enumerate().map(|(i, rule)| {
                    Arc::new(StreamRule {
                        kind,
                        route: name.clone(),
                        name: rule.name.as_deref().map_or_else(|| format!("rules[{i}]").into(), Into::into),
                        port: Some(port),
                        callers: callers(&name, service),
                        hostnames: hostnames.clone(),
                        backends: rule.backend_refs.iter().map(|one| backend(one, &name.namespace, world)).collect(),
                    })
                }));
            }
        }
    }
    rules
}

fn backend(written: &StreamBackendRef, namespace: &str, world: &World<'_>) -> StreamBackend {
    StreamBackend {
        target: backend_ref::target(&written.reference(), namespace, world),
        weight: written.weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1),
    }
}

/// What a route of connections says.
struct Parts<'a> {
    kind: StreamKind,
    rules: &'a [StreamRouteRule],
    hostnames: BTreeSet<Arc<str>>,
}

/// None of a route of requests.
fn parts(route: &Route) -> Option<Parts<'_>> {
    match route {
        Route::Tcp(route) => {
            Some(Parts { kind: StreamKind::Tcp, rules: &route.spec.rules, hostnames: BTreeSet::new() })
        }
        Route::Tls(route) => {
            let hostnames = route.spec.hostnames.iter().map(|name| name.as_str().into()).collect();
            Some(Parts { kind: StreamKind::Tls, rules: &route.spec.rules, hostnames })
        }
        Route::Http(_) | Route::Grpc(_) => None,
    }
}

/// The ports of a service that a parentRef names and that are not declared as HTTP: there requests are read, and follow routes of
/// requests.
pub(super) fn attached_at(reference: &ParentRef, object: &KubernetesService) -> BTreeSet<u16> {
    let named = |port: &&ServicePort| reference.port.is_none_or(|wanted| wanted == i64::from(port.port));
    let ports = tcp_ports(object).map(|(_, port)| port).filter(named).filter(|port| !is_http(port));
    ports.map(|port| ports::number(port.port)).collect()
}

/// Whether HTTP is declared.
fn is_http(port: &ServicePort) -> bool {
    matches!(ports::app_protocol(port), AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc)
}

/// Of the ports at which a route is attached to a service by this parentRef, those at which another one counts, with that one.
pub(super) fn taken(
    route: &Route,
    reference: &ParentRef,
    object: &KubernetesService,
    routes: &[Route],
) -> BTreeMap<u16, (&'static str, NamespacedName)> {
    let name = route.name();
    let Some(service) = parent(reference, &name.namespace) else { return BTreeMap::new() };
    let (name, service) = (&name, &service);
    let others = |port: u16| {
        routes.iter().filter(move |other| {
            let theirs = other.name();
            let mut at = other.parents().iter().filter(|one| parent(one, &theirs.namespace).as_ref() == Some(service));
            callers(&theirs, service) == callers(name, service)
                && at.any(|one| attached_at(one, object).contains(&port))
        })
    };
    let taken = |port: u16| {
        // TLSRoutes share a port, each for its names.
        let first = others(port).find(|other| matches!(other, Route::Tls(_)));
        let first = first.or_else(|| others(port).find(|other| matches!(other, Route::Tcp(_))))?;
        let counts = matches!(route, Route::Tls(_)) || (matches!(first, Route::Tcp(_)) && first.name() == *name);
        (!counts).then(|| (port, (first.kind().as_str(), first.name())))
    };
    attached_at(reference, object).into_iter().filter_map(taken).collect()
}
