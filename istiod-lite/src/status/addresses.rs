//! Writes the addresses that were allocated to hosts of ServiceEntries to their `status.addresses`, where the next life of this
//! control plane, and other replicas, read them.

use std::collections::BTreeMap;

use mesh_kube::Client;
use mesh_kube::write::{self, WriteError};
use serde_json::json;

use super::Status;
use super::object::{Object, api_version};
use crate::resources::Key;
use crate::resources::service_entry::HostAddress;
use crate::source::kubernetes::kinds;

/// Who owns them. Conditions have an owner of their own: whoever applies a part of a status lets go of the rest.
const MANAGER: &str = "istiod-lite-addresses";

/// What was written and not read back yet.
#[derive(Default)]
pub(super) struct Written(BTreeMap<Key, Vec<HostAddress>>);

impl Written {
    /// Writes what is not written yet. Gives what could not be.
    pub(super) async fn write(&mut self, client: &Client, status: &Status) -> Vec<String> {
        let asked = status.policies.iter().filter_map(|policy| Some((&policy.key, policy.addresses.as_ref()?)));
        let asked: BTreeMap<&Key, &Vec<HostAddress>> = asked.collect();
        // What an object says as it should is asked of nobody. Said otherwise later, it is written again.
        self.0.retain(|key, written| asked.get(key).is_some_and(|wanted| **wanted == *written));
        let mut failures = Vec::new();
        for (key, wanted) in asked {
            if self.0.contains_key(key) {
                continue;
            }
            match set(client, key, wanted).await {
                Err(error) if !error.is_not_found() => failures.push(format!("addresses of {key}: {error}")),
                _ => drop(self.0.insert(key.clone(), wanted.clone())),
            }
        }
        failures
    }
}

async fn set(client: &Client, key: &Key, wanted: &[HostAddress]) -> Result<(), WriteError> {
    let resource = kinds::resource(key.kind);
    let there: Object = write::get(client, resource, &key.namespace, &key.name).await?;
    // One of the same name that came since is another object.
    let uid = there.metadata.uid;
    let place = (&*key.namespace, &*key.name);
    if wanted.is_empty() {
        // They may be another control plane's, and are nobody's now.
        let part = json!({"metadata": {"uid": uid}, "status": {"addresses": null}});
        return write::merge(client, resource, place, "/status", &part, MANAGER).await;
    }
    let object = json!({
        "apiVersion": api_version(resource),
        "kind": key.kind.as_str(),
        "metadata": {"name": &*key.name, "namespace": &*key.namespace, "uid": uid},
        "status": {"addresses": wanted},
    });
    write::apply(client, (resource, resource.versions[0]), place, "/status", &object, (MANAGER, true)).await?;
    tracing::info!(object = %key, addresses = wanted.len(), "addresses are allocated");
    Ok(())
}
