//! Policies of a file.
//!
//! What is wrong inside a match does not refuse the policy, as on the wire: that match becomes *unsupported* and is
//! decided against the caller, so the policy is never weaker than written.

use ipnet::IpNet;
use mesh_model::address::NamespacedName;
use mesh_model::policy::{Action, Clause, Match, Policy, Rule, Scope, StringMatch};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::expected::expected;

/// A policy as a file says it: any of its rules, of which all clauses, of which any match.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LocalPolicy {
    name: String,
    namespace: String,
    scope: LocalScope,
    action: LocalAction,
    #[serde(default)]
    rules: Vec<Vec<Vec<Map<String, Value>>>>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
enum LocalScope {
    Global,
    Namespace,
    WorkloadSelector,
}

#[derive(Deserialize)]
enum LocalAction {
    Allow,
    Deny,
}

#[derive(Deserialize)]
enum Text {
    Prefix(String),
    Suffix(String),
    Exact(String),
    /// Of nothing: `[]`.
    Presence([(); 0]),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Account {
    namespace: String,
    service_account: String,
}

pub(super) fn policy(p: LocalPolicy) -> Result<Policy, String> {
    let key = format!("{}/{}", p.namespace, p.name);
    let key = NamespacedName::parse_shared(&key)
        .ok_or_else(|| expected("namespace and name", &key, "two parts without a slash"))?;
    let clause = |matches: Vec<_>| Clause { matches: matches.into_iter().map(one_match).collect() };
    let rule = |clauses: Vec<_>| Rule { clauses: clauses.into_iter().map(clause).collect() };
    Ok(Policy {
        name: key.name,
        namespace: key.namespace,
        scope: match p.scope {
            LocalScope::Global => Scope::Global,
            LocalScope::Namespace => Scope::Namespace,
            LocalScope::WorkloadSelector => Scope::WorkloadSelector,
        },
        action: match p.action {
            LocalAction::Allow => Action::Allow,
            LocalAction::Deny => Action::Deny,
        },
        rules: p.rules.into_iter().map(rule).collect(),
        dry_run: p.dry_run,
    })
}

fn one_match(fields: Map<String, Value>) -> Match {
    let mut m = Match::default();
    for (name, value) in fields {
        let read = match name.as_str() {
            "namespaces" => wanted(&mut m.namespaces, value, string),
            "notNamespaces" => unwanted(&mut m.not_namespaces, value, string),
            "principals" => wanted(&mut m.principals, value, string),
            "notPrincipals" => unwanted(&mut m.not_principals, value, string),
            "sourceIps" => wanted(&mut m.source_ips, value, block),
            "notSourceIps" => unwanted(&mut m.not_source_ips, value, block),
            "destinationIps" => wanted(&mut m.destination_ips, value, block),
            "notDestinationIps" => unwanted(&mut m.not_destination_ips, value, block),
            "destinationPorts" => wanted(&mut m.destination_ports, value, port),
            "notDestinationPorts" => unwanted(&mut m.not_destination_ports, value, port),
            "serviceAccounts" => wanted(&mut m.service_accounts, value, account),
            "notServiceAccounts" => unwanted(&mut m.not_service_accounts, value, account),
            _ => false,
        };
        m.unsupported |= !read;
    }
    m
}

/// The values of a positive field, all or none: one that cannot be read might be the one that holds. False when one
/// cannot.
fn wanted<T>(field: &mut Vec<T>, value: Value, read: impl Fn(Value) -> Option<T>) -> bool {
    let values = match value {
        Value::Array(values) => values.into_iter().map(read).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    values.map(|values| *field = values).is_some()
}

/// The values of a `not` field; each that can be read excludes. False when one cannot.
fn unwanted<T>(field: &mut Vec<T>, value: Value, read: impl Fn(Value) -> Option<T>) -> bool {
    let Value::Array(values) = value else { return false };
    let count = values.len();
    field.extend(values.into_iter().filter_map(read));
    field.len() == count
}

fn string(value: Value) -> Option<StringMatch> {
    Some(match Text::deserialize(value).ok()? {
        Text::Prefix(text) => StringMatch::Prefix(text.into()),
        Text::Suffix(text) => StringMatch::Suffix(text.into()),
        Text::Exact(text) => StringMatch::Exact(text.into()),
        Text::Presence([]) => StringMatch::Presence,
    })
}

/// In normal form: an IPv4-mapped block becomes the IPv4 block it maps.
fn block(value: Value) -> Option<IpNet> {
    let block: IpNet = value.as_str()?.parse().ok()?;
    let first = block.addr().to_canonical();
    let length = match block.addr().is_ipv6() && first.is_ipv4() {
        true => block.prefix_len().checked_sub(96)?,
        false => block.prefix_len(),
    };
    IpNet::new(first, length).ok()
}

fn port(value: Value) -> Option<u16> {
    u16::try_from(value.as_u64()?).ok()
}

fn account(value: Value) -> Option<NamespacedName> {
    let account = Account::deserialize(value).ok()?;
    Some(NamespacedName::new(account.namespace, account.service_account))
}
