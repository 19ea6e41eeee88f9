//! What the mesh as a whole is set to.

use std::sync::Arc;

use mesh_model::address::NamespacedName;

use super::entries::addresses::Pools;
use crate::mode::Mode;

/// The revision of a control plane that is not told otherwise.
const DEFAULT_REVISION: &str = "default";

/// What the mesh as a whole is set to.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// Name of this cluster (`CLUSTER_ID`); ztunnel's must be equal.
    pub cluster_id: Arc<str>,
    /// Of every identity.
    pub trust_domain: Arc<str>,
    /// Below which services have their names: `cluster.local`.
    pub domain: Arc<str>,
    /// Policies in it are for the whole mesh: `istio-system`.
    pub root_namespace: Arc<str>,
    /// Name of this control plane among several in one cluster (`REVISION`).
    pub revision: Arc<str>,
    /// Its other names (`REVISION_TAGS`); those that Services say are added.
    pub revision_tags: Vec<String>,
    /// Whether policies annotated as dry runs are sent, to be decided and logged only.
    pub dry_run_policies: bool,
    /// Where its mesh configuration is: the ConfigMap `istio` of the namespace that we run in; of a revision, `istio-REVISION`.
    pub config_map: NamespacedName,
    /// Where hosts of ServiceEntries have addresses from that were given none (`PILOT_ENABLE_IP_AUTOALLOCATE`).
    pub pools: Option<Pools>,
    /// Whether all of it is ours, or its waypoints alone (`WAYPOINTS_ONLY`).
    pub mode: Mode,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            cluster_id: mesh_model::workload::DEFAULT_CLUSTER.into(),
            trust_domain: mesh_model::identity::DEFAULT_TRUST_DOMAIN.into(),
            domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            revision: DEFAULT_REVISION.into(),
            revision_tags: Vec::new(),
            dry_run_policies: false,
            config_map: NamespacedName::new("istio-system", "istio"),
            pools: Some(Pools::default()),
            mode: Mode::default(),
        }
    }
}
