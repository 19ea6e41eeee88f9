//! What holds for the services and workloads behind this waypoint, and for a while for those that have left it.
//!
//! Callers' ztunnels come here until they have heard that a service has left. A pod of the waypoint, or a data thread of it, that nobody
//! has asked for the service yet serves them, too: it knows it from the tables.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::address::NamespacedName;
use mesh_model::route::ServiceRoutes;
use mesh_model::route::select::Router;
use mesh_model::tables::{Covering, Tables};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::target::{self, Own};

/// How long what a service was told last holds for it after it has left the waypoint: so long callers' ztunnels may go on to come here
/// until they have heard of it, and connections that there are until they end in order.
const LEAVES: Duration = Duration::from_secs(10);

/// Rules that are let go of by the way: less than a tenth of a millisecond.
const MANY_RULES: usize = 100;

/// Of each service that is behind this waypoint, and of workloads that were asked for.
#[derive(Default)]
pub(crate) struct Routers {
    known: HashMap<NamespacedName, Followed>,
    /// How often the tables have said something else.
    told: u64,
}

/// What holds for a service or workload that is behind this waypoint, or was until lately.
struct Followed {
    router: Arc<Router>,
    /// Its policies, when all of them were known last, and the revision of the tables that was so in.
    policies: Option<(u64, Covering)>,
    /// When the tables told of it by its own key.
    told: u64,
    /// Since when it is not any more.
    left: Option<Instant>,
    /// Whether it is not any more, for its callers' connections, once there is one.
    leaves: Option<watch::Sender<bool>>,
}

impl Followed {
    fn new(router: Arc<Router>) -> Self {
        Self { router, policies: None, told: 0, left: None, leaves: None }
    }

    /// To take many rules apart takes as long as some hundred requests: another thread does it.
    fn replace(&mut self, router: &Arc<Router>) {
        if Arc::ptr_eq(&self.router, router) {
            return;
        }
        self.policies = None;
        let old = std::mem::replace(&mut self.router, router.clone());
        if old.routes().rules.len() > MANY_RULES {
            drop(spawn_blocking(move || drop(old)));
        }
    }

    fn keep_policies(&mut self, tables: &Tables) {
        let revision = tables.policy_revision();
        if self.policies.as_ref().is_some_and(|(known, _)| *known == revision) {
            return;
        }
        let covering = tables.policies_of_routes(self.router.routes());
        // Those that were there hold until all of the next are.
        if covering.missing.is_empty() {
            self.policies = Some((revision, covering));
        }
    }

    fn has_left(&mut self, left: bool) {
        self.left = left.then(|| self.left.unwrap_or_else(Instant::now));
        if let Some(leaves) = &self.leaves {
            leaves.send_if_modified(|told| std::mem::replace(told, left) != left);
        }
    }
}

impl Routers {
    /// This holds for something that is asked for.
    pub(crate) fn follows(&mut self, asked: &NamespacedName, router: &Arc<Router>) {
        match self.known.get_mut(asked) {
            Some(known) => known.replace(router),
            None => drop(self.known.insert(asked.clone(), Followed::new(router.clone()))),
        }
    }

    /// What was told last of something that is behind this waypoint, or was a while ago.
    pub(crate) fn lately(&self, asked: &NamespacedName) -> Option<Arc<Router>> {
        let known = self.known.get(asked).filter(|known| known.left.is_none_or(|left| left.elapsed() < LEAVES));
        known.map(|known| known.router.clone())
    }

    /// The policies of these routes when all of them were known last, and what the revision was.
    pub(crate) fn last_policies(&self, routes: &Arc<ServiceRoutes>) -> Option<(u64, &Covering)> {
        let known = self.known.get(&routes.service).filter(|known| Arc::ptr_eq(known.router.routes(), routes))?;
        known.policies.as_ref().map(|(revision, covering)| (*revision, covering))
    }

    /// Whether something is not behind this waypoint any more, now and later; None of what nobody knows.
    pub(crate) fn leaves(&mut self, asked: &NamespacedName) -> Option<watch::Receiver<bool>> {
        let known = self.known.get_mut(asked)?;
        let left = known.left.is_some();
        Some(known.leaves.get_or_insert_with(|| watch::Sender::new(left)).subscribe())
    }

    /// The tables say something else. `own` is this waypoint, once they tell of it.
    pub(crate) fn follow(&mut self, tables: &Tables, own: Option<Own<'_>>) {
        self.told += 1;
        for router in tables.all_routers() {
            let service = &router.routes().service;
            let known = match self.known.get_mut(service) {
                Some(known) => known,
                None => self.known.entry(service.clone()).or_insert_with(|| Followed::new(router.clone())),
            };
            known.replace(router);
            known.keep_policies(tables);
            known.has_left(false);
            known.told = self.told;
        }
        self.known.retain(|asked, known| {
            if known.told == self.told {
                return true;
            }
            let now = target::router(tables, own, asked);
            if let Some(router) = now {
                known.replace(router);
            }
            known.has_left(now.is_none());
            known.left.is_none_or(|left| left.elapsed() < LEAVES)
        });
    }
}

#[cfg(test)]
mod tests {
    use mesh_model::policy::{Action, Policy, Scope};
    use mesh_model::resource::{Kind, Resource};
    use tokio::time::advance;

    use super::*;

    fn cart() -> NamespacedName {
        NamespacedName::new("shop", "cart.shop.svc.cluster.local")
    }

    fn routes(policies: &[&str]) -> Resource {
        let policies = policies.iter().map(|name| NamespacedName::new("shop", *name)).collect();
        Resource::Routes(Arc::new(ServiceRoutes { policies, ..ServiceRoutes::nothing(cart()) }))
    }

    fn deny() -> Resource {
        Resource::Policy(Arc::new(Policy {
            name: "deny".into(),
            namespace: "shop".into(),
            scope: Scope::WorkloadSelector,
            action: Action::Deny,
            rules: Vec::new(),
            dry_run: false,
        }))
    }

    /// Seen red while only what had been asked for was known: a new pod of the waypoint refused whoever had not heard yet.
    #[tokio::test(start_paused = true)]
    async fn what_nobody_has_asked_for_yet_is_served_for_a_while_after_it_has_left() {
        let mut routers = Routers::default();
        let mut tables = Tables::default();
        routers.follow(&tables, None);
        assert!(routers.lately(&cart()).is_none());
        tables.apply(routes(&[]));
        routers.follow(&tables, None);
        let leaves = routers.leaves(&cart()).unwrap();
        assert!(!*leaves.borrow());
        tables.remove(Kind::Routes, &cart().to_string());
        routers.follow(&tables, None);
        assert!(*leaves.borrow());
        advance(LEAVES - Duration::from_millis(1)).await;
        assert!(routers.lately(&cart()).is_some());
        advance(Duration::from_millis(1)).await;
        assert!(routers.lately(&cart()).is_none());
        routers.follow(&tables, None);
        assert!(routers.known.is_empty(), "kept for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_leaves_keeps_the_policies_that_it_had() {
        let mut routers = Routers::default();
        let mut tables = Tables::default();
        let last = |routers: &Routers| {
            let routes = routers.lately(&cart()).unwrap().routes().clone();
            routers.last_policies(&routes).map(|(_, covering)| covering.policies.len())
        };
        tables.apply(routes(&["deny"]));
        routers.follow(&tables, None);
        assert_eq!(last(&routers), None, "one has not come yet: nothing is known that could be kept");
        tables.apply(deny());
        routers.follow(&tables, None);
        assert_eq!(last(&routers), Some(1));
        tables.remove(Kind::Authorization, "shop/deny");
        routers.follow(&tables, None);
        tables.remove(Kind::Routes, &cart().to_string());
        routers.follow(&tables, None);
        assert_eq!(last(&routers), Some(1), "whichever goes first");
        // It is back, with other routes, and what they name has not come.
        tables.apply(routes(&["deny", "other"]));
        routers.follow(&tables, None);
        assert_eq!(last(&routers), None, "those of the routes before");
    }
}
