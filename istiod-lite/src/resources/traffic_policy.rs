//! TrafficPolicy: what neither Istio's kinds nor the Gateway API's can say of traffic (`ambit.dev`). A policy attachment as GEP-713
//! describes it: it names what it is for, and is for nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use http::header::HeaderName;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mesh_model::address::NamespacedName;
use mesh_model::rate_limit::{LONGEST_PER, MOST_REQUESTS, SHORTEST_PER};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::authorization_policy::null_as_default;
use super::field::{FieldError, FieldPath};
use super::gateway_api::{self, parse_duration};

/// The group of the kinds that are ours.
pub const GROUP: &str = "ambit.dev";
/// Most targets: as many as `status.ancestors` has room for.
const MOST_TARGETS: usize = 16;
/// Most limits of each kind: each is asked at every request.
const MOST_LIMITS: usize = 8;
/// Most descriptors of a limit, and most entries of one.
const MOST_DESCRIPTORS: usize = 8;
/// Most bytes of a text: all of them are sent at every request.
const MOST_BYTES: usize = 256;
/// How long a rate limit service may take, where it is not said. (Envoy's 20 ms are without a mesh between.)
pub const TIMEOUT: Duration = Duration::from_millis(100);
/// The longest that it may.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// In how long latencies may be forgotten: less is no average, and after more nobody knows any more why an endpoint is left.
const DECAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));
/// What may be expected of an endpoint.
const DEFAULT_LATENCIES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(60));

/// The object.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicy {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name, namespace, age.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is asked.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: TrafficPolicySpec,
    #[serde(rename = "status", default, skip_serializing)]
    _status: IgnoredAny,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicySpec {
    /// What it is for, each for itself.
    #[serde(default, deserialize_with = "null_as_default")]
    pub target_refs: Vec<PolicyTargetRef>,
    /// How many requests pass.
    pub rate_limits: Option<RateLimits>,
    /// Which endpoint gets a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
}

/// Which endpoint gets a request.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct LoadBalancer {
    /// How it is chosen.
    #[serde(rename = "type")]
    pub kind: LoadBalancerType,
    /// With `PeakEWMA`.
    #[serde(rename = "peakEWMA", skip_serializing_if = "Option::is_none")]
    pub peak_ewma: Option<PeakEwma>,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum LoadBalancerType {
    /// By how long requests took there.
    #[serde(rename = "PeakEWMA")]
    PeakEwma,
}

/// By how long requests took.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeakEwma {
    /// In how long that is forgotten, in the Gateway API's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<String>,
    /// What is expected of an endpoint of which nothing is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_latency: Option<String>,
}

/// An object of the policy's namespace (the Gateway API's LocalPolicyTargetReferenceWithSectionName).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTargetRef {
    /// API group; empty is core.
    #[serde(default)]
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// A rule of a route, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

/// How many requests pass. All of them count.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct RateLimits {
    /// Counted by each waypoint for itself.
    #[serde(default, deserialize_with = "null_as_default")]
    pub local: Vec<LocalRateLimit>,
    /// Counted by a rate limit service.
    #[serde(default, deserialize_with = "null_as_default")]
    pub global: Vec<GlobalRateLimit>,
}

/// Counted by each waypoint for itself.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct LocalRateLimit {
    /// What logs call it; its place when left out.
    pub name: Option<String>,
    /// So many.
    pub requests: u32,
    /// In so long, in the Gateway API's form.
    pub per: String,
    /// So many at once; `requests` when left out.
    pub burst: Option<u32>,
    /// What is counted apart; all requests together when left out.
    pub key: Option<Key>,
}

/// What is counted apart.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Key {
    /// What kind of thing.
    #[serde(rename = "type")]
    pub kind: KeyType,
    /// With `Header`.
    pub header: Option<String>,
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum KeyType {
    /// Who calls, proven.
    CallerIdentity,
    /// The namespace of who calls, proven.
    CallerNamespace,
    /// What a header says.
    Header,
}

/// Counted by a rate limit service.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GlobalRateLimit {
    /// What logs call it; its place when left out.
    pub name: Option<String>,
    /// Who counts.
    pub service: ServiceRef,
    /// What its configuration calls whom it counts for.
    pub domain: String,
    /// How long it may take, in the Gateway API's form; [`TIMEOUT`] when left out.
    pub timeout: Option<String>,
    /// What becomes of a request about which it says nothing; `Allow` when left out.
    pub failure_mode: Option<FailureMode>,
    /// What it is told of a request, each counted for itself.
    #[serde(default, deserialize_with = "null_as_default")]
    pub descriptors: Vec<Descriptor>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct ServiceRef {
    /// Its name.
    pub name: String,
    /// The policy's own when left out.
    pub namespace: Option<String>,
    /// Its port.
    pub port: i64,
}

/// What becomes of a request about which nobody says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum FailureMode {
    /// It passes.
    Allow,
    /// It is refused.
    Deny,
}

/// What a rate limit service is told of a request.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct Descriptor {
    /// All of them; a request that lacks one lacks the descriptor.
    #[serde(default, deserialize_with = "null_as_default")]
    pub entries: Vec<Entry>,
}

/// A part of it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// What it says.
    #[serde(rename = "type")]
    pub kind: EntryType,
    /// With `Header`.
    pub header: Option<String>,
    /// With `Constant`.
    pub value: Option<String>,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum EntryType {
    /// Who calls, proven: a SPIFFE id.
    CallerIdentity,
    /// The namespace of who calls, proven.
    CallerNamespace,
    /// What a header says.
    Header,
    /// The route that the request follows, `namespace/name`.
    Route,
    /// A text.
    Constant,
}

impl TrafficPolicy {
    /// Whether it limits how many requests pass.
    pub fn has_limits(&self) -> bool {
        self.spec.rate_limits.is_some()
    }

    /// The limits that waypoints count, each with its name.
    pub fn local(&self) -> impl Iterator<Item = (String, &LocalRateLimit)> {
        let all = self.spec.rate_limits.iter().flat_map(|limits| limits.local.iter().enumerate());
        all.map(|(i, limit)| (limit.name.clone().unwrap_or_else(|| format!("local[{i}]")), limit))
    }

    /// The limits that rate limit services count, each with its name.
    pub fn global(&self) -> impl Iterator<Item = (String, &GlobalRateLimit)> {
        let all = self.spec.rate_limits.iter().flat_map(|limits| limits.global.iter().enumerate());
        all.map(|(i, limit)| (limit.name.clone().unwrap_or_else(|| format!("global[{i}]")), limit))
    }
}

impl ServiceRef {
    /// The Service, as a policy of `namespace` names it.
    pub fn object(&self, namespace: &str) -> NamespacedName {
        let own = self.namespace.as_deref().filter(|name| !name.is_empty());
        NamespacedName::new(own.unwrap_or(namespace), self.name.as_str())
    }
}

type Checked = Result<(), FieldError>;

/// Checks what the type alone does not.
///
/// # Errors
/// Names the field and what is wrong.
pub fn validate(object: &TrafficPolicy) -> Checked {
    let (spec, path) = (&object.spec, FieldPath::of("spec"));
    let at = path.field("targetRefs");
    if spec.target_refs.is_empty() {
        return Err(at.error("missing: name the Service, HTTPRoute, GRPCRoute or Gateway that the policy is for"));
    }
    at_most(MOST_TARGETS, spec.target_refs.len(), &at)?;
    let mut seen = BTreeSet::new();
    for (i, reference) in spec.target_refs.iter().enumerate() {
        target(reference, &at.index(i))?;
        if !seen.insert(reference) {
            return Err(at.index(i).error("the same target stands there twice"));
        }
    }
    if let Some(balancer) = &spec.load_balancer {
        load_balancer(balancer, &spec.target_refs, &path.field("loadBalancer"))?;
    }
    match &spec.rate_limits {
        Some(limits) => rate_limits(object, limits, &path.field("rateLimits")),
        None if spec.load_balancer.is_none() => {
            Err(path.error("it says nothing: write rateLimits, loadBalancer or both"))
        }
        None => Ok(()),
    }
}

fn load_balancer(balancer: &LoadBalancer, targets: &[PolicyTargetRef], path: &FieldPath) -> Checked {
    if let Some(route) = targets.iter().find(|target| !matches!(&*target.kind, "Service" | "Gateway")) {
        let message =
            format!("it is of endpoints, and {} {} has none: write a Service or Gateway", route.kind, route.name);
        return Err(path.error(message));
    }
    let (LoadBalancerType::PeakEwma, Some(ewma)) = (balancer.kind, &balancer.peak_ewma) else { return Ok(()) };
    let path = path.field("peakEWMA");
    for (field, text, bounds) in
        [("decay", &ewma.decay, DECAYS), ("defaultLatency", &ewma.default_latency, DEFAULT_LATENCIES)]
    {
        text.as_deref().map_or(Ok(()), |text| duration(text, bounds, &path.field(field)))?;
    }
    Ok(())
}

fn rate_limits(object: &TrafficPolicy, limits: &RateLimits, path: &FieldPath) -> Checked {
    if limits.local.is_empty() && limits.global.is_empty() {
        return Err(path.error("missing: write local, global or both"));
    }
    let at = path.field("local");
    at_most(MOST_LIMITS, limits.local.len(), &at)?;
    limits.local.iter().enumerate().try_for_each(|(i, limit)| local(limit, &at.index(i)))?;
    let at = path.field("global");
    at_most(MOST_LIMITS, limits.global.len(), &at)?;
    limits.global.iter().enumerate().try_for_each(|(i, limit)| global(limit, &at.index(i)))?;
    let names = object.local().map(|(name, _)| name).chain(object.global().map(|(name, _)| name));
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            return Err(path.error(format!("two limits are called {name}: logs and counts tell them apart by name")));
        }
    }
    Ok(())
}

fn at_most(most: usize, length: usize, path: &FieldPath) -> Checked {
    if length > most { Err(path.error(format!("at most {most}"))) } else { Ok(()) }
}

fn target(reference: &PolicyTargetRef, path: &FieldPath) -> Checked {
    let PolicyTargetRef { group, kind, name, section_name } = reference;
    let is_route = match (&**group, &**kind) {
        ("" | "core", "Service") | (gateway_api::GROUP, "Gateway") => false,
        (gateway_api::GROUP, "HTTPRoute" | "GRPCRoute") => true,
        _ => {
            let other = if group.is_empty() { kind.clone() } else { format!("{kind}.{group}") };
            let message = format!(
                "{other} is no target here: write a Service (group \"\"), or an HTTPRoute, GRPCRoute or Gateway (group {})",
                gateway_api::GROUP
            );
            return Err(path.field("kind").error(message));
        }
    };
    if name.is_empty() {
        return Err(path.field("name").error("must not be empty"));
    }
    match section_name.as_deref() {
        Some("") => Err(path.field("sectionName").error("must not be empty: leave it out for all of the target")),
        Some(_) if !is_route => {
            let message = format!("not followed of a {kind}: it names a rule of a route. Leave it out");
            Err(path.field("sectionName").error(message))
        }
        _ => Ok(()),
    }
}

fn short(text: &str, path: &FieldPath) -> Checked {
    match text.len() {
        0 => Err(path.error("must not be empty")),
        length if length > MOST_BYTES => Err(path.error(format!("longer than {MOST_BYTES} bytes"))),
        _ => Ok(()),
    }
}

fn duration(text: &str, (least, most): (Duration, Duration), path: &FieldPath) -> Checked {
    match parse_duration(text) {
        Some(length) if (least..=most).contains(&length) => Ok(()),
        Some(_) => Err(path.error(format!("{text:?} is out of range: {least:?} to {most:?}"))),
        None => Err(path.error(format!("{text:?} is no duration: write 10s, 1m or 500ms"))),
    }
}

fn header(is_wanted: bool, name: Option<&str>, path: &FieldPath) -> Checked {
    let path = path.field("header");
    match name {
        None if is_wanted => Err(path.error("missing: type Header counts by a header, so name it")),
        Some(_) if !is_wanted => Err(path.error("only with type Header")),
        Some(name) if HeaderName::from_bytes(name.as_bytes()).is_err() => {
            Err(path.error(format!("{name:?} is no name of a header")))
        }
        _ => Ok(()),
    }
}

fn local(limit: &LocalRateLimit, path: &FieldPath) -> Checked {
    limit.name.as_deref().map_or(Ok(()), |name| short(name, &path.field("name")))?;
    for (field, number) in [("requests", Some(limit.requests)), ("burst", limit.burst)] {
        if number.is_some_and(|number| !(1..=MOST_REQUESTS).contains(&number)) {
            return Err(path.field(field).error(format!("write 1 to {MOST_REQUESTS}")));
        }
    }
    duration(&limit.per, (SHORTEST_PER, LONGEST_PER), &path.field("per"))?;
    let key = |key: &Key| header(key.kind == KeyType::Header, key.header.as_deref(), &path.field("key"));
    limit.key.as_ref().map_or(Ok(()), key)
}

fn global(limit: &GlobalRateLimit, path: &FieldPath) -> Checked {
    limit.name.as_deref().map_or(Ok(()), |name| short(name, &path.field("name")))?;
    let service = path.field("service");
    if limit.service.name.is_empty() {
        return Err(service.field("name").error("must not be empty"));
    }
    if !(1..=65_535).contains(&limit.service.port) {
        return Err(service.field("port").error(format!("{} is not a port: write 1 to 65535", limit.service.port)));
    }
    short(&limit.domain, &path.field("domain"))?;
    if let Some(timeout) = &limit.timeout {
        duration(timeout, (SHORTEST_PER, LONGEST_TIMEOUT), &path.field("timeout"))?;
    }
    let path = path.field("descriptors");
    if limit.descriptors.is_empty() {
        return Err(path.error("missing: say by what the service is to count"));
    }
    at_most(MOST_DESCRIPTORS, limit.descriptors.len(), &path)?;
    for (i, descriptor) in limit.descriptors.iter().enumerate() {
        let path = path.index(i).field("entries");
        if descriptor.entries.is_empty() {
            return Err(path.error("missing: a descriptor has an entry"));
        }
        at_most(MOST_DESCRIPTORS, descriptor.entries.len(), &path)?;
        descriptor.entries.iter().enumerate().try_for_each(|(i, one)| entry(one, &path.index(i)))?;
    }
    Ok(())
}

fn entry(entry: &Entry, path: &FieldPath) -> Checked {
    short(&entry.key, &path.field("key"))?;
    header(entry.kind == EntryType::Header, entry.header.as_deref(), path)?;
    let at = path.field("value");
    match (&entry.value, entry.kind == EntryType::Constant) {
        (Some(value), true) => short(value, &at),
        (None, true) => Err(at.error("missing: type Constant says it")),
        (Some(_), false) => Err(at.error("only with type Constant")),
        (None, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
