//! Policy ↔ `istio.security.Authorization`.

use ipnet::IpNet;
use mesh_proto::policy as pb;
use mesh_proto::workload::Extension;

use super::http::HttpMatch;
use super::{Action, Clause, Match, Policy, Rule, Scope, StringMatch, action_wire, http_wire, strings};
use crate::address::{NamespacedName, is_key_part};
use crate::workload::wire::{block, ip_bytes};

/// Why a policy was refused as a whole. What is wrong inside a match does not refuse it: that match becomes
/// *unsupported* and is decided against the caller, so the policy is never weaker than written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// No namespace or name, or one that would make the key ambiguous.
    #[error("namespace or name is empty or holds a slash")]
    Key,
    /// A scope this version does not know.
    #[error("scope {0} is not supported")]
    Scope(i32),
    /// An action this version does not know.
    #[error("action {0} is not supported")]
    Action(i32),
    /// What it asks for beyond Istio's actions cannot be read.
    #[error("its extension ambit.dev/action cannot be read")]
    Extension,
}

impl TryFrom<pb::Authorization> for Policy {
    type Error = InvalidPolicy;

    fn try_from(p: pb::Authorization) -> Result<Self, InvalidPolicy> {
        if !is_key_part(&p.namespace) || !is_key_part(&p.name) {
            return Err(InvalidPolicy::Key);
        }
        let special = action_wire::read(&p.extensions).ok_or(InvalidPolicy::Extension)?;
        Ok(Self {
            scope: match pb::Scope::try_from(p.scope) {
                Ok(pb::Scope::Global) => Scope::Global,
                Ok(pb::Scope::Namespace) => Scope::Namespace,
                Ok(pb::Scope::WorkloadSelector) => Scope::WorkloadSelector,
                Err(_) => return Err(InvalidPolicy::Scope(p.scope)),
            },
            dry_run: p.dry_run && !matches!(special, Some(Action::Audit)),
            action: match (special, pb::Action::try_from(p.action)) {
                (Some(special), _) => special,
                (None, Ok(pb::Action::Allow)) => Action::Allow,
                (None, Ok(pb::Action::Deny)) => Action::Deny,
                (None, Err(_)) => return Err(InvalidPolicy::Action(p.action)),
            },
            name: p.name.into(),
            namespace: p.namespace.into(),
            rules: p
                .rules
                .into_iter()
                .map(|r| Rule {
                    clauses: r
                        .clauses
                        .into_iter()
                        .map(|c| Clause { matches: c.matches.into_iter().map(one_match).collect() })
                        .collect(),
                })
                .collect(),
        })
    }
}

fn one_match(m: pb::Match) -> Match {
    let (http, mut unsupported) = extensions(&m.extensions);
    let u = &mut unsupported;
    let port = |p| u16::try_from(p).ok();
    let account = |a: pb::ServiceAccountMatch| NamespacedName::new(a.namespace, a.service_account);
    Match {
        namespaces: wanted(m.namespaces, u, strings::read),
        not_namespaces: unwanted(m.not_namespaces, u, strings::read),
        principals: wanted(m.principals, u, strings::read),
        not_principals: unwanted(m.not_principals, u, strings::read),
        source_ips: wanted(m.source_ips, u, net),
        not_source_ips: unwanted(m.not_source_ips, u, net),
        destination_ips: wanted(m.destination_ips, u, net),
        not_destination_ips: unwanted(m.not_destination_ips, u, net),
        destination_ports: wanted(m.destination_ports, u, port),
        not_destination_ports: unwanted(m.not_destination_ports, u, port),
        service_accounts: m.service_accounts.into_iter().map(account).collect(),
        not_service_accounts: m.not_service_accounts.into_iter().map(account).collect(),
        http: http.map(Into::into),
        unsupported,
    }
}

/// Our condition on requests, and whether there is another, or one that cannot be read.
fn extensions(extensions: &[Extension]) -> (Option<HttpMatch>, bool) {
    let (ours, others): (Vec<_>, Vec<_>) = extensions.iter().partition(|extension| http_wire::is_ours(extension));
    match ours.as_slice() {
        [] => (None, !others.is_empty()),
        [ours] => {
            let http = http_wire::read(ours);
            let unsupported = http.is_none() || !others.is_empty();
            (http, unsupported)
        }
        _ => (None, true),
    }
}

/// The values of a positive field. One that cannot be read might be the one that holds, so the readable rest must not
/// decide alone that none does: the field is given up and the match is *unsupported*.
fn wanted<A, B>(list: Vec<A>, unsupported: &mut bool, read: impl Fn(A) -> Option<B>) -> Vec<B> {
    list.into_iter().map(read).collect::<Option<_>>().unwrap_or_else(|| {
        *unsupported = true;
        Vec::new()
    })
}

/// The values of a `not_` field. Each readable one still excludes; one that cannot be read leaves the match
/// *unsupported* besides.
fn unwanted<A, B>(list: Vec<A>, unsupported: &mut bool, read: impl Fn(A) -> Option<B>) -> Vec<B> {
    let values: Vec<_> = list.into_iter().map(read).collect();
    *unsupported |= values.iter().any(Option::is_none);
    values.into_iter().flatten().collect()
}

fn net(a: pb::Address) -> Option<IpNet> {
    block(&a.address, a.length)
}

impl From<&Policy> for pb::Authorization {
    fn from(p: &Policy) -> Self {
        Self {
            name: p.name.to_string(),
            namespace: p.namespace.to_string(),
            scope: match p.scope {
                Scope::Global => pb::Scope::Global,
                Scope::Namespace => pb::Scope::Namespace,
                Scope::WorkloadSelector => pb::Scope::WorkloadSelector,
            }
            .into(),
            action: match &p.action {
                Action::Allow => pb::Action::Allow,
                // Who does not know the extension that says which it is, denies; or does nothing: AUDIT is a dry run, too.
                Action::Deny | Action::Audit | Action::Custom(_) => pb::Action::Deny,
            }
            .into(),
            rules: p
                .rules
                .iter()
                .map(|r| pb::Rule {
                    clauses: r
                        .clauses
                        .iter()
                        .map(|c| pb::Clause { matches: c.matches.iter().map(match_to_wire).collect() })
                        .collect(),
                })
                .collect(),
            dry_run: p.dry_run || p.action == Action::Audit,
            extensions: action_wire::write(&p.action).into_iter().collect(),
        }
    }
}

fn match_to_wire(m: &Match) -> pb::Match {
    let texts = |list: &[StringMatch]| list.iter().map(strings::write).collect();
    let nets = |list: &[IpNet]| {
        list.iter().map(|n| pb::Address { address: ip_bytes(n.addr()).into(), length: n.prefix_len().into() }).collect()
    };
    let ports = |list: &[u16]| list.iter().map(|p| u32::from(*p)).collect();
    let accounts = |list: &[NamespacedName]| {
        list.iter()
            .map(|a| pb::ServiceAccountMatch {
                namespace: a.namespace.to_string(),
                service_account: a.name.to_string(),
            })
            .collect()
    };
    pb::Match {
        namespaces: texts(&m.namespaces),
        not_namespaces: texts(&m.not_namespaces),
        principals: texts(&m.principals),
        not_principals: texts(&m.not_principals),
        source_ips: nets(&m.source_ips),
        not_source_ips: nets(&m.not_source_ips),
        destination_ips: nets(&m.destination_ips),
        not_destination_ips: nets(&m.not_destination_ips),
        destination_ports: ports(&m.destination_ports),
        not_destination_ports: ports(&m.not_destination_ports),
        service_accounts: accounts(&m.service_accounts),
        not_service_accounts: accounts(&m.not_service_accounts),
        // What cannot be evaluated cannot be said either; an empty extension keeps the receiver as careful as we are.
        extensions: m
            .unsupported
            .then(Extension::default)
            .into_iter()
            .chain(m.http.as_deref().map(http_wire::write))
            .collect(),
    }
}
