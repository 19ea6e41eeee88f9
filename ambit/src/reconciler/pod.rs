//! One pod of the mesh: what was asked for, what it was given, and its life.
use crate::manifest::Key;
use crate::mesh::held::Told;
use crate::mesh::plugin::Admission;
use crate::net::addressing::Pair;
use crate::pods::life::Life;
use crate::pods::sandbox::Sandbox;
use crate::pods::state::{PodState, StateHandle};
use k8s_openapi::api::core::v1::Pod;
use node_agent::probe_ports::Probed;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A pod that has a place and addresses.
pub(super) struct RunningPod {
    pub(super) key: Key,
    /// As the user wrote it; labels and annotations follow edits.
    pub(super) pod: Pod,
    /// Of its namespace, for as long as the pod is wanted. One that ends is in the mesh to its end, even if its namespace
    /// is removed with it.
    pub(super) namespace_labels: BTreeMap<String, String>,
    pub(super) uid: String,
    /// Index of its node.
    pub(super) node: usize,
    /// Its own address, unless it shares its node's.
    pub(super) pair: Option<Pair>,
    pub(super) ips: Vec<IpAddr>,
    /// The ports that its node dials.
    pub(super) probe_ports: Vec<u16>,
    /// Names its wire.
    pub(super) serial: u64,
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) state: StateHandle,
    /// What its hosts file says at the moment.
    pub(super) hosts: String,
    /// And its `resolv.conf`.
    pub(super) resolv_conf: String,
    pub(super) admission: watch::Sender<Admission>,
    pub(super) created: std::time::SystemTime,
    /// When it was told to end.
    pub(super) deleted: Option<std::time::SystemTime>,
    /// What the control plane was told of it.
    pub(super) told: Told,
    stop: watch::Sender<Option<Duration>>,
    course: Course,
}

enum Course {
    /// Everything is made; it starts once nodes, agents and the control plane know of it.
    Prepared(Box<Life>),
    Living(JoinHandle<()>),
}

impl RunningPod {
    #[allow(clippy::too_many_arguments, reason = "one constructor, one caller")]
    pub(super) fn new(
        key: Key,
        pod: Pod,
        namespace_labels: BTreeMap<String, String>,
        uid: String,
        node: usize,
        pair: Option<Pair>,
        ips: Vec<IpAddr>,
        serial: u64,
        life: Life,
        admission: watch::Sender<Admission>,
        stop: watch::Sender<Option<Duration>>,
    ) -> Self {
        RunningPod {
            key,
            probe_ports: probe_ports(&pod),
            pod,
            namespace_labels,
            uid,
            node,
            pair,
            ips,
            serial,
            sandbox: Arc::clone(&life.pod.sandbox),
            state: life.pod.state.clone(),
            hosts: String::new(),
            resolv_conf: String::new(),
            admission,
            created: std::time::SystemTime::now(),
            deleted: None,
            told: Told::default(),
            stop,
            course: Course::Prepared(Box::new(life)),
        }
    }

    /// How it is.
    pub(super) fn state(&self) -> PodState {
        self.state.get()
    }

    /// It has been told to stop.
    pub(super) fn leaving(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// It has been told to stop and nothing of it runs any more.
    pub(super) fn gone(&self) -> bool {
        self.leaving()
            && match &self.course {
                Course::Prepared(_) => true,
                Course::Living(task) => task.is_finished(),
            }
    }

    /// Lets it start, if it has not.
    pub(super) fn begin(&mut self) {
        if self.leaving() {
            return;
        }
        if let Course::Prepared(_) = self.course {
            let idle = Course::Living(tokio::spawn(std::future::ready(())));
            if let Course::Prepared(life) = std::mem::replace(&mut self.course, idle) {
                let state = self.state.clone();
                self.course = Course::Living(tokio::spawn(async move {
                    life.live().await;
                    // Wakes the reconciler, which then takes the rest away.
                    state.set(|_| ());
                }));
            }
        }
    }

    /// Tells it to stop; its programs may take up to `patience`.
    pub(super) fn leave(&mut self, patience: Duration) {
        self.deleted = Some(std::time::SystemTime::now());
        self.stop.send_replace(Some(patience));
        self.state.set(|_| ());
    }

    /// Tells it to stop and gives the handle to wait for its end.
    pub(super) fn stop(self, patience: Duration) -> Option<JoinHandle<()>> {
        self.stop.send_replace(Some(patience));
        match self.course {
            Course::Prepared(_) => None,
            Course::Living(task) => Some(task),
        }
    }
}

/// The ports that a kubelet dials.
fn probe_ports(pod: &Pod) -> Vec<u16> {
    let spec = serde_json::to_value(&pod.spec).and_then(serde_json::from_value::<Option<Probed>>);
    spec.ok().flatten().unwrap_or_default().ports()
}
