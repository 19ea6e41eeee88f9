//! From what Kubernetes says to what subscribers hear: translate, and publish what is different.

use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::resource::Kind;
use mesh_xds::published::{Difference, Published, Publisher};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::folder::Change;
use crate::held::Sent;
use crate::translate::condition::PolicyStatus;
use crate::translate::{Mesh, translate};

/// Owns what Kubernetes says and what was last published; nobody else writes either.
pub struct Publication {
    mesh: Mesh,
    cluster: Cluster,
    shared: watch::Sender<Option<Arc<Cluster>>>,
    publisher: Publisher,
    /// Since when each pod is published as it is, if somebody asks; and whose pods are proxies.
    sent: Option<(watch::Sender<Arc<Sent>>, Vec<NamespacedName>)>,
}

impl Publication {
    /// Nothing is published yet: subscribers wait.
    pub fn new(mesh: Mesh) -> Self {
        Self {
            mesh,
            cluster: Cluster::default(),
            shared: watch::Sender::new(None),
            publisher: Publisher::new(),
            sent: None,
        }
    }

    /// What Kubernetes says, now and later: for those who decide who may ask for what. None until it was read.
    pub fn cluster(&self) -> watch::Receiver<Option<Arc<Cluster>>> {
        self.shared.subscribe()
    }

    /// What is published, now and later.
    pub fn published(&self) -> watch::Receiver<Published> {
        self.publisher.subscribe()
    }

    /// Since when each pod is published as it is, from now on. `proxies` are the service accounts of proxies.
    pub fn sent(&mut self, proxies: Vec<NamespacedName>) -> watch::Receiver<Arc<Sent>> {
        let (sender, receiver) = watch::channel(Arc::default());
        self.sent = Some((sender, proxies));
        receiver
    }

    /// Takes changes in and publishes what follows from them.
    pub fn apply(&mut self, changes: Vec<Change>) -> (Difference, Vec<PolicyStatus>) {
        for change in changes {
            match change {
                Change::Apply(object) => self.cluster.apply(object),
                Change::Delete(key) => self.cluster.delete(&key),
            }
        }
        // First who may ask, then what to ask for: a proxy that hears of a pod asks for its certificate at once, and no
        // certificate waits for a table.
        self.shared.send_replace(Some(Arc::new(self.cluster.clone())));
        let translation = translate(&self.cluster, &self.mesh);
        let Some((sent, proxies)) = &self.sent else {
            return (self.publisher.publish(translation.resources), translation.statuses);
        };
        let difference = self.publisher.publish(translation.resources.iter().cloned());
        let published = self.publisher.subscribe();
        let generation = published.borrow().of(Kind::Address).map_or(0, |snapshot| snapshot.generation());
        let next = sent.borrow().next(&self.cluster, &translation.resources, generation, proxies);
        sent.send_replace(Arc::new(next));
        (difference, translation.statuses)
    }
}
