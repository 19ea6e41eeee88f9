//! What is left after Helm has removed all that it made: Istio's kinds and ours, which the charts keep because their objects would go with
//! them, and what the control plane has written. Gateway API's kinds are nobody's of ours, and stay.

use std::fmt;
use std::io::{self, Write as _};

use anyhow::{Context, Result, ensure};
use istiod_lite::resources::traffic_policy;
use istiod_lite::source::kubernetes::kinds;
use mesh_kube::list::list;
use mesh_kube::write::{self, WriteError};
use mesh_kube::{Client, Query, Resource};
use serde::Deserialize;

use super::arguments::{Place, UninstallArgs};
use crate::kubernetes::access::block_on;

const DEFINITIONS: Resource =
    Resource { group: "apiextensions.k8s.io", versions: &["v1"], plural: "customresourcedefinitions" };
const DEPLOYMENTS: Resource = Resource { group: "apps", versions: &["v1"], plural: "deployments" };
const CONFIG_MAPS: Resource = Resource::core("configmaps");
const LEASES: Resource = Resource { group: "coordination.k8s.io", versions: &["v1"], plural: "leases" };
const CLASSES: Resource = Resource { group: "gateway.networking.k8s.io", versions: &["v1"], plural: "gatewayclasses" };
/// What the control plane has written in its own namespace.
const OWN: [(Resource, &str); 2] = [(Resource::core("secrets"), "istio-ca-secret"), (LEASES, "istiod-lite-leader")];
/// And in every namespace.
const ROOTS: &str = "istio-ca-root-cert";

/// What a purge takes away, besides what Helm has made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Kinds that the charts installed, and how many objects there are of each.
    kinds: Vec<(String, usize)>,
}

#[derive(Debug, Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    labels: std::collections::BTreeMap<String, String>,
}

/// What there is to be taken away.
///
/// # Errors
/// When it cannot be told, or another control plane goes on reading it.
pub(super) fn look(args: &UninstallArgs) -> Result<Left> {
    block_on(async {
        let client = args.place.cluster.client().await?;
        let planes: Vec<Object> = labelled(&client, DEPLOYMENTS, "app=istiod").await?;
        let others: Vec<String> = others(&planes, &args.place);
        ensure!(
            others.is_empty(),
            "another control plane goes on reading Istio's kinds: {}. Uninstall it first, or leave --purge out",
            others.join(", ")
        );
        let ours: Vec<Object> = labelled(&client, DEFINITIONS, "app.kubernetes.io/part-of=ambit").await?;
        let mut kinds = Vec::new();
        for resource in kinds::ALL.map(kinds::resource) {
            let name = resource.to_string();
            let goes = resource.group.ends_with(".istio.io") || resource.group == traffic_policy::GROUP;
            if goes && ours.iter().any(|definition| definition.metadata.name == name) {
                let objects: Vec<Object> = labelled(&client, resource, "").await?;
                kinds.push((name, objects.len()));
            }
        }
        Ok(Left { kinds })
    })
}

/// Control planes, ours or Istio's, that are not of the release that goes.
fn others(planes: &[Object], place: &Place) -> Vec<String> {
    let goes = |metadata: &Metadata| {
        metadata.namespace == place.namespace
            && metadata.labels.get("app.kubernetes.io/instance") == Some(&place.release())
    };
    let others = planes.iter().map(|plane| &plane.metadata).filter(|metadata| !goes(metadata));
    others.map(|metadata| format!("{}/{}", metadata.namespace, metadata.name)).collect()
}

async fn labelled(client: &Client, resource: Resource, labels: &str) -> Result<Vec<Object>> {
    let query = Query { labels: labels.to_owned(), ..Query::all(resource) };
    list(client, &query).await.with_context(|| format!("cannot list {resource}"))
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "This removes the mesh, and besides:")?;
        for (kind, count) in &self.kinds {
            writeln!(f, "  the kind {kind}, and all objects of it: {count}")?;
        }
        writeln!(f, "  the mesh's own root, its key and the ConfigMaps {ROOTS} with it")?;
        write!(f, "Gateway API's kinds stay, and what was plugged in as a CA.")
    }
}

/// Asks whoever types.
#[allow(clippy::print_stderr, reason = "a question to the user")]
pub(super) fn confirmed(left: &Left) -> Result<bool> {
    eprint!("{left}\nGo on? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// Takes it away.
///
/// # Errors
/// Names what could not be.
pub(super) fn remove(args: &UninstallArgs, left: &Left) -> Result<()> {
    block_on(async {
        let client = args.place.cluster.client().await?;
        for (kind, _) in &left.kinds {
            delete(&client, DEFINITIONS, "", kind).await?;
        }
        for (resource, name) in OWN {
            delete(&client, resource, &args.place.namespace, name).await?;
        }
        let query = Query { fields: format!("metadata.name={ROOTS}"), ..Query::all(CONFIG_MAPS) };
        let maps: Vec<Object> = list(&client, &query).await.with_context(|| format!("cannot list {ROOTS}"))?;
        for Object { metadata } in maps {
            delete(&client, CONFIG_MAPS, &metadata.namespace, ROOTS).await?;
        }
        delete(&client, CLASSES, "", "ambit-waypoint").await
    })
}

async fn delete(client: &Client, resource: Resource, namespace: &str, name: &str) -> Result<()> {
    match write::delete(client, resource, namespace, name).await {
        // Nothing is what is wanted.
        Err(error) if error.is_not_found() => Ok(()),
        Err(error @ (WriteError::Refused { .. } | WriteError::Broken(_))) => {
            Err(error).with_context(|| format!("cannot delete {resource} {namespace}/{name}"))
        }
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(namespace: &str, name: &str, release: &str) -> Object {
        let labels = [("app.kubernetes.io/instance".to_owned(), release.to_owned())].into();
        Object { metadata: Metadata { name: name.to_owned(), namespace: namespace.to_owned(), labels } }
    }

    #[test]
    fn another_control_plane_keeps_the_kinds() {
        let place = Place {
            cluster: crate::kubernetes::access::Cluster::default(),
            namespace: "istio-system".to_owned(),
            revision: None,
            wait: None,
        };
        let ours = plane("istio-system", "istiod", "ambit");
        let (blue, theirs) = (plane("istio-system", "istiod-blue", "ambit-blue"), plane("mesh", "istiod", "ambit"));
        assert_eq!(others(&[], &place), [""; 0]);
        assert_eq!(others(&[ours], &place), [""; 0]);
        assert_eq!(others(&[blue, theirs], &place), ["istio-system/istiod-blue", "mesh/istiod"]);
    }

    #[test]
    fn what_goes_is_named() {
        let left = Left { kinds: vec![("destinationrules.networking.istio.io".to_owned(), 3)] };
        assert!(left.to_string().contains("destinationrules.networking.istio.io, and all objects of it: 3"), "{left}");
    }
}
