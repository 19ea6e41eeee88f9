//! Service → ServiceRoutes: what the waypoint of a service does with the requests for it.

use k8s_openapi::api::core::v1::{Service as KubernetesService, ServicePort};
use mesh_model::address::NamespacedName;
use mesh_model::route::{PortProtocol, Rule, ServiceRoutes};

use super::context::Context;
use super::route::{self, Route};
use super::service_spec::{has_port, is_external_name, tcp_ports};
use super::{attached, names, ports, rate_limits, route_rules, stream_route, traffic, virtual_service, waypoint};
use crate::cluster::attachments::{Target, parent};
use crate::cluster::relations;
use crate::resources::gateway_api::common::ParentRef;

/// What the waypoint of a service is told, and which waypoint that is; None of a service without one.
pub(super) fn of_service(
    service: &KubernetesService,
    context: &Context<'_>,
) -> Option<(ServiceRoutes, NamespacedName)> {
    let verdict = waypoint::of_service(service, context).filter(|verdict| verdict.is_served)?;
    if is_external_name(service) {
        return None;
    }
    let key =
        NamespacedName::new(relations::namespace(&service.metadata), service.metadata.name.as_deref().unwrap_or(""));
    let protocol =
        |port: &ServicePort| Some(PortProtocol { port: ports::number(port.port), protocol: ports::at_waypoint(port)? });
    let found = route::of_service(&key, context);
    let routes = ServiceRoutes {
        ports: tcp_ports(service).filter_map(|(_, port)| protocol(port)).collect(),
        rules: rules(&key, service, &found, context),
        streams: stream_route::rules(&key, service, &found, context),
        traffic: traffic::of_service(&key, &verdict.asked, context),
        rate_limits: rate_limits::of_service(&key, &verdict.asked, context),
        subsets: traffic::subsets(&key, service, &verdict.asked, context),
        ..attached::service(names::service(service, context.mesh), Target::Service(key), &verdict.asked, context)
    };
    Some((routes, verdict.asked))
}

fn rules(service: &NamespacedName, object: &KubernetesService, routes: &[Route], context: &Context<'_>) -> Vec<Rule> {
    let is_parent = |reference: &ParentRef, namespace: &str| parent(reference, namespace).as_ref() == Some(service);
    let mut rules = route_rules::rules(routes, service, is_parent, |port| has_port(object, port), context);
    rules.extend(virtual_service::rules(service, object, &route_rules::blank(service), context));
    rules
}
