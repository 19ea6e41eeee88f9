//! What users see on their pods: the annotation that says how far enrolment got, which the control plane reads too, and an
//! event where a pod should be in the mesh and is not, on the pod and on the node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use mesh_kube::write::{self, WriteError};
use mesh_kube::{Client, Resource};
use mesh_model::labels;
use mesh_runtime::timestamp::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::enrolled::States;
use crate::outside::{self, Outside};
use crate::pods::Pod;

const PODS: Resource = Resource::core("pods");
const EVENTS: Resource = Resource::core("events");
/// Where events about nodes are, which have no namespace.
const NODES_EVENTS: &str = "default";
/// Most letters of a message.
const MESSAGE: usize = 1000;
/// Who owns what we write, and says it.
const MANAGER: &str = "node-agent";
/// How long a pod is outside before people are told: what a pod passes through as it starts is no news.
const NEWS: Duration = Duration::from_secs(10);
/// How soon what failed is tried again, and how long a pod's own watch may take to show what was written.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Writes at once.
const AT_ONCE: usize = 16;

/// What the agent says about its pods.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Told {
    pub(crate) states: States,
    pub(crate) outside: Vec<Outside>,
}

/// A pod's annotation that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    uid: String,
    namespace: String,
    name: String,
    value: Option<&'static str>,
}

/// Which annotations are to be changed.
fn changes(pods: &[Pod], states: &States) -> Vec<Change> {
    let change = |pod: &Pod| {
        let value = states.get(&pod.uid)?.redirection.annotation();
        (pod.annotations.get(labels::REDIRECTION).map(String::as_str) != value).then(|| Change {
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            value,
        })
    };
    pods.iter().filter_map(change).collect()
}

/// The JSON merge patch of a change. With the UID, so that it is never another pod's of the same name.
fn patch(change: &Change) -> Value {
    json!({ "metadata": { "uid": change.uid, "annotations": { (labels::REDIRECTION): change.value } } })
}

/// Since when pods are outside, and which of them people were told of.
#[derive(Debug, Default)]
struct News {
    /// By UID and reason.
    since: BTreeMap<(String, &'static str), Instant>,
    told: BTreeSet<(String, &'static str)>,
}

impl News {
    /// Which pods people are to be told of now, and when to look again.
    fn due<'a>(&mut self, outside: &'a [Outside], now: Instant) -> (Vec<&'a Outside>, Option<Instant>) {
        let key = |pod: &Outside| (pod.uid.clone(), pod.why.label());
        let current: BTreeSet<_> = outside.iter().map(key).collect();
        self.since.retain(|key, _| current.contains(key));
        self.told.retain(|key| current.contains(key));
        let (mut due, mut next) = (Vec::new(), None);
        for pod in outside {
            let at = *self.since.entry(key(pod)).or_insert(now) + NEWS;
            if self.told.contains(&key(pod)) {
                continue;
            }
            if at <= now {
                self.told.insert(key(pod));
                due.push(pod);
            } else {
                next = Some(next.map_or(at, |next: Instant| next.min(at)));
            }
        }
        (due, next)
    }
}

/// An event about a pod that is outside.
fn event(pod: &Outside, node: &str, now: Timestamp) -> Value {
    let about =
        json!({ "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid });
    let message = format!("The pod should be in the mesh and is not: {} (to do: {})", pod.detail, pod.why.advice());
    warning((&pod.namespace, &about), "NotInMesh", &message, node, now)
}

/// An event about the node: which of its pods are outside. None, if none is.
fn node_event(outside: &[Outside], node: &str, now: Timestamp) -> Option<Value> {
    // As kubelets name their node in events.
    let about = json!({ "apiVersion": "v1", "kind": "Node", "name": node, "uid": node });
    let message: String = outside::told(outside)?.chars().take(MESSAGE).collect();
    Some(warning((NODES_EVENTS, &about), "PodsNotInMesh", &message, node, now))
}

fn warning((namespace, about): (&str, &Value), reason: &str, message: &str, node: &str, now: Timestamp) -> Value {
    let now = format!("{now:.0}");
    json!({
        "metadata":
            { "generateName": format!("{}.", about["name"].as_str().unwrap_or_default()), "namespace": namespace },
        "involvedObject": about,
        "type": "Warning",
        "reason": reason,
        "message": message,
        "source": { "component": MANAGER, "host": node },
        "reportingComponent": MANAGER,
        "reportingInstance": node,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    })
}

/// Reports until nobody tells any more.
pub(crate) async fn report(
    client: Client,
    node: String,
    mut pods: watch::Receiver<Option<Vec<Pod>>>,
    mut told: watch::Receiver<Told>,
) {
    let mut news = News::default();
    let mut last_error = String::new();
    loop {
        let Told { states, outside } = told.borrow_and_update().clone();
        let list = pods.borrow_and_update().clone().unwrap_or_default();
        let changes = changes(&list, &states);
        let (due, next) = news.due(&outside, Instant::now());
        for pod in &due {
            say(&client, &pod.namespace, &event(pod, &node, SystemTime::now().into())).await;
        }
        if !due.is_empty()
            && let Some(object) = node_event(&outside, &node, SystemTime::now().into())
        {
            say(&client, NODES_EVENTS, &object).await;
        }
        let pending = !changes.is_empty();
        match write_all(&client, changes).await {
            Ok(()) => last_error.clear(),
            Err(error) => {
                let error = error.to_string();
                if error != last_error {
                    tracing::error!(%error, "cannot annotate pods: the control plane does not learn who takes HBONE; will try again");
                    last_error = error;
                }
            }
        }
        let again = pending.then(|| Instant::now() + AGAIN);
        let next = again.into_iter().chain(next).min();
        let wait = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            // What was just written comes back by the watch; until then it would be written once more.
            changed = pods.changed(), if !pending => if changed.is_err() { return },
            () = wait => {}
        }
    }
}

/// Writes an event. Who cannot goes on.
async fn say(client: &Client, namespace: &str, event: &Value) {
    let made = write::create::<serde::de::IgnoredAny>(client, EVENTS, namespace, event);
    if let Ok(Err(error)) = timeout(PATIENCE, made).await {
        let about = &event["involvedObject"];
        let about = format!("{} {namespace}/{}", about["kind"], about["name"]);
        tracing::warn!(about, %error, "cannot write an event");
    }
}

/// Makes the changes, several at once. The last error of those that are worth another try.
async fn write_all(client: &Client, changes: Vec<Change>) -> Result<(), WriteError> {
    let mut writes = JoinSet::new();
    let mut outcome = Ok(());
    let mut done = |ended: Option<Result<Result<(), WriteError>, _>>| match ended {
        // The pod is gone, or another has its name.
        Some(Ok(Err(WriteError::Refused { code: 404 | 409, .. }))) => {}
        Some(Ok(Err(error))) => outcome = Err(error),
        _ => {}
    };
    for change in changes {
        if writes.len() == AT_ONCE {
            done(writes.join_next().await);
        }
        let client = client.clone();
        writes.spawn(async move {
            let patch = patch(&change);
            let patched = write::merge(&client, PODS, (&change.namespace, &change.name), "/status", &patch, MANAGER);
            timeout(PATIENCE, patched)
                .await
                .unwrap_or_else(|_| Err(WriteError::Broken(format!("none within {PATIENCE:?}"))))
        });
    }
    while let Some(ended) = writes.join_next().await {
        done(Some(ended));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrolled::{Enrolled, Redirection};
    use crate::outside::Why;

    #[test]
    fn only_what_is_different_is_written() {
        let pod = |uid: &str, annotation: Option<&str>| Pod {
            uid: uid.into(),
            name: uid.into(),
            namespace: "n".into(),
            annotations: annotation.iter().map(|value| (labels::REDIRECTION.into(), (*value).into())).collect(),
            ..Pod::default()
        };
        for (redirection, has, expected) in [
            (Redirection::Enabled, None, Some(Some("enabled"))),
            (Redirection::Enabled, Some("enabled"), None),
            (Redirection::Enabled, Some("pending"), Some(Some("enabled"))),
            (Redirection::Pending, Some("enabled"), Some(Some("pending"))),
            (Redirection::Disabled, Some("enabled"), Some(None)),
            (Redirection::Disabled, None, None),
            (Redirection::Leaving, Some("enabled"), Some(None)),
        ] {
            let states = [("u".to_owned(), Enrolled { redirection, reason: String::new() })].into();
            let changes = changes(&[pod("u", has), pod("another node's agent", has)], &states);
            let values: Vec<_> = changes.iter().map(|change| change.value).collect();
            assert_eq!(values, Vec::from_iter(expected), "{redirection:?} {has:?}");
        }
        let change = Change { uid: "u".into(), namespace: "n".into(), name: "a".into(), value: None };
        let written = patch(&change).to_string();
        assert_eq!(written, r#"{"metadata":{"annotations":{"ambient.istio.io/redirection":null},"uid":"u"}}"#);
    }

    #[tokio::test]
    async fn people_are_told_once_of_what_lasts() {
        let outside = |uid: &str, why| Outside {
            uid: uid.into(),
            namespace: "n".into(),
            name: uid.into(),
            why,
            detail: "of a reason".into(),
        };
        let (a, b) = (outside("a", Why::NoZtunnel), outside("b", Why::Rules));
        let mut news = News::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut due = |pods: &[Outside], seconds| {
            let (due, next) = news.due(pods, at(seconds));
            (due.iter().map(|pod| pod.uid.clone()).collect::<Vec<_>>(), next)
        };
        let nobody = Vec::<String>::new();
        assert_eq!(due(std::slice::from_ref(&a), 0), (nobody.clone(), Some(at(10))));
        assert_eq!(due(&[a.clone(), b.clone()], 9), (nobody.clone(), Some(at(10))));
        assert_eq!(due(&[a.clone(), b.clone()], 10), (vec!["a".to_owned()], Some(at(19))));
        assert_eq!(due(&[a.clone(), b], 19), (vec!["b".to_owned()], None));
        assert_eq!(due(std::slice::from_ref(&a), 60), (nobody.clone(), None));
        // Another reason is news, and so is the same one after it was well.
        assert_eq!(due(&[outside("a", Why::Refused)], 61), (nobody.clone(), Some(at(71))));
        assert_eq!(due(&[], 62), (nobody.clone(), None));
        assert_eq!(due(&[a], 63), (nobody, Some(at(73))));
    }

    #[test]
    fn an_event_says_what_to_do() {
        let pod = Outside {
            uid: "u".into(),
            namespace: "shop".into(),
            name: "web-0".into(),
            why: Why::NoZtunnel,
            detail: "no ztunnel is connected".into(),
        };
        let event = event(&pod, "n1", (SystemTime::UNIX_EPOCH + Duration::from_secs(5)).into());
        assert_eq!(event["involvedObject"]["uid"], "u");
        assert_eq!(event["firstTimestamp"], "1970-01-01T00:00:05Z");
        let message = event["message"].as_str().unwrap();
        assert!(
            message.contains("no ztunnel is connected") && message.contains("start ztunnel on this node"),
            "{message}"
        );
        // The node's says of all of them what each pod's own does.
        let now = || SystemTime::UNIX_EPOCH.into();
        assert_eq!(node_event(&[], "n1", now()), None);
        let many = vec![pod; 200];
        let event = node_event(&many, "n1", now()).unwrap();
        assert_eq!((&event["involvedObject"]["kind"], &event["involvedObject"]["uid"]), (&"Node".into(), &"n1".into()));
        let message = event["message"].as_str().unwrap();
        assert!(message.starts_with("200 pods should be in the mesh and are not: shop/web-0 because no"), "{message}");
        assert!(message.len() <= MESSAGE, "{message}");
    }
}
