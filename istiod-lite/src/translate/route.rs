//! A route of the Gateway API, of whichever kind, and the order of those of one service.

use std::cmp::Ordering;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::NamespacedName;

use super::world::World;
use crate::cluster::relations;
use crate::resources::gateway_api::common::ParentRef;
use crate::resources::gateway_api::{GrpcRoute, HttpRoute, TcpRoute, TlsRoute};
use crate::resources::{Key, Kind};

/// A route, of whichever kind.
#[derive(Clone)]
pub(super) enum Route {
    /// Of requests.
    Http(Arc<HttpRoute>),
    /// Of gRPC calls.
    Grpc(Arc<GrpcRoute>),
    /// Of connections.
    Tcp(Arc<TcpRoute>),
    /// Of connections of TLS.
    Tls(Arc<TlsRoute>),
}

/// Those that name a service as their parent: older ones first.
pub(super) fn of_service(service: &NamespacedName, world: &World<'_>) -> Vec<Route> {
    in_order(world.attachments.routes_of(service), world)
}

/// Those that name a service entry as their parent: older ones first.
pub(super) fn of_entry(entry: &NamespacedName, world: &World<'_>) -> Vec<Route> {
    in_order(world.attachments.routes_of_entry(entry), world)
}

fn in_order<'a>(keys: impl Iterator<Item = &'a Key>, world: &World<'_>) -> Vec<Route> {
    let mut routes: Vec<Route> = keys.filter_map(|key| Route::find(key, world)).collect();
    routes.sort_by(Route::order);
    routes
}

/// For whom a route of a parent is: one of another namespace is for the callers of its own (GEP-1294).
pub(super) fn callers(route: &NamespacedName, parent: &NamespacedName) -> Option<Arc<str>> {
    (route.namespace != parent.namespace).then(|| route.namespace.clone())
}

impl Route {
    /// The route of this key; None of other kinds.
    pub(super) fn find(key: &Key, world: &World<'_>) -> Option<Self> {
        let (name, cluster) = (key.object(), world.cluster);
        match key.kind {
            Kind::HttpRoute => cluster.http_route(&name).cloned().map(Self::Http),
            Kind::GrpcRoute => cluster.grpc_route(&name).cloned().map(Self::Grpc),
            Kind::TcpRoute => cluster.tcp_route(&name).cloned().map(Self::Tcp),
            Kind::TlsRoute => cluster.tls_route(&name).cloned().map(Self::Tls),
            _ => None,
        }
    }

    /// Its kind.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Http(_) => Kind::HttpRoute,
            Self::Grpc(_) => Kind::GrpcRoute,
            Self::Tcp(_) => Kind::TcpRoute,
            Self::Tls(_) => Kind::TlsRoute,
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Http(route) => &route.metadata,
            Self::Grpc(route) => &route.metadata,
            Self::Tcp(route) => &route.metadata,
            Self::Tls(route) => &route.metadata,
        }
    }

    /// Its parents.
    pub(super) fn parents(&self) -> &[ParentRef] {
        match self {
            Self::Http(route) => &route.spec.parent_refs,
            Self::Grpc(route) => &route.spec.parent_refs,
            Self::Tcp(route) => &route.spec.parent_refs,
            Self::Tls(route) => &route.spec.parent_refs,
        }
    }

    /// Its generation.
    pub(super) fn generation(&self) -> Option<i64> {
        self.metadata().generation
    }

    /// Namespace and name.
    pub(super) fn name(&self) -> NamespacedName {
        let metadata = self.metadata();
        NamespacedName::new(relations::namespace(metadata), metadata.name.as_deref().unwrap_or(""))
    }

    /// Older ones first (Gateway API); one without an age, as in a folder, is as old as can be.
    fn order(&self, other: &Self) -> Ordering {
        let age = |route: &Self| route.metadata().creation_timestamp.as_ref().map(|time| time.0);
        age(self).cmp(&age(other)).then_with(|| self.name().cmp(&other.name()))
    }
}
