//! Policies, as they are shown: rules of clauses of matches, what is empty left out.

use mesh_model::address::NamespacedName;
use mesh_model::policy::{Action, Match, Policy, Scope, StringMatch};
use serde_json::{Map, Value, json};

pub(super) fn policy(p: &Policy) -> Value {
    let rules: Vec<Vec<Vec<Value>>> = p
        .rules
        .iter()
        .map(|rule| rule.clauses.iter().map(|clause| clause.matches.iter().map(one_match).collect()).collect())
        .collect();
    json!({
        "name": &*p.name,
        "namespace": &*p.namespace,
        "scope": match p.scope {
            Scope::Global => "Global",
            Scope::Namespace => "Namespace",
            Scope::WorkloadSelector => "WorkloadSelector",
        },
        "action": match p.action {
            Action::Allow => "Allow",
            Action::Deny => "Deny",
            Action::Audit => "Audit",
            Action::Custom(_) => "Custom",
        },
        "dryRun": p.dry_run,
        "rules": rules,
    })
}

fn one_match(m: &Match) -> Value {
    let mut shown = Map::new();
    let mut put = |name: &str, list: Vec<Value>| {
        if !list.is_empty() {
            shown.insert(name.to_owned(), Value::Array(list));
        }
    };
    let texts = |list: &[StringMatch]| list.iter().map(text).collect::<Vec<_>>();
    put("namespaces", texts(&m.namespaces));
    put("notNamespaces", texts(&m.not_namespaces));
    put("principals", texts(&m.principals));
    put("notPrincipals", texts(&m.not_principals));
    let accounts = |list: &[NamespacedName]| list.iter().map(account).collect::<Vec<_>>();
    put("serviceAccounts", accounts(&m.service_accounts));
    put("notServiceAccounts", accounts(&m.not_service_accounts));
    for (name, list) in [
        ("sourceIps", &m.source_ips),
        ("notSourceIps", &m.not_source_ips),
        ("destinationIps", &m.destination_ips),
        ("notDestinationIps", &m.not_destination_ips),
    ] {
        put(name, list.iter().map(|net| net.to_string().into()).collect());
    }
    put("destinationPorts", m.destination_ports.iter().map(|port| (*port).into()).collect());
    put("notDestinationPorts", m.not_destination_ports.iter().map(|port| (*port).into()).collect());
    if m.unsupported {
        shown.insert("unsupported".to_owned(), true.into());
    }
    Value::Object(shown)
}

fn text(text: &StringMatch) -> Value {
    match text {
        StringMatch::Exact(text) => json!({ "Exact": &**text }),
        StringMatch::Prefix(text) => json!({ "Prefix": &**text }),
        StringMatch::Suffix(text) => json!({ "Suffix": &**text }),
        StringMatch::Presence => json!({ "Presence": [] }),
    }
}

fn account(account: &NamespacedName) -> Value {
    json!({ "namespace": &*account.namespace, "serviceAccount": &*account.name })
}
