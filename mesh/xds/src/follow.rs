//! Keep a proxy's tables following the control plane: decode, apply, publish, notify.
//!
//! One [`Writer`], which cannot be cloned, and any number of [`Reader`]s. A reader looks at the tables inside a closure:
//! the lock cannot be held across an await. The writer decodes before it takes the lock and applies in bounded
//! batches, so that a full resync never keeps a connection's decision waiting for long.

use std::sync::{Arc, PoisonError, RwLock};

use mesh_model::resource::{Kind, Resource};
use mesh_model::tables::{Change, Tables};
use tokio::sync::watch;

/// Most resources applied under one hold of the lock: well under a millisecond's work.
const BATCH: usize = 256;

/// The one who may change the tables.
#[derive(Debug)]
pub struct Writer {
    tables: Arc<RwLock<Tables>>,
    changed: watch::Sender<u64>,
    policies_changed: watch::Sender<u64>,
}

/// Looks at the tables. Cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Reader {
    tables: Arc<RwLock<Tables>>,
    changed: watch::Receiver<u64>,
    policies_changed: watch::Receiver<u64>,
}

/// Empty tables, and who may write and read them.
pub fn tables() -> (Writer, Reader) {
    let tables = Arc::new(RwLock::new(Tables::default()));
    let (changed, changed_receiver) = watch::channel(0);
    let (policies_changed, policies_receiver) = watch::channel(0);
    let reader = Reader { tables: tables.clone(), changed: changed_receiver, policies_changed: policies_receiver };
    (Writer { tables, changed, policies_changed }, reader)
}

impl Reader {
    /// Looks at the tables. Keep it short: a writer waits meanwhile.
    pub fn read<R>(&self, look: impl FnOnce(&Tables) -> R) -> R {
        // A panic of a writer between two single changes leaves tables that are old in part, not broken.
        look(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes whenever the tables have.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Changes whenever some decision of policies may differ.
    pub fn policies_changed(&self) -> watch::Receiver<u64> {
        self.policies_changed.clone()
    }
}

impl Writer {
    /// Takes in what a response brought: first what is new, then what is gone, so that what moved is never missing.
    pub fn apply(&mut self, resources: Vec<Resource>, removed: &[(Kind, String)]) {
        let mut change = Change::default();
        let mut resources = resources.into_iter().peekable();
        while resources.peek().is_some() {
            let batch: Vec<Resource> = resources.by_ref().take(BATCH).collect();
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            for resource in batch {
                change |= tables.apply(resource);
            }
        }
        for batch in removed.chunks(BATCH) {
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            for (kind, name) in batch {
                change |= tables.remove(*kind, name);
            }
        }
        // Policies first: who is told of a change may look at once.
        if change.policies {
            self.policies_changed.send_modify(|version| *version += 1);
        }
        self.changed.send_modify(|version| *version += 1);
    }

    /// Takes in resources that are not a control plane's, as from a file.
    pub fn apply_local(&mut self, resources: Vec<Resource>) {
        self.apply(resources, &[]);
    }
}
