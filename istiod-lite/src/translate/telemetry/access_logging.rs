//! Which requests have a line in the access log. Providers are told apart as in Istio; all that can be used write the same line to the
//! same place, so there is one line for a request that any of them is to write.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_model::access_log::{AccessLogging, Expression, MOST_FILTERS};
use mesh_model::address::NamespacedName;

use super::layers::{Part, config, layers};
use crate::cluster::attachments::Target;
use crate::resources::Telemetry;
use crate::resources::mesh_config::provider::BUILT_IN_LOG as BUILT_IN;
use crate::resources::mesh_config::{MeshConfig, Provider};
use crate::resources::telemetry as written;
use crate::translate::world::World;

/// What is logged of a service behind a waypoint, for which a Telemetry may have these targets: the least specific last. None:
/// everything, as where nobody has said anything.
pub(crate) fn of_service(
    targets: &[Target],
    waypoint: &NamespacedName,
    world: &World<'_>,
) -> Option<Arc<AccessLogging>> {
    let layers = layers(Part::AccessLogging, targets, waypoint, world);
    if layers.is_empty() {
        return None;
    }
    let config = config(world);
    let layers: Vec<Vec<_>> = layers
        .into_iter()
        .map(|(_, object)| entries(object).filter(|entry| fault_of(entry, config).is_none()).collect())
        .collect();
    let defaults = defaults(config);
    // The most specific that names providers says which there are.
    let named = |entries: &Vec<&'_ written::AccessLogging>| -> Vec<String> {
        entries.iter().flat_map(|entry| &entry.providers).map(|provider| provider.name.clone()).collect()
    };
    let there = layers.iter().rev().map(named).find(|names| !names.is_empty());
    let there = there.unwrap_or_else(|| defaults.iter().map(|name| (*name).to_owned()).collect());
    let is_there = |name: &&str| there.iter().any(|there| there == name);
    let mut writers: BTreeMap<&str, Option<&Expression>> =
        defaults.iter().copied().filter(|name| is_there(name)).map(|name| (name, None)).collect();
    let mut parents = defaults;
    for entry in layers.iter().flatten() {
        if !entry.providers.is_empty() {
            parents = entry.providers.iter().map(|provider| &*provider.name).collect();
        }
        for name in parents.iter().copied().filter(|name| is_there(name)) {
            if entry.disabled == Some(true) {
                writers.remove(name);
                continue;
            }
            let filter = entry.filter.as_ref().map(|filter| &filter.expression);
            // One that names its providers says all of them anew.
            let before = writers.get(name).copied().flatten().filter(|_| entry.providers.is_empty());
            writers.insert(name, filter.or(before));
        }
    }
    let mut filters: Vec<Expression> = Vec::new();
    for filter in writers.into_values() {
        if !filters.contains(filter?) {
            filters.push(filter?.clone());
        }
    }
    (filters.len() <= MOST_FILTERS).then(|| Arc::new(AccessLogging { filters }))
}

/// Those that log requests where no Telemetry names any.
fn defaults(config: Option<&MeshConfig>) -> Vec<&str> {
    let named = config.into_iter().flat_map(|config| &config.access_logging).map(String::as_str);
    let usable: Vec<_> = named.filter(|name| writes(name, config).is_ok()).collect();
    if usable.is_empty() { vec![BUILT_IN] } else { usable }
}

/// What it says of requests that come to a waypoint.
fn entries(object: &Telemetry) -> impl Iterator<Item = &written::AccessLogging> {
    object.spec.access_logging.iter().filter(|entry| entry.is_for_servers())
}

fn writes(name: &str, config: Option<&MeshConfig>) -> Result<(), String> {
    match config.and_then(|config| config.extension_providers.get(name)) {
        Some(Provider::FileAccessLog) => Ok(()),
        None if name == BUILT_IN => Ok(()),
        Some(Provider::Unusable(why)) => Err(format!("the provider {name} cannot be used: {why}")),
        Some(_) => {
            Err(format!("the provider {name} writes no log: name {BUILT_IN}, or one of kind envoyFileAccessLog"))
        }
        None => Err(format!("the mesh configuration has no extensionProvider {name}, and {BUILT_IN} is built in")),
    }
}

fn fault_of(entry: &written::AccessLogging, config: Option<&MeshConfig>) -> Option<String> {
    entry.providers.iter().find_map(|provider| writes(&provider.name, config).err())
}

/// What of it is not followed, since somebody is to write who cannot.
pub(super) fn fault(object: &Telemetry, world: &World<'_>) -> Option<String> {
    let config = config(world);
    let fault = object.spec.access_logging.iter().enumerate().filter(|(_, entry)| entry.is_for_servers());
    let mut faults = fault.filter_map(|(i, entry)| Some((i, fault_of(entry, config)?)));
    faults.next().map(|(i, fault)| format!("accessLogging[{i}] is not followed: {fault}"))
}
