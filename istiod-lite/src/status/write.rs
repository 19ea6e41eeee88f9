//! Writes on the objects of a cluster what became of them: conditions, and an event for what was rejected.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use mesh_kube::write::{self, WriteError};
use mesh_kube::{Client, Resource};
use mesh_runtime::backoff::Backoff;
use mesh_runtime::timestamp::Timestamp;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Status;
use super::attached::{self, Attached};
use super::deployed::Problems;
use super::object::{Metadata, Object, api_version};
use super::{addresses, conditions, gateway, parents, rejected};
use crate::mode::{Mode, Part};
use crate::resources::gateway_api::gateway::REMOTE_CLASS;
use crate::resources::{Key, Kind};
use crate::source::Rejected;
use crate::source::kubernetes::kinds;
use crate::translate::condition::{Condition, ParentStatus, PolicyStatus, WaypointStatus};

/// Who owns what we write.
const MANAGER: &str = "istiod-lite";
const EVENTS: Resource = Resource { group: "events.k8s.io", versions: &["v1"], plural: "events" };
/// Shortest and longest wait before what could not be written is tried again.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What is ours to write on.
#[derive(Clone, Debug, Default)]
pub struct Ours {
    /// Classes of Gateways.
    pub classes: Vec<String>,
    /// Which kinds.
    pub mode: Mode,
}

/// Writes what `status` says, now and later. Never returns while somebody says something.
/// `problems` is what could not be made for Gateways.
pub async fn keep(
    client: Client,
    mut status: watch::Receiver<Arc<Status>>,
    ours: Ours,
    mut problems: watch::Receiver<Arc<Problems>>,
) {
    let mut writer = Writer {
        client,
        ours,
        written: BTreeMap::new(),
        attached: BTreeMap::new(),
        told: BTreeSet::new(),
        addresses: addresses::Written::default(),
    };
    let mut backoff = Backoff::default();
    loop {
        let now = status.borrow_and_update().clone();
        let deployed = problems.borrow_and_update().clone();
        let failures = writer.write(&now, &deployed).await;
        let wait = match failures.first() {
            None => {
                backoff.reset();
                Duration::MAX
            }
            Some(first) => {
                let wait = backoff.next_wait().saturating_mul(10).clamp(WAITS.0, WAITS.1);
                tracing::warn!(failures = failures.len(), ?wait, "status is not written, and tried again: {first}");
                wait
            }
        };
        tokio::select! {
            changed = status.changed() => if changed.is_err() {
                return;
            },
            // Where nobody deploys, nobody says anything.
            Ok(()) = problems.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

struct Writer {
    client: Client,
    /// What each object says of what we have to say.
    written: BTreeMap<Key, Vec<Condition>>,
    ours: Ours,
    /// What each route and Gateway says of what we have to say.
    attached: BTreeMap<Key, Attached<'static>>,
    /// Events of objects that are rejected now.
    told: BTreeSet<String>,
    addresses: addresses::Written,
}

impl Writer {
    /// Writes what is not written yet. Gives what could not be.
    async fn write(&mut self, status: &Status, problems: &Problems) -> Vec<String> {
        // Connections may wait for them.
        let mut failures = match self.ours.mode.does(Part::Addresses) {
            true => self.addresses.write(&self.client, status).await,
            false => Vec::new(),
        };
        let mut wanted = conditions::wanted(status);
        wanted.retain(|key, _| self.ours.mode.does(Part::Status(key.kind)));
        let gone: Vec<Key> = self.written.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        for (key, conditions) in wanted.into_iter().chain(gone.into_iter().map(|key| (key, Vec::new()))) {
            if self.written.get(&key).is_some_and(|written| *written == conditions) {
                continue;
            }
            match self.condition(&key, &conditions).await {
                Err(error) if !error.is_not_found() => failures.push(format!("{key}: {error}")),
                // It is gone, and with it what was on it.
                Ok(()) if !conditions.is_empty() => drop(self.written.insert(key, conditions)),
                _ => drop(self.written.remove(&key)),
            }
        }
        failures.extend(self.attached(status, problems).await);
        let mut told = BTreeSet::new();
        for rejected in &status.rejected {
            let name = event_name(rejected);
            if !self.told.contains(&name)
                && let Err(error) = self.event(&name, rejected).await
            {
                failures.push(format!("event: {error}"));
                continue;
            }
            told.insert(name);
        }
        self.told = told;
        failures
    }

    /// Writes what is not written yet on routes and Gateways. Gives what could not be.
    async fn attached(&mut self, status: &Status, problems: &Problems) -> Vec<String> {
        let mut failures = Vec::new();
        // One whose parents are no Services any more is asked once, for what we wrote on it.
        let wanted = attached::wanted(status, &self.ours.classes, problems);
        self.attached.retain(|key, _| wanted.contains_key(key));
        for (key, wanted) in wanted {
            if self.attached.get(&key) == Some(&wanted) {
                continue;
            }
            let written = match &wanted {
                Attached::Told(told) => match &told.waypoint {
                    Some(waypoint) => self.gateway(&key, told, waypoint).await,
                    None => self.parents(&key, told.generation, |_| told.parents.clone()).await,
                },
                Attached::Rejected(why) if key.kind == Kind::Gateway => self.rejected_gateway(&key, why).await,
                Attached::Rejected(why) => {
                    let of = if key.kind == Kind::TrafficPolicy { rejected::ancestors } else { rejected::parents };
                    self.parents(&key, rejected::generation(why), |refs| of(why, refs)).await
                }
            };
            match written {
                Err(error) if !error.is_not_found() => failures.push(format!("{key}: {error}")),
                _ => drop(self.attached.insert(key, wanted.owned())),
            }
        }
        failures
    }

    async fn gateway(&self, key: &Key, told: &PolicyStatus, waypoint: &WaypointStatus) -> Result<(), WriteError> {
        let there: Value = write::get(&self.client, kinds::resource(key.kind), &key.namespace, &key.name).await?;
        match gateway::status(told, waypoint, &there["status"], &format!("{:.0}", now())) {
            Some(status) => self.gateway_status(key, &there, &status).await,
            None => Ok(()),
        }
    }

    async fn rejected_gateway(&self, key: &Key, why: &Rejected) -> Result<(), WriteError> {
        let there: Value = write::get(&self.client, kinds::resource(key.kind), &key.namespace, &key.name).await?;
        let class = there["spec"]["gatewayClassName"].as_str().unwrap_or_default();
        if !self.ours.classes.iter().any(|ours| ours == class) && !self.is_only_ours(class).await? {
            return Ok(());
        }
        let (conditions, generation) = (rejected::gateway(why), rejected::generation(why));
        match gateway::rejected(&conditions, generation, &there["status"], &format!("{:.0}", now())) {
            Some(status) => self.gateway_status(key, &there, &status).await,
            None => Ok(()),
        }
    }

    /// Whether a class is that of other networks' gateways, and no other controller has it.
    async fn is_only_ours(&self, class: &str) -> Result<bool, WriteError> {
        if class != REMOTE_CLASS || !self.ours.mode.does(Part::Networks) {
            return Ok(false);
        }
        match write::get::<IgnoredAny>(&self.client, kinds::resource(Kind::GatewayClass), "", class).await {
            Err(error) if error.is_not_found() => Ok(true),
            there => there.map(|_| false),
        }
    }

    async fn gateway_status(&self, key: &Key, there: &Value, status: &Value) -> Result<(), WriteError> {
        let resource = kinds::resource(key.kind);
        let object = json!({
            "apiVersion": api_version(resource),
            "kind": key.kind.as_str(),
            "metadata": {"name": &*key.name, "namespace": &*key.namespace, "uid": there["metadata"]["uid"]},
            "status": status,
        });
        let place = (&*key.namespace, &*key.name);
        write::apply(&self.client, (resource, resource.versions[0]), place, "/status", &object, (MANAGER, true)).await
    }

    /// `wanted` is given the route's `spec.parentRefs`, or the policy's `spec.targetRefs`.
    async fn parents(
        &self,
        key: &Key,
        generation: Option<i64>,
        wanted: impl Fn(&[Value]) -> Vec<ParentStatus>,
    ) -> Result<(), WriteError> {
        let resource = kinds::resource(key.kind);
        let there: Object = write::get(&self.client, resource, &key.namespace, &key.name).await?;
        let (refs, list, entries) = match key.kind {
            Kind::TrafficPolicy => {
                (&there.spec.target_refs, "ancestors", (parents::ANCESTOR, &*there.status.ancestors))
            }
            _ => (&there.spec.parent_refs, "parents", (parents::PARENT, &*there.status.parents)),
        };
        let wanted = wanted(refs.as_deref().unwrap_or_default());
        let Some(new) = parents::patch(&wanted, entries, generation, &format!("{:.0}", now())) else {
            return Ok(());
        };
        // Whoever wrote an entry since we looked is not overwritten: that is a conflict, and tried again.
        let Metadata { uid, resource_version } = there.metadata;
        let part = json!({
            "metadata": {"uid": uid, "resourceVersion": resource_version},
            "status": {list: new},
        });
        write::merge(&self.client, resource, (&key.namespace, &key.name), "/status", &part, MANAGER).await
    }

    async fn condition(&self, key: &Key, conditions: &[Condition]) -> Result<(), WriteError> {
        let resource = kinds::resource(key.kind);
        let there: Object = write::get(&self.client, resource, &key.namespace, &key.name).await?;
        let before = self.written.get(key).map(Vec::as_slice).unwrap_or_default();
        let Some(patch) = conditions::patch(conditions, &there.status.conditions, before, &format!("{:.0}", now()))
        else {
            return Ok(());
        };
        let version = resource.versions[0];
        let status = if conditions.is_empty() { json!({}) } else { json!({"conditions": patch}) };
        let object = json!({
            "apiVersion": api_version(resource),
            "kind": key.kind.as_str(),
            // One of the same name that came since is another object.
            "metadata": {"name": &*key.name, "namespace": &*key.namespace, "uid": there.metadata.uid},
            "status": status,
        });
        let place = (&*key.namespace, &*key.name);
        write::apply(&self.client, (resource, version), place, "/status", &object, (MANAGER, true)).await
    }

    /// Says that an object was rejected, where `kubectl describe` finds it.
    async fn event(&self, name: &str, rejected: &Rejected) -> Result<(), WriteError> {
        let kind = kinds::ALL.into_iter().find(|kind| rejected.kind.as_deref() == Some(kind.as_str()));
        let (Some(kind), Some(object)) = (kind, &rejected.name) else { return Ok(()) };
        let namespace = rejected.namespace.as_deref().unwrap_or_default();
        let resource = kinds::resource(kind);
        let there: Object = match write::get(&self.client, resource, namespace, object).await {
            Err(error) if error.is_not_found() => return Ok(()),
            there => there?,
        };
        let place = if namespace.is_empty() { "default" } else { namespace };
        let event = event(name, place, (kind, resource), rejected, &there.metadata.uid);
        match write::create::<IgnoredAny>(&self.client, EVENTS, place, &event).await {
            // Another replica, or another life of us, has said so.
            Err(WriteError::Refused { code: 409, .. }) => Ok(()),
            other => other.map(drop),
        }
    }
}

fn event(name: &str, place: &str, (kind, resource): (Kind, Resource), rejected: &Rejected, uid: &str) -> Value {
    // No longer than an event may say.
    let note: String = rejected.sentence().chars().take(900).collect();
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": place},
        "eventTime": now().to_string(),
        "type": "Warning",
        "reason": "Rejected",
        "action": "Read",
        "note": note,
        "reportingController": MANAGER,
        "reportingInstance": MANAGER,
        "regarding": {
            "apiVersion": api_version(resource), "kind": kind.as_str(), "namespace": rejected.namespace, "name": rejected.name,
            "uid": uid,
        },
    })
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// The same for the same: said once by all replicas together.
fn event_name(rejected: &Rejected) -> String {
    let hash = digest(&SHA256, rejected.to_string().as_bytes());
    let hash: String = hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let name: String = rejected.name.as_deref().unwrap_or_default().chars().take(200).collect();
    format!("{name}.{hash}")
}
