//! What is no HTTP: judged once, carried to one endpoint, judged again when policies change.

use mesh_hbone::duplex::Duplex;
use mesh_model::reason::ReasonCode;
use mesh_model::traffic::HashBy;
use mesh_proxy::report::Report;
use mesh_runtime::metrics::ResponseFlags;
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use crate::http::Caller;
use crate::judge;
use crate::sniff::Peeked;
use crate::upstream::{self, Picked, hash_of_address};

/// Carries what the caller sends to an endpoint of its service, and back.
pub(crate) async fn carry(caller: &Caller, mut stream: Peeked<Duplex>) {
    let (worker, target) = (&caller.worker, &caller.target);
    let proxy = &worker.context.proxy;
    let facts = caller.facts();
    let hashed = |by: &HashBy| matches!(by, HashBy::SourceIp).then(|| hash_of_address(caller.from.ip()));
    let picked =
        upstream::choose(worker, &caller.waypoint, (&target.service, target.dialled, None), hashed, None).await;
    let (to, workload) = match &picked {
        Ok(picked) => (picked.endpoint.address(), picked.endpoint.workload()),
        Err(_) => (target.dialled, None),
    };
    let mut report = Report::open(&proxy.telemetry, caller.traffic(to, workload));
    match judge::judge(worker, target, &facts).await {
        Ok(decision) => report.decided(&decision),
        Err(judgement) => return report.denied(&judgement),
    }
    let _active = picked.as_ref().ok().map(Picked::active);
    let opened = match &picked {
        Ok(picked) => upstream::stream(worker, &caller.waypoint, picked).await,
        Err(error) => Err(error.clone()),
    };
    let mut upstream = match opened {
        Ok(upstream) => upstream,
        Err(error) => return report.failed(ResponseFlags::Connect, error.code(), &error),
    };
    report.opened();
    let count = report.count_from_client();
    let carried = tokio::select! {
        carried = copy_bidirectional(&mut stream, &mut upstream) => carried,
        reason = judge::denied(worker, target, &facts) => return report.cut(&reason),
    };
    match carried {
        Ok((forth, back)) => {
            count.forth(usize::try_from(forth).unwrap_or(usize::MAX));
            count.back(usize::try_from(back).unwrap_or(usize::MAX));
            report.closed();
        }
        Err(error) => report.failed(ResponseFlags::None, ReasonCode::ConnectionReset, &error),
    }
    // Both have ended, or one is broken: then there is nobody to tell.
    let _ = stream.shutdown().await;
}
