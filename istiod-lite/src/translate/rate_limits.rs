//! TrafficPolicy → the rate limits of the services that it is for. Pure.
//!
//! Each target counts for itself: a Gateway's limit is one for all that passes its waypoints, a Service's for what is sent to it, a
//! route's for what follows it. Of several policies with one target the oldest counts, and the others are told so. Limits of different
//! targets all hold.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::address::NamespacedName;
use mesh_model::rate_limit::{
    self as model, EntryValue, LONGEST_PER, LimitKey, LimitedRoute, LocalRateLimit, RateLimit, Target,
};

use super::names;
use super::world::World;
use crate::cluster::attachments::limited;
use crate::resources::gateway_api::parse_duration;
use crate::resources::traffic_policy::{self as written, EntryType, FailureMode, GlobalRateLimit, KeyType, TIMEOUT};
use crate::resources::{Key, Kind, TrafficPolicy};

/// The limits of a service behind a waypoint.
pub(super) fn of_service(service: &NamespacedName, waypoint: &NamespacedName, world: &World<'_>) -> Arc<[RateLimit]> {
    let key = Key::new(Kind::Service, Some(&service.namespace), &service.name);
    let own = of_target(&key, None, world);
    of_routes(own, world.attachments.routes_of(service), waypoint, world)
}

/// Those of a service entry behind a waypoint: no policy targets the entry itself.
pub(super) fn of_entry<'a>(
    routes: impl Iterator<Item = &'a Key>,
    waypoint: &NamespacedName,
    world: &World<'_>,
) -> Arc<[RateLimit]> {
    of_routes(Vec::new(), routes, waypoint, world)
}

/// The Gateway's, something's own, and those of the routes that are for it.
fn of_routes<'a>(
    own: Vec<RateLimit>,
    routes: impl Iterator<Item = &'a Key>,
    waypoint: &NamespacedName,
    world: &World<'_>,
) -> Arc<[RateLimit]> {
    let mut all = of_gateway(waypoint, world).to_vec();
    all.extend(own);
    for route in routes {
        let policies = world.attachments.limits_of(route).filter_map(|key| world.cluster.traffic_policy(key));
        let sections: BTreeSet<Option<&str>> = policies.flat_map(|policy| sections(policy, route)).collect();
        all.extend(sections.into_iter().flat_map(|section| of_target(route, section, world)));
    }
    all.into()
}

/// The limits of all that passes a waypoint.
pub(super) fn of_gateway(waypoint: &NamespacedName, world: &World<'_>) -> Arc<[RateLimit]> {
    of_target(&Key::new(Kind::Gateway, Some(&waypoint.namespace), &waypoint.name), None, world).into()
}

/// What a policy says of a target: all of it, or parts.
fn sections<'a>(policy: &'a TrafficPolicy, target: &Key) -> impl Iterator<Item = Option<&'a str>> {
    let refs = policy.spec.target_refs.iter();
    refs.filter(move |reference| limited(reference, &target.namespace).as_ref() == Some(target))
        .map(|reference| reference.section_name.as_deref())
}

/// The policy that counts for a target, or a part of it.
pub(super) fn policy_of<'a>(
    target: &Key,
    section: Option<&str>,
    world: &World<'a>,
) -> Option<(&'a NamespacedName, &'a Arc<TrafficPolicy>)> {
    let keys = world.attachments.limits_of(target);
    let all = keys.filter_map(|key| world.cluster.traffic_policy_with_key(key));
    all.filter(|(_, policy)| sections(policy, target).any(|own| own == section)).min_by(order)
}

/// Older ones first (GEP-713); one without an age, as in a folder, is as old as can be.
fn order(
    (a_key, a): &(&NamespacedName, &Arc<TrafficPolicy>),
    (b_key, b): &(&NamespacedName, &Arc<TrafficPolicy>),
) -> Ordering {
    let age = |policy: &TrafficPolicy| policy.metadata.creation_timestamp.as_ref().map(|time| time.0);
    age(a).cmp(&age(b)).then_with(|| a_key.cmp(b_key))
}

fn of_target(target: &Key, section: Option<&str>, world: &World<'_>) -> Vec<RateLimit> {
    let Some((key, policy)) = policy_of(target, section, world) else { return Vec::new() };
    let route = || LimitedRoute { route: target.object(), rule: section.map(Into::into) };
    let to = match target.kind {
        Kind::Gateway => Target::Gateway(target.object()),
        Kind::HttpRoute => Target::HttpRoute(route()),
        Kind::GrpcRoute => Target::GrpcRoute(route()),
        _ => Target::Service(names::hostname(&target.object(), world.mesh)),
    };
    let limit = |name: String, kind| RateLimit { policy: key.clone(), name: name.into(), target: to.clone(), kind };
    let local = policy.local().map(|(name, written)| limit(name, model::Kind::Local(local(written))));
    let global = policy.global().map(|(name, written)| {
        let service = names::hostname(&written.service.object(&key.namespace), world.mesh);
        limit(name, model::Kind::Global(Arc::new(global(written, service))))
    });
    local.chain(global).collect()
}

fn local(written: &written::LocalRateLimit) -> LocalRateLimit {
    let header = |key: &written::Key| key.header.as_deref().unwrap_or_default().to_ascii_lowercase().into();
    LocalRateLimit {
        requests: written.requests,
        // Checked when it was read.
        per: parse_duration(&written.per).unwrap_or(LONGEST_PER),
        burst: written.burst.unwrap_or(written.requests),
        key: written.key.as_ref().map(|key| match key.kind {
            KeyType::CallerIdentity => LimitKey::CallerIdentity,
            KeyType::CallerNamespace => LimitKey::CallerNamespace,
            KeyType::Header => LimitKey::Header(header(key)),
        }),
    }
}

fn global(written: &GlobalRateLimit, service: NamespacedName) -> model::GlobalRateLimit {
    let timeout = written.timeout.as_deref().and_then(parse_duration);
    let entry = |entry: &written::Entry| model::Entry { key: entry.key.as_str().into(), value: value(entry) };
    model::GlobalRateLimit {
        service,
        port: u16::try_from(written.service.port).unwrap_or_default(),
        domain: written.domain.as_str().into(),
        timeout: timeout.filter(|timeout: &Duration| !timeout.is_zero()).unwrap_or(TIMEOUT),
        deny_on_failure: written.failure_mode == Some(FailureMode::Deny),
        descriptors: written.descriptors.iter().map(|one| one.entries.iter().map(entry).collect()).collect(),
    }
}

fn value(entry: &written::Entry) -> EntryValue {
    match entry.kind {
        EntryType::CallerIdentity => EntryValue::CallerIdentity,
        EntryType::CallerNamespace => EntryValue::CallerNamespace,
        EntryType::Route => EntryValue::Route,
        EntryType::Header => {
            EntryValue::Header(entry.header.as_deref().unwrap_or_default().to_ascii_lowercase().into())
        }
        EntryType::Constant => EntryValue::Constant(entry.value.as_deref().unwrap_or_default().into()),
    }
}
