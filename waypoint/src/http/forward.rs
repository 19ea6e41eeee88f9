//! A request to one of the endpoints of a service, and its answer.
//!
//! A connection that cannot be made costs the caller nothing: nothing was sent, so the next endpoint is asked, whatever the
//! method. Once bytes have gone out, only what a route says is sent again.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, HOST, UPGRADE};
use http::response::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use mesh_model::destination;
use mesh_model::reason::ReasonCode;
use mesh_model::service::Service;
use mesh_model::workload::AppProtocol;
use tokio::sync::oneshot::Receiver;

use super::answer::Refused;
use super::body::Body;
use super::pipeline::{Answer, is_grpc};
use super::report::Report;
use super::upgrade::Agreed;
use super::{Caller, headers};
use crate::tunnel::app_protocol;
use crate::upstream::{self, Connection, Handed, HttpVersion, Key, Lent, Unreachable, Way};

/// Endpoints that are tried before a request is given up.
const TRIES: usize = 4;

/// Where a request goes.
pub(super) struct Hop {
    /// The service.
    pub(super) service: Arc<Service>,
    /// Its address and port; of a service without address only the port counts.
    pub(super) dialled: SocketAddr,
}

/// Sends a request on. `upgrade` is the protocol that it asks to change to.
///
/// # Errors
/// When it gets no answer.
pub(super) async fn forward(
    caller: &Rc<Caller>,
    hop: &Hop,
    mut request: Request<Body>,
    upgrade: Option<HeaderValue>,
    report: &mut Report,
) -> Result<Answer, Refused> {
    let version = spoken(hop, &request, upgrade.is_some());
    address(&mut request, version, upgrade.as_ref())?;
    let mut unreachable = None;
    for _ in 0..TRIES {
        let way = match choose(caller, hop, unreachable.as_ref().map(|(address, _)| *address)) {
            Ok(way) => way,
            Err(error) => return Err(no_way(&unreachable.map_or(error, |(_, earlier)| earlier))),
        };
        let key = Key::new(&way, version);
        report.sent_to(way.address(), way.workload());
        let mut lent = match lend(caller, &way, &key).await {
            Ok(lent) => lent,
            Err(error) if error.is_of_endpoint() => {
                unreachable = Some((way.address(), error));
                continue;
            }
            Err(error) => return Err(no_way(&error)),
        };
        match lent.connection.send(request).await {
            Ok(answer) => return Ok(answered(caller, key, lent, answer)),
            Err(failed) => match failed.unsent {
                // Its endpoint has closed it meanwhile.
                Some(unsent) => request = unsent,
                None => {
                    let why = format!("{}: {}", way.address(), failed.error);
                    return Err(Refused::new(StatusCode::BAD_GATEWAY, ReasonCode::UpstreamReset, why));
                }
            },
        }
    }
    Err(match unreachable {
        Some((_, error)) => no_way(&error),
        None => Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            ReasonCode::PeerClosed,
            format!("{TRIES} connections in a row were closed before the request was looked at"),
        ),
    })
}

fn no_way(error: &Unreachable) -> Refused {
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, error.code(), error)
}

/// What is spoken to the endpoint: what the service's port says; else what the caller speaks.
fn spoken(hop: &Hop, request: &Request<Body>, upgrades: bool) -> HttpVersion {
    if upgrades {
        return HttpVersion::Http1;
    }
    match (app_protocol(&hop.service, hop.dialled.port()), request.version()) {
        (AppProtocol::Http2 | AppProtocol::Grpc, _) => HttpVersion::Http2,
        // Without HTTP/2 a gRPC call loses its trailers, and so its status.
        (_, Version::HTTP_2) if is_grpc(request.headers()) => HttpVersion::Http2,
        (AppProtocol::Unknown, Version::HTTP_2) => HttpVersion::Http2,
        _ => HttpVersion::Http1,
    }
}

/// Writes where the request goes as its version wants it.
fn address(request: &mut Request<Body>, version: HttpVersion, upgrade: Option<&HeaderValue>) -> Result<(), Refused> {
    let bad = |why: &str| Refused::new(StatusCode::BAD_REQUEST, ReasonCode::BadRequest, why);
    let uri = std::mem::take(request.uri_mut()).into_parts();
    let path = uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let host = match uri.authority {
        Some(authority) => HeaderValue::from_str(authority.as_str()).map_err(|_| bad("its authority is no host"))?,
        None => request.headers().get(HOST).cloned().unwrap_or_else(|| HeaderValue::from_static("")),
    };
    match version {
        HttpVersion::Http1 => {
            request.headers_mut().insert(HOST, host);
            *request.uri_mut() = path.into();
            *request.version_mut() = Version::HTTP_11;
            if let Some(protocol) = upgrade {
                request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
                request.headers_mut().insert(UPGRADE, protocol.clone());
            }
        }
        HttpVersion::Http2 => {
            request.headers_mut().remove(HOST);
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(host.as_bytes().try_into().map_err(|_| bad("its host is none"))?);
            parts.path_and_query = Some(path);
            *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad("its path is none"))?;
            *request.version_mut() = Version::HTTP_2;
        }
    }
    Ok(())
}

/// An endpoint; another one than `not`, if there is another.
fn choose(caller: &Caller, hop: &Hop, not: Option<SocketAddr>) -> Result<Way, Unreachable> {
    let once = || {
        caller.worker.context.proxy.tables.read(|tables| {
            destination::behind_waypoint(tables, &caller.waypoint, &hop.service, hop.dialled, rand::random())
        })
    };
    let mut way = Way::of(once())?;
    for _ in 0..4 {
        if not.is_none_or(|not| not != way.address()) {
            break;
        }
        way = Way::of(once())?;
    }
    Ok(way)
}

/// A connection that can take the request.
async fn lend(caller: &Caller, way: &Way, key: &Key) -> Result<Lent, Unreachable> {
    let pool = &caller.worker.upstream;
    if let Some(lent) = pool.take(key) {
        return Ok(lent);
    }
    let stream = upstream::open(&caller.worker, &caller.waypoint, way).await?;
    Ok(pool.add(key, Connection::begin(stream, key.version()).await?))
}

/// The answer of an endpoint, as it is passed on.
fn answered(caller: &Rc<Caller>, key: Key, lent: Lent, answer: Response<Incoming>) -> Answer {
    let (mut head, body) = answer.into_parts();
    let protocol = headers::end_to_end(&mut head.headers);
    head.version = Version::HTTP_11;
    let lent = match (head.status, protocol) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(protocol)) => match lent.upgraded() {
            Ok(endpoint) => return upgraded(caller, head, protocol, endpoint),
            Err(lent) => lent,
        },
        _ => lent,
    };
    let body = match lent.carried {
        // Of HTTP/2: counted as carried until its body has ended.
        Some(carried) => Body::passing(body).holding(carried),
        None => {
            caller.worker.upstream.give_back(&key, lent.connection);
            Body::passing(body)
        }
    };
    Answer { head: Response::from_parts(head, body), agreed: None }
}

/// Both have agreed: once the caller has the answer, its connection is carried to the endpoint's.
fn upgraded(caller: &Rc<Caller>, mut head: Parts, protocol: HeaderValue, endpoint: Receiver<Handed>) -> Answer {
    head.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    head.headers.insert(UPGRADE, protocol);
    let caller = caller.clone();
    let agreed = move |report| caller.agreed.set(Some(Agreed { endpoint, report }));
    Answer { head: Response::from_parts(head, Body::empty()), agreed: Some(Box::new(agreed)) }
}
