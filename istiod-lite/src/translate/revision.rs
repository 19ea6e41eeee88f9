//! Several control planes may read one cluster: which objects of Istio's are for this one?
//!
//! An object without `istio.io/rev` is for all of them. Pods and Services are not asked: they are there for everybody.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::labels;

use super::condition::Condition;
use super::mesh::Mesh;
use crate::cluster::Cluster;

/// The names that mean this control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revisions {
    own: String,
    names: BTreeSet<String>,
}

impl Revisions {
    /// Its revision, the tags that are set, and those of Services that say `istio.io/tag` beside its revision, as
    /// `istioctl tag set` makes them.
    pub(crate) fn new(cluster: &Cluster, mesh: &Mesh) -> Self {
        let own = mesh.revision.to_string();
        let tags = cluster.services().filter_map(|(_, service)| {
            let labels = service.metadata.labels.as_ref()?;
            (labels.get(labels::REVISION)? == &own).then(|| labels.get(labels::TAG).cloned())?
        });
        let names = tags.chain(mesh.revision_tags.iter().cloned()).chain([own.clone()]).collect();
        Self { own, names }
    }

    /// Whether an object with this label is for this control plane.
    pub(crate) fn is_ours(&self, revision: &str) -> bool {
        self.names.contains(revision)
    }

    /// Why an object is left to another control plane; `None` if it is not.
    pub(super) fn left_to_another(&self, metadata: &ObjectMeta) -> Option<Condition> {
        let revision = metadata.labels.as_ref()?.get(labels::REVISION)?;
        (!self.is_ours(revision)).then(|| {
            let message = format!(
                "it is left to the control plane of revision {revision}, as its label istio.io/rev says: this one is \
                 {}. If that is not meant, take the label off, or set REVISION or REVISION_TAGS",
                self.own
            );
            Condition::ignored("OtherRevision", message)
        })
    }
}
