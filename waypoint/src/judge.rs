//! What the policies of a service say of a connection or a request to it.
//!
//! They are those that the control plane has attached to the service by name (`targetRefs`), not those that select the pods
//! behind it: these are their ztunnels' to judge, who see the waypoint as the caller.

use std::sync::Arc;

use mesh_model::policy::{Decision, Facts, HttpFacts, Policy, Reason};
use mesh_proxy::judge::Judgement;
use mesh_proxy::local_workload::AWAIT_TABLES;
use tokio::time::{Instant, timeout_at};

use crate::serving::Worker;
use crate::target::Target;

/// What they say now. The routes are the newest: policies may have been attached since the tunnel was opened.
fn verdict(
    worker: &Worker,
    target: &Target,
    facts: &Facts,
    request: Option<HttpFacts<'_>>,
) -> Result<Decision, Arc<str>> {
    worker.context.proxy.tables.read(|tables| {
        let routes = tables.routes(&target.routes.service).unwrap_or(&target.routes);
        let covered = worker.covered(tables, routes);
        match (&covered.missing, request) {
            (Some(missing), _) => Err(missing.clone()),
            (None, Some(request)) => Ok(covered.policies.decide_request(facts, request)),
            (None, None) => Ok(covered.policies.decide(facts)),
        }
    })
}

/// Those that are known.
pub(crate) fn policies(worker: &Worker, target: &Target) -> Vec<Arc<Policy>> {
    worker.context.proxy.tables.read(|tables| tables.policies_of_routes(&target.routes).policies)
}

/// Asks the policies about a connection, or about a request in it; waits a while for one that is named and has not come yet.
///
/// # Errors
/// When it is not let in.
pub(crate) async fn judge(
    worker: &Worker,
    target: &Target,
    facts: &Facts,
    request: Option<HttpFacts<'_>>,
) -> Result<Decision, Judgement> {
    let settled = |decision: Decision| match decision.allowed {
        true => Ok(decision),
        false => Err(Judgement::Decided(decision)),
    };
    // Most need no more than one look.
    if let Ok(decision) = verdict(worker, target, facts, request) {
        return settled(decision);
    }
    let (deadline, mut changed) = (Instant::now() + AWAIT_TABLES, worker.context.proxy.tables.changed());
    loop {
        let missing = match verdict(worker, target, facts, request) {
            Ok(decision) => return settled(decision),
            Err(missing) => missing,
        };
        if !timeout_at(deadline, changed.changed()).await.is_ok_and(|told| told.is_ok()) {
            return Err(Judgement::MissingPolicy(missing));
        }
    }
}

/// Resolves when policies that have changed let it in no more. One that is missing ends nothing: it is about to come.
pub(crate) async fn denied(worker: &Worker, target: &Target, facts: &Facts) -> Reason {
    let mut changed = worker.context.proxy.tables.changed();
    while changed.changed().await.is_ok() {
        if let Ok(decision) = verdict(worker, target, facts, None)
            && !decision.allowed
        {
            return decision.reason;
        }
    }
    std::future::pending().await
}
