//! The tables of section 6.2 of the Istio ambient contract, a named row for each line.

use std::net::IpAddr;

use super::*;
use crate::address::canonical_ip;

fn facts() -> Facts {
    Facts {
        source_ip: ip("10.0.0.1"),
        source: Some("spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()),
        destination: "10.0.0.2:8080".parse().unwrap(),
    }
}

fn plaintext() -> Facts {
    Facts { source: None, ..facts() }
}

fn ip(text: &str) -> IpAddr {
    canonical_ip(text.parse().unwrap())
}

fn m(set: impl FnOnce(&mut Match)) -> Match {
    let mut m = Match::default();
    set(&mut m);
    m
}

fn yes() -> Match {
    m(|m| m.destination_ports = vec![8080])
}

fn no() -> Match {
    m(|m| m.destination_ports = vec![9090])
}

fn unknown() -> Match {
    m(|m| m.unsupported = true)
}

fn nothing_set() -> Match {
    Match::default()
}

/// Rules of clauses of matches.
fn rules<const R: usize>(rules: [Vec<Vec<Match>>; R]) -> Vec<Rule> {
    rules.into_iter().map(|c| Rule { clauses: c.into_iter().map(|matches| Clause { matches }).collect() }).collect()
}

fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Arc<Policy> {
    let (name, namespace) = (name.into(), "shop".into());
    Arc::new(Policy { name, namespace, scope: Scope::Namespace, action, rules, dry_run: false })
}

fn dry(policy: Arc<Policy>) -> Arc<Policy> {
    Arc::new(Policy { dry_run: true, ..(*policy).clone() })
}

fn key(name: &str) -> NamespacedName {
    NamespacedName::new("shop", name)
}

/// An outcome is right when an allow policy of these rules lets in exactly what is *met*, and a deny policy keeps
/// out what is *met* and what is *unknown*.
fn check(name: &str, rules: &[Rule], facts: &Facts, want: Outcome) {
    let allow = decide([&policy("p", Action::Allow, rules.to_vec())], facts);
    assert_eq!(allow.allowed, want == Outcome::Met, "allow policy: {name}: {allow:?}");
    let deny = decide([&policy("p", Action::Deny, rules.to_vec())], facts);
    assert_eq!(deny.allowed, want == Outcome::NotMet, "deny policy: {name}: {deny:?}");
}

#[test]
fn levels_of_a_policy() {
    use Outcome::*;
    let table = [
        ("no rules: never matches (trap 41)", rules([]), NotMet),
        ("rule without clauses: always matches (trap 41)", rules([vec![]]), Met),
        ("clause without matches: satisfied (trap 41)", rules([vec![vec![]]]), Met),
        ("match with nothing set: never matches (trap 41)", rules([vec![vec![nothing_set()]]]), NotMet),
        ("one match met", rules([vec![vec![yes()]]]), Met),
        ("one match not met", rules([vec![vec![no()]]]), NotMet),
        ("rules: OR, the first", rules([vec![vec![yes()]], vec![vec![no()]]]), Met),
        ("rules: OR, the last", rules([vec![vec![no()]], vec![vec![yes()]]]), Met),
        ("rules: OR, none", rules([vec![vec![no()]], vec![vec![no()]]]), NotMet),
        ("clauses: AND, all", rules([vec![vec![yes()], vec![yes()]]]), Met),
        ("clauses: AND, one missing", rules([vec![vec![yes()], vec![no()]]]), NotMet),
        ("clauses: AND with a satisfied empty one", rules([vec![vec![yes()], vec![]]]), Met),
        ("matches: OR, one", rules([vec![vec![no(), yes()]]]), Met),
        ("matches: OR, none", rules([vec![vec![no(), no()]]]), NotMet),
        ("matches: one with nothing set does not spoil another", rules([vec![vec![nothing_set(), yes()]]]), Met),
        (
            "a clause of an empty match stops its rule (trap 44)",
            rules([vec![vec![yes()], vec![nothing_set()]]]),
            NotMet,
        ),
        (
            "rules do not mix their clauses",
            rules([vec![vec![yes()], vec![no()]], vec![vec![no()], vec![yes()]]]),
            NotMet,
        ),
        ("unknown alone", rules([vec![vec![unknown()]]]), Unknown),
        ("unknown OR met", rules([vec![vec![unknown(), yes()]]]), Met),
        ("unknown OR not met", rules([vec![vec![unknown(), no()]]]), Unknown),
        ("unknown AND met", rules([vec![vec![unknown()], vec![yes()]]]), Unknown),
        ("unknown AND not met", rules([vec![vec![unknown()], vec![no()]]]), NotMet),
        ("unknown in one rule, met in another", rules([vec![vec![unknown()]], vec![vec![yes()]]]), Met),
        ("unknown in one rule, not met in another", rules([vec![vec![unknown()]], vec![vec![no()]]]), Unknown),
    ];
    for (name, rules, want) in table {
        check(name, &rules, &facts(), want);
    }
}

#[test]
fn fields_of_a_match() {
    use Outcome::*;
    use StringMatch as S;
    let account = |ns: &str, sa: &str| NamespacedName::new(ns, sa);
    let principal = "cluster.local/ns/shop/sa/cart";
    let known: Vec<(&str, Match, Outcome)> = vec![
        ("fields: AND, all", m(|m| (m.destination_ports, m.source_ips) = (vec![8080], nets(["10.0.0.0/8"]))), Met),
        ("fields: AND, one not", m(|m| (m.destination_ports, m.source_ips) = (vec![1], nets(["10.0.0.0/8"]))), NotMet),
        ("values: OR", m(|m| m.destination_ports = vec![1, 8080]), Met),
        ("not_ values: none may match", m(|m| m.not_destination_ports = vec![1, 8080]), NotMet),
        ("not_ values: none does", m(|m| m.not_destination_ports = vec![1, 2]), Met),
        (
            "positive and not_ of a field: both",
            m(|m| (m.destination_ports, m.not_destination_ports) = (vec![8080], vec![1])),
            Met,
        ),
        (
            "positive and not_ of a field: not_ wins",
            m(|m| (m.destination_ports, m.not_destination_ports) = (vec![8080], vec![8080])),
            NotMet,
        ),
        ("unsupported beside a met field", m(|m| (m.unsupported, m.destination_ports) = (true, vec![8080])), Unknown),
        (
            "unsupported beside a field that is not met",
            m(|m| (m.unsupported, m.destination_ports) = (true, vec![1])),
            NotMet,
        ),
        (
            "unsupported beside an excluding field",
            m(|m| (m.unsupported, m.not_destination_ports) = (true, vec![8080])),
            NotMet,
        ),
        ("principals: exact", m(|m| m.principals = vec![S::Exact(principal.into())]), Met),
        ("principals: prefix", m(|m| m.principals = vec![S::Prefix("cluster.local/ns/shop/".into())]), Met),
        ("principals: suffix", m(|m| m.principals = vec![S::Suffix("/sa/cart".into())]), Met),
        ("principals: presence", m(|m| m.principals = vec![S::Presence]), Met),
        (
            "principals: exact is the whole",
            m(|m| m.principals = vec![S::Exact("cluster.local/ns/shop".into())]),
            NotMet,
        ),
        (
            "principals: case matters",
            m(|m| m.principals = vec![S::Exact("Cluster.local/ns/shop/sa/cart".into())]),
            NotMet,
        ),
        (
            "principals: written with spiffe:// never match (trap 48)",
            m(|m| m.principals = vec![S::Exact(format!("spiffe://{principal}").into())]),
            NotMet,
        ),
        (
            "principals: another trust domain",
            m(|m| m.principals = vec![S::Exact("other/ns/shop/sa/cart".into())]),
            NotMet,
        ),
        ("not_principals: listed", m(|m| m.not_principals = vec![S::Exact(principal.into())]), NotMet),
        ("not_principals: presence, with identity (trap 42)", m(|m| m.not_principals = vec![S::Presence]), NotMet),
        ("namespaces: exact", m(|m| m.namespaces = vec![S::Exact("shop".into())]), Met),
        ("namespaces: prefix", m(|m| m.namespaces = vec![S::Prefix("sh".into())]), Met),
        ("namespaces: suffix of another", m(|m| m.namespaces = vec![S::Suffix("hope".into())]), NotMet),
        ("not_namespaces", m(|m| m.not_namespaces = vec![S::Exact("shop".into())]), NotMet),
        ("not_namespaces: another", m(|m| m.not_namespaces = vec![S::Exact("bank".into())]), Met),
        ("service accounts: trust domain ignored", m(|m| m.service_accounts = vec![account("shop", "cart")]), Met),
        ("service accounts: other namespace", m(|m| m.service_accounts = vec![account("bank", "cart")]), NotMet),
        ("service accounts: no prefixes", m(|m| m.service_accounts = vec![account("shop", "car")]), NotMet),
        ("not_service_accounts", m(|m| m.not_service_accounts = vec![account("shop", "cart")]), NotMet),
        ("source ips: block", m(|m| m.source_ips = nets(["10.0.0.0/24"])), Met),
        ("source ips: one address", m(|m| m.source_ips = nets(["10.0.0.1/32"])), Met),
        ("source ips: outside", m(|m| m.source_ips = nets(["10.0.1.0/24"])), NotMet),
        ("source ips: host bits do not matter", m(|m| m.source_ips = nets(["10.0.0.77/24"])), Met),
        ("source ips: everything of the family", m(|m| m.source_ips = nets(["0.0.0.0/0"])), Met),
        ("source ips: the other family's everything", m(|m| m.source_ips = nets(["::/0"])), NotMet),
        ("not_source_ips", m(|m| m.not_source_ips = nets(["10.0.0.0/8"])), NotMet),
        ("destination ips", m(|m| m.destination_ips = nets(["10.0.0.2/32"])), Met),
        ("destination ips are not source ips", m(|m| m.destination_ips = nets(["10.0.0.1/32"])), NotMet),
        ("not_destination_ips", m(|m| m.not_destination_ips = nets(["10.0.0.2/32"])), NotMet),
        ("destination ports: the container's (trap 43)", m(|m| m.destination_ports = vec![8080]), Met),
        ("destination ports: not HBONE's (trap 43)", m(|m| m.destination_ports = vec![15008]), NotMet),
    ];
    for (name, m, want) in known {
        check(name, &rules([vec![vec![m]]]), &facts(), want);
    }

    let no_identity: Vec<(&str, Match, Outcome)> = vec![
        ("principals: presence", m(|m| m.principals = vec![S::Presence]), NotMet),
        ("principals: empty suffix", m(|m| m.principals = vec![S::Suffix("".into())]), NotMet),
        ("principals: empty exact", m(|m| m.principals = vec![S::Exact("".into())]), NotMet),
        ("not_principals: presence catches plaintext (trap 42)", m(|m| m.not_principals = vec![S::Presence]), Met),
        (
            "not_principals: any list is satisfied",
            m(|m| m.not_principals = vec![S::Exact(principal.into()), S::Suffix("".into())]),
            Met,
        ),
        ("namespaces: presence", m(|m| m.namespaces = vec![S::Presence]), NotMet),
        ("namespaces: compared as the empty string", m(|m| m.namespaces = vec![S::Prefix("".into())]), Met),
        ("namespaces: exact", m(|m| m.namespaces = vec![S::Exact("shop".into())]), NotMet),
        ("not_namespaces: presence", m(|m| m.not_namespaces = vec![S::Presence]), Met),
        ("not_namespaces: exact", m(|m| m.not_namespaces = vec![S::Exact("shop".into())]), Met),
        ("service accounts", m(|m| m.service_accounts = vec![account("shop", "cart")]), NotMet),
        ("service accounts: empty names are no identity", m(|m| m.service_accounts = vec![account("", "")]), NotMet),
        ("not_service_accounts", m(|m| m.not_service_accounts = vec![account("shop", "cart")]), Met),
        (
            "addresses and ports as with identity",
            m(|m| (m.source_ips, m.destination_ports) = (nets(["10.0.0.1/32"]), vec![8080])),
            Met,
        ),
    ];
    for (name, m, want) in no_identity {
        check(&format!("plaintext: {name}"), &rules([vec![vec![m]]]), &plaintext(), want);
    }
}

fn nets<const N: usize>(nets: [&str; N]) -> Vec<IpNet> {
    nets.into_iter().map(|n| n.parse().unwrap()).collect()
}

#[test]
fn addresses_of_both_families() {
    use Outcome::*;
    for (name, net, source, want) in [
        ("IPv6 in its block", "fd00::/64", "fd00::1", Met),
        ("IPv6 outside", "fd00::/64", "fd00:0:0:1::1", NotMet),
        ("IPv6 everything", "::/0", "fd00::1", Met),
        ("IPv4 everything holds no IPv6", "0.0.0.0/0", "fd00::1", NotMet),
        ("a peer's mapped address is its IPv4 address", "10.0.0.0/8", "::ffff:10.0.0.1", Met),
        ("a mapped address is not IPv6", "::/0", "::ffff:10.0.0.1", NotMet),
    ] {
        let facts = Facts { source_ip: ip(source), ..facts() };
        check(name, &rules([vec![vec![m(|m| m.source_ips = nets([net]))]]]), &facts, want);
    }
}

#[test]
fn audit_policies_are_named_and_change_nothing() {
    let (met, unmet, unsure) = (rules([vec![vec![yes()]]]), rules([vec![vec![no()]]]), rules([vec![vec![unknown()]]]));
    let audit = |name: &str, r: &Vec<Rule>| policy(name, Action::Audit, r.clone());
    let audits = [audit("a", &met), audit("b", &unmet), audit("c", &unsure), dry(audit("d", &met))];
    for (others, reason) in [
        (vec![], Reason::NoPolicy),
        (vec![policy("x", Action::Allow, met.clone())], Reason::AllowedBy(key("x"), 0)),
        (vec![policy("x", Action::Allow, unmet.clone())], Reason::NotAllowed(vec![key("x")])),
        (vec![policy("x", Action::Deny, met.clone())], Reason::DeniedBy(key("x"), 0)),
    ] {
        let allowed = matches!(reason, Reason::NoPolicy | Reason::AllowedBy(..));
        let decision = decide(others.iter().chain(&audits), &facts());
        let (dry_run, audited) = (vec![key("d")], vec![key("a"), key("c")]);
        assert_eq!(decision, Decision { allowed, reason, dry_run, audited });
    }
}

#[test]
fn policies_together() {
    use Action::{Allow, Deny};
    let (met, unmet, unsure) = (rules([vec![vec![yes()]]]), rules([vec![vec![no()]]]), rules([vec![vec![unknown()]]]));
    let second = rules([vec![vec![no()]], vec![vec![yes()]]]);
    let allow = |name: &str, r: &Vec<Rule>| policy(name, Allow, r.clone());
    let deny = |name: &str, r: &Vec<Rule>| policy(name, Deny, r.clone());
    let none = Vec::new();
    let by = |name: &str, rule| Reason::AllowedBy(key(name), rule);
    let not = |name: &str, rule| Reason::DeniedBy(key(name), rule);
    let unmatched = |names: &[&str]| Reason::NotAllowed(names.iter().map(|name| key(name)).collect());
    let table = [
        ("no policy allows", vec![], Reason::NoPolicy, vec![]),
        ("a deny that does not match allows", vec![deny("d", &unmet)], Reason::NoPolicy, vec![]),
        ("a deny that matches denies", vec![deny("d", &met)], not("d", 0), vec![]),
        ("the rule that matched is named", vec![deny("d", &second)], not("d", 1), vec![]),
        ("an allow that matches allows", vec![allow("a", &met)], by("a", 0), vec![]),
        ("the rule that allowed is named", vec![allow("a", &second)], by("a", 1), vec![]),
        ("an allow that does not match denies", vec![allow("a", &unmet)], unmatched(&["a"]), vec![]),
        ("an allow without rules denies all", vec![allow("a", &none)], unmatched(&["a"]), vec![]),
        ("a deny without rules denies nobody", vec![deny("d", &none)], Reason::NoPolicy, vec![]),
        ("one allow of several is enough", vec![allow("a", &unmet), allow("b", &met)], by("b", 0), vec![]),
        ("no allow of several", vec![allow("a", &unmet), allow("b", &unmet)], unmatched(&["a", "b"]), vec![]),
        ("the first allow is named", vec![allow("a", &met), allow("b", &met)], by("a", 0), vec![]),
        ("the first deny is named", vec![deny("d", &met), deny("e", &met)], not("d", 0), vec![]),
        ("deny wins over allow", vec![allow("a", &met), deny("d", &met)], not("d", 0), vec![]),
        ("deny wins in either order", vec![deny("d", &met), allow("a", &met)], not("d", 0), vec![]),
        ("an unmet deny leaves it to allow", vec![deny("d", &unmet), allow("a", &met)], by("a", 0), vec![]),
        ("a deny that cannot be evaluated denies", vec![deny("d", &unsure), allow("a", &met)], not("d", 0), vec![]),
        ("an allow that cannot be evaluated does not allow", vec![allow("a", &unsure)], unmatched(&["a"]), vec![]),
        ("a dry deny only tells", vec![dry(deny("d", &met))], Reason::NoPolicy, vec![key("d")]),
        ("a dry deny beside an allow", vec![dry(deny("d", &met)), allow("a", &met)], by("a", 0), vec![key("d")]),
        (
            "a dry allow does not allow",
            vec![dry(allow("a", &met)), allow("b", &unmet)],
            unmatched(&["b"]),
            vec![key("a")],
        ),
        ("a dry allow is no allow policy", vec![dry(allow("a", &unmet))], Reason::NoPolicy, vec![]),
        (
            "dry policies are told of beside a deny",
            vec![deny("d", &met), dry(allow("a", &met))],
            not("d", 0),
            vec![key("a")],
        ),
    ];
    for (name, policies, reason, dry_run) in table {
        let allowed = matches!(reason, Reason::NoPolicy | Reason::AllowedBy(..));
        assert_eq!(decide(&policies, &facts()), Decision { allowed, reason, dry_run, audited: Vec::new() }, "{name}");
    }
}

/// What a control plane makes of PeerAuthentication (contract 6.5), decided on.
/// Section 6.5, STRICT and its ports. Traps 42 and 43.
#[test]
fn strict_mutual_tls() {
    let no_identity = || m(|m| m.not_principals = vec![StringMatch::Presence]);
    let not_port = |port| m(move |m| m.not_destination_ports = vec![port]);
    let on_port =
        |port| m(move |m| (m.not_principals, m.destination_ports) = (vec![StringMatch::Presence], vec![port]));
    let strict = policy("strict", Action::Deny, rules([vec![vec![no_identity()]]]));
    let except_8080 = policy("except", Action::Deny, rules([vec![vec![no_identity()], vec![not_port(8080)]]]));
    let except_9090 = policy("except", Action::Deny, rules([vec![vec![no_identity()], vec![not_port(9090)]]]));
    let except_both =
        policy("except", Action::Deny, rules([vec![vec![no_identity()], vec![not_port(8080)], vec![not_port(9090)]]]));
    let only_8080 = policy("only", Action::Deny, rules([vec![vec![on_port(8080)]]]));
    let only_9090 = policy("only", Action::Deny, rules([vec![vec![on_port(9090)]]]));
    for (name, policy, facts, allowed) in [
        ("strict refuses plaintext", &strict, plaintext(), false),
        ("strict takes a proven peer", &strict, facts(), true),
        ("a permissive port takes plaintext", &except_8080, plaintext(), true),
        ("the other ports stay strict", &except_9090, plaintext(), false),
        ("one of two permissive ports takes plaintext", &except_both, plaintext(), true),
        ("a strict port refuses plaintext", &only_8080, plaintext(), false),
        ("a strict port takes a proven peer", &only_8080, facts(), true),
        ("the other ports stay permissive", &only_9090, plaintext(), true),
    ] {
        assert_eq!(decide([policy], &facts).allowed, allowed, "{name}");
    }
}

/// Trap 47: a waypoint calls as itself, so a rule about the caller behind it no longer matches at the pod.
#[test]
fn trap_47_the_waypoint_is_the_source() {
    let principal = |name: &str| {
        let pattern = StringMatch::Exact(format!("cluster.local/ns/shop/sa/{name}").into());
        policy(name, Action::Allow, rules([vec![vec![m(|m| m.principals = vec![pattern])]]]))
    };
    let direct = facts();
    let through = Facts { source: Some("spiffe://cluster.local/ns/shop/sa/waypoint".parse().unwrap()), ..facts() };
    let own = direct.source.as_ref().unwrap().service_account().to_string();
    for (name, policy, facts, allowed) in [
        ("the caller itself", principal(&own), &direct, true),
        ("the same caller through a waypoint", principal(&own), &through, false),
        ("what its rule has to name", principal("waypoint"), &through, true),
    ] {
        assert_eq!(decide([&policy], facts).allowed, allowed, "trap 47: {name}");
    }
}

#[test]
fn reasons_read_as_sentences() {
    for (reason, text) in [
        (Reason::NoPolicy, "no policy applies"),
        (Reason::AllowedBy(key("a"), 2), "allowed by: shop/a (rule 2)"),
        (Reason::DeniedBy(key("d"), 0), "explicitly denied by: shop/d (rule 0)"),
        (
            Reason::DeniedBy(key("istio_converted_static_strict"), 0),
            "explicitly denied by: shop/istio_converted_static_strict (rule 0), which stands for mutual TLS STRICT: a \
             PeerAuthentication of the workload, of its namespace or of the root namespace refuses plaintext",
        ),
        (
            Reason::DeniedBy(key("converted_peer_authentication_ports"), 1),
            "explicitly denied by: shop/converted_peer_authentication_ports (rule 1), which stands for \
             PeerAuthentication shop/ports",
        ),
        (Reason::NotAllowed(vec![key("a"), key("b")]), "allow policies exist, but none allowed: shop/a, shop/b"),
    ] {
        assert_eq!(reason.to_string(), text);
    }
    assert_eq!(Reason::DeniedBy(key("d"), 0).policy(), Some(&key("d")));
    assert_eq!(Reason::NotAllowed(vec![key("a")]).policy(), None);
}

#[test]
fn whom_a_policy_asks_decides_before_all_others() {
    use std::time::Duration;

    use crate::authorizer::{Authorizer, Protocol};
    use crate::http::{Received, Rules, canonical};

    let authorizer = |name: &str| Authorizer {
        name: name.into(),
        service: key("ask"),
        port: 80,
        timeout: Duration::from_secs(1),
        fail_open: false,
        status_on_error: ::http::StatusCode::FORBIDDEN,
        body: None,
        protocol: Protocol::Grpc,
    };
    let custom = |name: &str, asks: &str, m: Match| {
        policy(name, Action::Custom(Ok(authorizer(asks).into())), rules([vec![vec![m]]]))
    };
    let nobody = policy("nobody", Action::Custom(Err("provider x is not there".into())), rules([vec![]]));
    let (deny, allow) =
        (policy("deny", Action::Deny, rules([vec![]])), policy("allow", Action::Allow, rules([vec![vec![no()]]])));
    let headers = ::http::HeaderMap::from_iter([(::http::header::HOST, ::http::HeaderValue::from_static("cart"))]);
    let received = Received::of_target(::http::Version::HTTP_11, &::http::Method::GET, b"/", &headers);
    let request = canonical(&received, Rules::default()).unwrap();
    let facts = facts();
    let granted = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<Vec<Arc<str>>>();
    let not_granted = |name: &str| format!("not let pass by whom shop/{name} (rule 0) asks: ");
    // (policies, who has let it pass, whom to ask, what is decided)
    for (policies, let_pass, asked, decided) in [
        (vec![custom("c", "a", yes())], vec![], vec!["a"], not_granted("c")),
        (vec![custom("c", "a", yes())], vec!["b"], vec!["a"], not_granted("c")),
        (vec![custom("c", "a", yes())], vec!["a"], vec!["a"], "no policy applies".to_owned()),
        // Who is let pass by one is not let in by the others.
        (vec![allow.clone(), custom("c", "a", yes())], vec!["a"], vec!["a"], "allow policies exist".to_owned()),
        (
            vec![deny.clone(), custom("c", "a", yes())],
            vec!["a"],
            vec!["a"],
            "explicitly denied by: shop/deny".to_owned(),
        ),
        (vec![deny, custom("c", "a", yes())], vec![], vec!["a"], not_granted("c")),
        // Of what no rule matches nobody is asked.
        (vec![custom("c", "a", no())], vec![], vec![], "no policy applies".to_owned()),
        (vec![custom("c", "a", unknown())], vec![], vec!["a"], not_granted("c")),
        // Each is asked once.
        (
            vec![custom("c", "a", yes()), custom("d", "a", yes()), custom("e", "b", yes())],
            vec!["a"],
            vec!["a", "b"],
            not_granted("e"),
        ),
        (vec![dry(custom("c", "a", yes()))], vec![], vec![], "no policy applies".to_owned()),
        (vec![nobody], vec!["a"], vec![], format!("{}provider x is not there", not_granted("nobody"))),
    ] {
        let (set, granted) = (PolicySet::new(policies.clone()), granted(&let_pass));
        let http = HttpFacts { granted: &granted, ..HttpFacts::new(&request, &headers) };
        let found = set.asked(&facts, http);
        assert_eq!(found.iter().map(|authorizer| &*authorizer.name).collect::<Vec<_>>(), asked, "{policies:?}");
        let decision = set.decide_request(&facts, http);
        assert!(decision.reason.to_string().starts_with(&decided), "{decided}: {}", decision.reason);
        assert_eq!(decision.allowed, decided == "no policy applies");
        assert_eq!(decision, decide_request(&policies, &facts, http));
    }
    // What is no request nobody can be asked about.
    let decision = decide(&[custom("c", "a", yes())], &facts);
    assert!(decision.reason.to_string().contains("provider a was not asked, because this is no HTTP"));
}
