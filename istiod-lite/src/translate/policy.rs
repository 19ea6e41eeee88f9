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

use super::condition::{Condition, WAYPOINT_ACCEPTED};
use super::mesh::Mesh;
use super::revision::Revisions;
use crate::resources::authorization_policy::{
    self as written, Attribute, AuthorizationPolicy, Operation, Source, WorkloadSelector, parse_ip_block, parse_port,
};
use crate::resources::labels::Labelled;

/// All policies of the cluster, translated.
pub struct Policies {
    sent: BTreeMap<NamespacedName, Arc<Policy>>,
    /// Policies with selectors, by namespace.
    selectors: HashMap<Arc<str>, BTreeMap<NamespacedName, WorkloadSelector>>,
    root_namespace: Arc<str>,
}

/// What becomes of one policy.
pub(super) struct Updated {
    /// For its author; None of one that is gone.
    pub(super) condition: Option<Condition>,
    /// The selectors by which it meant pods before and means them now, where they differ.
    pub(super) reselected: Vec<WorkloadSelector>,
}

impl Policies {
    /// None yet.
    pub(super) fn new(mesh: &Mesh) -> Self {
        Self { sent: BTreeMap::new(), selectors: HashMap::new(), root_namespace: mesh.root_namespace.clone() }
    }

    /// Translates one as it is now; None is gone.
    pub(super) fn update(
        &mut self,
        key: &NamespacedName,
        object: Option<&AuthorizationPolicy>,
        mesh: &Mesh,
        revisions: &Revisions,
    ) -> Updated {
        let translated = object.map(|object| match revisions.left_to_another(&object.metadata) {
            Some(condition) => (None, condition),
            None => translate(key, object, mesh),
        });
        let (policy, condition) = translated.map_or((None, None), |(policy, condition)| (policy, Some(condition)));
        let selective = policy.as_ref().is_some_and(|policy| policy.scope == Scope::WorkloadSelector);
        let selector = object.and_then(|object| object.spec.selector.as_ref()).filter(|_| selective);
        let in_namespace = self.selectors.entry(key.namespace.clone()).or_default();
        let before = match selector {
            Some(selector) => in_namespace.insert(key.clone(), selector.clone()),
            None => in_namespace.remove(key),
        };
        if in_namespace.is_empty() {
            self.selectors.remove(&key.namespace);
        }
        match policy {
            Some(policy) => drop(self.sent.insert(key.clone(), Arc::new(policy))),
            None => drop(self.sent.remove(key)),
        }
        let same = before.as_ref() == selector;
        let reselected = before.into_iter().chain(selector.cloned()).filter(|_| !same).collect();
        Updated { condition, reselected }
    }

    /// What proxies are told, by name.
    pub(super) fn sent(&self) -> &BTreeMap<NamespacedName, Arc<Policy>> {
        &self.sent
    }

    /// The policies whose selector means a pod. Those of the root namespace mean pods everywhere.
    pub(super) fn selecting(&self, namespace: &str, pod: &dyn Labelled) -> impl Iterator<Item = NamespacedName> {
        let root = (*namespace != *self.root_namespace).then(|| self.selectors.get(&self.root_namespace)).flatten();
        let own = self.selectors.get(namespace);
        let all = own.into_iter().chain(root).flatten();
        all.filter(move |(_, selector)| selector.matches(pod)).map(|(key, _)| key.clone())
    }
}

/// One policy: what proxies are told, and what the user is.
pub fn translate(key: &NamespacedName, object: &AuthorizationPolicy, mesh: &Mesh) -> (Option<Policy>, Condition) {
    let spec = &object.spec;
    if spec.target_ref.is_some() || !spec.target_refs.is_empty() {
        let message = "it targets a waypoint, and this control plane runs none: the policy is NOT enforced. Use a \
                       selector for what ztunnel can decide (identities, namespaces, addresses, ports)";
        let condition = Condition {
            kind: WAYPOINT_ACCEPTED.into(),
            status: false,
            reason: "AncestorNotBound".into(),
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
    let rules = rules.flat_map(|(i, written)| rule(i, written, action, &key.namespace, &mut notes)).collect();
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
    /// What ztunnel cannot decide on, in order, each once.
    http: Vec<String>,
    /// Rules it was met in.
    rules: Vec<usize>,
    /// Those of them of which nothing else is left.
    nothing_left: Vec<usize>,
    /// Principals were written as SPIFFE ids.
    spiffe: bool,
}

impl Notes {
    fn condition(self, action: Action) -> Condition {
        let mut message = String::new();
        if !self.http.is_empty() {
            let effect = match action {
                Action::Allow => self.left_out(),
                Action::Deny => self.denies_more(),
            };
            let attributes = self.http.join(", ");
            message = format!("ztunnel does not support HTTP attributes (found: {attributes}). {effect}");
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

    fn left_out(&self) -> String {
        let (are, them, they) = match self.rules.len() {
            1 => ("is", "it", "it allows"),
            _ => ("are", "them", "they allow"),
        };
        format!(
            "{} {are} left out, because ztunnel cannot tell whether a connection meets {them}: {they} nothing. To decide on \
             HTTP, attach the policy to a waypoint with targetRefs; to decide here, use only identities, namespaces, \
             addresses and ports",
            names(&self.rules)
        )
    }

    fn denies_more(&self) -> String {
        let mut effects = Vec::new();
        if !self.nothing_left.is_empty() {
            let (has, it) = if self.nothing_left.len() == 1 { ("has", "it denies") } else { ("have", "they deny") };
            effects.push(format!(
                "{} {has} nothing else that ztunnel can decide on, so {it} EVERY connection to the workloads of this \
                 policy",
                names(&self.nothing_left)
            ));
        }
        let partly: Vec<_> = self.rules.iter().filter(|i| !self.nothing_left.contains(i)).copied().collect();
        if !partly.is_empty() {
            effects.push(format!(
                "{} without these parts, so that more connections are denied than is written, not fewer",
                match partly.len() {
                    1 => format!("{} is enforced", names(&partly)),
                    _ => format!("{} are enforced", names(&partly)),
                }
            ));
        }
        format!(
            "{}. This holds until a waypoint serves the policy (attach it with targetRefs). Until then, delete the rule, \
             or say whom it is about by identities, namespaces, addresses and ports",
            effects.join("; ")
        )
    }
}

/// `rules[0], rules[1] and rules[4]`.
fn names(rules: &[usize]) -> String {
    let names: Vec<String> = rules.iter().map(|i| format!("rules[{i}]")).collect();
    match names.split_last() {
        Some((last, before)) if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => names.concat(),
    }
}

/// One rule, or several of which any may hold; none when it must be left out.
fn rule(index: usize, written: &written::Rule, action: Action, namespace: &str, notes: &mut Notes) -> Vec<Rule> {
    let mut http = Vec::new();
    let mut others = Vec::new();
    let from = written.from.iter().flatten();
    let sources: Vec<_> = from.map(|from| source(&from.source, namespace, &mut http, &mut notes.spiffe)).collect();
    if let Some(to) = &written.to {
        let operations = to.iter().map(|to| operation(&to.operation, &mut http));
        others.extend(clause(operations.collect()));
    }
    for condition in written.when.iter().flatten() {
        others.extend(clause(vec![when(condition, namespace, &mut http, &mut notes.spiffe)]));
    }
    let with = |from: Vec<Clause>| Rule { clauses: from.into_iter().chain(others.iter().cloned()).collect() };
    let rules: Vec<Rule> = if sources.iter().any(|source| source.trust_domains.is_some()) {
        // A source that says both is two clauses, and sources are alternatives: each gets a rule of its own.
        sources.into_iter().map(|source| with(source.clauses())).collect()
    } else if sources.is_empty() {
        vec![with(Vec::new())]
    } else {
        vec![with(clause(sources.into_iter().map(|source| source.caller).collect()).into_iter().collect())]
    };
    if !http.is_empty() {
        notes.rules.push(index);
        if rules.iter().any(|rule| rule.clauses.is_empty()) {
            notes.nothing_left.push(index);
        }
        for name in http {
            if !notes.http.contains(&name) {
                notes.http.push(name);
            }
        }
        if action == Action::Allow {
            return Vec::new();
        }
    }
    rules
}

/// A source: both must hold, where both are there.
struct Caller {
    caller: Match,
    /// The identity's trust domain, where its principal is asked for, too.
    trust_domains: Option<Match>,
}

impl Caller {
    fn clauses(self) -> Vec<Clause> {
        [Some(self.caller), self.trust_domains].into_iter().flatten().filter_map(|m| clause(vec![m])).collect()
    }
}

/// A clause of which one match has nothing left that can be evaluated may always hold, and so says nothing. (A match
/// with nothing set would never hold: that must not be sent.)
fn clause(matches: Vec<Match>) -> Option<Clause> {
    let unknowable = matches.iter().any(|m| *m == Match::default());
    (!unknowable).then_some(Clause { matches })
}

fn source(source: &Source, namespace: &str, http: &mut Vec<String>, spiffe: &mut bool) -> Caller {
    for (name, values) in [
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
    ] {
        http.extend(values.as_ref().map(|_| name.to_owned()));
    }
    let mut caller = Match {
        namespaces: strings(&source.namespaces),
        not_namespaces: strings(&source.not_namespaces),
        principals: principals(&source.principals, spiffe),
        not_principals: principals(&source.not_principals, spiffe),
        source_ips: blocks(&source.ip_blocks),
        not_source_ips: blocks(&source.not_ip_blocks),
        service_accounts: accounts(&source.service_accounts, namespace),
        not_service_accounts: accounts(&source.not_service_accounts, namespace),
        ..Match::default()
    };
    // One value that cannot be decided makes the whole list undecidable.
    let not = trust_domains("notTrustDomains", &source.not_trust_domains, http);
    caller.not_principals.extend(not);
    let domains = trust_domains("trustDomains", &source.trust_domains, http);
    if caller.principals.is_empty() {
        caller.principals = domains;
        return Caller { caller, trust_domains: None };
    }
    let trust_domains = (!domains.is_empty()).then(|| Match { principals: domains, ..Match::default() });
    Caller { caller, trust_domains }
}

/// A trust domain is what a principal begins with, up to its first slash: proxies are told principals, which all of them
/// know. A pattern that begins with a star is about the middle of a principal, which cannot be said so.
fn trust_domains(field: &str, values: &Option<Vec<String>>, undecidable: &mut Vec<String>) -> Vec<StringMatch> {
    let values = values.as_deref().unwrap_or_default();
    let of = |value: &String| match (value.as_str(), value.strip_suffix('*')) {
        ("*", _) => Some(StringMatch::Presence),
        (_, Some(prefix)) => Some(StringMatch::Prefix(prefix.into())),
        (whole, None) if !whole.starts_with('*') => Some(StringMatch::Prefix(format!("{whole}/").into())),
        _ => None,
    };
    let all: Option<Vec<_>> = values.iter().map(of).collect();
    all.unwrap_or_else(|| {
        undecidable.push(format!("{field} with * at the beginning"));
        Vec::new()
    })
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
