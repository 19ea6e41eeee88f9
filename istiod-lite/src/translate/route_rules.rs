//! HTTPRoutes and GRPCRoutes of a parent, a Service or ServiceEntry → Rules, in the order in which they count.

use mesh_model::address::NamespacedName;
use mesh_model::route::{RouteKind, Rule};

use super::route::{self, Route};
use super::world::World;
use super::{grpc_route, http_route};
use crate::resources::gateway_api::common::ParentRef;

/// The rules of those of `routes`, which are in order, that have `parent` as their parent. `is_parent` says which references mean it,
/// `has_port` which ports it has.
pub(super) fn rules(
    routes: &[Route],
    parent: &NamespacedName,
    is_parent: impl Fn(&ParentRef, &str) -> bool,
    has_port: impl Fn(u16) -> bool,
    world: &World<'_>,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for route in routes {
        let kind = match route {
            Route::Http(_) => RouteKind::Http,
            Route::Grpc(_) => RouteKind::Grpc,
            Route::Tcp(_) | Route::Tls(_) => continue,
        };
        let name = route.name();
        for reference in route.parents().iter().filter(|reference| is_parent(reference, &name.namespace)) {
            let port = reference.port.and_then(|port| u16::try_from(port).ok());
            if port.is_some_and(|port| !has_port(port)) {
                continue;
            }
            let callers = route::callers(&name, parent);
            let blank = Rule { kind, route: name.clone(), port, callers, ..blank(parent) };
            match route {
                Route::Http(route) => rules.extend(http_route::rules(route, &blank, world)),
                Route::Grpc(route) => rules.extend(grpc_route::rules(route, &blank, world)),
                Route::Tcp(_) | Route::Tls(_) => {}
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
