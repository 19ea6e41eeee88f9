//! A VirtualService and a TrafficPolicy on the cluster: let in by the chart's definitions and webhook, followed by a waypoint that runs as a pod,
//! and told.
use super::STEP;
use anyhow::{Result, ensure};
use e2e::cluster::Cluster;
use e2e::until::until_within;

const OBJECTS: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - name: teapot
    match: [{headers: {x-tea: {exact: please}}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: web}}]
  - {name: all, route: [{destination: {host: web}}]}
---
apiVersion: ambit.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: fair, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: web}]
  rateLimits: {local: [{name: each-user, requests: 2, per: 1h, key: {type: Header, header: x-user}}]}
"#;

pub(super) fn by_the_waypoint(cluster: &Cluster) -> Result<()> {
    until_within(STEP, "both are let in", || cluster.apply(OBJECTS))?;
    until_within(STEP, "the VirtualService is followed", || {
        let said = code(cluster, "x-tea: please")?;
        ensure!(said == "418", "{said}");
        Ok(())
    })?;
    until_within(STEP, "a user has asked often enough", || {
        let said = code(cluster, "x-user: greedy")?;
        ensure!(said == "429", "{said}");
        Ok(())
    })?;
    let other = code(cluster, "x-user: modest")?;
    ensure!(other == "200", "another user: {other}");
    for (object, path) in [
        ("virtualservice/web", r"jsonpath={.status.conditions[?(@.type=='WaypointAccepted')].status}"),
        ("trafficpolicy/fair", r"jsonpath={.status.ancestors[0].conditions[?(@.type=='Accepted')].status}"),
    ] {
        until_within(STEP, "its status", || {
            let said = cluster.kubectl(&["-n", "shop", "get", object, "-o", path])?.good()?;
            ensure!(said == "True", "{object}: {said:?}");
            Ok(())
        })?;
        cluster.kubectl(&["-n", "shop", "delete", object])?.good()?;
    }
    until_within(STEP, "nobody counts any more", || {
        let said = code(cluster, "x-user: greedy")?;
        ensure!(said == "200", "{said}");
        Ok(())
    })
}

/// What the client is answered when it asks with this header.
fn code(cluster: &Cluster, header: &str) -> Result<String> {
    let curl =
        ["-n", "shop", "exec", "client", "--", "curl", "-sS", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}"];
    cluster.kubectl(&[&curl[..], &["-H", header, "http://web/passwd"]].concat())?.good()
}
