//! Whether a node is ready for pods: its taint goes then. Pure.

use std::collections::BTreeMap;
use std::fmt;

use mesh_kube::{Event, Meta};
use serde::Deserialize;
use serde_json::{Value, json};

/// The key of the taint, which Istio's users give their nodes; whatever its value and effect are.
pub(super) const TAINT: &str = "cni.istio.io/not-ready";

/// Something that a watch has said, and of which object. None: it cannot be read, and is as if it were not there.
pub(super) type Heard<T> = (Meta, Option<T>);

/// A node, as far as its taints go.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// All of them, as they are.
    pub(super) taints: Vec<Value>,
}

/// A pod of the mesh's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// Its node.
    pub(super) node: String,
    /// Its service account.
    pub(super) account: String,
    /// Its containers run.
    pub(super) runs: bool,
    /// They say that they are ready.
    pub(super) ready: bool,
}

/// What becomes of a node.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// It has no such taint.
    Untainted,
    /// It keeps it.
    Wait(Why),
    /// These taints stay.
    Untaint(Vec<Value>),
}

/// Why a node keeps the taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    NoAgent,
    AgentNotReady,
    NoZtunnel,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAgent => {
                "no node agent is on it (pods labelled k8s-app=istio-cni-node, in the namespace of taint.namespace)"
            }
            Self::AgentNotReady => "its node agent is not ready: see that pod's log",
            Self::NoZtunnel => {
                "no ztunnel runs on it (pods labelled app=ztunnel, of the account that may ask for certificates)"
            }
        })
    }
}

/// Decides. That a ztunnel is ready is not asked: it needs the control plane for that, and its name, which nobody resolves where
/// the cluster's name servers wait for the first node without taint. What has no ztunnel yet is held by its agent.
pub(super) fn verdict(name: &str, node: &Node, agents: &[&Pod], ztunnels: &[&Pod]) -> Verdict {
    let is_ours = |taint: &&Value| taint["key"] == TAINT;
    if !node.taints.iter().any(|taint| is_ours(&taint)) {
        return Verdict::Untainted;
    }
    let mut here = agents.iter().filter(|pod| pod.node == name).peekable();
    if here.peek().is_none() {
        return Verdict::Wait(Why::NoAgent);
    }
    if !here.any(|pod| pod.ready) {
        return Verdict::Wait(Why::AgentNotReady);
    }
    if !ztunnels.iter().any(|pod| pod.node == name && pod.runs) {
        return Verdict::Wait(Why::NoZtunnel);
    }
    Verdict::Untaint(node.taints.iter().filter(|taint| !is_ours(taint)).cloned().collect())
}

/// The JSON merge patch by which these taints stay. It has the whole list, so it holds for this state of this node alone.
pub(super) fn patch(node: &Meta, taints: &[Value]) -> Value {
    let taints = if taints.is_empty() { Value::Null } else { taints.into() };
    json!({"metadata": {"uid": node.uid, "resourceVersion": node.resource_version}, "spec": {"taints": taints}})
}

/// Reads a node.
pub(super) fn node(text: &str) -> Option<Node> {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        spec: Spec,
    }
    #[derive(Default, Deserialize)]
    struct Spec {
        taints: Option<Vec<Value>>,
    }
    let Object { spec } = serde_json::from_str(text).ok()?;
    Some(Node { taints: spec.taints.unwrap_or_default() })
}

/// Reads a pod. One that is on its way out neither runs nor is ready.
pub(super) fn pod(text: &str) -> Option<Pod> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Object {
        metadata: Metadata,
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        deletion_timestamp: Option<String>,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Spec {
        node_name: String,
        service_account_name: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Status {
        phase: String,
        conditions: Option<Vec<Condition>>,
    }
    #[derive(Deserialize)]
    struct Condition {
        r#type: String,
        status: String,
    }
    let Object { metadata, spec, status } = serde_json::from_str(text).ok()?;
    let stays = metadata.deletion_timestamp.is_none();
    let is_ready = |condition: &Condition| condition.r#type == "Ready" && condition.status == "True";
    Some(Pod {
        node: spec.node_name,
        account: spec.service_account_name,
        runs: stays && status.phase == "Running",
        ready: stays && status.conditions.iter().flatten().any(is_ready),
    })
}

/// What a watch has said so far.
#[derive(Debug)]
pub(super) struct Known<T>(Option<BTreeMap<(String, String), (Meta, T)>>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Known<T> {
    /// Takes in what it says.
    pub(super) fn hear(&mut self, event: Event<Heard<T>>) {
        let key = |meta: &Meta| (meta.namespace.clone(), meta.name.clone());
        match event {
            Event::All(all) => {
                let read = all.into_iter().filter_map(|(meta, object)| Some((key(&meta), (meta, object?))));
                self.0 = Some(read.collect());
            }
            Event::Apply((meta, object)) => {
                let known = self.0.get_or_insert_default();
                match object {
                    Some(object) => drop(known.insert(key(&meta), (meta, object))),
                    None => drop(known.remove(&key(&meta))),
                }
            }
            Event::Delete(meta) => drop(self.0.as_mut().and_then(|known| known.remove(&key(&meta)))),
        }
    }

    /// What there is; nothing before it has said everything once.
    pub(super) fn all(&self) -> impl Iterator<Item = &(Meta, T)> {
        self.0.iter().flat_map(BTreeMap::values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, effect: &str) -> Value {
        json!({"key": key, "effect": effect})
    }

    #[test]
    fn a_node_keeps_its_taint_until_agent_and_ztunnel_are_there() {
        let pod = |node: &str, runs, ready| Pod { node: node.into(), account: "ztunnel".into(), runs, ready };
        let (ready, starts, ends) = (pod("n1", true, true), pod("n1", true, false), pod("n1", false, false));
        let elsewhere = pod("n2", true, true);
        let other = taint("node.kubernetes.io/unreachable", "NoExecute");
        let tainted = Node { taints: vec![taint(TAINT, "NoSchedule"), other.clone(), taint(TAINT, "NoExecute")] };
        let free = Node { taints: vec![other.clone()] };
        let untaint = Verdict::Untaint(vec![other]);
        for (name, node, agents, ztunnels, expected) in [
            ("no such taint", &free, &[][..], &[][..], Verdict::Untainted),
            ("nobody is there", &tainted, &[], &[], Verdict::Wait(Why::NoAgent)),
            ("they are elsewhere", &tainted, &[&elsewhere], &[&elsewhere], Verdict::Wait(Why::NoAgent)),
            ("the agent starts", &tainted, &[&elsewhere, &starts], &[&ready], Verdict::Wait(Why::AgentNotReady)),
            ("the agent ends", &tainted, &[&ends], &[&ready], Verdict::Wait(Why::AgentNotReady)),
            ("no ztunnel", &tainted, &[&ready], &[&elsewhere], Verdict::Wait(Why::NoZtunnel)),
            ("ztunnel is not made yet", &tainted, &[&ready], &[&ends], Verdict::Wait(Why::NoZtunnel)),
            ("ztunnel waits for its control plane", &tainted, &[&ready], &[&starts], untaint.clone()),
            ("all is well", &tainted, &[&ready], &[&elsewhere, &ready], untaint.clone()),
            ("one agent takes over from another", &tainted, &[&ends, &ready], &[&ready], untaint),
        ] {
            assert_eq!(verdict("n1", node, agents, ztunnels), expected, "{name}");
        }
    }

    #[test]
    fn what_is_written_is_of_this_state_of_this_node() {
        let meta = Meta { name: "n1".into(), uid: "u".into(), resource_version: "7".into(), ..Meta::default() };
        let expected = |taints: &str| {
            format!(r#"{{"metadata":{{"resourceVersion":"7","uid":"u"}},"spec":{{"taints":{taints}}}}}"#)
        };
        assert_eq!(patch(&meta, &[]).to_string(), expected("null"));
        let rest = [json!({"key": "a"})];
        assert_eq!(patch(&meta, &rest).to_string(), expected(r#"[{"key":"a"}]"#));
    }

    #[test]
    fn as_the_api_server_has_them() {
        let text = r#"{"metadata":{"name":"n1"},"spec":{"podCIDR":"10.0.0.0/24","taints":[{"key":"a","effect":"NoSchedule"}]}}"#;
        assert_eq!(node(text).unwrap().taints, [taint("a", "NoSchedule")]);
        assert_eq!(node(r#"{"metadata":{"name":"n1"}}"#).unwrap().taints, Vec::<Value>::new());
        assert_eq!(node("5"), None);
        let of = |deleted: &str, phase: &str, ready: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"a"{deleted}}},"spec":{{"nodeName":"n1","serviceAccountName":"s"}},
                    "status":{{"phase":"{phase}","conditions":[{{"type":"Initialized","status":"True"}},
                    {{"type":"Ready","status":"{ready}"}}]}}}}"#
            );
            let pod = pod(&text).unwrap();
            assert_eq!((pod.node.as_str(), pod.account.as_str()), ("n1", "s"));
            (pod.runs, pod.ready)
        };
        assert_eq!(of("", "Running", "True"), (true, true));
        assert_eq!(of("", "Running", "False"), (true, false));
        assert_eq!(of("", "Pending", "False"), (false, false));
        assert_eq!(of(r#","deletionTimestamp":"2026-01-01T00:00:00Z""#, "Running", "True"), (false, false));
        let bare = pod(r#"{"metadata":{"name":"a"}}"#).unwrap();
        assert!(bare.node.is_empty() && !bare.runs && !bare.ready);
    }

    #[test]
    fn what_watches_say() {
        let meta = |name: &str| Meta { name: name.into(), ..Meta::default() };
        let mut known = Known::default();
        let all = |known: &Known<u8>| known.all().map(|(meta, value)| (meta.name.clone(), *value)).collect::<Vec<_>>();
        known.hear(Event::All(vec![(meta("a"), Some(1)), (meta("b"), None), (meta("c"), Some(3))]));
        assert_eq!(all(&known), [("a".to_owned(), 1), ("c".to_owned(), 3)]);
        known.hear(Event::Apply((meta("b"), Some(2))));
        known.hear(Event::Apply((meta("a"), None)));
        known.hear(Event::Delete(meta("c")));
        assert_eq!(all(&known), [("b".to_owned(), 2)]);
        known.hear(Event::All(Vec::new()));
        assert!(all(&known).is_empty());
    }
}
