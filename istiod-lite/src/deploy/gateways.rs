//! Makes what runs the waypoint of each Gateway, and says of which it could not be made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use mesh_kube::write::{self, WriteError};
use mesh_kube::{Client, Resource};
use mesh_model::address::NamespacedName;
use serde_json::Value;
use tokio::sync::watch;

use super::objects;
use super::settings::{MANAGER, Settings};
use crate::cluster::Cluster;
use crate::resources::Gateway;
use crate::resources::waypoint_parameters::{self as parameters, Parameters};
use crate::status::{Problem, Problems};

/// How often ConfigMaps with parameters are read again, and the API server is asked again for what it has refused, however often
/// anything else changes. ConfigMaps are not watched: that would need the right to list what all namespaces have of them.
pub(super) const AGAIN: Duration = Duration::from_secs(10);

/// What was made, and what could not be.
pub(super) struct Gateways {
    made: BTreeMap<NamespacedName, Vec<Value>>,
    /// Of Gateways that name some: when they were read, of which ConfigMap.
    parameters: BTreeMap<NamespacedName, (Instant, String, Result<Parameters, String>)>,
    /// What was refused, when, and why.
    refused: BTreeMap<NamespacedName, (Instant, Vec<Value>, String)>,
    problems: watch::Sender<Arc<Problems>>,
}

/// What came of one round.
#[derive(Default)]
pub(super) struct Round {
    /// The first failure that may pass when it is tried again.
    pub(super) failure: Option<String>,
    /// There are parameters that may change without a word.
    pub(super) has_parameters: bool,
}

impl Gateways {
    pub(super) fn new(problems: watch::Sender<Arc<Problems>>) -> Self {
        Self { made: BTreeMap::new(), parameters: BTreeMap::new(), refused: BTreeMap::new(), problems }
    }

    /// Makes what is not made yet.
    pub(super) async fn deploy(&mut self, client: &Client, cluster: &Cluster, settings: &Settings) -> Round {
        let ours = |gateway: &Gateway| {
            let class = &gateway.spec.gateway_class_name;
            settings.classes.contains(class)
                && settings.mode.is_ours(class, cluster.gateway_class(class).map(|class| &**class))
                && !gateway.is_run_elsewhere()
        };
        // Of one that is gone the cluster removes what it owned.
        let is_there = |key: &NamespacedName| cluster.gateway(key).is_some_and(|gateway| ours(gateway));
        self.made.retain(|key, _| is_there(key));
        self.parameters.retain(|key, _| is_there(key));
        self.refused.retain(|key, _| is_there(key));
        let (mut round, mut problems) = (Round::default(), Problems::new());
        for (key, gateway) in cluster.gateways().filter(|(_, gateway)| ours(gateway)) {
            round.has_parameters |= gateway.parameters().is_some();
            match self.one(client, key, gateway, settings).await {
                Ok(()) => {}
                Err(Failure::Passing(why)) => round.failure = round.failure.or(Some(format!("Gateway {key}: {why}"))),
                Err(Failure::Refused(why)) => {
                    round.failure = round.failure.or(Some(format!("Gateway {key}: {why}")));
                    problems.insert(key.clone(), Problem { of_parameters: false, message: why });
                }
                Err(Failure::Parameters(message)) => {
                    problems.insert(key.clone(), Problem { of_parameters: true, message });
                }
            }
        }
        self.problems.send_if_modified(|known| {
            let changed = **known != problems;
            for (key, problem) in problems.iter().filter(|(key, problem)| known.get(*key) != Some(*problem)) {
                tracing::warn!(gateway = %key, "the waypoint is not as its Gateway asks: {}", problem.message);
            }
            *known = Arc::new(problems);
            changed
        });
        round
    }

    async fn one(
        &mut self,
        client: &Client,
        key: &NamespacedName,
        gateway: &Gateway,
        settings: &Settings,
    ) -> Result<(), Failure> {
        let parameters = match gateway.parameters() {
            Some(name) => self.parameters(client, key, name).await?,
            None => Parameters::default(),
        };
        let wanted = objects::of(gateway, settings, &parameters);
        let is = |known: &[Value]| known.iter().eq(wanted.iter().map(|(_, object)| object));
        if self.made.get(key).is_some_and(|made| is(made)) {
            return Ok(());
        }
        if let Some((at, refused, why)) = self.refused.get(key)
            && at.elapsed() < AGAIN
            && is(refused)
        {
            return Err(Failure::Refused(why.clone()));
        }
        let uid = gateway.metadata.uid.as_deref().unwrap_or_default();
        let made = make(client, (&key.namespace, &key.name), &wanted, uid).await;
        let wanted = wanted.into_iter().map(|(_, object)| object).collect();
        if let Err(Failure::Refused(why)) = &made {
            self.refused.insert(key.clone(), (Instant::now(), wanted, why.clone()));
        } else if made.is_ok() {
            self.refused.remove(key);
            self.made.insert(key.clone(), wanted);
            tracing::info!(gateway = %key, "deployed");
        }
        made
    }

    /// What the Gateway's ConfigMap says, as it was a moment ago.
    async fn parameters(&mut self, client: &Client, key: &NamespacedName, name: &str) -> Result<Parameters, Failure> {
        let known = self.parameters.get(key).filter(|(at, of, _)| at.elapsed() < AGAIN && of == name);
        let read = match known {
            Some((_, _, read)) => read.clone(),
            None => {
                let read = read(client, &key.namespace, name).await?;
                self.parameters.insert(key.clone(), (Instant::now(), name.to_owned(), read.clone()));
                read
            }
        };
        read.map_err(Failure::Parameters)
    }
}

/// Makes these objects, and removes what is not asked for any more.
async fn make(
    client: &Client,
    place: (&str, &str),
    wanted: &[(Resource, Value)],
    gateway: &str,
) -> Result<(), Failure> {
    for (resource, object) in wanted {
        let version = resource.versions[0];
        let written = write::apply(client, (*resource, version), place, "", object, (MANAGER, true)).await;
        written.map_err(|error| failure(*resource, error))?;
    }
    for resource in objects::OPTIONAL.into_iter().filter(|one| wanted.iter().all(|(wanted, _)| wanted != one)) {
        remove(client, resource, place, gateway).await.map_err(|error| failure(resource, error))?;
    }
    Ok(())
}

/// Why one is not as it should be.
enum Failure {
    /// It may be done when it is tried again.
    Passing(String),
    /// The API server does not take it.
    Refused(String),
    /// What its Gateway names cannot be followed.
    Parameters(String),
}

fn failure(resource: Resource, error: WriteError) -> Failure {
    let (is_passing, why) = (error.is_passing(), format!("{}: {error}", resource.plural));
    if is_passing { Failure::Passing(why) } else { Failure::Refused(why) }
}

/// The parameters, or what is wrong with them.
async fn read(client: &Client, namespace: &str, name: &str) -> Result<Result<Parameters, String>, Failure> {
    const CONFIG_MAPS: Resource = Resource::core("configmaps");
    let named = format!("ConfigMap {name}, which spec.infrastructure.parametersRef names");
    match write::get::<ConfigMap>(client, CONFIG_MAPS, namespace, name).await {
        Ok(map) => Ok(parameters::read(&map.data.unwrap_or_default()).map_err(|error| format!("{named}: {error}"))),
        Err(error) if error.is_not_found() => {
            Ok(Err(format!("there is no {named}: make it in {namespace}, or remove the reference")))
        }
        Err(error) => Err(failure(CONFIG_MAPS, error)),
    }
}

/// Removes what was made for the Gateway in an earlier version of it, or of its parameters, perhaps by another life of ours.
async fn remove(client: &Client, resource: Resource, place: (&str, &str), gateway: &str) -> Result<(), WriteError> {
    let removed = async {
        let there: Value = write::get(client, resource, place.0, place.1).await?;
        let uid = there["metadata"]["uid"].as_str().filter(|_| objects::is_of(&there, gateway));
        match uid {
            Some(uid) => write::delete_one(client, resource, place, uid).await,
            None => Ok(()),
        }
    };
    removed.await.or_else(|error: WriteError| if error.is_not_found() { Ok(()) } else { Err(error) })
}
