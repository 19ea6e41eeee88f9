//! A request to one of the endpoints of a service, and its answer.
//!
//! A connection that cannot be made costs the caller nothing: nothing was sent, so the next endpoint is asked, whatever the
//! method. So is a request that met a kept connection as its endpoint closed it, if doing it twice is like doing it once. Whatever
//! else has been sent is sent again only if the route says so.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, UPGRADE};
use http::response::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use mesh_model::destination;
use mesh_model::reason::ReasonCode;
use mesh_model::route::Retry;
use mesh_model::service::Service;
use tokio::sync::oneshot::Receiver;
use tokio::time::{Instant, sleep, timeout_at};

use super::answer::{Answer, Refused};
use super::caller::Caller;
use super::headers;
use super::replay::{Replay, backoff};
use super::report::Report;
use super::upgrade::Upgrade;
use super::written::{address, spoken};
use crate::body::Body;
use crate::target::app_protocol;
use crate::upstream::{self, Connection, Endpoint, Key, PooledConnection, Unreachable, UpgradedStream};

/// Connections that are tried before a request is given up of which nothing could be sent.
const TRIES: u32 = 4;
/// No limit that anybody waits for.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Where a request goes, and how long it may take.
pub(super) struct Hop<'a> {
    /// The service.
    pub(super) service: Arc<Service>,
    /// Its address and port; of a service without address only the port counts.
    pub(super) dialled: SocketAddr,
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
        Self { service, dialled, deadline: None, per_try: None, retry: None }
    }
}

/// Why a try gave no answer.
enum Failed {
    /// Nothing was sent, and another endpoint may take it.
    Unsent(Option<(SocketAddr, Unreachable)>),
    /// It was sent.
    Sent {
        refused: Refused,
        /// On a connection that was kept from an earlier request.
        kept: bool,
    },
    /// Nothing can be done about it.
    For(Refused),
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
    let declared = app_protocol(&hop.service, hop.dialled.port());
    let version = spoken(declared, &request, upgrade.is_some());
    address(&mut request, version, upgrade.as_ref())?;
    let until = hop.deadline.unwrap_or_else(|| Instant::now() + FOREVER);
    let mut replay = Replay::new(request, hop.retry).await.map_err(|error| {
        Refused::new(StatusCode::BAD_REQUEST, ReasonCode::CallerGone, format!("its body broke off: {error}"))
    })?;
    let (mut connections, mut again) = (0, 0);
    let (mut not, mut unreachable, mut renewed) = (None, None, false);
    loop {
        // Never missing: it was not sent, or it is kept.
        let Some(request) = replay.next() else { return Err(never_sent(unreachable)) };
        let one = hop.per_try.map_or(until, |limit| until.min(Instant::now() + limit));
        let attempt = attempt(caller, hop, version, request, not, &mut replay, report);
        let failed = match timeout_at(one, attempt).await {
            Ok(Ok((endpoint, key, pooled, answer))) => {
                let wanted = hop.retry.filter(|retry| retry.codes.contains(&answer.status().as_u16()));
                let last = wanted.is_none_or(|retry| again >= retry.attempts) || !replay.is_kept();
                if last {
                    let answer = answered(caller, key, pooled, answer, upgrade.is_some())?;
                    return Ok(answer.until(hop.deadline));
                }
                not = Some(endpoint);
                None
            }
            Ok(Err(Failed::For(refused))) => return Err(refused),
            Ok(Err(Failed::Unsent(why))) => {
                connections += 1;
                if let Some((address, error)) = why {
                    not = Some(address);
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
                match replay.is_harmless() {
                    true => Some(refused),
                    false => return Err(refused),
                }
            }
            Err(_) => {
                let why = "no answer within the time that its route allows";
                let refused = Refused::new(StatusCode::GATEWAY_TIMEOUT, ReasonCode::RequestTimeout, why);
                match Instant::now() < until && replay.is_kept() {
                    true => Some(refused),
                    false => return Err(refused),
                }
            }
        };
        // It was tried, and may be again if the route says so.
        match hop.retry {
            Some(retry) if again < retry.attempts => {
                again += 1;
                let pause = backoff(retry, again);
                if timeout_at(until, sleep(pause)).await.is_err() {
                    let why = "the time that its route allows had passed before it could be tried again";
                    return Err(Refused::new(StatusCode::GATEWAY_TIMEOUT, ReasonCode::RequestTimeout, why));
                }
            }
            _ => return Err(failed.unwrap_or_else(|| never_sent(unreachable))),
        }
    }
}

/// Sends it once. What cannot be sent is given back to `replay`.
async fn attempt(
    caller: &Rc<Caller>,
    hop: &Hop<'_>,
    version: upstream::HttpVersion,
    request: Request<Body>,
    not: Option<SocketAddr>,
    replay: &mut Replay,
    report: &mut Report,
) -> Result<(SocketAddr, Key, PooledConnection, Response<Incoming>), Failed> {
    let endpoint = match choose(caller, hop, not) {
        Ok(endpoint) => endpoint,
        Err(error) => return Err(Failed::For(unreached(&error))),
    };
    let key = Key::new(&endpoint, version);
    report.sent_to(endpoint.address(), endpoint.workload());
    let mut pooled = match connection(caller, &endpoint, &key).await {
        Ok(pooled) => pooled,
        Err(error) if error.is_of_endpoint() => {
            replay.back(request);
            return Err(Failed::Unsent(Some((endpoint.address(), error))));
        }
        Err(error) => return Err(Failed::For(unreached(&error))),
    };
    match pooled.connection.send(request).await {
        Ok(answer) => Ok((endpoint.address(), key, pooled, answer)),
        Err(failed) => Err(match failed.unsent {
            // Its endpoint has closed it meanwhile.
            Some(unsent) => {
                replay.back(unsent);
                Failed::Unsent(None)
            }
            None => {
                let why = format!("{}: {}", endpoint.address(), failed.error);
                let refused = Refused::new(StatusCode::BAD_GATEWAY, ReasonCode::UpstreamReset, why);
                Failed::Sent { refused, kept: pooled.used }
            }
        }),
    }
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

/// An endpoint; another one than `not`, if there is another.
fn choose(caller: &Caller, hop: &Hop<'_>, not: Option<SocketAddr>) -> Result<Endpoint, Unreachable> {
    let once = || {
        caller.worker.context.proxy.tables.read(|tables| {
            destination::behind_waypoint(tables, &caller.waypoint, &hop.service, hop.dialled, rand::random())
        })
    };
    let mut endpoint = Endpoint::of(once())?;
    // Chance may name it again; it is asked again then only if there seems to be no other.
    for _ in 0..8 {
        if not.is_none_or(|not| not != endpoint.address()) {
            break;
        }
        endpoint = Endpoint::of(once())?;
    }
    Ok(endpoint)
}

/// A connection that can take the request.
async fn connection(caller: &Caller, endpoint: &Endpoint, key: &Key) -> Result<PooledConnection, Unreachable> {
    let pool = &caller.worker.upstream;
    if let Some(pooled) = pool.take(key) {
        return Ok(pooled);
    }
    let stream = upstream::open(&caller.worker.context, &caller.worker.pod, &caller.waypoint, endpoint).await?;
    Ok(pool.add(key, Connection::begin(stream, key.version()).await?))
}

/// The answer of an endpoint, as it is passed on. `asked` says whether the caller wants to change to another protocol.
fn answered(
    caller: &Rc<Caller>,
    key: Key,
    pooled: PooledConnection,
    answer: Response<Incoming>,
    asked: bool,
) -> Result<Answer, Refused> {
    let (mut head, body) = answer.into_parts();
    let protocol = headers::end_to_end(&mut head.headers);
    head.version = Version::HTTP_11;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return match (protocol.filter(|_| asked), pooled.upgraded()) {
            (Some(protocol), Some(endpoint)) => Ok(upgraded(caller, head, protocol, endpoint)),
            _ => {
                let why = "it changes to a protocol that its caller has not asked for";
                Err(Refused::new(StatusCode::BAD_GATEWAY, ReasonCode::UpstreamReset, why))
            }
        };
    }
    let body = match pooled.carried {
        // Of HTTP/2: counted as carried until its body has ended.
        Some(carried) => Body::passing(body).holding(carried),
        None => {
            caller.worker.upstream.give_back(&key, pooled.connection);
            Body::passing(body)
        }
    };
    Ok(Answer { head: Response::from_parts(head, body), agreed: None })
}

/// Both have agreed: once the caller has the answer, its connection is carried to the endpoint's.
fn upgraded(caller: &Rc<Caller>, mut head: Parts, protocol: HeaderValue, endpoint: Receiver<UpgradedStream>) -> Answer {
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, protocol);
    let caller = caller.clone();
    let agreed = move |report| {
        let agreed = Upgrade { endpoint, report };
        caller.agreed.set(Some(Box::new(|stream, read| Box::pin(agreed.carry(stream, read)))));
    };
    Answer { head: Response::from_parts(head, Body::empty()), agreed: Some(Box::new(agreed)) }
}
