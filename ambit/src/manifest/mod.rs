//! The user's folder, as far as running pods needs it. How files are read, checked and kept while broken is
//! istiod-lite's to say, so that both read the same.
//!
//! | file | holds |
//! |---|---|
//! | this one | the folder, and reading it again |
//! | `objects` | what it says |
//! | `rejected` | what of it does not count, and why |
pub(crate) mod objects;
pub(crate) mod rejected;

use crate::mesh::waypoints;
use istiod_lite::resources::Object;
use istiod_lite::resources::unread::Unread;
use istiod_lite::source::Origin;
use istiod_lite::source::folder::Folder as Source;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub(crate) use objects::{Key, Objects, pod_key};
pub(crate) use rejected::reason;
pub use rejected::{Position, Rejected};

/// The folder, with what was last good of each object.
pub(crate) struct Folder {
    directory: PathBuf,
    source: Source,
    /// None without a mesh: then nothing is made for Gateways.
    waypoints: Option<waypoints::Settings>,
    /// How many pods each waypoint has, as was last said well.
    sizes: BTreeMap<Key, usize>,
}

impl Folder {
    /// Reads nothing yet.
    pub(crate) fn new(directory: PathBuf, waypoints: Option<waypoints::Settings>) -> Self {
        Folder { source: Source::new(vec![directory.clone()], None), directory, waypoints, sizes: BTreeMap::new() }
    }

    /// Looks at the files again. `None` if nothing changed that matters here.
    pub(crate) fn read(&mut self) -> Option<(Objects, Vec<Rejected>)> {
        let report = self.source.rescan();
        if report.changes.is_empty() && !report.errors_changed {
            return None;
        }
        let (mut objects, mut rejected) = (self.objects(), self.rejected());
        if let Some(settings) = &self.waypoints {
            waypoints::add(&mut objects, settings, &mut self.sizes, &mut rejected);
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
                Object::ConfigMap(o) => drop(all.config_maps.insert((namespace, name), (**o).clone())),
                // The control plane's business.
                Object::ServiceAccount(_)
                | Object::AuthorizationPolicy(_)
                | Object::PeerAuthentication(_)
                | Object::RequestAuthentication(_)
                | Object::GatewayClass(_)
                | Object::HttpRoute(_)
                | Object::GrpcRoute(_)
                | Object::TcpRoute(_)
                | Object::TlsRoute(_)
                | Object::ServiceEntry(_)
                | Object::WorkloadEntry(_)
                | Object::DestinationRule(_)
                | Object::VirtualService(_)
                | Object::Telemetry(_)
                | Object::TrafficPolicy(_) => {}
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
