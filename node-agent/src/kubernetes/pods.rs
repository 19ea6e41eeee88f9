//! The pods of this node, and the labels of their namespaces, from two watches: the same list that a file says.

use std::collections::BTreeMap;

use mesh_kube::{Client, Event, Query, Raw, Resource, Watch};
use tokio::sync::watch;

use super::objects::{self, Map};
use crate::pods::Pod;

const PODS: Resource = Resource::core("pods");
const NAMESPACES: Resource = Resource::core("namespaces");

/// A namespace and a name.
type Key = (String, String);

/// What both watches have said so far.
#[derive(Debug, Default)]
struct Known {
    /// `None` until a watch has said everything once.
    pods: Option<BTreeMap<Key, Pod>>,
    namespaces: Option<BTreeMap<String, Map>>,
}

impl Known {
    /// Takes in what the watch of pods says. One that cannot be read stays as it was known.
    fn heard_of_pods(&mut self, event: Event<Result<Pod, Key>>) {
        match event {
            Event::All(all) => {
                let mut before = self.pods.take().unwrap_or_default();
                let all = all.into_iter().filter_map(|read| match read {
                    Ok(pod) => Some((key(&pod), pod)),
                    Err(key) => before.remove_entry(&key),
                });
                self.pods = Some(all.collect());
            }
            Event::Apply(Ok(pod)) => {
                if let Some(pods) = &mut self.pods {
                    pods.insert(key(&pod), pod);
                }
            }
            Event::Apply(Err(_)) => {}
            Event::Delete(meta) => {
                if let Some(pods) = &mut self.pods {
                    pods.remove(&(meta.namespace, meta.name));
                }
            }
        }
    }

    /// Takes in what the watch of namespaces says.
    fn heard_of_namespaces(&mut self, event: Event<Option<(String, Map)>>) {
        match event {
            Event::All(all) => self.namespaces = Some(all.into_iter().flatten().collect()),
            Event::Apply(read) => {
                if let (Some(namespaces), Some((name, labels))) = (&mut self.namespaces, read) {
                    namespaces.insert(name, labels);
                }
            }
            Event::Delete(meta) => {
                if let Some(namespaces) = &mut self.namespaces {
                    namespaces.remove(&meta.name);
                }
            }
        }
    }

    /// The list, once both have said everything. A pod is in it when the labels of its namespace are known: without them
    /// nobody can say whether it belongs in the mesh, and a CNI call about it waits.
    fn list(&self) -> Option<Vec<Pod>> {
        let (pods, namespaces) = (self.pods.as_ref()?, self.namespaces.as_ref()?);
        let whole = |pod: &Pod| {
            let labels = namespaces.get(&pod.namespace)?;
            Some(Pod { namespace_labels: labels.clone(), ..pod.clone() })
        };
        Some(pods.values().filter_map(whole).collect())
    }
}

fn key(pod: &Pod) -> Key {
    (pod.namespace.clone(), pod.name.clone())
}

fn read_pod(raw: Raw<'_>) -> Result<Pod, Key> {
    objects::pod(raw.text).map_err(|error| {
        tracing::error!(namespace = raw.meta.namespace, pod = raw.meta.name, %error, "a pod cannot be read and is left as it is");
        (raw.meta.namespace, raw.meta.name)
    })
}

fn read_namespace(raw: Raw<'_>) -> Option<(String, Map)> {
    objects::namespace(raw.text)
        .map_err(|error| tracing::error!(namespace = raw.meta.name, %error, "a namespace cannot be read"))
        .ok()
}

/// Follows the pods of a node until nobody listens. Before both watches have said everything there is `None`.
pub async fn follow(client: Client, node: String, pods: watch::Sender<Option<Vec<Pod>>>) {
    let of_node = Query { fields: format!("spec.nodeName={node}"), ..Query::all(PODS) };
    let mut pod_events = Watch::new(client.clone(), of_node, read_pod);
    let mut namespace_events = Watch::new(client, Query::all(NAMESPACES), read_namespace);
    let mut known = Known::default();
    while !pods.is_closed() {
        tokio::select! {
            event = pod_events.next() => match event {
                Some(event) => known.heard_of_pods(event),
                None => return,
            },
            event = namespace_events.next() => match event {
                Some(event) => known.heard_of_namespaces(event),
                None => return,
            },
        }
        if let Some(list) = known.list() {
            pods.send_if_modified(|last| {
                let different = last.as_ref() != Some(&list);
                *last = Some(list);
                different
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_kube::Meta;

    use super::*;

    fn pod(namespace: &str, name: &str, uid: &str) -> Pod {
        Pod { uid: uid.into(), name: name.into(), namespace: namespace.into(), ..Pod::default() }
    }

    fn labels(value: &str) -> Map {
        [("mode".to_owned(), value.to_owned())].into()
    }

    fn gone(namespace: &str, name: &str) -> Meta {
        Meta { namespace: namespace.into(), name: name.into(), ..Meta::default() }
    }

    /// `uid mode` of each pod in the list.
    fn list(known: &Known) -> Option<Vec<String>> {
        let line = |pod: Pod| format!("{} {}", pod.uid, pod.namespace_labels["mode"]);
        known.list().map(|list| list.into_iter().map(line).collect())
    }

    #[test]
    fn pods_with_their_namespaces() {
        let mut known = Known::default();
        let namespace = |name: &str, value: &str| Some((name.to_owned(), labels(value)));
        known.heard_of_pods(Event::All(vec![Ok(pod("a", "web", "1")), Ok(pod("b", "web", "2"))]));
        assert_eq!(list(&known), None, "half of it is nothing");
        known.heard_of_namespaces(Event::All(vec![namespace("a", "on"), None]));
        assert_eq!(list(&known).unwrap(), ["1 on"], "a namespace that is not known yet");
        known.heard_of_namespaces(Event::Apply(namespace("b", "off")));
        assert_eq!(list(&known).unwrap(), ["1 on", "2 off"]);
        known.heard_of_namespaces(Event::Apply(namespace("b", "on")));
        // Another pod of the same name.
        known.heard_of_pods(Event::Apply(Ok(pod("b", "web", "3"))));
        assert_eq!(list(&known).unwrap(), ["1 on", "3 on"]);
        // What cannot be read stays as it was.
        known.heard_of_pods(Event::Apply(Err(("b".into(), "web".into()))));
        known.heard_of_pods(Event::All(vec![Err(("b".into(), "web".into())), Err(("c".into(), "new".into()))]));
        assert_eq!(list(&known).unwrap(), ["3 on"]);
        known.heard_of_pods(Event::Delete(gone("b", "web")));
        known.heard_of_namespaces(Event::Delete(gone("", "b")));
        assert_eq!(list(&known).unwrap(), Vec::<String>::new());
    }
}
