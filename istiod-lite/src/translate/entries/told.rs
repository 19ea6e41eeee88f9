//! What authors of ServiceEntries and WorkloadEntries are told.

use mesh_model::workload::{Tunnel, Workload};

use super::defined::{Entry, Host, is_private, normal};
use super::{addresses, service};
use crate::resources::service_entry::Resolution;
use crate::resources::workload_entry::EndpointAddress;
use crate::resources::{Kind, host};
use crate::translate::condition::Condition;
use crate::translate::context::Context;
use crate::translate::networks_told;

/// Type of the condition about what needs a waypoint and has none.
const WAYPOINT_MISSING: &str = "istio.io/WaypointMissing";
/// Type of the condition about who sees it.
const VISIBILITY_APPLIED: &str = "istio.io/VisibilityApplied";
/// A longer list helps nobody.
const MOST: usize = 4;

/// What is told of a service entry.
pub(super) fn of_entry(entry: &Entry, context: &Context<'_>) -> Vec<Condition> {
    if let Some(why) = &entry.left_out {
        return vec![why.clone()];
    }
    let mut conditions = vec![accepted(entry, context)];
    conditions.extend(waypoint_missing(entry, context));
    conditions.extend(visibility(entry));
    conditions
}

fn accepted(entry: &Entry, context: &Context<'_>) -> Condition {
    if !service::is_published(entry, context) {
        return Condition::ignored("WaypointMissing", "proxies are not told of it: see istio.io/WaypointMissing");
    }
    let notes = notes(entry, context);
    let taken = entry.taken.iter().map(|(host, by)| match by.kind {
        Kind::Service => format!("{host} is the {by}'s, which counts before any ServiceEntry"),
        _ => format!("{host} is defined by {by}, which counts because it is older"),
    });
    let taken = list(taken.collect(), "; ");
    match (entry.hosts.is_empty(), taken.is_empty(), notes.is_empty()) {
        (true, ..) => Condition::ignored("Ignored", format!("this one defines nothing: {taken}")),
        (false, true, true) => Condition { message: reached(entry), ..Condition::accepted() },
        (false, ..) => {
            let all = [taken].into_iter().filter(|taken| !taken.is_empty()).chain(notes);
            Condition::unsupported(true, all.collect::<Vec<_>>().join(". "))
        }
    }
}

/// Where its hosts are reached.
fn reached(entry: &Entry) -> String {
    let with = entry.hosts.iter().filter(|host| !host.allocated.is_empty());
    let of_host = |host: &Host| {
        let ips: Vec<String> = host.allocated.iter().map(ToString::to_string).collect();
        format!("{} at {}", host.name, ips.join(" and "))
    };
    match list(with.map(of_host).collect(), ", ") {
        none if none.is_empty() => "attached to ztunnel".to_owned(),
        some => format!("attached to ztunnel: {some}"),
    }
}

/// What of it is not followed.
fn notes(entry: &Entry, context: &Context<'_>) -> Vec<String> {
    let (object, mut notes) = (&*entry.object, Vec::new());
    let spec = &object.spec;
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        if endpoint.endpoint() == EndpointAddress::Unix {
            notes.push(format!(
                "spec.endpoints[{i}] is a Unix socket, which no proxy of a node reaches: it is left out"
            ));
        }
        if spec.endpoints[i + 1..].iter().any(|later| later.address == endpoint.address) {
            let address = &endpoint.address;
            notes.push(format!("spec.endpoints[{i}] is left out: a later one has the address {address:?}, too"));
        }
    }
    for (i, endpoint) in spec.endpoints.iter().enumerate() {
        let is_first = spec.endpoints[..i].iter().all(|earlier| earlier.network != endpoint.network);
        let why = networks_told::unreached(&endpoint.network, context).filter(|_| is_first);
        notes.extend(why.map(|why| format!("spec.endpoints[{i}].network: {why}")));
    }
    let udp: Vec<String> =
        spec.ports.iter().filter(|p| p.protocol.eq_ignore_ascii_case("UDP")).map(|p| p.name.clone()).collect();
    if !udp.is_empty() {
        notes.push(format!("UDP does not go through the mesh: nothing is done about port {}", list(udp, ", ")));
    }
    if spec.workload_selector.as_ref().is_some_and(|selector| selector.labels.is_empty()) {
        notes.push("spec.workloadSelector has no labels and selects nothing: write at least one".to_owned());
    }
    let without = |host: &&Host| addresses::hosts(object).iter().any(|h| normal(h) == host.name);
    let exhausted = entry.hosts.iter().filter(without).find(|host| host.allocated.is_empty());
    if let (Some(host), Some(pools)) = (exhausted, context.mesh.pools) {
        notes.push(format!(
            "no address of {} and {} is left for {}: set larger prefixes",
            pools.ipv4, pools.ipv6, host.name
        ));
    }
    notes
}

/// What is said of wildcards where no waypoint knows which name was asked for.
fn waypoint_missing(entry: &Entry, context: &Context<'_>) -> Option<Condition> {
    let spec = &entry.object.spec;
    let host = entry.hosts.iter().find(|host| host::is_wildcard(&host.name))?;
    if service::waypoint(entry, context).is_some() {
        return None;
    }
    let effect = match (spec.resolution, spec.addresses.is_empty()) {
        (Resolution::DynamicDns, _) => {
            "resolution DYNAMIC_DNS resolves the name that was asked for, which only a waypoint knows: proxies are not told of \
             it, and connections go as if it were not there"
        }
        (_, true) => "it has no address, so that connections to its names go as if it were not there",
        (_, false) => {
            "connections to its addresses are carried, whichever of its names was asked for: what depends on the name needs a \
             waypoint"
        }
    };
    let message = format!(
        "ServiceEntry {} has the wildcard {} and no waypoint: {effect}. Bind it to one with the label istio.io/use-waypoint",
        entry.key, host.name
    );
    let (kind, reason) = (WAYPOINT_MISSING.into(), "NoWaypointForWildcardService".into());
    Some(Condition { kind, status: true, reason, message })
}

/// Who sees it, where that is said.
fn visibility(entry: &Entry) -> Option<Condition> {
    let export = &entry.object.spec.export_to;
    let of = |status, reason: &'static str, message: String| {
        Some(Condition { kind: VISIBILITY_APPLIED.into(), status, reason: reason.into(), message })
    };
    match export.as_slice() {
        [] => None,
        [all] if all == "*" => of(true, "Public", "it is visible to the whole mesh".to_owned()),
        _ if is_private(entry) => {
            of(true, "Namespace", format!("it is visible to the namespace {} only", entry.key.namespace))
        }
        some => {
            let some = list(some.to_vec(), ", ");
            let message = format!(
                "exportTo: {some}: proxies of nodes know \"this namespace\" and \"all\" only, and it is visible to all. Write \
                 \".\" to show it to its own namespace alone"
            );
            of(false, "Public", message)
        }
    }
}

/// What is told of a WorkloadEntry.
pub(super) fn of_workload_entry(found: Option<&Workload>, context: &Context<'_>) -> Condition {
    let Some(workload) = found else {
        return Condition::ignored("Ignored", "spec.address is a Unix socket, which no proxy of a node reaches");
    };
    if let Some(why) = networks_told::unreached(&workload.network, context) {
        return Condition::ignored("UnknownNetworkGateway", format!("spec.network: {why}"));
    }
    let how = match workload.tunnel {
        _ if context.networks.is_other(&workload.network) => {
            format!("through the gateway of its network, {}", workload.network)
        }
        Tunnel::Hbone => "by HBONE".to_owned(),
        Tunnel::None => "in plain text".to_owned(),
    };
    let services = match workload.services.len() {
        0 => "no service selects it".to_owned(),
        1 => "one service selects it".to_owned(),
        n => format!("{n} services select it"),
    };
    Condition { message: format!("attached to ztunnel: reached {how}; {services}"), ..Condition::accepted() }
}

/// The first of them.
fn list(mut all: Vec<String>, between: &str) -> String {
    let more = all.len().saturating_sub(MOST);
    all.truncate(MOST);
    let some = all.join(between);
    if more == 0 { some } else { format!("{some}{between}and {more} more") }
}
