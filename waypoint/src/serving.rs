//! What the tasks of a data thread share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

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

use crate::asking::Asking;
use crate::context::WaypointContext;
use crate::ends::{Even, Pods};
use crate::limits::{COPIED, KEPT};
use crate::rate_limit::KnownLimits;
use crate::room::Room;
use crate::routers::Routers;
use crate::target::{self, Own};
use crate::tokens::Keys;
use crate::upstream;

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
    /// What holds for what is behind this waypoint, or was until lately.
    routers: RefCell<Routers>,
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
    /// What is kept of bodies that may have to be sent again.
    pub(crate) kept_bodies: Room,
    /// Requests and connections under way to endpoints, each in a tunnel of its own.
    pub(crate) under_way: Room,
    /// What is held of copies for mirrors.
    pub(crate) copies: Room,
}

impl Worker {
    /// A thread on which nothing is open yet.
    pub(crate) fn new(context: Arc<WaypointContext>, pod: LocalPod) -> Self {
        Self {
            under_way: Room::new(context.under_way()),
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
            kept_bodies: Room::new(KEPT),
            copies: Room::new(COPIED),
        }
    }

    /// These routes are followed here: they hold for a while after what was asked for has left the waypoint.
    pub(crate) fn follows(&self, asked: &NamespacedName, router: &Arc<Router>) {
        self.routers.borrow_mut().follows(asked, router);
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
        self.routers.borrow().lately(asked)
    }

    /// Whether something is not behind this waypoint any more, now and later; None of what nobody knows.
    pub(crate) fn leaves(&self, asked: &NamespacedName) -> Option<watch::Receiver<bool>> {
        self.routers.borrow_mut().leaves(asked)
    }

    /// How many pods the waypoint has, now and later. What is so when this is called counts as seen.
    pub(crate) fn pods(&self) -> watch::Receiver<Pods> {
        self.pods.subscribe()
    }

    /// The policies that cover the service of these routes.
    pub(crate) fn covered(&self, tables: &Tables, routes: &Arc<ServiceRoutes>) -> Rc<Covered> {
        let (mut kept, routers) = (self.covered.borrow_mut(), self.routers.borrow());
        if tables.routes(&routes.service).is_none() {
            // Its policies go when it goes; those that it had still hold: the newest, whether anybody has asked since or not.
            let judged = kept.last_whole(&routes.service, routes);
            let told = routers.last_policies(routes);
            match (judged, told) {
                (Some((revision, judged)), told) if told.is_none_or(|(newer, _)| newer <= revision) => return judged,
                (_, Some((revision, told))) => {
                    return kept.covered(&routes.service, routes, revision, || told.clone());
                }
                _ => {}
            }
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
        self.routers.borrow_mut().follow(tables, own.map(|own| self.own(own)));
        let now = pods(tables, &self.pod.info);
        self.pods.send_if_modified(|pods| {
            let news = pods.now != now;
            if news {
                *pods = Pods { before: pods.now, now };
            }
            news
        });
        self.keys.follow(tables);
        self.rate_limits.follow(&self.context.rate_limits, tables, |service| self.lately(service).is_some());
        self.context.rate_limits.follow();
    }
}

/// How many pods serve what this one does: healthy endpoints of its largest service.
fn pods(tables: &Tables, own: &PodInfo) -> usize {
    let own = tables.workload_of_pod(&own.namespace, &own.name, &own.service_account);
    let of = |service| tables.endpoints(service).iter().filter(|pod| pod.healthy).count();
    own.into_iter().flat_map(|own| own.services.keys()).map(of).max().unwrap_or_default()
}
