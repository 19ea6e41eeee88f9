//! Cluster → model, one file per kind. Pure: the same cluster always gives the same resources.
//!
//! | file | from | to |
//! |---|---|---|
//! | `workload` | Pod | Workload |
//! | `outsider` | endpoints that are no pods | Workload |
//! | `service`, `distribution` | Service | Service |
//! | [`endpoints`] | Services, Pods, EndpointSlices, Endpoints | which endpoints each service has |
//! | [`policy`] | AuthorizationPolicy | Policy |
//! | [`peer_authentication`] | PeerAuthentication | Policy |
//! | `ports` | names and numbers of ports, as all of them need | |
//! | [`revision`] | `istio.io/rev` | whether an object is for this control plane |
//! | `waypoint` | `istio.io/use-waypoint` | the waypoint in the way to a service or workload |
//! | [`condition`], `told` | | what users are told |
//! | [`delta`] | changes of objects | what of all this differs now |
//!
//! Begin with [`translate()`], which says what a cluster means; [`delta`] keeps that up to date.

pub mod condition;
pub mod delta;
mod distribution;
pub mod endpoints;
mod outsider;
pub mod peer_authentication;
pub mod policy;
mod ports;
pub mod revision;
mod service;
mod told;
mod waypoint;
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_model::labels;
use mesh_model::resource::Resource;

use crate::cluster::Cluster;
use condition::PolicyStatus;
use endpoints::{Inputs, Owner};

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
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            cluster_id: mesh_model::workload::DEFAULT_CLUSTER.into(),
            trust_domain: mesh_model::identity::DEFAULT_TRUST_DOMAIN.into(),
            domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            revision: revision::DEFAULT.into(),
            revision_tags: Vec::new(),
            dry_run_policies: false,
        }
    }
}

/// What the cluster means.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    /// For the proxies.
    pub resources: Vec<Resource>,
    /// For the users.
    pub statuses: Vec<PolicyStatus>,
}

/// Translates everything, from nothing. What [`delta`] comes to, change by change, is this: it is what that is tested
/// with, and what says in one place what a cluster means.
pub fn translate(cluster: &Cluster, mesh: &Mesh) -> Translation {
    let mut translation = Translation::default();
    let statuses = &mut translation.statuses;
    let revisions = revision::Revisions::new(cluster, mesh);
    let mut policies = policy::Policies::new(mesh);
    for (key, object) in cluster.authorization_policies() {
        let updated = policies.update(key, Some(object), mesh, &revisions);
        statuses.extend(updated.condition.map(|condition| told::of_policy(key, condition)));
    }
    let modes = peer_authentication::Modes::new(cluster, mesh, &revisions, statuses);
    let mut about: Vec<_> = cluster.all_keys().flat_map(|key| told::of(&key, cluster, mesh)).collect();
    about.sort_by(|(a, _), (b, _)| a.cmp(b));
    statuses.extend(about.into_iter().map(|(_, status)| status));

    let network = network(cluster, mesh);
    let inputs = Inputs::of(cluster);
    let resolved = inputs.resolve();
    let context = Context { cluster, mesh, network, policies: &policies, modes: &modes };
    let mut by_pod: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let mut outside: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for (object, found) in inputs.services.iter().copied().zip(&resolved) {
        for endpoint in &found.endpoints {
            let by_uid = match endpoint.owner {
                Owner::Pod(_) => &mut by_pod,
                Owner::Outside(_) => &mut outside,
            };
            let uid = endpoints::uid(&inputs, object, endpoint, &mesh.cluster_id);
            by_uid.entry(uid).or_default().push((object, endpoint));
        }
    }

    let resources = &mut translation.resources;
    resources.extend(policies.sent().values().cloned().chain(modes.sent()).map(Resource::Policy));
    for (_, object) in cluster.services() {
        resources.push(Resource::Service(Arc::new(service::translate(object, &context))));
    }
    let mut workloads = Vec::new();
    for (_, pod) in cluster.pods() {
        let said = by_pod.get(&workload::uid(&pod.name, &mesh.cluster_id));
        workloads.extend(workload::translate(pod, said.map_or(&[], Vec::as_slice), &context));
    }
    workloads.extend(outside.iter().filter_map(|(uid, said)| outsider::translate(uid, said, &context)));
    resources.extend(workloads.into_iter().map(|workload| Resource::Workload(Arc::new(workload))));
    translation
}

/// What one object's translation may look at, besides what services say of it.
struct Context<'a> {
    cluster: &'a Cluster,
    mesh: &'a Mesh,
    network: Arc<str>,
    policies: &'a policy::Policies,
    modes: &'a peer_authentication::Modes,
}

/// The network of this cluster: a label on its root namespace; empty without.
fn network(cluster: &Cluster, mesh: &Mesh) -> Arc<str> {
    let root = cluster.namespace(&mesh.root_namespace);
    let label = root.and_then(|n| n.metadata.labels.as_ref()?.get(labels::TOPOLOGY_NETWORK));
    label.map_or("", String::as_str).into()
}
