//! A proxy's tables: one writer, many readers.
//!
//! Readers look through a closure, so no lock outlives a question and none is held across an await. The writer holds
//! the lock for a bounded number of changes at a time, so a full resync does not stop traffic.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mesh_model::resource::{Kind, Resource};
use mesh_model::route::Router;
use mesh_model::tables::{Change, Tables};
use tokio::sync::watch;

/// Most changes under one lock: about a millisecond's work.
const BATCH: usize = 256;
/// Between two batches. The lock is not fair: a writer that took it again at once would do so before the readers it
/// has just let in are awake, again and again.
const PAUSE: Duration = Duration::from_millis(1);

struct State {
    tables: RwLock<Tables>,
    changed: watch::Sender<u64>,
    policies_changed: watch::Sender<u64>,
    synced: watch::Sender<bool>,
}

/// Who reads the tables. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    state: Arc<State>,
}

/// Who writes the tables: there is one, and it is not cloned.
pub struct Writer {
    state: Arc<State>,
}

/// A resource of which nothing is left to do that takes long: readers wait for as long as it is taken in.
enum Ready {
    Resource(Resource),
    Router(Arc<Router>),
}

impl Ready {
    fn apply(self, tables: &mut Tables) -> Change {
        match self {
            Self::Resource(resource) => tables.apply(resource),
            Self::Router(router) => tables.apply_router(router),
        }
    }
}

/// Empty tables.
pub fn tables() -> (Writer, Reader) {
    begin(Tables::default())
}

/// Empty tables of a proxy that serves pods of this cluster.
pub fn tables_of(cluster: &str) -> (Writer, Reader) {
    begin(Tables::of_cluster(cluster))
}

fn begin(tables: Tables) -> (Writer, Reader) {
    let state = Arc::new(State {
        tables: RwLock::new(tables),
        changed: watch::Sender::new(0),
        policies_changed: watch::Sender::new(0),
        synced: watch::Sender::new(false),
    });
    (Writer { state: state.clone() }, Reader { state })
}

impl Reader {
    /// Asks the tables. Everything seen by one call is of one moment. Short: the writer waits.
    pub fn read<R>(&self, question: impl FnOnce(&Tables) -> R) -> R {
        question(&self.state.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes its number after each response of the control plane that changed anything.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.state.changed.subscribe()
    }

    /// Changes its number after each response by which some decision about an open connection may differ.
    pub fn policies_changed(&self) -> watch::Receiver<u64> {
        self.state.policies_changed.subscribe()
    }

    /// True once the control plane has said everything at least once. Before that, what is not in the tables may
    /// well exist, so nothing should be decided by its absence.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.state.synced.subscribe()
    }
}

impl Writer {
    /// Who reads what this writes.
    pub fn reader(&self) -> Reader {
        Reader { state: self.state.clone() }
    }

    /// Takes in resources that come from a file instead of a control plane.
    pub fn apply_local(&mut self, resources: Vec<Resource>) {
        // Policies and routes first: no workload is seen without the policies that cover it.
        let (first, rest): (Vec<_>, Vec<_>) =
            resources.into_iter().partition(|resource| resource.kind() != Kind::Address);
        let ready = |all: Vec<Resource>| all.into_iter().filter_map(|resource| self.ready(resource)).collect();
        let (first, rest) = (ready(first), ready(rest));
        let mut change = self.take(first);
        change |= self.take(rest);
        self.tell(change);
    }

    /// Takes in one response: first what is there, then what is gone, so that what moves from one name to another is
    /// never missing in between.
    pub async fn apply(&mut self, kind: Kind, upserts: Vec<Resource>, removals: Vec<String>) {
        if upserts.is_empty() && removals.is_empty() {
            return;
        }
        let upserts: Vec<_> = upserts.into_iter().filter_map(|resource| self.ready(resource)).collect();
        let mut change = Change::default();
        // Policies change all at once: between two batches a connection could be allowed that neither the old nor
        // the new policies allow. There are few of them.
        if kind == Kind::Authorization || upserts.len() + removals.len() <= BATCH {
            let mut tables = self.state.tables.write().unwrap_or_else(PoisonError::into_inner);
            for ready in upserts {
                change |= ready.apply(&mut tables);
            }
            for name in &removals {
                change |= tables.remove(kind, name);
            }
        } else {
            let mut upserts = upserts.into_iter();
            loop {
                let batch: Vec<_> = upserts.by_ref().take(BATCH).collect();
                if batch.is_empty() {
                    break;
                }
                change |= self.take(batch);
                tokio::time::sleep(PAUSE).await;
            }
            for batch in removals.chunks(BATCH) {
                change |= self.forget(kind, batch);
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.tell(change);
    }

    /// The control plane has said everything at least once.
    pub fn synced(&mut self) {
        self.state.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
    }

    /// A resource that can be taken in at once; None: it is there as it is.
    fn ready(&self, resource: Resource) -> Option<Ready> {
        let Resource::Routes(routes) = resource else { return Some(Ready::Resource(resource)) };
        let known = self.reader().read(|tables| tables.routes(&routes.service).cloned());
        (known.as_ref() != Some(&routes)).then(|| Ready::Router(Arc::new(Router::new(routes))))
    }

    fn take(&mut self, all: Vec<Ready>) -> Change {
        let mut change = Change::default();
        let mut tables = self.state.tables.write().unwrap_or_else(PoisonError::into_inner);
        for ready in all {
            change |= ready.apply(&mut tables);
        }
        change
    }

    fn forget(&mut self, kind: Kind, names: &[String]) -> Change {
        let mut change = Change::default();
        let mut tables = self.state.tables.write().unwrap_or_else(PoisonError::into_inner);
        for name in names {
            change |= tables.remove(kind, name);
        }
        change
    }

    fn tell(&self, change: Change) {
        self.state.changed.send_modify(|n| *n = n.wrapping_add(1));
        if change.policies {
            self.state.policies_changed.send_modify(|n| *n = n.wrapping_add(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_model::address::NamespacedName;
    use mesh_model::policy::Policy;
    use mesh_model::route::ServiceRoutes;
    use mesh_model::workload::Workload;

    use super::*;

    fn workload(uid: &str, policies: &[&str]) -> Resource {
        let names = policies.iter().map(|name| NamespacedName::new("shop", *name)).collect();
        Resource::Workload(Arc::new(Workload { authorization_policies: names, ..Workload::empty(uid) }))
    }

    fn policy(name: &str) -> Resource {
        let wire =
            mesh_proto::policy::Authorization { name: name.into(), namespace: "shop".into(), ..Default::default() };
        Resource::Policy(Arc::new(Policy::try_from(wire).unwrap()))
    }

    #[tokio::test]
    async fn readers_see_and_are_told() {
        let (mut writer, reader) = tables();
        let (mut changed, mut policies) = (reader.changed(), reader.policies_changed());
        writer.apply(Kind::Address, Vec::new(), Vec::new()).await;
        assert!(!changed.has_changed().unwrap(), "nothing is no change");

        writer.apply(Kind::Address, vec![workload("a", &[])], Vec::new()).await;
        assert!(changed.has_changed().unwrap() && !policies.has_changed().unwrap());
        assert!(reader.read(|t| t.workload("a").is_some()));
        changed.borrow_and_update();

        writer.apply(Kind::Address, vec![workload("a", &["p"])], Vec::new()).await;
        assert!(policies.has_changed().unwrap(), "another policy covers it");
        policies.borrow_and_update();

        writer.apply(Kind::Authorization, vec![policy("p")], Vec::new()).await;
        assert!(policies.has_changed().unwrap());
        policies.borrow_and_update();
        writer.apply(Kind::Authorization, Vec::new(), vec!["shop/unknown".into()]).await;
        assert!(!policies.has_changed().unwrap());
        writer.apply(Kind::Authorization, Vec::new(), vec!["shop/p".into()]).await;
        assert!(policies.has_changed().unwrap());

        writer.apply(Kind::Address, Vec::new(), vec!["a".into()]).await;
        assert!(reader.read(|t| t.workload("a").is_none()));
    }

    #[tokio::test]
    async fn much_is_taken_in_parts_and_told_once() {
        let (mut writer, reader) = tables();
        let mut changed = reader.changed();
        let many: Vec<_> = (0..5 * BATCH + 1).map(|n| workload(&n.to_string(), &[])).collect();
        let names: Vec<_> = many.iter().map(Resource::name).collect();
        writer.apply(Kind::Address, many, Vec::new()).await;
        assert_eq!(reader.read(|t| t.workloads().count()), names.len());
        assert_eq!(*changed.borrow_and_update(), 1);
        writer.apply(Kind::Address, Vec::new(), names).await;
        assert_eq!(reader.read(|t| t.workloads().count()), 0);
        assert_eq!(*changed.borrow_and_update(), 2);
    }

    #[tokio::test]
    async fn routes_are_made_ready_once_and_before_readers_wait() {
        let (mut writer, reader) = tables();
        let routes = |policies: &[&str]| {
            let service = NamespacedName::new("shop", "cart.shop.svc.cluster.local");
            let policies = policies.iter().map(|name| NamespacedName::new("shop", *name)).collect();
            Resource::Routes(Arc::new(ServiceRoutes { policies, ..ServiceRoutes::nothing(service) }))
        };
        let key = NamespacedName::new("shop", "cart.shop.svc.cluster.local");
        let router = || reader.read(|tables| tables.router(&key).cloned()).unwrap();
        writer.apply(Kind::Routes, vec![routes(&[])], Vec::new()).await;
        let first = router();
        assert!(Arc::ptr_eq(&first, &router()), "all readers follow the same");
        writer.apply(Kind::Routes, vec![routes(&[])], Vec::new()).await;
        assert!(Arc::ptr_eq(&first, &router()), "what is told again is not made again");
        writer.apply(Kind::Routes, vec![routes(&["deny"])], Vec::new()).await;
        assert!(!Arc::ptr_eq(&first, &router()));
        assert_eq!(router().routes().policies, [NamespacedName::new("shop", "deny")]);
        writer.apply(Kind::Routes, Vec::new(), vec![format!("shop/{}", key.name)]).await;
        assert!(reader.read(|tables| tables.router(&key).is_none()));
    }

    #[tokio::test]
    async fn a_file_is_taken_in_whole() {
        let (mut writer, reader) = tables();
        writer.apply_local(vec![workload("a", &["p"]), policy("p")]);
        assert!(reader.read(|t| t.workload("a").is_some() && t.policies().count() == 1));
        assert_eq!(*reader.changed().borrow(), 1);
        assert!(!*reader.synced().borrow());
        writer.synced();
        assert!(*reader.synced().borrow());
    }
}
