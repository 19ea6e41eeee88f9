//! The ports of services that requests were sent to: one list for all data threads, and what each thread has found of it already.
//!
//! Bound: as many as the tables have ports of services, and one for each workload that is behind the waypoint. Of what is gone nothing
//! stays.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_model::address::NamespacedName;
use mesh_model::service::Service;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use serde_json::Value;
use tokio::sync::Notify;

use super::circuit::Limit;
use super::clock::Clock;
use super::metrics::UpstreamMetrics;
use super::service_port::{Key, Ready, ServicePort};
use crate::target::uid_of;

/// A port of a service, and its endpoints.
type Found = (Arc<ServicePort>, Arc<Ready>);

/// Those of all data threads.
pub(crate) struct ServicePorts {
    all: Mutex<(HashMap<Key, Arc<ServicePort>>, u64)>,
    /// Told when somebody waits for a connection while others keep some that they do not use.
    pub(super) wanted: Notify,
    metrics: UpstreamMetrics,
    clock: Clock,
}

impl ServicePorts {
    /// None yet.
    pub(crate) fn new(metrics: UpstreamMetrics, clock: Clock) -> Self {
        Self { all: Mutex::default(), wanted: Notify::new(), metrics, clock }
    }

    /// Counters.
    pub(super) fn metrics(&self) -> &UpstreamMetrics {
        &self.metrics
    }

    fn of(&self, key: &Key) -> Arc<ServicePort> {
        let mut guard = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, number) = &mut *guard;
        if let Some(port) = all.get(key) {
            return port.clone();
        }
        *number += 1;
        let port = Arc::new(ServicePort::new(key.clone(), *number, self.metrics.clone(), self.clock.clone()));
        all.insert(key.clone(), port.clone());
        port
    }

    fn list(&self) -> Vec<Arc<ServicePort>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).0.values().cloned().collect()
    }

    /// Looks which ejected endpoints may return.
    pub(crate) fn check(&self) {
        self.list().iter().for_each(|port| port.check_unasked());
    }

    /// Lets go of what the tables tell of no more.
    pub(crate) fn follow(&self, tables: &Tables) {
        let mut guard = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // Subsets first: their ejections are counted with those of their service's port.
        for of_subsets in [true, false] {
            guard.0.retain(|key, port| {
                let stays = key.2.is_some() != of_subsets || is_there(tables, key);
                if !stays {
                    port.leave();
                }
                stays
            });
        }
    }

    /// Those for a connection of which somebody waits.
    pub(super) fn starved(&self) -> Vec<u64> {
        let starved = |port: &Arc<ServicePort>| (port.circuit.count(Limit::Pending) > 0).then_some(port.number);
        self.list().iter().filter_map(starved).collect()
    }

    /// For the configuration dump.
    pub(crate) fn dump(&self) -> Value {
        let mut list = self.list();
        list.sort_by(|a, b| (&a.service, a.port, &a.subset).cmp(&(&b.service, b.port, &b.subset)));
        list.iter().map(|port| port.dump()).collect()
    }
}

fn is_there(tables: &Tables, (service, port, subset): &Key) -> bool {
    if let Some(uid) = uid_of(&service.name) {
        return tables.workload(uid).is_some();
    }
    let has_port = |service: &Arc<Service>| service.ports.iter().any(|own| own.service_port == *port);
    tables.service(service).is_some_and(has_port)
        && subset.as_ref().is_none_or(|subset| has_subset(tables, service, subset))
}

/// Whether a service has a subset of a name, as far as is told here.
pub(super) fn has_subset(tables: &Tables, service: &NamespacedName, subset: &Arc<str>) -> bool {
    tables.routes(service).is_some_and(|routes| routes.subsets.iter().any(|one| one.name == *subset))
}

/// What a data thread has found already.
#[derive(Default)]
pub(crate) struct KnownPorts(RefCell<HashMap<Key, Found>>);

impl KnownPorts {
    /// A port of a service, with its endpoints as the tables say they are.
    pub(super) fn find(
        &self,
        all: &ServicePorts,
        tables: &Tables,
        waypoint: &Workload,
        (service, port, subset): (&Arc<Service>, u16, Option<&Arc<str>>),
    ) -> Found {
        let key = (service.key(), port, subset.cloned());
        let mut known = self.0.borrow_mut();
        if let Some((port, ready)) = known.get_mut(&key) {
            port.check(ready);
            if !port.is_current(ready, tables, service) {
                *ready = port.ready(tables, waypoint, service);
            }
            return (port.clone(), ready.clone());
        }
        let port = all.of(&key);
        let ready = port.ready(tables, waypoint, service);
        known.insert(key, (port.clone(), ready.clone()));
        (port, ready)
    }

    /// Lets go of what the tables tell of no more.
    pub(crate) fn follow(&self, tables: &Tables) {
        self.0.borrow_mut().retain(|key, _| is_there(tables, key));
    }
}
