//! Nodes that come with a taint, on a real API server and with the rights that the chart gives: a node loses it once its agent is
//! ready and a ztunnel runs there, and loses no other.

use std::collections::BTreeSet;

use super::api_server::ApiServer;
use super::{AUTHORIZATION_POLICIES, OBJECTS, control_plane_with, until_so};

const TAINT: &str = "cni.istio.io/not-ready";

/// Nodes as a cloud makes them. Node `a` is looked at before node `n1`.
const NODES: &str = "
apiVersion: v1
kind: Node
metadata: {name: a}
spec: {taints: [{key: cni.istio.io/not-ready, effect: NoSchedule}]}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
spec:
  taints:
  - {key: cni.istio.io/not-ready, effect: NoSchedule}
  - {key: example.com/own, value: mine, effect: NoSchedule}
  - {key: cni.istio.io/not-ready, value: 'true', effect: NoExecute}
";

fn pod(namespace: &str, name: &str, node: &str, label: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{{label}}}}}\n\
         spec: {{nodeName: {node}, serviceAccountName: ztunnel, containers: [{{name: main, image: x}}]}}\n"
    )
}

/// What a kubelet would say of a pod.
fn says(api: &ApiServer, (namespace, name): (&str, &str), ready: &str) {
    let status =
        format!(r#"{{"status": {{"phase": "Running", "conditions": [{{"type": "Ready", "status": "{ready}"}}]}}}}"#);
    api.kubectl(&["patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", &status], "");
}

fn taints(api: &ApiServer, node: &str) -> BTreeSet<String> {
    let node = api.get("", "node", node);
    let all = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    all.iter().map(|taint| taint["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_loses_its_taint_once_its_agent_is_ready_and_a_ztunnel_runs() {
    let Some(api) = ApiServer::start() else { return };
    let Some(rights) = api.chart_set("rbac", &["taint.enabled=true"]) else { return };
    api.apply(OBJECTS);
    api.apply(NODES);
    api.apply(&api.definition(AUTHORIZATION_POLICIES));
    api.apply(&rights);
    let (agent, ztunnel) = ("k8s-app: istio-cni-node", "app: ztunnel");
    api.apply(
        &[
            pod("istio-system", "agent-a", "a", agent),
            // Anybody can give a pod this label in a namespace of his own.
            pod("shop", "ztunnel-a", "a", ztunnel),
            pod("istio-system", "agent-n1", "n1", agent),
            pod("istio-system", "ztunnel-n1", "n1", ztunnel),
        ]
        .concat(),
    );
    let credentials = api.account("istio-system", "istiod");
    let more = [("PILOT_ENABLE_NODE_UNTAINT_CONTROLLERS", "true"), ("POD_NAMESPACE", "istio-system")];
    let running = control_plane_with(api.files.path(), &credentials, "istiod", &more).await;

    says(&api, ("istio-system", "agent-a"), "True");
    says(&api, ("shop", "ztunnel-a"), "True");
    // It is not ready before it has its control plane.
    says(&api, ("istio-system", "ztunnel-n1"), "False");
    says(&api, ("istio-system", "agent-n1"), "False");
    let before = taints(&api, "n1");
    assert!(before.contains(TAINT) && before.contains("example.com/own"), "{before:?}");
    says(&api, ("istio-system", "agent-n1"), "True");
    let gone = |node: &'static str| {
        let api = &api;
        move || match taints(api, node) {
            taints if taints.contains(TAINT) => Err(format!("{taints:?}")),
            _ => Ok(()),
        }
    };
    until_so("the taint of n1 is gone", gone("n1")).await;
    let rest: BTreeSet<String> = before.into_iter().filter(|key| key != TAINT).collect();
    assert_eq!(taints(&api, "n1"), rest, "others stay");
    assert!(taints(&api, "a").contains(TAINT), "a pod of a user's counts as a ztunnel");

    api.apply(&pod("istio-system", "ztunnel-b", "a", ztunnel));
    says(&api, ("istio-system", "ztunnel-b"), "False");
    until_so("the taint of a is gone", gone("a")).await;
    drop(running);
}
