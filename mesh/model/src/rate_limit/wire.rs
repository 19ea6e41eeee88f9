//! Limits ↔ `ambit.v1.RateLimit`.

use std::time::Duration;

use http::header::HeaderName;
use mesh_proto::ambit as pb;
use pb::limit_descriptor_entry::Value as WireValue;
use pb::local_rate_limit::Key as WireKey;
use pb::rate_limit::{Kind as WireKind, Target as WireTarget};

use super::{
    Entry, EntryValue, GlobalRateLimit, Kind, LONGEST_PER, LimitKey, LimitedRoute, LocalRateLimit, MOST_REQUESTS,
    RateLimit, SHORTEST_PER, Target,
};
use crate::address::{NamespacedName, is_key_part};
use crate::shared::text;

/// Why a limit was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRateLimit {
    /// It is not said of which policy it is, or what for.
    #[error("the policy, or what it targets, is not namespace/name")]
    Name,
    /// A part that holds none of what this version knows.
    #[error("{0} is of a kind that is not supported")]
    Unsupported(&'static str),
    /// A number out of its range.
    #[error("{0} is out of range: {1}")]
    Range(&'static str, u32),
    /// A time that cannot be, or is out of its range.
    #[error("{0} is no length of time, or out of range")]
    Duration(&'static str),
    /// A header that is none.
    #[error("{0:?} is no name of a header")]
    Header(String),
    /// A rate limit service that is none.
    #[error("the rate limit service is no service, or its domain is empty")]
    Service,
}

pub(crate) fn read(wire: pb::RateLimit) -> Result<RateLimit, InvalidRateLimit> {
    let name = |name: &str| NamespacedName::parse_shared(name).ok_or(InvalidRateLimit::Name);
    let route = |wire: &pb::LimitedRoute| {
        Ok(LimitedRoute { route: name(&wire.route)?, rule: (!wire.rule.is_empty()).then(|| text(&wire.rule)) })
    };
    Ok(RateLimit {
        policy: name(&wire.policy)?,
        name: text(&wire.name),
        target: match &wire.target {
            Some(WireTarget::Gateway(gateway)) => Target::Gateway(name(gateway)?),
            Some(WireTarget::Service(service)) => Target::Service(name(service)?),
            Some(WireTarget::HttpRoute(of)) => Target::HttpRoute(route(of)?),
            Some(WireTarget::GrpcRoute(of)) => Target::GrpcRoute(route(of)?),
            None => return Err(InvalidRateLimit::Unsupported("what it targets")),
        },
        kind: match wire.kind {
            Some(WireKind::Local(wire)) => Kind::Local(local(wire)?),
            Some(WireKind::Global(wire)) => Kind::Global(global(wire)?.into()),
            None => return Err(InvalidRateLimit::Unsupported("the limit")),
        },
    })
}

fn local(wire: pb::LocalRateLimit) -> Result<LocalRateLimit, InvalidRateLimit> {
    let number = |what, number| match number {
        1..=MOST_REQUESTS => Ok(number),
        _ => Err(InvalidRateLimit::Range(what, number)),
    };
    let per = wire.per.and_then(|per| Duration::try_from(per).ok());
    Ok(LocalRateLimit {
        requests: number("requests", wire.requests)?,
        per: per
            .filter(|per| (SHORTEST_PER..=LONGEST_PER).contains(per))
            .ok_or(InvalidRateLimit::Duration("the time that requests are counted in"))?,
        burst: number("burst", wire.burst)?,
        key: match wire.key {
            None => None,
            Some(WireKey::CallerIdentity(_)) => Some(LimitKey::CallerIdentity),
            Some(WireKey::CallerNamespace(_)) => Some(LimitKey::CallerNamespace),
            Some(WireKey::Header(name)) => Some(LimitKey::Header(header(&name)?)),
        },
    })
}

fn header(name: &str) -> Result<std::sync::Arc<str>, InvalidRateLimit> {
    // Kept in lower case by `HeaderName`, whatever the case on the wire.
    let parsed = HeaderName::from_bytes(name.as_bytes());
    parsed.map(|name| text(name.as_str())).map_err(|_| InvalidRateLimit::Header(name.to_owned()))
}

fn global(wire: pb::GlobalRateLimit) -> Result<GlobalRateLimit, InvalidRateLimit> {
    let service = wire.service.ok_or(InvalidRateLimit::Service)?;
    if !is_key_part(&service.namespace) || !is_key_part(&service.hostname) || wire.domain.is_empty() {
        return Err(InvalidRateLimit::Service);
    }
    let timeout = wire.timeout.and_then(|timeout| Duration::try_from(timeout).ok());
    let entries = |wire: pb::LimitDescriptor| wire.entries.into_iter().map(entry).collect::<Result<Vec<_>, _>>();
    Ok(GlobalRateLimit {
        service: NamespacedName::new(text(&service.namespace), text(&service.hostname.to_ascii_lowercase())),
        port: u16::try_from(service.port).ok().filter(|port| *port != 0).ok_or(InvalidRateLimit::Service)?,
        domain: text(&wire.domain),
        timeout: timeout.filter(|time| !time.is_zero()).ok_or(InvalidRateLimit::Duration("the timeout"))?,
        deny_on_failure: wire.deny_on_failure,
        descriptors: wire.descriptors.into_iter().map(entries).collect::<Result<_, _>>()?,
    })
}

fn entry(wire: pb::LimitDescriptorEntry) -> Result<Entry, InvalidRateLimit> {
    let value = match wire.value {
        Some(WireValue::CallerIdentity(_)) => EntryValue::CallerIdentity,
        Some(WireValue::CallerNamespace(_)) => EntryValue::CallerNamespace,
        Some(WireValue::Header(name)) => EntryValue::Header(header(&name)?),
        Some(WireValue::Route(_)) => EntryValue::Route,
        Some(WireValue::Constant(value)) => EntryValue::Constant(text(&value)),
        None => return Err(InvalidRateLimit::Unsupported("an entry of a descriptor")),
    };
    Ok(Entry { key: text(&wire.key), value })
}

pub(crate) fn write(limit: &RateLimit) -> pb::RateLimit {
    let route = |of: &LimitedRoute| pb::LimitedRoute {
        route: of.route.to_string(),
        rule: of.rule.as_ref().map(ToString::to_string).unwrap_or_default(),
    };
    pb::RateLimit {
        policy: limit.policy.to_string(),
        name: limit.name.to_string(),
        target: Some(match &limit.target {
            Target::Gateway(name) => WireTarget::Gateway(name.to_string()),
            Target::Service(name) => WireTarget::Service(name.to_string()),
            Target::HttpRoute(of) => WireTarget::HttpRoute(route(of)),
            Target::GrpcRoute(of) => WireTarget::GrpcRoute(route(of)),
        }),
        kind: Some(match &limit.kind {
            Kind::Local(limit) => WireKind::Local(local_to_wire(limit)),
            Kind::Global(limit) => WireKind::Global(global_to_wire(limit)),
        }),
    }
}

fn local_to_wire(limit: &LocalRateLimit) -> pb::LocalRateLimit {
    pb::LocalRateLimit {
        requests: limit.requests,
        per: limit.per.try_into().ok(),
        burst: limit.burst,
        key: limit.key.as_ref().map(|key| match key {
            LimitKey::CallerIdentity => WireKey::CallerIdentity(true),
            LimitKey::CallerNamespace => WireKey::CallerNamespace(true),
            LimitKey::Header(name) => WireKey::Header(name.to_string()),
        }),
    }
}

fn global_to_wire(limit: &GlobalRateLimit) -> pb::GlobalRateLimit {
    let entry = |entry: &Entry| pb::LimitDescriptorEntry {
        key: entry.key.to_string(),
        value: Some(match &entry.value {
            EntryValue::CallerIdentity => WireValue::CallerIdentity(true),
            EntryValue::CallerNamespace => WireValue::CallerNamespace(true),
            EntryValue::Header(name) => WireValue::Header(name.to_string()),
            EntryValue::Route => WireValue::Route(true),
            EntryValue::Constant(value) => WireValue::Constant(value.to_string()),
        }),
    };
    pb::GlobalRateLimit {
        service: Some(pb::ServicePort {
            namespace: limit.service.namespace.to_string(),
            hostname: limit.service.name.to_string(),
            port: limit.port.into(),
        }),
        domain: limit.domain.to_string(),
        timeout: limit.timeout.try_into().ok(),
        deny_on_failure: limit.deny_on_failure,
        descriptors: limit
            .descriptors
            .iter()
            .map(|entries| pb::LimitDescriptor { entries: entries.iter().map(entry).collect() })
            .collect(),
    }
}
