//! What one worker serves: its pods, by uid and by name, and what is open of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use mesh_model::pod::PodInfo;
use mesh_proxy::connections::Connections;

use crate::carried::Carried;
use crate::context::WorkerContext;
use crate::pod::Pod;

/// One worker's own things.
pub(crate) struct Worker {
    pub(crate) context: Arc<WorkerContext>,
    pub(crate) connections: Connections,
    /// What waypoints carry.
    pub(crate) carried: Carried,
    pub(crate) pods: RefCell<Pods>,
}

impl Worker {
    /// The pod of that name, if this worker serves it.
    pub(crate) fn pod(&self, name: &str, namespace: &str, account: &str) -> Option<Rc<Pod>> {
        let is = |info: &PodInfo| info.namespace == namespace && info.service_account == account;
        self.pods.borrow().named(name).iter().find(|pod| is(&pod.local.info)).cloned()
    }
}

/// Pods by uid, and those of each name.
#[derive(Default)]
pub(crate) struct Pods {
    by_uid: HashMap<Arc<str>, Rc<Pod>>,
    by_name: HashMap<String, Vec<Rc<Pod>>>,
}

impl Pods {
    /// The uid must not be there.
    pub(crate) fn insert(&mut self, uid: Arc<str>, pod: Rc<Pod>) {
        self.by_name.entry(pod.local.info.name.clone()).or_default().push(pod.clone());
        self.by_uid.insert(uid, pod);
    }

    pub(crate) fn remove(&mut self, uid: &str) -> Option<Rc<Pod>> {
        let pod = self.by_uid.remove(uid)?;
        if let Some(named) = self.by_name.get_mut(&pod.local.info.name) {
            named.retain(|other| !Rc::ptr_eq(other, &pod));
            if named.is_empty() {
                self.by_name.remove(&pod.local.info.name);
            }
        }
        Some(pod)
    }

    /// Those of a name, in any namespace, in the order in which they came.
    fn named(&self, name: &str) -> &[Rc<Pod>] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Rc<Pod>> {
        self.by_uid.values()
    }
}
