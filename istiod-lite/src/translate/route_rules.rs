//! HTTPRoutes and GRPCRoutes of a parent, a Service or ServiceEntry → Rules, in the order in which they count.

use std::cmp::Ordering;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::NamespacedName;
use mesh_model::route::{RouteKind, Rule};

use super::world::World;
use super::{grpc_route, http_route};
use crate::cluster::relations;
use crate::resources::gateway_api::common::ParentRef;
use crate::resources::gateway_api::{GrpcRoute, HttpRoute};
use crate::resources::{Key, Kind};

/// A route, of either kind.
#[derive(Clone)]
enum Route {
    Http(Arc<HttpRoute>),
    Grpc(Arc<GrpcRoute>),
}

impl Route {
    fn find(key: &Key, world: &World<'_>) -> Option<Self> {
        let name = key.object();
        match key.kind {
            Kind::HttpRoute => world.cluster.http_route(&name).cloned().map(Self::Http),
            Kind::GrpcRoute => world.cluster.grpc_route(&name).cloned().map(Self::Grpc),
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

/// The rules of those of `attached` that have `parent` as their parent. `is_parent` says which references mean it, `has_port` which ports
/// it has.
pub(super) fn rules<'a>(
    attached: impl Iterator<Item = &'a Key>,
    parent: &NamespacedName,
    is_parent: impl Fn(&ParentRef, &str) -> bool,
    has_port: impl Fn(u16) -> bool,
    world: &World<'_>,
) -> Vec<Rule> {
    let mut routes: Vec<Route> = attached.filter_map(|key| Route::find(key, world)).collect();
    routes.sort_by(Route::order);
    let mut rules = Vec::new();
    for route in &routes {
        let name = route.name();
        for reference in route.parents().iter().filter(|reference| is_parent(reference, &name.namespace)) {
            let port = reference.port.and_then(|port| u16::try_from(port).ok());
            if port.is_some_and(|port| !has_port(port)) {
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
                callers: (name.namespace != parent.namespace).then(|| name.namespace.clone()),
                ..blank(parent)
            };
            match route {
                Route::Http(route) => rules.extend(http_route::rules(route, &blank, world)),
                Route::Grpc(route) => rules.extend(grpc_route::rules(route, &blank, world)),
            }
        }
    }
    rules
}

/// A rule that says nothing yet.
pub(super) fn blank(parent: &NamespacedName) -> Rule {
    Rule {
        kind: RouteKind::VirtualService,
        route: parent.clone(),
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
    }
}
