//! What a proxy knows: workloads, services, policies and routes, indexed for the questions that a connection asks.
//!
//! A plain struct with [`Tables::apply`] and [`Tables::remove`]; who may write, and how readers see a consistent
//! state, is the business of `mesh-xds`.

mod index;
mod policies;
mod services;
mod workloads;

use std::collections::HashMap;
use std::sync::Arc;

use crate::address::NamespacedName;
use crate::policy::Policy;
use crate::resource::{Kind, Resource};
use crate::route::{Router, ServiceRoutes};
use crate::service::Service;
use crate::shared;
use crate::workload::Workload;

pub use policies::Covering;
pub use services::Edition;

/// What a proxy knows.
#[derive(Default, Debug)]
pub struct Tables {
    /// Of the cluster whose pods are served with them. None: of any.
    cluster: Option<Arc<str>>,
    workloads: workloads::Workloads,
    services: services::Services,
    policies: policies::Policies,
    routes: HashMap<NamespacedName, Arc<Router>>,
}

/// What a change touched, for those who must look again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Some decision about an open connection may differ now.
    pub policies: bool,
}

impl std::ops::BitOrAssign for Change {
    fn bitor_assign(&mut self, other: Self) {
        self.policies |= other.policies;
    }
}

impl Tables {
    /// Empty, for a proxy that serves pods of this cluster.
    pub fn of_cluster(cluster: &str) -> Self {
        Self { cluster: Some(shared::text(cluster)), ..Self::default() }
    }

    /// Takes a resource in, replacing the one of the same name as a whole. What is there already as it is, stays.
    pub fn apply(&mut self, resource: Resource) -> Change {
        match resource {
            Resource::Workload(workload) => {
                if self.workloads.by_uid(&workload.uid).is_some_and(|old| *old == workload) {
                    return Change::default();
                }
                let old = self.workloads.remove(&workload.uid);
                if let Some(old) = &old {
                    self.services.detach(old);
                }
                self.services.attach(&workload);
                let policies = old.is_some_and(|old| {
                    old.authorization_policies != workload.authorization_policies || old.namespace != workload.namespace
                });
                self.workloads.insert(workload);
                Change { policies }
            }
            Resource::Service(service) => {
                self.services.insert(service);
                Change::default()
            }
            Resource::Policy(policy) => {
                let policies = self.policies.insert(policy);
                Change { policies }
            }
            Resource::Routes(routes) => {
                if self.routes(&routes.service).is_some_and(|old| *old == routes) {
                    return Change::default();
                }
                self.apply_router(Arc::new(Router::new(routes)))
            }
        }
    }

    /// [`Self::apply`] of routes that are ready: to make them so may take long, and nobody has to wait for it.
    pub fn apply_router(&mut self, router: Arc<Router>) -> Change {
        let routes = router.routes();
        let policies = self.routes(&routes.service).is_some_and(|old| old.policies != routes.policies);
        self.routes.insert(routes.service.clone(), router);
        Change { policies }
    }

    /// Forgets the resource of this kind and name; a name that is not known is no failure. Addresses hold workloads
    /// and services in one list of names: the name is tried as a workload's uid first, then as a service's key.
    pub fn remove(&mut self, kind: Kind, name: &str) -> Change {
        match kind {
            Kind::Address => {
                if let Some(old) = self.workloads.remove(name) {
                    self.services.detach(&old);
                } else if let Some(key) = NamespacedName::parse_service(name) {
                    self.services.remove(&key);
                }
                Change::default()
            }
            Kind::Authorization => {
                let removed = NamespacedName::parse(name).is_some_and(|key| self.policies.remove(&key));
                Change { policies: removed }
            }
            Kind::Routes => {
                let key = NamespacedName::parse_service(name);
                let removed = key.and_then(|key| self.routes.remove(&key)).is_some();
                Change { policies: removed }
            }
        }
    }

    /// The workload with this uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.by_uid(uid)
    }

    /// The workload that owns an address. Of several, a real pod with a tunnel comes first, then a real pod, then
    /// one with a tunnel; of equals, the one heard of last. Host-network workloads have no address of their own.
    pub fn workload_by_address(&self, network: &str, ip: std::net::IpAddr) -> Option<&Arc<Workload>> {
        self.workloads.by_address(network, ip)
    }

    /// The workload that a pod handed over by the node agent is: name, namespace and service account all equal. Of several, the
    /// one of our cluster: a StatefulSet's pods have the same names in each.
    pub fn workload_of_pod(&self, namespace: &str, name: &str, service_account: &str) -> Option<&Arc<Workload>> {
        let called = || self.workloads.by_pod(namespace, name).filter(|w| *w.service_account == *service_account);
        let ours = self.cluster.as_deref().and_then(|cluster| called().find(|w| *w.cluster == *cluster));
        ours.or_else(|| called().next())
    }

    /// A workload with this hostname, in the key's namespace: a gateway that is known by its load balancer's name.
    pub fn workload_by_hostname(&self, key: &NamespacedName) -> Option<&Arc<Workload>> {
        self.workloads.by_hostname(key)
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter()
    }

    /// The service with this key.
    pub fn service(&self, key: &NamespacedName) -> Option<&Arc<Service>> {
        self.services.by_key(key)
    }

    /// The service that an address belongs to, as a client in `namespace` sees it: exact addresses before blocks;
    /// of several with the same address the client's own namespace first, then the canonical one. Services private
    /// to other namespaces are not seen.
    pub fn service_by_address(&self, network: &str, ip: std::net::IpAddr, namespace: &str) -> Option<&Arc<Service>> {
        self.services.by_address(network, ip, namespace)
    }

    /// The service with a hostname: the client's own namespace first, then the canonical one.
    pub fn service_by_hostname(&self, hostname: &str, namespace: &str) -> Option<&Arc<Service>> {
        self.services.by_hostname(hostname, namespace)
    }

    /// All services with a hostname that a client in `namespace` sees, for those who choose by other rules; in the
    /// order in which they came.
    pub fn services_named(&self, hostname: &str, namespace: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.services.named(hostname, namespace)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter()
    }

    /// The workloads that say they are endpoints of a service, in no order, whatever their health.
    pub fn endpoints(&self, service: &NamespacedName) -> &[Arc<Workload>] {
        self.services.endpoints(service)
    }

    /// Which edition of the list [`Self::endpoints`] is: another one after each change. `None` of an empty list.
    pub fn endpoints_edition(&self, service: &NamespacedName) -> Option<&Edition> {
        self.services.edition(service)
    }

    /// The policies that cover a workload, and the names of those it names that are not known.
    pub fn policies_covering(&self, workload: &Workload) -> Covering {
        self.policies.covering(workload)
    }

    /// What a waypoint does with the requests for a service. The same `Arc` for as long as it says the same.
    pub fn routes(&self, service: &NamespacedName) -> Option<&Arc<ServiceRoutes>> {
        self.router(service).map(|router| router.routes())
    }

    /// [`Self::routes`], ready to be followed: made once, where they came in.
    pub fn router(&self, service: &NamespacedName) -> Option<&Arc<Router>> {
        self.routes.get(service)
    }

    /// The routes of all services, in no order.
    pub fn all_routes(&self) -> impl Iterator<Item = &Arc<ServiceRoutes>> {
        self.all_routers().map(|router| router.routes())
    }

    /// [`Self::all_routes`], ready to be followed.
    pub fn all_routers(&self) -> impl Iterator<Item = &Arc<Router>> {
        self.routes.values()
    }

    /// The policies that a waypoint judges the requests for a service by: those that are attached to it by name, and no others
    /// (ambient contract 10.4). And the names of those that are not known.
    pub fn policies_of_routes(&self, routes: &ServiceRoutes) -> Covering {
        self.policies.named(&routes.policies)
    }

    /// A number that is another one after each change of a policy, and in no two tables with policies the same: for who keeps what
    /// was made of policies.
    pub fn policy_revision(&self) -> u64 {
        self.policies.revision()
    }

    /// All policies, in no order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.iter()
    }
}

#[cfg(test)]
mod tests;
