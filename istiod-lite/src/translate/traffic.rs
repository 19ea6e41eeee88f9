//! DestinationRule → what ServiceRoutes say of a service's endpoints. Pure.
//!
//! Of the rules that name a service one counts: one of the Service's own namespace before one of the root namespace; there the one that
//! names it before one for all of a domain, the longest domain first; then one that has a `trafficPolicy` or `subsets`, and of these the oldest, as
//! in Istio. Rules of other namespaces, which Istio would follow for callers from there, count for nobody: one waypoint treats a
//! service's endpoints one way.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service as KubernetesService;
use mesh_model::address::NamespacedName;
use mesh_model::balance::warmup::Warmup;
use mesh_model::traffic::{
    Balancing, Cookie, Detection, HashBy, HashTable, Limits, PortTraffic, Subset, TrafficPolicy,
};

use super::load_balancer::Attached;
use super::world::World;
use super::{entries, names};
use crate::cluster::relations::{Named, named_by, selects};
use crate::resources::DestinationRule;
use crate::resources::destination_rule::{
    ConnectionPool, ConsistentHash, LoadBalancer, OutlierDetection, Simple, TrafficPolicy as Written, parse_duration,
};
use crate::resources::labels::Labelled;

/// Maglev's table where nothing is said, as in Envoy.
const MAGLEV: u32 = 65_537;

/// What holds for the ports of a service.
pub(super) fn of_service(service: &NamespacedName, waypoint: &NamespacedName, world: &World<'_>) -> Vec<PortTraffic> {
    let attached = Attached::to(service, waypoint, world);
    let (rule, object) = rule_for(service, world).unzip();
    of_policies(rule, (object.and_then(|object| object.spec.traffic_policy.as_ref()), None), &attached)
}

/// What holds for ports: what is said for all of a service, and instead of that, field by field, what is said for a subset. What either
/// says of a port counts there alone, the subset's first.
fn of_policies(
    rule: Option<&NamespacedName>,
    (all, subset): (Option<&Written>, Option<&Written>),
    attached: &Attached,
) -> Vec<PortTraffic> {
    let both = || [subset, all].into_iter().flatten();
    if both().next().is_none() && !attached.is_said() {
        return Vec::new();
    }
    let one = |port, policy| PortTraffic { port, rule: rule.cloned(), policy: Arc::new(policy) };
    let of_port = |port: u32, written: &Written| {
        written.port_level_settings.iter().find(|settings| settings.port.number == port).map(|settings| Written {
            load_balancer: settings.load_balancer.clone(),
            connection_pool: settings.connection_pool.clone(),
            outlier_detection: settings.outlier_detection.clone(),
            ..Written::default()
        })
    };
    let merged = |above: Option<&Written>| {
        let (below, above) = (above.cloned().unwrap_or_default(), subset.cloned().unwrap_or_default());
        policy(
            &above.load_balancer.or(below.load_balancer),
            &above.connection_pool.or(below.connection_pool),
            &above.outlier_detection.or(below.outlier_detection),
            attached,
        )
    };
    let ports: BTreeSet<u32> = both().flat_map(|of| &of.port_level_settings).map(|of| of.port.number).collect();
    let own = |number: u32| {
        let port = u16::try_from(number).ok()?;
        Some(one(
            Some(port),
            match subset.and_then(|subset| of_port(number, subset)) {
                Some(own) => policy(&own.load_balancer, &own.connection_pool, &own.outlier_detection, attached),
                None => merged(all.and_then(|all| of_port(number, all)).as_ref().or(all)),
            },
        ))
    };
    ports.into_iter().filter_map(own).chain([one(None, merged(all))]).collect()
}

/// The subsets of a service: who is in each, and what holds for it.
pub(super) fn subsets(
    service: &NamespacedName,
    object: &KubernetesService,
    waypoint: &NamespacedName,
    world: &World<'_>,
) -> Vec<Arc<Subset>> {
    let Some((rule, found)) = rule_for(service, world) else { return Vec::new() };
    let attached = Attached::to(service, waypoint, world);
    let one = |written: &crate::resources::destination_rule::Subset| {
        let labels = &written.labels;
        let holds = |one: &dyn Labelled| {
            selects(object, one) && labels.iter().all(|(key, value)| one.label(key) == Some(value.as_str()))
        };
        let pods = world.cluster.pods_in(&service.namespace).filter(|(_, pod)| holds(&***pod));
        let pods = pods.map(|(key, _)| names::uid(key, &world.mesh.cluster_id));
        let entries = world.cluster.workload_entries_in(&service.namespace);
        let entries = entries.filter(|(_, entry)| holds(&entry.metadata));
        let entries = entries.map(|(key, _)| entries::uid_of_workload_entry(key, &world.mesh.cluster_id));
        let mut workloads: Vec<Arc<str>> = pods.chain(entries).map(Arc::from).collect();
        workloads.sort_unstable();
        Arc::new(Subset {
            name: written.name.as_str().into(),
            workloads,
            traffic: of_policies(
                Some(rule),
                (found.spec.traffic_policy.as_ref(), written.traffic_policy.as_ref()),
                &attached,
            ),
        })
    };
    found.spec.subsets.iter().map(one).collect()
}

/// The rule that counts for a service.
pub(super) fn rule_for<'a>(
    service: &NamespacedName,
    world: &World<'a>,
) -> Option<(&'a NamespacedName, &'a Arc<DestinationRule>)> {
    let hostname = names::hostname(service, world.mesh).name;
    let of_namespace = |namespace: &str| {
        let all = world.cluster.destination_rules_in(namespace);
        let fit = all.filter_map(|(key, rule)| Some((fits(rule, service, &hostname, world)?, key, rule)));
        fit.min_by(|a, b| a.0.cmp(&b.0).then_with(|| order((a.1, a.2), (b.1, b.2)))).map(|(_, key, rule)| (key, rule))
    };
    of_namespace(&service.namespace).or_else(|| of_namespace(&world.mesh.root_namespace))
}

/// Whether a rule is for a service, and how well: less is better.
fn fits(rule: &DestinationRule, service: &NamespacedName, hostname: &str, world: &World<'_>) -> Option<Reverse<usize>> {
    match named_by(rule) {
        Named::Service(named) if named == *service && is_of_domain(rule, &named, world) => Some(Reverse(usize::MAX)),
        Named::Below(domain) if hostname.ends_with(&domain) => Some(Reverse(domain.len())),
        _ => None,
    }
}

/// A full name has to end with the cluster's domain.
pub(super) fn is_of_domain(rule: &DestinationRule, named: &NamespacedName, world: &World<'_>) -> bool {
    let host = crate::resources::host::normal(&rule.spec.host);
    !host.contains('.') || *host == *names::hostname(named, world.mesh).name
}

/// Those that say something first, then older ones; one without an age, as in a folder, is as old as can be.
fn order(
    (a_key, a): (&NamespacedName, &Arc<DestinationRule>),
    (b_key, b): (&NamespacedName, &Arc<DestinationRule>),
) -> Ordering {
    let age = |rule: &DestinationRule| rule.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let says_nothing = |rule: &DestinationRule| rule.spec.traffic_policy.is_none() && rule.spec.subsets.is_empty();
    says_nothing(a).cmp(&says_nothing(b)).then_with(|| age(a).cmp(&age(b))).then_with(|| a_key.cmp(b_key))
}

fn policy(
    balancer: &Option<LoadBalancer>,
    pool: &Option<ConnectionPool>,
    outliers: &Option<OutlierDetection>,
    attached: &Attached,
) -> TrafficPolicy {
    TrafficPolicy {
        limits: pool.as_ref().map(limits).unwrap_or_default(),
        outliers: outliers.as_ref().map(detection),
        balancing: attached.or(balancer.as_ref().and_then(balancing)),
        warmup: balancer.as_ref().and_then(warmup),
    }
}

/// 0 is no limit, as in Istio.
fn limits(pool: &ConnectionPool) -> Limits {
    let (tcp, http) = (pool.tcp.clone().unwrap_or_default(), pool.http.clone().unwrap_or_default());
    let limit = |number: Option<u32>| number.filter(|number| *number > 0);
    Limits {
        connections: limit(tcp.max_connections),
        pending: limit(http.http1_max_pending_requests),
        requests: limit(http.http2_max_requests),
        retries: limit(http.max_retries),
        requests_per_connection: limit(http.max_requests_per_connection),
        connect_timeout: time(tcp.connect_timeout.as_deref()),
        idle_timeout: time(http.idle_timeout.as_deref()),
    }
}

fn detection(written: &OutlierDetection) -> Detection {
    let default = Detection::default();
    let percent = |percent: Option<u32>| percent.and_then(|percent| u8::try_from(percent).ok());
    let apart = written.split_external_local_origin_errors == Some(true);
    Detection {
        server_errors: written.consecutive_5xx_errors.unwrap_or(default.server_errors),
        gateway_errors: written.consecutive_gateway_errors.unwrap_or(default.gateway_errors),
        // Envoy's default.
        local_failures: apart.then(|| written.consecutive_local_origin_failures.unwrap_or(5)),
        interval: time(written.interval.as_deref()).unwrap_or(default.interval),
        base_ejection_time: time(written.base_ejection_time.as_deref()).unwrap_or(default.base_ejection_time),
        max_ejection_percent: percent(written.max_ejection_percent).unwrap_or(default.max_ejection_percent),
        min_health_percent: percent(written.min_health_percent).unwrap_or(default.min_health_percent),
    }
}

/// `None`: it says nothing of it.
pub(super) fn balancing(written: &LoadBalancer) -> Option<Balancing> {
    if let Some(hash) = &written.consistent_hash {
        return hash_by(hash).map(|by| Balancing::Hash(by, table(hash)));
    }
    match written.simple? {
        Simple::Random => Some(Balancing::Random),
        Simple::RoundRobin => Some(Balancing::RoundRobin),
        Simple::LeastConn | Simple::LeastRequest => Some(Balancing::LeastRequest),
        // Passthrough was refused when it was read.
        Simple::Unspecified | Simple::Passthrough => None,
    }
}

/// Numbers are in their bounds: else it was refused when it was read.
fn warmup(written: &LoadBalancer) -> Option<Warmup> {
    let Some(warmup) = &written.warmup else {
        return time(written.warmup_duration_secs.as_deref()).map(Warmup::lasting);
    };
    let all = Warmup::lasting(time(warmup.duration.as_deref())?);
    let (minimum, aggression) = (warmup.minimum_percent, warmup.aggression);
    Some(Warmup {
        minimum: minimum.map_or(all.minimum, |percent| (percent * 100.0).round() as u16),
        aggression: aggression.map_or(all.aggression, |aggression| (aggression * 1000.0).round() as u32),
        ..all
    })
}

/// One of them is there: else it was refused when it was read.
fn hash_by(hash: &ConsistentHash) -> Option<HashBy> {
    if let Some(name) = &hash.http_header_name {
        return Some(HashBy::Header(name.to_ascii_lowercase().into()));
    }
    if let Some(cookie) = &hash.http_cookie {
        return Some(HashBy::Cookie(Cookie {
            name: cookie.name.as_str().into(),
            path: cookie.path.as_deref().filter(|path| !path.is_empty()).map(Into::into),
            ttl: cookie.ttl.as_deref().and_then(parse_duration),
        }));
    }
    if let Some(name) = &hash.http_query_parameter_name {
        return Some(HashBy::Query(name.as_str().into()));
    }
    (hash.use_source_ip == Some(true)).then_some(HashBy::SourceIp)
}

fn table(hash: &ConsistentHash) -> HashTable {
    let size = |size: u64| u32::try_from(size).ok().filter(|size| *size > 0);
    if let Some(maglev) = hash.maglev {
        return HashTable::Maglev(maglev.table_size.and_then(size).unwrap_or(MAGLEV));
    }
    let ring = hash.ring_hash.and_then(|ring| ring.minimum_ring_size).or(hash.minimum_ring_size);
    ring.and_then(size).map_or_else(HashTable::default, HashTable::Ring)
}

fn time(text: Option<&str>) -> Option<Duration> {
    text.and_then(parse_duration)
}
