//! Telemetry and the mesh configuration → what becomes of traces, and what is logged, at the waypoint of a service. Pure.
//!
//! Which of them count is the same for each part of a Telemetry (`layers`); what one says again of another is that part's: [`tracing`],
//! [`access_logging`]. Here is what authors are told.

use mesh_model::address::NamespacedName;

use super::bound::Bound;
use super::condition::Condition;
use super::world::World;
use crate::cluster::attachments::{refs_of_telemetry, target};
use crate::resources::Telemetry;
use layers::{Part, UNSUPPORTED, is_of_namespace, of_namespace, of_target};

pub(super) mod access_logging;
mod layers;
mod metrics;
pub(super) mod tracing;

/// What its author is told.
pub(super) fn told(key: &NamespacedName, object: &Telemetry, world: &World<'_>) -> Condition {
    let written: Vec<Part> = Part::ALL.into_iter().filter(|part| part.is_written(object)).collect();
    let metrics = metrics::fault(object, world);
    let counted = !object.spec.metrics.is_empty() && metrics.is_none();
    let (for_servers, for_clients): (Vec<Part>, Vec<Part>) =
        written.into_iter().partition(|part| part.is_for_servers(object));
    let for_clients = for_clients.into_iter().map(|part| {
        (UNSUPPORTED, format!("{} is for CLIENT only, and a waypoint is on the server's side", part.name()))
    });
    // What is not followed, each with its reason.
    let mut faults: Vec<Fault> = for_clients.chain(metrics).collect();
    if for_servers.is_empty() && !counted {
        if faults.is_empty() {
            faults.push((UNSUPPORTED, "it says nothing of tracing, accessLogging or metrics".to_owned()));
        }
        return refused(faults);
    }
    let scope = match scope(key, object, world) {
        Ok(scope) => scope,
        Err(fault) => {
            faults.insert(0, fault);
            return refused(faults);
        }
    };
    let mut followed = counted;
    for part in for_servers {
        let fault = conflict(part, key, object, world).or_else(|| {
            let fault = match part {
                Part::Tracing => tracing::fault(key, object, world),
                Part::AccessLogging => access_logging::fault(object, world),
            };
            fault.map(|fault| ("InvalidProvider", fault))
        });
        match fault {
            Some(fault) => faults.push(fault),
            None => followed = true,
        }
    }
    match (followed, faults.first()) {
        (true, None) => Condition::waypoint(true, scope.0, scope.1),
        (true, Some((reason, _))) => {
            // What is followed of it, and what is not.
            let reason = if *reason == UNSUPPORTED { UNSUPPORTED } else { "PartiallyInvalid" };
            Condition::waypoint(true, reason, format!("{}. {}", scope.1, joined(&faults)))
        }
        (false, _) => refused(faults),
    }
}

/// A reason, and what it means.
type Fault = (&'static str, String);

fn refused(faults: Vec<Fault>) -> Condition {
    let reason = faults.first().map_or(UNSUPPORTED, |(reason, _)| *reason);
    Condition::waypoint(false, reason, joined(&faults))
}

fn joined(faults: &[Fault]) -> String {
    faults.iter().map(|(_, message)| message.as_str()).collect::<Vec<_>>().join(". ")
}

/// For whom it is, if it is for anybody.
fn scope(key: &NamespacedName, object: &Telemetry, world: &World<'_>) -> Result<Fault, Fault> {
    if object.spec.selector.is_some() {
        let message = "it has a selector, so NO waypoint follows it: with one it is for sidecars, as in Istio. Say by \
                       targetRefs which Services, Gateways or GatewayClass it is for";
        return Err(("AncestorNotBound", message.to_owned()));
    }
    if is_of_namespace(object) {
        let message = match key.namespace == world.mesh.root_namespace {
            true => "for the whole mesh, where nothing more specific says otherwise".to_owned(),
            false => format!("for waypoints of {}, where nothing more specific says otherwise", key.namespace),
        };
        return Ok(("Accepted", message));
    }
    let (status, reason, message) = Bound::of(refs_of_telemetry(object), &key.namespace, world).told();
    if status { Ok((reason, message)) } else { Err((reason, message)) }
}

/// Another one that says the same part in the same place, and is older.
fn conflict(part: Part, key: &NamespacedName, object: &Telemetry, world: &World<'_>) -> Option<Fault> {
    let (place, oldest) = if is_of_namespace(object) {
        ("is for the namespace, too, and older", of_namespace(part, &key.namespace, world))
    } else {
        let targets = refs_of_telemetry(object).map(|reference| target(reference, &key.namespace));
        let mut oldest = targets.filter_map(|target| of_target(part, &target, world));
        ("has the same target and is older", oldest.find(|(oldest, _)| *oldest != key))
    };
    let (oldest, other) = oldest.filter(|(oldest, _)| *oldest != key)?;
    // Which part it is says itself where there is one.
    let both = Part::ALL.into_iter().filter(|part| part.is_written(object) || part.is_written(other)).count();
    let of = if both > 1 { format!("{}: ", part.name()) } else { String::new() };
    Some(("Conflicted", format!("{of}Telemetry {oldest} {place}")))
}
