//! What fails on a cluster, one after the other, while pods call each other without a pause. After each of them, and in the middle, every pod's
//! network namespace is asked: it is captured, or the pod does not run. Nobody is silently outside.
mod load;
mod pods;

use self::load::Load;
use self::pods::{all_captured, captured, is_held, never_outside};
use super::{DAEMONSETS, LIST, NAMESPACE, SHOP, STEP, STRICT, client, install, ip, ready};
use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::command;
use e2e::process;
use e2e::until::until_within;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::process::Command;

/// Requests that have to be answered before something is called well.
const ENOUGH: u64 = 20;

/// Only who is of the accounts that are named may call the shop's server: an answer proves who has asked, and that it came by HBONE.
const ONLY: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/default]}}]}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: other, namespace: shop}
"#;

pub(super) fn whole() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.import_ambit()?;
    story(&cluster).map_err(|e| e.context(cluster.report()))
}

/// One failure, from its beginning to its end, under load.
type Step = fn(&Cluster, &[Load<'_>; 2]) -> Result<()>;

fn story(cluster: &Cluster) -> Result<()> {
    cluster.kubectl(&["create", "namespace", NAMESPACE])?.good()?;
    install(cluster)?;
    cluster.apply(SHOP)?;
    cluster.kubectl(&["label", "namespace", "shop", "istio.io/dataplane-mode=ambient"])?.good()?;
    cluster.apply(STRICT)?;
    cluster.apply(ONLY)?;
    let loads = ["node1", "node2"].map(|node| Load::start(cluster, node));
    let [near, far] = loads;
    let loads = [near?, far?];
    all_captured(cluster)?;
    let steps: [(&str, Step); 9] = [
        ("ztunnel rolled", ztunnel_rolled),
        ("ztunnel killed", ztunnel_killed),
        ("ztunnel away", ztunnel_away),
        ("the agent away", agent_away),
        ("the API server away", api_server_away),
        ("no control plane", no_control_plane),
        ("the leader killed, and all rolled", leader_killed),
        ("an address used again", address_used_again),
        ("a node rebooted", node_rebooted),
    ];
    for (what, step) in steps {
        step(cluster, &loads)
            .and_then(|()| all_captured(cluster))
            .and_then(|()| loads.iter().try_for_each(|load| load.goes_on(ENOUGH)))
            .and_then(|()| nobody_gets_in_in_plain_text(cluster))
            .with_context(|| what.to_owned())?;
    }
    Ok(())
}

/// STRICT is what lets nobody in who is not in the mesh, as long as somebody enforces it.
fn nobody_gets_in_in_plain_text(cluster: &Cluster) -> Result<()> {
    let url = format!("http://{}:8080/passwd", ip(cluster, "web")?);
    let said = cluster.node("node2")?.run(&["curl", "-sS", "-m", "2", &url])?;
    ensure!(said.code != 0, "a process of a node got in: {}", said.stdout);
    Ok(())
}

/// A new one takes over before the old one leaves: no request fails.
fn ztunnel_rolled(cluster: &Cluster, loads: &[Load<'_>; 2]) -> Result<()> {
    let before = loads.each_ref().map(Load::tally);
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", DAEMONSETS[1]])?.good()?;
    ready(cluster, DAEMONSETS[1])?;
    for (load, before) in loads.iter().zip(before) {
        load.flawless_since(&before?, ENOUGH)?;
    }
    Ok(())
}

/// Who dies leaves pods without a door: they wait, and nothing of theirs goes out in plain text.
fn ztunnel_killed(cluster: &Cluster, _: &[Load<'_>; 2]) -> Result<()> {
    let all = cluster.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", "app=ztunnel", "-o", "name"])?.good()?;
    let names: Vec<&str> = all.lines().filter_map(|line| line.strip_prefix("pod/")).collect();
    ensure!(names.len() == 2, "{all}");
    for name in names {
        let processes = cluster.pod_processes(NAMESPACE, name)?;
        let ztunnel = processes.iter().find(|p| p.name != "pause").context("it does not run")?;
        process::signal(ztunnel.pid, Signal::KILL)?;
        never_outside(cluster)?;
        nobody_gets_in_in_plain_text(cluster)?;
    }
    Ok(())
}

/// Nobody serves the pods: none of them talks, also not in plain text, a new one waits, and the nodes say so.
fn ztunnel_away(cluster: &Cluster, _: &[Load<'_>; 2]) -> Result<()> {
    select(cluster, DAEMONSETS[1], json!({"away": "yes"}))?;
    all_gone(cluster, "app=ztunnel")?;
    cluster.apply(&client("doorless"))?;
    until_within(STEP, "the new pod is held", || is_held(cluster, "doorless"))?;
    until_within(STEP, "the node says it", || {
        let of = "involvedObject.kind=Node,involvedObject.name=node2,reason=PodsNotInMesh";
        let said = cluster.kubectl(&["get", "events", "--field-selector", of, "-o", "yaml"])?.good()?;
        ensure!(said.contains("shop/doorless because"), "{said}");
        Ok(())
    })?;
    never_outside(cluster)?;
    nobody_gets_in_in_plain_text(cluster)?;
    select(cluster, DAEMONSETS[1], json!({"away": null}))?;
    ready(cluster, DAEMONSETS[1])?;
    super::reaches(cluster, "doorless")?;
    gone(cluster, "doorless")
}

/// Whoever is captured stays so, and a new pod waits.
fn agent_away(cluster: &Cluster, loads: &[Load<'_>; 2]) -> Result<()> {
    let before = loads.each_ref().map(Load::tally);
    select(cluster, DAEMONSETS[0], json!({"away": "yes"}))?;
    all_gone(cluster, "k8s-app=istio-cni-node")?;
    cluster.apply(&client("waits"))?;
    until_within(STEP, "the new pod is held", || is_held(cluster, "waits"))?;
    never_outside(cluster)?;
    select(cluster, DAEMONSETS[0], json!({"away": null}))?;
    ready(cluster, DAEMONSETS[0])?;
    super::reaches(cluster, "waits")?;
    for (load, before) in loads.iter().zip(before) {
        load.flawless_since(&before?, ENOUGH)?;
    }
    gone(cluster, "waits")
}

/// On which nodes a DaemonSet is.
fn select(cluster: &Cluster, daemonset: &str, nodes: Value) -> Result<()> {
    let patch = json!({"spec": {"template": {"spec": {"nodeSelector": nodes}}}}).to_string();
    cluster.kubectl(&["-n", NAMESPACE, "patch", daemonset, "--type=merge", "-p", &patch])?.good().map(drop)
}

/// Waits until no pod has the label.
fn all_gone(cluster: &Cluster, label: &str) -> Result<()> {
    cluster.kubectl(&["-n", NAMESPACE, "wait", "--for=delete", "pod", "-l", label, "--timeout=100s"])?.good().map(drop)
}

/// What was known is good for as long as it takes, also for an agent that begins anew meanwhile.
fn api_server_away(cluster: &Cluster, loads: &[Load<'_>; 2]) -> Result<()> {
    let before = loads.each_ref().map(Load::tally);
    let agents = cluster.kubectl(&["-n", NAMESPACE, "get", "pods", "-l", "k8s-app=istio-cni-node", "-o", "name"])?;
    let agents = agents.good()?;
    let mut killed = Vec::new();
    for name in agents.lines().filter_map(|line| line.strip_prefix("pod/")) {
        killed.extend(cluster.pod_processes(NAMESPACE, name)?.into_iter().find(|p| p.name != "pause"));
    }
    ensure!(killed.len() == 2, "{agents}");
    let netns = ["web", "load-node1", "load-node2"].map(|pod| cluster.pod_netns("shop", pod));
    cluster.stop_api_server()?;
    for agent in &killed {
        process::signal(agent.pid, Signal::KILL)?;
    }
    for load in loads {
        load.goes_on(100)?;
    }
    let all_still = netns.iter().try_for_each(|netns| match netns {
        Ok(netns) => captured(netns),
        Err(why) => Err(anyhow::anyhow!("{why:#}")),
    });
    cluster.start_api_server()?;
    all_still?;
    for (load, before) in loads.iter().zip(before) {
        load.flawless_since(&before?, ENOUGH)?;
    }
    ready(cluster, DAEMONSETS[0])?;
    // What is new is captured again.
    cluster.apply(&client("after"))?;
    super::reaches(cluster, "after")?;
    gone(cluster, "after")
}

/// Nobody judges policies, so they are refused, and nothing else is; what is there goes on, and a new pod gets no certificate: it waits.
fn no_control_plane(cluster: &Cluster, loads: &[Load<'_>; 2]) -> Result<()> {
    let before = loads.each_ref().map(Load::tally);
    cluster.kubectl(&["-n", NAMESPACE, "scale", "deployment/istiod", "--replicas=0"])?.good()?;
    all_gone(cluster, "app=istiod")?;
    let error = cluster.apply(&STRICT.replace("STRICT", "PERMISSIVE")).err().context("it was let in")?.to_string();
    ensure!(error.contains("failed calling webhook"), "{error}");
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: any, namespace: shop}}")?;
    cluster.apply(&client("early").replace("nodeName: node2", "nodeName: node2, serviceAccountName: other"))?;
    until_within(STEP, "the new pod runs, captured, or is held", || {
        is_held(cluster, "early").or_else(|_| captured(&cluster.pod_netns("shop", "early")?))
    })?;
    never_outside(cluster)?;
    for (load, before) in loads.iter().zip(before) {
        load.flawless_since(&before?, ENOUGH)?;
    }
    cluster.kubectl(&["-n", NAMESPACE, "scale", "deployment/istiod", "--replicas=2"])?.good()?;
    ready(cluster, "deployment/istiod")?;
    until_within(STEP, "policies are judged again", || cluster.apply(STRICT))?;
    gone(cluster, "early")
}

/// The other one writes what is to be written, and a control plane that is replaced is missed by nobody.
fn leader_killed(cluster: &Cluster, loads: &[Load<'_>; 2]) -> Result<()> {
    let before = loads.each_ref().map(Load::tally);
    let lease = cluster.get(NAMESPACE, "lease", "istiod-lite-leader")?;
    let holder = lease["spec"]["holderIdentity"].as_str().context("nobody leads")?;
    let leader = holder.rsplit_once('_').map_or(holder, |(pod, _)| pod);
    let processes = cluster.pod_processes(NAMESPACE, leader)?;
    let istiod = processes.iter().find(|p| p.name != "pause").context("it does not run")?;
    process::signal(istiod.pid, Signal::KILL)?;
    told(cluster, "after-leader")?;
    cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", "deployment/istiod"])?.good()?;
    ready(cluster, "deployment/istiod")?;
    told(cluster, "after-roll")?;
    for (load, before) in loads.iter().zip(before) {
        load.flawless_since(&before?, ENOUGH)?;
    }
    Ok(())
}

/// A policy that is new is followed, and says so.
fn told(cluster: &Cluster, name: &str) -> Result<()> {
    let policy = format!(
        "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: {name}, namespace: shop}}, spec: {{action: DENY, \
         rules: [{{to: [{{operation: {{ports: ['9']}}}}]}}]}}}}"
    );
    until_within(STEP, "a policy is let in", || cluster.apply(&policy))?;
    until_within(STEP, "a policy is told", || {
        let status = &cluster.get("shop", "authorizationpolicy", name)?["status"];
        let condition = &status["conditions"][0];
        ensure!(condition["type"] == "ZtunnelAccepted" && condition["status"] == "True", "{status}");
        Ok(())
    })
}

/// The next pod at an address is nobody but itself: not by the identity of the one before, and not by its policies.
fn address_used_again(cluster: &Cluster, _: &[Load<'_>; 2]) -> Result<()> {
    cluster.apply(&client("first"))?;
    super::reaches(cluster, "first")?;
    let address = ip(cluster, "first")?;
    // There is no other address for the next one.
    let node = cluster.node("node2")?;
    let list = std::fs::read_to_string(node.file(LIST))?;
    let mut narrow: Value = serde_json::from_str(&list)?;
    let range = &mut narrow["plugins"][0]["ipam"]["ranges"][0][0];
    range["rangeStart"] = address.as_str().into();
    range["rangeEnd"] = address.as_str().into();
    node.write(LIST, &narrow.to_string())?;
    let second = client("second").replace("nodeName: node2", "nodeName: node2, serviceAccountName: other");
    cluster.apply(&second)?;
    cluster.kubectl(&["-n", "shop", "delete", "pod", "first", "--force", "--grace-period=0"])?.good()?;
    cluster.kubectl(&["-n", "shop", "wait", "--for=condition=Ready", "pod/second", "--timeout=100s"])?.good()?;
    ensure!(ip(cluster, "second")? == address, "it has another address");
    node.write(LIST, &list)?;
    // Another account at the same address, from its first moment on.
    let url = format!("http://{}:8080/passwd", ip(cluster, "web")?);
    let target = cluster.pod_processes("shop", "second")?.first().context("it does not run")?.pid.to_string();
    for _ in 0..ENOUGH {
        let mut asks = Command::new("nsenter");
        asks.args(["--target", &target, "--net", "--", "curl", "-sS", "-m", "2", &url]);
        let said = command::run(&mut asks, command::LIMIT)?;
        ensure!(said.code != 0, "it is taken for the one before: {}", said.stdout);
    }
    gone(cluster, "second")
}

/// Power is lost: nothing is drained, and the pods are started again before the mesh is there.
fn node_rebooted(cluster: &Cluster, _: &[Load<'_>; 2]) -> Result<()> {
    let before = cluster.get("shop", "pod", "load-node2")?["status"]["containerStatuses"][0]["restartCount"].as_u64();
    cluster.reboot("node2")?;
    until_within(STEP * 2, "its pods run again", || {
        never_outside(cluster)?;
        let pod = cluster.get("shop", "pod", "load-node2")?;
        let now = &pod["status"]["containerStatuses"][0];
        ensure!(now["restartCount"].as_u64() > before && now["ready"] == true, "{now}");
        Ok(())
    })?;
    for daemonset in DAEMONSETS {
        ready(cluster, daemonset)?;
    }
    Ok(())
}

fn gone(cluster: &Cluster, pod: &str) -> Result<()> {
    cluster.kubectl(&["-n", "shop", "delete", "pod", pod, "--grace-period=0", "--force"])?.good().map(drop)
}
