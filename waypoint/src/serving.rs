//! What the tasks of a data thread share.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::address::NamespacedName;
use mesh_model::pod::PodInfo;
use mesh_model::route::ServiceRoutes;
use mesh_model::route::select::Router;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use mesh_proxy::connections::Connections;
use mesh_proxy::covering::{Covered, Kept};
use mesh_proxy::local_pod::LocalPod;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::asking::Asking;
use crate::context::WaypointContext;
use crate::ends::{Even, Pods};
use crate::rate_limit::KnownLimits;
use crate::target::{self, Own};
use crate::tokens::Keys;
use crate::upstream;

/// How long what a service was told last holds for it after it has left the waypoint: so long callers' ztunnels may go on to come here
/// until they have heard of it, and connections that there are until they end in order.
const LEAVES: Duration = Duration::from_secs(10);

/// Rules that are let go of by the way: less than a tenth of a millisecond.
const MANY_RULES: usize = 100;

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
    /// Of services and workloads that were asked for.
    routers: RefCell<HashMap<NamespacedName, Followed>>,
    /// How many pods the waypoint has.
    pods: watch::Sender<Pods>,
    /// Chooses connections that move to new ones.
    pub(crate) even: Even,
    /// Policies of services, ready to be asked.
    covered: RefCell<Kept<NamespacedName, ServiceRoutes>>,
    /// Keys of issuers.
    pub(crate) keys: Keys,
    /// What this thread knows of rate limits.
    pub(crate) rate_limits: KnownLimits,
    /// What is being asked of authorizers and rate limit services.
    pub(crate) asking: Asking,
}

/// What holds for a service or workload that is behind this waypoint, or was until lately.
struct Followed {
    router: Arc<Router>,
    /// Since when it is not any more.
    left: Option<Instant>,
    /// Whether it is not any more, for its callers' connections.
    leaves: watch::Sender<bool>,
}

impl Followed {
    /// To take many rules apart takes as long as some hundred requests: another thread does it.
    fn replace(&mut self, router: &Arc<Router>) {
        let old = std::mem::replace(&mut self.router, router.clone());
        if old.routes().rules.len() > MANY_RULES {
            drop(spawn_blocking(move || drop(old)));
        }
    }
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
            pods: watch::Sender::default(),
            even: Even::from(rand::random()),
            covered: RefCell::default(),
            keys: Keys::default(),
            rate_limits: KnownLimits::default(),
            asking: Asking::default(),
        }
    }

    /// These routes are followed here: they hold for a while after what was asked for has left the waypoint.
    pub(crate) fn follows(&self, asked: &NamespacedName, router: &Arc<Router>) {
        let mut routers = self.routers.borrow_mut();
        match routers.get_mut(asked) {
            Some(known) if Arc::ptr_eq(&known.router, router) => {}
            Some(known) => known.replace(router),
            None => {
                let new = Followed { router: router.clone(), left: None, leaves: watch::Sender::default() };
                routers.insert(asked.clone(), new);
            }
        }
    }

    /// What holds now for something that was asked for by its key, if it is behind this waypoint, a pod of which is `waypoint`.
    pub(crate) fn router(&self, tables: &Tables, waypoint: &Workload, asked: &NamespacedName) -> Option<Arc<Router>> {
        target::router(tables, Some(self.own(waypoint)), asked).cloned()
    }

    /// This waypoint, a pod of which is `workload`.
    pub(crate) fn own<'a>(&'a self, workload: &'a Workload) -> Own<'a> {
        Own { workload, gateway: &self.context.gateway }
    }

    /// What was told last of something that is not behind this waypoint any more, for a while.
    pub(crate) fn lately(&self, asked: &NamespacedName) -> Option<Arc<Router>> {
        let routers = self.routers.borrow();
        let known = routers.get(asked).filter(|known| known.left.is_none_or(|left| left.elapsed() < LEAVES));
        known.map(|known| known.router.clone())
    }

    /// Whether something is not behind this waypoint any more, now and later; None of what nobody has asked for.
    pub(crate) fn leaves(&self, asked: &NamespacedName) -> Option<watch::Receiver<bool>> {
        self.routers.borrow().get(asked).map(|known| known.leaves.subscribe())
    }

    /// How many pods the waypoint has, now and later. What is so when this is called counts as seen.
    pub(crate) fn pods(&self) -> watch::Receiver<Pods> {
        self.pods.subscribe()
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
        let info = &self.pod.info;
        let own = tables.workload_of_pod(&info.namespace, &info.name, &info.service_account);
        self.routers.borrow_mut().retain(|asked, known| {
            let now = target::router(tables, own.map(|own| self.own(own)), asked);
            if let Some(router) = now.filter(|router| !Arc::ptr_eq(router, &known.router)) {
                known.replace(router);
            }
            known.left = now.is_none().then(|| known.left.unwrap_or_else(Instant::now));
            let left = known.left.is_some();
            known.leaves.send_if_modified(|told| std::mem::replace(told, left) != left);
            known.left.is_none_or(|left| left.elapsed() < LEAVES)
        });
        let now = pods(tables, &self.pod.info);
        self.pods.send_if_modified(|pods| {
            let news = pods.now != now;
            if news {
                *pods = Pods { before: pods.now, now };
            }
            news
        });
        self.keys.follow(tables);
        self.rate_limits.follow(&self.context.rate_limits, tables);
        self.context.rate_limits.follow();
    }
}

/// How many pods serve what this one does: healthy endpoints of its largest service.
fn pods(tables: &Tables, own: &PodInfo) -> usize {
    let own = tables.workload_of_pod(&own.namespace, &own.name, &own.service_account);
    let of = |service| tables.endpoints(service).iter().filter(|pod| pod.healthy).count();
    own.into_iter().flat_map(|own| own.services.keys()).map(of).max().unwrap_or_default()
}
