//! The rules of an AuthorizationPolicy → [`Rule`]s, for whoever evaluates them: ztunnel knows connections, a waypoint
//! requests, too.

use std::sync::Arc;

use mesh_model::address::NamespacedName;
use mesh_model::policy::http::{HeaderCondition, HttpMatch, PathPattern};
use mesh_model::policy::{Action, ClaimCondition, Clause, Match, RequestPrincipal, Rule, StringMatch};

use super::notes::{At, Notes};
use crate::resources::authorization_policy::{
    self as written, Attribute, Operation, Source, claim_path, parse_ip_block, parse_port,
};

/// What cannot be decided, in order.
struct Undecidable {
    at: At,
    names: Vec<String>,
}

/// One rule, or several of which any may hold; none when it must be left out.
pub(super) fn rule(
    index: usize,
    written: &written::Rule,
    action: &Action,
    namespace: &str,
    notes: &mut Notes,
) -> Vec<Rule> {
    let mut http = Undecidable { at: notes.at, names: Vec::new() };
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
    if !http.names.is_empty() {
        notes.rules.push(index);
        if rules.iter().any(|rule| rule.clauses.is_empty()) {
            notes.nothing_left.push(index);
        }
        for name in http.names {
            if !notes.http.contains(&name) {
                notes.http.push(name);
            }
        }
        if *action == Action::Allow {
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

fn source(source: &Source, namespace: &str, http: &mut Undecidable, spiffe: &mut bool) -> Caller {
    let of_tokens = http.at == At::Ztunnel;
    for (name, values, cannot) in [
        ("remoteIpBlocks", &source.remote_ip_blocks, true),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks, true),
        ("requestPrincipals", &source.request_principals, of_tokens),
        ("notRequestPrincipals", &source.not_request_principals, of_tokens),
    ] {
        http.names.extend(values.as_ref().filter(|_| cannot).map(|_| name.to_owned()));
    }
    let token = HttpMatch {
        request_principals: request_principals(&source.request_principals),
        not_request_principals: request_principals(&source.not_request_principals),
        ..HttpMatch::default()
    };
    let mut caller = Match {
        namespaces: strings(&source.namespaces),
        not_namespaces: strings(&source.not_namespaces),
        principals: principals(&source.principals, spiffe),
        not_principals: principals(&source.not_principals, spiffe),
        source_ips: blocks(&source.ip_blocks),
        not_source_ips: blocks(&source.not_ip_blocks),
        service_accounts: accounts(&source.service_accounts, namespace),
        not_service_accounts: accounts(&source.not_service_accounts, namespace),
        http: (!of_tokens && token != HttpMatch::default()).then(|| Arc::new(token)),
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
fn trust_domains(field: &str, values: &Option<Vec<String>>, undecidable: &mut Undecidable) -> Vec<StringMatch> {
    let values = values.as_deref().unwrap_or_default();
    let of = |value: &String| match (value.as_str(), value.strip_suffix('*')) {
        ("*", _) => Some(StringMatch::Presence),
        (_, Some(prefix)) => Some(StringMatch::Prefix(prefix.into())),
        (whole, None) if !whole.starts_with('*') => Some(StringMatch::Prefix(format!("{whole}/").into())),
        _ => None,
    };
    let all: Option<Vec<_>> = values.iter().map(of).collect();
    all.unwrap_or_else(|| {
        undecidable.names.push(format!("{field} with * at the beginning"));
        Vec::new()
    })
}

fn operation(operation: &Operation, http: &mut Undecidable) -> Match {
    let request = match http.at {
        At::Waypoint => request(operation),
        At::Ztunnel => {
            for (name, values) in [
                ("hosts", &operation.hosts),
                ("notHosts", &operation.not_hosts),
                ("methods", &operation.methods),
                ("notMethods", &operation.not_methods),
                ("paths", &operation.paths),
                ("notPaths", &operation.not_paths),
            ] {
                http.names.extend(values.as_ref().map(|_| name.to_owned()));
            }
            HttpMatch::default()
        }
    };
    Match {
        destination_ports: ports(&operation.ports),
        not_destination_ports: ports(&operation.not_ports),
        http: (request != HttpMatch::default()).then(|| Arc::new(request)),
        ..Match::default()
    }
}

/// Conditions on a request.
fn request(operation: &Operation) -> HttpMatch {
    // Hosts are compared in lower case.
    let hosts =
        |values: &Option<Vec<String>>| values.iter().flatten().map(|v| string_match(&v.to_ascii_lowercase())).collect();
    let paths = |values: &Option<Vec<String>>| values.iter().flatten().map(|value| path(value)).collect();
    HttpMatch {
        hosts: hosts(&operation.hosts),
        not_hosts: hosts(&operation.not_hosts),
        methods: strings(&operation.methods),
        not_methods: strings(&operation.not_methods),
        paths: paths(&operation.paths),
        not_paths: paths(&operation.not_paths),
        ..HttpMatch::default()
    }
}

fn path(value: &str) -> PathPattern {
    if value.contains("{*}") || value.contains("{**}") {
        PathPattern::Template(value.into())
    } else {
        PathPattern::Text(string_match(value))
    }
}

/// `request.headers[name]`.
fn header(condition: &written::Condition) -> Option<HttpMatch> {
    let name = condition.key.strip_prefix("request.headers[")?.strip_suffix(']')?;
    let header = HeaderCondition {
        name: name.to_ascii_lowercase().into(),
        values: strings(&condition.values),
        not_values: strings(&condition.not_values),
    };
    Some(HttpMatch { headers: vec![header], ..HttpMatch::default() })
}

/// `request.auth.*`.
fn token(condition: &written::Condition) -> Option<HttpMatch> {
    let claims = |path: Vec<Arc<str>>| {
        let (values, not_values) = (strings(&condition.values), strings(&condition.not_values));
        HttpMatch { claims: vec![ClaimCondition { path, values, not_values }], ..HttpMatch::default() }
    };
    Some(match condition.key.strip_prefix("request.auth.")? {
        "principal" => HttpMatch {
            request_principals: request_principals(&condition.values),
            not_request_principals: request_principals(&condition.not_values),
            ..HttpMatch::default()
        },
        "audiences" => claims(vec!["aud".into()]),
        "presenter" => claims(vec!["azp".into()]),
        key => claims(claim_path(key.strip_prefix("claims")?)?.into_iter().map(Arc::from).collect()),
    })
}

fn request_principals(values: &Option<Vec<String>>) -> Vec<RequestPrincipal> {
    values.iter().flatten().map(|value| RequestPrincipal::parse(value)).collect()
}

fn when(condition: &written::Condition, namespace: &str, http: &mut Undecidable, spiffe: &mut bool) -> Match {
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
            let request = header(condition).or_else(|| token(condition)).filter(|_| http.at == At::Waypoint);
            if request.is_none() {
                http.names.push(condition.key.clone());
            }
            Match { http: request.map(Arc::new), ..Match::default() }
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
pub(super) fn string_match(value: &str) -> StringMatch {
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
