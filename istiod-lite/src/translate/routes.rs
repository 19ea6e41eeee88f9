//! Service → ServiceRoutes: what the waypoint of a service does with the requests for it.

use std::cmp::Ordering;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service as KubernetesService, ServicePort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::NamespacedName;
use mesh_model::route::{PortProtocol, RouteKind, Rule, ServiceRoutes};

use super::context::Context;
use super::service_spec::{has_port, is_external_name, tcp_ports};
use super::{attached, grpc_route, http_route, names, ports, rate_limits, traffic, virtual_service, waypoint};
use crate::cluster::attachments::{Target, parent};
use crate::cluster::relations;
use crate::resources::gateway_api::common::ParentRef;
use crate::resources::gateway_api::{GrpcRoute, HttpRoute};
use crate::resources::{Key, Kind};

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
    let routes = ServiceRoutes {
        ports: tcp_ports(service).filter_map(|(_, port)| protocol(port)).collect(),
        rules: rules(&key, service, context),
        traffic: traffic::of_service(&key, context),
        rate_limits: rate_limits::of_service(&key, &verdict.asked, context),
        subsets: traffic::subsets(&key, service, context),
        ..attached::service(names::service(service, context.mesh), Target::Service(key), &verdict.asked, context)
    };
    Some((routes, verdict.asked))
}

/// A route, of either kind.
#[derive(Clone)]
enum Route {
    Http(Arc<HttpRoute>),
    Grpc(Arc<GrpcRoute>),
}

impl Route {
    fn find(key: &Key, context: &Context<'_>) -> Option<Self> {
        let name = key.object();
        match key.kind {
            Kind::HttpRoute => context.cluster.http_route(&name).cloned().map(Self::Http),
            Kind::GrpcRoute => context.cluster.grpc_route(&name).cloned().map(Self::Grpc),
            _ => None,
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Http(route) => &route.metadata,
            Self::Grpc(route) => &route.metadata,
        }
    }

    fn parents(&self) -> &[ParentRef] {
        match self {
            Self::Http(route) => &route.spec.parent_refs,
            Self::Grpc(route) => &route.spec.parent_refs,
        }
    }

    fn name(&self) -> NamespacedName {
        let metadata = self.metadata();
        NamespacedName::new(relations::namespace(metadata), metadata.name.as_deref().unwrap_or(""))
    }

    /// Older ones first (Gateway API); one without an age, as in a folder, is as old as can be.
    fn order(&self, other: &Self) -> Ordering {
        let age = |route: &Self| route.metadata().creation_timestamp.as_ref().map(|time| time.0);
        age(self).cmp(&age(other)).then_with(|| self.name().cmp(&other.name()))
    }
}

fn rules(service: &NamespacedName, object: &KubernetesService, context: &Context<'_>) -> Vec<Rule> {
    let found = context.attachments.routes_of(service).filter_map(|key| Route::find(key, context));
    let mut routes: Vec<Route> = found.collect();
    routes.sort_by(Route::order);
    let mut rules = Vec::new();
    let blank = Rule {
        kind: RouteKind::VirtualService,
        route: service.clone(),
        name: "".into(),
        port: None,
        callers: None,
        matches: Vec::new(),
        filters: Vec::new(),
        backends: Vec::new(),
        request_timeout: None,
        backend_timeout: None,
        retry: None,
        fault: None,
    };
    for route in &routes {
        let name = route.name();
        let own =
            route.parents().iter().filter(|reference| parent(reference, &name.namespace).as_ref() == Some(service));
        for reference in own {
            let port = reference.port.and_then(|port| u16::try_from(port).ok());
            if port.is_some_and(|port| !has_port(object, port)) {
                continue;
            }
            let blank = Rule {
                kind: match route {
                    Route::Http(_) => RouteKind::Http,
                    Route::Grpc(_) => RouteKind::Grpc,
                },
                route: name.clone(),
                port,
                // A route of another namespace is for the callers of its own (GEP-1294).
                callers: (name.namespace != service.namespace).then(|| name.namespace.clone()),
                ..blank.clone()
            };
            match route {
                Route::Http(route) => rules.extend(http_route::rules(route, &blank, context)),
                Route::Grpc(route) => rules.extend(grpc_route::rules(route, &blank, context)),
            }
        }
    }
    rules.extend(virtual_service::rules(service, object, &blank, context));
    rules
}
