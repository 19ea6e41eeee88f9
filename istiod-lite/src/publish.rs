//! From what Kubernetes says to what subscribers hear: translate what changed, and publish what is different.

use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::resource::{Kind, Resource};
use mesh_xds::audience::Audience;
use mesh_xds::published::{Difference, Published, Publisher};
use tokio::sync::watch;

use crate::cluster::{Change, Cluster};
use crate::held::Sent;
use crate::translate::Mesh;
use crate::translate::condition::PolicyStatus;
use crate::translate::delta::Translator;

/// Owns what Kubernetes says and what was last published; nobody else writes either.
pub struct Publication {
    translator: Translator,
    shared: watch::Sender<Option<Arc<Cluster>>>,
    publisher: Publisher,
    /// Since when each pod is published as it is, if somebody asks; and whose pods are proxies.
    sent: Option<(watch::Sender<Arc<Sent>>, Vec<NamespacedName>)>,
}

impl Publication {
    /// Nothing is published yet: subscribers wait.
    pub fn new(mesh: Mesh) -> Self {
        Self {
            translator: Translator::new(mesh),
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

    /// Takes changes in and publishes what follows from them. Gives what users are told now, if that is something else.
    pub fn apply(&mut self, changes: Vec<Change>) -> (Difference, Option<Vec<PolicyStatus>>) {
        self.translator.take(changes);
        // First who may ask, then what to ask for: a proxy that hears of a pod asks for its certificate at once, and no
        // certificate waits for a table.
        self.shared.send_replace(Some(Arc::new(self.translator.cluster().clone())));
        let mut delta = self.translator.translate();
        let statuses = delta.statuses_changed.then(|| self.translator.statuses());
        let removed = std::mem::take(&mut delta.removed);
        let for_waypoints = std::mem::take(&mut delta.for_waypoints);
        let Some((sent, proxies)) = &self.sent else {
            let resources = delta.resources.into_iter().map(for_everyone).chain(for_waypoints);
            return (self.publisher.update(resources, removed), statuses);
        };
        let resources = delta.resources.iter().cloned().map(for_everyone).chain(for_waypoints);
        let difference = self.publisher.update(resources, removed);
        let published = self.publisher.subscribe();
        let generation = published.borrow().of(Kind::Address).map_or(0, |snapshot| snapshot.generation());
        let next = sent.borrow().next(self.translator.cluster(), &delta, generation, proxies);
        sent.send_replace(Arc::new(next));
        (difference, statuses)
    }
}

/// What is for every ztunnel.
fn for_everyone(resource: Resource) -> (Resource, Audience) {
    (resource, Audience::Everyone)
}
