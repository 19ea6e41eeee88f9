//! Rate limits: one list for all data threads, and what each thread has found of it already.
//!
//! | file | holds |
//! |---|---|
//! | this one | the limits that there are; what does not change a limit leaves its buckets as they are |
//! | `limiter` | one limit, and its buckets |
//! | `metrics` | what became of requests |
//!
//! Bound: as many as the tables have, and of each at most [`RATE_KEYS`](crate::limits::RATE_KEYS) keys in each of its
//! [`RATE_SHARDS`](crate::limits::RATE_SHARDS) parts. Locks are held while a limit or a bucket is looked at, never across an await.

mod limiter;
mod metrics;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_model::address::NamespacedName;
use mesh_model::rate_limit::{Kind, RateLimit, Target};
use mesh_model::route::ServiceRoutes;
use mesh_model::tables::Tables;
use serde_json::{Value, json};

pub(crate) use limiter::{Limiter, Taken};
pub(crate) use metrics::RateLimitMetrics;

/// Which limit of which policy, for what.
type Id = (NamespacedName, Arc<str>, Target);

/// Those of all data threads.
pub(crate) struct RateLimits {
    all: Mutex<HashMap<Id, Arc<Limiter>>>,
    metrics: RateLimitMetrics,
}

impl RateLimits {
    /// None yet.
    pub(crate) fn new(metrics: RateLimitMetrics) -> Self {
        Self { all: Mutex::default(), metrics }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Id, Arc<Limiter>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limit, with what was counted of it: anew where it says something else than before.
    fn of(&self, limit: &RateLimit) -> Arc<Limiter> {
        let id = (limit.policy.clone(), limit.name.clone(), limit.target.clone());
        let mut all = self.all();
        if let Some(known) = all.get(&id).filter(|known| known.limit == *limit) {
            return known.clone();
        }
        let new = Arc::new(Limiter::new(limit.clone(), self.metrics.of(limit)));
        all.insert(id, new.clone());
        new
    }

    /// Lets go of what no thread knows any more.
    pub(crate) fn follow(&self) {
        let mut all = self.all();
        let mut gone = HashSet::new();
        all.retain(|(policy, ..), limiter| {
            let stays = Arc::strong_count(limiter) > 1;
            if !stays {
                gone.insert(policy.clone());
            }
            stays
        });
        gone.retain(|policy| !all.keys().any(|(other, ..)| other == policy));
        gone.iter().for_each(|policy| self.metrics.forget(policy));
    }

    /// For the configuration dump.
    pub(crate) fn dump(&self) -> Value {
        let mut list: Vec<_> = self.all().values().cloned().collect();
        list.sort_by_cached_key(|limiter| limiter.limit.to_string());
        let one = |limiter: &Arc<Limiter>| {
            let RateLimit { policy, name, target, kind } = &limiter.limit;
            let says = match kind {
                Kind::Local(local) => local.to_string(),
                Kind::Global(global) => format!("counted by {}, port {}", global.service, global.port),
            };
            json!({
                "trafficPolicy": policy.to_string(),
                "name": &**name,
                "target": target.to_string(),
                "limit": says,
                "keys": limiter.keys(),
                "passed": limiter.counted.ok.get(),
                "overLimit": limiter.counted.over.get(),
            })
        };
        list.iter().map(one).collect()
    }
}

/// What a data thread has found already, by service.
#[derive(Default)]
pub(crate) struct KnownLimits(RefCell<HashMap<NamespacedName, Known>>);

/// What was found for what the tables say.
struct Known {
    said: Arc<[RateLimit]>,
    found: Rc<[Arc<Limiter>]>,
}

impl KnownLimits {
    /// The limits of a service's requests. None where there are none, as most have.
    pub(crate) fn of(&self, all: &RateLimits, routes: &ServiceRoutes) -> Option<Rc<[Arc<Limiter>]>> {
        if routes.rate_limits.is_empty() {
            return None;
        }
        let mut known = self.0.borrow_mut();
        if let Some(known) = known.get(&routes.service).filter(|known| Arc::ptr_eq(&known.said, &routes.rate_limits)) {
            return Some(known.found.clone());
        }
        let found: Rc<[_]> = routes.rate_limits.iter().map(|limit| all.of(limit)).collect();
        known.insert(routes.service.clone(), Known { said: routes.rate_limits.clone(), found: found.clone() });
        Some(found)
    }

    /// Follows what the tables say of services that were asked about, and lets go of others. One that has left the waypoint and is
    /// still served for a while (`lately`) goes on to be counted as before.
    pub(crate) fn follow(&self, all: &RateLimits, tables: &Tables, lately: impl Fn(&NamespacedName) -> bool) {
        self.0.borrow_mut().retain(|service, known| {
            let Some(routes) = tables.routes(service) else { return lately(service) };
            if routes.rate_limits.is_empty() {
                return false;
            }
            if !Arc::ptr_eq(&known.said, &routes.rate_limits) {
                known.found = routes.rate_limits.iter().map(|limit| all.of(limit)).collect();
                known.said = routes.rate_limits.clone();
            }
            true
        });
    }
}

#[cfg(test)]
mod tests;
