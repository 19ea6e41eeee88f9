//! Cluster → model, one file per kind. Pure: the same cluster always gives the same resources.
//!
//! | file | from | to |
//! |---|---|---|
//! | `life` | Pod | where it is in its life |
//! | `workload` | Pod | Workload |
//! | `endpoint` | EndpointSlice | Workload, for endpoints that are no pods; what slices say about pods |
//! | `service` | Service | Service |
//! | [`policy`] | AuthorizationPolicy | Policy |
//! | [`peer_authentication`] | PeerAuthentication | Policy |
//! | `ports` | names and numbers of ports, as all of them need | |
//! | [`revision`] | `istio.io/rev` | whether an object is for this control plane |
//! | `waypoint` | `istio.io/use-waypoint` | the waypoint in the way to a service or workload |
//! | [`condition`] | | what users are told |
//!
//! Begin with [`translate`].

pub mod condition;
mod endpoint;
mod life;
pub mod peer_authentication;
pub mod policy;
mod ports;
pub mod revision;
mod service;
mod waypoint;
mod workload;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use mesh_model::labels;
use mesh_model::resource::Resource;

use crate::cluster::Cluster;
use condition::PolicyStatus;
pub(crate) use life::{Stage, stage as pod_stage};
pub(crate) use workload::{namespace as pod_namespace, service_account as pod_service_account};

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

/// Translates everything.
pub fn translate(cluster: &Cluster, mesh: &Mesh) -> Translation {
    let mut translation = Translation::default();
    let revisions = revision::Revisions::new(cluster, mesh);
    let policies = policy::Policies::new(cluster, mesh, &revisions, &mut translation.statuses);
    let modes = peer_authentication::Modes::new(cluster, mesh, &revisions, &mut translation.statuses);
    waypoint::tell(cluster, mesh, &mut translation.statuses);
    let network = network(cluster, mesh);
    let services = services_by_namespace(cluster);
    let slices = endpoint::Slices::new(cluster);
    let context =
        Context { cluster, mesh, network, services: &services, slices: &slices, policies: &policies, modes: &modes };

    let resources = &mut translation.resources;
    resources.extend(policies.sent().chain(modes.sent()).map(Resource::Policy));
    for (_, object) in cluster.services() {
        resources.extend(service::translate(object, &context).map(|s| Resource::Service(Arc::new(s))));
    }
    for (_, pod) in cluster.pods() {
        resources.extend(workload::translate(pod, &context).map(|w| Resource::Workload(Arc::new(w))));
    }
    resources.extend(endpoint::translate(&context).into_iter().map(|w| Resource::Workload(Arc::new(w))));
    translation
}

/// What one object's translation may look at.
struct Context<'a> {
    cluster: &'a Cluster,
    mesh: &'a Mesh,
    network: Arc<str>,
    services: &'a HashMap<&'a str, Vec<&'a Arc<Service>>>,
    slices: &'a endpoint::Slices<'a>,
    policies: &'a policy::Policies,
    modes: &'a peer_authentication::Modes<'a>,
}

impl<'a> Context<'a> {
    /// The services of a namespace that stand for endpoints of this cluster.
    fn services_in(&self, namespace: &str) -> impl Iterator<Item = &'a Arc<Service>> {
        self.services.get(namespace).into_iter().flatten().copied()
    }
}

/// The network of this cluster: a label on its root namespace; empty without.
fn network(cluster: &Cluster, mesh: &Mesh) -> Arc<str> {
    let root = cluster.namespace(&mesh.root_namespace);
    let label = root.and_then(|n| n.metadata.labels.as_ref()?.get(labels::TOPOLOGY_NETWORK));
    label.map_or("", String::as_str).into()
}

fn services_by_namespace(cluster: &Cluster) -> HashMap<&str, Vec<&Arc<Service>>> {
    let mut services: HashMap<&str, Vec<_>> = HashMap::new();
    for (key, object) in cluster.services().filter(|(_, service)| !service::is_external_name(service)) {
        services.entry(&key.namespace).or_default().push(object);
    }
    services
}
