//! The policies that cover one workload or service, ready to be asked.
//!
//! Most rules name whom they are about. They are found by that, so that a decision costs what the rules about its caller cost, however
//! many there are about others.

use std::collections::HashMap;
use std::sync::Arc;

use super::decide::{Decision, asked_among, decide_among};
use super::facts::HttpFacts;
use super::matches::Subject;
use super::{Action, Clause, Facts, Match, Policy, Rule, StringMatch};
use crate::authorizer::Authorizer;

/// Policies in the order in which they decide. Never changes.
#[derive(Debug, Default)]
pub struct PolicySet {
    policies: Vec<Arc<Policy>>,
    /// Rules that can match only a caller with this principal.
    by_principal: HashMap<Arc<str>, Vec<Place>>,
    /// Rules that can match only a caller of this namespace.
    by_namespace: HashMap<Arc<str>, Vec<Place>>,
    /// Rules that may match anybody.
    always: Vec<Place>,
    /// Some of them ask somebody else.
    asks: bool,
}

/// A rule: the position of its policy, and its own there.
type Place = (usize, usize);

/// Whom a rule is about at most.
enum About {
    Principal(Arc<str>),
    Namespace(Arc<str>),
}

impl PolicySet {
    /// Made ready once, however often they are asked.
    pub fn new(policies: Vec<Arc<Policy>>) -> Self {
        let mut set = Self::default();
        let rules = policies
            .iter()
            .enumerate()
            .flat_map(|(at, policy)| policy.rules.iter().enumerate().map(move |(number, rule)| ((at, number), rule)));
        for (place, rule) in rules {
            let Some(about) = of_rule(rule) else {
                set.always.push(place);
                continue;
            };
            for about in about {
                let places = match about {
                    About::Principal(principal) => set.by_principal.entry(principal).or_default(),
                    About::Namespace(namespace) => set.by_namespace.entry(namespace).or_default(),
                };
                // A rule may say the same twice.
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        }
        set.asks = policies.iter().any(|policy| matches!(policy.action, Action::Custom(_)));
        set.policies = policies;
        set
    }

    /// All of them.
    pub fn policies(&self) -> &[Arc<Policy>] {
        &self.policies
    }

    /// [`decide`](super::decide()) over these.
    pub fn decide(&self, facts: &Facts) -> Decision {
        self.of(&Subject::new(facts, None))
    }

    /// [`decide_request`](super::decide_request()) over these.
    pub fn decide_request(&self, facts: &Facts, http: HttpFacts<'_>) -> Decision {
        self.of(&Subject::new(facts, Some(http)))
    }

    /// Whom to ask about a request before [`Self::decide_request`]: the authorizers of the policies that match it, each once. A
    /// dry run asks nobody.
    pub fn asked(&self, facts: &Facts, http: HttpFacts<'_>) -> Vec<Arc<Authorizer>> {
        if !self.asks {
            return Vec::new();
        }
        let subject = Subject::new(facts, Some(http));
        let may_match = self.may_match(&subject).into_iter().map(|(at, rule)| (&self.policies[at], rule));
        asked_among(may_match, &subject)
    }

    fn of(&self, subject: &Subject<'_>) -> Decision {
        let may_match = self.may_match(subject).into_iter().map(|(at, rule)| (&self.policies[at], rule));
        decide_among(self.policies.iter(), may_match, subject)
    }

    /// The rules, in order, that may match.
    fn may_match(&self, subject: &Subject<'_>) -> Vec<Place> {
        let named = || self.by_principal.get(subject.principal()?);
        let of_principal = if self.by_principal.is_empty() { None } else { named() };
        let of_namespace = self.by_namespace.get(subject.namespace());
        let about = of_principal.into_iter().chain(of_namespace).flatten();
        let mut all: Vec<Place> = self.always.iter().chain(about).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Whom it is about at most; None: anybody. All clauses must be met, so one that says whom it is about is enough.
fn of_rule(rule: &Rule) -> Option<Vec<About>> {
    rule.clauses.iter().find_map(of_clause)
}

/// One of its matches must be met; without any it is.
fn of_clause(clause: &Clause) -> Option<Vec<About>> {
    if clause.matches.is_empty() {
        return None;
    }
    let matches: Option<Vec<_>> = clause.matches.iter().map(of_match).collect();
    Some(matches?.into_iter().flatten().collect())
}

/// All fields that are set must hold, so one that says whom it is about is enough. With none set it matches nobody.
fn of_match(m: &Match) -> Option<Vec<About>> {
    if m.is_empty() {
        return Some(Vec::new());
    }
    exact(&m.principals, About::Principal).or_else(|| exact(&m.namespaces, About::Namespace)).or_else(|| {
        let accounts = m.service_accounts.iter().map(|account| About::Namespace(account.namespace.clone()));
        (!m.service_accounts.is_empty()).then(|| accounts.collect())
    })
}

/// What these texts say, if there are any and all are whole.
fn exact(wanted: &[StringMatch], about: fn(Arc<str>) -> About) -> Option<Vec<About>> {
    let whole = |wanted: &StringMatch| match wanted {
        StringMatch::Exact(text) => Some(about(text.clone())),
        StringMatch::Prefix(_) | StringMatch::Suffix(_) | StringMatch::Presence => None,
    };
    let all: Option<Vec<_>> = wanted.iter().map(whole).collect();
    all.filter(|all| !all.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::Scope;
    use super::*;
    use crate::address::NamespacedName;

    fn rule(clauses: Vec<Vec<Match>>) -> Rule {
        Rule { clauses: clauses.into_iter().map(|matches| Clause { matches }).collect() }
    }

    fn policy(name: &str, clauses: Vec<Vec<Match>>) -> Arc<Policy> {
        Arc::new(Policy {
            name: name.into(),
            namespace: "shop".into(),
            scope: Scope::Namespace,
            action: Action::Deny,
            rules: vec![rule(clauses)],
            dry_run: false,
        })
    }

    fn principal(of: StringMatch) -> Match {
        Match { principals: vec![of], ..Match::default() }
    }

    fn cart() -> StringMatch {
        StringMatch::Exact("cluster.local/ns/shop/sa/cart".into())
    }

    fn namespace(name: &str) -> Match {
        Match { namespaces: vec![StringMatch::Exact(name.into())], ..Match::default() }
    }

    fn account(namespace: &str, name: &str) -> Match {
        Match { service_accounts: vec![NamespacedName::new(namespace, name)], ..Match::default() }
    }

    fn port() -> Match {
        Match { destination_ports: vec![8080], ..Match::default() }
    }

    #[test]
    fn those_about_others_are_not_looked_at() {
        let named = |mut of: Match| {
            of.destination_ports = vec![8080];
            of
        };
        let policies = vec![
            policy("a principal", vec![vec![principal(cart())]]),
            policy(
                "one of several principals",
                vec![vec![principal(StringMatch::Exact("x".into())), principal(cart())]],
            ),
            policy("a principal on a port", vec![vec![named(principal(cart()))]]),
            policy("a principal, and a port", vec![vec![port()], vec![principal(cart())]]),
            policy("a namespace", vec![vec![namespace("shop")]]),
            policy("an account", vec![vec![account("shop", "cart")]]),
            policy("principals that begin so", vec![vec![principal(StringMatch::Prefix("cluster".into()))]]),
            policy("a principal or a port", vec![vec![principal(cart()), port()]]),
            policy("anybody", vec![]),
            policy("a clause that is met", vec![vec![]]),
            policy("whoever has no namespace", vec![vec![namespace("")]]),
            policy("no match", vec![vec![Match::default()]]),
            Arc::new(Policy {
                rules: vec![
                    rule(vec![vec![namespace("other")]]),
                    rule(vec![vec![principal(cart())]]),
                    rule(vec![vec![namespace("shop")]]),
                ],
                ..(*policy("three rules", vec![])).clone()
            }),
        ];
        let set = PolicySet::new(policies);
        let looked_at = |source: Option<&str>| {
            let facts = Facts {
                source_ip: "10.0.0.1".parse().unwrap(),
                source: source.map(|id| id.parse().unwrap()),
                destination: "10.0.0.2:9090".parse().unwrap(),
            };
            let subject = Subject::new(&facts, None);
            let places = set.may_match(&subject);
            places.into_iter().map(|(at, rule)| format!("{} {rule}", set.policies[at].name)).collect::<Vec<_>>()
        };
        let always = ["principals that begin so 0", "a principal or a port 0", "anybody 0", "a clause that is met 0"];
        let shop = ["a namespace 0", "an account 0"];
        let own =
            ["a principal 0", "one of several principals 0", "a principal on a port 0", "a principal, and a port 0"];
        let [other, cart, same] = ["three rules 0", "three rules 1", "three rules 2"];
        let shown = looked_at(Some("spiffe://cluster.local/ns/shop/sa/cart"));
        assert_eq!(shown, [&own[..], &shop, &always, &[cart, same]].concat());
        let shown = looked_at(Some("spiffe://cluster.local/ns/shop/sa/other"));
        assert_eq!(shown, [&shop[..], &always, &[same]].concat());
        let shown = looked_at(Some("spiffe://cluster.local/ns/other/sa/cart"));
        assert_eq!(shown, [&always[..], &[other]].concat());
        assert_eq!(looked_at(None), [&always[..], &["whoever has no namespace 0"]].concat());
    }
}
