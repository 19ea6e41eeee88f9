//! backendRef → where it points.

use mesh_model::route::BackendTarget;

use super::names;
use super::service_spec::{has_port, is_external_name};
use super::world::World;
use crate::cluster::attachments::backend;
use crate::resources::gateway_api::backend_ref::BackendRef;

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
    let Some(name) = backend(written, namespace) else {
        let (group, kind) = (written.group(), written.kind());
        let kind = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        return Err(("InvalidKind", format!("a {kind} is no backend here: name a Service")));
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
