//! Everything that happens to a request, in order, each with the reason for its place.
//!
//! 1. **The tables, as they are now.** A connection may live for days; each request meets the routes and policies of its moment.
//!    Its trace begins here, where its service's requests are traced: a refusal is a part of it. So does what decides whether it is logged.
//! 2. **The canonical form** ([`form`]), or a refusal: from here on there is one way to read the request, and it is the one that is
//!    passed on.
//! 3. **Tokens** ([`authenticate`]) are verified before anybody decides by them. Those that are not to be forwarded end here: nobody
//!    further on sees them.
//! 4. **Policies.** Whoever may not ask learns nothing of routes. They see the request as it came, not as a route rewrites it. First
//!    those are asked whom CUSTOM policies name ([`ask`]); what they change of it, the other policies see, and the route.
//! 5. **Headers of this hop end here**, and what the caller says of itself is replaced by what it has proven: after the policies,
//!    which judge what was sent, and before anything is sent on. A request that is traced gets its `x-request-id`.
//! 6. **The route**, by which the request is counted ([`limit`]): after the policies, so that who may not ask uses up nothing of what
//!    others may, by an identity that is proven and headers that tokens and authorizers have set. Then what the route makes of
//!    it: first what it does on purpose, to see how callers bear it ([`fault`]); then an answer of the waypoint's own, or a backend.
//! 7. **Tokens, policies and limits of the backend's own service**, where that is another one: a route grants nobody more than
//!    dialling would. Its tokens are verified by its own rules. At another port of the same service its policies judge once more.
//! 8. **Copies** for mirrors, which nobody waits for. What may not reach a mirror is not copied: its tokens and policies have been asked in 7, before
//!    the request becomes what the backend is to see.
//! 9. **An endpoint** ([`forward`](super::forward)): last, when it is sure that one is needed. Each try says in its headers which step of the trace it is. Its
//!    answer is edited as the route says.

use std::rc::Rc;
use std::sync::Arc;

use http::header::CONNECTION;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use mesh_model::http::Request as Form;
use mesh_model::policy::{Facts, HttpFacts};
use mesh_model::reason::ReasonCode;
use mesh_model::route::plan::{self, Plan};
use mesh_model::route::select::{Router, Selected};
use mesh_model::tables::Tables;
use mesh_model::token::Token;

use super::answer::{Answer, Refused};
use super::caller::Caller;
use super::coming::Coming;
use super::denied::denied;
use super::forward::{Hop, forward};
use super::grpc::is_grpc;
use super::report::{Followed, Report};
use super::trace::Trace;
use super::{ask, authenticate, fault, form, headers, hop, limit, mirror};
use crate::body::Body;
use crate::judge;
use crate::target::Target;

/// Serves one request.
pub(super) async fn serve(caller: &Rc<Caller>, request: Request<Incoming>) -> Response<Body> {
    let (method, uri, version) = (request.method(), request.uri(), request.version());
    let mut report = Report::new(caller, method, uri, request.headers(), version);
    let grpc = is_grpc(request.headers());
    let mut answer = match handle(caller, request, &mut report).await {
        Ok(mut answer) => {
            std::mem::take(&mut report.told).iter().for_each(|edit| edit.apply(answer.head.headers_mut()));
            answer
        }
        Err(refused) => {
            report.failed(refused.code, &refused.why);
            Answer::of_ours(refused.answer(grpc))
        }
    };
    // HTTP/2 is told apart from answers; and what becomes something else has no next request.
    if version < Version::HTTP_2 && caller.ends.is_old() && answer.head.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.head.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer.finish(report)
}

async fn handle(caller: &Rc<Caller>, request: Request<Incoming>, report: &mut Report) -> Result<Answer, Refused> {
    let (mut head, body) = request.into_parts();
    let mut body = Coming::new(body);
    // 1
    let (target, router) = current(caller)?;
    if let Some(tracing) = &target.routes.tracing {
        report.trace = Some(Box::new(Trace::begin(tracing, &head.headers, report.started)));
    }
    if let Some(logging) = &target.routes.access_logging {
        report.logged_by(logging, &head.headers);
    }
    // 2
    if !headers::has_no_other_coding(&head.headers) {
        let why = "its body has a transfer coding besides chunked";
        return Err(Refused::new(StatusCode::NOT_IMPLEMENTED, ReasonCode::BadRequest, why));
    }
    let mut form = form::of(&head, || judge::speaks_of_paths(&caller.worker, &target))?;
    // 3
    let rules = &target.routes.tokens;
    // A backend's own rules may want what these take away.
    let before = (!rules.is_empty() && !router.routes().rules.is_empty()).then(|| (form.clone(), head.headers.clone()));
    report.conceal(rules);
    let valid = authenticate::verify(&caller.worker.keys, rules, &form, &head.headers)?;
    authenticate::hand_on(rules, &valid, &mut form.target, &mut head.headers);
    // 4
    judged(caller, &target, (&form, &authenticate::proven(&valid)), (&mut head, &mut body), report).await?;
    // 5
    let upgrade = headers::end_to_end(&mut head.headers);
    if let Ok(us) = caller.waypoint.identity() {
        headers::told_of(&mut head.headers, &caller.identity, caller.from.ip(), &us);
    }
    if let Some(trace) = &mut report.trace {
        trace.name(&mut head.headers);
    }
    // 6
    let selected = router.select(&form, &head.headers, caller.identity.namespace(), target.port);
    if let Selected::Rule(matched) = &selected {
        report.route = Some(Followed::new(matched.rule()));
    }
    limit::check(caller, &target.routes, limit::Of::Asked(selected.rule()), &mut head, report).await?;
    let plan = match selected {
        Selected::NoRoutes => {
            form::write(&form, form.target.clone(), &form.authority(), &mut head)?;
            let hop = Hop::to(target.service.clone(), target.dialled);
            let request = Request::from_parts(head, body.into_body(report));
            return forward(caller, &hop, request, upgrade, report).await;
        }
        Selected::NoMatch => Plan::Answer(plan::Answer::no_route(&target.routes.service)),
        Selected::Rule(matched) => {
            fault::inject(matched.inject(&form, &head.headers, rand::random), report).await?;
            matched.plan(&form, &head.headers, target.port, rand::random)
        }
    };
    let planned = match plan {
        Plan::Forward(planned) => planned,
        Plan::Answer(answer) => return answered(answer),
    };
    let (service, dialled) = hop::backend(caller, &planned)?;
    let subset = planned.backend().and_then(|to| to.subset);
    // 7
    let came = before.as_ref().map_or((&form, &head.headers), |(form, headers)| (form, headers));
    let copies = mirror::judged(caller, &planned, &target, came).await;
    let mut to = planned.target.clone();
    if let Some(own) = hop::behind_us(caller, &target, &service, dialled) {
        if own.asked == target.asked {
            // Another port: the same tokens and limits, and policies that may name ports.
            judged(caller, &own, (&form, &authenticate::proven(&valid)), (&mut head, &mut body), report).await?;
        } else {
            let rules = &own.routes.tokens;
            report.conceal(rules);
            let valid = authenticate::verify(&caller.worker.keys, rules, came.0, came.1)?;
            authenticate::hand_on(rules, &valid, &mut to, &mut head.headers);
            judged(caller, &own, (&form, &authenticate::proven(&valid)), (&mut head, &mut body), report).await?;
            limit::check(caller, &own.routes, limit::Of::Backend, &mut head, report).await?;
        }
    }
    let authority = planned.authority.as_deref().map_or_else(|| form.authority(), str::to_owned);
    planned.edit_request(&mut head.headers);
    form::write(&form, to, &authority, &mut head)?;
    // 8
    let request = Request::from_parts(head, body.into_body(report));
    let request = mirror::copied(caller, &planned, copies, request, report).await?;
    // 9
    let hop = Hop {
        subset,
        deadline: planned.request_timeout().map(|limit| report.routed() + limit),
        per_try: planned.backend_timeout(),
        retry: planned.retry(),
        ..Hop::to(service, dialled)
    };
    let mut answer = forward(caller, &hop, request, upgrade, report).await?;
    planned.edit_answer(answer.head.headers_mut());
    Ok(answer)
}

/// The target of the tunnel, with the service and the routes of now.
fn current(caller: &Caller) -> Result<(Target, Arc<Router>), Refused> {
    let tables = &caller.worker.context.proxy.tables;
    let key = &caller.target.asked;
    let now = |tables: &Tables| (tables.service(key).cloned(), caller.worker.router(tables, &caller.waypoint, key));
    let (service, router) = tables.read(now);
    if router.is_none() {
        // The next request is to take the new way.
        caller.ends.after_this();
    }
    let service = service.unwrap_or_else(|| caller.target.service.clone());
    let Some(router) = router.or_else(|| caller.worker.lately(key)) else {
        let why = format!("{key} is behind this waypoint no more");
        return Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, ReasonCode::WrongDestination, why));
    };
    caller.worker.follows(key, &router);
    Ok((Target { service, routes: router.routes().clone(), ..caller.target.clone() }, router))
}

/// Asks the policies of a service, and whom they name, about a request in its canonical form, with these tokens.
async fn judged(
    caller: &Rc<Caller>,
    target: &Target,
    (form, tokens): (&Form, &[Arc<Token>]),
    (head, body): (&mut Parts, &mut Coming),
    report: &mut Report,
) -> Result<(), Refused> {
    let facts = Facts { destination: target.dialled, ..caller.facts() };
    let covered = judge::covering(&caller.worker, target).await.map_err(|judgement| denied(&judgement, report))?;
    let mut granted = Vec::new();
    let authorizers = covered.policies.asked(&facts, HttpFacts { tokens, ..HttpFacts::new(form, &head.headers) });
    if !authorizers.is_empty() {
        let about = ask::About { facts: &facts, form };
        granted = Box::pin(ask::ask(caller, &authorizers, &about, (head, body), &mut report.told)).await?;
    }
    let http = HttpFacts { tokens, granted: &granted, ..HttpFacts::new(form, &head.headers) };
    match judge::settled(covered.policies.decide_request(&facts, http)) {
        Ok(decision) => {
            report.decided(&decision);
            Ok(())
        }
        Err(judgement) => Err(denied(&judgement, report)),
    }
}

/// What the route has the waypoint answer.
fn answered(answer: plan::Answer) -> Result<Answer, Refused> {
    if let Some((code, why)) = answer.refused {
        return Err(Refused::new(answer.status, code, why));
    }
    let mut head = Response::new(Body::empty());
    *head.status_mut() = answer.status;
    *head.headers_mut() = answer.headers;
    Ok(Answer::of_ours(head))
}
