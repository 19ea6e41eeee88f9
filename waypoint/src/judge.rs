//! What the policies of a service say of a connection or a request to it.
//!
//! They are those that the control plane has attached to the service by name (`targetRefs`), not those that select the pods
//! behind it: these are their ztunnels' to judge, who see the waypoint as the caller.

use std::rc::Rc;
use std::sync::Arc;

use mesh_model::policy::{Decision, Facts, Policy, Reason};
use mesh_model::route::Rule;
use mesh_proxy::covering::Covered;
use mesh_proxy::judge::Judgement;
use mesh_proxy::local_workload::AWAIT_TABLES;
use tokio::time::{Instant, timeout_at};

use crate::serving::Worker;
use crate::target::Target;

/// Those that judge now; else one that is missing. The routes are the newest: policies may have been attached since the tunnel
/// was opened.
fn now(worker: &Worker, target: &Target) -> Result<Rc<Covered>, Arc<str>> {
    let covered = worker.context.proxy.tables.read(|tables| {
        let routes = tables.routes(&target.routes.service).unwrap_or(&target.routes);
        worker.covered(tables, routes)
    });
    match &covered.missing {
        Some(missing) => Err(missing.clone()),
        None => Ok(covered),
    }
}

/// Whether a policy that may judge a request for `target` speaks of paths: of the service, or of one behind this waypoint to which its
/// routes send requests or copies. One that has not come yet may.
pub(crate) fn speaks_of_paths(worker: &Worker, target: &Target) -> bool {
    let speaks = |policy: &Arc<Policy>| {
        let matches = policy.rules.iter().flat_map(|rule| &rule.clauses).flat_map(|clause| &clause.matches);
        matches.filter_map(|one| one.http.as_ref()).any(|http| !(http.paths.is_empty() && http.not_paths.is_empty()))
    };
    worker.context.proxy.tables.read(|tables| {
        let rules = target.routes.rules.iter();
        let behind_us = rules.flat_map(Rule::services).filter_map(|service| tables.routes(service));
        let own = tables.routes(&target.routes.service).unwrap_or(&target.routes);
        [own].into_iter().chain(behind_us).any(|routes| {
            let covered = worker.covered(tables, routes);
            covered.missing.is_some() || covered.policies.policies().iter().any(speaks)
        })
    })
}

/// Those that judge, all of them; waits a while for one that is named and has not come yet.
///
/// # Errors
/// When it has not come.
pub(crate) async fn covering(worker: &Worker, target: &Target) -> Result<Rc<Covered>, Judgement> {
    // Most need no more than one look.
    if let Ok(covered) = now(worker, target) {
        return Ok(covered);
    }
    let (deadline, mut changed) = (Instant::now() + AWAIT_TABLES, worker.context.proxy.tables.changed());
    loop {
        let missing = match now(worker, target) {
            Ok(covered) => return Ok(covered),
            Err(missing) => missing,
        };
        if !timeout_at(deadline, changed.changed()).await.is_ok_and(|told| told.is_ok()) {
            return Err(Judgement::MissingPolicy(missing));
        }
    }
}

/// A decision as a result.
///
/// # Errors
/// When it is a no.
pub(crate) fn settled(decision: Decision) -> Result<Decision, Judgement> {
    match decision.allowed {
        true => Ok(decision),
        false => Err(Judgement::Decided(decision)),
    }
}

/// Asks the policies about a connection that is no HTTP.
///
/// # Errors
/// When it is not let in.
pub(crate) async fn judge(worker: &Worker, target: &Target, facts: &Facts) -> Result<Decision, Judgement> {
    settled(covering(worker, target).await?.policies.decide(facts))
}

/// Resolves when policies that have changed let it in no more. One that is missing ends nothing: it is about to come.
pub(crate) async fn denied(worker: &Worker, target: &Target, facts: &Facts) -> Reason {
    let mut changed = worker.context.proxy.tables.changed();
    while changed.changed().await.is_ok() {
        if let Ok(covered) = now(worker, target)
            && let Decision { allowed: false, reason, .. } = covered.policies.decide(facts)
        {
            return reason;
        }
    }
    std::future::pending().await
}
