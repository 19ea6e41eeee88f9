//! From what Kubernetes says to what subscribers hear: translate, and publish what is different.

use std::sync::Arc;

use mesh_xds::published::{Difference, Published, Publisher};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::folder::Change;
use crate::translate::condition::PolicyStatus;
use crate::translate::{Mesh, translate};

/// Owns what Kubernetes says and what was last published; nobody else writes either.
pub struct Publication {
    mesh: Mesh,
    cluster: Cluster,
    shared: watch::Sender<Arc<Cluster>>,
    publisher: Publisher,
}

impl Publication {
    /// Nothing is published yet: subscribers wait.
    pub fn new(mesh: Mesh) -> Self {
        Self {
            mesh,
            cluster: Cluster::default(),
            shared: watch::Sender::new(Arc::new(Cluster::default())),
            publisher: Publisher::new(),
        }
    }

    /// What Kubernetes says, now and later: for those who decide who may ask for what.
    pub fn cluster(&self) -> watch::Receiver<Arc<Cluster>> {
        self.shared.subscribe()
    }

    /// What is published, now and later.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.publisher.subscribe()
    }

    /// Takes changes in and publishes what follows from them.
    pub fn apply(&mut self, changes: Vec<Change>) -> (Difference, Vec<PolicyStatus>) {
        for change in changes {
            match change {
                Change::Apply(object) => self.cluster.apply(object),
                Change::Delete(key) => self.cluster.delete(&key),
            }
        }
        let translation = translate(&self.cluster, &self.mesh);
        // First who may ask, then what to ask for: a proxy that hears of a pod asks for its certificate at once.
        self.shared.send_replace(Arc::new(self.cluster.clone()));
        (self.publisher.publish(translation.resources), translation.statuses)
    }
}
