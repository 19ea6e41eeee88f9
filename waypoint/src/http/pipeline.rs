//! Everything that happens to a request, in order, each with the reason for its place.
//!
//! 1. **The tables, as they are now.** A connection may live for days; each request meets the routes and policies of its moment,
//!    and all of them of the same moment.
//! 2. **Policies.** Whoever may not ask learns nothing of routes. They see the request as it came, not as a route rewrites it.
//! 3. **Headers of this hop end here**, and what the caller says of itself is replaced by what it has proven: after the policies,
//!    which judge what was sent, and before anything is sent on.
//! 4. **The route.**
//! 5. **An endpoint** ([`forward`](super::forward)): last, when it is sure that one is needed.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use mesh_model::reason::ReasonCode;
use mesh_proxy::judge::Judgement;
use tokio::time::Instant;

use super::answer::Refused;
use super::body::Body;
use super::forward::{Hop, forward};
use super::report::{Received, Report};
use super::{Caller, headers};
use crate::judge;
use crate::target::Target;

/// Serves one request.
pub(super) async fn serve(caller: &Rc<Caller>, request: Request<Incoming>) -> Response<Body> {
    let (method, uri, version) = (request.method(), request.uri(), request.version());
    let mut report = Report::new(caller, method, uri, request.headers(), version);
    let grpc = is_grpc(request.headers());
    match handle(caller, request, &mut report).await {
        Ok(answer) => answer.finish(report),
        Err(refused) => {
            report.failed(refused.code, &refused.why);
            Answer::of_ours(refused.answer(grpc)).finish(report)
        }
    }
}

/// An answer, and what its body still holds.
pub(super) struct Answer {
    pub(super) head: Response<Body>,
    /// Both ends have agreed on another protocol.
    pub(super) agreed: Option<Box<dyn FnOnce(Report)>>,
}

impl Answer {
    /// One that no endpoint gave.
    fn of_ours(head: Response<Body>) -> Self {
        Self { head, agreed: None }
    }

    /// Breaks its body off at `deadline`.
    pub(super) fn until(self, deadline: Option<Instant>) -> Self {
        Self { head: self.head.map(|body| body.until(deadline)), ..self }
    }

    /// The answer as the caller gets it; its end is reported.
    fn finish(self, mut report: Report) -> Response<Body> {
        report.answered(self.head.status(), self.head.headers());
        match self.agreed {
            Some(agreed) => {
                agreed(report);
                self.head
            }
            None => self.head.map(|body| body.watched(report)),
        }
    }
}

async fn handle(caller: &Rc<Caller>, request: Request<Incoming>, report: &mut Report) -> Result<Answer, Refused> {
    let (mut head, body) = request.into_parts();
    // 1
    let target = current(caller)?;
    // 2
    match judge::judge(&caller.worker, &target, &caller.facts()).await {
        Ok(decision) => report.policy = decision.reason.policy().cloned(),
        Err(judgement) => return Err(denied(judgement, report)),
    }
    // 3
    let upgrade = headers::end_to_end(&mut head.headers);
    if let Ok(us) = caller.waypoint.identity() {
        headers::told_of(&mut head.headers, &caller.identity, caller.from.ip(), &us);
    }
    // 4
    let (service, dialled) = (target.service.clone(), target.dialled);
    let hop = Hop { service, dialled, deadline: None, per_try: None, retry: None };
    // 5
    let body = Body::passing(body).watched(Received(report.received.clone()));
    forward(caller, &hop, Request::from_parts(head, body), upgrade, report).await
}

/// The target of the tunnel, with the routes of now.
fn current(caller: &Caller) -> Result<Target, Refused> {
    let tables = &caller.worker.context.proxy.tables;
    let key = &caller.target.routes.service;
    let now = tables.read(|tables| Some((tables.service(key)?.clone(), tables.routes(key)?.clone())));
    let Some((service, routes)) = now else {
        let why = format!("service {key} is behind this waypoint no more");
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, ReasonCode::WrongDestination, why));
    };
    Ok(Target { service, routes, ..caller.target.clone() })
}

fn denied(judgement: Judgement, report: &mut Report) -> Refused {
    let why = match &judgement {
        Judgement::Decided(decision) => {
            report.policy = decision.reason.policy().cloned();
            decision.reason.to_string()
        }
        Judgement::MissingPolicy(policy) => {
            format!("{policy} covers this service and has not come from the control plane")
        }
    };
    Refused::new(StatusCode::FORBIDDEN, judgement.code(), why)
}

/// It is a gRPC call, whose caller expects its errors in gRPC's words.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let is = |value: &HeaderValue| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| rest.is_empty() || matches!(rest[0], b'+' | b';'))
    };
    headers.get(CONTENT_TYPE).is_some_and(is)
}

/// Routes that are ready to be followed.
pub(crate) struct Router(Arc<mesh_model::route::ServiceRoutes>);

impl Router {
    /// Makes them ready.
    pub(crate) fn new(routes: Arc<mesh_model::route::ServiceRoutes>) -> Self {
        Self(routes)
    }

    /// What they were made of.
    pub(crate) fn routes(&self) -> &Arc<mesh_model::route::ServiceRoutes> {
        &self.0
    }
}
