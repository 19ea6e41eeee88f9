//! Copies of requests, whose answers nobody gets and whose failures nobody feels.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use mesh_model::http::Request as Form;
use mesh_model::policy::{Facts, HttpFacts};
use mesh_model::reason::ReasonCode;
use mesh_model::route::plan::Forward;
use mesh_model::service::Service;
use mesh_model::token::JwtRule;
use mesh_proxy::judge::Judgement;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::answer::Refused;
use super::caller::Caller;
use super::denied::denied;
use super::forward::{Hop, forward};
use super::report::{Followed, Report};
use super::{authenticate, hop};
use crate::body::Body;
use crate::judge;
use crate::target::Target;
use crate::tokens::Valid;

/// Bytes of a body that are copied. A request with a longer one, or one that does not say how long it is, is not mirrored.
const MOST: u64 = 64 << 10;
/// What a copy takes besides its body: its head, its report, its place on a connection.
const COPY: usize = 4 << 10;
/// How long a copy may take.
const LIMIT: Duration = Duration::from_secs(15);

/// A copy to be made, and whether its caller may send it there.
pub(super) struct Copied {
    service: Arc<Service>,
    dialled: SocketAddr,
    subset: Option<Arc<str>>,
    /// What the mirror's own service says of tokens, and those of the request; or why it is not sent.
    may: Result<Tokens, NotCopied>,
}

type Tokens = (Arc<[JwtRule]>, Vec<Valid>);

/// Why a mirror gets no copy.
enum NotCopied {
    Tokens(Refused),
    Policies(Judgement),
    /// Who is asked about requests is not asked about copies.
    Custom,
}

/// The copies of a request, each judged by what is attached to its mirror, where that is behind this waypoint: a mirror grants nobody
/// more than dialling would. `came` is the request as it came.
pub(super) async fn judged(
    caller: &Caller,
    planned: &Forward,
    target: &Target,
    came: (&Form, &HeaderMap),
) -> Vec<Copied> {
    let mut copies = Vec::with_capacity(planned.mirrors.len());
    for to in &planned.mirrors {
        let found = caller.worker.context.proxy.tables.read(|tables| tables.service(&to.service).cloned());
        let Some(service) = found else {
            tracing::warn!(route = %planned.rule().route, service = %to.service, "not mirrored: there is no such service");
            continue;
        };
        let dialled = hop::dialled(&service, to.port, target.dialled.is_ipv4());
        let may = match hop::behind_us(caller, target, &service, dialled) {
            Some(own) => may(caller, &own, came).await,
            None => Ok((Arc::default(), Vec::new())),
        };
        copies.push(Copied { service, dialled, subset: to.subset.clone(), may });
    }
    copies
}

async fn may(caller: &Caller, own: &Target, (form, headers): (&Form, &HeaderMap)) -> Result<Tokens, NotCopied> {
    let rules = own.routes.tokens.clone();
    let valid = authenticate::verify(&caller.worker.keys, &rules, form, headers).map_err(NotCopied::Tokens)?;
    let tokens = authenticate::proven(&valid);
    let facts = Facts { destination: own.dialled, ..caller.facts() };
    let http = HttpFacts { tokens: &tokens, ..HttpFacts::new(form, headers) };
    let covered = judge::covering(&caller.worker, own).await.map_err(NotCopied::Policies)?;
    if !covered.policies.asked(&facts, http).is_empty() {
        return Err(NotCopied::Custom);
    }
    judge::settled(covered.policies.decide_request(&facts, http)).map_err(NotCopied::Policies)?;
    Ok((rules, valid))
}

/// Sends copies, as tasks, and gives the request back.
///
/// # Errors
/// When the caller breaks off before its body has come.
pub(super) async fn copied(
    caller: &Rc<Caller>,
    planned: &Forward,
    copies: Vec<Copied>,
    request: Request<Body>,
    report: &Report,
) -> Result<Request<Body>, Refused> {
    if copies.is_empty() {
        return Ok(request);
    }
    let (head, body) = request.into_parts();
    let route = &planned.rule().route;
    let Some(length) = body.size_hint().exact().filter(|length| *length <= MOST) else {
        tracing::debug!(%route, "not mirrored: its body is long, or does not say how long it is");
        return Ok(Request::from_parts(head, body));
    };
    let mut part = caller.worker.copies.part(caller.source());
    if let Err(full) = part.take(COPY * copies.len() + length as usize) {
        tracing::debug!(%route, %full, "not mirrored: as much is being copied already as a data thread may copy at once");
        return Ok(Request::from_parts(head, body));
    }
    // Until the last copy has its answer.
    let part = Rc::new(part);
    let bytes = match Box::pin(body.collect()).await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => {
            let why = format!("its body broke off: {error}");
            return Err(Refused::new(StatusCode::BAD_REQUEST, ReasonCode::CallerGone, why));
        }
    };
    for copy in copies {
        let mut head = head.clone();
        let trace = report.trace.as_ref().map(|trace| Box::new(trace.of_copy()));
        let original = report;
        let mut report = Report::new(caller, &head.method, &head.uri, &head.headers, head.version);
        report.trace = trace;
        report.logged_as(original);
        report.route = Some(Followed::by_mirror(planned.rule()));
        let refused = match copy.may {
            Ok((rules, valid)) => {
                report.conceal(&rules);
                hand_on(&rules, &valid, &mut head);
                let request = Request::from_parts(head, Body::whole(bytes.clone()));
                let (caller, part) = (caller.clone(), part.clone());
                spawn_local(async move {
                    let _part = part;
                    let hop = Hop { subset: copy.subset, ..Hop::to(copy.service, copy.dialled) };
                    send(&caller, &hop, request, report).await;
                });
                continue;
            }
            Err(NotCopied::Tokens(refused)) => refused,
            Err(NotCopied::Policies(judgement)) => denied(&judgement, &mut report),
            Err(NotCopied::Custom) => {
                let why = "a CUSTOM policy is for the mirror, and nobody is asked about copies";
                Refused::new(StatusCode::FORBIDDEN, ReasonCode::PolicyDenied, why)
            }
        };
        report.answered(refused.status, &HeaderMap::new());
        report.failed(refused.code, &refused.why);
    }
    Ok(Request::from_parts(head, Body::whole(bytes)))
}

/// Tokens of the copy as the mirror's own rules have them handed on.
fn hand_on(rules: &[JwtRule], valid: &[Valid], head: &mut Parts) {
    let Some(mut path) = head.uri.path_and_query().cloned().filter(|_| !rules.is_empty()) else { return };
    authenticate::hand_on(rules, valid, &mut path, &mut head.headers);
    let mut parts = head.uri.clone().into_parts();
    parts.path_and_query = Some(path);
    if let Ok(uri) = Uri::from_parts(parts) {
        head.uri = uri;
    }
}

async fn send(caller: &Rc<Caller>, hop: &Hop<'_>, copy: Request<Body>, mut report: Report) {
    match timeout(LIMIT, forward(caller, hop, copy, None, &mut report)).await {
        Ok(Ok(answer)) => {
            report.answered(answer.head.status(), answer.head.headers());
            // Read to its end, so that the connection can be used again.
            let _ = timeout(LIMIT, answer.head.map(|body| body.watched(report)).into_body().collect()).await;
        }
        Ok(Err(refused)) => {
            report.answered(refused.status, &HeaderMap::new());
            report.failed(refused.code, &refused.why);
        }
        Err(_) => report.failed(ReasonCode::RequestTimeout, "the mirror took too long"),
    }
}
