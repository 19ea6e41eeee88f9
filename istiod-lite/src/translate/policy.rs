//! AuthorizationPolicy → Policy, for ztunnel.
//!
//! Where ztunnel cannot evaluate what is written (HTTP attributes), the policy must not become weaker. An allow rule
//! is left out whole. A deny rule keeps the rest of its conditions, and so denies at least what is written: a part
//! that is dropped counts as always met. (Istio's own control plane keeps such a deny rule in a form that never
//! matches when nothing else is left of it.)

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::labels;
use mesh_model::policy::{Action, Clause, Match, Policy, Rule, Scope, StringMatch};

use super::Mesh;
use super::condition::{Condition, PolicyStatus, WAYPOINT_ACCEPTED};
use crate::cluster::Cluster;
use crate::resources::authorization_policy::{
    self as written, Attribute, AuthorizationPolicy, Operation, Source, WorkloadSelector, parse_ip_block, parse_port,
};
use crate::resources::{Key, Kind};

/// All policies of the cluster, translated.
pub struct Policies {
    sent: Vec<Arc<Policy>>,
    /// Policies with selectors, by namespace.
    selectors: HashMap<Arc<str>, Vec<(WorkloadSelector, NamespacedName)>>,
    root_namespace: Arc<str>,
}

impl Policies {
    /// Translates all, and says of each what becomes of it.
    pub(super) fn new(cluster: &Cluster, mesh: &Mesh, statuses: &mut Vec<PolicyStatus>) -> Self {
        let mut policies =
            Self { sent: Vec::new(), selectors: HashMap::new(), root_namespace: mesh.root_namespace.clone() };
        for (key, object) in cluster.authorization_policies() {
            let (policy, condition) = translate(key, object, mesh);
            statuses.push(PolicyStatus {
                key: Key::new(Kind::AuthorizationPolicy, Some(&key.namespace), &key.name),
                conditions: vec![condition],
            });
            let Some(policy) = policy else { continue };
            if let (Scope::WorkloadSelector, Some(selector)) = (policy.scope, &object.spec.selector) {
                let in_namespace = policies.selectors.entry(key.namespace.clone()).or_default();
                in_namespace.push((selector.clone(), key.clone()));
            }
            policies.sent.push(Arc::new(policy));
        }
        policies
    }

    /// What proxies are told.
    pub(super) fn sent(&self) -> impl Iterator<Item = Arc<Policy>> {
        self.sent.iter().cloned()
    }

    /// The policies whose selector means a pod. Those of the root namespace mean pods everywhere.
    pub(super) fn selecting(
        &self,
        namespace: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) -> impl Iterator<Item = NamespacedName> {
        let root = (*namespace != *self.root_namespace).then(|| self.selectors.get(&self.root_namespace)).flatten();
        let own = self.selectors.get(namespace);
        let all = own.into_iter().chain(root).flatten();
        all.filter(move |(selector, _)| selector.matches(labels)).map(|(_, key)| key.clone())
    }
}

/// One policy: what proxies are told, and what the user is.
pub fn translate(key: &NamespacedName, object: &AuthorizationPolicy, mesh: &Mesh) -> (Option<Policy>, Condition) {
    let spec = &object.spec;
    if spec.target_ref.is_some() || !spec.target_refs.is_empty() {
        let message = "it targets a waypoint, and this control plane runs none: the policy is NOT enforced. Use a \
                       selector for what ztunnel can decide (identities, namespaces, addresses, ports)";
        let condition = Condition {
            kind: WAYPOINT_ACCEPTED,
            status: false,
            reason: "AncestorNotBound",
            message: message.to_owned(),
        };
        return (None, condition);
    }
    let action = match spec.action {
        written::Action::Allow => Action::Allow,
        written::Action::Deny => Action::Deny,
        written::Action::Audit => {
            return (None, Condition::unsupported(false, "ztunnel does not support the AUDIT action"));
        }
        written::Action::Custom => {
            return (None, Condition::unsupported(false, "ztunnel does not support the CUSTOM action"));
        }
    };
    let dry_run = object.metadata.annotations.as_ref().and_then(|a| a.get(labels::DRY_RUN));
    let dry_run = dry_run.and_then(|value| labels::parse_bool(value)).unwrap_or(false);
    if dry_run && !mesh.dry_run_policies {
        let message = "dry-run policies are not sent: set AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY=true, or remove \
                       the annotation istio.io/dry-run to enforce it";
        return (None, Condition::unsupported(false, message));
    }
    let mut notes = Notes::default();
    let rules = spec.rules.iter().enumerate();
    let rules = rules.filter_map(|(i, written)| rule(i, written, action, &key.namespace, &mut notes)).collect();
    let policy = Policy {
        name: key.name.clone(),
        namespace: key.namespace.clone(),
        scope: scope(spec.selector.as_ref(), &key.namespace, mesh),
        action,
        rules,
        dry_run,
    };
    (Some(policy), notes.condition(action))
}

fn scope(selector: Option<&WorkloadSelector>, namespace: &str, mesh: &Mesh) -> Scope {
    match selector {
        Some(selector) if !selector.match_labels.is_empty() => Scope::WorkloadSelector,
        _ if *namespace == *mesh.root_namespace => Scope::Global,
        _ => Scope::Namespace,
    }
}

/// What has to be said about a policy.
#[derive(Default)]
struct Notes {
    /// HTTP attributes met, in order, each once.
    http: Vec<String>,
    /// Rules they were met in.
    rules: Vec<usize>,
    /// Principals were written as SPIFFE ids.
    spiffe: bool,
}

impl Notes {
    fn condition(self, action: Action) -> Condition {
        let mut message = String::new();
        if !self.http.is_empty() {
            let rules = self.rules.iter().map(|i| format!("rules[{i}]")).collect::<Vec<_>>().join(", ");
            let effect = match action {
                Action::Allow => format!("{rules} cannot be told to hold, and is left out: it allows nothing"),
                Action::Deny => {
                    format!("These parts of {rules} are left out, so that it now denies MORE than is written, not less")
                }
            };
            let attributes = self.http.join(", ");
            message = format!(
                "ztunnel does not support HTTP attributes (found: {attributes}). {effect}. To decide on HTTP, attach \
                 the policy to a waypoint with targetRefs; to decide here, use only identities, namespaces, addresses \
                 and ports"
            );
        }
        if self.spiffe {
            let note = "principals are written without spiffe://, which was taken off";
            message = if message.is_empty() { note.to_owned() } else { format!("{message}. Also: {note}") };
        }
        match (self.http.is_empty(), self.spiffe) {
            (true, false) => Condition::accepted(),
            (true, true) => Condition { message: format!("attached to ztunnel; {message}"), ..Condition::accepted() },
            (false, _) => Condition::unsupported(true, message),
        }
    }
}

/// `None` when the rule must be left out.
fn rule(index: usize, written: &written::Rule, action: Action, namespace: &str, notes: &mut Notes) -> Option<Rule> {
    let mut http = Vec::new();
    let mut clauses = Vec::new();
    if let Some(from) = &written.from {
        let sources = from.iter().map(|from| source(&from.source, namespace, &mut http, &mut notes.spiffe));
        clauses.extend(clause(sources.collect()));
    }
    if let Some(to) = &written.to {
        let operations = to.iter().map(|to| operation(&to.operation, &mut http));
        clauses.extend(clause(operations.collect()));
    }
    for condition in written.when.iter().flatten() {
        clauses.extend(clause(vec![when(condition, namespace, &mut http, &mut notes.spiffe)]));
    }
    if !http.is_empty() {
        notes.rules.push(index);
        for name in http {
            if !notes.http.contains(&name) {
                notes.http.push(name);
            }
        }
        if action == Action::Allow {
            return None;
        }
    }
    Some(Rule { clauses })
}

/// A clause of which one match has nothing left that can be evaluated may always hold, and so says nothing. (A match
/// with nothing set would never hold: that must not be sent.)
fn clause(matches: Vec<Match>) -> Option<Clause> {
    let unknowable = matches.iter().any(|m| *m == Match::default());
    (!unknowable).then_some(Clause { matches })
}

fn source(source: &Source, namespace: &str, http: &mut Vec<String>, spiffe: &mut bool) -> Match {
    for (name, values) in [
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
    ] {
        http.extend(values.as_ref().map(|_| name.to_owned()));
    }
    Match {
        namespaces: strings(&source.namespaces),
        not_namespaces: strings(&source.not_namespaces),
        principals: principals(&source.principals, spiffe),
        not_principals: principals(&source.not_principals, spiffe),
        source_ips: blocks(&source.ip_blocks),
        not_source_ips: blocks(&source.not_ip_blocks),
        service_accounts: accounts(&source.service_accounts, namespace),
        not_service_accounts: accounts(&source.not_service_accounts, namespace),
        ..Match::default()
    }
}

fn operation(operation: &Operation, http: &mut Vec<String>) -> Match {
    for (name, values) in [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ] {
        http.extend(values.as_ref().map(|_| name.to_owned()));
    }
    Match {
        destination_ports: ports(&operation.ports),
        not_destination_ports: ports(&operation.not_ports),
        ..Match::default()
    }
}

fn when(condition: &written::Condition, namespace: &str, http: &mut Vec<String>, spiffe: &mut bool) -> Match {
    let (values, not_values) = (&condition.values, &condition.not_values);
    // Keys are checked when the object is read; one that is not known is as unknowable as an HTTP one.
    match Attribute::parse(&condition.key).unwrap_or(Attribute::Http) {
        Attribute::SourceIp => {
            Match { source_ips: blocks(values), not_source_ips: blocks(not_values), ..Match::default() }
        }
        Attribute::SourceNamespace => {
            Match { namespaces: strings(values), not_namespaces: strings(not_values), ..Match::default() }
        }
        Attribute::SourcePrincipal => Match {
            principals: principals(values, spiffe),
            not_principals: principals(not_values, spiffe),
            ..Match::default()
        },
        Attribute::SourceServiceAccount => Match {
            service_accounts: accounts(values, namespace),
            not_service_accounts: accounts(not_values, namespace),
            ..Match::default()
        },
        Attribute::DestinationIp => {
            Match { destination_ips: blocks(values), not_destination_ips: blocks(not_values), ..Match::default() }
        }
        Attribute::DestinationPort => {
            Match { destination_ports: ports(values), not_destination_ports: ports(not_values), ..Match::default() }
        }
        Attribute::Http => {
            http.push(condition.key.clone());
            Match::default()
        }
    }
}

fn strings(values: &Option<Vec<String>>) -> Vec<StringMatch> {
    values.iter().flatten().map(|value| string_match(value)).collect()
}

/// Principals are compared without `spiffe://`. A pattern that has it could never match, and a deny policy with it
/// would deny nobody.
fn principals(values: &Option<Vec<String>>, spiffe: &mut bool) -> Vec<StringMatch> {
    let plain = |value: &String| match value.strip_prefix("spiffe://") {
        Some(rest) if !rest.is_empty() => {
            *spiffe = true;
            string_match(rest)
        }
        _ => string_match(value),
    };
    values.iter().flatten().map(plain).collect()
}

/// `*` any, `*x` ends with, `x*` begins with, else equal.
fn string_match(value: &str) -> StringMatch {
    if value == "*" {
        StringMatch::Presence
    } else if let Some(suffix) = value.strip_prefix('*') {
        StringMatch::Suffix(suffix.into())
    } else if let Some(prefix) = value.strip_suffix('*') {
        StringMatch::Prefix(prefix.into())
    } else {
        StringMatch::Exact(value.into())
    }
}

fn blocks(values: &Option<Vec<String>>) -> Vec<ipnet::IpNet> {
    values.iter().flatten().filter_map(|value| parse_ip_block(value)).collect()
}

fn ports(values: &Option<Vec<String>>) -> Vec<u16> {
    values.iter().flatten().filter_map(|value| parse_port(value)).collect()
}

/// `namespace/name`, or `name` in the policy's own namespace.
fn accounts(values: &Option<Vec<String>>, namespace: &str) -> Vec<NamespacedName> {
    let account = |value: &String| match value.split_once('/') {
        Some((namespace, name)) => NamespacedName::new(namespace, name),
        None => NamespacedName::new(namespace, value.as_str()),
    };
    values.iter().flatten().map(account).collect()
}
