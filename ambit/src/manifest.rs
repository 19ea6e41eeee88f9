//! The user's folder, as far as running pods needs it. How files are read, checked and kept while broken is
//! istiod-lite's to say, so that both read the same.
use istiod_lite::folder::Folder as Source;
use istiod_lite::resources::Object;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

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

/// A part of the folder that does not count, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The file, with line and column where known.
    pub file: String,
    /// What is wrong.
    pub reason: String,
}

/// The folder, with what was last good of each object.
pub(crate) struct Folder {
    directory: PathBuf,
    source: Source,
}

impl Folder {
    /// Reads nothing yet.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Folder { source: Source::new(vec![directory.clone()], None), directory }
    }

    /// Looks at the files again. `None` if nothing changed that matters here.
    pub(crate) fn read(&mut self) -> Option<(Objects, Vec<Rejected>)> {
        let report = self.source.rescan();
        if report.changes.is_empty() && !report.errors_changed {
            return None;
        }
        Some((self.objects(), self.rejected()))
    }

    fn objects(&self) -> Objects {
        let mut all = Objects::default();
        for (key, object) in self.source.objects() {
            let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
            match object {
                Object::Namespace(o) => drop(all.namespaces.insert(name, (**o).clone())),
                Object::Node(o) => drop(all.nodes.insert(name, (**o).clone())),
                Object::Pod(o) => drop(all.pods.insert((namespace, name), (**o).clone())),
                Object::Service(o) => drop(all.services.insert((namespace, name), (**o).clone())),
                Object::EndpointSlice(o) => all.slices.push((**o).clone()),
                // The control plane's business.
                Object::ServiceAccount(_) | Object::AuthorizationPolicy(_) | Object::PeerAuthentication(_) => {}
            }
        }
        all
    }

    fn rejected(&self) -> Vec<Rejected> {
        let relative =
            |file: &std::path::Path| file.strip_prefix(&self.directory).unwrap_or(file).display().to_string();
        let errors = self.source.errors().iter().map(|e| {
            let mut file = relative(&e.file);
            if e.line > 0 {
                file = format!("{file}:{}:{}", e.line, e.column);
            }
            let kept = if e.last_good_kept { " (what was last good keeps serving)" } else { "" };
            let object = match (&e.kind, &e.name) {
                (Some(kind), Some(name)) => format!("{kind} {name}: "),
                _ => String::new(),
            };
            let field = e.field.as_ref().map_or_else(String::new, |f| format!("{f}: "));
            Rejected { file, reason: format!("{object}{field}{}{kept}", e.message) }
        });
        let workloads = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"];
        let skipped =
            self.source.skipped().iter().filter(|s| s.unknown || workloads.iter().any(|w| s.kind.ends_with(w)));
        let skipped = skipped.map(|s| Rejected {
            file: format!("{}:{}", relative(&s.file), s.line),
            reason: if s.unknown {
                format!("{}: nobody here knows this kind", s.kind)
            } else {
                format!("{}: only Pods are run; write the Pods it would make", s.kind)
            },
        });
        errors.chain(skipped).collect()
    }
}

impl Objects {
    /// Labels of a namespace; none if it is not declared.
    pub(crate) fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        self.namespaces.get(namespace).and_then(|n| n.metadata.labels.clone()).unwrap_or_default()
    }
}
