//! backendRefs and header filters, as both kinds of routes have them.

use std::sync::Arc;

use mesh_model::route::{Backend, BackendTarget, Filter, HeaderEdit, Mirror, ValueMatch};

use super::context::World;
use super::routes::has_port;
use super::service_spec::is_external_name;
use super::{http_filter, names};
use crate::cluster::attachments::backend;
use crate::resources::gateway_api::common::{BackendRef, MatchType, ValueMatch as WrittenMatch, WeightedBackend};
use crate::resources::gateway_api::http_filter::{Header, HeaderModifier, RequestMirror};

/// The backends of a rule of a route in `namespace`.
pub(super) fn of_rule(written: &[WeightedBackend], namespace: &str, world: &World<'_>) -> Vec<Backend> {
    let one = |written: &WeightedBackend| Backend {
        target: target(&written.reference(), namespace, world),
        weight: written.weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(1),
        filters: http_filter::of(&written.filters, namespace, world),
    };
    written.iter().map(one).collect()
}

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

/// RequestMirror.
pub(super) fn mirror(written: &RequestMirror, namespace: &str, world: &World<'_>) -> Filter {
    let part = match (written.fraction, written.percent) {
        (Some(fraction), _) => {
            let (above, below) = (fraction.numerator.max(0), fraction.denominator.unwrap_or(100).max(1));
            above.saturating_mul(1_000_000) / below
        }
        (None, Some(percent)) => percent.saturating_mul(10_000),
        (None, None) => 1_000_000,
    };
    Filter::Mirror(Mirror {
        backend: target(&written.backend_ref, namespace, world),
        millionths: u32::try_from(part).unwrap_or(1_000_000).min(1_000_000),
    })
}

/// RequestHeaderModifier and ResponseHeaderModifier. Of names that are equal the first counts.
pub(super) fn headers(written: &HeaderModifier) -> HeaderEdit {
    let list = |headers: &[Header]| {
        let mut list: Vec<(Arc<str>, Arc<str>)> = Vec::new();
        for header in headers {
            let name = header.name.to_ascii_lowercase();
            if !list.iter().any(|(known, _)| **known == *name) {
                list.push((name.into(), header.value.as_str().into()));
            }
        }
        list
    };
    HeaderEdit {
        set: list(&written.set),
        add: list(&written.add),
        remove: written.remove.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
    }
}

/// Matches of headers: names in lower case, of equal ones the first counts.
pub(super) fn header_matches(written: &[WrittenMatch]) -> Vec<ValueMatch> {
    let mut matches: Vec<ValueMatch> = Vec::new();
    for one in written {
        let name = one.name.to_ascii_lowercase();
        if !matches.iter().any(|known| *known.name == *name) {
            matches.push(value_match(&name, one));
        }
    }
    matches
}

/// A match of a value.
pub(super) fn value_match(name: &str, written: &WrittenMatch) -> ValueMatch {
    let regex = written.kind.unwrap_or_default() == MatchType::RegularExpression;
    ValueMatch { name: name.into(), value: written.value.as_str().into(), regex }
}
