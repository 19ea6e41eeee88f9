//! The pods that a worker serves, by uid and by name.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::Pod;

/// Pods by uid, and those of each name.
#[derive(Default)]
pub(super) struct Pods {
    by_uid: HashMap<Arc<str>, Rc<Pod>>,
    by_name: HashMap<String, Vec<Rc<Pod>>>,
}

impl Pods {
    /// The uid must not be there.
    pub(super) fn insert(&mut self, uid: Arc<str>, pod: Rc<Pod>) {
        self.by_name.entry(pod.info.name.clone()).or_default().push(pod.clone());
        self.by_uid.insert(uid, pod);
    }

    pub(super) fn remove(&mut self, uid: &str) -> Option<Rc<Pod>> {
        let pod = self.by_uid.remove(uid)?;
        if let Some(named) = self.by_name.get_mut(&pod.info.name) {
            named.retain(|other| !Rc::ptr_eq(other, &pod));
            if named.is_empty() {
                self.by_name.remove(&pod.info.name);
            }
        }
        Some(pod)
    }

    /// Those of a name, in any namespace, in the order in which they came.
    pub(super) fn named(&self, name: &str) -> &[Rc<Pod>] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<Pod>> {
        self.by_uid.values()
    }
}
