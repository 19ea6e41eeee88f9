//! Copies of requests, whose answers nobody gets and whose failures nobody feels.

use std::rc::Rc;
use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use mesh_model::reason::ReasonCode;
use mesh_model::route::plan::Forward;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::answer::Refused;
use super::caller::Caller;
use super::forward::{Hop, forward};
use super::hop;
use super::report::{Followed, Report};
use crate::body::Body;

/// Bytes of a body that are copied. A request with a longer one, or one that does not say how long it is, is not mirrored.
const MOST: u64 = 64 << 10;
/// How long a copy may take.
const LIMIT: Duration = Duration::from_secs(15);

/// Sends copies to the mirrors that this request falls to, as tasks, and gives the request back.
///
/// # Errors
/// When the caller breaks off before its body has come.
pub(super) async fn copied(
    caller: &Rc<Caller>,
    planned: &Forward,
    request: Request<Body>,
    report: &Report,
) -> Result<Request<Body>, Refused> {
    if planned.mirrors.is_empty() {
        return Ok(request);
    }
    let (head, body) = request.into_parts();
    if body.size_hint().exact().is_none_or(|length| length > MOST) {
        tracing::debug!(route = %planned.rule().route, "not mirrored: its body is long, or does not say how long it is");
        return Ok(Request::from_parts(head, body));
    }
    let bytes = match Box::pin(body.collect()).await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => {
            let why = format!("its body broke off: {error}");
            return Err(Refused::new(StatusCode::BAD_REQUEST, ReasonCode::CallerGone, why));
        }
    };
    for to in &planned.mirrors {
        let key = &to.service;
        let found = caller.worker.context.proxy.tables.read(|tables| tables.service(key).cloned());
        let Some(service) = found else {
            tracing::warn!(route = %planned.rule().route, service = %key, "not mirrored: there is no such service");
            continue;
        };
        let dialled = hop::dialled(&service, to.port, caller.target.dialled.is_ipv4());
        let (caller, copy) = (caller.clone(), Request::from_parts(head.clone(), Body::whole(bytes.clone())));
        let trace = report.trace.as_ref().map(|trace| Box::new(trace.of_copy()));
        let mut report = Report::new(&caller, copy.method(), copy.uri(), copy.headers(), copy.version());
        report.trace = trace;
        report.route = Some(Followed::by_mirror(planned.rule()));
        let subset = to.subset.clone();
        spawn_local(async move {
            let hop = Hop { subset, ..Hop::to(service, dialled) };
            match timeout(LIMIT, forward(&caller, &hop, copy, None, &mut report)).await {
                Ok(Ok(answer)) => {
                    report.answered(answer.head.status(), answer.head.headers());
                    // Read to its end, so that the connection can be used again.
                    let _ = timeout(LIMIT, answer.head.map(|body| body.watched(report)).into_body().collect()).await;
                }
                Ok(Err(refused)) => {
                    report.answered(refused.status, &http::HeaderMap::new());
                    report.failed(refused.code, &refused.why);
                }
                Err(_) => report.failed(ReasonCode::RequestTimeout, "the mirror took too long"),
            }
        });
    }
    Ok(Request::from_parts(head, Body::whole(bytes)))
}
