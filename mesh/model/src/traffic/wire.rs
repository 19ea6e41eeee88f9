//! What holds for a service's ports ↔ `ambit.v1.TrafficPolicy`.

use std::sync::Arc;
use std::time::Duration;

use mesh_proto::ambit as pb;
use pb::consistent_hash::By;
use pb::traffic_policy::Balancing as WireBalancing;

use super::{
    Balancing, Cookie, Detection, HashBy, HashTable, Limits, MOST_MAGLEV, MOST_RING, PortTraffic, Subset,
    TrafficPolicy, is_prime,
};
use crate::address::NamespacedName;
use crate::balance::ewma::PeakEwma;
use crate::balance::warmup::Warmup;
use crate::shared::text;

/// Why what holds for a port was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTraffic {
    /// A port that is none.
    #[error("port {0} is not 0 to 65535")]
    Port(u32),
    /// It is not said which object it is of.
    #[error("the rule is not namespace/name")]
    Rule,
    /// It is not said which TrafficPolicy it is of.
    #[error("the policy is not namespace/name")]
    Policy,
    /// A time that cannot be, or that must not be zero.
    #[error("{0} is no length of time")]
    Duration(&'static str),
    /// A number out of its range.
    #[error("{0} is out of range: {1}")]
    Range(&'static str, u32),
    /// A way to choose that this version does not know.
    #[error("balancing {0} is not supported")]
    Balancing(i32),
    /// A subset without a name.
    #[error("a subset has no name")]
    Subset,
    /// It is not said what to hash.
    #[error("a consistent hash of nothing")]
    HashOfNothing,
}

impl TryFrom<pb::Subset> for Subset {
    type Error = InvalidTraffic;

    fn try_from(wire: pb::Subset) -> Result<Self, InvalidTraffic> {
        if wire.name.is_empty() {
            return Err(InvalidTraffic::Subset);
        }
        let mut workloads: Vec<Arc<str>> = wire.workloads.iter().map(|uid| text(uid)).collect();
        workloads.sort_unstable();
        let traffic = wire.traffic.into_iter().map(PortTraffic::try_from).collect::<Result<_, _>>()?;
        Ok(Self { name: text(&wire.name), workloads, traffic })
    }
}

impl From<&Subset> for pb::Subset {
    fn from(subset: &Subset) -> Self {
        Self {
            name: subset.name.to_string(),
            workloads: subset.workloads.iter().map(ToString::to_string).collect(),
            traffic: subset.traffic.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::TrafficPolicy> for PortTraffic {
    type Error = InvalidTraffic;

    fn try_from(wire: pb::TrafficPolicy) -> Result<Self, InvalidTraffic> {
        let port = u16::try_from(wire.port).map_err(|_| InvalidTraffic::Port(wire.port))?;
        let balancing = match WireBalancing::try_from(wire.balancing) {
            Ok(WireBalancing::LeastRequest) => Balancing::LeastRequest,
            Ok(WireBalancing::RoundRobin) => Balancing::RoundRobin,
            Ok(WireBalancing::Random) => Balancing::Random,
            Ok(WireBalancing::Hash) => hash(wire.hash)?,
            Ok(WireBalancing::PeakEwma) => Balancing::PeakEwma(ewma(wire.peak_ewma.unwrap_or_default())?),
            Err(_) => return Err(InvalidTraffic::Balancing(wire.balancing)),
        };
        Ok(Self {
            port: (port != 0).then_some(port),
            rule: rule(&wire.rule, &balancing)?,
            policy: Arc::new(TrafficPolicy {
                limits: wire.limits.map(limits).transpose()?.unwrap_or_default(),
                outliers: wire.outliers.map(detection).transpose()?,
                balancing,
                warmup: wire.warmup.map(warmup).transpose()?,
            }),
        })
    }
}

/// Where a TrafficPolicy says how endpoints are chosen there may be none.
fn rule(name: &str, balancing: &Balancing) -> Result<Option<NamespacedName>, InvalidTraffic> {
    match balancing {
        Balancing::PeakEwma(_) if name.is_empty() => Ok(None),
        _ => NamespacedName::parse_shared(name).map(Some).ok_or(InvalidTraffic::Rule),
    }
}

fn ewma(wire: pb::PeakEwma) -> Result<PeakEwma, InvalidTraffic> {
    Ok(PeakEwma {
        policy: NamespacedName::parse_shared(&wire.policy).ok_or(InvalidTraffic::Policy)?,
        decay: positive("the decay", wire.decay.unwrap_or_default())?,
        default_latency: positive("the default latency", wire.default_latency.unwrap_or_default())?,
    })
}

fn warmup(wire: pb::Warmup) -> Result<Warmup, InvalidTraffic> {
    if wire.aggression < 1000 {
        return Err(InvalidTraffic::Range("the aggression of a warmup", wire.aggression));
    }
    Ok(Warmup {
        duration: positive("the warmup", wire.duration.unwrap_or_default())?,
        minimum: match u16::try_from(wire.minimum) {
            Ok(minimum @ 0..=10_000) => minimum,
            _ => return Err(InvalidTraffic::Range("the minimum of a warmup", wire.minimum)),
        },
        aggression: wire.aggression,
    })
}

fn limits(wire: pb::Limits) -> Result<Limits, InvalidTraffic> {
    let per_connection = wire.requests_per_connection;
    if per_connection == Some(0) {
        return Err(InvalidTraffic::Range("requests per connection", 0));
    }
    Ok(Limits {
        connections: wire.connections,
        pending: wire.pending,
        requests: wire.requests,
        retries: wire.retries,
        requests_per_connection: per_connection,
        connect_timeout: wire.connect_timeout.map(|time| positive("the connect timeout", time)).transpose()?,
        idle_timeout: wire.idle_timeout.map(|time| positive("the idle timeout", time)).transpose()?,
    })
}

fn detection(wire: pb::OutlierDetection) -> Result<Detection, InvalidTraffic> {
    let percent = |what, percent: u32| match u8::try_from(percent) {
        Ok(percent @ 0..=100) => Ok(percent),
        _ => Err(InvalidTraffic::Range(what, percent)),
    };
    Ok(Detection {
        server_errors: wire.server_errors,
        gateway_errors: wire.gateway_errors,
        local_failures: wire.local_failures,
        interval: positive("the interval", wire.interval.unwrap_or_default())?,
        base_ejection_time: positive("the ejection time", wire.base_ejection_time.unwrap_or_default())?,
        max_ejection_percent: percent("max_ejection_percent", wire.max_ejection_percent)?,
        min_health_percent: percent("min_health_percent", wire.min_health_percent)?,
    })
}

fn hash(wire: Option<pb::ConsistentHash>) -> Result<Balancing, InvalidTraffic> {
    let wire = wire.ok_or(InvalidTraffic::HashOfNothing)?;
    let by = match wire.by.ok_or(InvalidTraffic::HashOfNothing)? {
        By::Header(name) => HashBy::Header(text(&name)),
        By::Query(name) => HashBy::Query(text(&name)),
        By::SourceIp(_) => HashBy::SourceIp,
        By::Cookie(cookie) => HashBy::Cookie(Cookie {
            name: text(&cookie.name),
            path: (!cookie.path.is_empty()).then(|| text(&cookie.path)),
            ttl: cookie.ttl.map(|time| length("the cookie's time", time)).transpose()?,
        }),
    };
    let table = match (wire.ring, wire.maglev) {
        (Some(size), _) if size <= MOST_RING => HashTable::Ring(size),
        (Some(size), _) => return Err(InvalidTraffic::Range("the ring", size)),
        (None, Some(size)) if size <= MOST_MAGLEV && is_prime(size) => HashTable::Maglev(size),
        (None, Some(size)) => return Err(InvalidTraffic::Range("Maglev's table", size)),
        (None, None) => HashTable::default(),
    };
    Ok(Balancing::Hash(by, table))
}

fn length(what: &'static str, wire: mesh_proto::Duration) -> Result<Duration, InvalidTraffic> {
    wire.try_into().map_err(|_| InvalidTraffic::Duration(what))
}

fn positive(what: &'static str, wire: mesh_proto::Duration) -> Result<Duration, InvalidTraffic> {
    length(what, wire).and_then(|time| if time.is_zero() { Err(InvalidTraffic::Duration(what)) } else { Ok(time) })
}

impl From<&PortTraffic> for pb::TrafficPolicy {
    fn from(traffic: &PortTraffic) -> Self {
        let TrafficPolicy { limits, outliers, balancing, warmup } = &*traffic.policy;
        let peak_ewma = match balancing {
            Balancing::PeakEwma(ewma) => Some(ewma_to_wire(ewma)),
            _ => None,
        };
        let (balancing, hash) = match balancing {
            Balancing::LeastRequest => (WireBalancing::LeastRequest, None),
            Balancing::RoundRobin => (WireBalancing::RoundRobin, None),
            Balancing::Random => (WireBalancing::Random, None),
            Balancing::PeakEwma(_) => (WireBalancing::PeakEwma, None),
            Balancing::Hash(by, table) => (WireBalancing::Hash, Some(hash_to_wire(by, *table))),
        };
        Self {
            port: traffic.port.unwrap_or_default().into(),
            rule: traffic.rule.as_ref().map(ToString::to_string).unwrap_or_default(),
            limits: (*limits != Limits::default()).then(|| limits_to_wire(limits)),
            outliers: outliers.as_ref().map(detection_to_wire),
            balancing: balancing.into(),
            hash,
            warmup: warmup.as_ref().map(warmup_to_wire),
            peak_ewma,
        }
    }
}

fn ewma_to_wire(ewma: &PeakEwma) -> pb::PeakEwma {
    pb::PeakEwma {
        policy: ewma.policy.to_string(),
        decay: Some(to_wire(ewma.decay)),
        default_latency: Some(to_wire(ewma.default_latency)),
    }
}

fn warmup_to_wire(warmup: &Warmup) -> pb::Warmup {
    pb::Warmup {
        duration: Some(to_wire(warmup.duration)),
        minimum: warmup.minimum.into(),
        aggression: warmup.aggression,
    }
}

fn limits_to_wire(limits: &Limits) -> pb::Limits {
    pb::Limits {
        connections: limits.connections,
        pending: limits.pending,
        requests: limits.requests,
        retries: limits.retries,
        requests_per_connection: limits.requests_per_connection,
        connect_timeout: limits.connect_timeout.map(to_wire),
        idle_timeout: limits.idle_timeout.map(to_wire),
    }
}

fn detection_to_wire(detection: &Detection) -> pb::OutlierDetection {
    pb::OutlierDetection {
        server_errors: detection.server_errors,
        gateway_errors: detection.gateway_errors,
        local_failures: detection.local_failures,
        interval: Some(to_wire(detection.interval)),
        base_ejection_time: Some(to_wire(detection.base_ejection_time)),
        max_ejection_percent: detection.max_ejection_percent.into(),
        min_health_percent: detection.min_health_percent.into(),
    }
}

fn hash_to_wire(by: &HashBy, table: HashTable) -> pb::ConsistentHash {
    let by = match by {
        HashBy::Header(name) => By::Header(name.to_string()),
        HashBy::Query(name) => By::Query(name.to_string()),
        HashBy::SourceIp => By::SourceIp(true),
        HashBy::Cookie(cookie) => By::Cookie(pb::HashCookie {
            name: cookie.name.to_string(),
            path: cookie.path.as_deref().unwrap_or_default().to_owned(),
            ttl: cookie.ttl.map(to_wire),
        }),
    };
    let (ring, maglev) = match table {
        HashTable::Ring(size) => (Some(size), None),
        HashTable::Maglev(size) => (None, Some(size)),
    };
    pb::ConsistentHash { by: Some(by), ring, maglev }
}

/// One that is too long to be said is as good as for ever.
fn to_wire(length: Duration) -> mesh_proto::Duration {
    length.try_into().unwrap_or(mesh_proto::Duration { seconds: i64::MAX, nanos: 0 })
}
