//! Nodes and pods: what is in the mesh, what is not, and why. Pure.
use super::objects::{Map, Object};
use super::status::{Node, Pod};
use mesh_model::labels;
use node_agent::enroll::{Enrolment, Selection, enrolment};
use node_agent::pods::Phase;
use serde::Deserialize as _;
use std::collections::BTreeMap;

/// How a node agent's and a ztunnel's pods are labelled: as Istio's.
const AGENT: (&str, &str) = ("k8s-app", "istio-cni-node");
const ZTUNNEL: (&str, &str) = ("app", "ztunnel");

const READY: &str = "ready";
const NOT_READY: &str = "not ready";
const NONE: &str = "none";

/// The nodes without their pods: whether agent and ztunnel of each are ready.
pub(super) fn nodes(nodes: &[Object], pods: &[Object]) -> Vec<Node> {
    let state = |node: &Object, (label, value): (&str, &str)| {
        let on_it = |pod: &&Object| {
            pod.label(label) == value && pod.spec_text("/nodeName") == node.metadata.name && !has_ended(pod)
        };
        let mut there = pods.iter().filter(on_it).peekable();
        // Two while one takes over from the other.
        match (there.peek().is_some(), there.any(Object::is_ready)) {
            (_, true) => READY,
            (true, false) => NOT_READY,
            (false, false) => NONE,
        }
    };
    let of = |node: &Object| Node {
        name: node.metadata.name.clone(),
        ready: node.is_ready(),
        agent: state(node, AGENT).to_owned(),
        ztunnel: state(node, ZTUNNEL).to_owned(),
        pods_in: 0,
        pods_missing: 0,
    };
    nodes.iter().map(of).collect()
}

/// The pods, counted at their nodes, and what is wrong. `namespace` is the control plane's.
pub(super) fn pods(
    pods: &[Object],
    namespaces: &[Object],
    events: &[Object],
    namespace: &str,
    nodes: &mut [Node],
    problems: &mut Vec<String>,
) -> Vec<Pod> {
    let labels: BTreeMap<&str, &Map> = namespaces.iter().map(|n| (&*n.metadata.name, &n.metadata.labels)).collect();
    let selection = Selection { system_namespace: namespace.to_owned(), ..Selection::default() };
    // The last thing that was said of each.
    let mut news: BTreeMap<&str, (&Option<String>, &str)> = BTreeMap::new();
    for event in events {
        let known = news.entry(&event.involved.uid).or_insert((&event.last, &event.message));
        if *known.0 < event.last {
            *known = (&event.last, &event.message);
        }
    }
    let mut all = Vec::new();
    for object in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let named = as_agents_see_it(object, labels.get(&*object.metadata.namespace).copied());
        let node = object.spec_text("/nodeName");
        let on = nodes.iter().position(|known| known.name == node);
        let news = news.get(&*object.metadata.uid).map(|(_, message)| *message);
        let (mesh, reason) = match enrolment(&named, &selection) {
            decided @ Enrolment::Out(_) => ("no", decided.to_string()),
            decided @ Enrolment::In(_) => standing(object, &decided.to_string(), news, on.map(|on| &nodes[on])),
        };
        let place = object.place();
        if let Some(on) = on {
            nodes[on].pods_in += usize::from(mesh == "yes");
            nodes[on].pods_missing += usize::from(mesh == "missing");
        }
        if mesh == "missing" {
            problems.push(format!("pod {place} should be in the mesh and is not: {reason}"));
        }
        all.push(Pod {
            namespace: object.metadata.namespace.clone(),
            name: object.metadata.name.clone(),
            node: node.to_owned(),
            mesh: mesh.to_owned(),
            reason,
        });
    }
    for node in nodes {
        let wanted = node.pods_in + node.pods_missing > 0;
        for (program, state) in [("node agent", &node.agent), ("ztunnel", &node.ztunnel)] {
            match &**state {
                NOT_READY => problems.push(format!("the {program} of node {} is not ready", node.name)),
                NONE if wanted => problems.push(format!("node {} has pods in the mesh and no {program}", node.name)),
                _ => {}
            }
        }
    }
    all
}

/// A pod that should be in the mesh: whether it is, and why not.
fn standing(pod: &Object, asked: &str, news: Option<&str>, node: Option<&Node>) -> (&'static str, String) {
    let runs = pod.status["phase"] == "Running";
    match pod.metadata.annotations.get(labels::REDIRECTION).map(String::as_str) {
        Some(labels::REDIRECTION_ENABLED) => ("yes", asked.to_owned()),
        _ if !runs => ("pending", "it does not run yet".to_owned()),
        annotation => {
            let why = match (news, node) {
                (_, Some(Node { agent, .. })) if agent != READY => {
                    format!("the node agent beside it is {}", absent(agent))
                }
                (_, Some(Node { ztunnel, .. })) if ztunnel != READY => {
                    format!("the ztunnel beside it is {}", absent(ztunnel))
                }
                (Some(news), _) => news.to_owned(),
                _ if annotation == Some(labels::REDIRECTION_PENDING) => "no ztunnel serves it (yet)".to_owned(),
                _ => "the node agent beside it has not captured it (yet)".to_owned(),
            };
            ("missing", why)
        }
    }
}

fn absent(state: &str) -> &str {
    if state == NONE { "not there" } else { state }
}

fn has_ended(pod: &Object) -> bool {
    matches!(pod.status["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// As much of it as decides whether it is in the mesh, by the same code as on its node.
fn as_agents_see_it(pod: &Object, namespace_labels: Option<&Map>) -> node_agent::pods::Pod {
    node_agent::pods::Pod {
        uid: pod.metadata.uid.clone(),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        labels: pod.metadata.labels.clone(),
        annotations: pod.metadata.annotations.clone(),
        namespace_labels: namespace_labels.cloned().unwrap_or_default(),
        host_network: pod.spec["hostNetwork"] == true,
        phase: Phase::deserialize(&pod.status["phase"]).unwrap_or_default(),
        ..node_agent::pods::Pod::default()
    }
}
