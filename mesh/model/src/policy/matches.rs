//! One rule against the facts.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Clause, Facts, Match, Rule, StringMatch};
use crate::address::NamespacedName;

/// Whether something holds. *Unknown* is for what this proxy cannot evaluate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Met,
    /// It does not.
    NotMet,
    /// It cannot be told here: counts as met in a deny policy and as not met in an allow policy.
    Unknown,
}

impl Outcome {
    fn from_bool(met: bool) -> Self {
        if met { Self::Met } else { Self::NotMet }
    }

    /// Three-valued AND: one `NotMet` settles it, otherwise one `Unknown` does.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::NotMet, _) | (_, Self::NotMet) => Self::NotMet,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            _ => Self::Met,
        }
    }

    /// Three-valued OR: one `Met` settles it, otherwise one `Unknown` does.
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Met, _) | (_, Self::Met) => Self::Met,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            _ => Self::NotMet,
        }
    }
}

/// All clauses; none always matches.
pub(super) fn rule(rule: &Rule, facts: &Facts) -> Outcome {
    rule.clauses.iter().map(|c| clause(c, facts)).fold(Outcome::Met, Outcome::and)
}

/// Any match; none is satisfied.
fn clause(clause: &Clause, facts: &Facts) -> Outcome {
    if clause.matches.is_empty() {
        return Outcome::Met;
    }
    clause.matches.iter().map(|m| one(m, facts)).fold(Outcome::NotMet, Outcome::or)
}

/// All fields that are set; none set never matches.
fn one(m: &Match, facts: &Facts) -> Outcome {
    if *m == Match::default() {
        return Outcome::NotMet;
    }
    let source = facts.source.as_ref();
    let namespace = source.map_or("", |id| id.namespace());
    let principal = source.map(|id| id.principal());
    let principal = principal.as_deref().unwrap_or("");
    let account = |wanted: &NamespacedName| {
        source.is_some_and(|id| *id.namespace() == wanted.namespace && *id.service_account() == wanted.name)
    };
    let known = allows(&m.namespaces, |s| text(s, namespace))
        && excludes(&m.not_namespaces, |s| text(s, namespace))
        && allows(&m.principals, |s| source.is_some() && text(s, principal))
        && excludes(&m.not_principals, |s| source.is_some() && text(s, principal))
        && allows(&m.source_ips, |net| contains(net, facts.source_ip))
        && excludes(&m.not_source_ips, |net| contains(net, facts.source_ip))
        && allows(&m.destination_ips, |net| contains(net, facts.destination.ip()))
        && excludes(&m.not_destination_ips, |net| contains(net, facts.destination.ip()))
        && allows(&m.destination_ports, |port| *port == facts.destination.port())
        && excludes(&m.not_destination_ports, |port| *port == facts.destination.port())
        && allows(&m.service_accounts, account)
        && excludes(&m.not_service_accounts, account);
    let extra = if m.unsupported || m.http.is_some() { Outcome::Unknown } else { Outcome::Met };
    Outcome::from_bool(known).and(extra)
}

/// An empty list imposes nothing; otherwise one value must hold.
fn allows<T>(wanted: &[T], holds: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(holds)
}

/// No value may hold.
fn excludes<T>(unwanted: &[T], holds: impl Fn(&T) -> bool) -> bool {
    !unwanted.iter().any(holds)
}

fn text(pattern: &StringMatch, value: &str) -> bool {
    match pattern {
        StringMatch::Exact(x) => **x == *value,
        StringMatch::Prefix(x) => value.starts_with(&**x),
        StringMatch::Suffix(x) => value.ends_with(&**x),
        StringMatch::Presence => !value.is_empty(),
    }
}

fn contains(net: &IpNet, ip: IpAddr) -> bool {
    net.contains(&ip)
}
