//! From what the API server says to how the mesh is. Pure.
use super::read::Found;
use super::status::ClusterStatus;
use super::waypoints::Around;
use super::{control_plane, pods, policies, waypoints};
use std::time::SystemTime;

/// How the mesh is. `namespace` is the control plane's.
pub(crate) fn view(found: &Found, namespace: &str, now: SystemTime) -> ClusterStatus {
    let mut problems = Vec::new();
    let may_read = |kind: &str| !found.missing.iter().any(|right| right.split(' ').nth(1) == Some(kind));
    let mut control_planes = Vec::new();
    let mut nodes = pods::nodes(&found.nodes, &found.pods);
    // What may not be read is not there, and nothing can be said about what depends on it.
    if may_read("pods") {
        let leases = may_read("leases.coordination.k8s.io").then_some(&*found.leases);
        control_planes = control_plane::replicas(&found.pods, namespace, leases, &mut problems);
    } else {
        nodes.clear();
    }
    let mut roots = Vec::new();
    if may_read("configmaps") {
        roots = control_plane::roots(found.roots.as_deref(), namespace, now, &mut problems);
    }
    let mut all = Vec::new();
    if may_read("namespaces") {
        all = pods::pods(&found.pods, &found.namespaces, &found.events, namespace, &mut nodes, &mut problems);
    }
    let policies = policies::policies(&found.policies, &found.services, &mut problems);
    let around = Around {
        namespaces: &found.namespaces,
        services: &found.services,
        pods: &found.pods,
        policies: &found.policies,
    };
    let mut of_waypoints = Vec::new();
    let waypoints = waypoints::waypoints(&found.gateways, &around, &mut of_waypoints);
    let missing_rights = found.missing.clone();
    if may_read("pods") {
        problems.append(&mut of_waypoints);
    }
    ClusterStatus { problems, missing_rights, control_planes, roots, nodes, pods: all, policies, waypoints }
}

#[cfg(test)]
mod tests;
