//! One rule against the facts.

use std::cell::OnceCell;
use std::net::IpAddr;

use ipnet::IpNet;

use super::facts::HttpFacts;
use super::outcome::{Outcome, all, any};
use super::{Clause, Facts, Match, Rule, StringMatch, requests};
use crate::address::NamespacedName;

/// Who asks for what: that which conditions are held against.
pub(super) struct Subject<'a> {
    facts: &'a Facts,
    http: Option<HttpFacts<'a>>,
    /// As text, made once for however many conditions name principals.
    principal: OnceCell<String>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(facts: &'a Facts, http: Option<HttpFacts<'a>>) -> Self {
        Self { facts, http, principal: OnceCell::new() }
    }

    /// Of its identity, if it has one.
    pub(super) fn principal(&self) -> Option<&str> {
        let source = self.facts.source.as_ref()?;
        Some(self.principal.get_or_init(|| source.principal()))
    }

    /// Whether an authorizer of this name has let it pass.
    pub(super) fn is_granted(&self, authorizer: &str) -> bool {
        self.http.is_some_and(|http| http.granted.iter().any(|granted| **granted == *authorizer))
    }

    /// Of its identity; empty without one.
    pub(super) fn namespace(&self) -> &str {
        self.facts.source.as_ref().map_or("", |id| id.namespace())
    }
}

/// All clauses; none always matches.
pub(super) fn rule(rule: &Rule, subject: &Subject<'_>) -> Outcome {
    all(rule.clauses.iter().map(|one| clause(one, subject)))
}

/// Any match; none is satisfied.
fn clause(clause: &Clause, subject: &Subject<'_>) -> Outcome {
    if clause.matches.is_empty() {
        return Outcome::Met;
    }
    any(clause.matches.iter().map(|m| one(m, subject)))
}

/// All fields that are set; none set never matches.
fn one(m: &Match, subject: &Subject<'_>) -> Outcome {
    if m.is_empty() {
        return Outcome::NotMet;
    }
    let facts = subject.facts;
    let source = facts.source.as_ref();
    let namespace = subject.namespace();
    let principal = |wanted: &StringMatch| subject.principal().is_some_and(|own| wanted.matches(own));
    let account = |wanted: &NamespacedName| {
        source.is_some_and(|id| *id.namespace() == wanted.namespace && *id.service_account() == wanted.name)
    };
    let known = allows(&m.namespaces, |s| s.matches(namespace))
        && excludes(&m.not_namespaces, |s| s.matches(namespace))
        && allows(&m.principals, principal)
        && excludes(&m.not_principals, principal)
        && allows(&m.source_ips, |net| contains(net, facts.source_ip))
        && excludes(&m.not_source_ips, |net| contains(net, facts.source_ip))
        && allows(&m.destination_ips, |net| contains(net, facts.destination.ip()))
        && excludes(&m.not_destination_ips, |net| contains(net, facts.destination.ip()))
        && allows(&m.destination_ports, |port| *port == facts.destination.port())
        && excludes(&m.not_destination_ports, |port| *port == facts.destination.port())
        && allows(&m.service_accounts, account)
        && excludes(&m.not_service_accounts, account);
    if !known {
        return Outcome::NotMet;
    }
    let read = if m.unsupported { Outcome::Unknown } else { Outcome::Met };
    let request = match (&m.http, subject.http) {
        (None, _) => Outcome::Met,
        (Some(_), None) => Outcome::Unknown,
        (Some(conditions), Some(http)) => requests::meets(conditions, http),
    };
    read.and(request)
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
