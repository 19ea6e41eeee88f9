//! AuthorizationPolicy: who may talk to whom (`security.istio.io`).
//!
//! Lists are strict: a list that is present must hold at least one value, as Istio requires. An empty list would
//! impose nothing, and so make the policy wider than it reads.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::field::{FieldError, FieldPath};
use super::labels::Labelled;

/// The object.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationPolicy {
    #[serde(rename = "apiVersion", default, skip_serializing)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default, skip_serializing)]
    _kind: IgnoredAny,
    /// Name, namespace, annotations.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What is asked; left out, it is an allow policy without rules.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: AuthorizationPolicySpec,
    #[serde(rename = "status", default, skip_serializing)]
    _status: IgnoredAny,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationPolicySpec {
    /// Which workloads; none is the whole namespace, or the whole mesh in the root namespace.
    pub selector: Option<WorkloadSelector>,
    /// A waypoint to enforce it, instead of ztunnel.
    pub target_ref: Option<TargetRef>,
    /// Waypoints to enforce it, instead of ztunnel.
    #[serde(default, deserialize_with = "null_as_default")]
    pub target_refs: Vec<TargetRef>,
    /// Any of them; none never matches.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rules: Vec<Rule>,
    /// What a match means.
    #[serde(default)]
    pub action: Action,
    /// Of a `CUSTOM` policy.
    pub provider: Option<Provider>,
}

/// Istio's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Let in what matches, and nothing else.
    #[default]
    Allow,
    /// Keep out what matches.
    Deny,
    /// Write down what matches.
    Audit,
    /// Ask somebody else.
    Custom,
}

/// Who is asked by a `CUSTOM` policy.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct Provider {
    /// A name from the mesh configuration.
    #[serde(default)]
    pub name: String,
}

/// Pods by labels.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadSelector {
    /// All of them; none is every pod.
    #[serde(default, deserialize_with = "null_as_default")]
    pub match_labels: BTreeMap<String, String>,
}

/// An object that a waypoint stands for.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    /// API group; empty is core.
    #[serde(default)]
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Own namespace when left out.
    pub namespace: Option<String>,
}

/// All of `from`, `to` and `when`; all left out matches everything.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// Any of them.
    pub from: Option<Vec<From>>,
    /// Any of them.
    pub to: Option<Vec<To>>,
    /// All of them.
    pub when: Option<Vec<Condition>>,
}

/// An item of `from`.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct From {
    /// Who calls.
    pub source: Source,
}

/// Who calls: all fields that are set.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "Istio's own field names; see its reference for Source")]
pub struct Source {
    pub principals: Option<Vec<String>>,
    pub not_principals: Option<Vec<String>>,
    pub request_principals: Option<Vec<String>>,
    pub not_request_principals: Option<Vec<String>>,
    pub namespaces: Option<Vec<String>>,
    pub not_namespaces: Option<Vec<String>>,
    pub service_accounts: Option<Vec<String>>,
    pub not_service_accounts: Option<Vec<String>>,
    pub ip_blocks: Option<Vec<String>>,
    pub not_ip_blocks: Option<Vec<String>>,
    pub remote_ip_blocks: Option<Vec<String>>,
    pub not_remote_ip_blocks: Option<Vec<String>>,
    pub trust_domains: Option<Vec<String>>,
    pub not_trust_domains: Option<Vec<String>>,
}

/// An item of `to`.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
pub struct To {
    /// What is asked for.
    pub operation: Operation,
}

/// What is asked for: all fields that are set.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "Istio's own field names; see its reference for Operation")]
pub struct Operation {
    pub hosts: Option<Vec<String>>,
    pub not_hosts: Option<Vec<String>>,
    pub ports: Option<Vec<String>>,
    pub not_ports: Option<Vec<String>>,
    pub methods: Option<Vec<String>>,
    pub not_methods: Option<Vec<String>>,
    pub paths: Option<Vec<String>>,
    pub not_paths: Option<Vec<String>>,
}

/// An item of `when`.
#[derive(Clone, Debug, PartialEq, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// An attribute.
    pub key: String,
    /// Any of them.
    pub values: Option<Vec<String>>,
    /// None of them.
    pub not_values: Option<Vec<String>>,
}

/// An attribute named in `when`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `source.ip`.
    SourceIp,
    /// `source.namespace`.
    SourceNamespace,
    /// `source.principal`.
    SourcePrincipal,
    /// `source.serviceAccount`.
    SourceServiceAccount,
    /// `destination.ip`.
    DestinationIp,
    /// `destination.port`.
    DestinationPort,
    /// One that only an HTTP proxy can know.
    Http,
}

impl Attribute {
    /// By its key; `None` when Istio has no such attribute.
    pub fn parse(key: &str) -> Option<Self> {
        Some(match key {
            "source.ip" => Self::SourceIp,
            "source.namespace" => Self::SourceNamespace,
            "source.principal" => Self::SourcePrincipal,
            "source.serviceAccount" => Self::SourceServiceAccount,
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::DestinationPort,
            "remote.ip"
            | "connection.sni"
            | "request.auth.principal"
            | "request.auth.audiences"
            | "request.auth.presenter" => Self::Http,
            _ if key.starts_with("experimental.envoy.filters.") => Self::Http,
            _ => {
                let header = key.strip_prefix("request.headers[").and_then(|name| name.strip_suffix(']'));
                let claims = key.strip_prefix("request.auth.claims").and_then(claim_path);
                return (header.is_some_and(|name| !name.is_empty()) || claims.is_some()).then_some(Self::Http);
            }
        })
    }
}

/// The names in `[a][b]`; None if it is written in another way.
pub fn claim_path(text: &str) -> Option<Vec<&str>> {
    let names: Vec<&str> = text.strip_prefix('[')?.strip_suffix(']')?.split("][").collect();
    names.iter().all(|name| !name.is_empty() && !name.contains(['[', ']'])).then_some(names)
}

/// Go's JSON takes `null` for "left out", and so do we.
pub(super) fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Option::deserialize(d).map(Option::unwrap_or_default)
}

impl WorkloadSelector {
    /// Istio refuses empty keys and wildcards.
    pub(super) fn validate(&self, path: &FieldPath) -> Result<(), FieldError> {
        let labels = path.field("matchLabels");
        for (key, value) in &self.match_labels {
            if key.is_empty() {
                return Err(labels.error("a label's key must not be empty"));
            }
            if key.contains('*') || value.contains('*') {
                return Err(labels.field(key).error("wildcards are not allowed in a selector"));
            }
        }
        Ok(())
    }

    /// Whether a pod with these labels is meant.
    pub fn matches(&self, object: &dyn Labelled) -> bool {
        self.match_labels.iter().all(|(key, value)| object.label(key) == Some(value))
    }
}

/// Checks what the types alone do not: values, and that no list is empty.
///
/// # Errors
/// Names the first field that is wrong.
pub fn validate(object: &AuthorizationPolicy) -> Result<(), FieldError> {
    let (spec, path) = (&object.spec, FieldPath::of("spec"));
    if let Some(selector) = &spec.selector {
        selector.validate(&path.field("selector"))?;
    }
    let targeted = spec.target_ref.is_some() || !spec.target_refs.is_empty();
    if targeted && spec.selector.is_some() {
        return Err(path.field("selector").error("selector and targetRefs exclude each other: keep one"));
    }
    if spec.target_ref.is_some() && !spec.target_refs.is_empty() {
        return Err(path.field("targetRef").error("targetRef and targetRefs exclude each other: keep one"));
    }
    if spec.provider.is_some() != (spec.action == Action::Custom) {
        return Err(path.field("provider").error("provider goes with action CUSTOM, and only with it"));
    }
    // Istio's reason: it would deny nothing, which nobody writes on purpose.
    if spec.action == Action::Deny && spec.rules.is_empty() {
        return Err(path
            .field("rules")
            .error("a DENY policy without rules denies nothing: add a rule, or `rules: [{}]`"));
    }
    for (i, rule) in spec.rules.iter().enumerate() {
        validate_rule(rule, &path.field("rules").index(i))?;
    }
    Ok(())
}

fn validate_rule(rule: &Rule, path: &FieldPath) -> Result<(), FieldError> {
    let from_path = path.field("from");
    for (i, from) in at_least_one(&rule.from, &from_path)?.iter().enumerate() {
        validate_source(&from.source, &from_path.index(i).field("source"))?;
    }
    let to_path = path.field("to");
    for (i, to) in at_least_one(&rule.to, &to_path)?.iter().enumerate() {
        validate_operation(&to.operation, &to_path.index(i).field("operation"))?;
    }
    let when_path = path.field("when");
    for (i, condition) in at_least_one(&rule.when, &when_path)?.iter().enumerate() {
        validate_condition(condition, &when_path.index(i))?;
    }
    Ok(())
}

fn validate_source(source: &Source, path: &FieldPath) -> Result<(), FieldError> {
    if *source == Source::default() {
        return Err(path.error("it says nothing: set one of its fields, or leave `from` out for everybody"));
    }
    for (name, values, check) in [
        ("principals", &source.principals, text as Check),
        ("notPrincipals", &source.not_principals, text),
        ("requestPrincipals", &source.request_principals, text),
        ("notRequestPrincipals", &source.not_request_principals, text),
        ("namespaces", &source.namespaces, text),
        ("notNamespaces", &source.not_namespaces, text),
        ("serviceAccounts", &source.service_accounts, service_account),
        ("notServiceAccounts", &source.not_service_accounts, service_account),
        ("ipBlocks", &source.ip_blocks, ip_block),
        ("notIpBlocks", &source.not_ip_blocks, ip_block),
        ("remoteIpBlocks", &source.remote_ip_blocks, ip_block),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks, ip_block),
        ("trustDomains", &source.trust_domains, trust_domain),
        ("notTrustDomains", &source.not_trust_domains, trust_domain),
    ] {
        validate_values(values, &path.field(name), check)?;
    }
    Ok(())
}

fn validate_operation(operation: &Operation, path: &FieldPath) -> Result<(), FieldError> {
    if *operation == Operation::default() {
        return Err(path.error("it says nothing: set one of its fields, or leave `to` out for everything"));
    }
    for (name, values, check) in [
        ("hosts", &operation.hosts, text as Check),
        ("notHosts", &operation.not_hosts, text),
        ("ports", &operation.ports, port),
        ("notPorts", &operation.not_ports, port),
        ("methods", &operation.methods, text),
        ("notMethods", &operation.not_methods, text),
        ("paths", &operation.paths, text),
        ("notPaths", &operation.not_paths, text),
    ] {
        validate_values(values, &path.field(name), check)?;
    }
    Ok(())
}

fn validate_condition(condition: &Condition, path: &FieldPath) -> Result<(), FieldError> {
    let Some(attribute) = Attribute::parse(&condition.key) else {
        return Err(path.field("key").error(format!(
            "{:?} is no attribute Istio has; usable at L4 are source.ip, source.namespace, source.principal, \
             destination.ip and destination.port",
            condition.key
        )));
    };
    if condition.values.is_none() && condition.not_values.is_none() {
        return Err(path.error("set values or notValues"));
    }
    let check: Check = match attribute {
        Attribute::SourceIp | Attribute::DestinationIp => ip_block,
        Attribute::DestinationPort => port,
        Attribute::SourceServiceAccount => service_account,
        _ => text,
    };
    validate_values(&condition.values, &path.field("values"), check)?;
    validate_values(&condition.not_values, &path.field("notValues"), check)
}

/// What is wrong with a value, if anything is.
type Check = fn(&str) -> Result<(), String>;

fn validate_values(values: &Option<Vec<String>>, path: &FieldPath, check: Check) -> Result<(), FieldError> {
    for (i, value) in at_least_one(values, path)?.iter().enumerate() {
        check(value).map_err(|message| path.index(i).error(message))?;
    }
    Ok(())
}

/// A list that is present must not be empty: it would impose nothing.
fn at_least_one<'a, T>(values: &'a Option<Vec<T>>, path: &FieldPath) -> Result<&'a [T], FieldError> {
    match values {
        Some(values) if values.is_empty() => {
            Err(path.error("an empty list would impose nothing: add a value or remove the field"))
        }
        Some(values) => Ok(values),
        None => Ok(&[]),
    }
}

fn text(value: &str) -> Result<(), String> {
    if value.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) }
}

/// A trust domain, or a pattern of some, as the values of principals are patterns.
fn trust_domain(value: &str) -> Result<(), String> {
    let plain = value.strip_prefix('*').or_else(|| value.strip_suffix('*')).unwrap_or(value);
    if value.is_empty() || plain.contains(['*', '/', ':']) {
        return Err(format!(
            "{value:?} is not a trust domain: write for example cluster.local, without spiffe:// and without a path"
        ));
    }
    Ok(())
}

fn port(value: &str) -> Result<(), String> {
    parse_port(value).map(drop).ok_or_else(|| format!("{value:?} is not a port: write \"1\" to \"65535\""))
}

fn ip_block(value: &str) -> Result<(), String> {
    parse_ip_block(value)
        .map(drop)
        .ok_or_else(|| format!("{value:?} is not an address or CIDR block: write for example 10.1.0.0/16 or fd00::1"))
}

fn service_account(value: &str) -> Result<(), String> {
    let parts: Vec<&str> = value.split('/').collect();
    let plain = |s: &&str| !s.is_empty() && !s.contains('*');
    if parts.len() <= 2 && parts.iter().all(plain) {
        Ok(())
    } else {
        Err(format!("{value:?} is not a service account: write <namespace>/<name> or <name>, without wildcards"))
    }
}

/// A port, 1 to 65535.
pub fn parse_port(value: &str) -> Option<u16> {
    value.parse().ok().filter(|port| *port > 0 && !value.starts_with('+'))
}

/// An address or a CIDR block. IPv4-mapped IPv6 is brought to the IPv4 form that addresses are compared in.
pub fn parse_ip_block(value: &str) -> Option<IpNet> {
    let net: IpNet = match value.parse() {
        Ok(net) => net,
        Err(_) => value.parse::<std::net::IpAddr>().ok()?.into(),
    };
    let net = match (net.addr().to_canonical(), net.prefix_len()) {
        (std::net::IpAddr::V4(v4), length) if net.addr().is_ipv6() => {
            IpNet::new(v4.into(), length.checked_sub(96)?).ok()?
        }
        _ => net,
    };
    Some(net.trunc())
}
