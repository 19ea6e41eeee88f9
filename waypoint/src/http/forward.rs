//! A request to one of the endpoints of a service, and its answer.
//!
//! A connection that cannot be made costs the caller nothing: nothing was sent, so the next endpoint is asked, whatever the
//! method. So is a request of which an endpoint says that it has not taken it (HTTP/2: GOAWAY, REFUSED_STREAM), as long as its body is
//! kept, and one that met a kept connection as its endpoint closed it, if doing it twice is like doing it once. Whatever else has been
//! sent is sent again only if the route says so.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::response::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use mesh_model::reason::ReasonCode;
use mesh_model::route::Retry;
use mesh_model::service::Service;
use mesh_model::traffic::HashBy;
use mesh_model::traffic::outlier::{Outcome, status_of_grpc};
use tokio::sync::oneshot::Receiver;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout_at};

use super::answer::{Answer, Refused};
use super::caller::Caller;
use super::hashed::Hashed;
use super::headers;
use super::held::Held;
use super::replay::{Replay, backoff};
use super::report::Report;
use super::upgrade::Upgrade;
use super::written::{address, spoken};
use crate::body::Body;
use crate::room::Part;
use crate::target::app_protocol;
use crate::upstream::{
    self, HttpVersion, Key, Limit, Picked, PooledConnection, SendError, Unreachable, UpgradedStream,
};

/// Connections that are tried before a request is given up of which nothing could be sent.
const TRIES: u32 = 4;

/// Where a request goes, and how long it may take.
pub(super) struct Hop<'a> {
    /// The service.
    pub(super) service: Arc<Service>,
    /// Its address and port; of a service without address only the port counts.
    pub(super) dialled: SocketAddr,
    /// Which of its endpoints; `None` is all.
    pub(super) subset: Option<Arc<str>>,
    /// When the answer must have ended.
    pub(super) deadline: Option<Instant>,
    /// How long one try may take.
    pub(super) per_try: Option<Duration>,
    /// What is tried again.
    pub(super) retry: Option<&'a Retry>,
}

impl Hop<'_> {
    /// To a port of a service, without limits.
    pub(super) fn to(service: Arc<Service>, dialled: SocketAddr) -> Self {
        Self { service, dialled, subset: None, deadline: None, per_try: None, retry: None }
    }
}

/// Why a try gave no answer.
enum Failed {
    /// Nothing was sent, and another endpoint may take it.
    Unsent(Option<Unreachable>),
    /// It was sent, and its endpoint has not taken it.
    Untaken {
        refused: Refused,
        /// It leaves: it was not too much for it.
        leaves: bool,
    },
    /// It was sent.
    Sent {
        refused: Refused,
        /// On a connection that was kept from an earlier request.
        kept: bool,
    },
    /// Nothing can be done about it.
    For(Refused),
}

impl Failed {
    fn code(&self) -> ReasonCode {
        match self {
            Self::Unsent(why) => why.as_ref().map_or(ReasonCode::PeerClosed, Unreachable::code),
            Self::Untaken { refused, .. } | Self::Sent { refused, .. } | Self::For(refused) => refused.code,
        }
    }
}

/// Sends a request on. `upgrade` is the protocol that it asks to change to.
///
/// # Errors
/// When it gets no answer.
pub(super) async fn forward(
    caller: &Rc<Caller>,
    hop: &Hop<'_>,
    mut request: Request<Body>,
    upgrade: Option<HeaderValue>,
    report: &mut Report,
) -> Result<Answer, Refused> {
    let worker = &caller.worker;
    let declared = app_protocol(&hop.service, hop.dialled.port());
    let version = spoken(declared, &request, upgrade.is_some());
    address(&mut request, version, upgrade.as_ref())?;
    let under_way = own_tunnel(caller, version)?;
    let until = hop.deadline;
    let part = || worker.kept_bodies.part(caller.source());
    let replay = Replay::new(request, version, hop.retry, part);
    let (mut connections, mut again) = (0, 0);
    let (mut not, mut unreachable, mut renewed, mut was_refused) = (None, None, false, false);
    let (mut hashed, mut retrying, mut next) = (Hashed::default(), None, None);
    loop {
        // Never missing: it was not sent, or it is kept.
        let request = next.take().or_else(|| replay.next());
        let Some(mut request) = request else { return Err(never_sent(unreachable)) };
        let by = |by: &HashBy| hashed.of(by, &request, caller.from.ip());
        let picked =
            upstream::choose(worker, &caller.waypoint, (&hop.service, hop.dialled, hop.subset.as_ref()), by, not);
        let picked = picked.await.map_err(|error| unreached(&error))?;
        report.sent_to(picked.endpoint.address(), picked.endpoint.workload());
        if let Some(trace) = &mut report.trace {
            let endpoint = (picked.endpoint.address(), picked.endpoint.workload());
            trace.next_try((&hop.service, hop.dialled.port()), endpoint, request.headers_mut());
        }
        let permit = picked.take(worker, Limit::Requests).map_err(|error| unreached(&error))?;
        let (active, key) = (picked.active(), picked.key(version));
        let one = hop.per_try.map(|limit| Instant::now() + limit).into_iter().chain(until).min();
        let ended = {
            let attempt = pin!(attempt(caller, &picked, &key, request));
            in_time(one, attempt).await
        };
        if let Some(trace) = &mut report.trace {
            match &ended {
                Ok(Ok((_, answer))) => trace.answered(answer.status().as_u16()),
                Ok(Err(failed)) => trace.failed(failed.code()),
                Err(_) => trace.failed(ReasonCode::RequestTimeout),
            }
        }
        let (ended, may_again) = match ended {
            Ok(Ok((pooled, answer))) => {
                picked.ended(Outcome::Answered(counts_as(&answer)));
                let (status, grpc) = (answer.status().as_u16(), grpc_status(&answer));
                let wanted = hop.retry.is_some_and(|retry| retry.wants(status, grpc));
                (Ok((pooled, answer)), wanted && replay.is_kept())
            }
            Ok(Err(Failed::For(refused))) => return Err(refused),
            Ok(Err(Failed::Sent { .. } | Failed::Untaken { .. })) if replay.broke().is_some() => {
                let why = format!("its body broke off: {}", replay.broke().unwrap_or_default());
                return Err(Refused::new(StatusCode::BAD_REQUEST, ReasonCode::CallerGone, why));
            }
            Ok(Err(Failed::Untaken { refused, leaves })) => {
                not = Some(picked.endpoint.address());
                connections += 1;
                if !leaves {
                    picked.ended(Outcome::Failed);
                }
                // What is too much for two of them is sent to no third: that would make it more.
                let too_much = !leaves && std::mem::replace(&mut was_refused, true);
                if !too_much && connections < TRIES && replay.is_kept() {
                    continue;
                }
                (Err(refused), replay.is_kept())
            }
            Ok(Err(Failed::Unsent(why))) => {
                connections += 1;
                if let Some(error) = why {
                    if let Some(outcome) = error.outcome() {
                        picked.ended(outcome);
                    }
                    not = Some(picked.endpoint.address());
                    unreachable = Some(error);
                }
                if connections < TRIES {
                    continue;
                }
                return Err(never_sent(unreachable));
            }
            Ok(Err(Failed::Sent { refused, kept })) => {
                if kept && !renewed && replay.is_harmless() {
                    renewed = true;
                    continue;
                }
                picked.ended(Outcome::Failed);
                (Err(refused), replay.is_harmless())
            }
            Err(_) => {
                picked.ended(Outcome::TimedOut);
                let why = "no answer within the time that its route allows";
                let refused = Refused::new(StatusCode::GATEWAY_TIMEOUT, ReasonCode::RequestTimeout, why);
                (Err(refused), until.is_none_or(|until| Instant::now() < until) && replay.is_kept())
            }
        };
        // It was tried, and may be again if the route says so, and so many are not tried again already.
        let retry = hop.retry.filter(|retry| may_again && again < retry.attempts);
        if retry.is_some() {
            retrying = None;
        }
        // It is taken back now: while it waits, the endpoint that has answered would go on to get more of it than is kept.
        let allowed = retry.and_then(|retry| Some((retry, picked.take(worker, Limit::Retries).ok()?, replay.next()?)));
        let Some((retry, allowed, request)) = allowed else {
            let (mut pooled, answer) = ended?;
            replay.is_answered();
            let carried = pooled.carried.take();
            let held = Held::new(carried, (permit, retrying), active, under_way);
            let mut answer = answered(caller, (&picked, key), pooled, answer, (upgrade.is_some(), held))?;
            hashed.tell(answer.head.headers_mut());
            return Ok(answer.until(hop.deadline));
        };
        (retrying, next) = (Some(allowed), Some(request));
        not = Some(picked.endpoint.address());
        // What is not the answer is let go of before anybody waits.
        drop((ended, permit, active));
        again += 1;
        if in_time(until, pin!(sleep(backoff(retry, again)))).await.is_err() {
            let why = "the time that its route allows had passed before it could be tried again";
            return Err(Refused::new(StatusCode::GATEWAY_TIMEOUT, ReasonCode::RequestTimeout, why));
        }
    }
}

/// Its caller's place for it, where it needs a tunnel of its own: many requests share one of HTTP/2.
fn own_tunnel(caller: &Caller, version: HttpVersion) -> Result<Option<Part>, Refused> {
    match version {
        HttpVersion::Http1 => caller.under_way().map(Some),
        HttpVersion::Http2 => Ok(None),
    }
    .map_err(|(code, why)| Refused::new(StatusCode::SERVICE_UNAVAILABLE, code, why))
}

/// Waits until `what` is done, or `until` has come. It is pinned elsewhere, so that a request holds it once.
async fn in_time<F: Future>(until: Option<Instant>, what: Pin<&mut F>) -> Result<F::Output, Elapsed> {
    match until {
        Some(until) => timeout_at(until, what).await,
        None => Ok(what.await),
    }
}

/// Sends it once.
async fn attempt(
    caller: &Rc<Caller>,
    picked: &Picked,
    key: &Key,
    request: Request<Body>,
) -> Result<(PooledConnection, Response<Incoming>), Failed> {
    let acquired = upstream::acquire(&caller.worker, &caller.waypoint, picked, key).await;
    let mut pooled = match acquired {
        Ok(pooled) => pooled,
        Err(error) if error.is_of_endpoint() => return Err(Failed::Unsent(Some(error))),
        Err(error) => return Err(Failed::For(unreached(&error))),
    };
    match pooled.connection.send(request).await {
        Ok(answer) => Ok((pooled, answer)),
        Err(failed) => {
            let why = format!("{}: {failed}", picked.endpoint.address());
            let refused = || Refused::new(StatusCode::BAD_GATEWAY, ReasonCode::UpstreamReset, why);
            Err(match failed {
                // Its endpoint has closed it meanwhile.
                SendError::Unsent(_) => Failed::Unsent(None),
                SendError::Leaves(_) => Failed::Untaken { refused: refused(), leaves: true },
                SendError::RefusedStream(_) => Failed::Untaken { refused: refused(), leaves: false },
                SendError::Sent(_) => Failed::Sent { refused: refused(), kept: pooled.is_used() },
            })
        }
    }
}

/// The status that outlier detection counts: of a gRPC call that has ended already, what it ended with.
fn counts_as(answer: &Response<Incoming>) -> u16 {
    grpc_status(answer).map_or(answer.status().as_u16(), status_of_grpc)
}

fn grpc_status(answer: &Response<Incoming>) -> Option<u8> {
    answer.headers().get("grpc-status").and_then(|status| status.to_str().ok()?.parse().ok())
}

fn unreached(error: &Unreachable) -> Refused {
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), error)
}

/// No connection took it.
fn never_sent(last: Option<Unreachable>) -> Refused {
    last.map_or_else(
        || {
            let why = format!("{TRIES} connections in a row were closed before the request was looked at");
            Refused::new(StatusCode::SERVICE_UNAVAILABLE, ReasonCode::PeerClosed, why)
        },
        |error| unreached(&error),
    )
}

/// The answer of an endpoint, as it is passed on. `asked` says whether the caller wants to change to another protocol.
fn answered(
    caller: &Rc<Caller>,
    (picked, key): (&Picked, Key),
    pooled: PooledConnection,
    answer: Response<Incoming>,
    (asked, held): (bool, Held),
) -> Result<Answer, Refused> {
    let (mut head, body) = answer.into_parts();
    let protocol = headers::end_to_end(&mut head.headers);
    head.version = Version::HTTP_11;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return match (protocol.filter(|_| asked), pooled.upgraded()) {
            (Some(protocol), Some(endpoint)) => Ok(upgraded(caller, head, protocol, (endpoint, held))),
            _ => {
                let why = "it changes to a protocol that its caller has not asked for";
                Err(Refused::new(StatusCode::BAD_GATEWAY, ReasonCode::UpstreamReset, why))
            }
        };
    }
    if key.version() == HttpVersion::Http1 {
        upstream::give_back(&caller.worker, key, pooled, picked);
    }
    // Counted until its body has ended.
    let body = Body::passing(body).holding(held);
    Ok(Answer { head: Response::from_parts(head, body), agreed: None })
}

/// Both have agreed: once the caller has the answer, its connection is carried to the endpoint's.
fn upgraded(
    caller: &Rc<Caller>,
    mut head: Parts,
    protocol: HeaderValue,
    (endpoint, held): (Receiver<UpgradedStream>, Held),
) -> Answer {
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, protocol);
    let caller = caller.clone();
    let agreed = move |report| {
        let agreed = Upgrade { endpoint, report, held };
        caller.agreed.set(Some(Box::new(|stream, read| Box::pin(agreed.carry(stream, read)))));
    };
    Answer { head: Response::from_parts(head, Body::empty()), agreed: Some(Box::new(agreed)) }
}
