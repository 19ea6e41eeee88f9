//! What the network namespaces of pods say, whatever anybody says of them.
use super::STEP;
use crate::kubernetes::tables;
use anyhow::{Context, Result, bail, ensure};
use e2e::cluster::Cluster;
use e2e::until::until_within;
use serde_json::Value;
use std::fs::File;

/// Where ztunnel listens in every pod that it serves: for what leaves, for what comes in plain text, and for HBONE.
const DOORS: [u16; 3] = [15001, 15006, 15008];

fn all(cluster: &Cluster) -> Result<Vec<Value>> {
    let said = cluster.kubectl(&["-n", "shop", "get", "pods", "-o", "json"])?.good()?;
    let mut list: Value = serde_json::from_str(&said)?;
    match list["items"].take() {
        Value::Array(pods) => Ok(pods),
        other => bail!("no list of pods: {other}"),
    }
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

/// The rules are there: whatever leaves or comes goes to ztunnel, or nowhere.
pub(super) fn captured(netns: &File) -> Result<()> {
    let tables = tables(netns)?;
    ensure!(!tables.is_empty(), "no table of the mesh is in its network namespace");
    Ok(())
}

/// Now, every pod of the namespace that runs is captured.
pub(super) fn never_outside(cluster: &Cluster) -> Result<()> {
    for pod in all(cluster)? {
        let node = pod["spec"]["nodeName"].as_str().context("it is on no node")?;
        let uid = pod["metadata"]["uid"].as_str().context("a pod has a uid")?;
        // What runs in it is more than the process that keeps its namespaces: while it is being connected, nothing does.
        let processes = cluster.processes_of_pod(node, uid)?;
        let Some(one) = processes.iter().find(|p| p.name != "pause") else { continue };
        let Ok(netns) = File::open(format!("/proc/{}/ns/net", one.pid)) else { continue };
        captured(&netns).with_context(|| format!("{} runs outside of the mesh", name(&pod)))?;
    }
    Ok(())
}

/// Every pod of the namespace is ready, captured, served by ztunnel, and says so.
pub(super) fn all_captured(cluster: &Cluster) -> Result<()> {
    never_outside(cluster)?;
    until_within(STEP, "every pod is captured and served", || {
        for pod in all(cluster)? {
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let is_ready = conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
            let annotation = &pod["metadata"]["annotations"]["ambient.istio.io/redirection"];
            ensure!(is_ready && annotation == "enabled", "{}: {annotation}, {}", name(&pod), pod["status"]);
            captured(&cluster.pod_netns("shop", name(&pod))?)?;
            let doors = listening(cluster, name(&pod))?;
            ensure!(DOORS.iter().all(|door| doors.contains(door)), "{}: only {doors:?} are open", name(&pod));
        }
        Ok(())
    })
}

/// The TCP ports that somebody listens at in a pod.
fn listening(cluster: &Cluster, pod: &str) -> Result<Vec<u16>> {
    let process = cluster.pod_processes("shop", pod)?;
    let process = process.first().context("it does not run")?.pid;
    let mut ports = Vec::new();
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
        // sl local_address rem_address st; 0A is LISTEN.
        ports.extend(text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let (local, state) = (words.nth(1)?, words.nth(1)?);
            u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok().filter(|_| state == "0A")
        }));
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

/// Nothing of the pod runs, because the network is refused to it.
pub(super) fn is_held(cluster: &Cluster, pod: &str) -> Result<()> {
    let field = format!("involvedObject.name={pod},reason=FailedCreatePodSandBox");
    let said = cluster.kubectl(&["-n", "shop", "get", "events", "--field-selector", &field, "-o", "yaml"])?.good()?;
    ensure!(said.contains("mesh-cni"), "nobody said that it waits: {said}");
    let status = &cluster.get("shop", "pod", pod)?["status"]["containerStatuses"];
    ensure!(status[0]["state"]["running"].is_null(), "it runs: {status}");
    Ok(())
}
