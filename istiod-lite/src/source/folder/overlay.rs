//! What the cluster says about the user's objects, laid over them: what in Kubernetes the scheduler, kubelets and
//! controllers would write. Pure.
//!
//! Pods are the cluster's altogether: under an overlay they are those of the overlay and no others. A Pod that the user
//! has just written does not run yet, and one whose document is gone stays, with `deletionTimestamp`, until its program
//! has ended. A Service that the user has deleted stays for as long as the overlay has it: while nodes translate its
//! address, proxies must know it, or they would take it for one outside of the mesh. Of other kinds an overlay object
//! without a base is left out, because the user has deleted it; except Nodes, which users need not write.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service};

use crate::resources::{Key, Kind, Object};

/// Lays `overlay` over `base`.
pub fn merge(mut base: BTreeMap<Key, Object>, overlay: &BTreeMap<Key, Object>) -> BTreeMap<Key, Object> {
    base.retain(|key, _| key.kind != Kind::Pod);
    for (key, over) in overlay {
        match base.get_mut(key) {
            Some(object) => lay_over(object, over),
            None if matches!(over, Object::Node(_) | Object::Pod(_) | Object::Service(_)) => {
                base.insert(key.clone(), over.clone());
            }
            None => {}
        }
    }
    base
}

fn lay_over(object: &mut Object, over: &Object) {
    match (object, over) {
        (Object::Service(base), Object::Service(over)) => service(Arc::make_mut(base), over),
        (Object::Node(base), Object::Node(over)) => node(Arc::make_mut(base), over),
        // Whoever makes the tokens says of which account they are.
        (Object::ServiceAccount(base), Object::ServiceAccount(over)) => {
            let base = &mut Arc::make_mut(base).metadata;
            base.uid = over.metadata.uid.clone().or(base.uid.take());
        }
        _ => {}
    }
}

fn service(base: &mut Service, over: &Service) {
    let Some(from) = &over.spec else { return };
    let spec = base.spec.get_or_insert_default();
    spec.cluster_ip = from.cluster_ip.clone().or(spec.cluster_ip.take());
    spec.cluster_ips = from.cluster_ips.clone().or(spec.cluster_ips.take());
    spec.ip_families = from.ip_families.clone().or(spec.ip_families.take());
    // Whoever waits for it to be held asks for this version.
    base.metadata.resource_version = over.metadata.resource_version.clone().or(base.metadata.resource_version.take());
    base.metadata.uid = over.metadata.uid.clone().or(base.metadata.uid.take());
}

fn node(base: &mut Node, over: &Node) {
    // The user's labels win: they are what locality is tried out with.
    let mut labels = over.metadata.labels.clone().unwrap_or_default();
    labels.extend(base.metadata.labels.take().unwrap_or_default());
    base.metadata.labels = Some(labels);
    base.metadata.uid = over.metadata.uid.clone().or(base.metadata.uid.take());
    if over.status.is_some() {
        base.status = over.status.clone();
    }
}
