//! Everything that matters, as the API server says it. What may not be read is named, with the right that is missing.
use super::objects::Object;
use anyhow::{Result, bail};
use mesh_kube::list::list;
use mesh_kube::write::WriteError;
use mesh_kube::{Client, Query, Resource};
use mesh_model::labels::GATEWAY_NAME;
use std::collections::BTreeMap;

const fn of(group: &'static str, versions: &'static [&'static str], plural: &'static str) -> Resource {
    Resource { group, versions, plural }
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";
pub(crate) const GATEWAYS: Resource = of(GATEWAY_API, &["v1", "v1beta1"], "gateways");
pub(crate) const NAMESPACES: Resource = Resource::core("namespaces");
const NODES: Resource = Resource::core("nodes");
const PODS: Resource = Resource::core("pods");
const SERVICES: Resource = Resource::core("services");
const EVENTS: Resource = Resource::core("events");
const CONFIG_MAPS: Resource = Resource::core("configmaps");
const LEASES: Resource = of("coordination.k8s.io", &["v1"], "leases");
/// Kinds of policies, and of what else gets conditions of the control plane, with the word in their `kind`.
const POLICIES: [(&str, Resource); 13] = [
    ("AuthorizationPolicy", of("security.istio.io", &["v1", "v1beta1"], "authorizationpolicies")),
    ("PeerAuthentication", of("security.istio.io", &["v1", "v1beta1"], "peerauthentications")),
    ("RequestAuthentication", of("security.istio.io", &["v1", "v1beta1"], "requestauthentications")),
    ("DestinationRule", of("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "destinationrules")),
    ("VirtualService", of("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "virtualservices")),
    ("Telemetry", of("telemetry.istio.io", &["v1", "v1alpha1"], "telemetries")),
    ("TrafficPolicy", of("ambit.dev", &["v1alpha1"], "trafficpolicies")),
    ("ServiceEntry", of("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "serviceentries")),
    ("WorkloadEntry", of("networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "workloadentries")),
    ("HTTPRoute", of(GATEWAY_API, &["v1", "v1beta1"], "httproutes")),
    ("GRPCRoute", of(GATEWAY_API, &["v1"], "grpcroutes")),
    ("TCPRoute", of(GATEWAY_API, &["v1", "v1alpha2"], "tcproutes")),
    ("TLSRoute", of(GATEWAY_API, &["v1", "v1alpha3", "v1alpha2"], "tlsroutes")),
];
/// Kinds of routes.
pub(crate) const ROUTES: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"];
/// The ConfigMap with the roots: Istio's name for it.
const ROOTS: &str = "istio-ca-root-cert";

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) nodes: Vec<Object>,
    pub(crate) namespaces: Vec<Object>,
    pub(crate) pods: Vec<Object>,
    pub(crate) services: Vec<Object>,
    pub(crate) gateways: Vec<Object>,
    /// By the word in their `kind`.
    pub(crate) policies: BTreeMap<&'static str, Vec<Object>>,
    /// Those about pods that should be in the mesh and are not.
    pub(crate) events: Vec<Object>,
    /// Those of leaders.
    pub(crate) leases: Vec<Object>,
    /// PEM of the roots, as the control plane published them.
    pub(crate) roots: Option<String>,
    /// What may not be read, and the right that is missing.
    pub(crate) missing: Vec<String>,
}

/// Reads all of it. `namespace` is the control plane's.
///
/// # Errors
/// When nobody answers. What is refused is in the answer.
pub(crate) async fn read(client: &Client, namespace: &str) -> Result<Found> {
    let mut found = Found::default();
    let missing = &mut found.missing;
    found.nodes = all(client, Query::all(NODES), missing).await?;
    found.namespaces = all(client, Query::all(NAMESPACES), missing).await?;
    found.pods = all(client, Query::all(PODS), missing).await?;
    found.services = all(client, Query::all(SERVICES), missing).await?;
    found.gateways = all(client, Query::all(GATEWAYS), missing).await?;
    for (kind, resource) in POLICIES {
        found.policies.insert(kind, all(client, Query::all(resource), missing).await?);
    }
    let about_pods = Query { fields: "reason=NotInMesh".to_owned(), ..Query::all(EVENTS) };
    found.events = all(client, about_pods, missing).await?;
    let there = |resource| Query { namespace: Some(namespace.to_owned()), ..Query::all(resource) };
    found.leases = all(client, there(LEASES), missing).await?;
    let roots = Query { fields: format!("metadata.name={ROOTS}"), ..there(CONFIG_MAPS) };
    let maps = all(client, roots, missing).await?;
    found.roots = maps.into_iter().find_map(|mut map| map.data.remove("root-cert.pem"));
    Ok(found)
}

/// As much of it as is about waypoints.
///
/// # Errors
/// When nobody answers. What is refused is in the answer.
pub(crate) async fn waypoints(client: &Client) -> Result<Found> {
    let mut found = Found::default();
    let missing = &mut found.missing;
    found.gateways = all(client, Query::all(GATEWAYS), missing).await?;
    if found.gateways.is_empty() {
        return Ok(found);
    }
    found.namespaces = all(client, Query::all(NAMESPACES), missing).await?;
    found.services = all(client, Query::all(SERVICES), missing).await?;
    let theirs = Query { labels: GATEWAY_NAME.to_owned(), ..Query::all(PODS) };
    found.pods = all(client, theirs, missing).await?;
    for (kind, resource) in POLICIES {
        if matches!(kind, "AuthorizationPolicy" | "RequestAuthentication") || ROUTES.contains(&kind) {
            found.policies.insert(kind, all(client, Query::all(resource), missing).await?);
        }
    }
    Ok(found)
}

async fn all(client: &Client, query: Query, missing: &mut Vec<String>) -> Result<Vec<Object>> {
    match list::<Object>(client, &query).await {
        Ok(objects) => Ok(objects),
        Err(WriteError::Refused { code: 403, .. }) => {
            missing.push(right("list", &query));
            Ok(Vec::new())
        }
        Err(WriteError::Refused { code: 401, .. }) => {
            bail!(
                "the API server does not know who you are (401): the credentials of the kubeconfig have expired, or are another cluster's"
            )
        }
        Err(error) => bail!("{}: {error}", query.resource),
    }
}

/// A right, as a role names it.
pub(crate) fn right(verb: &str, query: &Query) -> String {
    let place = query.namespace.as_ref().map_or("in all namespaces".to_owned(), |n| format!("in namespace {n}"));
    format!("{verb} {} {place}", query.resource)
}
