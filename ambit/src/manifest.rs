//! The user's folder, as far as running pods needs it. How files are read, checked and kept while broken is
//! istiod-lite's to say, so that both read the same.
use crate::mesh::waypoints;
use istiod_lite::resources::unread::Unread;
use istiod_lite::resources::{Gateway, Object};
use istiod_lite::source::Origin;
use istiod_lite::source::folder::Folder as Source;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Namespace and name.
pub(crate) type Key = (String, String);

/// `NAMESPACE/NAME`, or a name in the namespace given beside it.
pub(crate) fn pod_key(namespace: &str, pod: &str) -> Key {
    match pod.split_once('/') {
        Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
        None => (namespace.to_owned(), pod.to_owned()),
    }
}

/// What the folder says.
#[derive(Debug, Default, Clone)]
pub(crate) struct Objects {
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    pub(crate) nodes: BTreeMap<String, Node>,
    pub(crate) pods: BTreeMap<Key, Pod>,
    pub(crate) services: BTreeMap<Key, Service>,
    pub(crate) slices: Vec<EndpointSlice>,
    pub(crate) endpoints: Vec<Endpoints>,
    pub(crate) gateways: BTreeMap<Key, Gateway>,
    /// Those of the pods that are waypoints, made for Gateways.
    pub(crate) waypoints: BTreeSet<Key>,
}

/// Where in the folder something is written. Shown as `FILE:LINE:COLUMN`, as far as they are known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Relative to the folder; none if it is about no file.
    pub file: Option<PathBuf>,
    /// The first is 1.
    pub line: Option<usize>,
    /// The first is 1.
    pub column: Option<usize>,
}

impl Position {
    /// Line and column are 0 where they are not known.
    pub(crate) fn new(file: &Path, line: usize, column: usize) -> Self {
        let known = |number| (number > 0).then_some(number);
        Position { file: Some(file.to_owned()), line: known(line), column: known(column) }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.display())?,
            None => f.write_str("-")?,
        }
        [self.line, self.column].into_iter().map_while(|number| number).try_for_each(|number| write!(f, ":{number}"))
    }
}

/// A part of the folder that does not count, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Where it is written.
    #[serde(flatten)]
    pub position: Position,
    /// What is wrong.
    pub reason: String,
    /// It is an object of a kind that is read, and it is refused. (Else it is of a kind that is not, or counts in part.)
    #[serde(default)]
    pub refused: bool,
    /// What was good of it before still counts.
    #[serde(default)]
    pub last_good_kept: bool,
}

impl Rejected {
    /// A note: nothing is refused.
    pub(crate) fn note(position: Position, reason: String) -> Self {
        Rejected { position, reason, refused: false, last_good_kept: false }
    }

    /// The reason, and what becomes of the object.
    pub fn told(&self) -> String {
        let kept = if self.last_good_kept { " (what was last good keeps serving)" } else { "" };
        format!("{}{kept}", self.reason)
    }
}

/// What is wrong with an object, in one line.
pub(crate) fn reason(kind: Option<&str>, name: Option<&str>, field: Option<&str>, message: &str) -> String {
    let object = match (kind, name) {
        (Some(kind), Some(name)) => format!("{kind} {name}: "),
        _ => String::new(),
    };
    let field = field.map_or_else(String::new, |field| format!("{field}: "));
    format!("{object}{field}{message}")
}

/// The folder, with what was last good of each object.
pub(crate) struct Folder {
    directory: PathBuf,
    source: Source,
    /// None without a mesh: then nothing is made for Gateways.
    waypoints: Option<waypoints::Settings>,
}

impl Folder {
    /// Reads nothing yet.
    pub(crate) fn new(directory: PathBuf, waypoints: Option<waypoints::Settings>) -> Self {
        Folder { source: Source::new(vec![directory.clone()], None), directory, waypoints }
    }

    /// Looks at the files again. `None` if nothing changed that matters here.
    pub(crate) fn read(&mut self) -> Option<(Objects, Vec<Rejected>)> {
        let report = self.source.rescan();
        if report.changes.is_empty() && !report.errors_changed {
            return None;
        }
        let (mut objects, mut rejected) = (self.objects(), self.rejected());
        if let Some(settings) = &self.waypoints {
            waypoints::add(&mut objects, settings, &mut rejected);
        }
        Some((objects, rejected))
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
                Object::Endpoints(o) => all.endpoints.push((**o).clone()),
                Object::Gateway(o) => drop(all.gateways.insert((namespace, name), (**o).clone())),
                // The control plane's business.
                Object::ServiceAccount(_)
                | Object::AuthorizationPolicy(_)
                | Object::PeerAuthentication(_)
                | Object::GatewayClass(_)
                | Object::HttpRoute(_)
                | Object::GrpcRoute(_)
                | Object::ServiceEntry(_)
                | Object::WorkloadEntry(_) => {}
            }
        }
        all
    }

    fn rejected(&self) -> Vec<Rejected> {
        let relative = |file: &Path| file.strip_prefix(&self.directory).unwrap_or(file).to_owned();
        let errors = self.source.errors().iter().filter_map(|e| {
            let Origin::File { file, line, column } = &e.origin else { return None };
            Some(Rejected {
                position: Position::new(&relative(file), *line, *column),
                reason: reason(e.kind.as_deref(), e.name.as_deref(), e.field.as_deref(), &e.message),
                refused: true,
                last_good_kept: e.last_good_kept,
            })
        });
        let workloads = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"];
        let skipped = self.source.skipped().iter().filter_map(|s| {
            let why = match s.what {
                Unread::SaysNothing if !workloads.iter().any(|w| s.kind.ends_with(w)) => return None,
                Unread::SaysNothing => "only Pods are run; write the Pods it would make".to_owned(),
                Unread::NotEnforced | Unread::Unknown => s.meaning(),
            };
            let name = s.name.as_deref().unwrap_or_default();
            Some(Rejected::note(Position::new(&relative(&s.file), s.line, 0), format!("{} {name}: {why}", s.kind)))
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
