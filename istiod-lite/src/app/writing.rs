//! What is written to a cluster: by one of our replicas, the leader.

use std::sync::Arc;

use mesh_kube::Client;
use mesh_runtime::drain;
use tokio::sync::watch;

use super::until_drained::until_drained;
use crate::admission;
use crate::ca::material::Current;
use crate::ca::root_map;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::deploy;
use crate::leader::{self, Candidate, LeaderMetrics, while_leading};
use crate::mode::Part;
use crate::status::{self, Status};
use crate::untaint;

/// What it is made of.
pub(super) struct Known {
    pub(super) cluster: watch::Receiver<Option<Arc<Cluster>>>,
    pub(super) status: watch::Receiver<Arc<Status>>,
    pub(super) material: Current,
}

/// Takes part in the election, and writes while we lead.
pub(super) fn begin(client: &Client, config: &Config, known: Known, metrics: LeaderMetrics, drain: &drain::Watch) {
    let leads = watch::Sender::new(false);
    let Known { cluster, status, material } = known;
    let (to, map) = (client.clone(), config.root_map.clone());
    let roots = material.clone();
    // Made once, and never another: whoever reads what waypoints are made of finds it there for good.
    let serving_root = (!config.mesh.mode.does(Part::Certificates)).then(|| material.borrow().roots().to_owned());
    let mode = config.mesh.mode.clone();
    if mode.does(Part::Roots) {
        write(drain, &leads, move || root_map::publish(to.clone(), map.clone(), roots.clone()));
    }
    if let Some(settings) = config.webhook.clone() {
        let to = client.clone();
        write(drain, &leads, move || admission::keep::keep(to.clone(), settings.clone(), material.clone()));
    }
    if let Some(settings) = config.untaint.clone() {
        let to = client.clone();
        write(drain, &leads, move || untaint::keep(to.clone(), settings.clone()));
    }
    let classes = config.waypoints.as_ref().map(|settings| settings.classes.clone()).unwrap_or_default();
    let (problems, told) = watch::channel(Arc::default());
    if let Some(settings) = config.waypoints.clone() {
        let settings = deploy::Settings { serving_root, ..settings };
        let to = client.clone();
        write(drain, &leads, move || deploy::keep(to.clone(), cluster.clone(), settings.clone(), problems.clone()));
    }
    let to = client.clone();
    write(drain, &leads, move || {
        let ours = status::write::Ours { classes: classes.clone(), mode: mode.clone() };
        status::write::keep(to.clone(), status.clone(), ours, told.clone())
    });
    let candidate = Candidate {
        namespace: config.own_namespace.clone(),
        lease: Candidate::lease_of(&config.mesh.revision),
        identity: Candidate::identity_of(&config.pod_name),
    };
    let (client, drain) = (client.clone(), drain.clone());
    tokio::spawn(async move {
        // The next leader need not wait for the lease to expire: the drain waits until it is let go.
        let _token = drain.token();
        leader::run(client, candidate, leads, metrics, drain.started()).await;
    });
}

/// Does `work` whenever we lead, and not while we do not or when the drain has started.
fn write<F: Future<Output = ()> + Send + 'static>(
    drain: &drain::Watch,
    leads: &watch::Sender<bool>,
    work: impl Fn() -> F + Send + Sync + 'static,
) {
    tokio::spawn(until_drained(drain.clone(), while_leading(leads.subscribe(), work)));
}
