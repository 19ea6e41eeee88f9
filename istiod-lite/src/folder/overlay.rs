//! What the cluster says about the user's objects, laid over them: the status that in Kubernetes the scheduler,
//! kubelets and controllers would write. Pure.
//!
//! An overlay object without a base is left out, because the user has deleted it; except Nodes and the ztunnel pods
//! themselves, which users do not write.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};

use crate::resources::{Key, Object};

/// Where ztunnel's own pods live.
const SYSTEM_NAMESPACE: &str = "istio-system";

/// Lays `overlay` over `base`.
pub fn merge(mut base: BTreeMap<Key, Object>, overlay: &BTreeMap<Key, Object>) -> BTreeMap<Key, Object> {
    for (key, over) in overlay {
        match base.get_mut(key) {
            Some(object) => lay_over(object, over),
            None if stands_alone(over) => {
                base.insert(key.clone(), over.clone());
            }
            None => {}
        }
    }
    base
}

fn stands_alone(object: &Object) -> bool {
    match object {
        Object::Node(_) => true,
        Object::Pod(pod) => {
            pod.metadata.namespace.as_deref() == Some(SYSTEM_NAMESPACE)
                && pod.metadata.labels.as_ref().and_then(|l| l.get("app")).is_some_and(|app| app == "ztunnel")
        }
        _ => false,
    }
}

fn lay_over(object: &mut Object, over: &Object) {
    match (object, over) {
        (Object::Pod(base), Object::Pod(over)) => pod(Arc::make_mut(base), over),
        (Object::Service(base), Object::Service(over)) => service(Arc::make_mut(base), over),
        (Object::Node(base), Object::Node(over)) => node(Arc::make_mut(base), over),
        _ => {}
    }
}

fn pod(base: &mut Pod, over: &Pod) {
    let (metadata, from) = (&mut base.metadata, &over.metadata);
    if let Some(annotations) = &from.annotations {
        metadata.annotations.get_or_insert_default().extend(annotations.clone());
    }
    metadata.uid = from.uid.clone().or(metadata.uid.take());
    metadata.deletion_timestamp = from.deletion_timestamp.clone().or(metadata.deletion_timestamp.take());
    if let Some(node) = over.spec.as_ref().and_then(|s| s.node_name.clone()) {
        base.spec.get_or_insert_default().node_name = Some(node);
    }
    if over.status.is_some() {
        base.status = over.status.clone();
    }
}

fn service(base: &mut Service, over: &Service) {
    let Some(from) = &over.spec else { return };
    let spec = base.spec.get_or_insert_default();
    spec.cluster_ip = from.cluster_ip.clone().or(spec.cluster_ip.take());
    spec.cluster_ips = from.cluster_ips.clone().or(spec.cluster_ips.take());
    spec.ip_families = from.ip_families.clone().or(spec.ip_families.take());
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
