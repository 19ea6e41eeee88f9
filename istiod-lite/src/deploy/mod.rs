//! Runs waypoints on a cluster: makes the objects of each Gateway of our classes, and keeps them as they are made.
//!
//! | file | question |
//! |---|---|
//! | this one | which Gateways, and when? |
//! | `objects` | which objects run one? (pure) |
//! | `settings` | how do they run? |
//!
//! All by server-side apply: what others own of these objects (replicas, an autoscaler's for example) stays theirs. The
//! same Gateway always comes to the same objects, so another replica of us, or another life, changes nothing.

mod objects;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_kube::write::{self, WriteError};
use mesh_kube::{Client, Resource};
use mesh_model::address::NamespacedName;
use mesh_runtime::backoff::Backoff;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::resources::gateway_api::GROUP;

pub use settings::Settings;

/// Who owns what we write.
const MANAGER: &str = "ambit.dev/waypoint-controller";
const CLASSES: Resource = Resource { group: GROUP, versions: &["v1", "v1beta1"], plural: "gatewayclasses" };
/// Shortest and longest wait before what could not be written is tried again.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Makes what `cluster` asks for, now and later. Never returns while somebody says something.
pub async fn keep(client: Client, mut cluster: watch::Receiver<Option<Arc<Cluster>>>, settings: Settings) {
    let mut made: BTreeMap<NamespacedName, Vec<Value>> = BTreeMap::new();
    let (mut has_classes, mut backoff) = (false, Backoff::default());
    loop {
        let now = cluster.borrow_and_update().clone();
        let mut failure = None;
        if !has_classes {
            match self::classes(&client, &settings).await {
                // Without the API there are no Gateways.
                Err(error) if !error.is_not_found() => failure = Some(format!("GatewayClass: {error}")),
                _ => has_classes = true,
            }
        }
        if let Some(cluster) = now {
            failure = deploy(&client, &cluster, &settings, &mut made).await.or(failure);
        }
        let wait = match failure {
            None => {
                backoff.reset();
                Duration::MAX
            }
            Some(why) => {
                let wait = backoff.next_wait().saturating_mul(10).clamp(WAITS.0, WAITS.1);
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
    for class in &settings.classes {
        let object = json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": "GatewayClass",
            "metadata": {"name": class},
            "spec": {"controllerName": MANAGER, "description": "Waypoints of Ambit"},
        });
        write::apply(client, (CLASSES, "v1"), ("", class), "", &object, (MANAGER, false)).await?;
    }
    Ok(())
}

/// Makes what is not made yet. Gives the first failure.
async fn deploy(
    client: &Client,
    cluster: &Cluster,
    settings: &Settings,
    made: &mut BTreeMap<NamespacedName, Vec<Value>>,
) -> Option<String> {
    // Of one that is gone the cluster removes what it owned.
    made.retain(|key, _| cluster.gateway(key).is_some());
    let mut failure = None;
    for (key, gateway) in cluster.gateways() {
        if !settings.classes.contains(&gateway.spec.gateway_class_name) || gateway.is_run_elsewhere() {
            made.remove(key);
            continue;
        }
        let wanted = objects::of(gateway, settings);
        let known = made.get(key).map(Vec::as_slice).unwrap_or_default();
        if known.iter().eq(wanted.iter().map(|(_, object)| object)) {
            continue;
        }
        let mut all = Vec::new();
        for (resource, object) in wanted {
            let place = (&*key.namespace, &*key.name);
            let version = resource.versions[0];
            if let Err(error) = write::apply(client, (resource, version), place, "", &object, (MANAGER, true)).await {
                failure = failure.or_else(|| Some(format!("Gateway {key}: {}: {error}", object["kind"])));
                break;
            }
            all.push(object);
        }
        tracing::info!(gateway = %key, objects = all.len(), "deployed");
        made.insert(key.clone(), all);
    }
    failure
}
