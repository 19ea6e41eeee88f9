//! backendRef → where it points.

use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::route::BackendTarget;

use super::names;
use super::service_spec::{has_port, is_external_name};
use super::world::World;
use crate::cluster::attachments::backend;
use crate::resources::gateway_api::backend_ref::{BackendRef, ISTIO};
use crate::resources::service_entry::Resolution;
use crate::resources::{ServiceEntry, host};

/// Where a backendRef points. Other namespaces are open to a mesh's routes: who may be dialled is said by policies, not by
/// routes (GEP-1294).
pub(super) fn target(written: &BackendRef, namespace: &str, world: &World<'_>) -> BackendTarget {
    match resolve(written, namespace, world) {
        Ok(target) => target,
        Err((_, why)) => BackendTarget::Invalid(why.into()),
    }
}

/// The same, or the Gateway API's reason and ours.
pub(super) fn resolve(
    written: &BackendRef,
    namespace: &str,
    world: &World<'_>,
) -> Result<BackendTarget, (&'static str, String)> {
    if written.is_hostname()
        && let Some(entry) = entry_of(&host::normal(&written.name), namespace, world)
    {
        return of_entry(written, entry);
    }
    let named = backend(written, namespace);
    // By its hostname, which has to end with the cluster's domain.
    let own = |name: &NamespacedName| *names::hostname(name, world.mesh).name == *host::normal(&written.name);
    let Some(name) = named.filter(|name| !written.is_hostname() || own(name)) else {
        if written.is_hostname() {
            let why = format!("no ServiceEntry that {namespace} sees, and no Service, has the host {}", written.name);
            return Err(("BackendNotFound", why));
        }
        let (group, kind) = (written.group(), written.kind());
        let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        return Err((
            "InvalidKind",
            format!("a {kind} is no backend here: name a Service, or a host by kind Hostname of {ISTIO}"),
        ));
    };
    let Some(service) = world.cluster.service(&name) else {
        return Err(("BackendNotFound", format!("there is no Service {name}")));
    };
    if is_external_name(service) {
        let why = format!("the Service {name} is of type ExternalName: a waypoint dials no names");
        return Err(("UnsupportedValue", why));
    }
    match written.port.and_then(|port| u16::try_from(port).ok()).filter(|port| has_port(service, *port)) {
        Some(port) => Ok(BackendTarget::Service(names::service(service, world.mesh), port)),
        None => {
            let port = written.port.unwrap_or_default();
            Err(("BackendNotFound", format!("the Service {name} has no TCP port {port}")))
        }
    }
}

/// The ServiceEntry whose host a name is, as a namespace sees it: its own first.
fn entry_of<'a>(name: &str, namespace: &str, world: &World<'a>) -> Option<(&'a NamespacedName, &'a ServiceEntry)> {
    let has = |(_, entry): &(&NamespacedName, &Arc<ServiceEntry>)| {
        entry.spec.hosts.iter().any(|own| *host::normal(own) == *name)
    };
    let oldest = |(a, one): &(&NamespacedName, &Arc<ServiceEntry>),
                  (b, other): &(&NamespacedName, &Arc<ServiceEntry>)| {
        let age = |entry: &ServiceEntry| entry.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (age(one).is_none(), age(one), *a).cmp(&(age(other).is_none(), age(other), *b))
    };
    let own = world.cluster.service_entries_in(namespace).filter(has).min_by(oldest);
    let shown = |(_, entry): &(&NamespacedName, &Arc<ServiceEntry>)| {
        let to = &entry.spec.export_to;
        to.is_empty() || to.iter().any(|to| to == "*" || to == namespace)
    };
    let found = own.or_else(|| world.cluster.service_entries().filter(|one| has(one) && shown(one)).min_by(oldest));
    found.map(|(key, entry)| (key, &**entry))
}

fn of_entry(
    written: &BackendRef,
    (key, entry): (&NamespacedName, &ServiceEntry),
) -> Result<BackendTarget, (&'static str, String)> {
    if entry.spec.resolution == Resolution::None {
        let why = format!("the ServiceEntry {key} says resolution NONE, so nobody knows where {} is", written.name);
        return Err(("UnsupportedValue", why));
    }
    let host = NamespacedName::new(key.namespace.clone(), host::normal(&written.name));
    match written.port.and_then(|port| u16::try_from(port).ok()).filter(|port| entry.has_port(*port)) {
        Some(port) => Ok(BackendTarget::Service(host, port)),
        None => {
            let port = written.port.unwrap_or_default();
            Err(("BackendNotFound", format!("the ServiceEntry {key} has no TCP port {port}")))
        }
    }
}
