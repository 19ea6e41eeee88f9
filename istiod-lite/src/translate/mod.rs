//! Cluster → model, one file per kind. Pure: the same cluster always gives the same resources.
//!
//! | file | from | to |
//! |---|---|---|
//! | `life` | Pod | where it is in its life |
//! | `workload` | Pod | Workload |
//! | `outsider` | endpoints that are no pods | Workload |
//! | `service`, `distribution` | Service | Service |
//! | [`endpoints`] | Services, Pods, EndpointSlices, Endpoints | which endpoints each service has |
//! | [`policy`] | AuthorizationPolicy | Policy |
//! | [`peer_authentication`] | PeerAuthentication | Policy |
//! | `ports` | names and numbers of ports, as all of them need | |
//! | [`revision`] | `istio.io/rev` | whether an object is for this control plane |
//! | `waypoint` | `istio.io/use-waypoint` | the waypoint in the way to a service or workload |
//! | [`condition`] | | what users are told |
//!
//! Begin with [`translate`].

pub mod condition;
mod distribution;
pub mod endpoints;
mod life;
mod outsider;
pub mod peer_authentication;
pub mod policy;
mod ports;
pub mod revision;
mod service;
mod waypoint;
mod workload;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use mesh_model::labels;
use mesh_model::resource::Resource;

use crate::cluster::Cluster;
use crate::resources::{Key, Kind};
use condition::{Condition, PolicyStatus};
use endpoints::{Endpoint, Inputs, Owner, ServiceEndpoints};
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
    let inputs = Inputs::of(cluster);
    let resolved = inputs.resolve();
    let by_pod = by_pod(&inputs, &resolved);
    let services = inputs.services.iter().copied().zip(&resolved).collect();
    let inputs = &inputs;
    let context = Context { cluster, mesh, network, inputs, services, by_pod, policies: &policies, modes: &modes };
    translation.statuses.extend(distribution::unknown(&context));
    translation.statuses.extend(unused(&context));

    let resources = &mut translation.resources;
    resources.extend(policies.sent().chain(modes.sent()).map(Resource::Policy));
    for (_, object) in cluster.services() {
        resources.push(Resource::Service(Arc::new(service::translate(object, &context))));
    }
    for (_, pod) in cluster.pods() {
        resources.extend(workload::translate(pod, &context).map(|w| Resource::Workload(Arc::new(w))));
    }
    resources.extend(outsider::translate(&context).into_iter().map(|w| Resource::Workload(Arc::new(w))));
    translation
}

/// What one object's translation may look at.
struct Context<'a> {
    cluster: &'a Cluster,
    mesh: &'a Mesh,
    network: Arc<str>,
    inputs: &'a Inputs<'a>,
    /// Each with its endpoints.
    services: Vec<(&'a Service, &'a ServiceEndpoints)>,
    by_pod: ByPod<'a>,
    policies: &'a policy::Policies,
    modes: &'a peer_authentication::Modes<'a>,
}

/// By namespace and name: the services that a pod is an endpoint of.
type ByPod<'a> = HashMap<(&'a str, &'a str), Vec<(&'a Service, &'a Endpoint)>>;

impl<'a> Context<'a> {
    /// Services, each with its endpoints.
    fn resolved(&self) -> impl Iterator<Item = (&'a Service, &'a ServiceEndpoints)> {
        self.services.iter().copied()
    }

    /// The services that a pod is an endpoint of.
    fn endpoints_of(&self, pod: &'a Pod) -> &[(&'a Service, &'a Endpoint)] {
        self.by_pod.get(&pod_key(pod)).map_or(&[], Vec::as_slice)
    }
}

fn pod_key(pod: &Pod) -> (&str, &str) {
    (workload::namespace(pod), pod.metadata.name.as_deref().unwrap_or(""))
}

fn by_pod<'a>(inputs: &Inputs<'a>, resolved: &'a [ServiceEndpoints]) -> ByPod<'a> {
    let mut by_pod = ByPod::new();
    for (object, found) in inputs.services.iter().zip(resolved) {
        for endpoint in &found.endpoints {
            let Owner::Pod(place) = endpoint.owner else { continue };
            by_pod.entry(pod_key(inputs.pods[place].pod)).or_default().push((object, endpoint));
        }
    }
    by_pod
}

/// Endpoints and slices that say nothing although somebody wrote them, and why.
fn unused(context: &Context<'_>) -> Vec<PolicyStatus> {
    let mut statuses = Vec::new();
    let mut say = |key: Key, message: &str| {
        statuses.push(PolicyStatus { key, conditions: vec![Condition::unsupported(false, message)] });
    };
    for (key, object) in context.cluster.endpoints() {
        let of = context.cluster.service(key).map(|s| &**s);
        if let Some(why) = endpoints::ignored_endpoints(object, of) {
            say(Key::new(Kind::Endpoints, Some(&key.namespace), &key.name), why);
        }
    }
    for (key, object) in context.cluster.endpoint_slices() {
        if object.address_type == "FQDN" {
            let why = "addressType FQDN: nobody follows such a slice, in Kubernetes neither: write addresses, or a Service \
                       of type ExternalName";
            say(Key::new(Kind::EndpointSlice, Some(&key.namespace), &key.name), why);
        }
    }
    statuses
}

/// The network of this cluster: a label on its root namespace; empty without.
fn network(cluster: &Cluster, mesh: &Mesh) -> Arc<str> {
    let root = cluster.namespace(&mesh.root_namespace);
    let label = root.and_then(|n| n.metadata.labels.as_ref()?.get(labels::TOPOLOGY_NETWORK));
    label.map_or("", String::as_str).into()
}
