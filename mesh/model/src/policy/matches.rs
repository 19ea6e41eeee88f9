//! One rule against the facts.

use std::net::IpAddr;

use ipnet::IpNet;

use super::facts::HttpFacts;
use super::outcome::Outcome;
use super::{Clause, Facts, Match, Rule, requests};
use crate::address::NamespacedName;

/// All clauses; none always matches.
pub(super) fn rule(rule: &Rule, facts: &Facts, http: Option<HttpFacts<'_>>) -> Outcome {
    rule.clauses.iter().map(|c| clause(c, facts, http)).fold(Outcome::Met, Outcome::and)
}

/// Any match; none is satisfied.
fn clause(clause: &Clause, facts: &Facts, http: Option<HttpFacts<'_>>) -> Outcome {
    if clause.matches.is_empty() {
        return Outcome::Met;
    }
    clause.matches.iter().map(|m| one(m, facts, http)).fold(Outcome::NotMet, Outcome::or)
}

/// All fields that are set; none set never matches.
fn one(m: &Match, facts: &Facts, http: Option<HttpFacts<'_>>) -> Outcome {
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
    let known = allows(&m.namespaces, |s| s.matches(namespace))
        && excludes(&m.not_namespaces, |s| s.matches(namespace))
        && allows(&m.principals, |s| source.is_some() && s.matches(principal))
        && excludes(&m.not_principals, |s| source.is_some() && s.matches(principal))
        && allows(&m.source_ips, |net| contains(net, facts.source_ip))
        && excludes(&m.not_source_ips, |net| contains(net, facts.source_ip))
        && allows(&m.destination_ips, |net| contains(net, facts.destination.ip()))
        && excludes(&m.not_destination_ips, |net| contains(net, facts.destination.ip()))
        && allows(&m.destination_ports, |port| *port == facts.destination.port())
        && excludes(&m.not_destination_ports, |port| *port == facts.destination.port())
        && allows(&m.service_accounts, account)
        && excludes(&m.not_service_accounts, account);
    let read = if m.unsupported { Outcome::Unknown } else { Outcome::Met };
    let request = match (&m.http, http) {
        (None, _) => Outcome::Met,
        (Some(_), None) => Outcome::Unknown,
        (Some(conditions), Some(http)) => requests::meets(conditions, http),
    };
    Outcome::from_bool(known).and(read).and(request)
}

/// An empty list imposes nothing; otherwise one value must hold.
fn allows<T>(wanted: &[T], holds: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(holds)
}

/// No value may hold.
fn excludes<T>(unwanted: &[T], holds: impl Fn(&T) -> bool) -> bool {
    !unwanted.iter().any(holds)
}

fn contains(net: &IpNet, ip: IpAddr) -> bool {
    net.contains(&ip)
}
