//! What the tasks of a data thread share.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::address::NamespacedName;
use mesh_model::route::ServiceRoutes;
use mesh_model::route::select::Router;
use mesh_model::tables::Tables;
use mesh_proxy::connections::Connections;
use mesh_proxy::covering::{Covered, Kept};
use mesh_proxy::local_pod::LocalPod;
use tokio::time::Instant;

use crate::asking::Asking;
use crate::context::WaypointContext;
use crate::rate_limit::KnownLimits;
use crate::tokens::Keys;
use crate::upstream;

/// How long what a service was told last holds for it after it has left the waypoint: so long callers' ztunnels may go on to come here
/// until they have heard of it, and connections that there are until they end in order.
const LEAVES: Duration = Duration::from_secs(10);

/// What the tasks of a data thread share.
pub(crate) struct Worker {
    /// What all threads read.
    pub(crate) context: Arc<WaypointContext>,
    /// The waypoint's own pod.
    pub(crate) pod: Rc<LocalPod>,
    /// Connections to endpoints.
    pub(crate) upstream: upstream::Pool,
    /// What this thread knows of services' ports.
    pub(crate) ports: upstream::KnownPorts,
    /// What is open and was let in.
    pub(crate) connections: Connections,
    /// Routes that are ready to be followed; each is made again when what it was made of changes.
    routers: RefCell<HashMap<NamespacedName, Ready>>,
    /// Policies of services, ready to be asked.
    covered: RefCell<Kept<NamespacedName, ServiceRoutes>>,
    /// Keys of issuers.
    pub(crate) keys: Keys,
    /// What this thread knows of rate limits.
    pub(crate) rate_limits: KnownLimits,
    /// What is being asked of authorizers and rate limit services.
    pub(crate) asking: Asking,
}

/// The routes of a service that is behind this waypoint, or was until lately.
struct Ready {
    router: Rc<Router>,
    /// Since when it is not any more.
    left: Option<Instant>,
}

impl Worker {
    /// A thread on which nothing is open yet.
    pub(crate) fn new(context: Arc<WaypointContext>, pod: LocalPod) -> Self {
        Self {
            context,
            pod: Rc::new(pod),
            upstream: upstream::Pool::default(),
            ports: upstream::KnownPorts::default(),
            connections: Connections::default(),
            routers: RefCell::default(),
            covered: RefCell::default(),
            keys: Keys::default(),
            rate_limits: KnownLimits::default(),
            asking: Asking::default(),
        }
    }

    /// The routes, ready to be followed.
    pub(crate) fn router(&self, routes: &Arc<ServiceRoutes>) -> Rc<Router> {
        let mut routers = self.routers.borrow_mut();
        if let Some(Ready { router, .. }) = routers.get(&routes.service)
            && Arc::ptr_eq(router.routes(), routes)
        {
            return router.clone();
        }
        let router = Rc::new(Router::new(routes.clone()));
        routers.insert(routes.service.clone(), Ready { router: router.clone(), left: None });
        router
    }

    /// What was told last of a service that is not behind this waypoint any more, for a while.
    pub(crate) fn lately(&self, service: &NamespacedName) -> Option<Arc<ServiceRoutes>> {
        let routers = self.routers.borrow();
        let ready = routers.get(service).filter(|ready| ready.left.is_none_or(|left| left.elapsed() < LEAVES));
        ready.map(|ready| ready.router.routes().clone())
    }

    /// The policies that cover the service of these routes.
    pub(crate) fn covered(&self, tables: &Tables, routes: &Arc<ServiceRoutes>) -> Rc<Covered> {
        let mut kept = self.covered.borrow_mut();
        if tables.routes(&routes.service).is_none()
            && let Some(last) = kept.last_whole(&routes.service, routes)
        {
            // Its policies go when it goes; those that it had still hold.
            return last;
        }
        kept.covered(&routes.service, routes, tables.policy_revision(), || tables.policies_of_routes(routes))
    }

    /// Lets go of what the tables tell of no more.
    pub(crate) fn follow(&self, tables: &Tables) {
        self.pod.follow(tables);
        self.ports.follow(tables);
        self.context.ports.follow(tables);
        self.routers.borrow_mut().retain(|service, ready| {
            let left = tables.routes(service).is_none().then(|| ready.left.unwrap_or_else(Instant::now));
            ready.left = left;
            left.is_none_or(|left| left.elapsed() < LEAVES)
        });
        self.keys.follow(tables);
        self.rate_limits.follow(&self.context.rate_limits, tables);
        self.context.rate_limits.follow();
    }
}
