//! What has to be said anew when an object changes. Pure.
//!
//! What depends on an object as it was, and what depends on it as it is: both, since an object that changes leaves some
//! and comes to others. It may be more than what differs in the end, never less: whoever publishes drops what is the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::labels;

use super::index::Index;
use super::{Cluster, Kept, relations};
use crate::resources::labels::Labels;
use crate::resources::{Key, Kind};

/// What has to be said anew.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Authorization policies to translate.
    pub policies: BTreeSet<NamespacedName>,
    /// Peer authentications changed: they are decided on together.
    pub peer_authentications: bool,
    /// Namespaces of pods that came, went or have other labels: peer authentications say how many they are for.
    pub relabelled: BTreeSet<Arc<str>>,
    /// The labels changed by which Services name this control plane.
    pub revisions: bool,
    /// Services to translate.
    pub services: BTreeSet<NamespacedName>,
    /// Services whose endpoints to look for.
    pub endpoints: BTreeSet<NamespacedName>,
    /// Services all of whose endpoints to translate.
    pub members: BTreeSet<NamespacedName>,
    /// Pods to translate.
    pub pods: BTreeSet<NamespacedName>,
    /// Nodes that may be elsewhere now.
    pub nodes: BTreeSet<Arc<str>>,
    /// Objects of which something may have to be told to their authors.
    pub told: BTreeSet<Key>,
}

impl Affected {
    /// Adds what differs between two forms of one object, whoever depends on it.
    pub fn by_difference(&mut self, key: &Key, old: Option<&Kept>, new: Option<&Kept>) {
        match key.kind {
            Kind::Pod if pod_labels(old) != pod_labels(new) => {
                self.relabelled.insert(key.namespace.clone());
            }
            Kind::Service => {
                let label = |object: Option<&Kept>, name| object?.labels().label(name).map(str::to_owned);
                let differs = |name| label(old, name) != label(new, name);
                self.revisions |= differs(labels::REVISION) || differs(labels::TAG);
            }
            _ => {}
        }
    }

    /// Adds what depends on an object as it is in this cluster.
    pub fn by_object(&mut self, cluster: &Cluster, index: &Index, key: &Key, object: &Kept) {
        let name = key.object();
        match object {
            Kept::Namespace(_) => {
                self.services.extend(cluster.services_in(&key.name).map(|(service, _)| service.clone()));
                self.told.insert(key.clone());
            }
            Kept::Node(_) => {
                self.pods.extend(cluster.keys_on_node(&key.name).cloned());
                self.nodes.insert(key.name.clone());
            }
            // Only certificates depend on them.
            Kept::ServiceAccount(_) => {}
            Kept::Pod(pod) => {
                self.endpoints.extend(index.services_of(cluster, &name, pod));
                self.pods.insert(name);
                self.told.insert(key.clone());
            }
            Kept::Service(_) => {
                self.told.insert(key.clone());
                self.told.insert(Key { kind: Kind::Endpoints, ..key.clone() });
                self.told.extend(index.asking_for(&name).cloned());
                self.endpoints.insert(name.clone());
                self.members.insert(name.clone());
                self.services.insert(name);
            }
            Kept::EndpointSlice(slice) => {
                self.endpoints.extend(relations::service_of(slice));
                self.told.insert(key.clone());
            }
            Kept::Endpoints(_) => {
                self.endpoints.insert(name);
                self.told.insert(key.clone());
            }
            Kept::AuthorizationPolicy(_) => drop(self.policies.insert(name)),
            Kept::PeerAuthentication(_) => self.peer_authentications = true,
        }
    }
}

fn pod_labels(object: Option<&Kept>) -> Option<&Labels> {
    match object {
        Some(Kept::Pod(pod)) => Some(&pod.labels),
        _ => None,
    }
}
