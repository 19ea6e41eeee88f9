//! The roots that proxies trust, in every namespace: a ConfigMap that pods mount.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use mesh_kube::write;
use mesh_kube::{Client, Event, Meta, Query, Raw, Resource, Watch};
use mesh_runtime::backoff::Backoff;
use serde::Deserialize;
use serde_json::json;

use super::material::{Current, ROOT_CERT};

const CONFIG_MAPS: Resource = Resource::core("configmaps");
/// Who owns what we write.
const MANAGER: &str = "istiod-lite";
/// Namespaces that run no pods of users, as Istio has it.
const SKIPPED: [&str; 3] = ["kube-public", "kube-node-lease", "local-path-storage"];
/// Longest wait before what could not be written is tried again.
const LONGEST: Duration = Duration::from_secs(5);

/// Keeps the ConfigMap `name` in every namespace as it should be, whatever the roots are. Never returns.
pub async fn publish(client: Client, name: String, mut material: Current) {
    loop {
        let roots = material.borrow_and_update().roots().to_owned();
        let others = async {
            if material.wait_for(|now| now.roots() != roots).await.is_err() {
                // Nobody changes them any more.
                std::future::pending().await
            }
        };
        tokio::select! {
            () = publish_these(&client, &name, roots.clone()) => return,
            () = others => {}
        }
    }
}

async fn publish_these(client: &Client, name: &str, roots: String) {
    let mut namespaces = Watch::new(client.clone(), Query::all(Resource::core("namespaces")), |raw| namespace(&raw));
    let query = Query { fields: format!("metadata.name={name}"), ..Query::all(CONFIG_MAPS) };
    let right = roots.clone();
    let mut maps = Watch::new(client.clone(), query, move |raw| map(&raw, &right));
    let mut book = Book::default();
    let mut backoff = Backoff::default();
    loop {
        let missing: Vec<String> = book.missing().map(str::to_owned).collect();
        let mut failed = false;
        for namespace in missing {
            match write(client, &namespace, name, &roots).await {
                Ok(()) => book.written(namespace),
                Err(error) => {
                    failed = true;
                    tracing::warn!(namespace, map = name, %error, "the root certificate is not published there");
                }
            }
        }
        let wait = if failed { backoff.next_wait().clamp(Duration::from_millis(500), LONGEST) } else { Duration::MAX };
        tokio::select! {
            event = namespaces.next() => match event {
                Some(event) => book.namespaces(event),
                None => return,
            },
            event = maps.next() => match event {
                Some(event) => book.maps(event),
                None => return,
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn write(client: &Client, namespace: &str, name: &str, roots: &str) -> Result<(), write::WriteError> {
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": {"istio.io/config": "true"}},
        "data": {ROOT_CERT: roots},
    });
    write::apply(client, (CONFIG_MAPS, "v1"), (namespace, name), "", &map, (MANAGER, true)).await
}

/// A namespace, and whether it is to have the map.
fn namespace(raw: &Raw<'_>) -> (String, bool) {
    #[derive(Deserialize)]
    struct Namespace {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        deletion_timestamp: Option<serde::de::IgnoredAny>,
    }
    let ends = serde_json::from_str(raw.text).is_ok_and(|n: Namespace| n.metadata.deletion_timestamp.is_some());
    let name = raw.meta.name.clone();
    let wanted = !ends && !SKIPPED.contains(&name.as_str());
    (name, wanted)
}

/// The namespace of a map, and whether it is as it should be.
fn map(raw: &Raw<'_>, roots: &str) -> (String, bool) {
    let right = serde_json::from_str(raw.text).is_ok_and(|map: ConfigMap| {
        let label = map.metadata.labels.unwrap_or_default().get("istio.io/config").is_some_and(|label| label == "true");
        label && map.data.unwrap_or_default().get(ROOT_CERT).is_some_and(|now| now == roots)
    });
    (raw.meta.namespace.clone(), right)
}

/// Which namespaces there are, and which have the map.
#[derive(Default)]
struct Book {
    /// Whether each is to have it. None: not known yet.
    namespaces: Option<BTreeMap<String, bool>>,
    /// Those that have it as it should be. None: not known yet.
    right: Option<BTreeSet<String>>,
}

impl Book {
    fn namespaces(&mut self, event: Event<(String, bool)>) {
        let known = self.namespaces.get_or_insert_default();
        match event {
            Event::All(all) => *known = all.into_iter().collect(),
            Event::Apply((name, wanted)) => drop(known.insert(name, wanted)),
            Event::Delete(Meta { name, .. }) => drop(known.remove(&name)),
        }
    }

    fn maps(&mut self, event: Event<(String, bool)>) {
        let right = self.right.get_or_insert_default();
        match event {
            Event::All(all) => *right = all.into_iter().filter(|(_, right)| *right).map(|(name, _)| name).collect(),
            Event::Apply((name, true)) => drop(right.insert(name)),
            Event::Apply((namespace, false)) | Event::Delete(Meta { namespace, .. }) => drop(right.remove(&namespace)),
        }
    }

    /// It was written there; the watch says so later.
    fn written(&mut self, namespace: String) {
        self.right.get_or_insert_default().insert(namespace);
    }

    /// Where it is to be written: nowhere before both are known.
    fn missing(&self) -> impl Iterator<Item = &str> {
        let both = self.namespaces.as_ref().zip(self.right.as_ref());
        both.into_iter().flat_map(|(namespaces, right)| {
            let wanted = namespaces.iter().filter(|(name, wanted)| **wanted && !right.contains(*name));
            wanted.map(|(name, _)| name.as_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_where_it_is_missing_or_wrong() {
        let missing = |book: &Book| book.missing().map(str::to_owned).collect::<Vec<_>>();
        let pair = |name: &str, yes| (name.to_owned(), yes);
        let gone =
            |namespace: &str, name: &str| Meta { namespace: namespace.into(), name: name.into(), ..Meta::default() };
        let mut book = Book::default();
        book.namespaces(Event::All(vec![pair("a", true), pair("b", true), pair("c", false)]));
        assert_eq!(missing(&book), Vec::<String>::new(), "nobody knows yet who has it");
        book.maps(Event::All(vec![pair("a", true), pair("b", false), pair("c", false)]));
        assert_eq!(missing(&book), ["b"]);
        book.written("b".to_owned());
        assert_eq!(missing(&book), Vec::<String>::new());
        book.maps(Event::Apply(pair("a", false)));
        book.namespaces(Event::Apply(pair("d", true)));
        assert_eq!(missing(&book), ["a", "d"]);
        book.namespaces(Event::Delete(gone("", "a")));
        book.maps(Event::Apply(pair("d", true)));
        assert_eq!(missing(&book), Vec::<String>::new());
        book.maps(Event::Delete(gone("d", "istio-ca-root-cert")));
        assert_eq!(missing(&book), ["d"]);
    }

    #[test]
    fn what_is_read_of_namespaces_and_maps() {
        let raw = |text: &'static str| {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            Raw { meta: serde_json::from_value(value["metadata"].clone()).unwrap(), text }
        };
        for (text, expected) in [
            (r#"{"metadata": {"name": "shop"}}"#, true),
            (r#"{"metadata": {"name": "shop", "deletionTimestamp": "2026-11-24T00:00:00Z"}}"#, false),
            (r#"{"metadata": {"name": "kube-public"}}"#, false),
        ] {
            assert_eq!(namespace(&raw(text)).1, expected, "{text}");
        }
        for (text, expected) in [
            (
                r#"{"metadata": {"name": "m", "labels": {"istio.io/config": "true"}}, "data": {"root-cert.pem": "R"}}"#,
                true,
            ),
            (
                r#"{"metadata": {"name": "m", "labels": {"istio.io/config": "true"}}, "data": {"root-cert.pem": "S"}}"#,
                false,
            ),
            (r#"{"metadata": {"name": "m"}, "data": {"root-cert.pem": "R"}}"#, false),
            (r#"{"metadata": {"name": "m"}}"#, false),
        ] {
            assert_eq!(map(&raw(text), "R").1, expected, "{text}");
        }
    }
}
