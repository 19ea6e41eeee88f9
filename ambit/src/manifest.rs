//! The user's folder of Kubernetes YAML, as far as running pods needs it. What was last good in a file keeps counting
//! while the file is broken.
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Larger files are refused: nobody writes them by hand.
const LARGEST_FILE: u64 = 4 << 20;

/// Namespace and name.
pub(crate) type Key = (String, String);

/// What the folder says.
#[derive(Debug, Default, Clone)]
pub(crate) struct Objects {
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) pods: BTreeMap<Key, Pod>,
    pub(crate) services: BTreeMap<Key, Service>,
    pub(crate) slices: Vec<EndpointSlice>,
}

/// A file, or a part of one, that does not count, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The file, relative to the folder.
    pub file: String,
    /// Where and why.
    pub reason: String,
}

enum Object {
    Namespace(Namespace),
    Node(Node),
    Pod(Box<Pod>),
    Service(Service),
    EndpointSlice(EndpointSlice),
}

/// The folder, with what was last good in each file.
pub(crate) struct Folder {
    directory: PathBuf,
    good: BTreeMap<PathBuf, Vec<Object>>,
}

impl Folder {
    /// Reads nothing yet.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Folder { directory, good: BTreeMap::new() }
    }

    /// Reads every file again.
    pub(crate) fn read(&mut self) -> (Objects, Vec<Rejected>) {
        let mut rejected = Vec::new();
        let files = match yaml_files(&self.directory) {
            Ok(files) => files,
            Err(e) => {
                // An unreadable folder is not an empty one: what was good keeps counting.
                rejected.push(Rejected { file: ".".into(), reason: format!("cannot list the folder: {e}") });
                return (self.objects(&mut rejected), rejected);
            }
        };
        self.good.retain(|file, _| files.contains(file));
        for file in files {
            let mut notes = Vec::new();
            match read_file(&file, &mut notes) {
                Ok(objects) => {
                    self.good.insert(file.clone(), objects);
                }
                Err(reason) => notes.push(reason),
            }
            let name = file.strip_prefix(&self.directory).unwrap_or(&file).display().to_string();
            rejected.extend(notes.into_iter().map(|reason| Rejected { file: name.clone(), reason }));
        }
        (self.objects(&mut rejected), rejected)
    }

    fn objects(&self, rejected: &mut Vec<Rejected>) -> Objects {
        let mut all = Objects::default();
        for (file, objects) in &self.good {
            for object in objects {
                if let Some(twice) = all.add(object) {
                    let name = file.strip_prefix(&self.directory).unwrap_or(file).display().to_string();
                    rejected
                        .push(Rejected { file: name, reason: format!("{twice} is already defined; the first counts") });
                }
            }
        }
        all
    }
}

impl Objects {
    /// Adds an object; says which if there is one of that name already.
    fn add(&mut self, object: &Object) -> Option<String> {
        fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
            let free = !map.contains_key(&key);
            if free {
                map.insert(key, value);
            }
            free
        }
        let (free, what) = match object {
            Object::Namespace(o) => {
                let name = o.metadata.name.clone().unwrap_or_default();
                (put(&mut self.namespaces, name.clone(), o.clone()), format!("Namespace {name}"))
            }
            Object::Node(o) => {
                let name = o.metadata.name.clone().unwrap_or_default();
                (put(&mut self.nodes, name.clone(), o.clone()), format!("Node {name}"))
            }
            Object::Pod(o) => {
                let key = key(&o.metadata);
                let what = format!("Pod {}/{}", key.0, key.1);
                (put(&mut self.pods, key, (**o).clone()), what)
            }
            Object::Service(o) => {
                let key = key(&o.metadata);
                let what = format!("Service {}/{}", key.0, key.1);
                (put(&mut self.services, key, o.clone()), what)
            }
            Object::EndpointSlice(o) => {
                self.slices.push(o.clone());
                return None;
            }
        };
        (!free).then_some(what)
    }

    /// Labels of a namespace; none if it is not declared.
    pub(crate) fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        self.namespaces.get(namespace).and_then(|n| n.metadata.labels.clone()).unwrap_or_default()
    }
}

fn key(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Key {
    (meta.namespace.clone().unwrap_or_else(|| "default".into()), meta.name.clone().unwrap_or_default())
}

fn yaml_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        if yaml && !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path, notes: &mut Vec<String>) -> Result<Vec<Object>, String> {
    let size = std::fs::metadata(path).map_err(|e| format!("cannot read: {e}"))?.len();
    if size > LARGEST_FILE {
        return Err(format!("is {size} bytes; files up to {LARGEST_FILE} are read"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read: {e}"))?;
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).map_err(|e| e.to_string())?;
    let mut objects = Vec::new();
    for document in documents {
        let items = match document.get("items") {
            Some(serde_json::Value::Array(items)) if document["kind"] == "List" => items.clone(),
            _ => vec![document],
        };
        for item in items {
            objects.extend(object(item, notes)?);
        }
    }
    Ok(objects)
}

fn object(mut value: serde_json::Value, notes: &mut Vec<String>) -> Result<Option<Object>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let text = |v: &serde_json::Value| v.as_str().unwrap_or_default().to_owned();
    let kind = text(&value["kind"]);
    let name = text(&value["metadata"]["name"]);
    let what = format!("{kind} {name}");
    if kind.is_empty() {
        return Err("an object has no `kind`".into());
    }
    if name.is_empty() {
        return Err(format!("{kind}: metadata.name is missing"));
    }
    let namespaced = !matches!(kind.as_str(), "Namespace" | "Node");
    if namespaced && value["metadata"]["namespace"].is_null() {
        value["metadata"]["namespace"] = "default".into();
    }
    fn parse<T: serde::de::DeserializeOwned>(what: &str, value: serde_json::Value) -> Result<T, String> {
        serde_json::from_value(value).map_err(|e| format!("{what}: {e}"))
    }
    Ok(Some(match (text(&value["apiVersion"]).as_str(), kind.as_str()) {
        ("v1", "Namespace") => Object::Namespace(parse(&what, value)?),
        ("v1", "Node") => Object::Node(parse(&what, value)?),
        ("v1", "Pod") => Object::Pod(parse(&what, value)?),
        ("v1", "Service") => Object::Service(parse(&what, value)?),
        ("discovery.k8s.io/v1", "EndpointSlice") => Object::EndpointSlice(parse(&what, value)?),
        ("apps/v1" | "batch/v1", _) => {
            notes.push(format!("{what}: ambit runs Pods only; write the Pods this {kind} would make"));
            return Ok(None);
        }
        // Policies and the like are the control plane's to read.
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_keeps_what_was_good() {
        let dir = std::env::temp_dir().join(format!("ambit-manifest-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("a.yaml");
        std::fs::write(&file, "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\n# nothing\n").unwrap();
        let mut folder = Folder::new(dir.clone());
        let (objects, rejected) = folder.read();
        assert!(objects.pods.contains_key(&("default".into(), "a".into())));
        assert_eq!(rejected, []);

        std::fs::write(&file, "apiVersion: v1\nkind: Pod\nmetadata: {name: [\n").unwrap();
        let (objects, rejected) = folder.read();
        assert_eq!(objects.pods.len(), 1, "the last good pod stays");
        assert_eq!(rejected.len(), 1);
        assert_eq!(rejected[0].file, "a.yaml");

        std::fs::write(&file, "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: 3}\n").unwrap();
        let (objects, rejected) = folder.read();
        assert_eq!(objects.pods.len(), 1);
        assert!(rejected[0].reason.contains("Pod a"), "{rejected:?}");

        std::fs::remove_file(&file).unwrap();
        assert!(folder.read().0.pods.is_empty(), "a removed file takes its objects along");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
