//! Runs waypoints on a cluster: makes the objects of each Gateway of our classes, and keeps them as they are made.
//!
//! | file | question |
//! |---|---|
//! | this one | when is what made? |
//! | `gateways` | makes what is not there yet for each Gateway |
//! | `objects` | which objects run one? (pure) |
//! | `class` | what do the classes say of themselves? (pure) |
//! | `settings` | how do they run? |
//!
//! All by server-side apply: what others own of these objects (replicas, an autoscaler's for example) stays theirs. The
//! same Gateway always comes to the same objects, so another replica of us, or another life, changes nothing.

mod class;
mod gateways;
mod objects;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mesh_kube::write::{self, WriteError};
use mesh_kube::{Client, Resource};
use mesh_runtime::backoff::Backoff;
use mesh_runtime::timestamp::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use self::gateways::{AGAIN, Gateways};
use self::settings::MANAGER;
pub use self::settings::Settings;
use crate::cluster::Cluster;
use crate::resources::gateway_api::GROUP;
use crate::status::Problems;

const CLASSES: Resource = Resource { group: GROUP, versions: &["v1", "v1beta1"], plural: "gatewayclasses" };
/// Shortest and longest wait before what could not be written is tried again.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How often it is asked whether the API server has Gateway API's kinds now, while it has none.
const KINDS: Duration = Duration::from_secs(10);

/// Makes what `cluster` asks for, now and later, and tells of what it could not make. Never returns while somebody says something.
pub async fn keep(
    client: Client,
    mut cluster: watch::Receiver<Option<Arc<Cluster>>>,
    settings: Settings,
    problems: watch::Sender<Arc<Problems>>,
) {
    let mut gateways = Gateways::new(problems);
    // What each class of ours says of itself: of which object, in which generation.
    let mut said: BTreeMap<String, (Option<String>, Option<i64>)> = BTreeMap::new();
    // When the classes are to be made; None once they are.
    let (mut classes, mut backoff) = (Some(Instant::now()), Backoff::default());
    loop {
        let now = cluster.borrow_and_update().clone();
        let (mut failure, mut has_parameters) = (None, false);
        // A class that somebody has removed, alone or with the kind, comes back.
        if now.as_ref().is_some_and(|now| said.keys().any(|name| now.gateway_class(name).is_none())) {
            said.clear();
            classes = classes.or(Some(Instant::now()));
        }
        if classes.is_some_and(|at| at <= Instant::now()) {
            match self::classes(&client, &settings).await {
                Ok(()) => classes = None,
                // Without the API there are no Gateways.
                Err(error) if error.is_not_found() => classes = Some(Instant::now() + KINDS),
                Err(error) => failure = Some(format!("GatewayClass: {error}")),
            }
        }
        if let Some(cluster) = now {
            let round = gateways.deploy(&client, &cluster, &settings).await;
            (failure, has_parameters) = (round.failure.or(failure), round.has_parameters);
            failure = say(&client, &cluster, &settings, &mut said).await.or(failure);
        }
        let wait = match failure {
            None => {
                backoff.reset();
                let again = classes.map(|at| at.saturating_duration_since(Instant::now()));
                again.into_iter().chain(has_parameters.then_some(AGAIN)).min().unwrap_or(Duration::MAX)
            }
            Some(why) => {
                let longest = if has_parameters { AGAIN } else { WAITS.1 };
                let wait = backoff.next_wait().saturating_mul(10).clamp(WAITS.0, longest);
                tracing::warn!(?wait, "a waypoint is not deployed, and tried again: {why}");
                wait
            }
        };
        tokio::select! {
            changed = cluster.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn classes(client: &Client, settings: &Settings) -> Result<(), WriteError> {
    for name in &settings.classes {
        write::apply(client, (CLASSES, "v1"), ("", name), "", &class::object(name), (MANAGER, false)).await?;
    }
    Ok(())
}

/// Says on the classes of ours what they are, where they do not say it yet. Gives the first failure.
async fn say(
    client: &Client,
    cluster: &Cluster,
    settings: &Settings,
    said: &mut BTreeMap<String, (Option<String>, Option<i64>)>,
) -> Option<String> {
    let mut failure = None;
    for name in &settings.classes {
        let Some(object) = cluster.gateway_class(name).filter(|object| class::is_ours(object)) else {
            said.remove(name);
            continue;
        };
        let state = (object.metadata.uid.clone(), object.metadata.generation);
        if said.get(name) == Some(&state) {
            continue;
        }
        let written = async {
            let there: Value = write::get(client, CLASSES, "", name).await?;
            let now = format!("{:.0}", Timestamp::from(SystemTime::now()));
            let Some(status) = class::status(object, &there, &now) else { return Ok(()) };
            // One of the same name that came since is another object; what somebody wrote meanwhile is not overwritten.
            let metadata = json!({"uid": state.0, "resourceVersion": there["metadata"]["resourceVersion"]});
            let part = json!({"metadata": metadata, "status": status});
            write::merge(client, CLASSES, ("", name), "/status", &part, MANAGER).await
        };
        match written.await {
            Err(error) if !WriteError::is_not_found(&error) => {
                failure = failure.or_else(|| Some(format!("status of GatewayClass {name}: {error}")));
            }
            _ => drop(said.insert(name.clone(), state)),
        }
    }
    failure
}
