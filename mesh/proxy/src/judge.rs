//! What the policies say about a connection to a pod that is served: when it comes, and again when they change.

use std::cell::RefCell;
use std::sync::Arc;

use mesh_model::pod::PodInfo;
use mesh_model::policy::{Decision, Facts, Reason};
use mesh_model::reason::ReasonCode;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use mesh_xds::follow::Reader;
use tokio::time::{Instant, timeout_at};

use crate::covering::Kept;

thread_local! {
    /// By uid.
    static COVERED: RefCell<Kept<Arc<str>, Workload>> = RefCell::default();
}

/// What the policies say at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// Decided.
    Decided(Decision),
    /// The workload names a policy that the control plane has not sent (yet).
    Missing(Arc<str>),
}

/// Asks the policies that cover `workload`.
fn verdict(tables: &Tables, workload: &Arc<Workload>, facts: &Facts) -> Verdict {
    let covered = COVERED.with_borrow_mut(|kept| {
        kept.covered(&workload.uid, workload, tables.policy_revision(), || tables.policies_covering(workload))
    });
    match &covered.missing {
        Some(missing) => Verdict::Missing(missing.clone()),
        None => Verdict::Decided(covered.policies.decide(facts)),
    }
}

/// How a connection was judged.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// The policies decided.
    Decided(Decision),
    /// The workload names a policy that the control plane has not sent in time: nothing can be decided, so it is denied.
    MissingPolicy(Arc<str>),
}

impl Judgement {
    /// The stable code of a denial; documented in `docs/reasons.md`.
    pub fn code(&self) -> ReasonCode {
        match self {
            Self::Decided(_) => ReasonCode::PolicyDenied,
            Self::MissingPolicy(_) => ReasonCode::PolicyUnknown,
        }
    }
}

/// Asks the policies about a connection to `pod`, whose workload was `workload` when the connection came; the tables may
/// know a newer one by now. Waits until `deadline` for a policy that the workload names and that the control plane has
/// not sent yet: policies and workloads may arrive in any order.
pub async fn judge(
    tables: &Reader,
    pod: &PodInfo,
    workload: &Arc<Workload>,
    facts: &Facts,
    deadline: Instant,
) -> Judgement {
    let mut changed = None;
    loop {
        let verdict = tables.read(|tables| {
            let current = tables.workload_of_pod(&pod.namespace, &pod.name, &pod.service_account);
            verdict(tables, current.unwrap_or(workload), facts)
        });
        let missing = match verdict {
            Verdict::Decided(decision) => return Judgement::Decided(decision),
            Verdict::Missing(policy) => policy,
        };
        let Some(changed) = changed.as_mut() else {
            changed = Some(tables.changed());
            continue;
        };
        if timeout_at(deadline, changed.changed()).await.is_ok_and(|r| r.is_ok()) {
            continue;
        }
        return Judgement::MissingPolicy(missing);
    }
}

/// Why an open connection must be cut now, if it must. While a policy is missing, what was let in stays open: the control
/// plane is about to send it.
pub(crate) fn judge_open(tables: &Reader, pod: &PodInfo, facts: &Facts) -> Option<Reason> {
    let verdict = tables.read(|tables| {
        let workload = tables.workload_of_pod(&pod.namespace, &pod.name, &pod.service_account)?;
        Some(verdict(tables, workload, facts))
    });
    match verdict {
        Some(Verdict::Decided(decision)) if !decision.allowed => Some(decision.reason),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use mesh_model::address::NamespacedName;
    use mesh_model::identity::SpiffeId;
    use mesh_model::policy::{Action, Policy, Rule, Scope};
    use mesh_model::resource::Resource;

    use super::*;

    #[test]
    fn policies_judge_what_is_known_and_say_what_is_missing() {
        let mut tables = Tables::default();
        let us = Arc::new(Workload { namespace: "a".into(), name: "us".into(), ..Workload::empty("us") });
        tables.apply(Resource::Workload(us.clone()));
        let source: SpiffeId = "spiffe://cluster.local/ns/b/sa/caller".parse().unwrap();
        let facts = Facts {
            source_ip: "10.0.0.7".parse().unwrap(),
            source: Some(source),
            destination: "10.0.0.1:8080".parse().unwrap(),
        };
        let Verdict::Decided(decision) = verdict(&tables, &us, &facts) else { panic!("nothing is missing") };
        assert_eq!((decision.allowed, decision.reason), (true, Reason::NoPolicy), "I12");

        let deny_all = Policy {
            name: "deny".into(),
            namespace: "a".into(),
            scope: Scope::Namespace,
            action: Action::Deny,
            rules: vec![Rule::default()],
            dry_run: false,
        };
        tables.apply(Resource::Policy(Arc::new(deny_all)));
        let Verdict::Decided(decision) = verdict(&tables, &us, &facts) else { panic!("nothing is missing") };
        assert_eq!(
            (decision.allowed, decision.reason),
            (false, Reason::DeniedBy(NamespacedName::new("a", "deny"), 0)),
            "I10"
        );

        // Trap 38: a policy that the workload names may come later; until then nothing is decided.
        let mut named = (*us).clone();
        named.authorization_policies.push(NamespacedName::new("a", "later"));
        assert_eq!(verdict(&tables, &Arc::new(named), &facts), Verdict::Missing("a/later".into()));
    }
}
