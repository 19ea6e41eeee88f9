//! What the policies say about a connection to a pod of ours: when it comes, and again when they change.

use std::sync::Arc;

use mesh_model::pod::PodInfo;
use mesh_model::policy::{Decision, Facts, Reason, decide};
use mesh_model::reason::ReasonCode;
use mesh_model::tables::Tables;
use mesh_model::workload::Workload;
use mesh_xds::follow::Reader;
use tokio::time::{Instant, timeout_at};

/// What the policies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Decided.
    Decided(Decision),
    /// The workload names a policy that nobody has sent (yet).
    Missing(Arc<str>),
}

/// Asks the policies that cover `workload`.
pub(crate) fn verdict(tables: &Tables, workload: &Workload, facts: &Facts) -> Verdict {
    let covering = tables.policies_covering(workload);
    match covering.missing.first() {
        Some(missing) => Verdict::Missing(missing.to_string().into()),
        None => Verdict::Decided(decide(&covering.policies, facts)),
    }
}

/// What the policies said, and for an undecidable question why.
#[derive(Clone, Debug)]
pub(crate) enum Judgement {
    /// The policies decided.
    Decided(Decision),
    /// The workload names a policy that did not come: it cannot be decided, so it is denied.
    MissingPolicy(Arc<str>),
}

impl Judgement {
    /// The stable code of a denial; documented in `docs/reasons.md`.
    pub(crate) fn code(&self) -> ReasonCode {
        match self {
            Self::Decided(_) => ReasonCode::PolicyDenied,
            Self::MissingPolicy(_) => ReasonCode::PolicyUnknown,
        }
    }
}

/// Asks the policies about a connection to a local workload. A policy that the workload names and that has not come yet
/// is awaited: policies and workloads may arrive in any order.
pub(crate) async fn judge(
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

/// Why an open connection must be cut now, if it must. A policy that is missing does not cut what was let in: it is about
/// to come.
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
