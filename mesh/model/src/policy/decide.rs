//! All policies of a workload → allow or deny, with the reason.

use std::fmt;
use std::sync::Arc;

use super::facts::HttpFacts;
use super::matches::{self, Subject};
use super::{Action, Facts, Outcome, Policy, converted};
use crate::address::NamespacedName;
use crate::authorizer::Authorizer;

/// Most policies that a denial names; a workload covered by many is told of the first ones.
const MOST_NAMED: usize = 4;

/// May the connection enter, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// True: let it in.
    pub allowed: bool,
    /// What settled it.
    pub reason: Reason,
    /// Dry-run policies that would have matched: logged, not enforced.
    pub dry_run: Vec<NamespacedName>,
    /// Audit policies that match.
    pub audited: Vec<NamespacedName>,
}

/// What settled a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No allow policy covers the workload and no deny policy matched.
    NoPolicy,
    /// An allow policy matched: its key and the index of the rule.
    AllowedBy(NamespacedName, usize),
    /// A deny policy matched: its key and the index of the rule.
    DeniedBy(NamespacedName, usize),
    /// A policy matched that asks somebody else, who has not let it pass: its key, the index of the rule, and why not.
    NotGranted(NamespacedName, usize, Arc<str>),
    /// Allow policies cover the workload, none matched: the first few of them.
    NotAllowed(Vec<NamespacedName>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => write!(f, "no policy applies"),
            Self::AllowedBy(policy, rule) => write!(f, "allowed by: {policy} (rule {rule})"),
            Self::DeniedBy(policy, rule) => {
                write!(f, "explicitly denied by: {policy} (rule {rule})")?;
                match converted::origin(policy) {
                    None => Ok(()),
                    Some(origin) => write!(f, ", which stands for {origin}"),
                }
            }
            Self::NotGranted(policy, rule, why) => write!(f, "not let pass by whom {policy} (rule {rule}) asks: {why}"),
            Self::NotAllowed(policies) => {
                write!(f, "allow policies exist, but none allowed: ")?;
                for (i, policy) in policies.iter().enumerate() {
                    write!(f, "{}{policy}", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

impl Reason {
    /// The policy that settled it, if one did.
    pub fn policy(&self) -> Option<&NamespacedName> {
        match self {
            Self::AllowedBy(policy, _) | Self::DeniedBy(policy, _) | Self::NotGranted(policy, ..) => Some(policy),
            Self::NoPolicy | Self::NotAllowed(_) => None,
        }
    }
}

/// Decides over `policies`, which must be all that cover the destination workload.
///
/// 1. A policy that matches and asks somebody else denies, unless that one has let it pass.
/// 2. A deny policy that matches denies.
/// 3. With no allow policy it is allowed.
/// 4. An allow policy that matches allows.
/// 5. Otherwise it is denied.
///
/// A condition that cannot be evaluated here counts as met in a deny policy and as not met in an allow policy, so a
/// policy is never weaker than written. An audit policy matches where it may.
pub fn decide<'a, P>(policies: P, facts: &Facts) -> Decision
where
    P: IntoIterator<Item = &'a Arc<Policy>, IntoIter: Clone>,
{
    let policies = policies.into_iter();
    decide_among(policies.clone(), all_rules(policies), &Subject::new(facts, None))
}

/// [`decide`] of one request of the connection: conditions on requests can be evaluated, too.
pub fn decide_request<'a, P>(policies: P, facts: &Facts, http: HttpFacts<'_>) -> Decision
where
    P: IntoIterator<Item = &'a Arc<Policy>, IntoIter: Clone>,
{
    let policies = policies.into_iter();
    decide_among(policies.clone(), all_rules(policies), &Subject::new(facts, Some(http)))
}

fn all_rules<'a>(policies: impl Iterator<Item = &'a Arc<Policy>>) -> impl Iterator<Item = (&'a Arc<Policy>, usize)> {
    policies.flat_map(|policy| (0..policy.rules.len()).map(move |rule| (policy, rule)))
}

/// Whether a rule of a policy matches, or may.
fn matches(policy: &Policy, rule: usize, subject: &Subject<'_>) -> bool {
    match matches::rule(&policy.rules[rule], subject) {
        Outcome::Met => true,
        Outcome::NotMet => false,
        Outcome::Unknown => policy.action != Action::Allow,
    }
}

/// Decides over `all` policies, of whose rules none matches but some of `may_match`, in the same order.
pub(super) fn decide_among<'a>(
    all: impl Iterator<Item = &'a Arc<Policy>> + Clone,
    may_match: impl Iterator<Item = (&'a Arc<Policy>, usize)>,
    subject: &Subject<'_>,
) -> Decision {
    let (mut not_granted, mut allowed_by, mut denied_by) = (None, None, None);
    let (mut dry_run, mut audited) = (Vec::new(), Vec::new());
    for (policy, rule) in may_match {
        let matches = || matches(policy, rule, subject);
        if policy.dry_run {
            note(&mut dry_run, policy, matches);
            continue;
        }
        let settled = match &policy.action {
            Action::Audit => {
                note(&mut audited, policy, matches);
                continue;
            }
            Action::Custom(Ok(authorizer)) if subject.is_granted(&authorizer.name) => continue,
            Action::Custom(asked) => {
                if not_granted.is_none() && matches() {
                    let why = asked.as_ref().map_or_else(Arc::clone, |authorizer| not_asked(authorizer));
                    not_granted = Some(Reason::NotGranted(policy.key(), rule, why));
                }
                continue;
            }
            Action::Allow => &mut allowed_by,
            Action::Deny => &mut denied_by,
        };
        // The first of them is named; what others would say changes nothing.
        if settled.is_none() && matches() {
            *settled = Some((policy.key(), rule));
        }
    }
    let allows = || all.clone().filter(|policy| policy.action == Action::Allow && !policy.dry_run);
    let (allowed, reason) = match (denied_by, allowed_by) {
        _ if let Some(reason) = not_granted => (false, reason),
        (Some((policy, rule)), _) => (false, Reason::DeniedBy(policy, rule)),
        (None, Some((policy, rule))) => (true, Reason::AllowedBy(policy, rule)),
        (None, None) if allows().next().is_none() => (true, Reason::NoPolicy),
        (None, None) => (false, Reason::NotAllowed(allows().take(MOST_NAMED).map(|policy| policy.key()).collect())),
    };
    Decision { allowed, reason, dry_run, audited }
}

/// Whom to ask about a request before it is decided on: the authorizers of those of `may_match` that match, each once.
pub(super) fn asked_among<'a>(
    may_match: impl Iterator<Item = (&'a Arc<Policy>, usize)>,
    subject: &Subject<'_>,
) -> Vec<Arc<Authorizer>> {
    let mut all = Vec::<Arc<Authorizer>>::new();
    for (policy, rule) in may_match {
        if let (Action::Custom(Ok(authorizer)), false) = (&policy.action, policy.dry_run)
            && !all.iter().any(|known| known.name == authorizer.name)
            && matches(policy, rule, subject)
        {
            all.push(authorizer.clone());
        }
    }
    all
}

/// It is asked about requests of HTTP, as they come: what it changes of one may make it another policy's business, too.
fn not_asked(authorizer: &Authorizer) -> Arc<str> {
    format!(
        "provider {} was not asked, because this is no HTTP, or was another request when it could be asked",
        authorizer.name
    )
    .into()
}

/// Notes a policy once, if a rule of it matches.
fn note(noted: &mut Vec<NamespacedName>, policy: &Policy, matches: impl FnOnce() -> bool) {
    let key = policy.key();
    if noted.last() != Some(&key) && matches() {
        noted.push(key);
    }
}
